"""charts/thyme: what its values do, what it refuses, and that it and deployment/thyme are one."""

import base64
import hashlib
import json
import os
import re
import subprocess
import tarfile
import tempfile
import unittest
from pathlib import Path

import yaml
from rendered import (
    CHART,
    NAMESPACE,
    PROJECT,
    RELEASE,
    VALUES,
    binary,
    chart,
    documents,
    helm,
    parsed,
    pod,
    thyme_alone,
)

ENDPOINT = ("--set", "config.exporters.otlp.endpoint=collector.example:4317")

# A wrong value each, and the name that the message must have. A slash stands where the schema has one.
WRONG = {
    r"podLabels.app\.kubernetes\.io/name=x": "podLabels: app.kubernetes.io/name",
    "podAnnotations.checksum/config=x": "podAnnotations: checksum/config",
    r"additionalLabels.helm\.sh/chart=x": "additionalLabels: helm.sh/chart",
    "mode=deployment": "/mode",
    "presets.kubernetesAttributes.enabled=true": "presets.kubernetesAttributes.enabled",
    "presets.hostMetrics.enabled=true": "hostMetrics",
    "presets.logsCollection.storeCheckpoint=true": "storeCheckpoint",
    "resource.limits.memory=1Gi": "resource",
    "resources.limits.memory=lots": "/resources/limits/memory",
    "image.digest=sha256:abc": "/image/digest",
    "image.pullPolicy=Sometimes": "/image/pullPolicy",
    "tolerations.key=value": "/tolerations",
    "state.hostPath=var/lib/thyme": "/state/hostPath",
    "networkPolicy.enabled=perhaps": "/networkPolicy/enabled",
    "rollout.rollingUpdate.maxSurge=1": "/rollout/rollingUpdate/maxSurge",
    "rollout.rollingUpdate.maxUnavailable=0": "/rollout/rollingUpdate/maxUnavailable",
    "terminationGracePeriodSeconds=0": "/terminationGracePeriodSeconds",
    "config.exporters.otlp.endpoint=": "config.exporters.otlp.endpoint",
    "config.exporters.otlp=null": "config.exporters",
    "config.service.pipelines.traces.receivers={otlp}": "traces",
    "config.exporter.otlp.endpoint=collector:4317": "exporter",
    "extraEnvs[0].value=x": "/extraEnvs/0",
    "podMonitor.metricsEndpoints=null,podMonitor.enabled=true": "podMonitor.metricsEndpoints",
    "serviceMonitor.metricsEndpoints=null,serviceMonitor.enabled=true": "serviceMonitor.metricsEndpoints",
    "prometheusRule.enabled=true": "prometheusRule.enabled",
    "credentials.existingSecret=a,credentials.files.token=b": "credentials.existingSecret",
}


def template(*arguments):
    """What the chart renders from `arguments` and an endpoint; its objects."""
    done = helm("template", RELEASE, CHART, "--namespace", NAMESPACE, *ENDPOINT, *arguments)
    assert done.returncode == 0, done.stderr
    return parsed(done.stdout)


def of_kind(objects, kind):
    """The only object of a kind."""
    (found,) = [document for document in objects if document["kind"] == kind]
    return found


def settings(objects):
    """The agent's configuration."""
    return yaml.safe_load(of_kind(objects, "ConfigMap")["data"]["agent.yaml"])


def annotations(objects):
    """Of the pods."""
    return of_kind(objects, "DaemonSet")["spec"]["template"]["metadata"].get("annotations", {})


def agent_of(objects):
    """The agent's container."""
    (container,) = pod(of_kind(objects, "DaemonSet"))["containers"]
    return container


class Values(unittest.TestCase):
    """What is taken, and what isn't."""

    def test_lint(self):
        """Scenario: `helm lint --strict` with each set of values.
        Guarantees: it finds nothing."""
        self.assertGreaterEqual(len(VALUES), 5)
        for values in VALUES:
            done = helm("lint", "--strict", CHART, "--values", CHART / f"ci/{values}-values.yaml")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertNotIn("WARNING", done.stdout)

    def test_wrong_values_are_refused_by_name(self):
        """Scenario: one wrong value at a time, beside an endpoint.
        Guarantees: nothing is rendered, and the message names the value."""
        template()
        self.assertGreaterEqual(len(WRONG), 10)
        for wrong, name in WRONG.items():
            with self.subTest(wrong=wrong):
                done = helm("template", RELEASE, CHART, *ENDPOINT, "--set", wrong)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(name, done.stderr)
                self.assertEqual(done.stdout, "")

    def test_the_schema_knows_the_values(self):
        """Scenario: the names in values.yaml, and those in the schema.
        Guarantees: they are the same, so that no value is refused by mistake or taken without effect."""
        schema = json.loads((CHART / "values.schema.json").read_text())
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        # Helm's own, for subcharts; and one that is there to be refused with a reason.
        extra = {"global", "enabled", "presets.kubernetesAttributes", "config.receivers"}

        def names(part, path=""):
            for name, child in part.get("properties", {}).items():
                yield path + name
                yield from names(child, f"{path}{name}.")

        def has(path):
            here = values
            for name in path.split("."):
                if not isinstance(here, dict) or name not in here:
                    return False
                here = here[name]
            return True

        self.assertEqual({path for path in names(schema) if not has(path)}, extra)
        templates = "".join(path.read_text() for path in sorted((CHART / "templates").iterdir()))
        for path in values:
            self.assertTrue(re.search(rf"Values\.{path}\b|\"{path}\"", templates) or path == "mode", f"{path} is not used")

    def test_versions(self):
        """Scenario: Chart.yaml and Cargo.toml, and the image of both ways to install.
        Guarantees: one version."""
        described = yaml.safe_load((CHART / "Chart.yaml").read_text())
        version = re.search(r'^version = "([^"]+)"', (PROJECT / "Cargo.toml").read_text(), re.M)[1]
        self.assertEqual((described["version"], described["appVersion"]), (version, version))
        self.assertEqual(agent_of(template())["image"], f"ghcr.io/ollygarden/thyme:{version}")

    def test_the_package_is_complete(self):
        """Scenario: `helm package`, as a release makes it.
        Guarantees: it renders what the directory does, the alert rules behind the link included; the test's values are
        not in it."""
        with tempfile.TemporaryDirectory() as directory:
            done = helm("package", CHART, "--destination", directory)
            self.assertEqual(done.returncode, 0, done.stderr)
            (package,) = Path(directory).glob("thyme-*.tgz")
            with tarfile.open(package) as archive:
                names = archive.getnames()
                self.assertTrue(archive.getmember("thyme/files/alerts.yaml").isfile())
            self.assertLessEqual({"thyme/values.schema.json", "thyme/README.md", "thyme/templates/NOTES.txt"}, set(names))
            self.assertFalse([name for name in names if name.startswith("thyme/ci")])
            values = CHART / "ci/everything-values.yaml"
            done = helm("template", RELEASE, package, "--namespace", NAMESPACE, "--values", values)
            self.assertEqual(done.stdout, chart("everything"), done.stderr)

    def test_notes_say_the_next_command(self):
        """Scenario: an installation without a cluster, in two namespaces.
        Guarantees: the notes name the DaemonSet, its namespace, and a selector that its pods have."""
        for namespace in ("logs", "thyme"):
            done = helm("install", "mine", CHART, "--namespace", namespace, *ENDPOINT, "--dry-run=client")
            self.assertEqual(done.returncode, 0, done.stderr)
            notes = done.stdout.split("NOTES:")[1]
            self.assertIn(f"kubectl rollout status -n {namespace} daemonset/mine-thyme", notes)
            self.assertIn("-l app.kubernetes.io/instance=mine ", notes)
            self.assertNotIn("WARNING", notes)
        without = helm("install", "mine", CHART, *ENDPOINT, "--dry-run=client", "--set",
                       "presets.logsCollection.storeCheckpoints=false")  # fmt: skip
        self.assertIn("WARNING", without.stdout)


class Objects(unittest.TestCase):
    """What the values make."""

    def test_out_of_the_box(self):
        """Scenario: an endpoint, and nothing else.
        Guarantees: no root and no capability but CHOWN in the init container, no token, no role, no Secret."""
        objects = template()
        self.assertEqual(sorted(d["kind"] for d in objects), ["ConfigMap", "DaemonSet", "ServiceAccount"])
        spec = pod(of_kind(objects, "DaemonSet"))
        self.assertIs(spec["automountServiceAccountToken"], False)
        context = agent_of(objects)["securityContext"]
        self.assertEqual((context["runAsUser"], context["runAsNonRoot"]), (65534, True))
        self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
        (prepare,) = spec["initContainers"]
        self.assertEqual(prepare["securityContext"]["capabilities"], {"drop": ["ALL"], "add": ["CHOWN"]})
        self.assertEqual(prepare["args"], ["prepare-state", "--directory", "/var/lib/thyme"])
        self.assertEqual(prepare["image"], agent_of(objects)["image"])

    def test_checksums_follow_the_content(self):
        """Scenario: another endpoint, another token, another resource limit; then without annotations.
        Guarantees: configuration and Secret each change their own checksum, the rest changes none."""
        first = annotations(template("--set", "credentials.files.token=a"))
        self.assertEqual(set(first), {"checksum/config", "checksum/credentials"})
        token = annotations(template("--set", "credentials.files.token=b"))
        self.assertEqual(token["checksum/config"], first["checksum/config"])
        self.assertNotEqual(token["checksum/credentials"], first["checksum/credentials"])
        other = annotations(
            template("--set", "credentials.files.token=a,config.exporters.otlp.endpoint=other.example:4317")
        )
        self.assertNotEqual(other["checksum/config"], first["checksum/config"])
        self.assertEqual(other["checksum/credentials"], first["checksum/credentials"])
        same = template("--set", "credentials.files.token=a,resources.limits.memory=512Mi")
        self.assertEqual(annotations(same), first)
        rendered = of_kind(same, "ConfigMap")["data"]["agent.yaml"].removesuffix("\n")
        self.assertEqual(first["checksum/config"], hashlib.sha256(rendered.encode()).hexdigest())
        self.assertEqual(annotations(template("--set", "enableConfigChecksumAnnotation=false")), {})

    def test_credentials(self):
        """Scenario: files of a Secret that the chart makes, then one that is there already.
        Guarantees: the agent finds them as files that only it can read; the second is not made again."""
        objects = template("--set", "credentials.files.token=s3cret")
        self.assertEqual(base64.b64decode(of_kind(objects, "Secret")["data"]["token"]), b"s3cret")
        for found, name in ((objects, "thyme-credentials"), (template("--set", "credentials.existingSecret=mine"), "mine")):
            (secret,) = [v["secret"] for v in pod(of_kind(found, "DaemonSet"))["volumes"] if "secret" in v]
            self.assertEqual(secret, {"secretName": name, "defaultMode": 0o440})
            mounts = {mount["mountPath"]: mount for mount in agent_of(found)["volumeMounts"]}
            self.assertTrue(mounts["/var/run/secrets/thyme"]["readOnly"])
        self.assertNotIn("Secret", [d["kind"] for d in template("--set", "credentials.existingSecret=mine")])

    def test_the_preset_outranks_nothing(self):
        """Scenario: logsCollection with settings of the user's, without checkpoints, and switched off.
        Guarantees: the user's stay; no state without checkpoints; nothing of the node without the preset."""
        everything = settings(parsed(chart("everything")))
        self.assertEqual(everything["receivers"]["filelog"]["exclude"], ["/var/log/pods/kube-system_*/*/*.log"])
        self.assertEqual(everything["service"]["pipelines"]["logs"]["receivers"], ["filelog/audit", "filelog"])
        self.assertEqual(everything["exporters"]["otlp"]["sending_queue"], {"queue_size": 1000000, "storage": "file_storage"})
        http = parsed(chart("http"))
        self.assertNotIn("file_storage", json.dumps(settings(http)))
        self.assertEqual(settings(http)["exporters"]["otlphttp"]["endpoint"], "https://thyme.example.com/otlp")
        self.assertNotIn("initContainers", pod(of_kind(http, "DaemonSet")))
        self.assertEqual(of_kind(http, "DaemonSet")["metadata"]["namespace"], "logging")
        self.assertRegex(agent_of(http)["image"], r"^ghcr\.io/ollygarden/thyme@sha256:[0-9a-f]{64}$")
        none = template("--set", "presets.logsCollection.enabled=false")
        self.assertNotIn("hostPath", json.dumps(none))
        self.assertNotIn("filelog", json.dumps(settings(none)))

    def test_values_that_look_like_something_else(self):
        """Scenario: a namespace and a class of digits, a path with a sign that begins a comment, and an exporter that is
        taken away beside one that is set.
        Guarantees: strings stay strings, the path is whole, and the exporter is gone."""
        found = template("--set-string", "namespaceOverride=456", "--set-string", "priorityClassName=123",
                         "--set", "state.hostPath=/var/lib/a #b", "--set", "config.exporters.otlphttp=null")
        daemonset = of_kind(found, "DaemonSet")
        self.assertEqual({one["metadata"]["namespace"] for one in found}, {"456"})
        self.assertEqual(pod(daemonset)["priorityClassName"], "123")
        self.assertIn("/var/lib/a #b", [volume.get("hostPath", {}).get("path") for volume in pod(daemonset)["volumes"]])
        self.assertEqual(list(settings(found)["exporters"]), ["otlp"])

    def test_everything_is_where_it_belongs(self):
        """Scenario: a set of values in which each list has something.
        Guarantees: each of them is in the object that it is for."""
        objects = parsed(chart("everything"))
        daemonset = of_kind(objects, "DaemonSet")
        spec, agent = pod(daemonset), agent_of(objects)
        self.assertEqual(agent["image"], "registry.example:5000/thyme:1.2")
        self.assertEqual(spec["imagePullSecrets"], [{"name": "registry"}])
        self.assertEqual(spec["serviceAccountName"], "agent")
        self.assertIn({"name": "CLUSTER", "value": "thyme"}, agent["env"])
        self.assertEqual(daemonset["spec"]["template"]["metadata"]["annotations"]["example.com/release"], "thyme")
        self.assertEqual(daemonset["spec"]["template"]["metadata"]["labels"]["team"], "logs")
        self.assertEqual(daemonset["spec"]["updateStrategy"]["rollingUpdate"], {"maxSurge": 0, "maxUnavailable": "10%"})
        paths = {v["name"]: v["hostPath"]["path"] for v in spec["volumes"] if "hostPath" in v}
        self.assertEqual(paths, {"logs": "/var/log/pods", "state": "/data/thyme", "audit": "/var/log/audit"})
        for document in objects:
            self.assertEqual(document["metadata"]["labels"]["app.kubernetes.io/part-of"], "observability")
        for kind in ("PodMonitor", "ServiceMonitor", "PrometheusRule"):
            self.assertEqual(of_kind(objects, kind)["metadata"]["labels"]["release"], "kube-prometheus-stack")
        selector = daemonset["spec"]["selector"]
        self.assertEqual(of_kind(objects, "PodMonitor")["spec"]["selector"], selector)
        self.assertEqual(of_kind(objects, "Service")["spec"]["selector"], selector["matchLabels"])
        labels = of_kind(objects, "Service")["metadata"]["labels"]
        found = of_kind(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
        self.assertLessEqual(found.items(), labels.items())
        policy = of_kind(objects, "NetworkPolicy")["spec"]
        self.assertEqual(policy["policyTypes"], ["Ingress", "Egress"])
        self.assertEqual(policy["podSelector"], selector)

    def test_the_rules_are_the_projects(self):
        """Scenario: prometheusRule with the default rules and one group more.
        Guarantees: every alert of alerts/thyme.yaml with the labels asked for, and none of the benchmark's."""
        groups = of_kind(parsed(chart("everything")), "PrometheusRule")["spec"]["groups"]
        source = yaml.safe_load((PROJECT / "deployment/kubernetes/alerts/thyme.yaml").read_text())["groups"]
        self.assertEqual([group["name"] for group in groups], ["own", *(group["name"] for group in source)])
        for group, original in zip(groups[1:], source, strict=True):
            for rule, before in zip(group["rules"], original["rules"], strict=True):
                self.assertEqual(rule["labels"], before["labels"] | {"team": "logs"})
                more = {"dashboard": "https://grafana.example/d/thyme"}
                self.assertEqual(rule["annotations"], before["annotations"] | more)
                self.assertEqual(rule["expr"], before["expr"])

    def test_the_agent_takes_the_configuration(self):
        """Scenario: the ConfigMap of each set of values, with what the DaemonSet sets.
        Guarantees: `thyme-agent validate` accepts it."""
        program = binary("thyme-agent")
        if not program:
            self.skipTest("SKIP: no target/release/thyme-agent; the chart's configurations were not validated")
        for values in VALUES:
            objects = parsed(chart(values))
            environment = {v["name"]: v.get("value", "some-name") for v in agent_of(objects)["env"]}
            environment["THYME_ENDPOINT"] = "collector.example:4317"
            with tempfile.TemporaryDirectory() as directory:
                Path(directory, "token").write_text("not-a-real-token\n")
                file = Path(directory, "agent.yaml")
                configuration = of_kind(objects, "ConfigMap")["data"]["agent.yaml"]
                file.write_text(configuration.replace("/var/run/secrets/thyme", directory))
                done = subprocess.run([program, "validate", "--config", file], env=environment, capture_output=True,
                                      text=True)  # fmt: skip
                self.assertEqual(done.returncode, 0, f"{values}: {done.stdout}{done.stderr}")


class SameAsKustomize(unittest.TestCase):
    """The chart and deployment/thyme can't drift apart."""

    # Of Helm alone: who manages it, and the restart that kustomize has by names with hashes.
    LABELS = re.compile(r"^(app|helm\.sh/chart|app\.kubernetes\.io/.*)$")

    def plain(self, document):
        """An object as both should have it: no labels of the tool's, names without hashes, lists by name."""
        text = re.sub(r"\b(thyme(?:-sink|-credentials)?)-[a-z0-9]{10}\b", r"\1", json.dumps(document))
        document = json.loads(text)
        if document["kind"] == "ConfigMap":
            configuration = yaml.safe_load(document["data"]["agent.yaml"])
            configuration["service"]["extensions"].sort()
            document["data"] = configuration
        return self.sorted(document)

    def sorted(self, part):
        """Without labels, checksums and the order of lists that are keyed by name."""
        if isinstance(part, dict):
            kept = {key: self.sorted(child) for key, child in part.items() if not self.LABELS.match(key)}
            if "annotations" in kept:
                kept["annotations"] = {k: v for k, v in kept["annotations"].items() if not k.startswith("checksum/")}
            return {key: child for key, child in kept.items() if child not in ({}, [])}
        if isinstance(part, list):
            named = all(isinstance(child, dict) and "name" in child for child in part)
            return [self.sorted(child) for child in (sorted(part, key=lambda child: child["name"]) if named else part)]
        return part

    def test_they_render_the_same(self):
        """Scenario: the chart with ci/kustomize-values.yaml, and deployment/thyme.
        Guarantees: the same objects but for what only one of them makes, which is named here."""
        from_chart = {d["kind"]: self.plain(d) for d in parsed(chart("kustomize"))}
        from_kustomize = {}
        apart = set()
        for document in documents(thyme_alone()):
            name = document["metadata"]["name"]
            if document["kind"] in ("Namespace", "Secret") or name.startswith("thyme-sink-"):
                apart.add(document["kind"])
            else:
                from_kustomize[document["kind"]] = self.plain(document)
        self.assertEqual(apart, {"Namespace", "Secret", "ConfigMap"})
        self.maxDiff = None
        self.assertEqual(from_chart, from_kustomize)
        self.assertEqual(set(from_chart), {"ConfigMap", "DaemonSet", "ServiceAccount"})

    def test_a_difference_would_be_found(self):
        """Scenario: the same comparison with one value changed at a time.
        Guarantees: it fails each time, so that it compares what matters."""
        expected = {d["kind"]: self.plain(d) for d in parsed(chart("kustomize"))}
        for change in (
            "resources.limits.memory=257Mi",
            "securityContext.runAsUser=1",
            "config.extensions.thyme.spool_bytes_max=11GiB",
            "state.hostPath=/data",
            "priorityClassName=other",
            "readinessProbe.periodSeconds=6",
            "serviceAccount.automountServiceAccountToken=true",
            "image.tag=other",
        ):
            changed = {d["kind"]: self.plain(d) for d in parsed(chart("kustomize", "--set", change))}
            self.assertNotEqual(changed, expected, change)


class Readme(unittest.TestCase):
    """charts/thyme/README.md."""

    README = CHART / "README.md"

    def rows(self):
        """The table of values: name and default."""
        table = self.README.read_text().split("\n## Values\n")[1].split("\n### ")[0]
        return dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \|", table, re.M))

    def test_the_table_is_values_yaml(self):
        """Scenario: each row, and each value.
        Guarantees: no value is missing, none is invented, and the default is the one in values.yaml."""
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        rows = self.rows()
        leaves = set()

        def walk(part, path):
            if path in rows or not isinstance(part, dict) or not part:
                leaves.add(path)
            if isinstance(part, dict):
                for name, child in part.items():
                    if path not in rows:
                        walk(child, f"{path}.{name}" if path else name)

        for name, child in values.items():
            walk(child, name)
        self.assertEqual(set(rows), leaves)
        for path, said in rows.items():
            value = values
            for name in path.split("."):
                value = value[name]
            if said == "see values.yaml":
                self.assertIsInstance(value, (dict, list), path)
                self.assertTrue(value, path)
            else:
                self.assertEqual(said, f"`{json.dumps(value)}`", path)

    def test_examples_render(self):
        """Scenario: each YAML of the README.
        Guarantees: the chart takes it as it is."""
        blocks = re.findall(r"```yaml\n(.*?)```", self.README.read_text(), re.DOTALL)
        self.assertGreaterEqual(len(blocks), 2)
        for block in blocks:
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                file.write(block)
                file.flush()
                done = helm("template", RELEASE, CHART, "--values", file.name)
                self.assertEqual(done.returncode, 0, f"{block}\n{done.stderr}")


if __name__ == "__main__":
    os.umask(0o022)
    unittest.main()
