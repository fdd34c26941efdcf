//! `make bench-corpus`: what the agent costs over what compression alone costs, on two corpora of
//! finished CRI files, and how it scales with its workers.

use std::{
    env,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
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
use thyme_core::{
    causes::in_one_line,
    quantity::{grouped, parse_count_from_1, size},
    table,
};

/// Compares the agent's processor time with that of pure compression of the same requests.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_STATUS)]
struct Cli {
    /// Interleaved pairs of reference and run for each row.
    #[arg(long, env = "PAIRS", default_value = "3", value_parser = parse_count_from_1::<usize>)]
    pairs: usize,
    /// Divides the corpora's lines. Above 1 a run is too short for ratios, which are shown then, and
    /// not judged.
    #[arg(long, env = "SCALE", default_value = "1", value_parser = parse_count_from_1::<u64>)]
    scale: u64,
    /// Where the corpora are kept and the runs' files are written. [default: `corpora` beside this
    /// program]
    #[arg(long, env = "BENCH_DIR")]
    directory: Option<PathBuf>,
    /// Only the corpus of this name, and without the test of the workers.
    #[arg(long, env = "ONLY", value_parser = ["random", "mixed"])]
    only: Option<String>,
}

const EXIT_STATUS: &str = "\
EXIT STATUS
  0  passed
  1  failed: a limit was exceeded
  2  no verdict: a line was lost, or something did not start";

/// The agent's processor time over that of pure compression, with zstd and one worker.
const RATIO_MAX: f64 = 1.6;

/// The agent's resident memory with one worker.
const RSS_BYTES_MAX: u64 = 64 << 20;

/// How many times as fast two workers are as one, at least.
const SPEEDUP_MIN: f64 = 1.6;

const ROWS: [Variant; 5] = [
    Variant { protocol: "http", compression: "zstd", workers: 1 },
    Variant { protocol: "grpc", compression: "zstd", workers: 1 },
    Variant { protocol: "http", compression: "none", workers: 1 },
    Variant { protocol: "grpc", compression: "none", workers: 1 },
    Variant { protocol: "http", compression: "zstd", workers: 2 },
];

/// What the columns mean.
const LEGEND: &str = "  \
  lines/CPU-s  lines for each second of the agent's processor time
  reference    the same for zstd level 1 alone: one thread, the same requests
  ratio        the agent's processor time over the reference's: median, lowest and highest pair
  wire         what was sent; wall: from the agent's start to the last acknowledgement
  RSS          the agent's largest resident memory; cores: agent and receiver together";

fn main() -> ExitCode {
    match compare_all(&Cli::parse()) {
        Ok(reasons) => {
            let variable = |name| env::var(name).ok();
            let (no_color, term) = (variable("NO_COLOR"), variable("TERM"));
            let is_terminal = std::io::stdout().is_terminal();
            let colour = table::wants_colour(is_terminal, no_color.as_deref(), term.as_deref());
            let said = say(table::verdict(&reasons, colour).trim_end());
            if reasons.is_empty() && said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            // A closed standard error leaves the exit status to tell.
            let _result =
                writeln!(std::io::stderr().lock(), "bench-corpus: {}", in_one_line(error.as_ref()));
            ExitCode::from(2)
        }
    }
}

/// Prints all figures; returns what speaks against passing.
fn compare_all(cli: &Cli) -> anyhow::Result<Vec<String>> {
    let directory = match &cli.directory {
        Some(directory) => directory.clone(),
        None => {
            let own = env::current_exe().context("looking for this executable")?;
            own.parent().unwrap_or(Path::new(".")).join("corpora")
        }
    };
    let pairs = if cli.pairs == 1 { "one pair" } else { "medians of the pairs" };
    say(&format!("Corpora in {}; {pairs}.\n{LEGEND}", directory.display()))?;
    if cli.scale > 1 {
        say(&format!("SCALE={} is too short for ratios: they are not judged.", cli.scale))?;
    }
    let mut judge = Judge { judges_ratios: cli.scale == 1, reasons: Vec::new() };
    for corpus in CORPORA {
        if cli.only.as_ref().is_some_and(|only| only != corpus.0) {
            continue;
        }
        let corpus = Corpus::prepare(&directory, corpus, cli.scale)?;
        let (lines, bytes) = (grouped(corpus.lines), size(corpus.bytes));
        say(&format!("\n{}: {lines} lines, {bytes}", corpus.name))?;
        compare(&corpus, &directory, cli.pairs, &mut judge)?;
        if corpus.name == "random" && cli.only.is_none() {
            compare_workers(&corpus, &directory, cli.pairs, &mut judge)?;
        }
    }
    say("")?;
    Ok(judge.reasons)
}

/// Holds figures against their limits.
struct Judge {
    judges_ratios: bool,
    reasons: Vec<String>,
}

impl Judge {
    fn row(&mut self, corpus: &str, variant: Variant, ratio: f64, rss_bytes: u64) {
        let title = format!("{corpus}, {}", variant.title());
        if self.judges_ratios && variant.ratio_is_limited() && ratio > RATIO_MAX {
            self.reasons
                .push(format!("{title}: {ratio:.2} x pure compression, {RATIO_MAX} are allowed"));
        }
        if variant.workers == 1 && rss_bytes > RSS_BYTES_MAX {
            let (rss, max) = (size(rss_bytes), size(RSS_BYTES_MAX));
            self.reasons.push(format!("{title}: memory reached {rss}, {max} are allowed"));
        }
    }

    fn workers(&mut self, speedup: f64) {
        if self.judges_ratios && speedup < SPEEDUP_MIN {
            let words = format!(
                "two workers are {speedup:.2} x as fast as one, at least {SPEEDUP_MIN} are due"
            );
            self.reasons.push(words);
        }
    }
}

fn say(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}

/// Rows of one corpus.
fn compare(
    corpus: &Corpus,
    directory: &Path,
    pairs: usize,
    judge: &mut Judge,
) -> anyhow::Result<()> {
    corpus.warm()?;
    say(&format!(
        "{:<12} {:>11} {:>10} {:>6} {:<11} {:>7} {:>9} {:>8} {:>9} {:>9} {:>6}",
        "",
        "lines/CPU-s",
        "reference",
        "ratio",
        "",
        "limit",
        "wire",
        "wall",
        "RSS",
        "limit",
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
        judge.row(corpus.name, variant, ratio, rss);
        let is_judged = judge.judges_ratios && variant.ratio_is_limited();
        let ratio_max = is_judged.then(|| format!("<= {RATIO_MAX}"));
        let rss_max = (variant.workers == 1).then(|| format!("<= {}", RSS_BYTES_MAX >> 20));
        let line = format!(
            "{:<12} {:>11} {:>10} {ratio:>6.2} {:<11} {:>7} {:>6.1} MB {:>6.2} s {:>5.1} MiB {:>9} {cores:>6.2}",
            variant.title(),
            grouped((lines / outcome.agent_cpu_seconds) as u64),
            grouped((lines / reference.cpu.as_secs_f64()) as u64),
            format!("{:.2}-{:.2}", measured[0].0, measured[measured.len() - 1].0),
            ratio_max.unwrap_or_default(),
            outcome.wire_bytes as f64 / 1e6,
            outcome.wall_seconds,
            rss as f64 / f64::from(1 << 20),
            rss_max.unwrap_or_default(),
        );
        say(line.trim_end())?;
    }
    Ok(())
}

/// One worker against two, into a receiver within this process that costs next to nothing.
fn compare_workers(
    corpus: &Corpus,
    directory: &Path,
    pairs: usize,
    judge: &mut Judge,
) -> anyhow::Result<()> {
    let mut ratios = Vec::new();
    for _ in 0..pairs {
        let one = in_process(corpus, directory, 1)?.as_secs_f64();
        let two = in_process(corpus, directory, 2)?.as_secs_f64();
        say(&format!("one worker {one:.2} s, two {two:.2} s: {:.2} x as fast", one / two))?;
        ratios.push(one / two);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    judge.workers(median);
    let limit =
        if judge.judges_ratios { format!(", limit >= {SPEEDUP_MIN}") } else { String::new() };
    say(&format!("two workers are {median:.2} x as fast as one{limit}"))
}

fn in_process(corpus: &Corpus, directory: &Path, workers: usize) -> anyhow::Result<Duration> {
    let address = sink::start()?;
    let yaml = format!(
        "extensions: {{thyme: {{workers: {workers}}}}}
receivers:
  file_log:
    include: [{}/*/*/*.log]
    start_at: beginning
    include_file_path: true
    operators: [{{type: container}}]
exporters: {{otlp_http: {{endpoint: 'http://{address}', compression: zstd}}}}
service:
  extensions: [thyme]
  pipelines: {{logs: {{receivers: [file_log], exporters: [otlp_http]}}}}
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
