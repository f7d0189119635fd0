// form-data: streams that are piped into a request of Node.js, in chunks if no length was counted.
const fs = require("fs");
const http = require("http");
const FormData = require("form-data");
const { run, version } = require("./job.cjs");

const answered = request => new Promise((resolve, reject) => {
  request.on("error", reject);
  request.on("response", response => {
    const pieces = [];
    response.on("data", piece => pieces.push(piece));
    response.on("end", () => resolve([response.statusCode, Buffer.concat(pieces)]));
    response.on("error", reject);
  });
});

run(
  version("form-data"),
  async ({ mode, url, files, fields }) => {
    if (mode === "expect") return null;
    const form = new FormData();
    for (const [field, path, name] of files) form.append(field, fs.createReadStream(path), name);
    for (const [name, value, type] of fields) form.append(name, value, type ? { contentType: type } : {});
    const headers = form.getHeaders();
    if (mode !== "stream") {
      headers["Content-Length"] = await new Promise((resolve, reject) =>
        form.getLength((error, length) => error ? reject(error) : resolve(length)));
    }
    const request = http.request(url, { method: "POST", headers });
    form.pipe(request);
    return (await answered(request))[0];
  },
  url => answered(http.get(url)),
);
