// valkey-glide for Node (RESP3 by default): hits, batches, blocking, scripts, restarts.
const assert = require("node:assert");
const { GlideClient, Batch, Script, ProtocolVersion } = require("@valkey/valkey-glide");
const version = require("package.json").dependencies["@valkey/valkey-glide"];
const { hits, step, soon, again } = require("step.js");
const [host, port] = [process.argv[2], Number(process.argv[3])];

async function check(options) {
  // The default of 250 ms is short for 5 MB on a machine with other things to do.
  const client = () => GlideClient.createClient({ addresses: [{ host, port }], requestTimeout: 10_000, ...options });
  const r = await client();
  await hits(r);
  await r.flushall();
  assert.equal(await r.incr("users/a"), 1);
  assert.equal(await r.get("users/a"), "1");
  assert.equal(await r.get("users/none"), null);
  assert.deepEqual(await r.exec(new Batch(true).set("users/p", "1").incr("users/p").get("users/p"), true), ["OK", 2, "2"]);
  await Promise.all(Array.from({ length: 500 }, (_, i) => r.set(`users/${i}`, String(i))));
  const all = await Promise.all(Array.from({ length: 500 }, (_, i) => r.get(`users/${i}`)));
  assert.deepEqual(all, all.map((_, i) => String(i)));
  const other = await client();
  const waiting = other.blpop(["queue"], 5);
  await soon(50);
  await r.rpush("queue", ["job"]);
  assert.deepEqual(await waiting, ["queue", "job"]);
  assert.equal(await r.invokeScript(new Script("return redis.call('incr', KEYS[1])"), { keys: ["users/p"] }), 3);
  assert.equal(await r.get("users/p"), "3");
  const big = "x".repeat(5_000_000);
  await r.set("big", big);
  for (let i = 0; i < 2; i++) assert.equal(await r.get("big"), big);
  await hits(r);
  const many = await Promise.all(Array.from({ length: 20 }, client));
  for (const one of many) assert.equal(await one.get("read"), "1");
  await step("many");
  many.forEach((one) => one.close());
  for (const which of ["nearside", "upstream"]) {
    await step(`restart ${which}`);
    await again(() => r.set("read", "1"));
    await hits(r);
  }
  r.close();
  other.close();
}

(async () => {
  for (const options of [{}, { protocol: ProtocolVersion.RESP2 }]) await check(options);
  console.log("valkey-glide", version);
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
