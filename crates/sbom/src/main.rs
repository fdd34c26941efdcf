//! `sbom DIRECTORY`: writes `<program>.cdx.json` for each program that is shipped. `make sbom` runs
//! it from the workspace's root.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::Parser;

/// Writes what the four programs are made of, as CycloneDX.
#[derive(Debug, Parser)]
#[command(version)]
#[command(after_help = "Run it in the workspace's root: it asks cargo, and reads Cargo.lock.")]
struct CommandLine {
    /// Where `<program>.cdx.json` of each program goes; made if it isn't there.
    directory: PathBuf,
}

fn main() -> Result<()> {
    let CommandLine { directory } = CommandLine::parse();
    let workspace = sbom::Workspace::read(&sbom::TARGETS, false)?;
    let lock = fs::read_to_string("Cargo.lock").context("Cargo.lock")?;
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    for program in sbom::PROGRAMS {
        let document = sbom::document(&workspace, &lock, program)?;
        let path = directory.join(format!("{program}.cdx.json"));
        let text = serde_json::to_string_pretty(&document)? + "\n";
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
