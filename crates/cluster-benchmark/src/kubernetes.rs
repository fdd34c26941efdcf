//! kubectl, bound to one kubeconfig: the operator's own context is never changed, and never taken
//! by accident once the cluster is ours.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    answer::{list_at, text_at},
    error::{Error, Result, file_error},
    limits::{DELETE_MAX, KUBECTL_APPLY_MAX, POD_LOG_BYTES_MAX},
    tools::{Invocation, Tools},
};

/// Namespace of agent, generator and collector.
pub const NAMESPACE: &str = "thyme-benchmark";

/// Namespace of Grafana and what is behind it.
pub const LGTM_NAMESPACE: &str = "lgtm";

/// Admin port of generators and collectors.
const ADMIN_PORT: u16 = 8080;

/// Port of the agents' own metrics.
const METRICS_PORT: u16 = 8888;

/// kubectl and the cluster that it talks to.
#[derive(Debug)]
pub struct Kubernetes<'a> {
    tools: &'a Tools,
    /// None: kubectl's own choice.
    kubeconfig: Option<PathBuf>,
}

/// A pod, as far as it is needed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Differs between a pod and the one that replaced it.
    pub uid: String,
    /// Label `app`.
    pub app: String,
    /// Where it runs; empty while it runs nowhere.
    pub node: String,
    /// `Running` and so on.
    pub phase: String,
    /// Whether it may be sent traffic.
    pub is_ready: bool,
    /// Restarts of all its containers.
    pub restarts: u64,
    /// It is on its way out.
    pub is_leaving: bool,
}

/// A node, as far as it is needed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name.
    pub name: String,
    /// Whether pods may run there.
    pub is_ready: bool,
    /// Label `node.kubernetes.io/instance-type`, if there is one.
    pub instance_type: String,
    /// Label `topology.kubernetes.io/zone`, if there is one.
    pub zone: String,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Value>,
}

impl<'a> Kubernetes<'a> {
    /// kubectl for the cluster that a kubeconfig names.
    pub fn new(tools: &'a Tools, kubeconfig: Option<PathBuf>) -> Self {
        Self { tools, kubeconfig }
    }

    fn kubectl(&self, arguments: &[&str]) -> Invocation {
        let kubeconfig = self.kubeconfig.as_ref().map(|path| path.display().to_string());
        let bound = kubeconfig.map(|path| ["--kubeconfig".to_owned(), path]);
        let own = arguments.iter().map(|&argument| argument.to_owned());
        Invocation::new("kubectl", bound.into_iter().flatten().chain(own))
    }

    /// Whether the cluster answers.
    ///
    /// # Errors
    /// It doesn't.
    pub fn server_version(&self) -> Result<String> {
        let version: Value = self.tools.json(&self.kubectl(&["version", "--output=json"]))?;
        Ok(text_at(&version, "/serverVersion/gitVersion"))
    }

    /// Applies a kustomization.
    ///
    /// # Errors
    /// As kubectl's.
    pub fn apply(&self, directory: &str) -> Result<()> {
        let apply = self.kubectl(&["apply", "-k", directory]).within(KUBECTL_APPLY_MAX);
        self.tools.run(&apply.shown()).map(drop)
    }

    /// Makes an object. No argument shows it, and, unlike after `apply`, no annotation repeats it.
    ///
    /// # Errors
    /// As kubectl's.
    pub fn create(&self, manifest: &Value) -> Result<()> {
        let create = self.kubectl(&["create", "-f", "-"]).input(manifest.to_string());
        self.tools.run(&create).map(drop)
    }

    /// Keeps what kubectl's current context says in a file of its own, so that another context
    /// chosen meanwhile changes nothing. The context's name.
    ///
    /// # Errors
    /// As kubectl's, or the file can't be written.
    pub fn pin_context(&mut self, path: &Path) -> Result<String> {
        let name = self.tools.text(&self.kubectl(&["config", "current-context"]))?;
        let view = self.kubectl(&["config", "view", "--minify", "--flatten", "--raw"]);
        let config = self.tools.run(&view)?;
        let full = self.tools.directory().join(path);
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600);
        let written = options.open(&full).and_then(|mut file| file.write_all(&config));
        written.map_err(file_error(full))?;
        self.kubeconfig = Some(path.to_owned());
        Ok(name)
    }

    /// Deletes a kustomization, and waits until it is gone.
    ///
    /// # Errors
    /// As kubectl's.
    pub fn delete(&self, directory: &str) -> Result<()> {
        let timeout = format!("--timeout={}s", DELETE_MAX.as_secs());
        let arguments = ["delete", "-k", directory, "--ignore-not-found", "--wait=true", &timeout];
        let delete = self.kubectl(&arguments).within(DELETE_MAX + Duration::from_secs(30));
        self.tools.run(&delete.shown()).map(drop)
    }

    /// Renders a kustomization.
    ///
    /// # Errors
    /// As kubectl's.
    pub fn render(&self, directory: &str) -> Result<Vec<u8>> {
        self.tools.run(&self.kubectl(&["kustomize", directory]))
    }

    /// Waits until all pods of a workload are those of its newest version, and ready.
    ///
    /// # Errors
    /// They aren't in time.
    pub fn rollout(&self, namespace: &str, workload: &str, within: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", within.as_secs());
        let arguments = ["rollout", "status", workload, "-n", namespace, &timeout];
        let rollout = self.kubectl(&arguments).within(within + Duration::from_secs(30));
        self.tools.run(&rollout.shown()).map(drop)
    }

    /// Changes the number of a deployment's pods.
    ///
    /// # Errors
    /// As kubectl's.
    pub fn scale(&self, deployment: &str, replicas: u64) -> Result<()> {
        let replicas = format!("--replicas={replicas}");
        let arguments = ["scale", "deployment", deployment, "-n", NAMESPACE, &replicas];
        self.tools.run(&self.kubectl(&arguments)).map(drop)
    }

    /// An object, or none.
    ///
    /// # Errors
    /// As kubectl's.
    pub fn find(&self, namespace: &str, kind: &str, name: &str) -> Result<Option<Value>> {
        let arguments = ["get", kind, name, "-n", namespace, "--ignore-not-found", "-o", "json"];
        let answer = self.tools.run(&self.kubectl(&arguments))?;
        if answer.trim_ascii().is_empty() {
            return Ok(None);
        }
        self.parse(&arguments, &answer).map(Some)
    }

    /// All pods of a namespace, or of all.
    ///
    /// # Errors
    /// As kubectl's.
    pub fn pods(&self, namespace: Option<&str>) -> Result<Vec<Pod>> {
        let place = namespace.map_or(vec!["-A"], |namespace| vec!["-n", namespace]);
        let arguments = [&["get", "pods"], place.as_slice(), &["-o", "json"]].concat();
        let list: List = self.tools.json(&self.kubectl(&arguments))?;
        Ok(list.items.iter().map(pod).collect())
    }

    /// The pods of the benchmark with one label `app`, in order of their names.
    ///
    /// # Errors
    /// As kubectl's.
    pub fn pods_of(&self, app: &str) -> Result<Vec<Pod>> {
        let mut pods = self.pods(Some(NAMESPACE))?;
        pods.retain(|pod| pod.app == app && !pod.is_leaving);
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(pods)
    }

    /// All nodes.
    ///
    /// # Errors
    /// As kubectl's.
    pub fn nodes(&self) -> Result<Vec<Node>> {
        let list: List = self.tools.json(&self.kubectl(&["get", "nodes", "-o", "json"]))?;
        Ok(list.items.iter().map(node).collect())
    }

    /// Asks the admin port of a generator or collector.
    ///
    /// # Errors
    /// As kubectl's.
    pub fn admin(&self, pod: &Pod, path: &str) -> Result<Vec<u8>> {
        self.raw(&pod_path(pod, ADMIN_PORT, path))
    }

    /// Asks for an agent's own metrics.
    ///
    /// # Errors
    /// As kubectl's.
    pub fn metrics(&self, pod: &Pod) -> Result<Vec<u8>> {
        self.raw(&pod_path(pod, METRICS_PORT, "metrics"))
    }

    /// Posts to the admin port of a generator or collector.
    ///
    /// # Errors
    /// As kubectl's.
    pub fn post(&self, pod: &Pod, path: &str) -> Result<()> {
        let path = pod_path(pod, ADMIN_PORT, path);
        self.tools.run(&self.kubectl(&["create", "--raw", &path, "-f", "/dev/null"])).map(drop)
    }

    /// Asks the API server for something as it is.
    ///
    /// # Errors
    /// As kubectl's.
    pub fn raw(&self, path: &str) -> Result<Vec<u8>> {
        self.tools.run(&self.kubectl(&["get", "--raw", path]))
    }

    /// The end of a pod's log.
    ///
    /// # Errors
    /// As kubectl's.
    pub fn log(&self, pod: &Pod) -> Result<Vec<u8>> {
        let limit = format!("--limit-bytes={POD_LOG_BYTES_MAX}");
        let arguments = [
            "logs",
            &pod.name,
            "-n",
            &pod.namespace,
            "--all-containers",
            "--prefix",
            "--tail=5000",
            &limit,
        ];
        self.tools.run(&self.kubectl(&arguments))
    }

    fn parse(&self, arguments: &[&str], answer: &[u8]) -> Result<Value> {
        serde_json::from_slice(answer).map_err(|error| Error::Answer {
            command: self.kubectl(arguments).line(),
            problem: error.to_string(),
        })
    }
}

/// A path of a pod's port, through the API server.
fn pod_path(pod: &Pod, port: u16, path: &str) -> String {
    let Pod { namespace, name, .. } = pod;
    format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/{path}")
}

fn has_condition(value: &Value, kind: &str) -> bool {
    list_at(value, "/status/conditions")
        .iter()
        .any(|one| text_at(one, "/type") == kind && text_at(one, "/status") == "True")
}

fn pod(value: &Value) -> Pod {
    let containers = list_at(value, "/status/containerStatuses").iter();
    Pod {
        namespace: text_at(value, "/metadata/namespace"),
        name: text_at(value, "/metadata/name"),
        uid: text_at(value, "/metadata/uid"),
        app: text_at(value, "/metadata/labels/app"),
        node: text_at(value, "/spec/nodeName"),
        phase: text_at(value, "/status/phase"),
        is_ready: has_condition(value, "Ready"),
        restarts: containers.filter_map(|one| one["restartCount"].as_u64()).sum(),
        is_leaving: value.pointer("/metadata/deletionTimestamp").is_some(),
    }
}

fn node(value: &Value) -> Node {
    let label = |name: &str| {
        value.pointer("/metadata/labels").map(|labels| labels[name].clone()).unwrap_or_default()
    };
    let label = |name: &str| label(name).as_str().unwrap_or_default().to_owned();
    Node {
        name: text_at(value, "/metadata/name"),
        is_ready: has_condition(value, "Ready"),
        instance_type: label("node.kubernetes.io/instance-type"),
        zone: label("topology.kubernetes.io/zone"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Scenario: a ready pod, and one that has just been made.
    /// Guarantees: what the checks need is read; what isn't there is empty, and never ready.
    #[test]
    fn pods_are_read() {
        let value = json!({
            "metadata": {"namespace": "n", "name": "a", "uid": "u", "labels": {"app": "thyme"}},
            "spec": {"nodeName": "x"},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"restartCount": 2}, {"restartCount": 1}],
            },
        });
        let found = pod(&value);
        assert_eq!((found.app.as_str(), found.restarts, found.is_ready), ("thyme", 3, true));
        let new = pod(&json!({"metadata": {"name": "b"}, "status": {"phase": "Pending"}}));
        assert_eq!((new.is_ready, new.node.as_str(), new.restarts), (false, "", 0));
    }

    /// Scenario: a node with the labels of a cloud, and one without any.
    /// Guarantees: type and zone, or nothing.
    #[test]
    fn nodes_are_read() {
        let labels = json!({
            "node.kubernetes.io/instance-type": "m6i.2xlarge",
            "topology.kubernetes.io/zone": "eu-central-1a",
        });
        let found = node(&json!({"metadata": {"name": "x", "labels": labels}}));
        assert_eq!(
            (found.instance_type.as_str(), found.zone.as_str()),
            ("m6i.2xlarge", "eu-central-1a")
        );
        assert!(!found.is_ready);
        assert_eq!(node(&json!({"metadata": {"name": "y"}})).zone, "");
    }
}
