"""The scripts, against recorded stand-ins of kubectl and tofu on PATH."""

import json
import os
import stat
import subprocess
import tempfile
import unittest
from pathlib import Path

from rendered import DEPLOYMENT

START = DEPLOYMENT / "kubernetes/lgtm/start.sh"

STAND_IN = """#!/bin/bash
{{ printf '%s' "${{0##*/}}"; printf ' %q' "$@"; echo; }} >>"$RECORD"
{body}
"""


class WithStandIns(unittest.TestCase):
    """A directory of stand-ins, and what they were called with."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.record = self.directory / "record"

    def stand_in(self, name, body):
        """A program on PATH that records its arguments, then runs `body`."""
        path = self.directory / name
        path.write_text(STAND_IN.format(body=body))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run_script(self, script, *arguments, **environment):
        """Its exit status and all it says."""
        environment = {
            "PATH": f"{self.directory}:/usr/bin:/bin",
            "RECORD": str(self.record),
            **environment,
        }
        done = subprocess.run(
            [DEPLOYMENT / script, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        return done.returncode, done.stdout

    def calls(self):
        """The commands that were run."""
        return self.record.read_text().splitlines() if self.record.exists() else []


class GrafanaAccess(WithStandIns):
    """deployment/aws/grafana-access."""

    SCRIPT = "aws/grafana-access"

    def access(self, *arguments, output="[]", **environment):
        """Runs it with an output of tofu; the ranges that it has set."""
        self.stand_in("tofu", f"cat <<'E'\n{output}\nE")
        self.stand_in("kubectl", 'if [ "$1" = get ]; then printf nlb.example; fi')
        status, said = self.run_script(self.SCRIPT, *arguments, **environment)
        patches = [call for call in self.calls() if call.startswith("kubectl patch")]
        self.record.unlink(missing_ok=True)
        if not patches:
            return status, said, None
        (patch,) = patches
        self.assertIn("kubectl patch service grafana -n lgtm --type merge -p ", patch)
        quoted = patch.rsplit(" -p ", 1)[1]
        text = subprocess.run(["bash", "-c", f"printf %s {quoted}"], capture_output=True, text=True).stdout
        return status, said, json.loads(text)["spec"]["loadBalancerSourceRanges"]

    def test_tofus_output(self):
        """Scenario: no ranges, one, several as tofu prints them.
        Guarantees: the VPC's range, or exactly those; the URL is said."""
        for output, expected in (
            ("[]", ["10.0.0.0/16"]),
            ('["203.0.113.7/32"]', ["203.0.113.7/32"]),
            ('[\n  "203.0.113.7/32",\n  "198.51.100.0/24"\n]', ["203.0.113.7/32", "198.51.100.0/24"]),
        ):
            status, said, ranges = self.access(output=output)
            self.assertEqual((status, ranges), (0, expected), said)
            self.assertIn("http://nlb.example:3000", said)

    def test_tofu_is_asked_in_its_directory(self):
        """Scenario: the call of tofu.
        Guarantees: the directory of the infrastructure, and the output by name."""
        self.stand_in("tofu", "echo '[]'")
        self.stand_in("kubectl", "")
        self.run_script(self.SCRIPT)
        self.assertRegex(
            self.calls()[0], r"^tofu -chdir=\S*/infrastructure/aws output -json grafana_allowed_cidrs$"
        )

    def test_arguments(self):
        """Scenario: ranges as arguments, and --close.
        Guarantees: tofu isn't asked."""
        for arguments, expected in (
            (["203.0.113.7/32"], ["203.0.113.7/32"]),
            (["203.0.113.7/32", "192.0.2.0/24"], ["203.0.113.7/32", "192.0.2.0/24"]),
            (["--close"], ["10.0.0.0/16"]),
        ):
            status, said, ranges = self.access(*arguments, output="broken")
            self.assertEqual((status, ranges), (0, expected), said)

    def test_refusals(self):
        """Scenario: what is no IPv4 network, or nearly everybody.
        Guarantees: nothing is set, and the range is named."""
        for bad in (
            "0.0.0.0/0",
            "0.0.0.0/1",
            "128.0.0.0/1",
            "203.0.113.7",
            "203.0.113.7/24",
            "256.0.0.1/32",
            "10.0.0.0/33",
            "010.0.0.0/8",
            "2001:db8::/32",
            "::/0",
            "host.example/32",
            "1.2.3.4/32; reboot",
        ):
            for arguments, output in (([bad], "[]"), ([], json.dumps([bad]))):
                status, said, ranges = self.access(*arguments, output=output)
                self.assertEqual((status, ranges), (1, None), said)
                self.assertIn(bad.split(";")[0], said)
        for output in ('"203.0.113.7/32"', "null", '{"a": 1}', '[""]'):
            status, said, ranges = self.access(output=output)
            self.assertEqual((status, ranges), (1, None), f"{output}: {said}")

    def test_everybody_has_to_be_asked_for(self):
        """Scenario: 0.0.0.0/0 with ALLOW_ANY=1.
        Guarantees: it is set."""
        status, said, ranges = self.access("0.0.0.0/0", ALLOW_ANY="1")
        self.assertEqual((status, ranges), (0, ["0.0.0.0/0"]), said)

    def test_print_changes_nothing(self):
        """Scenario: --print.
        Guarantees: the patch is said, kubectl isn't called."""
        status, said, ranges = self.access("--print", output='["203.0.113.7/32"]')
        self.assertEqual((status, ranges), (0, None))
        self.assertIn('{"spec":{"loadBalancerSourceRanges":["203.0.113.7/32"]}}', said)

    def test_failures_are_said(self):
        """Scenario: tofu fails; kubectl fails; neither is installed; an unknown option.
        Guarantees: a failure each time, with its reason."""
        self.stand_in("kubectl", "")
        self.stand_in("tofu", "exit 1")
        status, said = self.run_script(self.SCRIPT)
        self.assertEqual(status, 1)
        self.assertIn("no output grafana_allowed_cidrs", said)
        self.assertFalse([call for call in self.calls() if call.startswith("kubectl")])
        self.stand_in("kubectl", "exit 1")
        self.assertNotEqual(self.run_script(self.SCRIPT, "--close")[0], 0)
        for variable, arguments in (("TOFU", []), ("KUBECTL", ["--close"])):
            status, said = self.run_script(self.SCRIPT, *arguments, **{variable: "no-such-tool"})
            self.assertEqual(status, 1)
            self.assertIn("no-such-tool is not installed", said)
        self.assertEqual(self.run_script(self.SCRIPT, "--open")[0], 1)


class GrafanaPassword(WithStandIns):
    """deployment/grafana-password."""

    SCRIPT = "grafana-password"

    def test_show(self):
        """Scenario: lgtm runs, then it doesn't.
        Guarantees: what is in force is printed, or how to wait for it."""
        self.stand_in("kubectl", "echo secret-in-force")
        status, said = self.run_script(self.SCRIPT)
        self.assertEqual((status, said), (0, "secret-in-force\n"))
        self.assertEqual(
            self.calls(), ["kubectl exec -n lgtm deployment/lgtm -- cat /data/grafana-admin-password"]
        )
        self.stand_in("kubectl", "exit 1")
        status, said = self.run_script(self.SCRIPT)
        self.assertEqual(status, 1)
        self.assertIn("rollout status", said)

    def test_create(self):
        """Scenario: no Secret yet, twice.
        Guarantees: the namespace first; a random password of 32 characters through standard input, never
        in an argument or on the terminal."""
        seen = set()
        for _ in range(2):
            self.stand_in("kubectl", f'if [ "$1" = create ]; then cat >{self.directory}/given; fi')
            status, said = self.run_script(self.SCRIPT, "create")
            self.assertEqual(status, 0, said)
            password = (self.directory / "given").read_text()
            self.assertRegex(password, r"^[A-Za-z0-9_-]{32}$")
            calls = self.calls()
            self.record.unlink()
            self.assertRegex(calls[0], r"^kubectl apply -f \S*/kubernetes/namespaces.yaml$")
            self.assertIn("--from-file=password=/dev/stdin", calls[-1])
            self.assertNotIn(password, said + "".join(calls))
            seen.add(password)
        self.assertEqual(len(seen), 2)

    def test_an_existing_secret_stays(self):
        """Scenario: the Secret is there.
        Guarantees: nothing is created."""
        self.stand_in("kubectl", 'if [ "$1" = get ]; then echo secret/grafana-admin; fi')
        status, _ = self.run_script(self.SCRIPT, "create")
        self.assertEqual(status, 0)
        self.assertFalse([call for call in self.calls() if call.startswith("kubectl create")])

    def test_unknown_command(self):
        """Scenario: a word that is no command.
        Guarantees: refused."""
        self.stand_in("kubectl", "")
        self.assertEqual(self.run_script(self.SCRIPT, "delete")[0], 1)
        self.assertEqual(self.calls(), [])


class Start(unittest.TestCase):
    """deployment/kubernetes/lgtm/start.sh, with its three paths moved into a directory."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        for name in ("data", "otel-lgtm"):
            (self.directory / name).mkdir()
        self.ready = self.directory / "ready"
        self.file = self.directory / "data/grafana-admin-password"
        run_all = self.directory / "otel-lgtm/run-all.sh"
        run_all.write_text('#!/bin/bash\nprintf %s "$GF_SECURITY_ADMIN_PASSWORD" >password\n')
        run_all.chmod(0o755)
        text = START.read_text()
        moves = {
            "/data/": f"{self.directory}/data/",
            "/tmp/ready": str(self.ready),
            "cd /otel-lgtm": f"cd {self.directory}/otel-lgtm",
        }
        for old, new in moves.items():
            self.assertIn(old, text)
            text = text.replace(old, new)
        self.script = self.directory / "start.sh"
        self.script.write_text(text)

    def start(self, password=None):
        """Exit status, what is said, and the password that Grafana gets."""
        environment = {"PATH": "/usr/bin:/bin"}
        if password is not None:
            environment["GF_SECURITY_ADMIN_PASSWORD"] = password
        got = self.directory / "otel-lgtm/password"
        got.unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", self.script], env=environment, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr, got.read_text() if got.exists() else None

    def test_without_a_secret(self):
        """Scenario: no Secret, two pods, and a restart of the container.
        Guarantees: long random passwords, one for each pod, kept over the restart, never said, and in a
        file that nobody else may read."""
        for given in (None, ""):
            self.file.unlink(missing_ok=True)
            status, said, password = self.start(given)
            self.assertEqual(status, 0, said)
            self.assertRegex(password, r"^[0-9a-f]{64}$")
            self.assertNotIn(password, said)
            self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)
            self.assertEqual(self.start(given)[2], password)
            self.file.unlink()
            self.assertNotEqual(self.start(given)[2], password)

    def test_with_a_secret(self):
        """Scenario: a Secret, then another one.
        Guarantees: the first is used and kept, as Grafana's database has it; that the second waits for a
        new pod is said; neither is."""
        status, said, password = self.start("correct horse $battery")
        self.assertEqual((status, password), (0, "correct horse $battery"), said)
        self.assertEqual(self.file.read_text(), "correct horse $battery\n")
        status, said, password = self.start("another long password")
        self.assertEqual((status, password), (0, "correct horse $battery"))
        self.assertIn("new pod", said)
        self.assertNotIn("horse", said)
        self.assertNotIn("another", said)

    def test_a_well_known_password_is_refused(self):
        """Scenario: `admin` and another short one.
        Guarantees: Grafana doesn't start."""
        for password in ("admin", "12345678901"):
            status, said, got = self.start(password)
            self.assertEqual((status, got), (1, None))
            self.assertIn("At least 12", said)
            self.assertFalse(self.file.exists())

    def test_not_ready_at_first(self):
        """Scenario: the file of an earlier start is there.
        Guarantees: it is gone before anything starts."""
        self.ready.touch()
        self.start()
        self.assertFalse(self.ready.exists())


if __name__ == "__main__":
    os.umask(0o022)
    unittest.main()
