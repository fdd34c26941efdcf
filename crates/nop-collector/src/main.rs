//! Entry point of `nop-collector`: the command line, the signals, and what is printed.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use thyme_core::{causes::in_one_line, quantity::parse_count_from_1};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use nop_collector::limits::{BUFFERED_BYTES_MAX, DECOMPRESSED_BYTES_MAX_DEFAULT};
use nop_collector::report::Report;
use nop_collector::{Collector, Options, Running, TlsFiles, fetch, manifest, merge, telemetry};
use tokio::signal::unix::{SignalKind, signal};

/// Receives OTLP logs, counts them, and proves loss, duplicates and latency from their stamps
#[derive(Debug, Parser)]
#[command(version = thyme_core::version!(), args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(flatten)]
    serve: Serve,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Without a subcommand: receives until SIGTERM or Ctrl-C
#[derive(Debug, Args)]
struct Serve {
    /// Where OTLP/gRPC is served; port 0 lets the system choose, and the port is printed
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4317")]
    grpc: String,
    /// Where OTLP/HTTP is served
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4318")]
    http: String,
    /// Where the report is served, and what else `GET /` lists
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    admin: String,
    /// Largest decompressed request that is accepted, MiB
    #[arg(
        long,
        value_name = "MIB",
        default_value_t = (DECOMPRESSED_BYTES_MAX_DEFAULT >> 20) as u64,
        value_parser = parse_mib
    )]
    decompressed_mib_max: u64,
    /// Certificate of the two OTLP ports, PEM; exchanged while it runs, it counts from the next
    /// connection on
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Authorities that clients must have a certificate of, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
}

const MERGE_STATUS: &str = "\
EXIT STATUS
  0  lines came, and by the manifests none was lost; none was duplicated
  1  something is missing or came twice; or there is no --manifest, so that nobody knows what was lost
  2  no verdict: a replica or a manifest can't be had";

#[derive(Debug, Subcommand)]
enum Command {
    /// Unites the reports of several replicas into one verdict, as JSON
    #[command(after_help = MERGE_STATUS)]
    Merge {
        /// The replicas' admin addresses, such as http://127.0.0.1:8080
        #[arg(value_name = "URL", required = true)]
        urls: Vec<String>,
        /// What was written: manifest files, or admin addresses of generators
        #[arg(long, value_name = "FILE-OR-URL", num_args = 1..)]
        manifest: Vec<String>,
    },
}

fn parse_mib(text: &str) -> Result<u64, String> {
    let max = (BUFFERED_BYTES_MAX >> 20) as u64;
    let mib = parse_count_from_1(text)?;
    if mib > max { Err(format!("must be at most {max}")) } else { Ok(mib) }
}

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.context("can't start threads").and_then(|runtime| {
        runtime.block_on(async {
            match command_line.command {
                None => serve(command_line.serve).await.map(|()| ExitCode::SUCCESS),
                Some(Command::Merge { urls, manifest }) => run_merge(&urls, &manifest).await,
            }
        })
    });
    done.unwrap_or_else(|error| {
        // Nothing is left to be done if standard error is closed, too.
        let _closed = writeln!(std::io::stderr(), "nop-collector: {}", in_one_line(error.as_ref()));
        ExitCode::from(2)
    })
}

async fn serve(arguments: Serve) -> Result<()> {
    let decompressed_bytes_max = usize::try_from(arguments.decompressed_mib_max << 20)?;
    let client_authorities = arguments.tls_client_ca;
    let pair = arguments.tls_cert.zip(arguments.tls_key);
    let tls = pair.map(|(certificate, key)| TlsFiles { certificate, key, client_authorities });
    let Serve { grpc, http, admin, .. } = arguments;
    let options = Options { grpc, http, admin, decompressed_bytes_max, tls, ..Options::default() };
    // Caught before the address is printed: whoever reads it may stop us at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = Collector::start(options).await?;
    let metrics = telemetry::push_from_environment(&running)
        .context("the OTEL_EXPORTER_OTLP_* environment")?;
    print_addresses(&running)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    running.shut_down().await;
    if let Some(metrics) = metrics {
        // The last push blocks; that it fails must not fail the collector.
        let _pushed = tokio::task::spawn_blocking(move || metrics.shutdown()).await;
    }
    Ok(())
}

/// One line, and the only one on standard output, for whoever started us with port 0.
fn print_addresses(running: &Running) -> Result<()> {
    let addresses = serde_json::json!({
        "grpc": running.grpc_addr(),
        "http": running.http_addr(),
        "admin": running.admin_addr(),
    });
    writeln!(std::io::stdout().lock(), "{addresses}").context("standard output")
}

async fn run_merge(urls: &[String], manifests: &[String]) -> Result<ExitCode> {
    let mut reports = Vec::new();
    for url in urls {
        let text = fetch::report(url).await?;
        let report: Report = serde_json::from_slice(&text).with_context(|| url.clone())?;
        reports.push(report);
    }
    let mut lines = None;
    for place in manifests {
        let text = fetch::manifest(place).await?;
        let some = manifest::parse(&text).with_context(|| place.clone())?;
        lines.get_or_insert_with(Vec::new).extend(some);
    }
    let verdict = merge::unite(&reports, lines)?;
    writeln!(std::io::stdout().lock(), "{}", serde_json::to_string(&verdict)?)
        .context("standard output")?;
    Ok(if verdict.lossless { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
