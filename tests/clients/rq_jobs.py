"""rq, a job queue: jobs that succeed, fail, depend on each other; worked off in bursts."""

import sys
import os

import redis
import rq
from rq import Queue, SimpleWorker
from rq.job import Job

host, port = sys.argv[1], int(sys.argv[2])
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import rq_work  # noqa: E402

connection = redis.Redis(host, port)
connection.flushall()
queue = Queue("jobs", connection=connection)
jobs = [queue.enqueue(rq_work.add, i, i) for i in range(50)]
failing = queue.enqueue(rq_work.fail)
after = queue.enqueue(rq_work.add, 1, 2, depends_on=jobs[-1])
assert len(queue) == 51, len(queue)
assert SimpleWorker([queue], connection=connection).work(burst=True)
for i, job in enumerate(jobs):
    assert job.get_status(refresh=True) == "finished" and job.return_value() == i + i, (i, job.get_status())
assert failing.get_status(refresh=True) == "failed"
assert after.get_status(refresh=True) == "finished" and after.return_value() == 3
assert len(queue) == 0 and queue.failed_job_registry.count == 1
assert Job.fetch(jobs[3].id, connection=connection).return_value() == 6
print("rq", rq.VERSION)
