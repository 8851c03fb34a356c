"""Dramatiq: its broker is one script that builds its keys' names by itself."""

import sys
import time
from importlib.metadata import version

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

host, port = sys.argv[1], int(sys.argv[2])
broker = RedisBroker(host=host, port=port)
broker.add_middleware(Results(backend=RedisBackend(host=host, port=port)))
dramatiq.set_broker(broker)
tried = []


@dramatiq.actor(store_results=True)
def add(a, b):
    return a + b


@dramatiq.actor(store_results=True, max_retries=3, min_backoff=10, max_backoff=20)
def twice():
    tried.append(time.time())
    if len(tried) == 1:
        raise ValueError("once more")
    return "done"


worker = dramatiq.Worker(broker, worker_threads=4, worker_timeout=100)
worker.start()
try:
    messages = [add.send(i, i) for i in range(50)]
    assert [one.get_result(block=True, timeout=60_000) for one in messages] == [2 * i for i in range(50)]
    assert add.send_with_options(args=(1, 2), delay=200).get_result(block=True, timeout=60_000) == 3
    again = twice.send()
    deadline = time.time() + 60
    while len(tried) < 2:
        assert time.time() < deadline
        time.sleep(0.01)
    broker.join(add.queue_name, timeout=60_000)
    worker.join()
finally:
    worker.stop()
print("dramatiq", version("dramatiq"))
