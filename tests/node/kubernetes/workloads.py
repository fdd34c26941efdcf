"""Generators and collectors of one namespace, as the API server shows them, and what they say about each line."""

import json
import subprocess

import node


class Workloads:
    def __init__(self, on, check, merge, namespace):
        self.node, self.check, self.merge_program = on, check, merge
        self.namespace = namespace
        self.manifests = []
        self.work = on.work

    def pods(self, app):
        found = json.loads(self.node.kubectl("-n", self.namespace, "get", "pods", "-l", f"app={app}", "-o", "json"))
        return [pod for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]

    def names(self, app):
        return [pod["metadata"]["name"] for pod in self.pods(app)]

    def path(self, pod, port, rest):
        return f"/api/v1/namespaces/{self.namespace}/pods/{pod}:{port}/proxy{rest}"

    def fetch(self, pod, port, rest):
        return self.node.kubectl("get", "--raw", self.path(pod, port, rest))

    def stop_generator(self, pod):
        """POST /stop as the benchmark does it; its manifest is kept."""
        said = self.node.kubectl("create", "--raw", self.path(pod, 8080, "/stop"), "-f", "/dev/null")
        manifest = self.work / f"{pod}.manifest"
        manifest.write_text(said)
        self.manifests.append(manifest)
        return manifest

    def merge(self, manifests):
        """The verdict over all collectors, their reports through the API server."""
        urls = [node.PROXY + self.path(pod, 8080, "/report?intervals=1") for pod in self.names("nop-collector")]
        listed = ["--manifest", *manifests, "--"] if manifests else []
        said = subprocess.run([self.merge_program, "merge", *listed, *urls],
                              capture_output=True, text=True)
        if said.returncode not in (0, 1):
            raise ValueError(f"merge ended with {said.returncode}: {said.stderr}")
        return said.returncode, json.loads(said.stdout)

    def received(self):
        return {pod: json.loads(self.fetch(pod, 8080, "/report"))["records"] for pod in self.names("nop-collector")}

    def rollout(self, what, seconds):
        self.node.kubectl("-n", self.namespace, "rollout", "status", what, f"--timeout={seconds}s")

    def restarts(self):
        found = json.loads(self.node.kubectl("-n", self.namespace, "get", "pods", "-o", "json"))["items"]
        return {f"{pod['metadata']['name']}/{status['name']}": status["restartCount"]
                for pod in found for status in pod["status"].get("containerStatuses", []) if status["restartCount"]}
