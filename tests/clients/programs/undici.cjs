// undici's fetch and FormData, from its own package.
const undici = require("undici");
const { form, run, version } = require("./job.cjs");

run(
  version("undici"),
  async sent => {
    if (sent.mode !== "plain") return null;
    return (await undici.fetch(sent.url, { method: "POST", body: await form(undici.FormData, Blob, sent) })).status;
  },
  async url => {
    const answer = await undici.fetch(url);
    return [answer.status, Buffer.from(await answer.arrayBuffer())];
  },
);
