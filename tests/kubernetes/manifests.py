"""What has to be true of manifests: they are such as Kubernetes takes, they fit together, and nearside takes its settings."""

import json
import re
import subprocess
import tempfile
from pathlib import Path

import bring
from bring import Failure

# The first with native sidecars and a preStop that sleeps, and the newest that the package knows.
VERSIONS = ["1.29", "1.37"]


def need(condition, why):
    if not condition:
        raise Failure(why)


def parse(text):
    import yaml

    return [one for one in yaml.safe_load_all(text) if one is not None]


def check_types(documents, monitors):
    """Every field is one that Kubernetes knows, and of its type; unknown fields are errors."""
    import kubernetes_validate

    for one in documents:
        if one["kind"] == "PodMonitor":
            check_monitor(one, monitors)
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise Failure(f"Kubernetes {version}, {one['kind']}: {error.message} at {list(error.path)}") from error


# The types let unknown fields pass; check_selector tells of those.
MONITOR = """
import {readFileSync} from "node:fs";
import {PodMonitor} from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
try { new PodMonitor(JSON.parse(readFileSync(0))).validate(); } catch (error) { console.log(error.message); }
"""
MONITOR_FIELDS = {"port", "path", "interval", "relabelings", "authorization"}


def check_monitor(monitor, monitors):
    script = monitors / "check.mjs"
    script.write_text(MONITOR)
    done = subprocess.run(["node", str(script)], input=json.dumps(monitor), capture_output=True, text=True)
    need(done.returncode == 0, f"node: {done.stderr.strip()}")
    need(not done.stdout.strip(), f"PodMonitor: {done.stdout.strip()}")


def of_kind(documents, kind):
    return [one for one in documents if one["kind"] == kind]


def one_of_kind(documents, kind):
    found = of_kind(documents, kind)
    need(len(found) == 1, f"{len(found)} of the kind {kind}")
    return found[0]


def pods(documents):
    """Metadata and spec of every pod template."""
    return [one["spec"]["template"] for one in documents if "template" in one.get("spec", {})]


def containers(pod):
    return pod["spec"].get("initContainers", []) + pod["spec"]["containers"]


def nearside_of(pod):
    found = [one for one in containers(pod) if one["name"] == "nearside"]
    need(len(found) == 1, f"{len(found)} containers called nearside")
    return found[0]


def matches(selector, labels):
    return bool(selector) and all(labels.get(name) == value for name, value in selector.items())


def check_whole(documents):
    """What one manifest names, another has."""
    maps = {one["metadata"]["name"]: one for one in of_kind(documents, "ConfigMap")}
    accounts = {one["metadata"]["name"] for one in of_kind(documents, "ServiceAccount")}
    for pod in pods(documents):
        spec, volumes = pod["spec"], {one["name"]: one for one in pod["spec"].get("volumes", [])}
        need(len(volumes) == len(spec.get("volumes", [])), "a volume is there twice")
        for container in containers(pod):
            for mount in container.get("volumeMounts", []):
                need(mount["name"] in volumes, f"there is no volume {mount['name']}")
                need("subPath" not in mount, f"{mount['name']}: the kubelet never updates a subPath")
            ports = [port["name"] for port in container.get("ports", [])]
            for probe in (container.get(f"{kind}Probe") for kind in ("startup", "readiness", "liveness")):
                need(probe is None or probe["httpGet"]["port"] in ports, f"a probe's port is none of {ports}")
        for volume in volumes.values():
            if "configMap" in volume:
                need(volume["configMap"]["name"] in maps, f"there is no ConfigMap {volume['configMap']['name']}")
        account = spec.get("serviceAccountName")
        need(account in accounts | {None, "default"}, f"there is no ServiceAccount {account}")
    for one in documents:
        check_selector(one, documents)


def check_selector(one, documents):
    """Whoever selects pods selects those that are there, by labels that they have, and ports that they have."""
    spec, kind = one.get("spec", {}), one["kind"]
    templates = pods(documents)
    selector = spec.get("podSelector" if kind == "NetworkPolicy" else "selector")
    if selector is None or not templates:
        return
    if kind in ("Deployment", "DaemonSet", "StatefulSet"):
        templates = [spec["template"]]
    wanted = selector if kind == "Service" else selector["matchLabels"]
    found = [pod for pod in templates if matches(wanted, pod["metadata"]["labels"])]
    need(found, f"{kind}: no pod has the labels {wanted}")
    ports = [port["name"] for pod in found for container in containers(pod) for port in container.get("ports", [])]
    if kind == "Service":
        named = [port["targetPort"] for port in spec["ports"]]
    elif kind == "PodMonitor":
        named = [endpoint["port"] for endpoint in spec["podMetricsEndpoints"]]
        for endpoint in spec["podMetricsEndpoints"]:
            need(set(endpoint) <= MONITOR_FIELDS, f"PodMonitor: {set(endpoint) - MONITOR_FIELDS} is none of its fields")
    else:
        named = []
    for port in named:
        need(port in ports, f"{kind}: no pod has a port {port}, only {ports}")


def unrestricted(pod):
    """In what the pod does not keep to the Pod Security Standard "restricted"."""
    spec, found = pod["spec"], set()
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            found.add(name)
    allowed = {"configMap", "secret", "emptyDir", "projected", "downwardAPI", "csi", "ephemeral", "persistentVolumeClaim"}
    for volume in spec.get("volumes", []):
        found |= set(volume) - allowed - {"name"}
    of_pod = spec.get("securityContext", {})
    for container in containers(pod):
        security = {**of_pod, **container.get("securityContext", {})}
        if security.get("runAsNonRoot") is not True or security.get("runAsUser") == 0:
            found.add("root")
        if security.get("allowPrivilegeEscalation") is not False:
            found.add("allowPrivilegeEscalation")
        if security.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            found.add("seccompProfile")
        capabilities = security.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []):
            found.add("capabilities")
        if any("hostPort" in port for port in container.get("ports", [])):
            found.add("hostPort")
    return found


def mebibytes(text):
    found = re.fullmatch(r"(\d+)Mi", text)
    need(found, f"{text} is no size in Mi")
    return int(found[1])


def settings(documents):
    return one_of_kind(documents, "ConfigMap")["data"]["nearside.toml"]


def check_settings(text, nearside):
    """nearside itself takes the file; gives what it then goes by. Files that it names are put where it looks."""
    with tempfile.TemporaryDirectory() as folder:
        text = text.replace('"/etc/nearside', f'"{folder}/nearside')
        for path in re.findall(rf'"({re.escape(folder)}/[^"]+)"', text):
            Path(path).parent.mkdir(exist_ok=True)
            if path.endswith((".crt", ".key")):
                certificate(Path(path).parent)
            else:
                Path(path).write_text("secret\n")
        file = Path(folder) / "nearside.toml"
        file.write_text(text)
        done = subprocess.run([str(nearside), "check", "--config", str(file)], capture_output=True, text=True, env={})
    need(done.returncode == 0, f"nearside check: {done.stdout}{done.stderr}\n{text}")
    lines = (line.split(" #")[0].split(" = ", 1) for line in done.stdout.splitlines() if not line.startswith("#"))
    return {line[0]: line[1].strip() for line in lines if len(line) == 2}


def certificate(folder):
    """ca.crt, tls.crt and tls.key, each where it is asked for."""
    if not (folder / "tls.key").exists():
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        bring.do("a certificate", make + ["-subj", "/CN=redis", "-addext", "subjectAltName=DNS:redis", "-keyout",
                                          str(folder / "tls.key"), "-out", str(folder / "tls.crt")])
        (folder / "ca.crt").write_bytes((folder / "tls.crt").read_bytes())
