"""How it is measured: one load against one server, and medians of rounds that take turns."""

import csv
import json
import statistics
import subprocess

from servers import LOAD


def redis_benchmark(server, requests, depth, words, unix=False, tls=False, conns=50, keys=10_000):
    """Processor time per operation in µs, operations per second, and latencies in µs."""
    where = ["-s", server.unix] if unix else ["-h", "127.0.0.1", "-p", str(server.tls if tls else server.port)]
    if tls:
        # Verifying is the client's affair, and is not measured.
        where += ["--tls", "--insecure"]
    command = ["redis-benchmark", *where, "-c", str(conns), "-n", str(requests), "-P", str(depth),
               "-r", str(keys), "--csv", *words]
    before = server.cpu()
    out = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    used = server.cpu() - before
    # Behind the command, which may have commas of its own: rps, avg, min, p50, p95, p99, max.
    numbers = [float(cell) for cell in list(csv.reader(out.strip().splitlines()))[-1][-7:]]
    return {"cpu": used / requests * 1e6, "rps": numbers[0], "p50": numbers[3] * 1000, "p99": numbers[5] * 1000}


def drive(server, **options):
    """The same from our own load generator."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    before = server.cpu()
    out = subprocess.run([LOAD, "drive", server.address, *words], capture_output=True, text=True, timeout=300)
    used = server.cpu() - before
    if out.returncode != 0:
        raise SystemExit(f"load against {server.name}: {out.stderr}")
    seen = json.loads(out.stdout)
    if seen["errors"]:
        raise SystemExit(f"load against {server.name}: {seen['errors']} errors; {server.log}")
    return {**seen, "cpu": used / seen["requests"] * 1e6}


def medians(rounds, **runs):
    """Runs all, in turn, so many times; for each the median of every figure. A run may be None: not installed."""
    runs = {name: run for name, run in runs.items() if run}
    seen = {name: [] for name in runs}
    for number in range(rounds):
        # Whoever comes first in one round comes last in the next.
        for name in list(runs)[:: 1 if number % 2 == 0 else -1]:
            seen[name].append(runs[name]())
    return {name: {figure: statistics.median(one[figure] for one in all) for figure in all[0]}
            for name, all in seen.items()}
