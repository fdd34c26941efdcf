"""The overlays as `kubectl kustomize` renders them, and the chart as helm does. Only reads; judges nothing."""

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

DEPLOYMENT = Path(__file__).resolve().parent.parent
PROJECT = DEPLOYMENT.parent
OVERLAYS = ["kubernetes", "aws", "local"]
CHART = PROJECT / "charts/thyme"
# Sets of values, each with what its first line says.
VALUES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
RELEASE, NAMESPACE = "thyme", "thyme"


@functools.cache
def text(directory):
    """The YAML of an overlay: a name below deployment/, or a path."""
    command = ["kubectl", "kustomize", str(DEPLOYMENT / directory)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@functools.cache
def thyme_alone():
    """A copy of deployment/thyme with the two files that an operator adds."""
    directory = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, directory)
    copy = Path(directory) / "thyme"
    shutil.copytree(DEPLOYMENT / "thyme", copy, ignore=lambda path, names: names if path.endswith("/sink") else [])
    (copy / "sink/env").write_text("THYME_ENDPOINT=collector.example:4317\n")
    (copy / "sink/token").write_text("not-a-real-token\n")
    return str(copy)


def helm(*arguments, **options):
    """Runs helm, for no cluster and without settings of the user's."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HELM_")}
    environment |= {"KUBECONFIG": "/dev/null", "HOME": "/nonexistent", **options}
    return subprocess.run(["helm", *map(str, arguments)], env=environment, capture_output=True, text=True)


@functools.cache
def chart(values, *arguments):
    """The YAML that the chart renders from a set of values."""
    done = helm("template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", CHART / f"ci/{values}-values.yaml",
                *arguments)  # fmt: skip
    assert done.returncode == 0, f"{values}: {done.stderr}"
    return done.stdout


def documents(directory):
    """All objects of an overlay."""
    return parsed(text(directory))


@functools.cache
def parsed(rendered):
    """The objects of a rendering."""
    return [document for document in yaml.safe_load_all(rendered) if document]


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
