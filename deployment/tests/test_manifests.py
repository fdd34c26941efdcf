"""What the overlays must be, whoever changes them: facts of the rendered objects."""

import ipaddress
import os
import re
import shutil
import stat
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml
from rendered import (
    DEPLOYMENT,
    OVERLAYS,
    binary,
    documents,
    main_container,
    one,
    plain_name,
    pod,
    text,
    thyme_alone,
    workloads,
)

CORE_GROUPS = {"v1", "apps/v1", "networking.k8s.io/v1", "policy/v1"}
NAMESPACES = {"thyme": "thyme-benchmark", "log-generator": "thyme-benchmark",
              "nop-collector": "thyme-benchmark", "lgtm": "lgtm"}  # fmt: skip
OURS = ("thyme", "log-generator", "nop-collector")
VPC = "10.0.0.0/16"
PRIVATE = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}

# What a node of infrastructure/aws offers (m6i.2xlarge, prefix delegation, 100 GB), and what the system's
# pods ask of it at worst: aws-node, kube-proxy, both of coredns; the pod identity agent asks for nothing.
NODE = {"cpu": 7.910, "memory": 29 * 2**30, "ephemeral-storage": 88 * 2**30, "pods": 58}
SYSTEM = {"cpu": 0.050 + 0.100 + 2 * 0.100, "memory": 2 * 70 * 2**20, "ephemeral-storage": 0, "pods": 5}


def quantity(value):
    """A Kubernetes quantity as a number."""
    number, unit = re.fullmatch(r"([0-9.]+)(m|k|M|G|Ki|Mi|Gi)?", str(value)).groups()
    factors = {None: 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    return float(number) * factors[unit]


def asked(workload):
    """What one pod asks its node for: the larger of its containers' sum and its init containers."""
    spec = pod(workload)
    total = {}
    for resource in ("cpu", "memory", "ephemeral-storage"):
        def of(container, resource=resource):
            return quantity(container["resources"].get("requests", {}).get(resource, 0))

        running = sum(of(container) for container in spec["containers"])
        total[resource] = max([running, *(of(one) for one in spec.get("initContainers", []))])
    return total | {"pods": 1}


def all_containers(workload):
    """Init containers first."""
    return pod(workload).get("initContainers", []) + pod(workload)["containers"]


def is_subset(selector, labels):
    """Whether a selector without expressions chooses what has the labels."""
    assert set(selector) <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


class EveryOverlay:
    """Facts that no overlay may change; a class below for each of them runs these."""

    overlay = ""

    def each_workload(self):
        """All workloads of the overlay. A failure names the one that it is about."""
        for name, workload in workloads(self.overlay).items():
            self.workload = name
            yield self.overlay, name, workload

    def _formatMessage(self, msg, standard):  # noqa: N802, unittest's name
        """Adds the overlay and the workload that was last looked at."""
        where = f"{self.overlay} {getattr(self, 'workload', '')}".strip()
        return f"{where}: {super()._formatMessage(msg, standard)}"

    def test_core_kinds_only(self):
        """Scenario: every object.
        Guarantees: a cluster knows it without further definitions."""
        overlay = self.overlay
        groups = {document["apiVersion"] for document in documents(overlay)}
        self.assertLessEqual(groups, CORE_GROUPS)
        kinds = {document["kind"] for document in documents(overlay)}
        self.assertNotIn("Secret", kinds, "no password is committed")

    def test_names_namespaces_and_labels(self):
        """Scenario: the workloads.
        Guarantees: exactly the four, where they belong, found by app=NAME, and by nothing that changes."""
        overlay = self.overlay
        found = workloads(overlay)
        self.assertEqual(set(found), set(NAMESPACES))
        self.assertEqual(found["thyme"]["kind"], "DaemonSet")
        for name, workload in found.items():
            self.assertEqual(workload["metadata"]["namespace"], NAMESPACES[name])
            self.assertEqual(workload["metadata"]["labels"]["app"], name)
            self.assertEqual(workload["spec"]["selector"]["matchLabels"], {"app": name})
            self.assertEqual(workload["spec"]["template"]["metadata"]["labels"], {"app": name})

    def test_pod_security_of_namespaces(self):
        """Scenario: both namespaces.
        Guarantees: hostPath is allowed in the one that needs it, and only there."""
        overlay = self.overlay
        for name, level in (("thyme-benchmark", "privileged"), ("lgtm", "baseline")):
            labels = one(overlay, "Namespace", name)["metadata"]["labels"]
            self.assertEqual(labels["pod-security.kubernetes.io/enforce"], level)
        for name, workload in workloads(overlay).items():
            paths = [volume for volume in pod(workload).get("volumes", []) if "hostPath" in volume]
            self.assertEqual(bool(paths), name == "thyme")

    def test_containers_are_locked_down(self):
        """Scenario: every container.
        Guarantees: no capability, no escalation, the runtime's seccomp profile, no token; the project's
        own also without root and without a writable file system."""
        for _, name, workload in self.each_workload():
            spec = pod(workload)
            self.assertEqual(spec["securityContext"], {"seccompProfile": {"type": "RuntimeDefault"}})
            self.assertIs(spec["automountServiceAccountToken"], False)
            for field in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
                self.assertNotIn(field, spec)
            for container in all_containers(workload):
                context = container["securityContext"]
                self.assertIs(context["allowPrivilegeEscalation"], False)
                self.assertEqual(context["capabilities"]["drop"], ["ALL"])
                self.assertNotIn("privileged", context)
                if name == "lgtm":
                    continue
                self.assertIs(context["readOnlyRootFilesystem"], True)
                if container["name"] != "prepare-state":
                    self.assertIs(context["runAsNonRoot"], True)
                    self.assertEqual(context["runAsUser"], 65534)
                    self.assertNotIn("add", context["capabilities"])

    def test_probes(self):
        """Scenario: every long-running container.
        Guarantees: ready and alive are asked for, at a port that the container has."""
        for _, name, workload in self.each_workload():
            container = main_container(workload)
            ports = {port["name"] for port in container["ports"]}
            self.assertIn("livenessProbe", container)
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if "httpGet" in container.get(probe, {}):
                    self.assertIn(container[probe]["httpGet"]["port"], ports)
            if name == "lgtm":
                ready = {"command": ["cat", "/tmp/ready"]}
                self.assertEqual(container["readinessProbe"]["exec"], ready)
                self.assertEqual(container["startupProbe"]["exec"], ready)
            else:
                self.assertEqual(container["readinessProbe"]["httpGet"]["path"], "/healthz")

    def test_images(self):
        """Scenario: every image.
        Guarantees: only the project's own float; others have a tag."""
        for overlay, name, workload in self.each_workload():
            for container in all_containers(workload):
                image, _, tag = container["image"].rpartition(":")
                self.assertTrue(image and "/" not in tag, container["image"])
                if name == "lgtm":
                    self.assertEqual(image, "grafana/otel-lgtm")
                    self.assertRegex(tag, r"^\d+\.\d+\.\d+$")
                    continue
                suffix = "" if name == "thyme" else f"/{name}"
                self.assertEqual(image, f"ghcr.io/ollygarden/thyme{suffix}")
                self.assertEqual(tag, "latest")
                policy = "IfNotPresent" if overlay == "local" else "Always"
                self.assertEqual(container["imagePullPolicy"], policy)

    def test_requests_and_limits(self):
        """Scenario: every container.
        Guarantees: CPU and memory are asked for, memory is limited, CPU is not throttled, and no limit
        on disk evicts a pod for its log files."""
        for _, _, workload in self.each_workload():
            for container in all_containers(workload):
                resources = container["resources"]
                self.assertLessEqual({"cpu", "memory"}, set(resources["requests"]))
                self.assertEqual(set(resources["limits"]), {"memory"})
                requested = quantity(resources["requests"]["memory"])
                self.assertLessEqual(requested, quantity(resources["limits"]["memory"]))

    def test_mounts_have_volumes(self):
        """Scenario: every volume mount and every ConfigMap that is named.
        Guarantees: it is there, with the files that are mounted one by one."""
        for overlay, _, workload in self.each_workload():
            volumes = {volume["name"]: volume for volume in pod(workload).get("volumes", [])}
            used = set()
            for container in all_containers(workload):
                for mount in container.get("volumeMounts", []):
                    used.add(mount["name"])
                    source = volumes[mount["name"]].get("configMap")
                    if not source:
                        continue
                    self.assertTrue(mount["readOnly"])
                    found = [
                        document
                        for document in documents(overlay)
                        if document["kind"] == "ConfigMap"
                        and document["metadata"]["name"] == source["name"]
                        and document["metadata"]["namespace"] == workload["metadata"]["namespace"]
                    ]
                    self.assertEqual(len(found), 1, source["name"])
                    self.assertRegex(source["name"], r"-[a-z0-9]{10}$", "a change restarts the pods")
                    if "subPath" in mount:
                        self.assertIn(mount["subPath"], found[0]["data"])
            self.assertEqual(used, set(volumes))

    def test_services_meet_containers(self):
        """Scenario: every port of every Service.
        Guarantees: a container listens there, under the same number: on AWS the policies need that."""
        overlay = self.overlay
        services = [document for document in documents(overlay) if document["kind"] == "Service"]
        names = {service["metadata"]["name"] for service in services}
        self.assertEqual(names, {"nop-collector", "lgtm", "grafana"})
        for service in services:
            workload = workloads(overlay)[service["spec"]["selector"]["app"]]
            self.assertEqual(
                service["metadata"]["namespace"], workload["metadata"]["namespace"]
            )
            listening = {port["containerPort"] for port in main_container(workload)["ports"]}
            for port in service["spec"]["ports"]:
                self.assertEqual(port["port"], port["targetPort"])
                self.assertIn(port["port"], listening)
        ports = {
            name: [port["port"] for port in one(overlay, "Service", name)["spec"]["ports"]]
            for name in names
        }
        self.assertEqual(ports["nop-collector"], [4317, 4318, 8080])
        self.assertEqual(ports["grafana"], [3000])
        self.assertEqual(sorted(ports["lgtm"]), [3000, 4317, 4318, 9090])
        headless = one(overlay, "Service", "nop-collector")["spec"]
        self.assertEqual(headless["clusterIP"], "None")
        self.assertNotIn("publishNotReadyAddresses", headless)

    def test_programs_listen_where_the_ports_are(self):
        """Scenario: the addresses among the arguments.
        Guarantees: they are the container's ports, on all addresses."""
        overlay = self.overlay
        expected = {"log-generator": {8080}, "nop-collector": {4317, 4318, 8080}}
        for name, ports in expected.items():
            container = main_container(workloads(overlay)[name])
            listening = [arg for arg in container["args"] if re.search(r":\d+$", arg)]
            self.assertEqual({f"0.0.0.0:{port}" for port in ports}, set(listening))
            self.assertEqual({port["containerPort"] for port in container["ports"]}, ports)
        settings = agent_settings(overlay)
        ports = {p["name"]: p["containerPort"] for p in main_container(workloads(overlay)["thyme"])["ports"]}
        health = settings["extensions"]["health_check"]
        self.assertEqual(health, {"endpoint": "0.0.0.0:13133", "path": "/healthz"})
        page = settings["service"]["telemetry"]["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"]
        self.assertEqual(ports, {"health": 13133, "metrics": page["port"]})
        self.assertEqual(page["host"], "0.0.0.0")

    def test_only_the_collectors_have_a_disruption_budget(self):
        """Scenario: PodDisruptionBudgets.
        Guarantees: one, which still lets a node be drained."""
        overlay = self.overlay
        budgets = [d for d in documents(overlay) if d["kind"] == "PodDisruptionBudget"]
        self.assertEqual([budget["metadata"]["name"] for budget in budgets], ["nop-collector"])
        self.assertEqual(budgets[0]["spec"]["maxUnavailable"], 1)
        self.assertEqual(budgets[0]["spec"]["selector"]["matchLabels"], {"app": "nop-collector"})


class Base(EveryOverlay, unittest.TestCase):
    """The base."""

    overlay = "kubernetes"


class Aws(EveryOverlay, unittest.TestCase):
    """The overlay for EKS."""

    overlay = "aws"


class Local(EveryOverlay, unittest.TestCase):
    """The overlay for a laptop."""

    overlay = "local"


def agent_settings(overlay):
    """The agent's configuration."""
    return yaml.safe_load(one(overlay, "ConfigMap", "thyme")["data"]["agent.yaml"])


class Agent(unittest.TestCase):
    """The DaemonSet, its permissions and its configuration."""

    def test_identity(self):
        """Scenario: the agent's container and its init container.
        Guarantees: UID 65534 with group 0 reads the logs; root with CHOWN alone prepares the state."""
        for overlay in OVERLAYS:
            workload = workloads(overlay)["thyme"]
            (prepare,) = pod(workload)["initContainers"]
            agent = main_container(workload)
            self.assertEqual(agent["securityContext"]["runAsGroup"], 0)
            self.assertEqual(prepare["args"], ["prepare-state", "--directory", "/var/lib/thyme"])
            self.assertEqual(prepare["securityContext"]["runAsUser"], 0)
            self.assertEqual(prepare["securityContext"]["capabilities"], {"drop": ["ALL"], "add": ["CHOWN"]})
            self.assertEqual(prepare["image"], agent["image"])

    def test_mounts(self):
        """Scenario: what the agent sees of its node.
        Guarantees: the logs, read-only, and its own directory; nothing else."""
        for overlay in OVERLAYS:
            workload = workloads(overlay)["thyme"]
            hosts = {v["name"]: v["hostPath"]["path"] for v in pod(workload)["volumes"] if "hostPath" in v}
            self.assertEqual(hosts, {"logs": "/var/log/pods", "state": "/var/lib/thyme"})
            mounts = {m["name"]: m for m in main_container(workload)["volumeMounts"]}
            self.assertTrue(mounts["logs"]["readOnly"])
            for name, path in hosts.items():
                self.assertEqual(mounts[name]["mountPath"], path)

    def test_outlives_applications_and_ends_in_time(self):
        """Scenario: the end of a pod, and of its node.
        Guarantees: critical, on every node, and done within 25 s of the 30 that it has."""
        for overlay in OVERLAYS:
            spec = pod(workloads(overlay)["thyme"])
            self.assertEqual(spec["priorityClassName"], "system-node-critical")
            self.assertEqual(spec["tolerations"], [{"operator": "Exists"}])
            self.assertEqual(spec["terminationGracePeriodSeconds"], 30)
            settings = agent_settings(overlay)
            drain = int(settings["extensions"]["thyme"]["shutdown_timeout"].removesuffix("s"))
            push = settings["service"]["telemetry"]["metrics"]["readers"][1]["periodic"]["timeout"] / 1000
            self.assertLessEqual(drain + push, 25)

    def test_never_two_on_a_node(self):
        """Scenario: a rollout.
        Guarantees: no surge, so no two agents at one state directory; one node at a time."""
        for overlay in OVERLAYS:
            update = workloads(overlay)["thyme"]["spec"]["updateStrategy"]
            expected = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
            self.assertEqual(update, expected)

    def test_permissions(self):
        """Scenario: what the agent may ask the API server for.
        Guarantees: nothing: its account has no role, and no token is mounted."""
        for overlay in OVERLAYS:
            self.assertFalse([d["kind"] for d in documents(overlay) if "rbac" in d["apiVersion"]])
            self.assertIs(one(overlay, "ServiceAccount", "thyme")["automountServiceAccountToken"], False)
            self.assertEqual(pod(workloads(overlay)["thyme"])["serviceAccountName"], "thyme")

    def test_configuration_says_what_was_decided(self):
        """Scenario: the ConfigMap.
        Guarantees: from the beginning, positions kept, own log left out, both protocols with zstd to the
        headless name, retried for ever, metrics pushed each 15 s with the pod's name."""
        for overlay in OVERLAYS:
            settings = agent_settings(overlay)
            receiver = settings["receivers"]["filelog"]
            self.assertEqual(receiver["start_at"], "beginning")
            self.assertTrue(receiver["include_file_path"])
            self.assertEqual(receiver["storage"], "file_storage")
            own = "/var/log/pods/${env:POD_NAMESPACE}_${env:POD_NAME}_*/*/*.log"
            self.assertEqual(receiver["exclude"], [own])
            self.assertEqual(settings["extensions"]["file_storage"]["directory"], "/var/lib/thyme")
            exporters = settings["exporters"]
            self.assertEqual(exporters["otlp"]["endpoint"], "nop-collector:4317")
            self.assertEqual(exporters["otlphttp"]["endpoint"], "http://nop-collector:4318")
            for exporter in exporters.values():
                self.assertEqual(exporter["compression"], "zstd")
                self.assertEqual(exporter["retry_on_failure"]["max_elapsed_time"], 0)
            self.assertEqual(settings["service"]["pipelines"]["logs"]["exporters"], ["${env:THYME_EXPORTER}"])
            telemetry = settings["service"]["telemetry"]
            self.assertEqual(telemetry["resource"]["service.instance.id"], "${env:POD_NAME}")
            push = telemetry["metrics"]["readers"][1]["periodic"]
            self.assertEqual(push["interval"], 15000)
            self.assertEqual(push["exporter"]["otlp"]["endpoint"], "http://lgtm.lgtm.svc.cluster.local:4317")

    def test_the_agent_takes_the_configuration(self):
        """Scenario: the rendered ConfigMap, the DaemonSet's environment, both exporters.
        Guarantees: `thyme-agent validate` accepts each, and refuses an exporter that is none."""
        agent = binary("thyme-agent")
        if not agent:
            self.skipTest("SKIP: no target/release/thyme-agent; the configuration was not validated")
        for overlay in OVERLAYS:
            names = [variable["name"] for variable in main_container(workloads(overlay)["thyme"])["env"]]
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                file.write(one(overlay, "ConfigMap", "thyme")["data"]["agent.yaml"])
                file.flush()
                for exporter, accepted in (("otlp", True), ("otlphttp", True), ("none", False)):
                    # Only what the DaemonSet sets: a variable that it lacks is an error.
                    environment = dict.fromkeys(names, "some-name") | {"THYME_EXPORTER": exporter}
                    command = [agent, "validate", "--config", file.name]
                    done = subprocess.run(command, env=environment, capture_output=True, text=True)
                    self.assertEqual(done.returncode == 0, accepted, done.stdout + done.stderr)

    def test_the_daemonset_chooses_an_exporter(self):
        """Scenario: THYME_EXPORTER in the DaemonSet.
        Guarantees: gRPC unless somebody changes it."""
        for overlay in OVERLAYS:
            env = {v["name"]: v for v in main_container(workloads(overlay)["thyme"])["env"]}
            self.assertEqual(env["THYME_EXPORTER"]["value"], "otlp")
            fields = {name: v["valueFrom"]["fieldRef"]["fieldPath"] for name, v in env.items() if "valueFrom" in v}
            expected = {
                "POD_NAME": "metadata.name",
                "POD_NAMESPACE": "metadata.namespace",
                "NODE_NAME": "spec.nodeName",
            }
            self.assertEqual(fields, expected)


class Alone(unittest.TestCase):
    """deployment/thyme: the agent without the benchmark."""

    def test_two_files_are_all_that_is_missing(self):
        """Scenario: `kubectl kustomize deployment/thyme` as it is in the repository, then with each file.
        Guarantees: the missing one is named before anything is applied; with both it renders."""
        with tempfile.TemporaryDirectory() as directory:
            copy = Path(directory) / "thyme"
            shutil.copytree(thyme_alone(), copy)
            for missing in ("env", "token"):
                kept = (copy / "sink" / missing).read_text()
                (copy / "sink" / missing).unlink()
                done = subprocess.run(["kubectl", "kustomize", copy], capture_output=True, text=True)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(f"sink/{missing}", done.stderr)
                (copy / "sink" / missing).write_text(kept)
            self.assertEqual(text(str(copy)), text(thyme_alone()))
        ignored = ["git", "-C", str(DEPLOYMENT), "check-ignore", "thyme/sink/env", "thyme/sink/token"]
        if (DEPLOYMENT.parent / ".git").exists():
            self.assertEqual(subprocess.run(ignored, capture_output=True).returncode, 0, "it could be committed")

    def test_its_objects(self):
        """Scenario: all that is applied.
        Guarantees: what an agent needs, in one namespace that allows hostPath, and nothing of the benchmark."""
        found = documents(thyme_alone())
        kinds = sorted(document["kind"] for document in found)
        self.assertEqual(kinds, ["ConfigMap", "ConfigMap", "DaemonSet", "Namespace", "Secret", "ServiceAccount"])
        namespace = one(thyme_alone(), "Namespace", "thyme")
        self.assertEqual(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "privileged")
        self.assertEqual({d["metadata"].get("namespace") for d in found if d is not namespace}, {"thyme"})

    def test_the_sink_reaches_the_agent(self):
        """Scenario: the two files.
        Guarantees: the endpoint is a variable of the agent's, the token a file that only it can read; names with
        hashes, so that a change restarts the pods."""
        spec = pod(workloads(thyme_alone())["thyme"])
        (agent,) = spec["containers"]
        (source,) = agent["envFrom"]
        self.assertRegex(source["configMapRef"]["name"], r"^thyme-sink-[a-z0-9]{10}$")
        self.assertEqual(one(thyme_alone(), "ConfigMap", "thyme-sink")["data"],
                         {"THYME_ENDPOINT": "collector.example:4317"})  # fmt: skip
        (secret,) = [volume["secret"] for volume in spec["volumes"] if "secret" in volume]
        self.assertRegex(secret["secretName"], r"^thyme-credentials-[a-z0-9]{10}$")
        self.assertEqual(secret["defaultMode"], 0o440)
        (mount,) = [mount for mount in agent["volumeMounts"] if mount["name"] == "credentials"]
        settings = agent_settings(thyme_alone())
        self.assertEqual(settings["extensions"]["bearertokenauth"]["filename"], f"{mount['mountPath']}/token")
        self.assertEqual(settings["exporters"]["otlp"]["endpoint"], "${env:THYME_ENDPOINT}")
        self.assertNotIn("retry_on_failure", settings["exporters"]["otlp"], "the agent's own default never gives up")

    def test_the_agent_takes_the_configuration(self):
        """Scenario: the rendered ConfigMap with the DaemonSet's environment, and the token's file.
        Guarantees: `thyme-agent validate` accepts it; without the endpoint it names what is missing."""
        agent = binary("thyme-agent")
        if not agent:
            self.skipTest("SKIP: no target/release/thyme-agent; the configuration was not validated")
        names = [variable["name"] for variable in main_container(workloads(thyme_alone())["thyme"])["env"]]
        configuration = one(thyme_alone(), "ConfigMap", "thyme")["data"]["agent.yaml"]
        with tempfile.TemporaryDirectory() as directory:
            Path(directory, "token").write_text("not-a-real-token\n")
            file = Path(directory, "agent.yaml")
            file.write_text(configuration.replace("/var/run/secrets/thyme", directory))
            for more, accepted in (({"THYME_ENDPOINT": "collector.example:4317"}, True), ({}, False)):
                environment = dict.fromkeys(names, "some-name") | more
                done = subprocess.run([agent, "validate", "--config", file], env=environment, capture_output=True,
                                      text=True)  # fmt: skip
                self.assertEqual(done.returncode == 0, accepted, done.stdout + done.stderr)
                self.assertEqual("THYME_ENDPOINT" in done.stderr, not accepted, done.stderr)


class Load(unittest.TestCase):
    """The generators and the collectors."""

    def test_rate(self):
        """Scenario: base and cloud, then the laptop.
        Guarantees: 50,000 lines a second, and far fewer."""
        for overlay, expected in (("kubernetes", 50_000), ("aws", 50_000), ("local", 4_000)):
            workload = workloads(overlay)["log-generator"]
            arguments = main_container(workload)["args"]
            rate = int(arguments[arguments.index("--rate") + 1])
            self.assertEqual(rate * workload["spec"]["replicas"], expected)
            self.assertIn("--linger", arguments)
        self.assertEqual(workloads("aws")["log-generator"]["spec"]["replicas"], 20)
        self.assertEqual(workloads("aws")["nop-collector"]["spec"]["replicas"], 3)

    def test_generators_share_a_node(self):
        """Scenario: the scheduler's rules.
        Guarantees: one node for all generators, by a rule that the first pod meets by itself; everything
        else prefers another node."""
        for overlay in OVERLAYS:
            found = workloads(overlay)
            (term,) = pod(found["log-generator"])["affinity"]["podAffinity"][
                "requiredDuringSchedulingIgnoredDuringExecution"
            ]
            labels = found["log-generator"]["spec"]["template"]["metadata"]["labels"]
            self.assertEqual(term["topologyKey"], "kubernetes.io/hostname")
            self.assertTrue(is_subset(term["labelSelector"], labels))
            self.assertNotIn("namespaces", term)
            for name in ("nop-collector", "lgtm"):
                affinity = pod(found[name])["affinity"]
                self.assertEqual(set(affinity), {"podAntiAffinity"})
                self.assertEqual(
                    set(affinity["podAntiAffinity"]), {"preferredDuringSchedulingIgnoredDuringExecution"}
                )
                away = affinity["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0]
                chosen = away["podAffinityTerm"]
                self.assertTrue(is_subset(chosen["labelSelector"], labels))
                own = found[name]["metadata"]["namespace"]
                self.assertIn("thyme-benchmark", chosen.get("namespaces", [own]))

    def test_thirty_generators_fit_a_node(self):
        """Scenario: m6i.2xlarge with 30 generators, the agent and the system's pods.
        Guarantees: they fit; so does the whole benchmark with its 20 on one node."""
        found = workloads("aws")
        for counts in (
            {"log-generator": 30, "thyme": 1},
            {"log-generator": 20, "thyme": 1, "nop-collector": 3, "lgtm": 1},
        ):
            total = dict(SYSTEM)
            for name, count in counts.items():
                for resource, amount in asked(found[name]).items():
                    total[resource] += count * amount
            for resource, offered in NODE.items():
                self.assertLessEqual(total[resource], offered, f"{resource} of {counts}")

    def test_a_laptop_is_enough(self):
        """Scenario: the local overlay on one node.
        Guarantees: less than 1.5 cores and 3 GiB are asked for."""
        total = {"cpu": 0, "memory": 0}
        for workload in workloads("local").values():
            count = workload["spec"].get("replicas", 1)
            for resource in total:
                total[resource] += count * asked(workload)[resource]
        self.assertLess(total["cpu"], 1.5)
        self.assertLess(total["memory"], 3 * 2**30)

    def test_metrics_are_pushed_under_the_pods_name(self):
        """Scenario: the environment of generators and collectors.
        Guarantees: each pod is a series of its own, and variables are set before they are used."""
        for overlay in OVERLAYS:
            for name in ("log-generator", "nop-collector"):
                variables = main_container(workloads(overlay)[name])["env"]
                env = {v["name"]: v.get("value") for v in variables}
                self.assertEqual(env["OTEL_EXPORTER_OTLP_ENDPOINT"], "http://lgtm.lgtm.svc.cluster.local:4317")
                self.assertEqual(env["OTEL_METRIC_EXPORT_INTERVAL"], "15000")
                attributes = dict(pair.split("=") for pair in env["OTEL_RESOURCE_ATTRIBUTES"].split(","))
                self.assertEqual(attributes["service.instance.id"], "$(POD_NAME)")
                self.assertEqual(attributes["k8s.pod.name"], "$(POD_NAME)")
                self.assertEqual(attributes["k8s.node.name"], "$(NODE_NAME)")
                order = [v["name"] for v in variables]
                for used in re.findall(r"\$\((\w+)\)", env["OTEL_RESOURCE_ATTRIBUTES"]):
                    self.assertLess(order.index(used), order.index("OTEL_RESOURCE_ATTRIBUTES"))

    def test_the_programs_take_their_arguments(self):
        """Scenario: the arguments of the manifests, on free ports of loopback.
        Guarantees: the release binaries start with them and stay."""
        for name in ("log-generator", "nop-collector"):
            program = binary(name)
            if not program:
                self.skipTest(f"SKIP: no target/release/{name}; its arguments were not tried")
            for overlay in ("kubernetes", "local"):
                arguments = main_container(workloads(overlay)[name])["args"]
                arguments = [re.sub(r"^0\.0\.0\.0:\d+$", "127.0.0.1:0", one) for one in arguments]
                with tempfile.TemporaryFile() as errors:
                    process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL, stderr=errors)
                    try:
                        process.wait(timeout=1)
                    except subprocess.TimeoutExpired:
                        continue
                    finally:
                        process.kill()
                        process.wait()
                    errors.seek(0)
                    self.fail(f"{name} {arguments} ended: {errors.read().decode()}")


class Policies(unittest.TestCase):
    """Who may talk to whom, worked out from the NetworkPolicies as a cluster does."""

    def may(self, overlay, source, target, port, protocol="TCP"):
        """Whether a connection is let out and let in. Ends are workloads' names or addresses."""
        return self.lets(overlay, "egress", source, target, port, protocol) and self.lets(
            overlay, "ingress", target, source, port, protocol
        )

    def lets(self, overlay, direction, subject, other, port, protocol):
        """Whether the policies of one end let the other through."""
        if is_address(subject) or subject == "coredns":
            return True
        namespace, labels = place(overlay, subject)
        selecting = [
            policy["spec"]
            for policy in documents(overlay)
            if policy["kind"] == "NetworkPolicy"
            and policy["metadata"]["namespace"] == namespace
            and is_subset(policy["spec"]["podSelector"], labels)
            and direction.capitalize() in policy["spec"]["policyTypes"]
        ]
        self.assertTrue(selecting, f"{subject} is open")
        peers = "to" if direction == "egress" else "from"
        return any(
            {"port": port, "protocol": protocol} in rule["ports"]
            and any(self.is_peer(overlay, peer, namespace, other) for peer in rule[peers])
            for spec in selecting
            for rule in spec.get(direction, [])
        )

    def is_peer(self, overlay, peer, namespace, other):
        """Whether an end is among those that a rule names."""
        if "ipBlock" in peer:
            self.assertEqual(set(peer), {"ipBlock"})
            network = ipaddress.ip_network(peer["ipBlock"]["cidr"])
            return is_address(other) and ipaddress.ip_address(other) in network
        if is_address(other):
            return False
        other_namespace, labels = place(overlay, other)
        if "namespaceSelector" in peer:
            name = {"kubernetes.io/metadata.name": other_namespace}
            if not is_subset(peer["namespaceSelector"], name):
                return False
        elif other_namespace != namespace:
            return False
        return is_subset(peer.get("podSelector", {}), labels)

    def test_what_must_get_through(self):
        """Scenario: each connection that the benchmark makes.
        Guarantees: both ends let it through."""
        for overlay in OVERLAYS:
            for connection in (
                ("thyme", "nop-collector", 4317),
                ("thyme", "nop-collector", 4318),
                ("thyme", "lgtm", 4317),
                ("log-generator", "lgtm", 4317),
                ("nop-collector", "lgtm", 4317),
                # The API server of EKS is in the VPC's private subnets.
                ("10.0.11.5", "thyme", 8888),
                ("10.0.11.5", "log-generator", 8080),
                ("10.0.11.5", "nop-collector", 8080),
                ("10.0.11.5", "lgtm", 9090),
                # A node, as whose client the load balancer's appear.
                ("10.0.13.7", "lgtm", 3000),
            ):
                with self.subTest(overlay=overlay, connection=connection):
                    self.assertTrue(self.may(overlay, *connection))
            for name in NAMESPACES:
                for protocol in ("UDP", "TCP"):
                    self.assertTrue(self.may(overlay, name, "coredns", 53, protocol), name)

    def test_what_must_not(self):
        """Scenario: connections that nothing here needs.
        Guarantees: one of the ends is shut."""
        for overlay in OVERLAYS:
            for connection in (
                ("log-generator", "nop-collector", 4317),
                ("thyme", "log-generator", 8080),
                ("thyme", "lgtm", 3000),
                ("thyme", "lgtm", 9090),
                ("lgtm", "thyme", 8888),
                ("lgtm", "nop-collector", 4317),
                ("thyme", "203.0.113.9", 443),
                ("thyme", "169.254.169.254", 80),
                ("thyme", "10.0.11.5", 443),
                ("thyme", "10.0.12.9", 6443),
                ("log-generator", "10.0.11.5", 443),
                ("nop-collector", "203.0.113.9", 443),
                ("lgtm", "203.0.113.9", 443),
                ("203.0.113.9", "lgtm", 3000),
                ("10.0.11.5", "nop-collector", 4317),
                ("10.0.11.5", "lgtm", 4317),
            ):
                with self.subTest(overlay=overlay, connection=connection):
                    self.assertFalse(self.may(overlay, *connection))

    def test_ports_are_the_containers(self):
        """Scenario: the ports that policies let in.
        Guarantees: a container of the chosen pods has each, so that no rule is about nothing."""
        for overlay in OVERLAYS:
            for policy in documents(overlay):
                if policy["kind"] != "NetworkPolicy":
                    continue
                app = policy["spec"]["podSelector"].get("matchLabels", {}).get("app")
                for rule in policy["spec"].get("ingress", []):
                    listening = {p["containerPort"] for p in main_container(workloads(overlay)[app])["ports"]}
                    for port in rule["ports"]:
                        self.assertIn(port["port"], listening)

    def test_address_ranges(self):
        """Scenario: the ranges that stand for the API server and for nodes.
        Guarantees: the VPC on AWS, private networks elsewhere, never everybody."""
        for overlay, expected in (("kubernetes", PRIVATE), ("local", PRIVATE), ("aws", {VPC})):
            for policy in documents(overlay):
                if policy["kind"] == "NetworkPolicy":
                    for rule in policy["spec"].get("ingress", []):
                        ranges = {peer["ipBlock"]["cidr"] for peer in rule["from"] if "ipBlock" in peer}
                        self.assertIn(ranges, (set(), expected))


def is_address(end):
    """An address, rather than a workload's name."""
    return end[0].isdigit()


def place(overlay, name):
    """Namespace and labels of a workload's pods."""
    if name == "coredns":
        return "kube-system", {"k8s-app": "kube-dns"}
    workload = workloads(overlay)[name]
    return workload["metadata"]["namespace"], workload["spec"]["template"]["metadata"]["labels"]


class Grafana(unittest.TestCase):
    """Who gets in."""

    def test_login(self):
        """Scenario: Grafana's settings.
        Guarantees: nobody gets in without a password, and none is committed; a Secret may give one."""
        for overlay in OVERLAYS:
            container = main_container(workloads(overlay)["lgtm"])
            env = {variable["name"]: variable for variable in container["env"]}
            self.assertEqual(env["GF_AUTH_ANONYMOUS_ENABLED"]["value"], "false")
            self.assertEqual(env["GF_USERS_ALLOW_SIGN_UP"]["value"], "false")
            self.assertEqual(env["GF_SECURITY_ADMIN_USER"]["value"], "admin")
            secret = {"name": "grafana-admin", "key": "password", "optional": True}
            self.assertEqual(env["GF_SECURITY_ADMIN_PASSWORD"]["valueFrom"], {"secretKeyRef": secret})
            self.assertEqual(container["command"], ["/bin/bash", "/etc/lgtm-start/start.sh"])

    def test_provisioning(self):
        """Scenario: what lgtm mounts.
        Guarantees: dashboards, their provider, rules and Prometheus' settings are where the image reads."""
        for overlay in OVERLAYS:
            container = main_container(workloads(overlay)["lgtm"])
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            dashboards = "/otel-lgtm/grafana/conf/provisioning/dashboards"
            self.assertIn(f"{dashboards}/custom", mounts)
            self.assertEqual(mounts[f"{dashboards}/custom.yaml"]["subPath"], "dashboards.yaml")
            self.assertEqual(mounts["/otel-lgtm/prometheus.yaml"]["subPath"], "prometheus.yaml")
            data = one(overlay, "ConfigMap", "lgtm")["data"]
            provider = yaml.safe_load(data["dashboards.yaml"])["providers"][0]
            self.assertEqual(provider["options"]["path"], f"{dashboards}/custom")
            self.assertEqual(yaml.safe_load(data["prometheus.yaml"])["rule_files"], ["/otel-lgtm/rules/*.yaml"])
            self.assertIn("/otel-lgtm/rules", mounts)
            self.assertEqual(set(one(overlay, "ConfigMap", "lgtm-rules")["data"]), {"thyme.yaml", "benchmark.yaml"})
            home = {v["name"]: v.get("value") for v in container["env"]}["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
            self.assertEqual(home, f"{dashboards}/custom/thyme.json")
            self.assertIn("thyme.json", one(overlay, "ConfigMap", "lgtm-dashboards")["data"])

    def test_load_balancer(self):
        """Scenario: the Service of each overlay.
        Guarantees: only AWS has a load balancer, for the VPC alone, that bears the project's tags."""
        for overlay in ("kubernetes", "local"):
            self.assertNotIn("type", one(overlay, "Service", "grafana")["spec"])
        service = one("aws", "Service", "grafana")
        self.assertEqual(service["spec"]["type"], "LoadBalancer")
        self.assertEqual(service["spec"]["loadBalancerSourceRanges"], [VPC])
        prefix = "service.beta.kubernetes.io/aws-load-balancer-"
        annotations = service["metadata"]["annotations"]
        self.assertEqual(annotations[f"{prefix}type"], "nlb")
        self.assertEqual(annotations[f"{prefix}healthcheck-port"], "traffic-port")
        tags = dict(pair.split("=") for pair in annotations[f"{prefix}additional-resource-tags"].split(","))
        self.assertEqual(set(tags), {"Project", "ManagedBy", "Environment"})
        self.assertEqual(tags["Project"], "Thyme")
        for document in documents("aws"):
            if document["kind"] == "Service" and document["metadata"]["name"] != "grafana":
                self.assertNotIn("type", document["spec"])


class Images(unittest.TestCase):
    """Changing them, as the documents say."""

    def test_new_names_reach_every_container(self):
        """Scenario: a kustomization over the overlay that names other images, as for ECR.
        Guarantees: all four containers follow, each with its own image."""
        with tempfile.TemporaryDirectory() as directory:
            base = os.path.relpath(DEPLOYMENT / "aws", directory)
            repository = "000000000000.dkr.ecr.eu-central-1.amazonaws.com/thyme"
            suffixes = {"": "", "/log-generator": "/log-generator", "/nop-collector": "/nop-collector"}
            kustomization = {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [base],
                "images": [
                    {"name": f"ghcr.io/ollygarden/thyme{name}", "newName": f"{repository}{new}", "newTag": "abc"}
                    for name, new in suffixes.items()
                ],
            }
            Path(directory, "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
            found = workloads(directory)
            images = [container["image"] for name in OURS for container in all_containers(found[name])]
        self.assertEqual(
            images,
            [
                f"{repository}:abc",
                f"{repository}:abc",
                f"{repository}/log-generator:abc",
                f"{repository}/nop-collector:abc",
            ],
        )

    def test_the_aws_overlay_names_all_three(self):
        """Scenario: the kustomization that an operator edits.
        Guarantees: an entry for each image, ready to be changed."""
        entries = yaml.safe_load((DEPLOYMENT / "aws/kustomization.yaml").read_text())["images"]
        self.assertEqual(len(entries), 3)
        for entry in entries:
            self.assertEqual(entry["newName"], entry["name"])
            self.assertEqual(entry["newTag"], "latest")


class Files(unittest.TestCase):
    """The files behind it."""

    def test_nothing_lies_about(self):
        """Scenario: the files beside each kustomization.
        Guarantees: it uses each of them."""
        for directory in ("kubernetes", "kubernetes/thyme", "thyme", "thyme/base"):
            root = DEPLOYMENT / directory
            used = (root / "kustomization.yaml").read_text()
            for path in root.rglob("*"):
                nested = any((parent / "kustomization.yaml").exists() for parent in path.parents if parent != root and root in parent.parents)
                if path.suffix in (".yaml", ".json", ".sh") and path.name != "kustomization.yaml" and not nested:
                    self.assertIn(str(path.relative_to(root)), used)

    def test_scripts_can_be_run(self):
        """Scenario: the scripts that documents call.
        Guarantees: they are executable."""
        for name in ("aws/grafana-access", "grafana-password", "tests/check"):
            self.assertTrue((DEPLOYMENT / name).stat().st_mode & stat.S_IXUSR, name)

    def test_renders_the_same_twice(self):
        """Scenario: `kubectl delete -k` long after `kubectl apply -k`.
        Guarantees: generated names follow from the content alone."""
        for overlay in OVERLAYS:
            first = text(overlay)
            text.cache_clear()
            self.assertEqual(first, text(overlay))
            names = {plain_name(d) for d in documents(overlay) if d["kind"] == "ConfigMap"}
            self.assertEqual(names, {"thyme", "lgtm", "lgtm-dashboards", "lgtm-rules"})


if __name__ == "__main__":
    unittest.main()
