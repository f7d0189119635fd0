// What the programs for Node.js have in common: the job is read, and each case's outcome is printed.
const fs = require("fs");

// send(case) resolves to a status, or to null for what the client does not have; fetch(url) to [status, Buffer].
exports.run = async (version, send, fetch) => {
  console.log(version);
  for (const line of fs.readFileSync(process.argv[2], "utf8").trimEnd().split("\n")) {
    const [mode, url, download, save, ...parts] = line.split("\t");
    const files = [], fields = [];
    for (let at = 0; at < parts.length; at += 4) {
      const [kind, ...rest] = parts.slice(at, at + 4);
      (kind === "file" ? files : fields).push(rest);
    }
    try {
      const status = await send({ mode, url, files, fields });
      if (status === null) { console.log("-"); continue; }
      const [got, content] = await fetch(download);
      fs.writeFileSync(save, content);
      console.log(`${status} ${got}`);
    } catch (error) {
      console.log(String(error.cause || error).split("\n")[0].slice(0, 200));
    }
  }
};

// The form of a browser, as the classes given make it.
exports.form = async (FormData, Blob, { files, fields }) => {
  const form = new FormData();
  for (const [field, path, name] of files) form.append(field, new Blob([fs.readFileSync(path)]), name);
  for (const [name, value] of fields) {
    // Only a Blob has a type, and a Blob is a file.
    form.append(name, value);
  }
  return form;
};

exports.version = name => JSON.parse(fs.readFileSync(`${process.env.NODE_PATH}/${name}/package.json`)).version;
