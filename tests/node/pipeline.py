"""The pipeline from its images, on a bare containerd: generators whose output the runtime writes as CRI log
files, rotated as the kubelet does; the agent with the DaemonSet's own security context and configuration;
two collectors. Every line is counted.

Run by tests/node/run, which builds the images."""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import yaml

import checks
import containerd
import images
import kubelet

ROOT = pathlib.Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "deployment" / "kubernetes"
COLLECTORS = ["127.0.0.2", "127.0.0.3"]
# Nothing listens there: that metrics can't be pushed must not hurt.
NOBODY = "127.0.0.4"
# Some seconds' worth: a file is read, closed, and compressed before it goes, and its inode used again.
ROTATE_SIZE = 6 * 2**20
GRACE_SECONDS = 30
KILLS = 16


@functools.cache
def manifests():
    """The benchmark's objects, as they are applied."""
    rendered = subprocess.run(["kubectl", "kustomize", MANIFESTS], check=True, capture_output=True, text=True).stdout
    return list(yaml.safe_load_all(rendered))


def template(kind, name):
    for document in manifests():
        if (document["kind"], document["metadata"]["name"]) == (kind, name):
            return document["spec"]["template"]
    raise LookupError(f"there is no {kind} {name}")


def fetch(url, method="GET"):
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as answer:
        return answer.read().decode()


def until(what, condition, within_seconds):
    """Polls; the exceptions of a service that is not up yet count as no."""
    deadline = time.monotonic() + within_seconds
    last = None
    while time.monotonic() < deadline:
        try:
            last = condition()
            if last:
                return last
        except (OSError, urllib.error.URLError, ValueError) as error:
            last = error
        time.sleep(0.25)
    raise TimeoutError(f"{what}: not within {within_seconds} s; last: {last}")


class Pipeline:
    def __init__(self, work, node, runtime, check):
        self.work, self.node, self.runtime, self.check = work, node, runtime, check
        self.rotation = kubelet.Rotation(runtime, ROTATE_SIZE)
        self.state = work / "state"
        self.config = work / "config"
        self.daemonset = template("DaemonSet", "thyme")
        self.collectors, self.generators, self.manifests = [], {}, []
        self.agent = None
        self.agents = 0

    # --- Pods -------------------------------------------------------------------------------------

    def start_collectors(self):
        spec = template("Deployment", "nop-collector")
        for index, address in enumerate(COLLECTORS):
            pod = kubelet.Pod(self.node, f"nop-collector-{index}", spec, {})
            pod.start(spec["spec"]["containers"][0], [
                "--grpc", f"{address}:4317", "--http", f"{address}:4318", "--admin", f"{address}:8080"])
            self.collectors.append(pod)
        for address in COLLECTORS:
            until("a collector is healthy", lambda: fetch(f"http://{address}:8080/healthz"), 30)

    def start_generator(self, name, port, *arguments):
        spec = template("Deployment", "log-generator")
        pod = kubelet.Pod(self.node, name, spec, {})
        pod.start(spec["spec"]["containers"][0],
                  [*arguments, "--admin", f"127.0.0.1:{port}", "--writer", str(port)])
        until("a generator is healthy", lambda: fetch(f"http://127.0.0.1:{port}/healthz"), 30)
        self.rotation.watch(pod, "log-generator")
        self.generators[name] = (pod, port)

    def stop_generator(self, name):
        """Its last line is written when it answers, and its manifest is kept."""
        _, port = self.generators[name]
        manifest = self.work / f"{name}.manifest"
        manifest.write_text(fetch(f"http://127.0.0.1:{port}/stop", "POST"))
        self.manifests.append(manifest)

    def stop_generators(self):
        """Also waits until everything has arrived, or ought to have."""
        for name in list(self.generators):
            self.stop_generator(name)
            pod, _ = self.generators.pop(name)
            self.rotation.watched.pop(pod.containers["log-generator"][0])
        with contextlib.suppress(TimeoutError):
            until("everything has arrived", self.drained, 60)

    def start_agent(self):
        self.agents += 1
        files = {"config": self.config, "logs": self.node.pods, "state": self.state}
        pod = kubelet.Pod(self.node, f"thyme-{self.agents}", self.daemonset, files)
        prepare = pod.start(self.daemonset["spec"]["initContainers"][0])
        code = self.runtime.exit_code(prepare, 30)
        if code != 0:
            raise RuntimeError(f"prepare-state ended with {code}: {pod.log('prepare-state')}")
        begin = time.monotonic()
        container = pod.start(self.daemonset["spec"]["containers"][0])
        until("the agent is healthy", lambda: fetch("http://127.0.0.1:13133/healthz"), 30)
        self.agent = (pod, container)
        return time.monotonic() - begin

    def stop_agent(self):
        """Returns its exit code and how long it took to end."""
        pod, container = self.agent
        took = self.runtime.stop_container(container, GRACE_SECONDS)
        code = self.runtime.status(container).status.exit_code
        (self.work / f"{pod.name}.log").write_text(pod.log("thyme") + "\n")
        pod.remove()
        self.agent = None
        return code, took

    def kill_agent(self):
        """SIGKILL, as by the kernel, and the container's next attempt, as the kubelet starts it."""
        pod, container = self.agent
        os.kill(self.runtime.process_number(container), signal.SIGKILL)
        code = self.runtime.exit_code(container, 30)
        if code != 137:
            raise RuntimeError(f"the killed agent ended with {code}: {pod.log('thyme')}")
        self.agent = (pod, pod.start(self.daemonset["spec"]["containers"][0]))

    # --- Counting ---------------------------------------------------------------------------------

    def written(self):
        lines = [json.loads(line) for path in self.manifests for line in path.read_text().splitlines()]
        return sum(line["lines"] for line in lines)

    def merge(self, manifests):
        """`nop-collector merge`: its exit code and its verdict."""
        said = subprocess.run(
            [self.work.parent / "nop-collector", "merge", "--manifest", *manifests, "--",
             *[f"http://{address}:8080" for address in COLLECTORS]],
            capture_output=True, text=True)
        if said.returncode not in (0, 1):
            raise RuntimeError(f"merge ended with {said.returncode}: {said.stderr}")
        return said.returncode, json.loads(said.stdout)

    def drained(self):
        _, verdict = self.merge(self.manifests)
        return verdict["lost"] == 0

    def totals(self):
        return {address: json.loads(fetch(f"http://{address}:8080/report"))["records"] for address in COLLECTORS}

    # --- Steps ------------------------------------------------------------------------------------

    def prepares_its_state(self):
        """The init container on a directory as the kubelet makes it."""
        self.state.mkdir(mode=0o755)
        container = self.daemonset["spec"]["initContainers"][0]
        pod = kubelet.Pod(self.node, "prepare", self.daemonset, {"state": self.state})

        without = json.loads(json.dumps(container))
        without["securityContext"]["capabilities"].pop("add")
        code = self.runtime.exit_code(pod.start(without), 30)
        self.check("prepare-state fails without CAP_CHOWN", code != 0, f"ended with {code}")
        os.chmod(self.state, 0o755)

        code = self.runtime.exit_code(pod.start(container), 30)
        found = self.state.stat()
        mode = oct(found.st_mode & 0o7777)
        self.check("prepare-state gives a fresh directory to 65534:0, mode 0700",
                   (code, found.st_uid, found.st_gid, mode) == (0, 65534, 0, "0o700"),
                   f"code {code}, {found.st_uid}:{found.st_gid} {mode}; {pod.log('prepare-state')}")
        again = self.runtime.exit_code(pod.start(container), 30)
        self.check("prepare-state started again does nothing and succeeds",
                   again == 0 and self.state.stat().st_ctime_ns == found.st_ctime_ns,
                   f"code {again}; {pod.log('prepare-state')}")
        pod.remove()

    def runs_without_privileges(self):
        number = self.runtime.process_number(self.agent[1])
        status = pathlib.Path(f"/proc/{number}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        self.check("the agent is UID 65534, GID 0", fields["Uid"].split()[1] == "65534"
                   and fields["Gid"].split()[1] == "0", f"{fields['Uid']} {fields['Gid']}")
        held = [name for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(fields[name], 16)]
        self.check("the agent has no capability and can get none",
                   not held and fields["NoNewPrivs"] == "1", f"{held}, NoNewPrivs {fields['NoNewPrivs']}")
        self.check("the agent is under the default seccomp profile", fields["Seccomp"] == "2", fields["Seccomp"])
        mounts = pathlib.Path(f"/proc/{number}/mountinfo").read_text().splitlines()
        options = {line.split()[4]: line.split()[5].split(",")[0] for line in mounts}
        self.check("its root and the log files are read-only",
                   options["/"] == "ro" and options["/var/log/pods"] == "ro"
                   and options["/var/lib/thyme"] == "rw", str(options))
        logs = list(self.node.pods.glob("*log-generator*/*/0.log"))
        modes = {(log.stat().st_uid, log.stat().st_gid, oct(log.stat().st_mode & 0o777)) for log in logs}
        self.check("the runtime wrote the log files as root:root 0640", modes == {(0, 0, "0o640")}, str(modes))

    def rolls_out(self):
        before = self.totals()
        code, took = self.stop_agent()
        self.check("the agent ends by SIGTERM with 0 and within 25 s", code == 0 and took <= 25,
                   f"code {code} after {took:.1f} s; see {self.work}/thyme-{self.agents}.log")
        waited = self.start_agent()
        until("lines arrive again", lambda: sum(self.totals().values()) > sum(before.values()) + 5000, 30)
        self.check("a new agent goes on where the old one ended", True, f"healthy after {waited:.1f} s")

    def is_killed(self):
        """At random times under load and rotation; new generators, since what was unacknowledged comes twice.
        A kill leaves a backlog for a moment. No file that holds any of it may be removed meanwhile: that would take
        three rotations, each of which takes seconds, as the size and the rate are."""
        self.start_generator("killed-0", 18005, "--rate", "5000", "--linger")
        self.start_generator("killed-1", 18006, "--rate", "2500", "--linger", "--kind", "mixed")
        self.start_generator("killed-2", 18007, "--rate", "60", "--linger", "--size", "1000..40000")
        seed = time.time_ns()
        moments = random.Random(seed)
        rotated, removed = self.rotation.rotated, self.rotation.removed
        for _ in range(KILLS):
            time.sleep(moments.uniform(0.3, 3.5))
            self.kill_agent()
        until("the agent is healthy", lambda: fetch("http://127.0.0.1:13133/healthz"), 30)
        rotated, removed = self.rotation.rotated - rotated, self.rotation.removed - removed
        self.stop_generators()
        _, verdict = self.merge(self.manifests)
        said = {key: verdict[key] for key in ("received", "lost", "duplicated", "exact", "lossless")}
        self.check("no line is lost by kills under load and rotation", verdict["lost"] == 0 and verdict["exact"]
                   and rotated >= 8 and removed >= 1, f"seed {seed}, {rotated} rotations, {said}")
        print(f"     {KILLS} kills, seed {seed}, {rotated} rotations, {removed} removed; {said}", flush=True)

    def deletes_a_drained_pod(self):
        self.start_generator("short", 18004, "--rate", "2000", "--lines", "8000", "--linger")
        until("the short pod has written all", lambda: '"lines":8000' in fetch("http://127.0.0.1:18004/manifest")
              .replace(" ", ""), 30)
        self.stop_generator("short")
        until("its lines have arrived", lambda: self.merge(self.manifests[-1:])[1]["lost"] == 0, 30)
        pod, _ = self.generators.pop("short")
        self.rotation.watched.pop(pod.containers["log-generator"][0])
        pod.remove()
        self.check("a pod's lines have arrived when it is deleted", True, "")

    def counts(self):
        self.stop_generators()
        code, verdict = self.merge(self.manifests)
        said = {key: verdict[key] for key in ("received", "lost", "duplicated", "exact", "lossless", "replicas")}
        written = self.written()
        self.check("every line arrived, none twice", code == 0 and verdict["lossless"]
                   and verdict["lost"] == 0 and verdict["duplicated"] == 0 and written > 100_000,
                   f"written {written}, {said}")
        if not verdict["lossless"]:
            (self.work / "verdict.json").write_text(json.dumps(verdict, indent=1))
        print(f"     {written:,} lines written; {said}", flush=True)
        totals = self.totals()
        self.check("both collectors had their share", min(totals.values()) > 0.2 * sum(totals.values()),
                   str(totals))

        more = self.work / "one-more.manifest"
        entry = json.loads(self.manifests[0].read_text().splitlines()[0])
        entry["last"] += 1
        entry["lines"] += 1
        more.write_text(json.dumps(entry) + "\n")
        code, verdict = self.merge([*self.manifests[1:], more])
        self.check("the count notices a line that did not come", code == 1 and verdict["lost"] == 1,
                   f"code {code}, lost {verdict['lost']}")

    def rotated(self):
        r = self.rotation
        print(f"     {r.rotated} rotations, {r.compressed} compressed, {r.removed} removed", flush=True)
        self.check("files were rotated, compressed and removed under the agent", r.error is None
                   and r.rotated >= 10 and r.compressed >= 6 and r.removed >= 1, str(r.error))

    def run(self):
        self.config.mkdir()
        shutil.copy(MANIFESTS / "thyme" / "agent.yaml", self.config)
        self.prepares_its_state()
        self.start_collectors()
        self.start_agent()
        self.rotation.start()
        self.start_generator("log-generator-0", 18001, "--rate", "2500", "--linger")
        self.start_generator("log-generator-1", 18002, "--rate", "2500", "--linger", "--kind", "mixed")
        # Longer than 16 KiB: the runtime splits these lines.
        self.start_generator("log-generator-2", 18003, "--rate", "60", "--linger", "--size", "1000..40000")
        self.runs_without_privileges()
        until("lines arrive", lambda: sum(self.totals().values()) > 50_000, 60)
        self.rolls_out()
        self.deletes_a_drained_pod()
        until("lines arrive", lambda: sum(self.totals().values()) > 300_000, 120)
        page = fetch("http://127.0.0.1:8888/metrics")
        self.check("the metrics page counts what was sent", "otelcol_exporter_sent_log_records" in page, page[:300])
        self.rolls_out()
        split = any(b" P " in line[:60] for log in (self.node.pods).glob("*log-generator-2*/*/*.log")
                    for line in log.read_bytes().splitlines())
        self.check("the runtime split long lines", split, "no P line")
        self.counts()
        self.is_killed()
        self.rotation.stop()
        self.rotated()
        code, took = self.stop_agent()
        self.check("the idle agent ends with 0 and at once", code == 0 and took < 15, f"{code} after {took:.1f} s")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=pathlib.Path, help="where tests/node/prepare left the images")
    built = parser.parse_args().work.resolve()
    work = built / "pipeline"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)

    def interrupt(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    check = checks.Checks()
    runtime_process = containerd.Containerd(work)
    pipeline = None
    try:
        images.examine(check)
        runtime_process.start(sorted(built.glob("*.tar")))
        runtime = containerd.Runtime()
        print(f"     {runtime.version()}", flush=True)
        names = [(address, "nop-collector") for address in COLLECTORS] + [(NOBODY, "lgtm.lgtm.svc.cluster.local")]
        node = kubelet.Node(runtime, work, names)
        pipeline = Pipeline(work, node, runtime, check)
        pipeline.run()
    except KeyboardInterrupt:
        check.failed("interrupted")
    except Exception as error:
        check.failed("the run", f"{type(error).__name__}: {error}")
    finally:
        # A second Ctrl-C must not leave mounts behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if pipeline is not None:
            pipeline.rotation.stop()
            if check.failures:
                with contextlib.suppress(Exception):
                    keep_logs(pipeline)
            try:
                pipeline.runtime.remove_all()
            except Exception as error:
                print(f"     pods were not removed: {error}", flush=True)
        runtime_process.stop()
        if not check.failures:
            shutil.rmtree(work, ignore_errors=True)
    return check.close()


def keep_logs(pipeline):
    """What the agent said last, for whoever looks for the cause."""
    if pipeline.agent is not None:
        pod, _ = pipeline.agent
        (pipeline.work / f"{pod.name}.log").write_text(pod.log("thyme") + "\n")
        print(f"     the agent's log is {pipeline.work / pod.name}.log", flush=True)


if __name__ == "__main__":
    sys.exit(main())
