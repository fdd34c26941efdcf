//! The agent's stages from a file's bytes to a request's, without discovery, checkpoints and
//! network: what a worker does to files, on one thread.

use std::{fs::File, os::unix::fs::FileExt, path::PathBuf};

use anyhow::Context;
use thyme_agent::{
    batch::{Batch, BatchLimits},
    config::{Compression, ContainerFormat, LineFormat},
    encode::{Encoded, Encoder},
    enrich::PathMetadata,
    limits::READ_BYTES,
    parse::{
        Chunk, LineState, ParseCounts, Stop, parse_lines, partial::Partials, suffix::Suffixes,
    },
};
use thyme_core::{
    cri::CriParser,
    otlp::encode::{Value, put_record_attribute},
};

/// The agent's default limits of a request.
pub const LIMITS: BatchLimits = BatchLimits { bytes_max: 3584 * 1024, records_max: 8192 };

/// What stands for a container.
pub struct Container {
    file: File,
    offset: u64,
    resource: Vec<u8>,
    lines: LineState,
}

/// The state of lines as the agent's default configuration with `include_file_path` has it.
pub fn line_state(path: &str) -> LineState {
    let mut attributes = Vec::new();
    put_record_attribute(&mut attributes, "log.file.path", Value::Text(path));
    let mut suffixes = Suffixes::new(&attributes);
    suffixes.set_observed_time(1);
    LineState {
        cri: CriParser::default(),
        suffixes,
        partials: Partials::default(),
        format: LineFormat::Container {
            format: ContainerFormat::Auto,
            add_metadata_from_filepath: true,
        },
        body_bytes_max: 1 << 20,
    }
}

/// Opens files as containers.
pub fn open(files: &[PathBuf]) -> anyhow::Result<Vec<Container>> {
    files
        .iter()
        .map(|path| {
            let metadata = PathMetadata::from_path(path).context("not a container's log")?;
            Ok(Container {
                file: File::open(path)?,
                offset: 0,
                resource: metadata.encode_resource(),
                lines: line_state(&path.to_string_lossy()),
            })
        })
        .collect()
}

/// Reads the containers in turn to their ends, and gives each request to `take`, which may hand
/// the encoder its buffer back. Returns the count of records.
pub fn requests(
    containers: &mut [Container],
    compression: Compression,
    mut take: impl FnMut(&mut Encoder, Encoded) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let mut encoder = Encoder::new(compression, 1, 2 * LIMITS.bytes_max)?;
    let mut batch = Batch::new(LIMITS);
    let mut counts = ParseCounts::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut open: Vec<usize> = (0..containers.len()).collect();
    while !open.is_empty() {
        let mut still_open = Vec::new();
        for &number in &open {
            let read = containers[number].file.read_at(&mut buffer, containers[number].offset)?;
            let mut at = 0;
            loop {
                let container = &mut containers[number];
                let (consumed, stop) = parse_some(
                    container,
                    number as u32,
                    &buffer[at..read],
                    &mut batch,
                    &mut counts,
                );
                at += consumed;
                if stop == Stop::NoNewline {
                    break;
                }
                let encoded = encode(&mut encoder, &mut batch, containers)?;
                take(&mut encoder, encoded)?;
            }
            if at > 0 {
                still_open.push(number);
            }
        }
        open = still_open;
    }
    if !batch.is_empty() {
        let encoded = encode(&mut encoder, &mut batch, containers)?;
        take(&mut encoder, encoded)?;
    }
    Ok(counts.records)
}

fn encode(
    encoder: &mut Encoder,
    batch: &mut Batch,
    containers: &[Container],
) -> anyhow::Result<Encoded> {
    Ok(encoder.encode(batch, |number| &containers[number as usize].resource)?)
}

fn parse_some(
    container: &mut Container,
    number: u32,
    bytes: &[u8],
    batch: &mut Batch,
    counts: &mut ParseCounts,
) -> (usize, Stop) {
    batch.begin_segment(number, container.resource.len());
    let chunk = Chunk { bytes, file: number, offset: container.offset, utf8: true };
    let (consumed, stop) = parse_lines(chunk, &mut container.lines, batch, counts);
    batch.end_segment();
    container.offset += consumed as u64;
    (consumed, stop)
}
