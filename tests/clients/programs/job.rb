# What the programs for Ruby have in common: the job is read, and each case's outcome is printed.
# The block sends a case and returns its status, or nil for what the client does not have.
require "net/http"

def run(version)
  $stdout.sync = true
  puts version
  File.foreach(ARGV[0], chomp: true, encoding: "UTF-8") do |line|
    mode, url, download, save, *parts = line.split("\t", -1)
    files, fields = parts.each_slice(4).partition { |part| part[0] == "file" }
    begin
      status = yield mode, url, files.map { |part| part.drop(1) }, fields.map { |part| part.drop(1) }
      next puts("-") unless status
      got = Net::HTTP.get_response(URI(download))
      File.binwrite(save, got.body)
      puts "#{status} #{got.code}"
    rescue StandardError => error
      puts "#{error.class}: #{error.message}".tr("\n", " ")[0, 200]
    end
  end
end
