// ioredis and node-redis in front of a cluster: as clients that know nothing of it, or with their cluster clients.
const assert = require("node:assert");
const [host, port, name, kind] = [process.argv[2], Number(process.argv[3]), process.argv[4], process.argv[5]];
const library = require(name);
const { hits, step, again } = require("step.js");

// One with the same words for both libraries.
const connect = async () => {
  if (name !== "redis") {
    const r = kind === "cluster" ? new library.Cluster([{ host, port }]) : new library({ host, port });
    r.on("error", () => {});
    return { call: (...words) => r.call(...words), set: (k, v) => r.set(k, v), get: (k) => r.get(k), end: () => r.disconnect() };
  }
  const url = `redis://${host}:${port}`;
  const r = kind === "cluster" ? library.createCluster({ rootNodes: [{ url }] }) : library.createClient({ url });
  r.on("error", () => {});
  await r.connect();
  const call = (...words) => (kind === "cluster" ? r.sendCommand(words[1], false, words) : r.sendCommand(words));
  return { call, set: (k, v) => r.set(k, String(v)), get: (k) => r.get(k), end: () => r.destroy() };
};

(async () => {
  const r = await connect();
  await hits(r);
  const keys = Array.from({ length: 300 }, (_, i) => `users/${i}`);
  await Promise.all(keys.map((key, i) => r.set(key, i)));
  assert.deepEqual(await Promise.all(keys.map((key) => r.get(key))), keys.map((_, i) => String(i)));
  assert.deepEqual(await r.call("mget", "{t}a", "{t}b"), [null, null]);
  await r.call("mset", "{t}a", "1", "{t}b", "2");
  assert.deepEqual(await r.call("mget", "{t}a", "{t}b"), ["1", "2"]);
  assert.equal(await r.call("eval", "return redis.call('incr', KEYS[1])", "1", "{t}a"), 2);
  if (kind === "plain") {
    assert.deepEqual(await r.call("mget", ...keys), keys.map((_, i) => String(i)));
    assert.equal(await r.call("del", ...keys), 300);
  }
  const others = await Promise.all(Array.from({ length: 20 }, connect));
  for (const other of others) await other.get("read");
  await step("many");
  others.forEach((other) => other.end());
  await step("restart nearside");
  await again(() => r.set("read", "2"));
  await hits(r);
  r.end();
  console.log(`${name} ${require(`${name}/package.json`).version}, ${kind}`);
  process.exit(0);
})();
