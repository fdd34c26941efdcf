"""A containerd of the test's own, and the calls of its CRI: its data, sockets and mounts lie apart from
those of any other containerd on the machine, and all of them are gone after `Containerd.stop`."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import grpc
import grpc_tools

HERE = pathlib.Path(__file__).resolve().parent
# Short: the path of a socket has at most 107 bytes.
STATE = pathlib.Path("/run/thyme-node")
SOCKET = STATE / "containerd.sock"
PAUSE = "localhost/thyme-node/pause:1"

CONFIG = """\
version = 2
root = "{root}"
state = "{state}"

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Lowering a process's OOM score needs a privilege that a sandbox may lack.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_bin}"
    conf_dir = "{cni_conf}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def load_interface():
    """Compiles cri.proto and imports the result: messages and stubs."""
    out = tempfile.mkdtemp(prefix="thyme-cri-")
    include = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}", f"-I{include}",
         f"--python_out={out}", f"--grpc_python_out={out}", "cri.proto"],
        check=True,
    )
    sys.path.insert(0, out)
    try:
        import cri_pb2
        import cri_pb2_grpc
    finally:
        shutil.rmtree(out)
        sys.path.remove(out)
    return cri_pb2, cri_pb2_grpc


def processes_naming(text):
    """Numbers of the processes whose command line has `text`: what an earlier run may have left."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(int(entry.name))
    return found


def unmount_below(*roots):
    """Unmounts everything below the directories, deepest first."""
    points = []
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].replace("\\040", " ")
        if any(point == str(root) or point.startswith(f"{root}/") for root in roots):
            points.append(point)
    for point in sorted(points, key=len, reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, stderr=subprocess.DEVNULL)


def remove_empty_groups():
    """Control groups that pods leave behind: one that is in use can't be removed."""
    for group in [*pathlib.Path("/sys/fs/cgroup").glob("k8s.io"), *pathlib.Path("/sys/fs/cgroup").glob("*/k8s.io")]:
        for directory, _, _ in os.walk(group, topdown=False):
            try:
                os.rmdir(directory)
            except OSError:
                pass


class Containerd:
    """The process and its data, in `work`/containerd."""

    def __init__(self, work, cni_conf="/nonexistent", cni_bin="/usr/lib/cni"):
        self.work = pathlib.Path(work).resolve()
        self.root = self.work / "containerd"
        self.cni = (str(cni_conf), str(cni_bin))
        self.process = None

    def start(self, images):
        """Starts it and loads the image archives `images`."""
        self.clean_up()
        STATE.mkdir(parents=True)
        self.root.mkdir(parents=True)
        config = self.work / "containerd.toml"
        config.write_text(CONFIG.format(
            root=self.root, state=STATE / "state", socket=SOCKET, pause=PAUSE,
            cni_conf=self.cni[0], cni_bin=self.cni[1]))
        log = open(self.work / "containerd.log", "wb")
        # A session of its own, so that Ctrl-C reaches the test alone, which then stops everything in order.
        self.process = subprocess.Popen(
            ["containerd", "--config", str(config)], stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 30
        while subprocess.run([*self.ctr, "version"], capture_output=True).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"containerd does not start; see {log.name}")
            time.sleep(0.2)
        for image in images:
            subprocess.run([*self.ctr, "--namespace", "k8s.io", "images", "import", str(image)],
                           check=True, stdout=subprocess.DEVNULL)

    @property
    def ctr(self):
        return ["ctr", "--address", str(SOCKET)]

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        self.clean_up()

    def clean_up(self):
        """Ends what belongs to our socket, and removes mounts and data, also those of an earlier run."""
        for pid in processes_naming(str(SOCKET)) + processes_naming(str(self.work / "containerd.toml")):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        deadline = time.monotonic() + 10
        while processes_naming(str(SOCKET)) and time.monotonic() < deadline:
            time.sleep(0.1)
        unmount_below(STATE, self.root)
        shutil.rmtree(STATE, ignore_errors=True)
        shutil.rmtree(self.root, ignore_errors=True)
        remove_empty_groups()


class Runtime:
    """The calls of the CRI that the test makes."""

    def __init__(self):
        self.messages, stubs = load_interface()
        channel = grpc.insecure_channel(f"unix://{SOCKET}")
        self.calls = stubs.RuntimeServiceStub(channel)

    def version(self):
        said = self.calls.Version(self.messages.VersionRequest())
        return f"{said.runtime_name} {said.runtime_version}"

    def run_pod(self, config):
        request = self.messages.RunPodSandboxRequest(config=config)
        return self.calls.RunPodSandbox(request, timeout=60).pod_sandbox_id

    def start_container(self, sandbox, sandbox_config, config):
        request = self.messages.CreateContainerRequest(
            pod_sandbox_id=sandbox, config=config, sandbox_config=sandbox_config)
        container = self.calls.CreateContainer(request, timeout=60).container_id
        self.calls.StartContainer(self.messages.ContainerRequest(container_id=container), timeout=60)
        return container

    def stop_container(self, container, grace_seconds):
        """SIGTERM, and SIGKILL when the grace period is over. Returns the seconds it took."""
        begin = time.monotonic()
        self.calls.StopContainer(
            self.messages.StopContainerRequest(container_id=container, timeout=grace_seconds),
            timeout=grace_seconds + 30)
        return time.monotonic() - begin

    def status(self, container):
        request = self.messages.ContainerStatusRequest(container_id=container, verbose=True)
        return self.calls.ContainerStatus(request, timeout=20)

    def exit_code(self, container, within_seconds):
        """Waits until the container has ended."""
        deadline = time.monotonic() + within_seconds
        while time.monotonic() < deadline:
            status = self.status(container).status
            if status.state == self.messages.CONTAINER_EXITED:
                return status.exit_code
            time.sleep(0.1)
        raise TimeoutError(f"container {container[:12]} still runs after {within_seconds} s")

    def process_number(self, container):
        return json.loads(self.status(container).info["info"])["pid"]

    def reopen_log(self, container):
        self.calls.ReopenContainerLog(self.messages.ContainerRequest(container_id=container), timeout=20)

    def remove_pod(self, sandbox):
        request = self.messages.PodSandboxRequest(pod_sandbox_id=sandbox)
        self.calls.StopPodSandbox(request, timeout=60)
        self.calls.RemovePodSandbox(request, timeout=60)

    def remove_all(self):
        for pod in self.calls.ListPodSandbox(self.messages.Nothing(), timeout=20).items:
            self.remove_pod(pod.id)
