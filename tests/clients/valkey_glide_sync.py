"""valkey-glide for Python, sync (RESP3 by default): hits, batches, scripts, blocking, restarts."""

import sys
import threading
import time
from importlib.metadata import version

from glide_sync import Batch, GlideClient, GlideClientConfiguration, GlideError, NodeAddress, ProtocolVersion, Script

from step import again, hits, step

host, port = sys.argv[1], int(sys.argv[2])
# The default of 250 ms is short for 5 MB on a machine with other things to do.
PATIENT = 10_000


def client(**options):
    return GlideClient.create(GlideClientConfiguration([NodeAddress(host, port)], request_timeout=PATIENT, **options))


def check(**options):
    r = client(**options)
    hits(r)
    r.flushall()
    assert r.incr("users/a") == 1 and r.get("users/a") == b"1" and r.get("users/none") is None
    batch = Batch(is_atomic=True)
    batch.set("users/p", "1").incr("users/p").get("users/p")
    assert r.exec(batch, raise_on_error=True) == ["OK", 2, b"2"]
    batch = Batch(is_atomic=False)
    for i in range(100):
        batch.set(f"users/{i}", str(i)).get(f"users/{i}")
    assert r.exec(batch, raise_on_error=True)[1::2] == [str(i).encode() for i in range(100)]
    other = client(**options)
    threading.Timer(0.05, lambda: other.rpush("queue", ["job"])).start()
    assert r.blpop(["queue"], 5) == [b"queue", b"job"]
    assert r.invoke_script(Script("return redis.call('incr', KEYS[1])"), keys=["users/p"]) == 3
    assert r.get("users/p") == b"3"
    big = "x" * 5_000_000
    r.set("big", big)
    assert r.get("big") == big.encode() and r.get("big") == big.encode()
    hits(r)
    many = [client(**options) for _ in range(20)]
    assert all(one.get("read") == b"1" for one in many)
    step("many")
    for one in many:
        one.close()
    for which in ("nearside", "upstream"):
        step(f"restart {which}")
        again(lambda: r.set("read", "1"), GlideError)
        hits(r)
    r.close()
    other.close()


for options in ({}, {"protocol": ProtocolVersion.RESP2}):
    check(**options)
print("valkey-glide sync", version("valkey-glide-sync"))
