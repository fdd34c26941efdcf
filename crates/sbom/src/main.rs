//! `sbom DIRECTORY`: writes `<program>.cdx.json` for each program that is shipped. `make sbom` runs
//! it from the workspace's root.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [directory] = &arguments[..] else { bail!("usage: sbom DIRECTORY") };
    let directory = PathBuf::from(directory);
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let workspace = sbom::Workspace::read(&sbom::TARGETS, false)?;
    let lock = fs::read_to_string("Cargo.lock").context("Cargo.lock")?;
    for program in sbom::PROGRAMS {
        let document = sbom::document(&workspace, &lock, program)?;
        let path = directory.join(format!("{program}.cdx.json"));
        let text = serde_json::to_string_pretty(&document)? + "\n";
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
