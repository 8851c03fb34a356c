// node-redis 4 and later (the version is named by the third argument: redis4, redis5, redis): default settings, and
// each protocol from v5 on.
const assert = require("node:assert");
const [host, port, name] = [process.argv[2], Number(process.argv[3]), process.argv[4]];
const { createClient, WatchError } = require(name);
const version = require(`${name}/package.json`).version;
const { hits, step, soon, again } = require("step.js");

async function check(RESP) {
  const options = { socket: { host, port }, ...(RESP ? { RESP } : {}) };
  let calm = true;
  const r = await createClient(options).on("error", (error) => { if (calm) throw error; }).connect();
  await hits(r);
  await r.flushAll();
  await r.set("users/a", "1");
  assert.equal(await r.get("users/a"), "1");
  assert.equal(await r.incr("users/a"), 2);
  assert.equal(await r.get("users/a"), "2");
  assert.equal(await r.get("users/none"), null);
  await Promise.all(Array.from({ length: 500 }, (_, i) => r.set(`users/${i}`, String(i))));
  const all = await Promise.all(Array.from({ length: 500 }, (_, i) => r.get(`users/${i}`)));
  assert.deepEqual(all, all.map((_, i) => String(i)));
  assert.deepEqual(await r.mGet(["users/1", "users/none", "users/2"]), ["1", null, "2"]);
  await r.hSet("h", { a: "1", b: "two" });
  assert.deepEqual({ ...(await r.hGetAll("h")) }, { a: "1", b: "two" });
  await r.zAdd("z", [{ score: 1.5, value: "x" }, { score: 2, value: "y" }]);
  assert.deepEqual((await r.zRangeWithScores("z", 0, -1)).map(({ score }) => score), [1.5, 2]);
  await r.sAdd("s", ["m"]);
  assert.deepEqual([...(await r.sMembers("s"))], ["m"]);
  assert.deepEqual(await r.multi().set("users/m", "1").get("users/m").exec(), ["OK", "1"]);
  const other = await r.duplicate().connect();
  const alone = await r.duplicate().connect();
  await alone.watch("users/m");
  await other.incr("users/m");
  await assert.rejects(alone.multi().set("users/m", "lost").exec(), WatchError);
  assert.equal(await r.get("users/m"), "2");
  const sub = await r.duplicate().connect();
  const seen = [];
  await sub.subscribe("news", (message, channel) => seen.push([channel, message]));
  await sub.pSubscribe("n*", (message, channel) => seen.push([channel, message]));
  await r.publish("news", "hello");
  while (seen.length < 2) await soon(2);
  assert.deepEqual(seen, [["news", "hello"], ["news", "hello"]]);
  await sub.unsubscribe("news");
  await sub.pUnsubscribe("n*");
  assert.equal(await sub.get("users/1"), "1");
  const waiting = other.blPop("queue", 10);
  await soon(30);
  await r.rPush("queue", "job");
  assert.equal((await waiting).element, "job");
  assert.equal(await r.eval("return redis.call('set', KEYS[1], ARGV[1])", { keys: ["users/d"], arguments: ["x"] }), "OK");
  assert.equal(await r.get("users/d"), "x");
  const keys = [];
  for await (const some of r.scanIterator({ MATCH: "users/*", COUNT: 50 })) keys.push(...[some].flat());
  assert.equal(new Set(keys).size, 503);
  await r.xAdd("st", "*", { a: "1" });
  assert.equal((await r.xRange("st", "-", "+")).length, 1);
  await other.select(2);
  await other.set("users/a", "db2");
  assert.equal(await other.get("users/a"), "db2");
  assert.equal(await r.get("users/a"), "2");
  const big = "x".repeat(5_000_000);
  await r.set("big", big);
  for (let i = 0; i < 2; i++) assert.equal(await r.get("big"), big);
  await hits(r);
  const leave = (client) => (client.destroy ? client.destroy() : client.disconnect());
  for (const client of [other, alone, sub]) await leave(client);
  const many = await Promise.all(Array.from({ length: 20 }, () => createClient(options).connect()));
  for (const one of many) assert.equal(await one.get("read"), "1");
  await step("many");
  for (const one of many) await leave(one);
  calm = false;
  for (const which of ["nearside", "upstream"]) {
    await step(`restart ${which}`);
    await again(() => r.set("read", "1"));
    await hits(r);
  }
  await leave(r);
}

(async () => {
  for (const RESP of version.startsWith("4.") ? [undefined] : [undefined, 2, 3]) await check(RESP);
  console.log("node-redis", version);
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
