//! The resource of the agent's own metrics: who is speaking.

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

/// The agent's own attributes, changed by what is configured: a value replaces one of them or is
/// added, no value takes one away.
pub(super) fn resource(configured: &[(String, Option<String>)]) -> Resource {
    let own = [
        ("service.name", env!("CARGO_PKG_NAME").to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", instance_id()),
    ];
    let kept = own
        .into_iter()
        .filter(|(name, _)| configured.iter().all(|(other, _)| other != name))
        .map(|(name, value)| KeyValue::new(name, value));
    let added = configured
        .iter()
        .filter_map(|(name, value)| Some(KeyValue::new(name.clone(), value.clone()?)));
    Resource::builder_empty().with_attributes(kept.chain(added)).build()
}

/// A random UUID of the kernel's, new with each start; the process id where there is none.
fn instance_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_or_else(|_| std::process::id().to_string(), |uuid| uuid.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::Key;

    /// Scenario: one attribute replaced, one taken away, one added.
    /// Guarantees: the resource has exactly the others and those.
    #[test]
    fn configured_attributes_win() {
        let configured = [
            ("service.name".to_owned(), Some("mine".to_owned())),
            ("service.version".to_owned(), None),
            ("k8s.node.name".to_owned(), Some("n1".to_owned())),
        ];
        let resource = resource(&configured);
        let get = |name| resource.get(&Key::from_static_str(name)).map(|value| value.to_string());
        assert_eq!(get("service.name").as_deref(), Some("mine"));
        assert_eq!(get("service.version"), None);
        assert_eq!(get("k8s.node.name").as_deref(), Some("n1"));
        assert_eq!(get("service.instance.id").map(|id| id.len()), Some(36));
        assert_eq!(resource.len(), 3);
    }
}
