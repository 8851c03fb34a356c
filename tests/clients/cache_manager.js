// cache-manager over Keyv over @keyv/redis, on node-redis: values, misses, deletes, a wrapped function.
const assert = require("node:assert");
const { createCache } = require("cache-manager");
const { default: KeyvRedis } = require("@keyv/redis");
const { Keyv } = require("keyv");
const { step } = require("step.js");
const [host, port] = [process.argv[2], Number(process.argv[3])];

(async () => {
  const cache = createCache({ stores: [new Keyv({ store: new KeyvRedis(`redis://${host}:${port}`), namespace: "app" })] });
  await cache.set("a", { n: 1 }, 60_000);
  await step("reading");
  for (let i = 0; i < 10; i++) assert.deepEqual(await cache.get("a"), { n: 1 });
  await step("read");
  await cache.set("a", { n: 2 }, 60_000);
  assert.deepEqual(await cache.get("a"), { n: 2 });
  assert.equal(await cache.get("none"), undefined);
  let made = 0;
  for (let i = 0; i < 3; i++) assert.equal(await cache.wrap("w", async () => ++made, 60_000), 1);
  await cache.mset([{ key: "x", value: 1 }, { key: "y", value: 2 }]);
  assert.deepEqual(await cache.mget(["x", "none", "y"]), [1, undefined, 2]);
  await cache.del("a");
  assert.equal(await cache.get("a"), undefined);
  console.log("cache-manager", require("package.json").dependencies["cache-manager"]);
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
