"""A Kubernetes node with its control plane, as processes of this machine, in the namespaces that `run` made:
etcd, API server, controllers, scheduler, kubelet, kube-proxy and kube-router's firewall over a containerd;
CoreDNS in a pod."""

import json
import os
import pathlib
import secrets
import subprocess
import time

import containerd

NAME = "node-1"
ADDRESS = "10.245.0.1"
PODS = "10.244.0.0/24"
GATEWAY = "10.244.0.1"
API = f"https://{ADDRESS}:6443"
PROXY = "http://127.0.0.1:8001"
LOG_SIZE_MAX = "2Mi"

NETWORK = {
    "cniVersion": "0.4.0",
    "name": "thyme",
    "plugins": [
        {"type": "bridge", "bridge": "thyme0", "isGateway": True, "ipMasq": False, "hairpinMode": True,
         "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS, "gateway": GATEWAY}]],
                  "dataDir": "/run/thyme-cni", "routes": [{"dst": "0.0.0.0/0"}]}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}

KUBELET = f"""\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {ADDRESS}
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
cgroupDriver: cgroupfs
failCgroupV1: false
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://{containerd.SOCKET}
# Every few seconds under load; the nodes on AWS have 100Mi.
containerLogMaxSize: {LOG_SIZE_MAX}
containerLogMaxFiles: 5
containerLogMaxWorkers: 2
containerLogMonitorInterval: 3s
evictionHard: {{memory.available: 100Mi}}
# Images come from archives, once: on a disk that is nearly full the kubelet would remove what it can't pull.
imageGCHighThresholdPercent: 100
failSwapOn: false
maxOpenFiles: 20000
oomScoreAdj: 0
registerNode: true
resolvConf: /etc/resolv.conf
"""

class Node:
    def __init__(self, work, programs, images):
        self.work = work
        self.programs, self.images = programs, images
        self.tokens = {}
        self.processes = {}
        self.containerd = containerd.Containerd(work, cni_conf=work / "cni")

    # --- What all of them need ----------------------------------------------------------------------

    def run(self, *words, **options):
        return subprocess.run(words, check=True, capture_output=True, text=True, **options).stdout

    def kubectl(self, *words, **options):
        kubeconfig = str(self.work / "admin.kubeconfig")
        return self.run("kubectl", "--kubeconfig", kubeconfig, *words, **options)

    def prepare_host(self):
        """Network, directories of our own over the host's, and credentials."""
        # Nothing mounted here may reach the host; what pods mount must reach their containers.
        self.run("mount", "--make-rslave", "/")
        self.run("mount", "--make-rshared", "/")
        self.run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
        # The kubelet's and the pods' directories: log files, state, plugins. All begin empty.
        for path in ("/var/log", "/var/lib"):
            own = self.work / "host" / path.lstrip("/")
            own.mkdir(parents=True)
            self.run("mount", "--bind", str(own), path)
        self.run("ip", "link", "set", "lo", "up")
        # One end of a cable; not every kernel has dummy interfaces.
        self.run("ip", "link", "add", "thyme-node", "type", "veth", "peer", "name", "thyme-node-peer")
        self.run("ip", "link", "set", "thyme-node-peer", "up")
        self.run("ip", "address", "add", f"{ADDRESS}/32", "dev", "thyme-node")
        self.run("ip", "link", "set", "thyme-node", "up")
        # kube-proxy and the API server look for a way out. There is none: the interface leads nowhere.
        self.run("ip", "route", "add", "default", "dev", "thyme-node")
        self.run("ip", "link", "add", "thyme0", "type", "bridge")
        self.run("ip", "address", "add", f"{GATEWAY}/24", "dev", "thyme0")
        self.run("ip", "link", "set", "thyme0", "up")
        pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        # What goes from pod to pod over the bridge passes the firewall as well.
        pathlib.Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text("1")
        (self.work / "cni").mkdir()
        (self.work / "cni" / "10-thyme.conflist").write_text(json.dumps(NETWORK))
        self.run("openssl", "genrsa", "-out", str(self.work / "accounts.key"), "2048")
        self.certificates()
        self.credentials()

    def certificates(self):
        """The API server's own certificate is the root that pods trust."""
        names = f"subjectAltName=IP:{ADDRESS},IP:127.0.0.1,IP:10.96.0.1,DNS:kubernetes.default.svc"
        self.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=thyme-node",
                 "-addext", names, "-keyout", str(self.work / "api.key"), "-out", str(self.work / "api.crt"))

    def credentials(self):
        """A token each, and a kubeconfig with it."""
        users = {"admin": "system:masters", f"system:node:{NAME}": "system:nodes",
                 "system:kube-controller-manager": "", "system:kube-scheduler": "", "system:kube-proxy": "",
                 "kube-router": "system:masters"}
        lines = []
        for number, (user, group) in enumerate(users.items()):
            token = secrets.token_hex(16)
            lines.append(f'{token},{user},{number},"{group}"')
            short = user.split(":")[1] if ":" in user else user
            config = {
                "apiVersion": "v1", "kind": "Config", "current-context": "node",
                "clusters": [{"name": "node", "cluster": {
                    "server": API, "certificate-authority": str(self.work / "api.crt")}}],
                "users": [{"name": user, "user": {"token": token}}],
                "contexts": [{"name": "node", "context": {"cluster": "node", "user": user}}],
            }
            (self.work / f"{short}.kubeconfig").write_text(json.dumps(config))
        (self.work / "tokens.csv").write_text("\n".join(lines) + "\n")

    # --- Processes ----------------------------------------------------------------------------------

    def spawn(self, name, *words):
        log = open(self.work / f"{name}.log", "ab")
        self.processes[name] = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)

    def spawn_apart(self, name, *words):
        """A process whose end is no fault."""
        log = open(self.work / f"{name}.log", "ab")
        subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)

    def component(self, name, *arguments):
        self.spawn(name, str(self.programs / "node"), name, *arguments)

    def alive(self):
        for name, process in self.processes.items():
            if process.poll() is not None:
                tail = (self.work / f"{name}.log").read_text(errors="replace").splitlines()[-5:]
                raise RuntimeError(f"{name} ended with {process.returncode}: " + " | ".join(tail))

    def wait(self, what, condition, within_seconds):
        deadline = time.monotonic() + within_seconds
        last = None
        while time.monotonic() < deadline:
            self.alive()
            try:
                last = condition()
                if last:
                    return last
            except (subprocess.CalledProcessError, OSError, ValueError) as error:
                last = getattr(error, "stderr", None) or error
            time.sleep(0.5)
        raise TimeoutError(f"{what}: not within {within_seconds} s; last: {last}")

    def config(self, user):
        return str(self.work / f"{user}.kubeconfig")

    def start(self):
        self.prepare_host()
        w = self.work
        self.component("etcd", "--data-dir", str(w / "etcd"), "--log-level", "warn", "--unsafe-no-fsync",
                       "--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls",
                       "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380")
        self.component("kube-apiserver", "--etcd-servers", "http://127.0.0.1:2379",
                       "--advertise-address", ADDRESS, "--secure-port", "6443",
                       "--tls-cert-file", str(w / "api.crt"), "--tls-private-key-file", str(w / "api.key"),
                       "--service-cluster-ip-range", "10.96.0.0/16", "--token-auth-file", str(w / "tokens.csv"),
                       "--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
                       "--service-account-issuer", "https://kubernetes.default.svc",
                       "--service-account-key-file", str(w / "accounts.key"),
                       "--service-account-signing-key-file", str(w / "accounts.key"),
                       "--kubelet-preferred-address-types", "InternalIP")
        self.wait("the API server is ready", lambda: self.kubectl("get", "--raw", "/readyz") == "ok", 120)
        self.component("kube-controller-manager", "--kubeconfig", self.config("kube-controller-manager"),
                       "--use-service-account-credentials", "--service-account-private-key-file",
                       str(w / "accounts.key"), "--root-ca-file", str(w / "api.crt"), "--leader-elect=false")
        self.component("kube-scheduler", "--kubeconfig", self.config("kube-scheduler"), "--leader-elect=false")
        self.containerd.start(self.images)
        (w / "kubelet.yaml").write_text(KUBELET)
        self.component("kubelet", "--config", str(w / "kubelet.yaml"), "--kubeconfig", self.config("node"),
                       "--hostname-override", NAME, "--node-ip", ADDRESS, "--root-dir", str(w / "kubelet"))
        self.component("kube-proxy", "--kubeconfig", self.config("kube-proxy"), "--hostname-override", NAME,
                       "--cluster-cidr", PODS, "--proxy-mode", "iptables", "--conntrack-max-per-core", "0",
                       "--conntrack-tcp-timeout-established", "0s", "--conntrack-tcp-timeout-close-wait", "0s")
        self.spawn("kubectl-proxy", "kubectl", "--kubeconfig", self.config("admin"), "proxy", "--port", "8001",
                   "--reject-methods", "^$", "--reject-paths", "^$")
        self.wait("the node is ready", self.is_ready, 120)
        # The firewall alone: services are kube-proxy's, routes are the bridge's.
        self.spawn("kube-router", "env", f"NODE_NAME={NAME}", str(self.programs / "kube-router"),
                   "--kubeconfig", self.config("kube-router"), "--hostname-override", NAME, "--run-firewall=true",
                   "--run-router=false", "--run-service-proxy=false", "--service-cluster-ip-range", "10.96.0.0/16")
        self.kubectl("apply", "-f", str(pathlib.Path(__file__).with_name("dns.yaml")))
        self.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")

    def is_ready(self):
        node = json.loads(self.kubectl("get", "node", NAME, "-o", "json"))
        return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])

    def stop(self):
        """In order, so that pods end before the runtime does. What is left goes with the namespaces."""
        for name in reversed(list(self.processes)):
            process = self.processes[name]
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()
        if self.containerd.process is not None:
            try:
                containerd.Runtime().remove_all()
            except Exception as error:
                print(f"     pods were not removed: {error}", flush=True)
            self.containerd.stop()
        containerd.unmount_below(self.work)
        os.sync()
