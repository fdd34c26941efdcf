//! The rules for documents: a command that a reader is told to type must exist, and so must a file
//! that they are sent to.

use crate::rules::Finding;
use std::{collections::BTreeSet, path::Path};

/// Targets of a Makefile.
pub fn make_targets(makefile: &str) -> BTreeSet<&str> {
    makefile
        .lines()
        .filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()))
        .filter_map(|line| line.split_once(':'))
        .filter(|(_, after)| !after.starts_with('='))
        .flat_map(|(names, _)| names.split_ascii_whitespace())
        .collect()
}

/// `make TARGET` in code, fenced or in backticks, whose target does not exist.
pub fn make_commands_exist(path: &str, text: &str, targets: &BTreeSet<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let commands: Vec<&str> =
            if fenced { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
        for command in commands {
            for target in mentioned_targets(command) {
                if !targets.contains(target) {
                    let message = format!("`make {target}` is no target of the Makefile");
                    findings.push(Finding::new(path, number, message));
                }
            }
        }
    }
    findings
}

/// Links to files of the repository that don't exist. `path` is the document's, from `root`.
pub fn linked_files_exist(root: &Path, path: &str, text: &str) -> Vec<Finding> {
    let directory = root.join(path).parent().map(Path::to_owned).unwrap_or_default();
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for rest in line.split("](").skip(1) {
            let target = rest.split([')', '#', ' ']).next().unwrap_or_default();
            let is_local = !target.is_empty() && !target.contains("://");
            if is_local && !directory.join(target).exists() {
                let message = format!("there is no file {target}");
                findings.push(Finding::new(path, number, message));
            }
        }
    }
    findings
}

/// Targets in a command line such as `cd x && make run RATE=1  # a comment`.
fn mentioned_targets(line: &str) -> Vec<&str> {
    let is_target = |word: &&str| {
        word.starts_with(|first: char| first.is_ascii_lowercase())
            && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let line = line.split('#').next().unwrap_or_default();
    let mut targets = Vec::new();
    for command in line.split([';', '&', '|', '(', ')']) {
        let mut words = command.split_ascii_whitespace().skip_while(|word| *word != "make");
        if words.next().is_some() {
            targets.extend(words.take_while(is_target));
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a Makefile with variables, patterns, phony targets and recipes.
    /// Guarantees: its targets and nothing else.
    #[test]
    fn targets_are_read_from_the_makefile() {
        let makefile = ".PHONY: run\nname := x\nrun: build ## Run\n\tcmd: not\na b: c\n# x: y\n";
        assert_eq!(make_targets(makefile), BTreeSet::from(["run", "a", "b"]));
    }

    /// Scenario: links to a file, to a part of one, to a part of the same document, to the web, and to
    /// nothing.
    /// Guarantees: only the last is found.
    #[test]
    fn broken_links_are_found() {
        let root = crate::workspace::root();
        let text =
            "[a](documents.rs) [b](lib.rs#x) [c](#here)\n[d](https://a.example/b) [e](gone.md)";
        let found = linked_files_exist(&root, "crates/tidy/src/x.md", text);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["crates/tidy/src/x.md:2: there is no file gone.md"]);
    }

    /// Scenario: prose, inline code and fenced code that mention make.
    /// Guarantees: only commands in code are checked, variables are no targets.
    #[test]
    fn unknown_commands_are_found() {
        let targets = BTreeSet::from(["run", "test"]);
        let text = "make sure that `make run RATE=1` works\n```sh\nmake test && make nope # make it\n```\n`make gone`";
        let found: Vec<String> = make_commands_exist("README.md", text, &targets)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "README.md:3: `make nope` is no target of the Makefile",
                "README.md:5: `make gone` is no target of the Makefile",
            ]
        );
    }
}
