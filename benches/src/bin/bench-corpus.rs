//! `make bench-corpus`: what the agent costs over what compression alone costs, on two corpora of
//! finished CRI files, and how it scales with its workers.

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Parser;
use thyme_agent::{config::Config, metrics::Metrics, pipeline::Pipeline};
use thyme_benches::{
    corpus::{CORPORA, Corpus},
    reference::{self, Reference},
    run::{self, Outcome, Variant},
    sink,
};

/// Compares the agent's processor time with that of pure compression of the same requests.
#[derive(Debug, Parser)]
struct Cli {
    /// Interleaved pairs of reference and run for each row.
    #[arg(long, env = "PAIRS", default_value_t = 3)]
    pairs: usize,
    /// Divides the corpora's lines.
    #[arg(long, env = "SCALE", default_value_t = 1)]
    scale: u64,
    /// Where the corpora are kept and the runs' files are written; beside the binaries unless given.
    #[arg(long, env = "BENCH_DIR")]
    directory: Option<PathBuf>,
    /// Only the corpus of this name, and without the test of the workers.
    #[arg(long, env = "ONLY")]
    only: Option<String>,
}

const ROWS: [Variant; 5] = [
    Variant { protocol: "http", compression: "zstd", workers: 1 },
    Variant { protocol: "grpc", compression: "zstd", workers: 1 },
    Variant { protocol: "http", compression: "none", workers: 1 },
    Variant { protocol: "grpc", compression: "none", workers: 1 },
    Variant { protocol: "http", compression: "zstd", workers: 2 },
];

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let directory = match &cli.directory {
        Some(directory) => directory.clone(),
        None => {
            let own = env::current_exe().context("looking for this executable")?;
            own.parent().unwrap_or(Path::new(".")).join("bench-corpus.d")
        }
    };
    for corpus in CORPORA {
        if cli.only.as_ref().is_some_and(|only| only != corpus.0) {
            continue;
        }
        say(&format!("corpus {}: {} lines", corpus.0, corpus.2 / cli.scale))?;
        let corpus = Corpus::prepare(&directory, corpus, cli.scale)?;
        compare(&corpus, &directory, cli.pairs)?;
        if corpus.name == "random" && cli.only.is_none() {
            compare_workers(&corpus, &directory, cli.pairs)?;
        }
    }
    Ok(())
}

fn say(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}

/// Rows of one corpus.
fn compare(corpus: &Corpus, directory: &Path, pairs: usize) -> anyhow::Result<()> {
    corpus.warm()?;
    say(&format!(
        "{:<14} {:>12} {:>12} {:>7} {:>15} {:>10} {:>8} {:>9} {:>6}",
        "variant",
        "lines/CPU-s",
        "reference",
        "ratio",
        "(min-max)",
        "wire MB",
        "wall s",
        "RSS MiB",
        "cores"
    ))?;
    for variant in ROWS {
        let mut measured: Vec<(f64, Reference, Outcome)> = Vec::new();
        for _ in 0..pairs {
            let reference = reference::measure(corpus)?;
            let outcome = run::run(corpus, variant, &directory.join("run"))?;
            ensure!(outcome.lines == corpus.lines, "not every line came");
            measured.push((
                outcome.agent_cpu_seconds / reference.cpu.as_secs_f64(),
                reference,
                outcome,
            ));
        }
        measured.sort_by(|left, right| left.0.total_cmp(&right.0));
        let (ratio, reference, outcome) = measured[measured.len() / 2];
        let lines = corpus.lines as f64;
        let rss = measured.iter().map(|one| one.2.rss_peak_bytes).max().unwrap_or(0);
        let cores =
            (outcome.agent_cpu_seconds + outcome.receiver_cpu_seconds) / outcome.wall_seconds;
        say(&format!(
            "{:<14} {:>12.0} {:>12.0} {:>7.2} {:>15} {:>10.1} {:>8.2} {:>9.1} {:>6.2}",
            variant.title(),
            lines / outcome.agent_cpu_seconds,
            lines / reference.cpu.as_secs_f64(),
            ratio,
            format!("({:.2}-{:.2})", measured[0].0, measured[measured.len() - 1].0),
            outcome.wire_bytes as f64 / 1e6,
            outcome.wall_seconds,
            rss as f64 / f64::from(1 << 20),
            cores,
        ))?;
    }
    Ok(())
}

/// One worker against two, into a receiver within this process that costs next to nothing.
fn compare_workers(corpus: &Corpus, directory: &Path, pairs: usize) -> anyhow::Result<()> {
    let mut ratios = Vec::new();
    for _ in 0..pairs {
        let one = in_process(corpus, directory, 1)?.as_secs_f64();
        let two = in_process(corpus, directory, 2)?.as_secs_f64();
        say(&format!("workers: 1 {one:.2} s, 2 {two:.2} s, {:.2} times as fast", one / two))?;
        ratios.push(one / two);
    }
    ratios.sort_by(f64::total_cmp);
    say(&format!("workers: 2 are {:.2} times as fast as 1 (median)", ratios[ratios.len() / 2]))
}

fn in_process(corpus: &Corpus, directory: &Path, workers: usize) -> anyhow::Result<Duration> {
    let address = sink::start()?;
    let yaml = format!(
        "extensions: {{thyme: {{workers: {workers}}}}}
receivers:
  filelog:
    include: [{}/*/*/*.log]
    start_at: beginning
    include_file_path: true
    operators: [{{type: container}}]
exporters: {{otlp_http: {{endpoint: 'http://{address}', compression: zstd}}}}
service:
  extensions: [thyme]
  pipelines: {{logs: {{receivers: [filelog], exporters: [otlp_http]}}}}
",
        corpus.directory.display()
    );
    let config = Config::parse(&yaml, &directory.join("in-process.yaml").to_string_lossy())?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let metrics = Arc::new(Metrics::default());
    let start = Instant::now();
    let pipeline = Pipeline::start(&config, Arc::clone(&metrics), runtime.handle())?;
    let lines = i64::try_from(corpus.lines)?;
    while metrics.acknowledged.get().0 < lines {
        ensure!(start.elapsed() < Duration::from_secs(300), "the run takes too long");
        std::thread::sleep(Duration::from_millis(5));
    }
    let wall = start.elapsed();
    pipeline.stop();
    Ok(wall)
}
