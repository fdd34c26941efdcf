//! The reference: what compressing the same requests costs and nothing else. zstd level 1 of the
//! same library, one thread, one context and one buffer for all.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use thyme_agent::config::Compression;
use zstd_safe::{CCtx, CParameter, compress_bound};

use crate::{assemble, corpus::Corpus};

/// What compressing a corpus's requests came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference {
    /// Processor time of the compressor alone.
    pub cpu: Duration,
    /// Records in the requests.
    pub records: u64,
    /// Bytes of the requests.
    pub uncompressed_bytes: u64,
    /// Bytes that came out.
    pub compressed_bytes: u64,
}

/// Encodes the corpus as the agent does, and times the compression of each request.
pub fn measure(corpus: &Corpus) -> anyhow::Result<Reference> {
    let mut containers = assemble::open(&corpus.files)?;
    let mut zstd = CCtx::create();
    zstd.set_parameter(CParameter::CompressionLevel(1)).map_err(zstd_error)?;
    let mut message = Vec::new();
    let mut out = Vec::with_capacity(compress_bound(assemble::LIMITS.bytes_max));
    let mut reference = Reference::default();
    reference.records =
        assemble::requests(&mut containers, Compression::None, |encoder, encoded| {
            message.clear();
            for chunk in &encoded.body {
                message.extend_from_slice(chunk);
            }
            drop(encoded.body);
            encoder.recycle(encoded.buffer);
            out.clear();
            let start = thread_cpu();
            let bytes = zstd.compress2(&mut out, &message).map_err(zstd_error)?;
            reference.cpu += thread_cpu() - start;
            reference.uncompressed_bytes += message.len() as u64;
            reference.compressed_bytes += bytes as u64;
            Ok(())
        })?;
    anyhow::ensure!(reference.records == corpus.lines, "not every line became a record");
    Ok(reference)
}

fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn zstd_error(code: usize) -> anyhow::Error {
    anyhow::anyhow!("zstd: {}", zstd_safe::get_error_name(code))
}
