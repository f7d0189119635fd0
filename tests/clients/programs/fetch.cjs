// What is built into Node.js: fetch and FormData.
const { form, run } = require("./job.cjs");

run(
  process.versions.node,
  async sent => {
    if (sent.mode !== "plain") return null;
    return (await fetch(sent.url, { method: "POST", body: await form(FormData, Blob, sent) })).status;
  },
  async url => {
    const answer = await fetch(url);
    return [answer.status, Buffer.from(await answer.arrayBuffer())];
  },
);
