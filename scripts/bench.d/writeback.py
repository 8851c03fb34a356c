"""Write-back against write-through: 1,000 keys of one namespace, written at random with 100 bytes, one client to a request at a
time. The journal is on the disk that has target/, for a file system in memory would make every fsync look free.
"""

import os
import shutil
import statistics
import tempfile
import time

import servers
from measure import drive, medians

KEYS = 1000
LOAD = {"keys": KEYS, "size": 100, "order": "random", "prefix": "bench/"}
WRITES = {**LOAD, "writes": 100}
NAMESPACE = ("--namespace", "bench", "--max-age", "24h")
MEMORY = (*NAMESPACE, "--write", "back", "--ack", "memory")


def group(bench):
    folder = tempfile.mkdtemp(prefix="bench-journal-", dir=os.path.join(servers.ROOT, "target"))
    try:
        throughput(bench, folder)
        latency(bench, folder)
        cost(bench)
    finally:
        for server in list(servers.running):
            server.stop()
        shutil.rmtree(folder)


def on_disk(folder, name):
    return (*NAMESPACE, "--write", "back", "--ack", "disk", "--journal", os.path.join(folder, name))


def throughput(bench, folder):
    """The upstream is 1 ms away."""
    upstream = servers.redis()
    relay = servers.relay(upstream.address, 500)
    through = servers.nearside(relay.address, *NAMESPACE)
    for conns, how, flags, bound in ((1, "memory", MEMORY, 20), (50, "disk", on_disk(folder, "throughput"), 5)):
        near = servers.nearside(relay.address, *flags)
        load = {**WRITES, "conns": conns, "seconds": 1 if bench.quick else 3}
        for server in (near, through):
            drive(server, **{**load, "seconds": 1})
        seen = medians(rounds(bench), back=lambda: writing(upstream, near, load),
                       through=lambda: writing(upstream, through, load))
        back, other = seen["back"], seen["through"]
        clients = "1 client" if conns == 1 else f"{conns} clients"
        bench.row(f"write-back, ack = {how}, {clients}, acknowledged", back["rps"], ("≥", bound), other["rps"], "write-through", "/s",
                  note=f"upstream 1 ms away; p50 {back['p50']:.0f} µs against {other['p50']:.0f} µs")
        bench.row(f"write-back, ack = {how}, {clients}, upstream writes", back["upstream"], None, other["upstream"], "write-through",
                  "/s", note=f"one for {back['requests'] / max(back['written'], 1):.1f} that were acknowledged")
        near.stop()
    for server in (through, relay, upstream):
        server.stop()


def rounds(bench):
    return min(bench.rounds, 3)


def writing(upstream, near, load):
    """The load, until all of it is upstream; and what the upstream had to write for it, in all and each second."""
    before, began = sets(upstream), time.monotonic()
    seen = drive(near, **load)
    if near.ask("NEARSIDE", "SYNC") != b"+OK\r\n":
        raise SystemExit(f"{near.name} does not flush: {near.log}")
    written = sets(upstream) - before
    return {**seen, "written": written, "upstream": written / (time.monotonic() - began)}


def sets(upstream):
    """How many SETs it has executed, those of scripts among them."""
    lines = upstream.ask("INFO", "commandstats").decode().splitlines()
    calls = [line.split("calls=")[1].split(",")[0] for line in lines if line.startswith("cmdstat_set:")]
    return int(calls[0]) if calls else 0


def latency(bench, folder):
    """How long one client waits for the disk, against what the disk takes by itself."""
    near = servers.nearside(servers.redis().address, *on_disk(folder, "latency"))
    load = {**WRITES, "requests": bench.some(4000)}
    drive(near, **load)
    seen = medians(bench.rounds, near=lambda: drive(near, **load), disk=lambda: appending(folder, load["requests"]))
    for figure, bound in (("p50", None), ("p99", 1.5)):
        bench.row(f"write-back, ack = disk, 1 client, {figure}", seen["near"][figure], bound and ("≤", bound), seen["disk"][figure],
                  "append and fdatasync")
    near.stop()


def appending(folder, number):
    """The same bytes, about, appended to a file and brought to the disk one after another; in µs."""
    nanos = []
    file = os.open(os.path.join(folder, "appended"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    try:
        for _ in range(number):
            began = time.perf_counter_ns()
            os.write(file, b"x" * 200)
            os.fdatasync(file)
            nanos.append(time.perf_counter_ns() - began)
    finally:
        os.close(file)
    cuts = statistics.quantiles(nanos, n=100)
    return {"p50": cuts[49] / 1000, "p99": cuts[98] / 1000}


def cost(bench):
    """A SET that is acknowledged from memory, its share of the flushes with it, against a hit of the same namespace."""
    upstream = servers.redis()
    near = servers.nearside(upstream.address, *MEMORY)

    def run(depth, writes):
        load = {**LOAD, "writes": writes, "conns": 50, "depth": depth, "requests": bench.requests(depth)}
        if not writes:
            for _ in range(2):
                drive(near, **{**LOAD, "order": "seq", "depth": 16})
        before = near.cpu()
        seen = drive(near, **load)
        near.ask("NEARSIDE", "SYNC")
        return {**seen, "cpu": (near.cpu() - before) / seen["requests"] * 1e6}

    for depth in (1, 16):
        run(depth, 100)
        seen = medians(bench.rounds, set=lambda: run(depth, 100), hit=lambda: run(depth, 0))
        bench.row(f"write-back, ack = memory, CPU per SET, depth {depth}", seen["set"]["cpu"], ("≤", 1.3), seen["hit"]["cpu"], "a hit")
