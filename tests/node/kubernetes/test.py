"""On a real Kubernetes node, every line counted: the manifests of deployment/local, through a rollout of the agent
under load, the kubelet's rotation, and the deletion of drained pods; then thyme alone, installed by kustomize, by
Helm, and by the guide in the place of a Collector. `run` starts it in namespaces."""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE.parent), str(HERE)]

import checks  # noqa: E402
import install  # noqa: E402
import node as node_module  # noqa: E402
import workloads  # noqa: E402

NAMESPACE = "thyme-benchmark"
OVERLAY = HERE / "overlay"


class Manifests(workloads.Workloads):
    def __init__(self, node, check, merge):
        super().__init__(node, check, merge, NAMESPACE)

    # --- Steps ---------------------------------------------------------------------------------------

    def follow_agent(self):
        """Keeps what an agent says, for its log goes with its pod."""
        pod = self.names("thyme")[0]
        self.node.spawn_apart(f"agent-{pod}", "kubectl", "--kubeconfig", self.node.config("admin"), "-n", NAMESPACE,
                              "logs", "--follow", pod, "-c", "thyme")

    def duplicated(self, when):
        """What came twice so far. What is still on its way counts as lost here, which says nothing."""
        code, verdict = self.merge([])
        print(f"     {when}: {verdict['received']:,} received, {verdict['duplicated']:,} twice", flush=True)

    def applies(self):
        self.node.kubectl("apply", "-k", str(OVERLAY))
        for what in ("deployment/nop-collector", "daemonset/thyme", "deployment/log-generator"):
            try:
                self.rollout(what, 120)
                self.check(f"{what} is rolled out", True)
            except subprocess.CalledProcessError as error:
                self.check(f"{what} is rolled out", False, self.why() + error.stderr)
                raise
        version = json.loads(self.node.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
        self.check("the server is Kubernetes 1.34", version.startswith("v1.34."), version)

    def why(self):
        return self.node.kubectl("get", "events", "-A", "--field-selector", "type=Warning", "--no-headers") + " "

    def agent_has_no_privileges(self):
        agents = [entry for entry in pathlib.Path("/proc").glob("[0-9]*")
                  if (entry / "cmdline").read_bytes().startswith(b"/usr/local/bin/thyme-agent\0--config")]
        self.check("one agent runs on the node", len(agents) == 1, str(agents))
        status = dict(line.split(":\t", 1) for line in (agents[0] / "status").read_text().splitlines() if ":\t" in line)
        held = [name for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(status[name], 16)]
        self.check("the agent is 65534:0 without any capability", not held and status["Uid"].split()[0] == "65534"
                   and status["Gid"].split()[0] == "0" and status["NoNewPrivs"] == "1", f"{held} {status['Uid']}")
        state = pathlib.Path("/var/lib/thyme").stat()
        self.check("its state directory is 65534:0, mode 0700", (state.st_uid, state.st_gid, state.st_mode & 0o777)
                   == (65534, 0, 0o700), f"{state.st_uid}:{state.st_gid} {oct(state.st_mode)}")

    def arrives(self, more):
        before = sum(self.received().values())
        self.node.wait(f"{more} lines arrive", lambda: sum(self.received().values()) > before + more, 120)

    def rolls_out(self, *command):
        old = self.names("thyme")
        begin = time.monotonic()
        self.node.kubectl("-n", NAMESPACE, *command)
        self.rollout("daemonset/thyme", 120)
        new = self.pods("thyme")
        init = new[0]["status"]["initContainerStatuses"][0]["state"]["terminated"]
        self.check(f"{command[0]} {command[1]} daemonset/thyme under load, its state prepared again",
                   old != self.names("thyme") and init["exitCode"] == 0,
                   f"{old}, {init}")
        print(f"     the rollout took {time.monotonic() - begin:.0f} s", flush=True)
        self.follow_agent()
        self.arrives(5000)
        self.duplicated("after the rollout")

    def deletes_a_drained_pod(self):
        pod = self.names("log-generator")[0]
        manifest = self.stop_generator(pod)
        self.node.wait("its lines arrive", lambda: self.merge([manifest])[1]["lost"] == 0, 60)
        self.node.kubectl("-n", NAMESPACE, "delete", "pod", pod, "--timeout=60s")
        self.check("a drained generator is deleted", pod not in self.names("log-generator"))
        self.rollout("deployment/log-generator", 60)
        directory = f"*_{pod}_*"
        self.node.wait("the kubelet removes its log files",
                       lambda: not list(pathlib.Path("/var/log/pods").glob(directory)), 90)

    def rotates(self):
        logs = list(pathlib.Path("/var/log/pods").glob("*log-generator*/log-generator/*"))
        rotated = [log.name for log in logs if ".log." in log.name]
        packed = [name for name in rotated if name.endswith(".gz")]
        self.check("the kubelet rotates and compresses their files", len(rotated) >= 6 and len(packed) >= 3,
                   f"{sorted(rotated)}")

    def agent_is_well(self):
        pod = self.names("thyme")[0]
        self.check("the agent's health answers through the API server", self.fetch(pod, 13133, "/healthz") != "")
        page = self.fetch(pod, 8888, "/metrics")
        sent = [line for line in page.splitlines() if line.startswith("otelcol_exporter_sent_log_records")]
        self.check("its metrics do too", sent and float(sent[0].rsplit(" ", 1)[1]) > 0, str(sent))

    def probe(self, address):
        """What a stranger, a pod of another namespace, hears from an address: how its request ends."""
        name = f"probe-{time.monotonic_ns()}"
        self.node.kubectl("run", name, "--image=ghcr.io/ollygarden/thyme/nop-collector:latest", "--restart=Never",
                          "--image-pull-policy=Never", "--", "merge", f"http://{address}")
        self.node.wait("the probe ends", lambda: self.node.kubectl(
            "get", "pod", name, "-o", "jsonpath={.status.phase}") in ("Succeeded", "Failed"), 60)
        said = self.node.kubectl("logs", name)
        self.node.kubectl("delete", "pod", name, "--now")
        return said.strip()

    def policies_hold(self):
        """Lines arrive, so what is needed is open. Here: that the rest is shut, and by the policies."""
        address = self.pods("nop-collector")[0]["status"]["podIP"] + ":4317"
        shut = self.probe(address)
        self.check("a stranger can't reach a collector's port", "refused" in shut or "no answer" in shut, shut)
        self.node.kubectl("-n", NAMESPACE, "delete", "networkpolicy", "--all")
        time.sleep(5)
        reached = self.probe(address)
        self.check("without the policies it could", not ("refused" in reached or "no answer" in reached), reached)

    def counts(self):
        for pod in self.names("log-generator"):
            self.stop_generator(pod)
        with contextlib.suppress(TimeoutError):
            self.node.wait("everything arrives", lambda: self.merge(self.manifests)[1]["lost"] == 0, 60)
        code, verdict = self.merge(self.manifests)
        entries = [json.loads(line) for path in self.manifests for line in path.read_text().splitlines()]
        written = sum(entry["lines"] for entry in entries)
        said = {key: verdict[key] for key in ("received", "lost", "duplicated", "exact", "lossless", "replicas")}
        print(f"     {written:,} lines written by {len(self.manifests)} generators; {said}", flush=True)
        self.check("every line arrived, none twice", code == 0 and verdict["lossless"] and written > 100_000,
                   f"written {written}, {said}")
        if not verdict["lossless"]:
            self.keep_evidence()
        shares = self.received()
        self.check("all collectors had their share", len(shares) == 2 and
                   min(shares.values()) > 0.2 * sum(shares.values()), str(shares))

    def keep_evidence(self):
        """What the cause may be read from, before the pods go: reports, the agent's state, the log files."""
        evidence = self.work.parent / "evidence"
        evidence.mkdir()
        for pod in self.names("nop-collector"):
            (evidence / f"{pod}.json").write_text(self.fetch(pod, 8080, "/report?intervals=1"))
        for manifest in self.manifests:
            shutil.copy(manifest, evidence)
        shutil.copytree("/var/lib/thyme", evidence / "state")
        listing = self.node.run("find", "/var/log/pods", "-type", "f", "-printf", "%i %s %TT %P\n")
        (evidence / "files").write_text(listing)
        print(f"     evidence is in {evidence}", flush=True)

    def benchmarks(self):
        """The benchmark on this cluster, by the script that an operator starts."""
        reports = self.work.parent / "reports"
        environment = dict(os.environ, KUBECONFIG=self.node.config("admin"), OVERLAY=str(OVERLAY.relative_to(ROOT)),
                           REPORTS=str(reports), RAMPUP_MINUTES="0.25", COOLDOWN_MINUTES="0.5", SAMPLE_INTERVAL="5s",
                           QUIET_TIME="5s", POLL_INTERVAL="1s")
        said = subprocess.run([ROOT / "scripts" / "run-benchmark.sh", "0.75"], env=environment, capture_output=True,
                              text=True, timeout=600)
        report = next(iter(reports.glob("*/REPORT.md")), None)
        text = report.read_text() if report else ""
        self.check("the benchmark's script passes on this cluster", said.returncode == 0 and
                   "**Verdict: passed.**" in text, f"{said.returncode}: {said.stderr[-3000:]}")
        active = json.loads((report.parent / "metrics.json").read_text())["verdict"]["active"]
        used = active["agents"]
        print(f"     {active['lines_per_second']:,.0f} lines/s, p99 {active['latency_ms']['p99']} ms, agent "
              f"{used['cores']:.3f} cores, {used['memory_bytes_max'] / 2**20:.0f} MiB", flush=True)
        self.check("its figures are measured", active["lines_per_second"] > 2000 and used["cores"] > 0
                   and used["memory_bytes_max"] > 2**20 and active["latency_ms"]["p99"] > 0, str(active))

    def deletes(self):
        begin = time.monotonic()
        self.node.kubectl("delete", "-k", str(OVERLAY), "--timeout=120s", "--ignore-not-found")
        left = self.node.kubectl("get", "pods", "-A", "--no-headers", "--field-selector", "metadata.namespace!=kube-system")
        took = time.monotonic() - begin
        self.check("delete -k leaves nothing, within 60 s", not left.strip() and took < 60, f"{took:.0f} s; {left}")

    def run(self):
        self.applies()
        self.follow_agent()
        self.agent_has_no_privileges()
        self.arrives(30_000)
        self.duplicated("before the rollout")
        self.rolls_out("rollout", "restart", "daemonset/thyme")
        self.deletes_a_drained_pod()
        self.arrives(60_000)
        self.duplicated("before the second")
        # From gRPC to HTTP, as deployment/README.md says.
        self.rolls_out("set", "env", "daemonset/thyme", "-c", "thyme", "THYME_EXPORTER=otlphttp")
        self.rotates()
        self.agent_is_well()
        self.counts()
        self.benchmarks()
        self.policies_hold()
        restarts = self.restarts()
        self.check("no container was restarted", not restarts, str(restarts))
        warnings = self.why().strip()
        print(f"     warnings of the cluster:\n{warnings}" if warnings else "     no warnings", flush=True)
        self.deletes()


PARTS = {"manifests": Manifests, "kustomize": install.ByKustomize, "helm": install.ByHelm,
         "guide": install.FromCollector}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("built", type=pathlib.Path, help="what tests/node/prepare left")
    parser.add_argument("programs", type=pathlib.Path, help="where the node's programs are")
    parser.add_argument("parts", nargs="*", help=f"what to run, unless all of it: {' '.join(PARTS)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {' '.join(unknown)}; there are {' '.join(PARTS)}")
    built = arguments.built.resolve()
    work = built / "kubernetes" / "state"
    shutil.rmtree(work.parent, ignore_errors=True)
    work.mkdir(parents=True)

    def interrupt(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    check = checks.Checks()
    node = node_module.Node(work, arguments.programs.resolve(), sorted(built.glob("*.tar")))
    begin = time.monotonic()
    try:
        node.start()
        print(f"     the node is ready after {time.monotonic() - begin:.0f} s", flush=True)
        for part in arguments.parts or PARTS:
            PARTS[part](node, check, built / "nop-collector").run()
    except KeyboardInterrupt:
        check.failed("interrupted")
    except Exception as error:
        said = getattr(error, "stderr", "") or ""
        check.failed("the run", f"{type(error).__name__}: {error} {said}")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if check.failures:
            logs = work.parent / "logs"
            logs.mkdir()
            for log in work.glob("*.log"):
                shutil.copy(log, logs)
            print(f"     logs are in {logs}", flush=True)
        node.stop()
    return check.close()


if __name__ == "__main__":
    sys.exit(main())
