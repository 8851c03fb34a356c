// Bull 4, whose scripts build keys' names by themselves: jobs that succeed, fail, are tried again and wait.
const assert = require("node:assert");
const Queue = require("bull");
const queue = new Queue("jobs", { redis: { host: process.argv[2], port: Number(process.argv[3]) } });
let tries = 0;

(async () => {
  queue.process(8, async (job) => {
    if (job.data.fails) throw new Error("meant to fail");
    if (job.data.twice && tries++ === 0) throw new Error("once more");
    return job.data.n * 2;
  });
  const jobs = await queue.addBulk(Array.from({ length: 100 }, (_, n) => ({ data: { n } })));
  assert.deepEqual(await Promise.all(jobs.map((job) => job.finished())), jobs.map((_, n) => n * 2));
  await assert.rejects((await queue.add({ fails: true })).finished(), /meant to fail/);
  assert.equal(await (await queue.add({ n: 4, twice: true }, { attempts: 2 })).finished(), 8);
  assert.equal(await (await queue.add({ n: 5 }, { delay: 100 })).finished(), 10);
  const counts = await queue.getJobCounts();
  assert.equal(counts.completed, 102);
  assert.equal(counts.failed, 1);
  await queue.close();
  console.log("bull", require("bull/package.json").version);
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
