//! What `make gate` counts the instructions of: the agent's stages one by one, each on the same bytes
//! each time, on one thread. Each asserts what it did.

#![allow(missing_docs, reason = "gungraun's macros make undocumented items")]

mod exporter;
mod lines;
mod sink;

use gungraun::{
    Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use std::hint::black_box;

use self::{
    exporter::Exporter,
    lines::{ClosedBatch, Lines},
};

#[library_benchmark]
#[bench::cri_mixed(args = ("cri_mixed"), setup = Lines::new)]
#[bench::cri_random(args = ("cri_random"), setup = Lines::new)]
#[bench::docker_mixed(args = ("docker_mixed"), setup = Lines::new)]
#[bench::raw_mixed(args = ("raw_mixed"), setup = Lines::new)]
#[bench::fragments_mixed(args = ("fragments_mixed"), setup = Lines::new)]
fn parse_and_encode(mut lines: Lines) -> Lines {
    black_box(&mut lines).parse();
    lines
}

#[library_benchmark]
#[bench::zstd(setup = ClosedBatch::new)]
fn close_batch(mut batch: ClosedBatch) -> ClosedBatch {
    black_box(&mut batch).encode();
    batch
}

#[library_benchmark]
#[bench::grpc(args = ("grpc"), setup = Exporter::new)]
#[bench::http(args = ("http"), setup = Exporter::new)]
fn deliver(mut exporter: Exporter) -> Exporter {
    black_box(&mut exporter).deliver();
    exporter
}

#[library_benchmark]
fn simulated_run() -> u64 {
    let lines = thyme_agent::simulation::run_steadily().expect("nothing goes wrong");
    assert!(lines > 2_000, "{lines} lines");
    lines
}

library_benchmark_group!(
    name = stages,
    benchmarks = [parse_and_encode, close_batch, deliver, simulated_run]
);

main!(
    config = LibraryBenchmarkConfig::default()
        .tool(Callgrind::with_args(["--cache-sim=no", "--separate-threads=no"])),
    library_benchmark_groups = stages
);
