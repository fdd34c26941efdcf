//! Applies the rules to this workspace.

use std::path::Path;

use tidy::{
    documents::{self, make_commands_exist, make_targets},
    rules::{self, Finding},
    source::Source,
    workspace,
};

fn assert_none(findings: &[Finding]) {
    let shown: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(shown.is_empty(), "\n{}\n", shown.join("\n"));
}

fn check(rule: impl Fn(&Source) -> Vec<Finding>) {
    let sources = workspace::rust_files(&workspace::root());
    assert!(!sources.is_empty(), "no Rust files found");
    let findings: Vec<Finding> = sources.iter().flat_map(rule).collect();
    assert_none(&findings);
}

fn check_documents(rule: impl Fn(&Path, &str, &str) -> Vec<Finding>) {
    let root = workspace::root();
    let documents = workspace::documents(&root);
    let findings: Vec<Finding> =
        documents.iter().flat_map(|(path, text)| rule(&root, path, text)).collect();
    assert_none(&findings);
}

/// Scenario: every Rust file of the workspace.
/// Guarantees: it opens with `//!` and says what it owns.
#[test]
fn files_open_with_documentation() {
    check(rules::opens_with_documentation);
}

/// Scenario: every Rust file of the workspace.
/// Guarantees: it has at most 700 lines that are not tests.
#[test]
fn files_are_short() {
    let sources = workspace::rust_files(&workspace::root());
    let test_files = rules::test_files(&sources);
    check(|source| rules::file_is_short(source, &test_files));
}

/// Scenario: every function of the workspace, tests included.
/// Guarantees: it has at most 70 lines.
#[test]
fn functions_are_short() {
    check(rules::functions_are_short);
}

/// Scenario: every Rust file of the workspace.
/// Guarantees: its name says what is in it.
#[test]
fn names_say_something() {
    check(rules::name_says_something);
}

/// Scenario: every Rust file of the workspace.
/// Guarantees: `unsafe` is in listed files only, and the list holds no others.
#[test]
fn unsafe_code_is_listed() {
    check(rules::unsafe_is_listed);
    assert_none(&rules::unsafe_list_is_current(&workspace::rust_files(&workspace::root())));
}

/// Scenario: every test of the workspace.
/// Guarantees: its documentation says Scenario and Guarantees.
#[test]
fn tests_say_scenario_and_guarantees() {
    check(rules::tests_say_scenario_and_guarantees);
}

/// Scenario: every Rust file of the workspace.
/// Guarantees: nothing in it is marked as unfinished.
#[test]
fn nothing_is_unfinished() {
    check(rules::nothing_is_unfinished);
}

/// Scenario: every Rust file of the workspace.
/// Guarantees: no error is printed in the form that repeats causes.
#[test]
fn causes_are_printed_once() {
    check(rules::causes_are_printed_once);
}

/// Scenario: every `make` command in the documents.
/// Guarantees: the Makefile has its target.
#[test]
fn documented_commands_exist() {
    let root = workspace::root();
    let makefile = workspace::read(&root.join("Makefile"));
    let targets = make_targets(&makefile);
    assert!(targets.contains("run"), "the Makefile has targets");
    let findings: Vec<Finding> = workspace::documents(&root)
        .iter()
        .flat_map(|(path, text)| make_commands_exist(path, text, &targets))
        .collect();
    assert_none(&findings);
}

/// Scenario: `make` without a target.
/// Guarantees: it lists every target of the Makefile with what it does, those with digits in their
/// names too.
#[test]
fn make_lists_every_target() {
    let root = workspace::root();
    let makefile = workspace::read(&root.join("Makefile"));
    let listed = std::process::Command::new("make")
        .args(["--no-print-directory", "help"])
        .current_dir(&root)
        .output()
        .expect("make runs");
    let listed = String::from_utf8_lossy(&listed.stdout);
    let targets = make_targets(&makefile);
    assert!(targets.contains("k3d-load"), "the Makefile has a target with a digit");
    for target in targets {
        let is_listed = listed.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some("make") && words.next() == Some(target) && words.next().is_some()
        });
        assert!(is_listed, "`make` does not list `{target}`:\n{listed}");
    }
}

/// Scenario: every link to a file in the documents.
/// Guarantees: the file is there.
#[test]
fn linked_files_exist() {
    check_documents(documents::linked_files_exist);
}

/// Scenario: every link to a part of a document in the documents.
/// Guarantees: it has that heading.
#[test]
fn linked_parts_exist() {
    check_documents(documents::linked_parts_exist);
}

/// Scenario: the table of failures in docs/reliability.md, which has a row for each of the 37.
/// Guarantees: each row that is not open names tests, and all of them exist.
#[test]
fn failures_have_tests() {
    let root = workspace::root();
    let path = "docs/reliability.md";
    let text = workspace::read(&root.join(path));
    let functions = workspace::rust_files(&root)
        .iter()
        .flat_map(Source::functions)
        .map(|function| function.name)
        .collect();
    assert_none(&documents::failures_have_tests(path, &text, 37, &functions));
}
