//! The bills of materials of this workspace, held against the lock file and against `cargo tree`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every crate that cargo links a program from, as `name@version`, on this machine.
fn linked(program: &str) -> BTreeSet<String> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none"]);
    command.args(["--format", "{p}", "--package", program]).current_dir(root());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let crates = tree.lines().filter(|line| !line.is_empty()).map(|line| {
        let mut words = line.split(' ');
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        format!("{name}@{}", version.trim_start_matches('v'))
    });
    crates.collect()
}

fn named(component: &Value) -> String {
    let text = |key: &str| component[key].as_str().unwrap();
    format!("{}@{}", text("name"), text("version"))
}

/// Scenario: the documents of the four programs are made from this workspace.
/// Guarantees: each has all crates that cargo links the program from, with licence and, but for
/// the workspace's own, the lock file's checksum; what only tests or builds is not in it; every
/// reference leads somewhere; made again they are the same.
#[test]
fn the_programs_are_listed_in_full() {
    std::env::set_current_dir(root()).unwrap();
    // Without targets, cargo would want crates of systems that it never downloaded.
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let workspace = sbom::Workspace::read(&[&host], true).unwrap();
    assert!(sbom::document(&workspace, "", "thyme").is_err(), "there is no such program");
    let lock = std::fs::read_to_string("Cargo.lock").unwrap();
    for program in sbom::PROGRAMS {
        let document = sbom::document(&workspace, &lock, program).unwrap();
        assert_eq!(document, sbom::document(&workspace, &lock, program).unwrap());
        assert_eq!(
            (&document["bomFormat"], &document["specVersion"]),
            (&"CycloneDX".into(), &"1.6".into())
        );
        assert_eq!(document["metadata"]["component"]["name"], program);

        let components = document["components"].as_array().unwrap();
        let mut listed: BTreeSet<String> = components.iter().map(named).collect();
        assert_eq!(listed.len(), components.len());
        let own = named(&document["metadata"]["component"]);
        assert!(listed.insert(own));
        let missing: Vec<_> = linked(program).difference(&listed).cloned().collect();
        assert!(missing.is_empty(), "{program}: {missing:?}");
        let has = |name: &str| listed.iter().any(|one| one.starts_with(&format!("{name}@")));
        assert!(has("thyme-core") && has("tokio") && has("libc"));
        for only_tests_or_builds in ["proptest", "rcgen", "criterion", "tempfile", "cc"] {
            assert!(!has(only_tests_or_builds), "{program}: {only_tests_or_builds}");
        }

        for component in components {
            let expression = component["licenses"][0]["expression"].as_str().unwrap();
            assert!(!expression.is_empty() && !expression.contains('/'), "{component}");
            match component["hashes"][0]["content"].as_str() {
                Some(checksum) => assert!(checksum.len() == 64 && lock.contains(checksum)),
                // Of the workspace itself there is no checksum.
                None => assert!(component["externalReferences"].is_null(), "{component}"),
            }
        }
        let references: BTreeSet<&str> =
            components.iter().map(|one| one["bom-ref"].as_str().unwrap()).collect();
        let dependencies = document["dependencies"].as_array().unwrap();
        assert_eq!(dependencies.len(), listed.len());
        for dependency in dependencies {
            for target in dependency["dependsOn"].as_array().unwrap() {
                assert!(references.contains(target.as_str().unwrap()), "{target}");
            }
        }
    }
}

/// Scenario: the program is asked for its help and its version, and given an unknown option.
/// Guarantees: it answers with the exit status that is usual, and writes nothing.
#[test]
fn options_are_no_directories() {
    let directory = tempfile::tempdir().unwrap();
    for (option, status, said) in
        [("--help", 0, "Usage: sbom"), ("--version", 0, "sbom 0."), ("--bogus", 2, "Usage: sbom")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sbom"));
        let output = command.arg(option).current_dir(&directory).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(status), "{option}: {text}");
        assert!(text.contains(said), "{option}: {text}");
    }
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}
