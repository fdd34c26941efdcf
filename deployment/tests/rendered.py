"""The overlays as `kubectl kustomize` renders them. Only reads; judges nothing."""

import functools
import subprocess
from pathlib import Path

import yaml

DEPLOYMENT = Path(__file__).resolve().parent.parent
PROJECT = DEPLOYMENT.parent
OVERLAYS = ["kubernetes", "aws", "local"]


@functools.cache
def text(directory):
    """The YAML of an overlay: a name below deployment/, or a path."""
    command = ["kubectl", "kustomize", str(DEPLOYMENT / directory)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@functools.cache
def documents(directory):
    """All objects of an overlay."""
    return [document for document in yaml.safe_load_all(text(directory)) if document]


def one(directory, kind, name):
    """The only object of that kind and name; generated names without their hash."""
    found = [
        document
        for document in documents(directory)
        if document["kind"] == kind and plain_name(document) == name
    ]
    assert len(found) == 1, f"{directory}: {len(found)} of {kind}/{name}"
    return found[0]


def plain_name(document):
    """A ConfigMap's name without the hash of its content."""
    name = document["metadata"]["name"]
    return name.rsplit("-", 1)[0] if document["kind"] == "ConfigMap" else name


def workloads(directory):
    """All objects that make pods, by name."""
    kinds = ("DaemonSet", "Deployment")
    return {d["metadata"]["name"]: d for d in documents(directory) if d["kind"] in kinds}


def pod(workload):
    """What a workload makes its pods from."""
    return workload["spec"]["template"]["spec"]


def main_container(workload):
    """The container that all pods here have just one of."""
    containers = pod(workload)["containers"]
    assert len(containers) == 1
    return containers[0]


def binary(name):
    """A release binary, or nothing where none was built."""
    path = PROJECT / "target/release" / name
    return path if path.exists() else None
