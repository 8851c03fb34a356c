// node-redis 3, with callbacks: hits, batches, transactions, pub/sub, blocking, scripts, restarts.
const assert = require("node:assert");
const { promisify } = require("node:util");
const redis = require("redis3");
const { step, soon, again } = require("step.js");
const [host, port] = [process.argv[2], Number(process.argv[3])];

function client() {
  const one = redis.createClient({ host, port });
  one.on("error", () => {});
  for (const name of ["set", "get", "incr", "del", "publish", "blpop", "rpush", "eval", "watch", "flushall", "mset", "scan"])
    one[name + "Soon"] = promisify(one[name]).bind(one);
  return one;
}

const exec = (batch) => promisify(batch.exec).call(batch);

async function hits(r) {
  await r.setSoon("read", "1");
  await step("reading");
  for (let i = 0; i < 10; i++) assert.equal(await r.getSoon("read"), "1");
  await step("read");
}

(async () => {
  const r = client();
  await hits(r);
  await r.flushallSoon();
  assert.equal(await r.incrSoon("users/a"), 1);
  assert.equal(await r.getSoon("users/a"), "1");
  assert.equal(await r.getSoon("users/none"), null);
  assert.deepEqual(await exec(r.batch().set("users/p", 1).incr("users/p").get("users/p")), ["OK", 2, "2"]);
  assert.deepEqual(await exec(r.multi().set("users/p", 1).incr("users/p").get("users/p")), ["OK", 2, "2"]);
  const other = client();
  await r.watchSoon("users/p");
  await other.incrSoon("users/p");
  assert.equal(await exec(r.multi().set("users/p", "lost")), null);
  assert.equal(await r.getSoon("users/p"), "3");
  const sub = client();
  const seen = [];
  sub.on("message", (channel, message) => seen.push([channel, message]));
  await new Promise((done) => sub.on("subscribe", done).subscribe("news"));
  assert.equal(await r.publishSoon("news", "hello"), 1);
  while (seen.length < 1) await soon(2);
  assert.deepEqual(seen, [["news", "hello"]]);
  const waiting = other.blpopSoon("queue", 10);
  await soon(30);
  await r.rpushSoon("queue", "job");
  assert.deepEqual(await waiting, ["queue", "job"]);
  assert.equal(await r.evalSoon("return redis.call('incr', KEYS[1])", 1, "users/p"), 4);
  assert.equal(await r.getSoon("users/p"), "4");
  const big = "x".repeat(5_000_000);
  await r.setSoon("big", big);
  for (let i = 0; i < 2; i++) assert.equal(await r.getSoon("big"), big);
  await hits(r);
  const many = Array.from({ length: 20 }, client);
  for (const one of many) assert.equal(await one.getSoon("read"), "1");
  await step("many");
  many.forEach((one) => one.end(true));
  for (const which of ["nearside", "upstream"]) {
    await step(`restart ${which}`);
    await again(() => r.setSoon("read", "1"));
    await hits(r);
  }
  console.log("node-redis", require("redis3/package.json").version);
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
