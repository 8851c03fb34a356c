"""redis-py and valkey-py, asyncio: hits, tasks at once, pipelines, transactions, pub/sub, blocking, locks, restarts.

With default settings, and from version 5 on with each protocol asked for.
"""

import asyncio
import importlib
import sys

from step import again_async, hits_async, step

host, port = sys.argv[1], int(sys.argv[2])
redis = importlib.import_module(sys.argv[3])
library = importlib.import_module(sys.argv[3] + ".asyncio")
Client = getattr(library, "Redis", None) or library.Valkey
major = int(redis.__version__.split(".")[0])


async def restarts(r):
    for which in ("nearside", "upstream"):
        await r.set("read", "old")
        step(f"restart {which}")
        await again_async(lambda: r.set("read", "1"), (redis.ConnectionError, redis.TimeoutError, redis.ResponseError))
        await hits_async(r)


async def close(r):
    await (r.aclose() if hasattr(r, "aclose") else r.close())


async def check(**options):
    r = Client(host=host, port=port, decode_responses=True, **options)
    await hits_async(r)
    await r.flushall()

    async def own(i):
        for n in range(20):
            await r.set(f"users/{i}", n)
            assert await r.get(f"users/{i}") == str(n)
            assert await r.get(f"users/{i}") == str(n)

    await asyncio.gather(*(own(i) for i in range(50)))
    async with r.pipeline(transaction=True) as pipe:
        pipe.set("users/p", 1).incr("users/p").get("users/p")
        assert await pipe.execute() == [True, 2, "2"]
    async with r.pipeline(transaction=True) as pipe:
        await pipe.watch("users/p")
        await r.incr("users/p")
        pipe.multi()
        pipe.set("users/p", "lost")
        try:
            await pipe.execute()
            raise SystemExit("no WatchError")
        except redis.WatchError:
            pass
    async with r.pubsub() as p:
        await p.subscribe("news")
        await p.psubscribe("n*")
        assert [(await p.get_message(timeout=5))["type"] for _ in range(2)] == ["subscribe", "psubscribe"]
        assert await r.publish("news", "hello") == 2
        got = [await p.get_message(timeout=5) for _ in range(2)]
        assert sorted(m["type"] for m in got) == ["message", "pmessage"], got
        await p.unsubscribe()
        await p.punsubscribe()
    waiting = asyncio.create_task(r.blpop("queue", timeout=10))
    await asyncio.sleep(0.05)
    await r.rpush("queue", "job")
    assert list(await waiting) == ["queue", "job"]
    count = 0

    async def locked():
        nonlocal count
        async with r.lock("lock", timeout=10, sleep=0.005):
            before = count
            await asyncio.sleep(0.001)
            count = before + 1

    await asyncio.gather(*(locked() for _ in range(20)))
    assert count == 20
    # A task that is cancelled while it waits leaves nothing behind.
    waiting = asyncio.create_task(r.blpop("never", timeout=10))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await r.get("users/p") == "3"
    assert sorted([key async for key in r.scan_iter("users/1*")]) == sorted(
        f"users/{i}" for i in range(50) if str(i).startswith("1")
    )
    await hits_async(r)
    many = [Client(host=host, port=port, decode_responses=True, **options) for _ in range(20)]
    assert await asyncio.gather(*(one.get("read") for one in many)) == ["1"] * 20
    step("many")
    for one in many:
        await close(one)
    await restarts(r)
    await close(r)


for options in [{}] + ([{"protocol": 2}, {"protocol": 3}] if major >= 5 else []):
    asyncio.run(check(**options))
print(sys.argv[3], "asyncio", redis.__version__)
