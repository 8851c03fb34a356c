// Asks the one who runs this script (see `run`).
const assert = require("node:assert");
const lines = require("node:readline").createInterface({ input: process.stdin });
const waiting = [];
lines.on("line", () => waiting.shift()());

exports.step = (what) =>
  new Promise((done) => {
    waiting.push(done);
    process.stdout.write(`@ ${what}\n`);
  });

exports.soon = (ms) => new Promise((done) => setTimeout(done, ms));

// The result of action, tried until it fails no more: a client that connects anew by itself.
exports.again = async (action, seconds = 15) => {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    let timer;
    const late = new Promise((_, fail) => (timer = setTimeout(() => fail(new Error("no answer in 3 s")), 3000)));
    try {
      return await Promise.race([action(), late]);
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await exports.soon(20);
    } finally {
      clearTimeout(timer);
    }
  }
};

// What is written and read again is a hit, for one who asks again and again.
exports.hits = async (r) => {
  await r.set("read", "1");
  await exports.step("reading");
  for (let i = 0; i < 10; i++) assert.equal(await r.get("read"), "1");
  await exports.step("read");
};
