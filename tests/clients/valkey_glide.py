"""valkey-glide for Python (RESP3 by default): hits, batches, pub/sub, scripts, blocking, restarts."""

import asyncio
import sys
from importlib.metadata import version

from glide import Batch, GlideClient, GlideClientConfiguration, GlideError, NodeAddress, ProtocolVersion, Script

from step import again_async, hits_async, step

host, port = sys.argv[1], int(sys.argv[2])
# The default of 250 ms is short for 5 MB on a machine with other things to do.
PATIENT = 10_000


async def client(**options):
    return await GlideClient.create(GlideClientConfiguration([NodeAddress(host, port)], request_timeout=PATIENT, **options))


async def check(**options):
    r = await client(**options)
    await hits_async(r, b"1")
    await r.flushall()
    assert await r.incr("users/a") == 1 and await r.get("users/a") == b"1" and await r.get("users/none") is None
    batch = Batch(is_atomic=True)
    batch.set("users/p", "1").incr("users/p").get("users/p")
    assert await r.exec(batch, raise_on_error=True) == ["OK", 2, b"2"]
    batch = Batch(is_atomic=False)
    for i in range(100):
        batch.set(f"users/{i}", str(i)).get(f"users/{i}")
    assert (await r.exec(batch, raise_on_error=True))[1::2] == [str(i).encode() for i in range(100)]
    await asyncio.gather(*(r.set(f"users/{i}", str(i)) for i in range(500)))
    assert await asyncio.gather(*(r.get(f"users/{i}") for i in range(500))) == [str(i).encode() for i in range(500)]
    other = await client(**options)
    waiting = asyncio.create_task(other.blpop(["queue"], 5))
    await asyncio.sleep(0.05)
    await r.rpush("queue", ["job"])
    assert await waiting == [b"queue", b"job"]
    subscriber = await GlideClient.create(GlideClientConfiguration(
        [NodeAddress(host, port)],
        pubsub_subscriptions=GlideClientConfiguration.PubSubSubscriptions(
            {GlideClientConfiguration.PubSubChannelModes.Exact: {"news"}}, None, None)))
    async with asyncio.timeout(10):
        while not await r.publish("hello", "news"):
            await asyncio.sleep(0.01)
        assert (await subscriber.get_pubsub_message()).message == b"hello"
    await subscriber.close()
    assert await r.invoke_script(Script("return redis.call('incr', KEYS[1])"), keys=["users/p"]) == 3
    assert await r.get("users/p") == b"3"
    big = "x" * 5_000_000
    await r.set("big", big)
    assert await r.get("big") == big.encode() and await r.get("big") == big.encode()
    await hits_async(r, b"1")
    many = await asyncio.gather(*(client(**options) for _ in range(20)))
    assert await asyncio.gather(*(one.get("read") for one in many)) == [b"1"] * 20
    step("many")
    for one in many:
        await one.close()
    for which in ("nearside", "upstream"):
        step(f"restart {which}")
        await again_async(lambda: r.set("read", "1"), GlideError)
        await hits_async(r, b"1")
    await r.close()
    await other.close()


for options in ({}, {"protocol": ProtocolVersion.RESP2}):
    asyncio.run(check(**options))
print("valkey-glide", version("valkey-glide"))
