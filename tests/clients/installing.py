"""Brings each client's packages into a folder of its own, once: a stamp beside it says what is there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Failure(Exception):
    """Says in one line what failed."""


def do(what, command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          stdin=subprocess.DEVNULL, **options)
    if done.returncode != 0:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        errors = [line for line in lines if "rror" in line] or lines
        raise Failure(f"{what} could not be installed: {errors[0] if errors else 'exit code %d' % done.returncode}")


def once(stamp, content, install):
    """Runs install unless it was done with the same content."""
    if stamp.exists() and stamp.read_text() == content:
        return
    install()
    stamp.write_text(content)


def ready(target):
    """What brings the Python packages: a pip of our own, whatever the system has."""
    target.mkdir(parents=True, exist_ok=True)
    if not (target / "venv" / "bin" / "pip").exists():
        subprocess.run([sys.executable, "-m", "venv", str(target / "venv")], check=True)


def python(target, specs):
    folder = target / "py" / "+".join(specs).replace("==", "-").replace("[", "-").replace("]", "")

    def install():
        shutil.rmtree(folder, ignore_errors=True)
        pip = [str(target / "venv" / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        do(" ".join(specs), pip + ["--target", str(folder)] + specs)

    folder.parent.mkdir(exist_ok=True)
    once(folder.with_name(folder.name + ".stamp"), "\n".join(specs), install)
    return folder


def node(target):
    """All Node clients stand in one package.json, each version under a name of its own."""
    folder, wanted = target / "node", (HERE / "package.json").read_text()
    if not shutil.which("npm"):
        raise Failure("npm is missing; install Node 20 or later")

    def install():
        folder.mkdir(exist_ok=True)
        (folder / "package.json").write_text(wanted)
        do("the Node clients", ["npm", "install", "--prefix", str(folder), "--silent", "--no-audit", "--no-fund",
                                "--no-package-lock"])

    once(target / "node.stamp", wanted, install)
    return folder / "node_modules"


def debian(packages, check):
    """Packages of Debian's, unless the command `check` says that they are there."""
    try:
        if subprocess.run(check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
            return
    except FileNotFoundError:
        pass
    if not shutil.which("apt-get"):
        raise Failure(f"{' '.join(packages)} could not be installed: there is no apt-get; install what Debian calls so")
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    install = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-qy", "--no-install-recommends"]
    try:
        do(" ".join(packages), root + install + packages)
    except Failure:
        # The lists may be old.
        subprocess.run(root + ["apt-get", "update", "-q"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        do(" ".join(packages), root + install + packages)


def rust(target):
    """A package of its own, so that none of this is a dependency of nearside."""
    folder = HERE / "rust"
    # Cargo itself knows whether anything is to be done.
    do("the Rust clients", ["cargo", "build", "--quiet", "--locked", "--manifest-path", str(folder / "Cargo.toml"),
                            "--target-dir", str(target / "rust")])
    return target / "rust" / "debug" / "rust-clients"
