// got with a FormData as of a browser. It is a module that only import() loads, so its folder is named.
const { form, run, version } = require("./job.cjs");

(async () => {
  const { default: got } = await import(`${process.env.NODE_PATH}/got/dist/source/index.js`);
  const options = { throwHttpErrors: false, retry: { limit: 0 } };
  await run(
    version("got"),
    async sent => {
      if (sent.mode !== "plain") return null;
      return (await got.post(sent.url, { ...options, body: await form(FormData, Blob, sent) })).statusCode;
    },
    async url => {
      const answer = await got(url, { ...options, responseType: "buffer" });
      return [answer.statusCode, answer.body];
    },
  );
})();
