# Faraday with multipart-post.
require "faraday"
require_relative "job"

run(Faraday::VERSION) do |mode, url, files, fields|
  next if mode != "plain"
  agent = Faraday.new { |build| build.request(:multipart); build.adapter(:net_http) }
  form = files.group_by(&:first).transform_values do |group|
    parts = group.map { |_, path, name| Faraday::FilePart.new(path, "application/octet-stream", name) }
    parts.one? ? parts[0] : parts
  end
  fields.each { |name, value, type| form[name] = type.empty? ? value : Faraday::ParamPart.new(value, type) }
  agent.post(url, form).status
end
