"""Celery with Redis as broker and as result store: tasks, retries, groups and chords, worked off by a worker process."""

import subprocess
import sys

import celery

app = celery.Celery("celery_tasks")


@app.task
def add(a, b):
    return a + b


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def fail():
    raise ValueError("meant to fail")


@app.task(bind=True, max_retries=2)
def twice(self):
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return "done"


if __name__ == "__main__":
    url = f"redis://{sys.argv[1]}:{sys.argv[2]}/0"
    options = ["-b", url, "--result-backend", url]
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_tasks", *options, "worker", "-P", "threads", "-c", "4", "-l", "warning"],
        stdout=sys.stderr)
    try:
        app.conf.update(broker_url=url, result_backend=url)
        results = [add.delay(i, i) for i in range(50)]
        assert [one.get(timeout=60) for one in results] == [2 * i for i in range(50)]
        assert celery.chord(add.s(i, 1) for i in range(10))(total.s()).get(timeout=60) == 55
        assert twice.delay().get(timeout=60) == "done"
        try:
            fail.delay().get(timeout=60)
            raise SystemExit("no ValueError")
        except ValueError as error:
            assert "meant to fail" in str(error)
    finally:
        worker.terminate()
        assert worker.wait(30) == 0
    print("celery", celery.__version__)
