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

/// What stands in code, fenced or in backticks, with the number of its line.
fn commands(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().flat_map(move |(number, line)| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        let found: Vec<&str> = match (is_fence, fenced) {
            (true, _) => Vec::new(),
            (false, true) => vec![line],
            (false, false) => line.split('`').skip(1).step_by(2).collect(),
        };
        found.into_iter().map(move |command| (number, command))
    })
}

/// `make TARGET` in code, fenced or in backticks, whose target does not exist.
pub fn make_commands_exist(path: &str, text: &str, targets: &BTreeSet<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, command) in commands(text) {
        for target in mentioned_targets(command) {
            if !targets.contains(target) {
                let message = format!("`make {target}` is no target of the Makefile");
                findings.push(Finding::new(path, number, message));
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

/// Links to a part of a document, of this one or of another, whose heading does not exist there.
pub fn linked_parts_exist(root: &Path, path: &str, text: &str) -> Vec<Finding> {
    let directory = root.join(path).parent().map(Path::to_owned).unwrap_or_default();
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for rest in line.split("](").skip(1) {
            let target = rest.split([')', ' ']).next().unwrap_or_default();
            let Some((file, part)) = target.split_once('#') else { continue };
            let is_document = file.is_empty() || (!file.contains("://") && file.ends_with(".md"));
            if !is_document {
                continue;
            }
            let other = (!file.is_empty()).then(|| crate::workspace::read(&directory.join(file)));
            if !parts(other.as_deref().unwrap_or(text)).contains(part) {
                findings.push(Finding::new(path, number, format!("{file} has no part #{part}")));
            }
        }
    }
    findings
}

/// The parts of a document, as GitHub calls them: headings in lower case, blanks as hyphens, without what is neither
/// letter, digit, hyphen nor underscore. The second of two of one name has `-1` behind it.
fn parts(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        if fenced || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
        let name: String = heading.trim().to_lowercase().chars().filter(kept).collect();
        let name = name.replace(' ', "-");
        let mut number = 0;
        while !found.insert(if number == 0 { name.clone() } else { format!("{name}-{number}") }) {
            number += 1;
        }
    }
    found
}

/// Options that documents give to programs, `--option` behind a program's name in code, that its help does not have.
pub fn options_exist(path: &str, text: &str, program: &str, help: &str) -> Vec<Finding> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let known: BTreeSet<&str> =
        help.split(|c| !is_word(c)).filter(|word| word.starts_with("--")).collect();
    let mut findings = Vec::new();
    for (number, command) in commands(text) {
        let words: Vec<&str> = command.split([' ', '\'', '"']).collect();
        let is_it = |word: &&str| *word == program || word.ends_with(&format!("/{program}"));
        let Some(at) = words.iter().position(is_it) else { continue };
        // `kubectl scale deployment/NAME` has options of its own.
        if words[..at].contains(&"kubectl") {
            continue;
        }
        let rest =
            words[at + 1..].iter().take_while(|word| !["|", "&&", ";", "#", "--"].contains(word));
        let is_option = |word: &&&str| {
            word.strip_prefix("--").is_some_and(|name| name.starts_with(char::is_alphabetic))
        };
        for word in rest.filter(is_option) {
            let option = word.split(|c| !is_word(c)).next().unwrap_or_default();
            if !known.contains(option) {
                findings.push(Finding::new(path, number, format!("{program} has no {option}")));
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

    /// Scenario: links to headings with code, signs and a name that comes twice, in this document and in another, and
    /// to headings that there are not.
    /// Guarantees: only these are found.
    #[test]
    fn links_to_parts_that_do_not_exist_are_found() {
        let root = crate::workspace::root();
        let text = "# A `b`: c_d!\n## Same\n## Same\n[a](#a-b-c_d) [b](#same) [c](#same-1)\n[d](#same-2)\n\
                    ```sh\n# none\n```\n[e](#none) [f](lib.rs#x) [g](../../../README.md#licence) \
                    [h](../../../README.md#gone) [i](https://a.example/#b)";
        let found = linked_parts_exist(&root, "crates/tidy/src/x.md", text);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "crates/tidy/src/x.md:5:  has no part #same-2",
                "crates/tidy/src/x.md:9:  has no part #none",
                "crates/tidy/src/x.md:9: ../../../README.md has no part #gone",
            ]
        );
    }

    /// Scenario: options that a program has and has not, in commands and beside them, and those of others.
    /// Guarantees: only those that it has not are found, and only where it is what is called.
    #[test]
    fn options_that_do_not_exist_are_found() {
        let help = "  --known <FILE>  that\n  -h, --help";
        let text = "`bin/tool --known=x --gone` --here\n```sh\nother --that | tool --known --lost\n```\n\
                    `tool-box --gone` `tool x | other --it` `kubectl scale deployment/tool --to=1`";
        let found: Vec<String> =
            options_exist("x.md", text, "tool", help).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["x.md:1: tool has no --gone", "x.md:3: tool has no --lost"]);
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
