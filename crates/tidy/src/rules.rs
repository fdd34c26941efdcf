//! The rules for Rust files. Each is a function from a file to its findings, and each finding names
//! file and line.

use crate::source::{Source, word_positions};
use std::{collections::BTreeSet, fmt};

/// Longest file, in lines that are not tests.
pub const FILE_LINES_MAX: usize = 700;

/// Longest function, from `fn` to its closing brace, in lines.
pub const FUNCTION_LINES_MAX: usize = 70;

/// Names that say nothing about what is in a file.
const EMPTY_NAMES: [&str; 7] = ["util", "utils", "helper", "helpers", "common", "misc", "stuff"];

/// The only files that may say `unsafe`; each use argues its safety.
const UNSAFE_FILES: [&str; 3] = [
    // mallopt, before there are threads.
    "crates/thyme-agent/src/main.rs",
    // prctl between fork and exec: a child that dies with the driver.
    "crates/rig/src/process.rs",
    // A global allocator that counts.
    "crates/thyme-agent/tests/it/allocations.rs",
];

/// Words that mark unfinished work; written apart, since this file is checked too.
const UNFINISHED_WORDS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// Macros that mark unfinished code.
const UNFINISHED_MACROS: [&str; 2] = ["todo", "unimplemented"];

/// Something that a rule objects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    path: String,
    /// Counted from one.
    line: usize,
    message: String,
}

impl Finding {
    /// An objection to a line, counted from zero.
    pub fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: line + 1, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Every file says at once what it owns.
pub fn opens_with_documentation(source: &Source) -> Vec<Finding> {
    if source.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![Finding::new(&source.path, 0, "the file must open with `//! ` and say what it owns")]
}

/// Files stay short, tests apart.
pub fn file_is_short(source: &Source, test_files: &BTreeSet<String>) -> Vec<Finding> {
    if is_test_file(&source.path, test_files) {
        return Vec::new();
    }
    let all = source.text.lines().count();
    let tests: usize = source.test_lines().iter().map(ExactSizeIterator::len).sum();
    let lines = all - tests.min(all);
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    let message = format!("{lines} lines without tests, {FILE_LINES_MAX} are allowed");
    vec![Finding::new(&source.path, 0, message)]
}

/// Functions stay short, tests included.
pub fn functions_are_short(source: &Source) -> Vec<Finding> {
    let is_long = |lines: usize| lines > FUNCTION_LINES_MAX;
    source
        .functions()
        .into_iter()
        .filter(|function| is_long(function.lines.len()))
        .map(|function| {
            let message = format!(
                "`{}` has {} lines, {FUNCTION_LINES_MAX} are allowed",
                function.name,
                function.lines.len()
            );
            Finding::new(&source.path, function.lines.start, message)
        })
        .collect()
}

/// Names of files and directories say what is in them.
pub fn name_says_something(source: &Source) -> Vec<Finding> {
    source
        .path
        .split('/')
        .map(|part| part.strip_suffix(".rs").unwrap_or(part))
        .filter(|part| EMPTY_NAMES.contains(part))
        .map(|part| Finding::new(&source.path, 0, format!("`{part}` says nothing")))
        .collect()
}

/// `unsafe` stays in the files that are listed for it.
pub fn unsafe_is_listed(source: &Source) -> Vec<Finding> {
    if UNSAFE_FILES.contains(&source.path.as_str()) {
        return Vec::new();
    }
    word_positions(&source.code, "unsafe")
        .map(|at| Finding::new(&source.path, source.line_of(at), "`unsafe` in an unlisted file"))
        .collect()
}

/// The list of files that may say `unsafe` holds no file that does not.
pub fn unsafe_list_is_current(sources: &[Source]) -> Vec<Finding> {
    UNSAFE_FILES
        .into_iter()
        .filter(|listed| {
            let mut uses = sources
                .iter()
                .filter(|source| source.path == *listed)
                .flat_map(|source| word_positions(&source.code, "unsafe"));
            uses.next().is_none()
        })
        .map(|listed| Finding::new(listed, 0, "listed for `unsafe`, but has none"))
        .collect()
}

/// Every test says what happens and what is guaranteed.
pub fn tests_say_scenario_and_guarantees(source: &Source) -> Vec<Finding> {
    let text: Vec<&str> = source.text.lines().collect();
    let code: Vec<&str> = source.code.lines().collect();
    let is_test = |line: &str| {
        let line = line.trim_start();
        line.starts_with("#[test]") || line.starts_with("#[tokio::test")
    };
    let mut findings = Vec::new();
    for number in (0..code.len()).filter(|&number| is_test(code[number])) {
        let documentation = documentation_around(&text, number);
        for word in ["Scenario:", "Guarantees:"] {
            if !documentation.contains(word) {
                let message = format!("the test's documentation lacks `{word}`");
                findings.push(Finding::new(&source.path, number, message));
            }
        }
    }
    findings
}

/// Nothing is left for later: what is missing belongs into an issue.
pub fn nothing_is_unfinished(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for word in UNFINISHED_WORDS {
        for at in word_positions(&source.text, word) {
            let message = format!("{word}: open an issue instead");
            findings.push(Finding::new(&source.path, source.line_of(at), message));
        }
    }
    for name in UNFINISHED_MACROS {
        for at in word_positions(&source.code, name) {
            if source.code[at + name.len()..].starts_with('!') {
                let message = format!("`{name}!` must not be committed");
                findings.push(Finding::new(&source.path, source.line_of(at), message));
            }
        }
    }
    findings
}

/// anyhow's form for causes repeats those that an error names itself.
pub fn causes_are_printed_once(source: &Source) -> Vec<Finding> {
    let form = concat!(":", "#}");
    let finding = |(at, _): (usize, &str)| {
        let message = "print an error with `thyme_core::causes::in_one_line`: each cause once";
        Finding::new(&source.path, source.line_of(at), message.to_owned())
    };
    source.text.match_indices(form).map(finding).collect()
}

/// Files that hold tests only, because the `mod` line that names them is under `#[cfg(test)]`.
pub fn test_files(sources: &[Source]) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for source in sources {
        let (directory, name) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
        let stem = name.trim_end_matches(".rs");
        let base = match stem {
            "lib" | "main" | "mod" => directory.to_owned(),
            _ => format!("{directory}/{stem}"),
        };
        for module in source.test_modules() {
            files.insert(format!("{base}/{module}.rs"));
            files.insert(format!("{base}/{module}/mod.rs"));
        }
    }
    files
}

fn is_test_file(path: &str, test_files: &BTreeSet<String>) -> bool {
    path.split('/').any(|part| part == "tests") || test_files.contains(path)
}

/// The documentation of the item that has an attribute in this line: before or after the attribute,
/// among other attributes, up to the item itself.
fn documentation_around(text: &[&str], attribute: usize) -> String {
    let belongs = |line: &&&str| {
        let line = line.trim_start();
        line.starts_with("///") || line.starts_with("#[")
    };
    let before = text[..attribute].iter().rev().take_while(belongs);
    let after = text[attribute..].iter().take_while(belongs);
    let mut documentation = String::new();
    for line in before.chain(after).filter(|line| line.trim_start().starts_with("///")) {
        documentation.push_str(line);
        documentation.push('\n');
    }
    documentation
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(ToString::to_string).collect()
    }

    /// Scenario: a file with a title, one with an attribute first, an empty one.
    /// Guarantees: only the first passes.
    #[test]
    fn files_open_with_documentation() {
        let check = |text: &str| opens_with_documentation(&Source::new("a.rs", text)).len();
        assert_eq!([check("//! Owns.\n"), check("#![x]\n//! Owns.\n"), check("")], [0, 1, 1]);
    }

    /// Scenario: files just within the limit, beyond it, and beyond it with tests only.
    /// Guarantees: only lines that are not tests count.
    #[test]
    fn only_lines_of_code_count() {
        let none = BTreeSet::new();
        let code = "x\n".repeat(FILE_LINES_MAX);
        let tests = format!("{code}#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert!(file_is_short(&Source::new("a.rs", &code), &none).is_empty());
        assert!(file_is_short(&Source::new("a.rs", tests), &none).is_empty());
        let long = format!("{code}x\n");
        assert_eq!(file_is_short(&Source::new("a.rs", &long), &none).len(), 1);
        assert!(file_is_short(&Source::new("a/tests/it/b.rs", &long), &none).is_empty());
        let parent = Source::new("c/src/lib.rs", "#[cfg(test)]\nmod oracle;\n");
        let test_files = test_files(&[parent]);
        assert!(file_is_short(&Source::new("c/src/oracle.rs", &long), &test_files).is_empty());
    }

    /// Scenario: functions of 70 and of 71 lines.
    /// Guarantees: the second is found, with name and line.
    #[test]
    fn long_functions_are_found() {
        let body = |lines: usize| "x;\n".repeat(lines - 2);
        let text = format!("fn short() {{\n{}}}\nfn long() {{\n{}}}\n", body(70), body(71));
        let found = shown(&functions_are_short(&Source::new("a.rs", text)));
        assert_eq!(found, ["a.rs:71: `long` has 71 lines, 70 are allowed"]);
    }

    /// Scenario: empty names of a file and of a directory, and a name that only contains one.
    /// Guarantees: whole names are compared.
    #[test]
    fn empty_names_are_found() {
        let count = |path: &str| name_says_something(&Source::new(path, "")).len();
        assert_eq!([count("a/util.rs"), count("common/b.rs"), count("a/utility.rs")], [1, 1, 0]);
    }

    /// Scenario: the word in code, in a comment, in a string and within another word.
    /// Guarantees: only code counts.
    #[test]
    fn unsafe_code_is_found() {
        let text =
            "// unsafe\n#![deny(unsafe_op_in_unsafe_fn)]\nlet x = \"unsafe\";\nunsafe { f() }\n";
        let found = shown(&unsafe_is_listed(&Source::new("a.rs", text)));
        assert_eq!(found, ["a.rs:4: `unsafe` in an unlisted file"]);
    }

    /// Scenario: tests with documentation before and after their attributes, with half of it, and
    /// with none; an attribute in a string.
    /// Guarantees: each missing word is found at its test.
    #[test]
    fn undocumented_tests_are_found() {
        let text = "/// Scenario: a. Guarantees: b.\n#[test]\nfn a() {}\n\
                    #[tokio::test]\n/// Scenario: a.\n/// Guarantees: b.\nasync fn b() {}\n\
                    /// Scenario: c.\n#[test]\n#[should_panic]\nfn c() {}\n\
                    let s = \"\n#[test]\n\";\n";
        let found = shown(&tests_say_scenario_and_guarantees(&Source::new("a.rs", text)));
        assert_eq!(found, ["a.rs:9: the test's documentation lacks `Guarantees:`"]);
    }

    /// Scenario: marks of unfinished work in comments and code, and words that resemble them.
    /// Guarantees: the marks are found.
    #[test]
    fn unfinished_work_is_found() {
        let text = format!("// {}: x\nfn f() {{ todo!() }}\nlet todo = 1;\n", UNFINISHED_WORDS[0]);
        let found = nothing_is_unfinished(&Source::new("a.rs", text));
        let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [1, 2]);
    }
}
