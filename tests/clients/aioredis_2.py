"""aioredis 2, before it became redis-py's asyncio part: hits, pipelines, transactions, pub/sub, blocking, restarts."""

import asyncio
import sys

# It makes a class of both errors, which are one since Python 3.11; without this it cannot be imported there.
asyncio.TimeoutError = asyncio.exceptions.TimeoutError = type("TimeoutError", (Exception,), {})

import aioredis  # noqa: E402

from step import again_async, hits_async, step  # noqa: E402

host, port = sys.argv[1], int(sys.argv[2])


def client():
    return aioredis.from_url(f"redis://{host}:{port}", decode_responses=True)


async def check():
    r = client()
    await hits_async(r)
    assert await r.incr("users/a") == 1 and await r.get("users/a") == "1" and await r.get("users/none") is None
    async with r.pipeline(transaction=True) as pipe:
        assert await pipe.set("users/p", 1).incr("users/p").get("users/p").execute() == [True, 2, "2"]
    async with r.pipeline(transaction=True) as pipe:
        await pipe.watch("users/p")
        await r.incr("users/p")
        pipe.multi()
        pipe.set("users/p", "lost")
        try:
            await pipe.execute()
            raise SystemExit("no WatchError")
        except aioredis.WatchError:
            pass
    assert await r.get("users/p") == "3"
    p = r.pubsub()
    await p.subscribe("news")
    assert (await p.get_message(timeout=5))["type"] == "subscribe"
    assert await r.publish("news", "hello") == 1
    assert (await p.get_message(timeout=5))["data"] == "hello"
    await p.unsubscribe("news")
    await p.close()
    waiting = asyncio.create_task(r.blpop("queue", timeout=10))
    await asyncio.sleep(0.05)
    await r.rpush("queue", "job")
    assert list(await waiting) == ["queue", "job"]
    assert await r.eval("return redis.call('incr', KEYS[1])", 1, "users/p") == 4 and await r.get("users/p") == "4"
    await r.mset({f"users/{i}": i for i in range(100)})
    assert len({key async for key in r.scan_iter("users/*")}) == 102
    big = "x" * 5_000_000
    await r.set("big", big)
    assert await r.get("big") == big and await r.get("big") == big
    many = [client() for _ in range(20)]
    assert await asyncio.gather(*(one.get("read") for one in many)) == ["1"] * 20
    step("many")
    for one in many:
        await one.close()
    for which in ("nearside", "upstream"):
        step(f"restart {which}")
        await again_async(lambda: r.set("read", "1"), (aioredis.RedisError, OSError))
        await hits_async(r)
    await r.close()


asyncio.run(check())
print("aioredis", aioredis.__version__)
