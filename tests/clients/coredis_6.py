"""coredis (which speaks RESP3): hits, pipelines, transactions, pub/sub, blocking, scripts, restarts."""

import asyncio
import sys
from importlib.metadata import version

import coredis

from step import again_async, hits_async, step

host, port = sys.argv[1], int(sys.argv[2])


def client():
    return coredis.Redis(host=host, port=port, decode_responses=True)


async def check():
    async with client() as r:
        await hits_async(r)
        await r.flushall()
        assert await r.incr("users/a") == 1 and await r.get("users/a") == "1" and await r.get("users/none") is None
        async with r.pipeline(transaction=True) as pipe:
            replies = [pipe.set("users/p", "1"), pipe.incr("users/p"), pipe.get("users/p")]
        assert [await reply for reply in replies] == [True, 2, "2"]
        async with r.pubsub() as p:
            await p.subscribe("news")
            async with asyncio.timeout(10):
                while not await r.publish("news", "hello"):
                    await asyncio.sleep(0.01)
                async for message in p:
                    if message["type"] == "message":
                        assert message["data"] == "hello", message
                        break
        waiting = asyncio.ensure_future(r.blpop(["queue"], timeout=10))
        await asyncio.sleep(0.05)
        await r.rpush("queue", ["job"])
        assert list(await waiting) == ["queue", "job"]
        assert await r.eval("return redis.call('incr', KEYS[1])", ["users/p"]) == 3 and await r.get("users/p") == "3"
        await r.mset({f"users/{i}": str(i) for i in range(100)})
        assert len({key async for key in r.scan_iter("users/*")}) == 102
        big = "x" * 5_000_000
        await r.set("big", big)
        assert await r.get("big") == big and await r.get("big") == big
        await hits_async(r)

        async def another():
            async with client() as one:
                assert await one.get("read") == "1"
                connected.append(one)
                await done.wait()

        connected, done = [], asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(another())
            while len(connected) < 20:
                await asyncio.sleep(0.01)
            step("many")
            done.set()
        for which in ("nearside", "upstream"):
            step(f"restart {which}")
            await again_async(lambda: r.set("read", "1"), (Exception,))
            await hits_async(r)


asyncio.run(check())
print("coredis", version("coredis"))
