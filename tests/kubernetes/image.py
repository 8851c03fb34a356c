"""The container image: what is in it, and that it serves under the conditions that the manifests set."""

import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tarfile
import threading
import time
import urllib.error
import urllib.request

import bring
from bring import Failure
from charts import version
from installing import debian
from manifests import need

FOLDER = bring.ROOT / "target" / "image"
# In bytes, as it is pulled and as it lies on a node.
MOST = 15_000_000
# What else than the program may be there.
FILES = {"etc/group", "etc/nsswitch.conf", "etc/passwd", "etc/ssl/certs/ca-certificates.crt", "usr/local/bin/nearside",
         "usr/share/doc/nearside/LICENSE", "usr/share/doc/nearside/sbom.cdx.json"}
PATIENCE = 20


class Image:
    """Built by scripts/image, and taken apart: its configuration, and its files in a folder."""

    def __init__(self):
        # The program that the other checks are done with need not be static.
        environment = {name: value for name, value in os.environ.items() if name != "NEARSIDE_BIN"}
        if os.environ.get("NEARSIDE_STATIC_BIN"):
            environment["NEARSIDE_BIN"] = os.environ["NEARSIDE_STATIC_BIN"]
        done = subprocess.run([str(bring.ROOT / "scripts" / "image")], env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise Failure("scripts/image failed, see above")
        print(done.stdout.strip(), flush=True)
        self.archive = bring.ROOT / done.stdout.split(": ")[0]
        self.folder = bring.TARGET / "image"
        shutil.rmtree(self.folder, ignore_errors=True)
        with tarfile.open(self.archive) as archive:
            def blob(digest):
                return archive.extractfile("blobs/" + digest.replace(":", "/"))

            [manifest] = json.load(archive.extractfile("index.json"))["manifests"]
            self.manifest = json.load(blob(manifest["digest"]))
            self.configuration = json.load(blob(self.manifest["config"]["digest"]))
            self.unpacked = 0
            for layer in self.manifest["layers"]:
                with tarfile.open(fileobj=blob(layer["digest"]), mode="r:*") as files:
                    self.unpacked += sum(one.size for one in files)
                    files.extractall(self.folder / "rootfs")
        self.config = self.configuration["config"]


def small(image):
    """it is under 15 MB, packed and unpacked"""
    need(image.archive.stat().st_size < MOST, f"{image.archive.stat().st_size} bytes")
    need(image.unpacked < MOST, f"{image.unpacked} bytes unpacked")


def described(image):
    """it says what it is, and runs as nobody in particular"""
    labels = image.config["Labels"]
    need(labels["org.opencontainers.image.version"] == version(), f"{labels}")
    need(labels["org.opencontainers.image.licenses"] == "MIT", f"{labels}")
    need(labels["org.opencontainers.image.title"] == "nearside", f"{labels}")
    need(labels["org.opencontainers.image.revision"] != "unknown", f"{labels}")
    need(image.config["User"] == "65532:65532", image.config["User"])
    need(image.config["Entrypoint"] == ["/usr/local/bin/nearside"], f"{image.config['Entrypoint']}")
    need(set(image.config["ExposedPorts"]) == {"6380/tcp", "9380/tcp"}, f"{image.config['ExposedPorts']}")
    need(image.configuration["os"] == "linux" and image.configuration["architecture"] in ("amd64", "arm64"), "no architecture")


def bare(image):
    """it holds the program, which is static, and no other"""
    root = image.folder / "rootfs"
    files = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}
    need(files == FILES, f"{files ^ FILES}")
    program = (root / "usr/local/bin/nearside").read_bytes()
    need(program[:5] == b"\x7fELF\x02", "the program is no ELF file of 64 bits")
    start, size, count = struct.unpack_from("<Q", program, 32)[0], *struct.unpack_from("<HH", program, 54)
    kinds = [struct.unpack_from("<I", program, start + size * at)[0] for at in range(count)]
    # PT_INTERP names a loader, which would have to be there.
    need(3 not in kinds, "the program is not static")
    need(not any(path.stat().st_mode & 0o6002 for path in root.rglob("*")), "a file is setuid, or everybody's to write")


def listed(image):
    """it lists what the program is made of"""
    text = (image.folder / "rootfs/usr/share/doc/nearside/sbom.cdx.json").read_text()
    need(text == image.archive.with_suffix(".cdx.json").read_text(), "the one beside it differs")
    parts = json.loads(text)
    need(parts["bomFormat"] == "CycloneDX" and parts["metadata"]["component"]["version"] == version(), f"{parts['metadata']}")
    of_program = subprocess.run(["cargo", "tree", "--locked", "--edges", "normal,build", "--prefix", "none", "--format", "{p}",
                                 "--target", target(image)], cwd=bring.ROOT, capture_output=True, text=True, check=True)
    used = {tuple(line.split()[:2]) for line in of_program.stdout.splitlines() if line}
    used = {(name, version.lstrip("v")) for name, version in used if name != "nearside"}
    named = {(part["name"], part["version"]) for part in parts["components"]}
    need(len(used) > 50 and used <= named, f"not listed: {used - named}")
    need(all(part.get("licenses") for part in parts["components"]), "a part has no licence")


def of_one_kind(image):
    """a program for another kind of machine is refused"""
    other = "amd64" if image.configuration["architecture"] == "arm64" else "arm64"
    program = image.folder / "rootfs/usr/local/bin/nearside"
    done = subprocess.run([bring.ROOT / "scripts/image.d/rootfs", image.folder / "other", other], capture_output=True, text=True,
                          env={**os.environ, "NEARSIDE_BIN": str(program)})
    need(done.returncode != 0 and "is no program for" in done.stderr, f"exit code {done.returncode}: {done.stderr}")
    need(not (image.folder / "other").exists(), "it is laid out all the same")


def target(image):
    cpu = {"amd64": "x86_64", "arm64": "aarch64"}[image.configuration["architecture"]]
    return f"{cpu}-unknown-linux-gnu"


def apart():
    """Moves what runs from here on into a network of its own, which has a loopback address and nothing else."""
    newnet = 0x40000000
    if ctypes.CDLL(None, use_errno=True).unshare(newnet) != 0:
        raise Failure(f"no network of its own could be made: {os.strerror(ctypes.get_errno())}; run this as root")
    get_up, up_and_running = 0x8914, 0x41
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, get_up, struct.pack("16sh14x", b"lo", up_and_running))


def name_server(name):
    """A name server there that knows one name, which is 127.0.0.1."""
    known = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))

    def answer():
        while True:
            question, asker = server.recvfrom(512)
            asked = question[12 : question.index(b"\0", 12) + 5]
            found = asked == known + b"\0\1\0\1"
            record = b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\x7f\0\0\1" if found else b""
            code = b"\x81\x80" if asked.startswith(known) else b"\x81\x83"
            head = question[:2] + code + b"\0\1\0" + bytes([found]) + b"\0" * 4
            server.sendto(head + asked + record, asker)

    threading.Thread(target=answer, daemon=True).start()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ask(port, *words):
    """The reply to a command, as it comes, once somebody answers."""
    request = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in (word.encode() for word in words))
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(b"*%d\r\n" % len(words) + request)
                return connection.recv(4096).decode()
        except OSError as error:
            if time.monotonic() > deadline:
                raise Failure(f"{words}: {error}") from error
            time.sleep(0.05)


def page(port, path, status=200):
    """The page, once it has this status."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
                seen, text = reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            seen, text = error.code, error.read().decode()
        except OSError as error:
            seen, text = None, str(error)
        if seen == status:
            return text
        if time.monotonic() > deadline:
            raise Failure(f"{path}: {seen}: {text}")
        time.sleep(0.05)


def bundle(image, arguments):
    """What the runtime is told: the image's own configuration, and what the manifests set on top."""
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": True},
        "process": {
            "user": dict(zip(("uid", "gid"), map(int, image.config["User"].split(":")))),
            "args": image.config["Entrypoint"] + arguments, "env": image.config.get("Env", []), "cwd": "/",
            "noNewPrivileges": True, "capabilities": {},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 20000, "hard": 20000}],
        },
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                   {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}],
        # The network is that of this process.
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
    }


class Running:
    """A container of the image in front of a server of its own, which it finds by the name of its Service."""

    def __init__(self, image):
        debian(["runc"], ["runc", "--version"])
        apart()
        name_server("redis.shop.svc.cluster.local")
        server = shutil.which("redis-server") or shutil.which("valkey-server")
        self.upstream, self.port, self.admin = free_port(), free_port(), free_port()
        self.folder = image.folder
        self.name = f"nearside-{os.getpid()}"
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        self.server = subprocess.Popen([server, "--port", str(self.upstream), "--bind", "127.0.0.1", "--save", ""], **quiet)
        arguments = ["serve", "--upstream", f"redis://redis:{self.upstream}", "--listen", str(self.port),
                     "--admin", str(self.admin)]
        (self.folder / "config.json").write_text(json.dumps(bundle(image, arguments)))
        # As the kubelet writes it.
        (self.folder / "rootfs/etc/resolv.conf").write_text(
            "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 127.0.0.1\noptions ndots:5\n")
        self.log = open(self.folder / "log", "w+")
        self.container = subprocess.Popen(self.runc("run", "--bundle", str(self.folder), self.name), stdin=subprocess.DEVNULL,
                                          stdout=self.log, stderr=self.log)

    def runc(self, *words):
        return ["runc", "--root", str(self.folder / "runc"), *words]

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.container.poll() is None:
            subprocess.run(self.runc("kill", self.name, "KILL"), stderr=subprocess.DEVNULL)
            self.container.wait(PATIENCE)
        subprocess.run(self.runc("delete", "--force", self.name), stderr=subprocess.DEVNULL)
        self.server.send_signal(signal.SIGTERM)
        self.server.wait(PATIENCE)
        self.log.close()


def serves(image):
    """it serves with a read-only root, as no root, without capabilities, finds its upstream by name, and drains"""
    if (image.configuration["architecture"] == "amd64") != (os.uname().machine == "x86_64"):
        raise Failure("it is for another machine")
    with Running(image) as running:
        try:
            told = {("PING",): "+PONG\r\n", ("SET", "key", "value"): "+OK\r\n", ("GET", "key"): "$5\r\nvalue\r\n"}
            for words, reply in told.items():
                seen = ask(running.port, *words)
                need(seen == reply, f"{words}: {seen!r}")
            page(running.admin, "/readyz")
            page(running.admin, "/livez")
            deadline = time.monotonic() + PATIENCE
            while "cached: yes" not in ask(running.port, "NEARSIDE", "WHY", "key"):
                need(time.monotonic() < deadline, "nothing is cached")
                ask(running.port, "GET", "key")
            need("nearside_hits_total" in page(running.admin, "/metrics"), "there is no such metric")
            subprocess.run(running.runc("kill", running.name, "TERM"), check=True)
            need(running.container.wait(PATIENCE) == 0, "it did not end well")
        except (Failure, subprocess.SubprocessError) as failure:
            raise Failure(f"{failure}; it said: {running.said()}") from failure


ALL = [small, described, bare, listed, of_one_kind, serves]
