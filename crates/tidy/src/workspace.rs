//! The files of this workspace: everything under its member directories and at its root, apart from
//! what builds leave there.

use crate::source::Source;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Directories that hold Rust code: the members of `Cargo.toml`, and the fuzzer.
const CODE_DIRECTORIES: [&str; 3] = ["crates", "benches", "fuzz"];

/// Directories that hold documents, beside the root.
const DOCUMENT_DIRECTORIES: [&str; 6] =
    ["charts", "docs", "deployment", "infrastructure", "scripts", "tests"];

/// The workspace's root directory.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.join("../..").canonicalize().expect("the crate lies two levels below the root")
}

/// All Rust files, in order of their paths.
pub fn rust_files(root: &Path) -> Vec<Source> {
    let mut paths = BTreeSet::new();
    for directory in CODE_DIRECTORIES {
        walk(&root.join(directory), "rs", &mut paths);
    }
    paths.iter().map(|path| Source::new(relative(root, path), read(path))).collect()
}

/// All Markdown files at the root and in the directories of documents, as pairs of path and text.
pub fn documents(root: &Path) -> Vec<(String, String)> {
    let mut paths = BTreeSet::new();
    for directory in DOCUMENT_DIRECTORIES {
        walk(&root.join(directory), "md", &mut paths);
    }
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "md") {
            paths.insert(entry.path());
        }
    }
    paths.iter().map(|path| (relative(root, path), read(path))).collect()
}

/// Reads a file of the workspace; one that vanishes meanwhile counts as empty.
pub fn read(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

fn walk(directory: &Path, extension: &str, paths: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let is_hidden = name.to_string_lossy().starts_with('.');
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && !is_hidden && name != "target" {
            walk(&path, extension, paths);
        } else if kind.is_file() && path.extension().is_some_and(|found| found == extension) {
            paths.insert(path);
        }
    }
}
