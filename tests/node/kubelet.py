"""What a kubelet does for a pod, on a bare container runtime: containers from a manifest's pod template,
with its security contexts, and the rotation of their log files."""

import gzip
import os
import pathlib
import shutil
import threading
import time
import uuid

# What the kubelet hides from a container that is not privileged.
MASKED = ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
          "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def bytes_of(quantity):
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


def cpu_shares_of(quantity):
    milli = int(quantity[:-1]) if quantity.endswith("m") else int(float(quantity) * 1000)
    return max(2, milli * 1024 // 1000)


class Pod:
    """A pod of a template on the host's network: its sandbox, its containers, its log directory."""

    def __init__(self, node, name, template, files):
        self.node, self.name, self.files = node, name, files
        self.namespace = "thyme-benchmark"
        self.uid = str(uuid.uuid4())
        self.spec = template["spec"]
        self.logs = node.pods / f"{self.namespace}_{name}_{self.uid}"
        # As the kubelet makes it.
        self.logs.mkdir(mode=0o755, parents=True)
        self.containers = {}
        m = node.runtime.messages
        self.config = m.PodSandboxConfig(
            metadata=m.PodSandboxMetadata(name=name, uid=self.uid, namespace=self.namespace),
            log_directory=str(self.logs),
            linux=m.LinuxPodSandboxConfig(security_context=m.LinuxSandboxSecurityContext(
                namespace_options=m.NamespaceOption(network=m.NODE), seccomp=m.SecurityProfile())),
        )
        self.sandbox = node.runtime.run_pod(self.config)

    def start(self, container, args=None):
        """Starts one container of the template; `args` take the place of the template's."""
        m = self.node.runtime.messages
        name = container["name"]
        attempt = self.containers[name][1] + 1 if name in self.containers else 0
        (self.logs / name).mkdir(mode=0o755, exist_ok=True)
        config = m.ContainerConfig(
            metadata=m.ContainerMetadata(name=name, attempt=attempt),
            image=m.ImageSpec(image=container["image"]),
            args=args if args is not None else container.get("args", []),
            envs=self.environment(m, container),
            mounts=self.mounts(m, container),
            log_path=f"{name}/{attempt}.log",
            linux=m.LinuxContainerConfig(
                resources=self.resources(m, container), security_context=self.security(m, container)),
        )
        started = self.node.runtime.start_container(self.sandbox, self.config, config)
        self.containers[name] = (started, attempt)
        return started

    def environment(self, m, container):
        fields = {"metadata.name": self.name, "metadata.namespace": self.namespace, "spec.nodeName": "node"}
        values = {}
        for entry in container.get("env", []):
            value = entry.get("value")
            if value is None:
                value = fields[entry["valueFrom"]["fieldRef"]["fieldPath"]]
            for known, text in values.items():
                value = value.replace(f"$({known})", text)
            values[entry["name"]] = value
        return [m.KeyValue(key=key, value=value) for key, value in values.items()]

    def mounts(self, m, container):
        hosts = m.Mount(container_path="/etc/hosts", host_path=str(self.node.hosts), readonly=True)
        found = [hosts]
        for mount in container.get("volumeMounts", []):
            found.append(m.Mount(container_path=mount["mountPath"], host_path=str(self.files[mount["name"]]),
                                 readonly=mount.get("readOnly", False)))
        return found

    def resources(self, m, container):
        resources = container["resources"]
        return m.LinuxContainerResources(
            cpu_shares=cpu_shares_of(resources["requests"]["cpu"]),
            memory_limit_in_bytes=bytes_of(resources["limits"]["memory"]))

    def security(self, m, container):
        context = container["securityContext"]
        capabilities = context.get("capabilities", {})
        if context["runAsNonRoot"] and context["runAsUser"] == 0:
            raise ValueError(f"{container['name']}: runAsNonRoot with UID 0")
        return m.LinuxContainerSecurityContext(
            capabilities=m.Capability(add_capabilities=capabilities.get("add", []),
                                      drop_capabilities=capabilities.get("drop", [])),
            namespace_options=m.NamespaceOption(network=m.NODE),
            run_as_user=m.Int64Value(value=context["runAsUser"]),
            run_as_group=m.Int64Value(value=context["runAsGroup"]),
            readonly_rootfs=context["readOnlyRootFilesystem"],
            no_new_privs=not context["allowPrivilegeEscalation"],
            masked_paths=MASKED, readonly_paths=READ_ONLY,
            seccomp=m.SecurityProfile(),
        )

    def log(self, name):
        """What a container has said, without the runtime's prefix; of its live file only."""
        container, attempt = self.containers[name]
        lines = (self.logs / name / f"{attempt}.log").read_text(errors="replace").splitlines()
        return "\n".join(line.split(" ", 3)[-1] for line in lines)

    def remove(self):
        """The pod goes as a deleted one does: containers first, then its log directory."""
        self.node.runtime.remove_pod(self.sandbox)
        shutil.rmtree(self.logs)


class Node:
    """A runtime, where its pods' logs lie, and the names that all of them know."""

    def __init__(self, runtime, work, names):
        self.runtime = runtime
        self.pods = pathlib.Path(work) / "pods"
        self.pods.mkdir(parents=True)
        self.hosts = pathlib.Path(work) / "hosts"
        lines = ["127.0.0.1 localhost"] + [f"{address} {name}" for address, name in names]
        self.hosts.write_text("\n".join(lines) + "\n")


class Rotation(threading.Thread):
    """Rotates log files in the kubelet's own order of steps, until it is stopped."""

    FILES_MAX = 5
    PERIOD_SECONDS = 3

    def __init__(self, runtime, size_max):
        super().__init__(daemon=True)
        self.runtime, self.size_max = runtime, size_max
        self.watched = {}
        self.rotated, self.compressed, self.removed = 0, 0, 0
        self.error = None
        self.ended = threading.Event()

    def watch(self, pod, name):
        container, attempt = pod.containers[name]
        self.watched[container] = pod.logs / name / f"{attempt}.log"

    def stop(self):
        self.ended.set()
        if self.is_alive():
            self.join()

    def run(self):
        while not self.ended.wait(self.PERIOD_SECONDS):
            for container, log in list(self.watched.items()):
                try:
                    if log.stat().st_size >= self.size_max:
                        self.rotate(container, log)
                except Exception as error:
                    self.error = error
                    return

    def rotate(self, container, log):
        archives = sorted(log.parent.glob(f"{log.name}.*"))
        for archive in archives[: max(0, len(archives) - (self.FILES_MAX - 2))]:
            archive.unlink()
            self.removed += 1
        for archive in log.parent.glob(f"{log.name}.*"):
            if archive.suffix != ".gz":
                self.compress(archive)
        log.rename(log.with_name(time.strftime(f"{log.name}.%Y%m%d-%H%M%S", time.gmtime())))
        self.runtime.reopen_log(container)
        self.rotated += 1

    def compress(self, archive):
        unfinished = archive.with_name(f"{archive.name}.tmp")
        with open(archive, "rb") as plain, gzip.open(unfinished, "wb", compresslevel=1) as packed:
            shutil.copyfileobj(plain, packed)
        os.rename(unfinished, archive.with_name(f"{archive.name}.gz"))
        archive.unlink()
        self.compressed += 1
