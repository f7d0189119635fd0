# HTTP.rb with its form_data.
require "http"
require_relative "job"

run(HTTP::VERSION) do |mode, url, files, fields|
  next if mode != "plain"
  form = files.group_by(&:first).transform_values do |group|
    group.map { |_, path, name| HTTP::FormData::File.new(path, filename: name) }
  end
  fields.each do |name, value, type|
    form[name] = type.empty? ? value : HTTP::FormData::Part.new(value, content_type: type)
  end
  HTTP.post(url, form: form).flush.code # which lets it close the connection
end
