"""Asks the one who runs this script (see `run`)."""

import sys
import time


def step(what):
    print(f"@ {what}", flush=True)
    sys.stdin.readline()


def again(action, errors, seconds=15):
    """The result of action, tried until it raises none of errors: a client that connects anew by itself."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except errors:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


async def again_async(action, errors, seconds=15):
    import asyncio

    deadline = time.monotonic() + seconds
    while True:
        try:
            return await action()
        except errors:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)


def hits(r):
    """What is written and read again is a hit, for one who asks again and again."""
    r.set("read", "1")
    step("reading")
    assert [r.get("read") for _ in range(10)] == [b"1"] * 10
    step("read")


async def hits_async(r, value="1"):
    await r.set("read", "1")
    step("reading")
    assert [await r.get("read") for _ in range(10)] == [value] * 10
    step("read")
