"""The Helm chart and the Kustomize component: what they render, and what they refuse."""

import json
import shutil
import subprocess
from pathlib import Path

import bring
from bring import Failure
from manifests import (check_settings, check_types, check_whole, mebibytes, nearside_of, need, of_kind, one_of_kind, parse,
                       pods, settings, unrestricted)

CONFIG = bring.ROOT / "config"
# What is mounted of secrets.
SECRETS = {
    "upstream": {"url": "rediss://app@redis:6380", "passwordSecret": {"name": "password"},
                 "tls": {"secret": "upstream-tls", "cert": "tls.crt", "key": "tls.key"}},
    "clients": {"passwordSecret": {"name": "clients"}, "tls": {"secret": "tls"}},
    "admin": {"tokenSecret": {"name": "admin", "key": "secret"}},
}
EXTRAS = {
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "networkPolicy": {"enabled": True, "clients": [{"podSelector": {}}], "upstream": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
                      "metrics": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]},
    "namespaces": {"users": {"prefix": "u/", "max-age": "5m", "refill-on-write": True}, "a \"b\" <c>": {}},
}


class Tools:
    """helm and kubectl, with homes of their own, and copies of the charts, whose dependencies are brought into them."""

    def __init__(self, programs, monitors, nearside):
        (self.helm, self.kubectl), self.monitors, self.nearside = programs, monitors, nearside
        self.folder = bring.TARGET / "work"
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("helm", "kustomize", "kubernetes"):
            shutil.copytree(CONFIG / name, self.folder / name)
        home = {f"HELM_{kind}_HOME": str(self.folder / "home") for kind in ("CACHE", "CONFIG", "DATA")}
        self.environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder / "home"), **home}
        self.chart, self.app = self.folder / "helm" / "nearside", self.folder / "helm" / "app"
        self.do(self.helm, "dependency", "build", self.app)

    def run(self, *command, **options):
        return subprocess.run([str(word) for word in command], capture_output=True, text=True, env=self.environment,
                              cwd=self.folder, **options)

    def do(self, *command, **options):
        done = self.run(*command, **options)
        need(done.returncode == 0, f"{' '.join(map(str, command[1:]))}: {done.stderr.strip()}")
        return done.stdout

    def template(self, chart, values):
        return self.run(self.helm, "template", "cache", chart, "--namespace", "shop", "--values", "-",
                        input=json.dumps(values))

    def render(self, chart, values):
        """What the chart makes of the values, after all that has to be true of any manifest."""
        done = self.template(chart, values)
        need(done.returncode == 0, f"helm template: {done.stderr.strip()}")
        return self.checked(done.stdout)

    def checked(self, text):
        documents = parse(text)
        check_types(documents, self.monitors)
        check_whole(documents)
        for pod in pods(documents):
            check_container(nearside_of(pod))
        return documents

    def effective(self, documents):
        return check_settings(settings(documents), self.nearside)


def check_container(container):
    security = container["securityContext"]
    need(security["readOnlyRootFilesystem"] is True and security["runAsUser"] == 65532, f"{security}")
    need(container["args"] == ["serve", "--config", "/etc/nearside/nearside.toml"], f"{container['args']}")
    need(mebibytes(container["resources"]["requests"]["memory"]) <= mebibytes(container["resources"]["limits"]["memory"]),
         "more is requested than is allowed")
    paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    need(paths == {"startup": "/livez", "readiness": "/readyz", "liveness": "/livez"}, f"{paths}")


def lint(tools):
    """helm lint --strict finds nothing"""
    for chart in (tools.chart, tools.app):
        tools.do(tools.helm, "lint", "--strict", chart)


def strict(tools):
    """the checks tell of a field that is misspelt, and of what does not fit together"""
    def spoil(text, found, by):
        need(found in text, f"there is no {found}")
        try:
            tools.checked(text.replace(found, by))
        except Failure:
            return
        raise Failure(f"{by} in the place of {found} is told by nothing")

    text = tools.template(tools.app, {"nearside": EXTRAS}).stdout
    for found, by in [("periodSeconds:", "periodSecond:"), ("restartPolicy: Always", "restartPolicy: 1"),
                      ("port: nearside-admin", "port: admin"), ("interval: 30s", "interval: soon"),
                      ("interval:", "intervall:"), ("mountPath:", "mountpath:"),
                      ("nearside-sidecar: cache", "nearside-sidecar: [cache]"),
                      ("configMap:\n            name: cache-nearside", "configMap:\n            name: another"),
                      ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false")]:
        spoil(text, found, by)


def alone(tools):
    """without values it makes the ConfigMap of sidecars and nothing else"""
    documents = tools.render(tools.chart, {})
    need([one["kind"] for one in documents] == ["ConfigMap"], f"{documents}")
    need(tools.effective(documents)["listen"] == '["127.0.0.1:6380"]', settings(documents))


def native(tools):
    """a chart of one's own has it as a native sidecar, restricted"""
    documents = tools.render(tools.app, {})
    [pod] = pods(documents)
    need([one["name"] for one in pod["spec"]["initContainers"]] == ["nearside"], "it is no init container")
    container = nearside_of(pod)
    need(container["restartPolicy"] == "Always" and "lifecycle" not in container, f"{container}")
    need(not unrestricted(pod), f"not restricted: {unrestricted(pod)}")
    # The application's 15 s, drain-timeout, and a little.
    need(pod["spec"]["terminationGracePeriodSeconds"] == 30, f"{pod['spec']['terminationGracePeriodSeconds']}")
    need(container["resources"]["limits"]["memory"] == "256Mi", f"{container['resources']}")
    need(container["image"].split(":")[1] == version(), container["image"])


def plain(tools):
    """or as a plain container, which is not told to end before the application has had time"""
    documents = tools.render(tools.app, {"nearside": {"sidecar": {"native": False, "preStopSeconds": 20}}})
    [pod] = pods(documents)
    container = nearside_of(pod)
    need("initContainers" not in pod["spec"] and "restartPolicy" not in container, "it is a sidecar")
    need(container["lifecycle"] == {"preStop": {"sleep": {"seconds": 20}}}, f"{container['lifecycle']}")
    need(pod["spec"]["terminationGracePeriodSeconds"] == 35, f"{pod['spec']['terminationGracePeriodSeconds']}")
    documents = tools.render(tools.app, {"nearside": {"sidecar": {"native": False, "preStopSeconds": 0}}})
    need("lifecycle" not in nearside_of(pods(documents)[0]), "it sleeps for 0 s")


def everything(tools):
    """with secrets and every extra, at the side"""
    extras = {**EXTRAS, "podDisruptionBudget": {"enabled": True}}
    documents = tools.render(tools.app, {"nearside": {**SECRETS, **extras}})
    kinds = sorted(one["kind"] for one in documents)
    need(kinds == ["ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "PodMonitor"], f"{kinds}")
    effective = tools.effective(documents)
    need(effective["listen"] == '["tls://127.0.0.1:6380"]' and effective["auth"] == '"password"', f"{effective}")
    need("upstream-password-file" in effective and "upstream-tls-key" in effective, f"{effective}")
    need(effective["admin-token-for"] == '"pages"', f"{effective}")
    [endpoint] = one_of_kind(documents, "PodMonitor")["spec"]["podMetricsEndpoints"]
    need(endpoint["authorization"]["credentials"] == {"name": "admin", "key": "secret"}, f"{endpoint}")
    need(effective["namespace.users.max-age"] == '"5m"', f"{effective}")
    need(not unrestricted(pods(documents)[0]), "not restricted")
    # Nobody from outside is a client of a sidecar.
    ports = [port["port"] for rule in one_of_kind(documents, "NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]]
    need(ports == [9380], f"{ports}")


def alias(tools):
    """a dependency with an alias is given by name, and told of if it is not"""
    chart = tools.folder / "helm" / "aliased"
    shutil.copytree(tools.app, chart, ignore=shutil.ignore_patterns("Chart.lock", "charts"))
    text = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(text.replace("- name: nearside\n", "- name: nearside\n    alias: cache\n"))
    (chart / "values.yaml").write_text((chart / "values.yaml").read_text().replace("nearside:", "cache:"))
    template = chart / "templates" / "deployment.yaml"
    template.write_text(template.read_text().replace(".Values.nearside", ".Values.cache"))
    tools.do(tools.helm, "dependency", "build", chart)
    done = tools.template(chart, {})
    need(done.returncode != 0 and "say .Subcharts.ALIAS" in done.stderr, done.stderr)
    text = template.read_text()
    for name in ("container", "volumes", "podAnnotations", "terminationGracePeriodSeconds"):
        text = text.replace(f'"nearside.{name}" .', f'"nearside.{name}" .Subcharts.cache')
    template.write_text(text)
    tools.render(chart, {"cache": SECRETS})


def daemonset(tools, expose, **more):
    values = {"mode": "daemonset", **more, "daemonset": {"expose": expose, **more.get("daemonset", {})}}
    documents = tools.render(tools.chart, values)
    [pod] = pods(documents)
    need(one_of_kind(documents, "DaemonSet")["spec"]["template"] is pod, "the pod is not the DaemonSet's")
    need(pod["spec"]["automountServiceAccountToken"] is False, "it has a token of the API")
    return documents, pod, tools.effective(documents)


def host_port(tools):
    """one for each node, at a port of the node"""
    documents, pod, effective = daemonset(tools, "hostPort", **EXTRAS, daemonset={"hostIP": "127.0.0.1"},
                                          upstream={"secret": {"name": "url", "key": "redis"}})
    [variable] = nearside_of(pod)["env"]
    need(variable["valueFrom"]["secretKeyRef"] == {"name": "url", "key": "redis"}, f"{variable}")
    need(effective["listen"] == '["0.0.0.0:6380"]', f"{effective}")
    need(nearside_of(pod)["ports"][0]["hostPort"] == 6380, f"{nearside_of(pod)['ports']}")
    need(unrestricted(pod) == {"hostPort"}, f"{unrestricted(pod)}")
    # preStop, drain-timeout, and a little.
    need(pod["spec"]["terminationGracePeriodSeconds"] == 20, f"{pod['spec']}")
    rules = one_of_kind(documents, "NetworkPolicy")["spec"]["ingress"]
    need([rule["ports"][0]["port"] for rule in rules] == [6380, 9380], f"{rules}")


def socket(tools):
    """one for each node, at a Unix socket of the node"""
    _, pod, effective = daemonset(tools, "socket", **EXTRAS)
    need(effective["listen"] == '["unix:/run/nearside/nearside.sock"]', f"{effective}")
    need(effective["unix-socket-mode"] == '"770"', f"{effective}")
    need(unrestricted(pod) == {"hostPath", "root"}, f"{unrestricted(pod)}")
    need("lifecycle" not in nearside_of(pod), "it waits for nothing")
    _, pod, _ = daemonset(tools, "socket", daemonset={"socket": {"prepare": {"enabled": False}}})
    need(unrestricted(pod) == {"hostPath"}, f"{unrestricted(pod)}")


def service(tools):
    """one for each node, at a Service that stays on the node, restricted"""
    documents, pod, _ = daemonset(tools, "service", **SECRETS, **EXTRAS)
    need(one_of_kind(documents, "Service")["spec"]["internalTrafficPolicy"] == "Local", "it leaves the node")
    need(not unrestricted(pod), f"not restricted: {unrestricted(pod)}")
    daemonset(tools, "service", serviceAccount={"create": False})


def sizes(tools):
    """memory and time for stopping follow from the settings"""
    for memory, limit, request in [("1gb", 1456, 1056), (1 << 30, 1456, 1056), ("64m", 254, 94), ("1.5gb", 2096, 1568),
                                   (100_000_000, 296, 128)]:
        documents = tools.render(tools.app, {"nearside": {"settings": {"max-memory": memory}}})
        resources = nearside_of(pods(documents)[0])["resources"]
        seen = mebibytes(resources["limits"]["memory"]), mebibytes(resources["requests"]["memory"])
        need(seen == (limit, request), f"{memory}: {seen}")
        tools.effective(documents)
    for drain, grace in [("1m 30s", 110), ("500ms", 21), ("2min", 140), (0, 20), (None, 30)]:
        documents = tools.render(tools.app, {"nearside": {"settings": {"drain-timeout": drain}}})
        need(pods(documents)[0]["spec"]["terminationGracePeriodSeconds"] == grace, f"{drain}: not {grace}")
        tools.effective(documents)
    given = {"limits": {"memory": "1Gi"}, "requests": {"memory": "1Gi"}}
    done = tools.template(tools.app, {"nearside": {"resources": given}})
    need(nearside_of(pods(parse(done.stdout))[0])["resources"] == given, "what was given does not count")


def refused(tools):
    """what is wrong is refused, with what is wrong"""
    for values, says in [
        ({"mode": "deployment"}, "/mode"),
        ({"upstrem": {}}, "upstrem"),
        ({"settings": {"listen": "6380"}}, "listen"),
        ({"settings": {"max-memory": "lots"}}, "max-memory"),
        ({"settings": {"drain-timeout": "soon"}}, "drain-timeout"),
        ({"upstream": {"url": "redis://app:secret@redis:6379"}}, "/upstream/url"),
        ({"upstream": {"url": "http://redis"}}, "/upstream/url"),
        ({"clients": {"port": 80}}, "/clients/port"),
        ({"namespaces": {"users": {"prefx": "u/"}}}, "prefx"),
        ({"upstream": {"tls": {"secret": "s", "cert": "tls.crt"}}, "mode": "daemonset"}, "needs its key"),
        ({"mode": "daemonset", "podDisruptionBudget": {"enabled": True}}, "not for a DaemonSet"),
    ]:
        done = tools.template(tools.chart, values)
        need(done.returncode != 0, f"{values} is taken")
        need(says in done.stderr, f"{values}: {done.stderr}")


def changed(tools):
    """a change of the settings replaces the pods, and nothing else does"""
    def stamp(values):
        return pods(tools.render(tools.app, {"nearside": values}))[0]["metadata"]["annotations"]["checksum/nearside"]

    need(stamp({}) == stamp({"podMonitor": {"enabled": True}}), "it changes by itself")
    need(stamp({}) != stamp({"settings": {"max-age": "5s"}}), "it stays")


def notes(tools):
    """the notes say where the cache is, and warn of an open port"""
    for values, says in [({}, "127.0.0.1:6380"), ({"mode": "daemonset"}, "WARNING"),
                         ({"mode": "daemonset", "daemonset": {"expose": "socket"}}, "/run/nearside/nearside.sock"),
                         ({"mode": "daemonset", "daemonset": {"expose": "service"}}, "cache-nearside.shop:6380")]:
        said = tools.do(tools.helm, "install", "cache", tools.chart, "--namespace", "shop", "--dry-run=client", "--values", "-",
                        input=json.dumps(values))
        need(says in said.split("NOTES:")[1], f"{values}: {said}")


def component(tools):
    """the Kustomize component puts it first, with a ConfigMap whose change replaces the pods"""
    folder = tools.folder / "kustomize" / "app"
    documents = tools.checked(tools.do(tools.kubectl, "kustomize", folder))
    [pod] = pods(documents)
    need([one["name"] for one in pod["spec"]["initContainers"]] == ["nearside", "migrate"], "it is not the first")
    need(nearside_of(pod)["restartPolicy"] == "Always", "it is no sidecar")
    need(nearside_of(pod)["image"] == f"nearside:{version()}", nearside_of(pod)["image"])
    name = one_of_kind(documents, "ConfigMap")["metadata"]["name"]
    need(tools.effective(documents)["max-age"] == '"5m"', settings(documents))
    file, kept = folder / "settings" / "nearside.toml", (folder / "settings" / "nearside.toml").read_text()
    file.write_text(kept.replace("redis:6379", "other:6379"))
    documents = tools.checked(tools.do(tools.kubectl, "kustomize", folder))
    need(tools.effective(documents)["upstream"] == '"redis://other:6379"', settings(documents))
    need(one_of_kind(documents, "ConfigMap")["metadata"]["name"] != name, "the ConfigMap has the same name")
    file.write_text(kept)


def component_elsewhere(tools):
    """it goes into StatefulSets too, and not where it is not wanted"""
    folder = tools.folder / "kustomize" / "app"
    file, kept = folder / "deployment.yaml", (folder / "deployment.yaml").read_text()
    file.write_text(kept.replace("kind: Deployment", "kind: StatefulSet").replace("spec:\n", "spec:\n  serviceName: app\n", 1))
    documents = tools.checked(tools.do(tools.kubectl, "kustomize", folder))
    need(of_kind(documents, "StatefulSet"), "there is no StatefulSet")
    file.write_text(kept.replace("  name: app\n", '  name: app\n  labels:\n    nearside: "off"\n', 1))
    [deployment] = of_kind(parse(tools.do(tools.kubectl, "kustomize", folder)), "Deployment")
    need(len(deployment["spec"]["template"]["spec"]["initContainers"]) == 1, "it is there all the same")
    file.write_text(kept)


def manifests(tools):
    """the manifests of config/kubernetes are whole, and restricted"""
    texts = [path.read_text() for path in sorted((tools.folder / "kubernetes").glob("*.yaml"))]
    documents = tools.checked("\n---\n".join(texts))
    tools.effective(documents)
    need(not unrestricted(pods(documents)[0]), f"not restricted: {unrestricted(pods(documents)[0])}")


def version():
    text = (bring.ROOT / "Cargo.toml").read_text()
    return text.split('version = "')[1].split('"')[0]


ALL = [lint, strict, alone, native, plain, everything, alias, host_port, socket, service, sizes, refused, changed, notes, component,
       component_elsewhere, manifests]
