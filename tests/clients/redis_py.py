"""redis-py and valkey-py, sync: hits, values, pipelines, transactions, pub/sub, locks, scripts, scans, streams, restarts.

With default settings, and from version 5 on with each protocol asked for.
"""

import importlib
import sys
import threading
import time

from step import again, hits, step

host, port = sys.argv[1], int(sys.argv[2])
redis = importlib.import_module(sys.argv[3])
Client = getattr(redis, "Redis", None) or redis.Valkey
major = int(redis.__version__.split(".")[0])


def restarts(r):
    for which in ("nearside", "upstream"):
        r.set("read", "old")
        step(f"restart {which}")
        again(lambda: r.set("read", "1"), (redis.ConnectionError, redis.TimeoutError, redis.ResponseError))
        hits(r)


def usual(r):
    r.flushall()
    assert r.set("users/a", "1") and r.get("users/a") == b"1" and r.get("users/a") == b"1"
    assert r.incr("users/a") == 2 and r.get("users/a") == b"2"
    assert r.get("users/none") is None
    r.mset({f"users/{i}": i for i in range(100)})
    assert r.mget([f"users/{i}" for i in range(100)]) == [str(i).encode() for i in range(100)]
    assert sorted(r.scan_iter("users/*", count=7)) == sorted([b"users/a"] + [f"users/{i}".encode() for i in range(100)])
    r.hset("h", mapping={"a": 1, "b": "two"})
    assert r.hgetall("h") == {b"a": b"1", b"b": b"two"} and r.hget("h", "b") == b"two"
    r.rpush("l", *range(10))
    assert r.lrange("l", 0, -1) == [str(i).encode() for i in range(10)]
    r.zadd("z", {"x": 1.5, "y": 2})
    ranges = r.zrange("z", 0, -1, withscores=True)
    assert [tuple(pair) for pair in ranges] == [(b"x", 1.5), (b"y", 2.0)], ranges
    r.sadd("s", "m", "n")
    assert set(r.smembers("s")) == {b"m", b"n"} and r.sismember("s", "m")
    assert r.set("users/t", "v", ex=100) and 0 < r.ttl("users/t") <= 100
    big = b"x" * 5_000_000
    r.set("big", big)
    assert r.get("big") == big and r.get("big") == big


def pipelines(r):
    with r.pipeline(transaction=False) as pipe:
        for i in range(1000):
            pipe.set(f"users/p{i}", i)
            pipe.get(f"users/p{i}")
        assert pipe.execute()[1::2] == [str(i).encode() for i in range(1000)]
    with r.pipeline() as pipe:
        pipe.set("users/n", 5).incr("users/n").get("users/n")
        assert pipe.execute() == [True, 6, b"6"]

    def add(pipe):
        value = int(pipe.get("users/n"))
        pipe.multi()
        pipe.set("users/n", value + 1)

    threads = [threading.Thread(target=lambda: [r.transaction(add, "users/n") for _ in range(20)]) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert r.get("users/n") == b"86", r.get("users/n")
    with r.pipeline() as pipe:
        pipe.watch("users/n")
        r.incr("users/n")
        pipe.multi()
        pipe.set("users/n", "lost")
        try:
            pipe.execute()
            raise SystemExit("no WatchError")
        except redis.WatchError:
            pass
    try:
        with r.pipeline() as pipe:
            pipe.set("users/s", "x").lpush("users/s", 1)
            pipe.execute()
        raise SystemExit("no error")
    except redis.ResponseError as error:
        assert "WRONGTYPE" in str(error)


def messages(r):
    seen = []
    with r.pubsub(ignore_subscribe_messages=True) as p:
        p.subscribe(**{"news": lambda m: seen.append(m["data"])})
        p.psubscribe(**{"n*": lambda m: seen.append(m["data"])})
        thread = p.run_in_thread(sleep_time=0.01)
        deadline = time.time() + 10
        while r.publish("news", "hello") < 2:
            assert time.time() < deadline
        while seen[-2:] != [b"hello", b"hello"]:
            assert time.time() < deadline, seen
            time.sleep(0.005)
        thread.stop()
        thread.join()


def locks(r):
    count = [0]

    def work():
        for _ in range(10):
            with r.lock("lock", timeout=10, sleep=0.005):
                before = count[0]
                time.sleep(0.0005)
                count[0] = before + 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert count[0] == 40, count


def scripts(r):
    double = r.register_script("return redis.call('set', KEYS[1], ARGV[1] * 2)")
    r.script_flush()
    for i in range(5):
        double(keys=["users/d"], args=[i])
        assert r.get("users/d") == str(i * 2).encode()
    try:
        r.eval("return redis.error_reply('MY own')", 0)
        raise SystemExit("no error")
    except redis.ResponseError as error:
        assert "MY own" in str(error)


def streams(r):
    r.xgroup_create("st", "g", mkstream=True)
    ids = [r.xadd("st", {"n": i}) for i in range(5)]
    got = r.xreadgroup("g", "me", {"st": ">"}, count=5)
    assert got and r.xpending("st", "g")["pending"] == 5
    assert r.xack("st", "g", *ids) == 5
    begun = time.time()
    assert not r.xread({"st": "$"}, block=50) and time.time() - begun >= 0.05
    assert r.blpop("nothing", timeout=0.05) is None
    threading.Timer(0.1, lambda: r.rpush("queue", "job")).start()
    assert tuple(r.blpop("queue", timeout=10)) == (b"queue", b"job")


def connections(**options):
    r = Client(host, port, db=3, client_name="me", health_check_interval=1, **options)
    r.set("users/a", "db3")
    assert r.get("users/a") == b"db3" and r.client_getname() in ("me", b"me")
    assert r.client_id() > 0 and r.ping() and "redis_version" in r.info()
    many = [Client(host, port, **options) for _ in range(20)]
    assert all(one.get("read") == b"1" for one in many)
    step("many")
    with r.monitor() as m:
        r.set("monitored", 1)
        for command in m.listen():
            if "monitored" in command["command"]:
                break


# The forks of version 5 and later know the protocol.
for options in [{}] + ([{"protocol": 2}, {"protocol": 3}] if major >= 5 else []):
    r = Client(host, port, **options)
    for check in (hits, usual, pipelines, messages, locks, scripts, streams):
        check(r)
    hits(r)
    connections(**options)
    restarts(r)
print(sys.argv[3], redis.__version__)
