//! The kubelet's names: `<namespace>_<pod>_<uid>/<container>/<restart>.log`, made from the seed.

use std::path::{Path, PathBuf};

use crate::line::prng::Prng;

/// Name of the live file: the container was never restarted.
pub const LIVE_FILE: &str = "0.log";

/// Name of the one container of a pod.
pub const CONTAINER: &str = "app";

/// Path of the live log file of pod number `index`.
pub fn live_path(root: &Path, namespace: &str, seed: u64, index: u32) -> PathBuf {
    let deployment = Prng::new(seed, u64::from_be_bytes(*b"deploys.")).bits() & 0xff_ffff;
    let mut random = Prng::new(seed, u64::from_be_bytes(*b"pod.uids") ^ u64::from(index));
    let pod = format!("app-{deployment:06x}-{index:03}");
    root.join(format!("{namespace}_{pod}_{}", uid(&mut random))).join(CONTAINER).join(LIVE_FILE)
}

/// Paths of the live log files of all pods, below their root.
pub fn relative_paths(namespace: &str, seed: u64, pods: u32) -> Vec<String> {
    let path = |index| live_path(Path::new(""), namespace, seed, index);
    (0..pods).map(|index| path(index).to_string_lossy().into_owned()).collect()
}

/// A version 4 UUID, as Kubernetes gives its pods.
fn uid(random: &mut Prng) -> String {
    let (high, low) = (random.bits(), random.bits());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        0x8000 | low >> 48 & 0x3fff,
        low & 0xffff_ffff_ffff,
    )
}

/// Whether a namespace is one label of DNS, as Kubernetes wants it.
pub fn is_namespace(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the paths of some pods of two seeds.
    /// Guarantees: the kubelet's layout with a real UUID, the same for the same seed only.
    #[test]
    fn paths() {
        let path = live_path(Path::new("/logs"), "load", 1, 7);
        assert_eq!(path, live_path(Path::new("/logs"), "load", 1, 7));
        let text = path.to_str().unwrap();
        let pod = text.strip_prefix("/logs/load_app-").unwrap();
        let (pod, rest) = pod.split_once('_').unwrap();
        assert!(pod.len() == 10 && pod.ends_with("-007"), "{text}");
        let (uid, file) = rest.split_once('/').unwrap();
        assert_eq!(file, "app/0.log");
        let groups: Vec<usize> = uid.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12]);
        assert!(uid.as_bytes()[14] == b'4' && b"89ab".contains(&uid.as_bytes()[19]));
        for (seed, index) in [(1, 8), (2, 7)] {
            assert_ne!(path, live_path(Path::new("/logs"), "load", seed, index));
        }
    }

    /// Scenario: namespaces, good and bad.
    /// Guarantees: what would break the directory's name is refused.
    #[test]
    fn namespaces() {
        assert!(is_namespace("load") && is_namespace("a-1"));
        for name in ["", "a_b", "A", "a/b", "-a", "a-", &"a".repeat(64)] {
            assert!(!is_namespace(name), "{name}");
        }
    }
}
