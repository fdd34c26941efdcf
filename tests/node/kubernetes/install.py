"""thyme alone, installed, changed, rolled back and taken away as its documents say, by kustomize and by Helm, and in
the place of an OpenTelemetry Collector, while generators write: every line is counted. But for the last the sink has
TLS with an authority of its own."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import textwrap

import yaml

import workloads

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TOOLS = ROOT / "local/tools/bin"
# Where the sink and the generators are; the agent is elsewhere, as it is for who installs it.
LOAD = "load"
SINK = f"nop-collector.{LOAD}.svc.cluster.local"
STATE = pathlib.Path("/var/lib/thyme")
# Slow enough that the kubelet deletes nothing while no agent runs: a node's only agent is its only reader.
RATE = 300


class Install(workloads.Workloads):
    """What both ways have in common. A class below says how each command reads."""

    way = ""
    # Its commands are run as they are written there.
    readme = ""
    namespace_of_agent = "thyme"
    selector = ""
    has_tls = True

    def __init__(self, on, check, merge):
        super().__init__(on, check, merge, LOAD)
        self.directory = self.work / self.way
        self.directory.mkdir()

    def says(self, what, holds, detail=""):
        return self.check(f"{self.way}: {what}", holds, detail)

    def bash(self, script, stdin=""):
        """What an operator types, in a directory where the project's paths lead to the project."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HELM_")}
        environment |= {"HOME": str(self.directory), "KUBECONFIG": self.node.config("admin"),
                        "PATH": f"{TOOLS}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=self.directory, env=environment,
                              input=stdin, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{script!r} ended with {done.returncode}: {done.stdout[-2000:]} {done.stderr[-2000:]}")
        return done.stdout

    def documented(self, phrase, without=None):
        """The block of commands in the README that has the one phrase and not the other. It may stand there more than
        once."""
        blocks = re.findall(r"```sh\n(.*?)\n *```", (ROOT / self.readme).read_text(), re.DOTALL)
        (found,) = {textwrap.dedent(block) for block in blocks if phrase in block and (not without or without not in block)}
        return found

    # --- The sink and the load ---------------------------------------------------------------------------

    def certificates(self):
        """An authority, and the sink's certificate by it."""
        d = self.directory
        self.node.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority",
                      "-keyout", str(d / "ca.key"), "-out", str(d / "ca.crt"))
        self.node.run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={SINK}", "-keyout",
                      str(d / "tls.key"), "-out", str(d / "tls.csr"))
        (d / "extensions").write_text(f"subjectAltName=DNS:{SINK}\nbasicConstraints=CA:FALSE\n")
        self.node.run("openssl", "x509", "-req", "-in", str(d / "tls.csr"), "-CA", str(d / "ca.crt"), "-CAkey",
                      str(d / "ca.key"), "-CAcreateserial", "-days", "2", "-extfile", str(d / "extensions"), "-out",
                      str(d / "tls.crt"))

    def stage(self):
        """Sink and generators: the benchmark's own, in another namespace, fewer, and the sink with TLS."""
        kubectl = self.node.kubectl
        kubectl("create", "namespace", LOAD)
        if self.has_tls:
            self.certificates()
            kubectl("-n", LOAD, "create", "secret", "tls", "sink", f"--cert={self.directory}/tls.crt",
                    f"--key={self.directory}/tls.key")
        rendered = subprocess.run(["kubectl", "kustomize", ROOT / "deployment/kubernetes"], check=True,
                                  capture_output=True, text=True).stdout
        wanted = {("Deployment", "nop-collector"), ("Service", "nop-collector"), ("Deployment", "log-generator")}
        objects = [d for d in yaml.safe_load_all(rendered) if (d["kind"], d["metadata"]["name"]) in wanted]
        for document in objects:
            document["metadata"]["namespace"] = LOAD
            if document["kind"] == "Service":
                continue
            spec = document["spec"]["template"]["spec"]
            (container,) = spec["containers"]
            container["imagePullPolicy"] = "Never"
            container["resources"]["requests"] = {"cpu": "50m", "memory": "32Mi"}
            if document["metadata"]["name"] == "log-generator":
                document["spec"]["replicas"] = 2
                container["args"][container["args"].index("--rate") + 1] = str(RATE)
            else:
                document["spec"]["replicas"] = 1
                if not self.has_tls:
                    continue
                container["args"] += ["--tls-cert", "/tls/tls.crt", "--tls-key", "/tls/tls.key"]
                container["volumeMounts"] = [{"name": "tls", "mountPath": "/tls", "readOnly": True}]
                spec["volumes"] = [{"name": "tls", "secret": {"secretName": "sink"}}]
        kubectl("apply", "-f", "-", input=yaml.safe_dump_all(objects))
        for name in ("nop-collector", "log-generator"):
            self.rollout(f"deployment/{name}", 120)

    def arrives(self, more):
        before = sum(self.received().values())
        self.node.wait(f"{more} lines arrive", lambda: sum(self.received().values()) > before + more, 120)

    # --- The agent -----------------------------------------------------------------------------------------

    def agents(self):
        """The agent's pods that are to stay, by name."""
        found = json.loads(self.node.kubectl("-n", self.namespace_of_agent, "get", "pods", "-l", self.selector, "-o", "json"))
        return {p["metadata"]["name"]: p for p in found["items"] if "deletionTimestamp" not in p["metadata"]}

    def rolled_out(self, seconds=120):
        """The command that the documents give next."""
        self.node.kubectl("rollout", "status", "-n", self.namespace_of_agent, "daemonset/thyme", f"--timeout={seconds}s")

    def replaces(self, what, change):
        """A change under load, after which another pod reads on."""
        before = set(self.agents())
        change()
        self.rolled_out()
        after = self.agents()
        self.says(f"{what} replaces the pod", len(after) == 1 and not before & set(after), f"{before}, {set(after)}")
        self.arrives(1500)

    def is_ready(self):
        self.rolled_out()
        (pod,) = self.agents().values()
        (init,) = pod["status"]["initContainerStatuses"]
        (container,) = pod["status"]["containerStatuses"]
        self.says("its pod is ready, its state prepared", container["ready"] and container["restartCount"] == 0
                  and init["state"]["terminated"]["exitCode"] == 0, f"{container} {init}")
        self.arrives(3000)
        said = self.bash(self.next_commands())
        sent = [line for line in said.splitlines() if line.startswith("otelcol_exporter_sent_log_records")]
        self.says("the commands that come next show what was sent", len(sent) == 1 and float(sent[0].rsplit(" ", 1)[1]) > 0,
                  said)

    def counts(self):
        """Nothing is lost through all of it. What a drain did not get acknowledged may have come twice."""
        for pod in self.names("log-generator"):
            self.stop_generator(pod)
        with contextlib.suppress(TimeoutError):
            self.node.wait("everything arrives", lambda: self.merge(self.manifests)[1]["lost"] == 0, 60)
        _, verdict = self.merge(self.manifests)
        written = sum(json.loads(line)["lines"] for path in self.manifests for line in path.read_text().splitlines())
        said = {key: verdict[key] for key in ("received", "lost", "duplicated", "exact")}
        print(f"     {self.way}: {written:,} lines written; {said}", flush=True)
        self.says("no line is lost", verdict["lost"] == 0 and verdict["exact"] and written > 10_000, f"{written} {said}")

    def leaves(self, kinds):
        """What stays behind: the state on the node, and the objects of `kinds`."""
        def left():
            found = json.loads(self.node.kubectl("-n", self.namespace_of_agent, "get", "all,configmaps,secrets,serviceaccounts,"
                                                 "networkpolicies", "-o", "json", "--ignore-not-found") or '{"items": []}')
            # Kubernetes' own, in every namespace.
            own = ("kube-root-ca.crt", "default")
            return sorted(d["kind"] for d in found["items"] if d["metadata"]["name"] not in own)

        with contextlib.suppress(TimeoutError):
            self.node.wait("the pods go", lambda: left() == kinds, 60)
        self.says(f"afterwards there is {', '.join(kinds) or 'nothing'} of it in the namespace", left() == kinds, str(left()))
        files = sorted(path.name for path in STATE.iterdir())
        self.says("the state directory stays, with positions in it", bool(files), str(files))

    def run(self):
        try:
            self.stage()
            self.installs()
            self.is_ready()
            self.changes()
            self.counts()
            self.uninstalls()
        except Exception:
            said = self.node.run("bash", "-c", f"kubectl --kubeconfig {self.node.config('admin')} get events,pods -A -o wide; "
                                 f"kubectl --kubeconfig {self.node.config('admin')} -n {self.namespace_of_agent} logs -l {self.selector} "
                                 "--all-containers --prefix --tail=30 || true")
            (self.work / f"{self.way}.log").write_text(said)
            raise
        finally:
            self.node.kubectl("delete", "namespace", LOAD, "--ignore-not-found", "--timeout=120s")


class ByKustomize(Install):
    """deployment/thyme, in a copy with the files that an operator adds."""

    way = "kustomize"
    readme = "deployment/thyme/README.md"
    selector = "app=thyme"

    def apply(self):
        self.bash("kubectl apply -k deployment/thyme")

    def next_commands(self):
        return self.documented("otelcol_exporter_sent_log_records")

    def edit(self, name, old, new):
        text = (self.copy / name).read_text()
        if old not in text:
            raise ValueError(f"{name} has no {old!r}")
        (self.copy / name).write_text(text.replace(old, new))

    def installs(self):
        self.copy = self.directory / "deployment/thyme"
        shutil.copytree(ROOT / "deployment/thyme", self.copy, ignore=lambda path, names: names if path.endswith("/sink") else [])
        # "An authority of one's own", and the image that this node has, as the README says.
        shutil.copy(self.directory / "ca.crt", self.copy / "sink/ca.crt")
        self.edit("kustomization.yaml", "      - sink/token\n", "      - sink/token\n      - sink/ca.crt\n")
        self.edit("agent.yaml", "    compression: zstd\n",
                  "    compression: zstd\n    tls:\n      ca_file: /var/run/secrets/thyme/ca.crt\n")
        with open(self.copy / "kustomization.yaml", "a") as file:
            file.write("\nimages:\n  - name: ghcr.io/ollygarden/thyme\n    newTag: latest\n")
        install = self.documented("THYME_ENDPOINT=").replace("otlp.example.com", SINK)
        self.bash(install, stdin="not-a-real-token\n")
        secret = (self.copy / "sink/token").stat().st_mode & 0o777
        self.says("two files and `kubectl apply -k` install it", secret == 0o600, oct(secret))

    def changes(self):
        def upgrade():
            self.edit("agent.yaml", "  batch: {}\n", "  batch: {timeout: 500ms}\n")
            self.apply()

        def token():
            (self.copy / "sink/token").write_text("another-token\n")
            self.apply()

        self.replaces("a changed configuration", upgrade)
        self.replaces("a changed token", token)
        self.replaces("kubectl rollout undo", lambda: self.node.kubectl(
            "rollout", "undo", "-n", self.namespace_of_agent, "daemonset/thyme"))

    def uninstalls(self):
        self.bash(self.documented("kubectl delete -k"))
        self.leaves([])
        found = self.node.kubectl("get", "namespace", self.namespace_of_agent, "--ignore-not-found")
        self.says("the namespace is gone", not found, found)


class ByHelm(Install):
    """charts/thyme."""

    way = "helm"
    readme = "charts/thyme/README.md"
    selector = "app.kubernetes.io/instance=thyme"

    def next_commands(self):
        """Those of the notes, all of them."""
        return "\n".join(line[2:] for line in self.notes.splitlines() if line.startswith("  "))

    def write_values(self, **processors):
        """The README's values for a sink that wants a token; an authority, a policy, the image that this node has."""
        block = re.search(r"```yaml\n(config:\n  extensions:.*?)```", (ROOT / self.readme).read_text(), re.DOTALL)[1]
        values = yaml.safe_load(block.replace("otlp.example.com", SINK))
        values["config"]["exporters"]["otlp"]["tls"] = {"ca_file": "/var/run/secrets/thyme/ca.crt"}
        values["config"]["processors"] = {"batch": processors}
        dns = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
        sink = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": LOAD}}}
        values |= {
            "image": {"tag": "latest"},
            "credentials": {"files": {"ca.crt": (self.directory / "ca.crt").read_text()}},
            "networkPolicy": {"enabled": True, "egressRules": [
                {"to": [dns], "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
                {"to": [sink], "ports": [{"port": 4317, "protocol": "TCP"}]}]},
        }
        (self.directory / "values.yaml").write_text(yaml.safe_dump(values))

    def upgrade(self, **processors):
        self.write_values(**processors)
        self.bash(self.documented("helm upgrade"))

    def rollback(self):
        self.bash(self.documented("helm rollback"))

    def installs(self):
        (self.directory / "charts").symlink_to(ROOT / "charts")
        self.write_values()
        (self.directory / "token.txt").write_text("not-a-real-token\n")
        self.notes = self.bash(self.documented("helm install thyme charts/thyme --namespace thyme --create-namespace \\\n"
                                               "  --values values.yaml")).split("NOTES:")[1]
        self.bash(self.documented("kubectl label namespace"))

    def changes(self):
        def token():
            (self.directory / "token.txt").write_text("another-token\n")
            self.upgrade()

        before = set(self.agents())
        self.upgrade()
        self.rolled_out()
        self.says("an upgrade that changes nothing keeps the pod", set(self.agents()) == before)
        self.replaces("a changed configuration", lambda: self.upgrade(timeout="500ms"))
        self.replaces("helm rollback", self.rollback)
        self.replaces("a changed token", token)
        self.rolls_back_what_is_refused()

    def rolls_back_what_is_refused(self):
        """A key that the agent does not know: the rollout stops, the log says why, and a rollback goes on."""
        self.upgrade(tiemout="1s")

        def refused():
            names = list(self.agents())
            return len(names) == 1 and "tiemout" in self.node.kubectl(
                "-n", self.namespace_of_agent, "logs", names[0], "-c", "thyme")

        self.says("the log names a key that the agent refuses", bool(self.node.wait("the agent refuses", refused, 60)))
        status = json.loads(self.node.kubectl("-n", self.namespace_of_agent, "get", "daemonset", "thyme", "-o", "json"))["status"]
        self.says("and the rollout waits", status.get("numberReady", 0) == 0, str(status))
        self.replaces("helm rollback from there", self.rollback)

    def uninstalls(self):
        self.bash(self.documented("helm uninstall"))
        self.leaves([])
        found = self.node.kubectl("get", "namespace", self.namespace_of_agent, "--ignore-not-found")
        self.says("the namespace stays", "Active" in found, found)
        self.node.kubectl("delete", "namespace", self.namespace_of_agent, "--timeout=120s")


class FromCollector(Install):
    """docs/install.md from its first block on: thyme comes beside a Collector that reads the same files, and takes its
    place."""

    way = "guide"
    readme = "docs/install.md"
    selector = "app.kubernetes.io/instance=thyme"
    has_tls = False

    def next_commands(self):
        return self.documented("otelcol_exporter_sent_log_records")

    def write_values(self, start_at):
        """The guide's, with the image and the sink that this node has."""
        block = re.search(r"```yaml\n(image:\n.*?)```", (ROOT / self.readme).read_text(), re.DOTALL)[1]
        values = yaml.safe_load(block.replace("collector.observability", SINK))
        values["image"] = {"tag": "latest"}
        values["config"]["receivers"] = {"filelog": {"start_at": start_at}}
        (self.directory / "values.yaml").write_text(yaml.safe_dump(values))

    def runs_a_collector(self):
        """A DaemonSet of a Collector, with the configuration of `make run-collector`, as root and with positions on the
        node, as its chart has it with storeCheckpoints."""
        config = (ROOT / "tests/collector/logs.yaml").read_text()
        for name, value in (("state", "/var/lib/otelcol"), ("logs", "/var/log/pods"), ("grpc", f"{SINK}:4317")):
            config = config.replace(f"{{{name}}}", value)
        volumes = {"logs": "/var/log/pods", "state": "/var/lib/otelcol"}
        paths = [{"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}} for name, path in volumes.items()]
        pod = {
            "containers": [{
                "name": "otelcol", "image": "localhost/thyme-node/otelcol:1", "imagePullPolicy": "Never",
                "args": ["--config=/etc/otelcol/config.yaml"], "securityContext": {"runAsUser": 0},
                "volumeMounts": [{"name": name, "mountPath": path} for name, path in volumes.items()]
                + [{"name": "config", "mountPath": "/etc/otelcol"}],
            }],
            "volumes": [*paths, {"name": "config", "configMap": {"name": "otelcol"}}],
        }
        labels = {"app": "otelcol"}
        of = {"name": "otelcol", "namespace": "collector"}
        objects = [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "collector"}},
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": of, "data": {"config.yaml": config}},
            {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": of, "spec": {
                "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}},
        ]  # fmt: skip
        self.node.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(objects))
        self.node.kubectl("rollout", "status", "-n", "collector", "daemonset/otelcol", "--timeout=120s")
        self.arrives(3000)

    def installs(self):
        (self.directory / "charts").symlink_to(ROOT / "charts")
        self.runs_a_collector()
        self.write_values("end")
        self.bash(self.documented("helm install thyme charts/thyme"))

    def changes(self):
        def twice():
            return sum(json.loads(self.fetch(pod, 8080, "/report"))["duplicated"] for pod in self.names("nop-collector"))

        self.node.wait("lines come from both", lambda: twice() > 1000, 120)
        self.node.kubectl("delete", "namespace", "collector", "--timeout=120s")
        before = twice()
        self.write_values("beginning")
        self.replaces("its last step", lambda: self.bash(
            self.documented("helm upgrade thyme charts/thyme", without="rollback")))
        self.arrives(3000)
        after = twice()
        # What an upgrade's drain did not get acknowledged may come again, and no more.
        self.says("once the Collector is gone nothing comes twice", after - before < 1000, f"{before}, {after}")
        self.replaces("helm rollback", lambda: self.bash("helm rollback thyme --namespace thyme"))

    def uninstalls(self):
        self.bash("helm uninstall thyme --namespace thyme")
        self.leaves([])
        self.node.kubectl("delete", "namespace", self.namespace_of_agent, "--timeout=120s")
        shutil.rmtree("/var/lib/otelcol", ignore_errors=True)
