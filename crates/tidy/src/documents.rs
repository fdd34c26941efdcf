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

/// Rows of a table of failures, `| N | failure | promise | tests | … |`: each of the `rows` has a test
/// that exists, unless it is said to be open. Tests are named by function, perhaps with their module.
pub fn failures_have_tests(
    path: &str,
    text: &str,
    rows: usize,
    functions: &BTreeSet<String>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = BTreeSet::new();
    for (number, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, row, _, promise, tests, ..] = cells[..] else { continue };
        let Ok(row) = row.parse::<usize>() else { continue };
        found.insert(row);
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        if tests.is_empty() && !promise.contains("**open**") {
            findings.push(Finding::new(path, number, format!("row {row} has no test")));
        }
        for test in tests {
            let name = test.rsplit("::").next().unwrap_or(test);
            if !functions.contains(name) {
                findings.push(Finding::new(path, number, format!("there is no test {test}")));
            }
        }
    }
    let missing = (1..=rows).filter(|row| !found.contains(row));
    findings.extend(missing.map(|row| Finding::new(path, 0, format!("there is no row {row}"))));
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

    /// Scenario: a table with a tested row, an untested one, an open one, one with a test that is gone,
    /// and without its last row.
    /// Guarantees: what is wrong is found, and nothing else.
    #[test]
    fn rows_without_tests_are_found() {
        let text = "| row | failure | promise | tests |\n|---|---|---|---|\n\
                    | 1 | a | b | `it::known`, `known` |\n| 2 | a | b | |\n\
                    | 3 | a | **open** | |\n| 4 | a | b | `gone` |";
        let functions = BTreeSet::from(["known".to_owned()]);
        let found: Vec<String> = failures_have_tests("x.md", text, 5, &functions)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "x.md:4: row 2 has no test",
                "x.md:6: there is no test gone",
                "x.md:1: there is no row 5",
            ]
        );
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
