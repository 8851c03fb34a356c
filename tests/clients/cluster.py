"""redis-py in front of a cluster: Redis, which knows nothing of it, or RedisCluster, with their default settings."""

import sys
import threading

import redis

from step import again, hits, step

host, port, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
Client = getattr(redis, kind)
KEYS = [f"users/{i}" for i in range(300)]


def all_nodes(r):
    r.flushall()
    for i, key in enumerate(KEYS):
        assert r.set(key, i)
    assert [r.get(key) for key in KEYS] == [str(i).encode() for i in range(300)]
    assert sorted(r.scan_iter("users/*", count=17)) == sorted(key.encode() for key in KEYS)
    assert r.dbsize() == 300 and len(r.keys("users/*")) == 300
    with r.pipeline(transaction=False) if kind == "Redis" else r.pipeline() as pipe:
        for key in KEYS:
            pipe.incr(key)
        assert pipe.execute() == list(range(1, 301))
    tagged = [f"{{tag}}{i}" for i in range(10)]
    assert r.mset(dict.fromkeys(tagged, "v")) and r.mget(tagged) == [b"v"] * 10 and r.delete(*tagged) == 10
    if kind == "Redis":
        assert r.mset(dict.fromkeys(KEYS, "w")) and r.mget(KEYS) == [b"w"] * 300
        assert r.exists(*KEYS) == 300 and r.unlink(*KEYS) == 300
        with r.pipeline() as pipe:
            assert pipe.set("{t}a", 1).incr("{t}a").get("{t}a").execute() == [True, 2, b"2"]


def scripts(r):
    script = r.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
    assert [script(keys=[key], args=[i]) for i, key in enumerate(("a", "b", "c", "d", "e"))] == list(range(5))
    assert r.eval("return redis.call('get', KEYS[1])", 1, "e") == b"4"


def messages(r):
    # Both publish from anywhere to anybody.
    sub = r.pubsub()
    sub.subscribe("channel")
    assert sub.get_message(timeout=5)["type"] == "subscribe"
    r.publish("channel", "hello")
    assert sub.get_message(timeout=5)["data"] == b"hello"
    sub.close()


def blocking(r):
    waiting = []
    thread = threading.Thread(target=lambda: waiting.append(r.blpop("queue", timeout=10)))
    thread.start()
    r.rpush("queue", "x")
    thread.join()
    assert waiting == [(b"queue", b"x")]


r = Client(host=host, port=port)
hits(r)
for part in (all_nodes, scripts, messages, blocking):
    part(r)
others = [Client(host=host, port=port) for _ in range(20)]
for other in others:
    other.get("read")
step("many")
for other in others:
    other.close()
step("restart nearside")
errors = (redis.ConnectionError, redis.TimeoutError, redis.exceptions.ClusterDownError)
again(lambda: r.set("read", "2"), errors)
hits(r)
print(f"{kind} of {redis.__version__}")
