# Net::HTTP, which is Ruby's own. Its set_form sends from the files, in chunks if it is told to.
require_relative "job"

run(RUBY_VERSION) do |mode, url, files, fields|
  next if mode == "expect"
  form = files.map { |field, path, name| [field, File.open(path, "rb"), { filename: name }] }
  form += fields.map { |name, value, type| [name, value, type.empty? ? {} : { content_type: type }] }
  request = Net::HTTP::Post.new(URI(url))
  request["Transfer-Encoding"] = "chunked" if mode == "stream"
  request.set_form(form, "multipart/form-data")
  Net::HTTP.start(request.uri.host, request.uri.port) { |http| http.request(request).code }
end
