//! Compares the instructions that callgrind has counted with the committed figures, for benches/gate.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};
use thyme_benches::gate::{
    callgrind,
    figures::{Count, Figures, LIMIT_PERCENT, compare},
};

#[derive(Parser)]
#[command(about)]
struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Prints what of the processor's features the libraries' dispatch sees.
    Features,
    /// Compares what was counted with the figures.
    Compare(Files),
    /// Writes what was counted as the figures.
    Accept(Files),
}

#[derive(clap::Args)]
struct Files {
    /// The committed figures.
    figures: PathBuf,
    /// Directory of callgrind's output.
    counted: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    match Options::parse().action {
        Action::Features => {
            say(&features());
            Ok(ExitCode::SUCCESS)
        }
        Action::Accept(files) => {
            let now = counted(&files.counted)?;
            fs::write(&files.figures, now.write()).context("writing the figures")?;
            say(&format!("{} figures are in {}", now.counts.len(), files.figures.display()));
            Ok(ExitCode::SUCCESS)
        }
        Action::Compare(files) => judge(&files),
    }
}

#[allow(clippy::print_stdout, reason = "what was asked for")]
fn say(text: &str) {
    println!("{text}");
}

fn judge(files: &Files) -> anyhow::Result<ExitCode> {
    let text = fs::read_to_string(&files.figures);
    let text = text.with_context(|| format!("reading {}", files.figures.display()))?;
    let committed = Figures::read(&text).map_err(anyhow::Error::msg)?;
    let verdict = compare(&committed, &counted(&files.counted)?);
    verdict.lines.iter().for_each(|line| say(line));
    for line in &verdict.better {
        say(&format!("better: {line}"));
    }
    if !verdict.better.is_empty() {
        say("It is faster than its figures: commit what `make gate-accept` writes.");
    }
    if verdict.failures.is_empty() {
        say(&format!("The gate is passed: nothing is more than {LIMIT_PERCENT} % worse."));
        return Ok(ExitCode::SUCCESS);
    }
    for line in &verdict.failures {
        say(&format!("FAILED: {line}"));
    }
    say("`make gate-accept` writes new figures, where they are meant to be.");
    Ok(ExitCode::FAILURE)
}

/// All of callgrind's outputs below a directory, by benchmark.
fn counted(directory: &Path) -> anyhow::Result<Figures> {
    let mut figures = Figures { made_by: made_by()?, ..Figures::default() };
    collect(directory, &mut figures.counts)?;
    ensure!(!figures.counts.is_empty(), "nothing was counted in {}", directory.display());
    Ok(figures)
}

fn collect(directory: &Path, counts: &mut BTreeMap<String, Count>) -> anyhow::Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("{}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, counts)?;
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.strip_prefix("callgrind.").and_then(|name| name.strip_suffix(".out"));
        let Some(name) = name else { continue };
        let text = fs::read_to_string(&path)?;
        let count = callgrind::count(&text).map_err(anyhow::Error::msg);
        let count = count.with_context(|| format!("{}", path.display()))?;
        if counts.insert(name.to_owned(), count).is_some() {
            bail!("{name} was counted twice");
        }
    }
    Ok(())
}

/// What decides about the instructions besides the code.
fn made_by() -> anyhow::Result<BTreeMap<String, String>> {
    let own = std::env::current_exe()?;
    let own = own.to_string_lossy();
    let rustc = output("rustc", &["--version"])?;
    let features = output("valgrind", &["--quiet", "--tool=none", &own, "features"])?;
    Ok([("compiler", rustc), ("features under valgrind", features)]
        .map(|(name, value)| (name.to_owned(), value))
        .into())
}

fn output(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| program.to_owned())?;
    ensure!(output.status.success(), "{program}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// memchr, simdutf8, crc32fast, zlib-rs, ring and zstd choose by these at run time.
#[cfg(target_arch = "x86_64")]
fn features() -> String {
    macro_rules! present {
        ($($name:tt)*) => { [$(($name, std::arch::is_x86_feature_detected!($name))),*] };
    }
    let all = present!["sse3" "ssse3" "sse4.1" "sse4.2" "pclmulqdq" "aes" "avx" "avx2" "bmi1" "bmi2"
        "lzcnt" "popcnt" "fma" "sha" "avx512f" "avx512vl" "vpclmulqdq"];
    let present: Vec<&str> = all.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    format!("x86_64 {}", present.join(" "))
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> String {
    std::env::consts::ARCH.to_owned()
}
