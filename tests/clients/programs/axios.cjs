// axios with a FormData as of a browser.
const axios = require("axios");
const { form, run } = require("./job.cjs");

const options = { proxy: false, validateStatus: () => true, maxBodyLength: Infinity };
run(
  axios.VERSION,
  async sent => {
    if (sent.mode !== "plain") return null;
    return (await axios.post(sent.url, await form(FormData, Blob, sent), options)).status;
  },
  async url => {
    const answer = await axios.get(url, { ...options, responseType: "arraybuffer" });
    return [answer.status, answer.data];
  },
);
