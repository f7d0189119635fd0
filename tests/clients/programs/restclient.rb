# rest-client. A file's name is what its original_filename says.
require "rest-client"
require_relative "job"

def named(path, name)
  File.open(path, "rb").tap { |file| file.define_singleton_method(:original_filename) { name } }
end

run(RestClient::VERSION) do |mode, url, files, fields|
  next if mode != "plain"
  parts = files.map { |field, path, name| [field, named(path, name)] }
  parts += fields.map { |name, value, _| [name, value] }
  RestClient.post(url, RestClient::ParamsArray.new(parts)) { |answer| answer.code }
end
