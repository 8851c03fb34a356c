// Bee-Queue, on node-redis 3: jobs that succeed, fail and are tried again.
const assert = require("node:assert");
const Queue = require("bee-queue");
const queue = new Queue("jobs", { redis: { host: process.argv[2], port: Number(process.argv[3]) } });
let tries = 0;
const done = (job) =>
  new Promise((good, bad) => {
    job.on("succeeded", good);
    job.on("failed", bad);
  });

(async () => {
  queue.process(8, async (job) => {
    if (job.data.fails) throw new Error("meant to fail");
    if (job.data.twice && tries++ === 0) throw new Error("once more");
    return job.data.n * 2;
  });
  const jobs = Array.from({ length: 100 }, (_, n) => queue.createJob({ n }));
  const results = jobs.map(done);
  await queue.saveAll(jobs);
  assert.deepEqual(await Promise.all(results), jobs.map((_, n) => n * 2));
  const fails = queue.createJob({ fails: true });
  const failed = assert.rejects(done(fails), /meant to fail/);
  await fails.save();
  await failed;
  const twice = queue.createJob({ n: 4, twice: true }).retries(1);
  const second = done(twice);
  await twice.save();
  assert.equal(await second, 8);
  await queue.close();
  console.log("bee-queue", require("bee-queue/package.json").version);
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
