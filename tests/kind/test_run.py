"""tests/kind/run against stand-ins of docker, kind, kubectl, helm, curl and make on PATH: the order of its commands,
and that the cluster goes whatever happens. Whether the answers are the image's own, only a real run shows."""

import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]

STAND_IN = r"""#!/usr/bin/env python3
import json, os, sys, time
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
line = " ".join([name, *words])
with open(os.environ["RECORD"], "a") as record:
    record.write(line + "\n")
if os.environ.get("FAIL") and os.environ["FAIL"] in line:
    sys.exit(1)
if name == "kubectl" and words[0] == "port-forward":
    time.sleep(60)
if name == "kubectl" and words[0] == "exec":
    print("secret")
if name == "kubectl" and words[:2] == ["get", "--raw"]:
    print('{"records": 5}')
if name == "curl":
    if "secret" in line or "secret" not in sys.stdin.read():
        sys.exit("the password is on the command line, or missing")
    path = words[-1].split("33000")[1]
    rules = [{"health": "ok"}] * 5
    answers = {"/api/dashboards/uid/thyme": {"meta": {"provisioned": True}},
               "/api/dashboards/home": {"dashboard": {"uid": "thyme"}},
               "/api/datasources/uid/prometheus": {"type": "prometheus"},
               "rules": {"data": {"groups": [{"rules": rules}]}},
               "query": {"data": {"result": [{"metric": {"k8s_node_name": "n"}}]}}}
    if os.environ.get("EMPTY"):
        answers["query"] = {"data": {"result": []}}
    print(json.dumps(next(answer for part, answer in answers.items() if part in path)))
"""


class Run(unittest.TestCase):
    def run_it(self, **variables):
        """Its exit status, what it said, and the commands."""
        with tempfile.TemporaryDirectory() as directory:
            place = pathlib.Path(directory)
            for tool in ("docker", "kind", "kubectl", "helm", "curl", "make", "cargo"):
                (place / tool).write_text(STAND_IN)
                (place / tool).chmod(0o755)
            (place / "record").write_text("")
            environment = {"PATH": f"{directory}:/usr/bin:/bin", "HOME": directory, "RECORD": f"{directory}/record", **variables}
            done = subprocess.run([ROOT / "tests/kind/run"], env=environment, capture_output=True, text=True, timeout=60)
            return done.returncode, done.stdout + done.stderr, (place / "record").read_text().splitlines()

    def test_everything_passes(self):
        """Scenario: all goes well.
        Guarantees: cluster, images, benchmark, questions, and the cluster goes; nothing asks the operator's own."""
        status, said, record = self.run_it()
        self.assertEqual(status, 0, said)
        self.assertTrue(said.endswith("test-kind: passed\n"), said)
        wanted = ["kind create cluster --name thyme-test", "make docker-build", "make kind-load KIND_CLUSTER=thyme-test",
                  "cargo ", "/api/dashboards/uid/thyme", "/rules", "helm install thyme charts/thyme",
                  "/pods/sink:8080/proxy/report", "helm uninstall thyme", "kind delete cluster"]
        # In the background, so that its place among the others is by chance.
        self.assertTrue(any("kubectl port-forward" in line for line in record))
        at = -1
        for part in wanted:
            at = next((i for i, line in enumerate(record) if i > at and part in line), None)
            self.assertIsNotNone(at, f"{part} in {record}")
        self.assertEqual(record[-1], "kind delete cluster --name thyme-test")

    def test_a_fault_fails_and_leaves_nothing(self):
        """Scenario: the benchmark fails; Prometheus has nothing; KEEP=1.
        Guarantees: a failure that says what; the nodes' logs are kept, the cluster goes unless it is to stay."""
        for variables, words in (({"FAIL": "cargo"}, ""), ({"EMPTY": "1"}, "NOT: Prometheus has")):
            status, said, record = self.run_it(**variables)
            self.assertNotEqual(status, 0)
            self.assertIn(words, said)
            self.assertIn("kind export logs", record[-2])
            self.assertIn("kind delete cluster", record[-1])
        _, _, record = self.run_it(KEEP="1")
        self.assertFalse(any("delete" in line for line in record))


if __name__ == "__main__":
    unittest.main()
