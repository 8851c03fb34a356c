// BullMQ, a job queue: jobs that succeed, fail and are tried again, wait, and a parent that waits for its children.
const assert = require("node:assert");
const { Queue, Worker, QueueEvents, FlowProducer } = require("bullmq");
const connection = { host: process.argv[2], port: Number(process.argv[3]), maxRetriesPerRequest: null };
const Redis = require("ioredis");

(async () => {
  const plain = new Redis(connection);
  await plain.flushall();
  const queue = new Queue("jobs", { connection });
  const events = new QueueEvents("jobs", { connection });
  await events.waitUntilReady();
  const worker = new Worker(
    "jobs",
    async (job) => {
      if (job.name === "fails") throw new Error("meant to fail");
      if (job.name === "twice" && job.attemptsMade === 0) throw new Error("once more");
      return job.data.n * 2;
    },
    { connection, concurrency: 8 },
  );
  const jobs = await queue.addBulk(Array.from({ length: 100 }, (_, n) => ({ name: "double", data: { n } })));
  const results = await Promise.all(jobs.map((job) => job.waitUntilFinished(events, 30000)));
  assert.deepEqual(results, jobs.map((_, n) => n * 2));
  const fails = await queue.add("fails", {});
  await assert.rejects(fails.waitUntilFinished(events, 30000), /meant to fail/);
  const twice = await queue.add("twice", { n: 4 }, { attempts: 3, backoff: 10 });
  assert.equal(await twice.waitUntilFinished(events, 30000), 8);
  const late = await queue.add("late", { n: 5 }, { delay: 100 });
  assert.equal(await late.waitUntilFinished(events, 30000), 10);
  const flow = new FlowProducer({ connection });
  const { job } = await flow.add({
    name: "parent", queueName: "jobs", data: { n: 1 },
    children: [1, 2, 3].map((n) => ({ name: "child", queueName: "jobs", data: { n } })),
  });
  assert.equal(await job.waitUntilFinished(events, 30000), 2);
  assert.deepEqual(Object.values(await job.getChildrenValues()).sort(), [2, 4, 6]);
  const counts = await queue.getJobCounts("completed", "failed", "waiting");
  assert.deepEqual(counts, { completed: 106, failed: 1, waiting: 0 });
  await worker.close();
  await Promise.all([events.close(), queue.close(), flow.close()]);
  plain.disconnect();
  console.log("bullmq", require("bullmq/package.json").version);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
