//! What a file's path says about its container, as an encoded `Resource` made once a container.
//! It must not be asked per line.

use std::{ffi::OsStr, path::Path};

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
            && is_label(namespace, LABEL_BYTES_MAX)
            && is_pod_name(pod)
            && is_label(container, LABEL_BYTES_MAX)
            && is_uid(uid)
            && is_number(restart_count);
        valid.then_some(Self { namespace, pod, uid, container, restart_count })
    }

    /// Whether a path looks as if the kubelet had made it: `<a>_<b>_<c>/<d>/<number>.log`. One that does
    /// and is refused all the same has a name that Kubernetes, as far as we know, doesn't allow.
    pub fn has_shape(path: &Path) -> bool {
        let mut parts = path.iter().rev().map(OsStr::as_encoded_bytes);
        let (file, pod_directory) = (parts.next(), parts.nth(1));
        let restart_count = file.and_then(|file| file.strip_suffix(b".log"));
        restart_count.is_some_and(|text| !text.is_empty() && text.iter().all(u8::is_ascii_digit))
            && pod_directory
                .is_some_and(|pod| pod.iter().filter(|byte| **byte == b'_').count() >= 2)
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

/// Longest name of a namespace or a container (RFC 1123, a label).
const LABEL_BYTES_MAX: usize = 63;

/// Longest name of a pod (RFC 1123, a subdomain).
const POD_NAME_BYTES_MAX: usize = 253;

/// Whether it is of small letters, digits and hyphens, the latter only between the others.
fn is_label(name: &str, bytes_max: usize) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=bytes_max).contains(&name.len())
        && name.bytes().all(is_inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Whether it may be the name of a pod. Kubernetes limits the whole of it, not its labels
/// (kubernetes/kubernetes, `IsDNS1123Subdomain`): a static pod's ends with the name of its node.
fn is_pod_name(name: &str) -> bool {
    name.len() <= POD_NAME_BYTES_MAX
        && name.split('.').all(|label| is_label(label, POD_NAME_BYTES_MAX))
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

    /// Scenario: names of the greatest lengths that Kubernetes allows, and one byte more: namespaces and
    /// containers of 63, pods of 253 with labels of any length, the hash of a static pod as its UID.
    /// Guarantees: what Kubernetes allows is read; what it doesn't has the shape all the same.
    #[test]
    fn a_pods_labels_may_be_long() {
        let hash = "0123456789abcdef0123456789abcdef";
        let (label, pod) = ("a".repeat(63), "b".repeat(253));
        let dotted = format!("{}.{}", "c".repeat(200), "d".repeat(52));
        let static_pod = format!("kube-apiserver-{}", "n".repeat(49));
        let path = |namespace: &str, pod: &str, container: &str| {
            format!("/var/log/pods/{namespace}_{pod}_{hash}/{container}/0.log")
        };
        for (namespace, pod, container) in [
            ("kube-system", &*static_pod, "c"),
            ("ns", &*pod, "c"),
            ("ns", &*dotted, "c"),
            (&*label, "p", &*label),
        ] {
            let path = path(namespace, pod, container);
            let found =
                PathMetadata::from_path(Path::new(&path)).unwrap_or_else(|| panic!("{path}"));
            assert_eq!((found.namespace, found.pod, found.uid), (namespace, pod, hash));
            assert_eq!(found.container, container);
        }
        for path in [
            path(&"a".repeat(64), "p", "c"),
            path("ns", &"b".repeat(254), "c"),
            path("ns", "p", &"a".repeat(64)),
            path("ns", "Pod", "c"),
            path("ns", "a_b", "c"),
            path("ns", "-p", "c"),
        ] {
            assert_eq!(PathMetadata::from_path(Path::new(&path)), None, "{path}");
            assert!(PathMetadata::has_shape(Path::new(&path)), "{path}");
        }
        for path in ["/var/log/app.log", "/var/log/a_b_c/d/x.log", "/a_b/c/0.log", "0.log"] {
            assert!(!PathMetadata::has_shape(Path::new(path)), "{path}");
        }
    }
}
