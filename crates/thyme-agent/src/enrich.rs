//! What a file's path says about its container, as an encoded `Resource` made once a container.
//! It must not be asked per line.

use std::path::Path;

use thyme_core::otlp::encode::{Value, put_resource_attribute};

/// The container that a path under `/var/log/pods` names:
/// `<namespace>_<pod>_<uid>/<container>/<restart>.log` (kubernetes/kubernetes,
/// `pkg/kubelet/kuberuntime/helpers.go`, `BuildPodLogsDirectory`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMetadata<'a> {
    /// `k8s.namespace.name`.
    pub namespace: &'a str,
    /// `k8s.pod.name`.
    pub pod: &'a str,
    /// `k8s.pod.uid`.
    pub uid: &'a str,
    /// `k8s.container.name`.
    pub container: &'a str,
    /// `k8s.container.restart_count`, digits.
    pub restart_count: &'a str,
}

impl<'a> PathMetadata<'a> {
    /// Reads the path of a live file; `None` when it isn't laid out as the kubelet does.
    pub fn from_path(path: &'a Path) -> Option<Self> {
        let mut parts = path.iter().rev().map(|part| part.to_str());
        let (file, container, pod_directory) = (parts.next()??, parts.next()??, parts.next()??);
        let restart_count = file.strip_suffix(".log")?;
        let mut names = pod_directory.split('_');
        let (namespace, pod, uid) = (names.next()?, names.next()?, names.next()?);
        let valid = names.next().is_none()
            && is_dns_label(namespace)
            && is_dns_subdomain(pod)
            && is_dns_label(container)
            && is_uid(uid)
            && is_number(restart_count);
        valid.then_some(Self { namespace, pod, uid, container, restart_count })
    }

    /// The content of a `Resource` with the container operator's attributes. Like the operator's,
    /// the restart count is a string, so that what reads the Collector's records reads ours.
    pub fn encode_resource(&self) -> Vec<u8> {
        let mut resource = Vec::new();
        for (key, value) in [
            ("k8s.namespace.name", self.namespace),
            ("k8s.pod.name", self.pod),
            ("k8s.pod.uid", self.uid),
            ("k8s.container.name", self.container),
            ("k8s.container.restart_count", self.restart_count),
        ] {
            put_resource_attribute(&mut resource, key, Value::Text(value));
        }
        resource
    }
}

/// Whether it may be the name of a namespace or a container: an RFC 1123 label.
fn is_dns_label(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(is_inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Whether it may be the name of a pod: an RFC 1123 subdomain.
fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_label)
}

/// A UUID, or the hash that the kubelet gives a static pod. Other kubelets' may hold any letter.
fn is_uid(uid: &str) -> bool {
    (1..=63).contains(&uid.len())
        && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_number(text: &str) -> bool {
    (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: paths of regular and static pods, and paths that only look alike.
    /// Guarantees: a container is named only where the kubelet's grammar holds.
    #[test]
    fn paths_are_read_strictly() {
        let read = |path: &'static str| PathMetadata::from_path(Path::new(path));
        let found = read("/var/log/pods/kube-system_dns-1.a_0123-ab/core-dns/12.log").unwrap();
        assert_eq!(
            found,
            PathMetadata {
                namespace: "kube-system",
                pod: "dns-1.a",
                uid: "0123-ab",
                container: "core-dns",
                restart_count: "12",
            }
        );
        for path in [
            "0.log",
            "/var/log/pods/a_b_c/0.log",
            "/var/log/pods/a_b/c/0.log",
            "/var/log/pods/a_b_c_d/c/0.log",
            "/var/log/pods/a_b_c/c/x.log",
            "/var/log/pods/a_b_c/c/0.log.gz",
            "/var/log/pods/A_b_c/c/0.log",
            "/var/log/pods/a_b_c /c/0.log",
            "/var/log/pods/a__c/c/0.log",
            "/var/log/pods/a_._c/c/0.log",
            "/var/log/pods/a_b..d_c/c/0.log",
            "/var/log/pods/a.b_c_d/c/0.log",
            "/var/log/pods/-a_b_c/c/0.log",
            "/var/log/pods/a_b_c/c-/0.log",
            "/var/log/pods/a_b_c/../0.log",
        ] {
            assert_eq!(read(path), None, "{path}");
        }
    }
}
