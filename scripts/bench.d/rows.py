"""The table: each function measures one group of rows. `quick` is for a smoke test, not for figures."""

import os
import socket
import statistics
import time

import servers
import writeback
from measure import drive, medians, redis_benchmark

DEPTHS = (1, 16, 64)
KEYS = 10_000
# A day, so that no entry ends while it is measured.
LONG = ("--max-age", "24h")


class Bench:
    def __init__(self, quick):
        self.quick, self.rows = quick, []
        self.rounds = 1 if quick else 5

    def some(self, number):
        return max(number // 20, 1000) if self.quick else number

    def row(self, what, ours, target=None, peer=None, of=None, unit="µs", note=""):
        """`target` is ("≤" or "≥", number), of the ratio if there is a peer, else of the figure."""
        value = ours / peer if peer else ours
        met = None if target is None else value <= target[1] if target[0] == "≤" else value >= target[1]
        row = {"what": what, "ours": ours, "unit": unit, "peer": peer, "of": of, "note": note,
               "ratio": ours / peer if peer else None, "target": " ".join(map(str, target)) if target else None,
               "met": met}
        self.rows.append(row)
        return row

    def requests(self, depth):
        return self.some({1: 100_000, 16: 800_000, 64: 1_600_000}[depth])


def pair(upstream, *flags):
    """A nearside with the keys of redis-benchmark in its cache."""
    near = servers.nearside(upstream.address, *LONG, *flags)
    warm(near, upstream, KEYS)
    return near


def warm(near, upstream, keys, size=64, depth=64, **more):
    fill(upstream, keys, size)
    for _ in range(3):
        drive(near, keys=keys, depth=depth, conns=4, **more)


def fill(server, keys, size=64):
    # As redis-benchmark names them: key: and 12 digits; and as the load generator does: 24 bytes.
    drive(server, keys=keys, size=size, writes=100, depth=64, conns=4)


def redis_names(*all_servers, keys=KEYS):
    """The keys that redis-benchmark asks for, put into the upstream and read once."""
    upstream, *others = all_servers
    batch = b"".join(b"*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$64\r\n%s\r\n" % (i, b"x" * 64) for i in range(keys))
    reads = b"".join(b"*2\r\n$3\r\nGET\r\n$16\r\nkey:%012d\r\n" % i for i in range(keys))
    send(upstream, batch, keys * len(b"+OK\r\n"))
    for other in others:
        send(other, reads, keys * len(b"$64\r\n\r\n" + b"x" * 64))


def send(server, requests, reply_bytes):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as s:
        step = 1 << 14
        for start in range(0, len(requests), step):
            s.sendall(requests[start:start + step])
            s.setblocking(False)
            try:
                reply_bytes -= len(s.recv(1 << 20))
            except BlockingIOError:
                pass
            s.settimeout(10)
        while reply_bytes > 0:
            reply_bytes -= len(s.recv(1 << 20))


def hits(bench):
    """GET of 64 bytes: nearside from its cache, against redis-server and the proxies, TCP and Unix socket."""
    peer, upstream = servers.redis(), servers.redis()
    near = servers.nearside(upstream.address, *LONG)
    redis_names(peer)
    redis_names(upstream, near)
    tw, ha, bare = servers.twemproxy(upstream.address), servers.haproxy(upstream.address), servers.bare()
    targets = {1: (0.85, 1.05), 16: (0.70, 1.2), 64: (0.55, 1.3)}
    get = ["GET", "key:__rand_int__"]
    for depth in DEPTHS:
        n = bench.requests(depth)
        runs = {name: (lambda s=s: redis_benchmark(s, n, depth, get)) if s else None
                for name, s in (("near", near), ("redis", peer), ("twemproxy", tw), ("haproxy", ha), ("bare", bare))}
        seen = medians(bench.rounds, **runs)
        ours, theirs = seen["near"], seen["redis"]
        # redis-benchmark itself is the limit of what servers can do.
        lean = {"conns": 50, "depth": depth, "requests": n, "keys": KEYS, "order": "random"}
        fast = medians(bench.rounds, near=lambda: drive(near, **lean), redis=lambda: drive(peer, **lean))
        bench.row(f"hit, CPU per GET, depth {depth}", ours["cpu"], ("≤", targets[depth][0]), theirs["cpu"], "redis-server",
                  note=floor(seen))
        bench.row(f"hit, throughput, depth {depth}", fast["near"]["rps"], ("≥", targets[depth][1]), fast["redis"]["rps"],
                  "redis-server", "/s")
        for name, of in (("twemproxy", "twemproxy"), ("haproxy", "haproxy"), ("bare", "bare Tokio")):
            if name in seen:
                bench.row(f"hit, CPU per GET, depth {depth}", ours["cpu"], None, seen[name]["cpu"], of)
    for depth in DEPTHS:
        n = bench.requests(depth)
        seen = medians(bench.rounds, near=lambda: redis_benchmark(near, n, depth, get, unix=True),
                       redis=lambda: redis_benchmark(peer, n, depth, get, unix=True))
        bench.row(f"hit, CPU per GET, depth {depth}, Unix socket", seen["near"]["cpu"], None, seen["redis"]["cpu"], "redis-server")


def tls(bench):
    """The same over TLS 1.3, clients' side."""
    peer, upstream = servers.redis(tls=True), servers.redis()
    near = servers.nearside(upstream.address, *LONG, tls=True)
    redis_names(peer)
    redis_names(upstream, near)
    targets = {1: 0.9, 16: 0.75, 64: None}
    get = ["GET", "key:__rand_int__"]
    for depth in DEPTHS:
        n = bench.requests(depth)
        seen = medians(bench.rounds, near=lambda: redis_benchmark(near, n, depth, get, tls=True),
                       redis=lambda: redis_benchmark(peer, n, depth, get, tls=True))
        bench.row(f"hit, CPU per GET, depth {depth}, TLS", seen["near"]["cpu"], targets[depth] and ("≤", targets[depth]),
                  seen["redis"]["cpu"], "redis-server")


def floor(seen):
    """How much of redis-server's processor time a server takes that only frames, and answers with a constant."""
    return f"a bare Tokio server: {seen['bare']['cpu'] / seen['redis']['cpu']:.2f}"


def latency(bench):
    """One client that waits for each reply."""
    peer, upstream = servers.redis(), servers.redis()
    near = servers.nearside(upstream.address, *LONG)
    fill(peer, KEYS)
    warm(near, upstream, KEYS)
    one = {"requests": bench.some(40_000), "keys": KEYS, "order": "random"}
    seen = medians(bench.rounds + 2, near=lambda: drive(near, **one), redis=lambda: drive(peer, **one))
    for figure in ("p50", "p99"):
        bench.row(f"hit, one client, {figure}", seen["near"][figure], ("≤", 1.0), seen["redis"][figure], "redis-server")


def large(bench):
    """Large replies from the cache."""
    peer, upstream = servers.redis(), servers.redis()
    near = servers.nearside(upstream.address, *LONG)
    for server in (peer, upstream):
        redis_names(server)
        server.ask("HSET", "hash", *[word for i in range(20) for word in (f"field{i:02}", "x" * 32)])
    mget = ["MGET", *[f"key:{i:012}" for i in range(50)]]
    for _ in range(3):
        near.ask(*mget)
        near.ask("HGETALL", "hash")
    for what, words in (("MGET of 50 keys", mget), ("HGETALL of 20 fields", ["HGETALL", "hash"])):
        bare = servers.bare(len(near.ask(*words)))
        for depth in (1, 16):
            run = lambda server: redis_benchmark(server, bench.some(60_000), depth, words)
            seen = medians(bench.rounds, near=lambda: run(near), redis=lambda: run(peer), bare=lambda: run(bare))
            bench.row(f"{what}, CPU, depth {depth}", seen["near"]["cpu"], ("≤", 0.6), seen["redis"]["cpu"], "redis-server",
                      note=floor(seen))
        bare.stop()


def passing(bench):
    """What goes through: CPU of the proxy alone."""
    upstream = servers.redis()
    near, cold = servers.nearside(upstream.address), servers.nearside(upstream.address, "--max-staleness", "0")
    tw = servers.twemproxy(upstream.address)
    redis_names(upstream)
    bounds = {1: 1.0, 16: 0.6, 64: 0.4}
    for what, server, words in (("SET", near, ["SET", "key:__rand_int__", "x" * 64]),
                                ("HSET", near, ["HSET", "hash:__rand_int__", "field", "x" * 64]),
                                ("LPUSH", near, ["LPUSH", "list:__rand_int__", "x" * 64]),
                                ("cold GET", cold, ["GET", "key:__rand_int__"])):
        for depth in DEPTHS:
            n = bench.requests(depth) // 2
            run = lambda s: redis_benchmark(s, n, depth, words)
            seen = medians(min(bench.rounds, 3), near=lambda: run(server), tw=tw and (lambda: run(tw)))
            versus(bench, f"pass-through {what}, CPU, depth {depth}", seen, bounds[depth])


def versus(bench, what, seen, bound):
    if "tw" in seen:
        bench.row(what, seen["near"]["cpu"], ("≤", bound), seen["tw"]["cpu"], "twemproxy")
    else:
        bench.row(what, seen["near"]["cpu"], note="twemproxy (nutcracker) is not installed")


def misses(bench):
    """GET, PTTL and insert, every key once; against twemproxy's GET of the same keys."""
    upstream = servers.redis()
    near = servers.nearside(upstream.address, "--max-memory", "1gb", *LONG)
    tw = servers.twemproxy(upstream.address)
    keys = bench.some(400_000)
    fill(upstream, keys)
    for depth, bound in zip(DEPTHS, (1.3, 1.0, 1.0)):
        n = min(keys, bench.requests(depth))
        load = {"conns": 50, "depth": depth, "requests": n, "keys": keys}

        def ours():
            near.ask("NEARSIDE", "FLUSH")
            return drive(near, **load)

        seen = medians(min(bench.rounds, 3), near=ours, tw=tw and (lambda: drive(tw, **load)))
        versus(bench, f"miss with fill, CPU, depth {depth}", seen, bound)


def far(bench):
    """An upstream 1 ms away: Zipf 0.99 over 100,000 keys, 1 % writes, 8 clients, warm."""
    upstream = servers.redis()
    keys = bench.some(100_000)
    relay = servers.relay(upstream.address, 500)
    load = {"conns": 8, "seconds": 1 if bench.quick else 4, "keys": keys, "order": "zipf", "writes": 1, "prefix": "bench/"}
    drive(upstream, keys=keys, writes=100, depth=64, prefix="bench/")
    for how, flags, bound in (("", (), 12), (", refill-on-write", ("--namespace", "bench", "--refill-on-write", "true"), 18)):
        near = servers.nearside(relay.address, "--max-memory", "256mb", *LONG, *flags)
        for _ in range(2):
            drive(near, conns=8, depth=64, keys=keys, prefix="bench/")
        drive(near, **load)
        seen = medians(min(bench.rounds, 3), near=lambda: drive(near, **load), direct=lambda: drive(relay, **load))
        bench.row(f"upstream 1 ms away{how}, throughput", seen["near"]["rps"], ("≥", bound), seen["direct"]["rps"], "direct", "/s",
                  note=f"p50 {seen['near']['p50']:.0f} µs against {seen['direct']['p50']:.0f} µs")
        near.stop()


def memory(bench):
    """What an entry takes: growth of resident memory, against redis-server's for the same keys."""
    for keys, size in ((1_000_000, 64), (100_000, 1024)):
        keys, ours, theirs, held = bench.some(keys), [], [], []
        for _ in range(min(bench.rounds, 3)):
            upstream = servers.redis()
            before = upstream.memory()
            fill(upstream, keys, size)
            theirs.append((upstream.memory() - before) / keys)
            near = servers.nearside(upstream.address, "--max-memory", "2gb", *LONG)
            near.ask("GET", "nothing")
            before = near.memory()
            drive(near, keys=keys, depth=16, conns=4)
            ours.append((near.memory() - before) / keys)
            entries = [line for line in near.ask("NEARSIDE", "STATS").decode().split() if "_entries:" in line]
            held.append(int(entries[0].split(":")[1]))
            near.stop()
            upstream.stop()
        note = "" if min(held) >= keys else f"only {min(held)} are cached"
        bench.row(f"memory per entry, {keys:,} keys of 24 B with {size} B", statistics.median(ours), ("≤", 1.0),
                  statistics.median(theirs), "redis-server", "B", note)


def idle(bench):
    """Nothing to do: memory, start, size on disk."""
    upstream = servers.redis()
    starts, memories = [], []
    for _ in range(3 if bench.quick else 11):
        near = servers.nearside(upstream.address)
        starts.append(near.first_pong * 1000)
        time.sleep(0.2)
        memories.append(near.memory() / 2**20)
        near.stop()
    bench.row("idle, resident memory", statistics.median(memories), ("≤", 8), unit="MB")
    bench.row("start to the first PONG", statistics.median(starts), ("≤", 30), unit="ms")
    bench.row("release binary", os.path.getsize(servers.NEARSIDE) / 2**20, ("≤", 10), unit="MB")


def clients(bench):
    """5,000 clients that asked once and do nothing."""
    upstream = servers.redis()
    near = servers.nearside(upstream.address)
    near.ask("GET", "nothing")
    time.sleep(1)
    before, count, sockets = near.memory(), bench.some(5000), []
    try:
        for _ in range(count):
            s = socket.create_connection(("127.0.0.1", near.port), timeout=10)
            s.sendall(b"*2\r\n$3\r\nGET\r\n$7\r\nnothing\r\n")
            s.recv(64)
            sockets.append(s)
        time.sleep(1)
        each = (near.memory() - before) / count
        used, seconds = near.cpu(), 2 if bench.quick else 10
        time.sleep(seconds)
        used = (near.cpu() - used) / seconds * 100
    finally:
        for s in sockets:
            s.close()
    bench.row(f"{count:,} idle clients, memory of each", each, ("≤", 4096), unit="B")
    bench.row(f"{count:,} idle clients, CPU", used, ("≤", 0.5), unit="%")


def workers(bench):
    """Two workers against one. Two need more processors than two, since the clients need some too."""
    upstream = servers.redis()
    one, two = (servers.nearside(upstream.address, *LONG, workers=count) for count in (1, 2))
    warm(one, upstream, KEYS)
    warm(two, upstream, KEYS)
    load = {"conns": 50, "depth": 16, "requests": bench.requests(16), "keys": KEYS, "order": "random"}
    seen = medians(bench.rounds, one=lambda: drive(one, **load), two=lambda: drive(two, **load))
    free = os.cpu_count() >= 4
    bench.row("two workers, throughput at depth 16", seen["two"]["rps"], ("≥", 1.6) if free else None,
              seen["one"]["rps"], "one worker", "/s",
              note="" if free else f"{os.cpu_count()} processors cannot show it: CPU per GET is "
              f"{seen['two']['cpu'] / seen['one']['cpu']:.2f} of one worker's, so free ones would give up to "
              f"{2 * seen['one']['cpu'] / seen['two']['cpu']:.2f}")


def churn(bench):
    """--max-memory holds while everything changes: eight times as much is read as fits."""
    upstream = servers.redis()
    limit = 64 << 20
    near = servers.nearside(upstream.address, "--max-memory", str(limit), *LONG)
    near.ask("GET", "nothing")
    before = near.memory()
    keys = bench.some(400_000)
    fill(upstream, keys, 1024)
    for conns in (8, 50):
        drive(near, conns=conns, depth=16, keys=keys)
    peak = near.memory("VmHWM")
    bench.row("peak memory under churn, --max-memory 64mb", peak / 2**20, ("≤", round((1.15 * limit + before) / 2**20, 1)), unit="MB",
              note=f"1.15 × 64 MB + {before / 2**20:.1f} MB idle")


def stalls(bench):
    """The longest wait of a client that reads a cached key, while others cause work."""
    from threading import Thread
    upstream = servers.redis()
    near = servers.nearside(upstream.address, "--max-memory", "512mb", *LONG)
    # It waits between its reads: a client that never does finds the machine's own pauses of 2 to 4 ms, whatever it asks.
    probe = {"seconds": 1, "keys": 1, "prefix": "probe:", "pause": 200}
    drive(upstream, writes=100, **probe)
    rounds = 1 if bench.quick else 5

    def longest(during=None):
        """The median over the rounds of the longest wait in a second, in ms."""
        seen = []
        for _ in range(rounds):
            thread = Thread(target=lambda: seen.append(drive(near, **probe)["max"] / 1000))
            thread.start()
            time.sleep(0.3)
            if during:
                during()
            thread.join()
        return statistics.median(seen)

    quiet = longest()
    # 64 KiB each: 512 MB hold half of them.
    big = bench.some(16_000)
    drive(upstream, keys=big, size=64 << 10, writes=100, depth=4, prefix="big:")
    drive(near, keys=big, prefix="big:")
    evict = longest(lambda: drive(near, keys=big // 16, prefix="big:"))
    bench.row("longest stall, eviction of 64 KiB values", evict, ("≤", 1), unit="ms", note=f"without it {quiet:.2f} ms")
    for server in (near, upstream):
        server.stop()

    upstream = servers.redis()
    near = servers.nearside(upstream.address, "--max-memory", "1gb", *LONG)
    drive(upstream, writes=100, **probe)
    keys = bench.some(1_000_000)
    fill(upstream, keys)
    worst = []
    for _ in range(1 if bench.quick else 3):
        drive(near, keys=keys, depth=64, conns=4)
        rounds = 1
        worst.append(longest(lambda: near.ask("NEARSIDE", "FLUSH")))
    bench.row(f"longest stall, flush of {keys:,} entries", statistics.median(worst), ("≤", 1), unit="ms", note=f"without it {quiet:.2f} ms")


def cluster(bench):
    """In front of a cluster: a routed miss against one without routing, and what each further node takes."""
    keys = bench.some(200_000)
    plain, one, three = servers.redis(), servers.cluster(1), servers.cluster(3)
    nears = {"plain": servers.nearside(plain.address, "--max-memory", "1gb", *LONG)}
    for name, nodes in (("one", one), ("three", three)):
        nears[name] = servers.nearside(f"redis+cluster://{nodes[0].address}", "--max-memory", "1gb", *LONG)
    for near in nears.values():
        fill(near, keys)
    for depth in (1, 16):
        load = {"conns": 50, "depth": depth, "requests": min(keys, bench.requests(depth)), "keys": keys}

        def cold(near):
            near.ask("NEARSIDE", "FLUSH")
            return drive(near, **load)

        seen = medians(bench.rounds, **{name: (lambda near=near: cold(near)) for name, near in nears.items()})
        for name, of in (("one", "1 node"), ("three", "3 nodes")):
            bench.row(f"miss with fill, CPU, depth {depth}, cluster of {of}", seen[name]["cpu"],
                      ("≤", 1.1) if name == "one" else None, seen["plain"]["cpu"], "without a cluster")
        warm = {**load, "requests": bench.requests(depth)}
        seen = medians(bench.rounds, **{name: (lambda near=near: drive(near, **warm)) for name, near in nears.items()})
        bench.row(f"hit, CPU, depth {depth}, cluster of 3 nodes", seen["three"]["cpu"], ("≤", 1.05), seen["plain"]["cpu"],
                  "without a cluster")
    seen = {}
    for number in (1, 100):
        near = servers.nearside(f"redis+cluster://{servers.nodes(number).address}")
        near.ask("GET", "nothing")
        time.sleep(3)
        seconds, before = 2 if bench.quick else 10, near.cpu()
        for _ in range(seconds * 10):
            near.ask("GET", "nothing")
            time.sleep(0.1)
        active, before = (near.cpu() - before) / seconds, near.memory()
        seen[number] = (before, active)
        near.stop()
    (least, slow), (most, fast) = seen[1], seen[100]
    bench.row("memory of each further node", (most - least) / 99 / 1024, unit="KB")
    bench.row("CPU of each further node while reads come in", (fast - slow) / 99 * 1e6, unit="µs/s")


GROUPS = {"cluster": cluster, "hits": hits, "tls": tls, "latency": latency, "large": large, "pass": passing, "miss": misses, "far": far,
          "memory": memory, "idle": idle, "clients": clients, "workers": workers, "churn": churn, "stalls": stalls,
          "writeback": writeback.group}
