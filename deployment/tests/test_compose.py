"""The compose file: shape, and agreement with the manifests."""

import re
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml
from rendered import DEPLOYMENT, binary, main_container, workloads

COMPOSE = DEPLOYMENT / "compose/compose.yaml"
OURS = ("prepare-state", "prepare-logs", "log-generator", "thyme", "nop-collector", "verdict")

# The keys of the Compose specification that are used here: a misspelt one would be an error of the tool.
SERVICE_KEYS = {
    "cap_add", "cap_drop", "command", "depends_on", "entrypoint", "environment", "healthcheck", "image",
    "mem_limit", "network_mode", "networks", "ports", "profiles", "read_only", "restart", "security_opt",
    "stop_grace_period", "user", "volumes",
}  # fmt: skip


def with_defaults(text):
    """Variables as they are when nobody sets them."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


class Compose(unittest.TestCase):
    """compose.yaml with its defaults."""

    def setUp(self):
        text = COMPOSE.read_text()
        self.assertFalse(re.findall(r"\$\{\w+\}", text), "each variable needs a default")
        self.file = yaml.safe_load(with_defaults(text))
        self.services = self.file["services"]

    def test_shape(self):
        """Scenario: the file's keys.
        Guarantees: known ones, an image each, dependencies and volumes that exist."""
        top = {key for key in self.file if not key.startswith("x-")}
        self.assertEqual(top, {"name", "services", "volumes"})
        self.assertEqual(set(self.services), {*OURS, "lgtm"})
        for name, service in self.services.items():
            self.assertLessEqual(set(service), SERVICE_KEYS, name)
            self.assertRegex(service["image"], r":[\w.]+$")
            self.assertLessEqual(set(service.get("depends_on", {})), set(self.services))
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    self.assertTrue((COMPOSE.parent / source).exists(), source)
                    self.assertTrue(volume.endswith(":ro"), volume)
                else:
                    self.assertIn(source, self.file["volumes"])
            for value in service.get("environment", {}).values():
                self.assertIsInstance(value, str)

    def test_locked_down(self):
        """Scenario: each service.
        Guarantees: no capability and no new privileges; the project's own also read-only and, but for the
        preparation of volumes, without root."""
        for name, service in self.services.items():
            self.assertEqual(service["cap_drop"], ["ALL"], name)
            self.assertEqual(service["security_opt"], ["no-new-privileges:true"], name)
            prepares = name.startswith("prepare-")
            self.assertEqual(service.get("cap_add", []), ["CHOWN"] if prepares else [], name)
            if name in OURS:
                self.assertIs(service["read_only"], True, name)
                self.assertEqual(service["user"].split(":")[0], "0" if prepares else "65534", name)
        self.assertEqual(self.services["thyme"]["user"], "65534:0")
        self.assertIn("logs:/var/log/pods:ro", self.services["thyme"]["volumes"])

    def test_only_grafana_is_published(self):
        """Scenario: published ports.
        Guarantees: Grafana's, on loopback."""
        published = {name: service["ports"] for name, service in self.services.items() if "ports" in service}
        self.assertEqual(published, {"lgtm": ["127.0.0.1:3000:3000"]})

    def test_volumes_are_prepared_first(self):
        """Scenario: the order of starts.
        Guarantees: who writes into a volume waits until it belongs to its user."""
        done = {"condition": "service_completed_successfully"}
        for name, needed in (
            ("thyme", {"prepare-state", "prepare-logs"}),
            ("log-generator", {"prepare-logs"}),
        ):
            self.assertEqual(self.services[name]["depends_on"], dict.fromkeys(needed, done))

    def test_lgtm_is_that_of_the_manifests(self):
        """Scenario: image, settings and files of lgtm, in the compose file and on a cluster.
        Guarantees: the same."""
        container = main_container(workloads("kubernetes")["lgtm"])
        service = self.services["lgtm"]
        self.assertEqual(service["image"], container["image"])
        self.assertEqual(service["entrypoint"], container["command"])
        expected = {v["name"]: v["value"] for v in container["env"] if "value" in v}
        self.assertEqual(service["environment"], expected | {"GF_SECURITY_ADMIN_PASSWORD": ""})
        targets = {volume.split(":")[1] for volume in service["volumes"]}
        mounts = {m["mountPath"] for m in container["volumeMounts"]} - {"/etc/lgtm-start"}
        self.assertEqual(targets, mounts | {"/etc/lgtm-start/start.sh"})

    def test_names_that_the_agents_configuration_uses(self):
        """Scenario: the manifests' agent.yaml in the compose network.
        Guarantees: its names lead somewhere, and all its variables are set."""
        configuration = (DEPLOYMENT / "kubernetes/thyme/agent.yaml").read_text()
        names = set(self.services) | set(self.services["lgtm"]["networks"]["default"]["aliases"])
        for host in re.findall(r"endpoint: (?:http://)?([a-z][\w.-]*):\d+", configuration):
            self.assertIn(host, names)
        for variable in re.findall(r"\$\{env:(\w+)\}", configuration):
            self.assertIn(variable, self.services["thyme"]["environment"])

    def test_the_programs_take_their_arguments(self):
        """Scenario: the commands of the project's services, with the volumes in a directory.
        Guarantees: the release binaries accept them: the generator writes its files, the agent validates,
        the verdict's command fails for want of a collector and not for its arguments."""
        programs = {name: binary(name) for name in ("thyme-agent", "log-generator", "nop-collector")}
        if not all(programs.values()):
            self.skipTest("SKIP: no release binaries in target/release; the commands were not tried")
        with tempfile.TemporaryDirectory() as directory:
            def command(service):
                return [
                    re.sub(r"^0\.0\.0\.0:\d+$", "127.0.0.1:0", part)
                    .replace("/var/", f"{directory}/")
                    .replace("/etc/thyme", str(DEPLOYMENT / "kubernetes/thyme"))
                    for part in self.services[service]["command"]
                ]

            environment = self.services["thyme"]["environment"]
            validate = [programs["thyme-agent"], "validate", *command("thyme")]
            done = subprocess.run(validate, env=environment, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)

            Path(directory, "log/pods").mkdir(parents=True)
            arguments = command("log-generator")
            arguments[arguments.index("--duration") + 1] = "500ms"
            arguments.remove("--linger")
            done = subprocess.run([programs["log-generator"], *arguments], capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(len(list(Path(directory, "log/pods").glob("*/*/0.log"))), 10)

            arguments = [
                re.sub(r"//[a-z-]+:\d+", "//127.0.0.1:1", part) for part in self.services["verdict"]["command"]
            ]
            done = subprocess.run([programs["nop-collector"], *arguments], capture_output=True, text=True)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("127.0.0.1:1", done.stderr)
            self.assertNotIn("Usage", done.stderr)


if __name__ == "__main__":
    unittest.main()
