"""What is measured: the servers, started on free loopback ports and stopped by their process ids."""

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NEARSIDE = os.path.join(ROOT, "target/release/nearside")
LOAD = os.path.join(ROOT, "target/release/examples/load")

running = []
folder = tempfile.mkdtemp(prefix="nearside-bench-")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def build():
    """The program and the load, as they are released."""
    command = ["cargo", "build", "--release", "--locked", "--target-dir", "target", "--bin", "nearside", "--example", "load"]
    subprocess.run(command, cwd=ROOT, check=True)


class Server:
    """A process, where it listens, and what it has used."""

    def __init__(self, name, command, port, unix=None, tls=None):
        self.name, self.port, self.unix, self.tls = name, port, unix, tls
        self.log = os.path.join(folder, f"{name}-{port}.log")
        self.started = time.perf_counter()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        running.append(self)
        self.first_pong = self.wait()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def wait(self):
        """Seconds from the start to the first answer."""
        while time.perf_counter() - self.started < 10:
            if self.process.poll() is not None:
                break
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=2) as s:
                    s.sendall(b"*1\r\n$4\r\nPING\r\n")
                    if s.recv(64).startswith(b"+PONG"):
                        return time.perf_counter() - self.started
            except OSError:
                pass
            time.sleep(0.0005)
        raise SystemExit(f"{self.name} does not answer:\n{open(self.log).read()}")

    def cpu(self):
        """Seconds of processor time of all threads so far."""
        total, tasks = 0, f"/proc/{self.process.pid}/task"
        for task in os.listdir(tasks):
            try:
                with open(f"{tasks}/{task}/schedstat") as stat:
                    total += int(stat.read().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                pass  # The thread has ended: the relay's do, the servers' do not.
        return total / 1e9

    def memory(self, field="VmRSS"):
        """Bytes of resident memory; VmHWM is the highest so far."""
        with open(f"/proc/{self.process.pid}/status") as status:
            line = next(line for line in status if line.startswith(field + ":"))
        return int(line.split()[1]) * 1024

    def ask(self, *words):
        """One command; the raw reply, as far as it came in one piece."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as s:
            words = [word.encode() for word in words]
            s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
            return s.recv(1 << 20)

    def stop(self):
        if self in running:
            running.remove(self)
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def stop_all():
    for server in list(running):
        server.stop()
    shutil.rmtree(folder, ignore_errors=True)


def certificate():
    """The paths of a certificate and its key, made once."""
    cert, key = os.path.join(folder, "tls.crt"), os.path.join(folder, "tls.key")
    if not os.path.exists(cert):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-subj", "/CN=bench", "-days", "2", "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def redis(tls=False, more=()):
    port, secure = free_port(), free_port() if tls else None
    unix = os.path.join(folder, f"redis-{port}.sock")
    words = ["--port", str(port), "--unixsocket", unix, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
             "--tracking-table-max-keys", "0", "--maxclients", "10000", "--dir", folder, "--daemonize", "no", *more]
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if not program:
        raise SystemExit("neither redis-server nor valkey-server is installed (Debian: redis-server)")
    if tls:
        cert, key = certificate()
        words += ["--tls-port", str(secure), "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert,
                  "--tls-auth-clients", "no"]
    return Server("redis-server", [program, *words], port, unix, secure)


def cluster(number):
    """So many masters, which have divided the slots among them."""
    nodes = [redis(more=["--cluster-enabled", "yes", "--cluster-config-file", f"nodes-{i}-{os.getpid()}-{time.time_ns()}.conf",
                         "--cluster-port", str(free_port())]) for i in range(number)]
    for i, node in enumerate(nodes):
        node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(i + 1))
        node.ask("CLUSTER", "ADDSLOTSRANGE", str(16384 * i // number), str(16384 * (i + 1) // number - 1))
        for other in nodes[:i]:
            bus = other.ask("CONFIG", "GET", "cluster-port").decode().split("\r\n")[-2]
            node.ask("CLUSTER", "MEET", "127.0.0.1", str(other.port), bus)
    until = time.monotonic() + 30
    ok = b"cluster_slots_ok:16384"
    while not all(b"cluster_state:ok" in (said := node.ask("CLUSTER", "INFO")) and ok in said for node in nodes):
        if time.monotonic() > until:
            raise SystemExit("the cluster does not come about")
        time.sleep(0.1)
    return nodes


def nodes(number):
    """A stand-in for a cluster of many masters; gives where the first is."""
    # Below those that the system gives out by itself.
    first = random.randrange(11_000, 32_000 - number)
    command = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "nodes.py"), str(first), str(number)]
    return Server("nodes", command, first)


def nearside(upstream, *flags, workers=1, under=(), tls=False):
    """In front of `upstream`: HOST:PORT. `under` is a command that runs it."""
    port = free_port()
    unix = os.path.join(folder, f"nearside-{port}.sock")
    words = ["--listen", f"127.0.0.1:{port}", "--listen", f"unix:{unix}", "--upstream", upstream if "://" in upstream else f"redis://{upstream}",
             "--admin", "off", "--workers", str(workers), "--log-level", "warn", *flags]
    secure = free_port() if tls else None
    if tls:
        cert, key = certificate()
        words += ["--listen", f"tls://127.0.0.1:{secure}", "--tls-cert", cert, "--tls-key", key]
    return Server("nearside", [*under, NEARSIDE, *words], port, unix, secure)


def twemproxy(upstream):
    if not shutil.which("nutcracker"):
        return None
    port, config = free_port(), os.path.join(folder, "nutcracker.yml")
    with open(config, "w") as file:
        file.write(f"bench:\n  listen: 127.0.0.1:{port}\n  redis: true\n  hash: fnv1a_64\n"
                   f"  distribution: ketama\n  preconnect: true\n  servers:\n   - {upstream}:1\n")
    return Server("twemproxy", ["nutcracker", "-c", config, "-s", str(free_port()), "-a", "127.0.0.1"], port)


def haproxy(upstream):
    if not shutil.which("haproxy"):
        return None
    port, config = free_port(), os.path.join(folder, "haproxy.cfg")
    with open(config, "w") as file:
        file.write("global\n  nbthread 1\n  maxconn 2000\ndefaults\n  mode tcp\n  timeout connect 5s\n"
                   "  timeout client 1m\n  timeout server 1m\n"
                   f"listen bench\n  bind 127.0.0.1:{port}\n  server redis {upstream}\n")
    return Server("haproxy", ["haproxy", "-q", "-f", config], port)


def relay(target, micros):
    """Each way takes `micros` longer. Asked through it, `target` answers."""
    port = free_port()
    return Server("relay", [LOAD, "relay", f"127.0.0.1:{port}", target, str(micros)], port)


def bare(size=64):
    """A Tokio server that frames requests and answers each with the same value: what no cache can be cheaper than."""
    port = free_port()
    return Server("bare Tokio", [LOAD, "bare", f"127.0.0.1:{port}", str(size)], port)
