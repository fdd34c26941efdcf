//! Where each key of a configuration was written: what the start finds wrong is told at its line.

use std::collections::BTreeMap;

use super::{
    document::{Node, Value},
    error::Problem,
};

/// The file of a configuration, and the lines of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    file: String,
    /// By the key with all those above it, as [`Problem::key`] has it.
    lines: BTreeMap<String, u64>,
}

impl Origin {
    pub(super) fn new(file: &str, root: &Node) -> Self {
        let mut lines = BTreeMap::new();
        note(root, "", &mut lines);
        Self { file: file.to_owned(), lines }
    }

    /// What is wrong with `key`, at its line.
    pub fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        let (file, line) = (self.file.clone(), self.line(key));
        Problem { file, line, key: key.to_owned(), message: message.into() }
    }

    /// Line of a key, from 1: if it was not written, that of the section above.
    pub(super) fn line(&self, key: &str) -> u64 {
        let mut place = key;
        loop {
            match self.lines.get(place) {
                Some(line) => return *line,
                None if place.is_empty() => return 1,
                None => place = place.rsplit_once("::").map_or("", |(above, _)| above),
            }
        }
    }
}

fn note(node: &Node, path: &str, lines: &mut BTreeMap<String, u64>) {
    lines.insert(path.to_owned(), node.line);
    match &node.value {
        Value::Map(entries) => {
            for (key, child) in entries {
                let path = if path.is_empty() { key.clone() } else { format!("{path}::{key}") };
                note(child, &path, lines);
            }
        }
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                note(item, &format!("{path}[{index}]"), lines);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document;

    /// Scenario: a key that stands in the file, one in a list, and one that only has a default.
    /// Guarantees: each is told at its line, the last at that of the section it would stand in.
    #[test]
    fn a_key_without_a_line_is_told_at_its_section() {
        let text = "a:\n  b:\n    c: 1\nl:\n  - x\n  - y: 2\n";
        let origin = Origin::new("f.yaml", &document::parse(text).unwrap());
        let told = |key: &str| origin.problem(key, "no").to_string();
        assert_eq!(told("a::b::c"), "f.yaml:3: a::b::c: no");
        assert_eq!(told("a::b::d::e"), "f.yaml:2: a::b::d::e: no");
        assert_eq!(told("l[1]::y"), "f.yaml:6: l[1]::y: no");
        assert_eq!(told("z"), "f.yaml:1: z: no");
    }
}
