// ioredis and iovalkey: hits, values, pipelines, transactions, pub/sub, blocking, scripts, scans, streams, keyPrefix, restarts.
const assert = require("node:assert");
const [host, port, name] = [process.argv[2], Number(process.argv[3]), process.argv[4]];
const Redis = require(name);
const { hits, step, soon, again } = require("step.js");

(async () => {
  const r = new Redis({ host, port });
  // It connects anew by itself; without a listener it would log each try.
  r.on("error", () => {});
  await hits(r);
  await r.flushall();
  await r.set("users/a", "1");
  assert.equal(await r.get("users/a"), "1");
  assert.equal(await r.incr("users/a"), 2);
  assert.equal(await r.get("users/a"), "2");
  assert.equal(await r.get("users/none"), null);
  await Promise.all(Array.from({ length: 500 }, (_, i) => r.set(`users/${i}`, i)));
  const all = await Promise.all(Array.from({ length: 500 }, (_, i) => r.get(`users/${i}`)));
  assert.deepEqual(all, all.map((_, i) => String(i)));
  assert.deepEqual(await r.mget("users/1", "users/none", "users/2"), ["1", null, "2"]);
  const replies = await r.pipeline().set("users/p", 1).incr("users/p").get("users/p").lpush("users/p", 1).exec();
  assert.deepEqual(replies.slice(0, 3), [[null, "OK"], [null, 2], [null, "2"]]);
  assert.match(replies[3][0].message, /WRONGTYPE/);
  assert.deepEqual(await r.multi().set("users/m", 1).get("users/m").exec(), [[null, "OK"], [null, "1"]]);
  await assert.rejects(r.multi().set("users/m").exec(), /EXECABORT|wrong number/);
  const other = r.duplicate();
  await r.watch("users/m");
  await other.incr("users/m");
  assert.equal(await r.multi().set("users/m", "lost").exec(), null);
  assert.equal(await r.get("users/m"), "2");

  const sub = r.duplicate();
  const seen = [];
  sub.on("message", (channel, message) => seen.push([channel, message]));
  sub.on("pmessage", (pattern, channel, message) => seen.push([pattern, channel, message]));
  assert.equal(await sub.subscribe("news"), 1);
  assert.equal(await sub.psubscribe("n*"), 2);
  assert.equal(await r.publish("news", "hello"), 2);
  while (seen.length < 2) await soon(2);
  assert.deepEqual(seen, [["news", "hello"], ["n*", "news", "hello"]]);
  await sub.unsubscribe("news");
  await sub.punsubscribe("n*");
  assert.equal(await sub.get("users/1"), "1");

  const waiting = other.blpop("queue", 10);
  await soon(30);
  await r.rpush("queue", "job");
  assert.deepEqual(await waiting, ["queue", "job"]);
  r.defineCommand("double", { numberOfKeys: 1, lua: "return redis.call('set', KEYS[1], ARGV[1] * 2)" });
  await r.double("users/d", 21);
  assert.equal(await r.get("users/d"), "42");
  const keys = [];
  for await (const some of r.scanStream({ match: "users/*", count: 50 })) keys.push(...some);
  assert.equal(new Set(keys).size, 504);
  await r.xadd("st", "*", "a", "1");
  assert.equal((await r.xread("COUNT", 1, "STREAMS", "st", 0))[0][1].length, 1);
  const named = new Redis({ host, port, db: 2, keyPrefix: "items/", connectionName: "me" });
  await named.set("x", "db2");
  assert.equal(await named.get("x"), "db2");
  assert.equal(await named.client("GETNAME"), "me");
  assert.equal(await r.get("items/x"), null);
  const monitor = await r.duplicate().monitor();
  // Version 4 says that it monitors before it is told so.
  let monitored = false;
  monitor.on("monitor", (time, args) => (monitored ||= args[1] === "monitored"));
  while (!monitored) await r.set("monitored", 1).then(() => soon(5));
  const big = "x".repeat(5_000_000);
  await r.set("big", big);
  for (let i = 0; i < 2; i++) assert.equal(await r.get("big"), big);
  await hits(r);
  [other, sub, named, monitor].forEach((client) => client.disconnect());
  const many = Array.from({ length: 20 }, () => new Redis({ host, port }));
  for (const one of many) assert.equal(await one.get("read"), "1");
  await step("many");
  many.forEach((one) => one.disconnect());
  for (const which of ["nearside", "upstream"]) {
    await step(`restart ${which}`);
    await again(() => r.set("read", "1"));
    await hits(r);
  }
  console.log(name.replace(/\d/, ""), require(`${name}/package.json`).version);
  // The client that MONITOR was asked of makes another for itself, and stays open.
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
