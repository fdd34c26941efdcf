//! What the fuzzer calls: one function a target, which takes any bytes and panics where the product
//! breaks a promise. The fuzzer itself (`fuzz/`) is a workspace of its own; here nothing but stable
//! Rust is needed, so that the tests replay every input that was ever found.

mod input;

mod cri;
mod docker;
mod lines;

mod otlp;
mod otlp_json;
mod decompress;
mod sink_answer;

mod checkpoint;
mod journal;
mod spool;

mod config;
mod endpoint;
mod pattern;

mod manifest;
mod stamp;

/// Something to be fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its directory in `fuzz/corpus`.
    pub name: &'static str,
    /// Checks one input.
    ///
    /// # Panics
    /// When a promise is broken.
    pub check: fn(&[u8]),
}

/// All of them, in the order of the flow of data.
pub const TARGETS: [Target; 15] = [
    Target { name: "cri", check: cri::check },
    Target { name: "docker", check: docker::check },
    Target { name: "lines", check: lines::check },
    Target { name: "otlp", check: otlp::check },
    Target { name: "otlp_json", check: otlp_json::check },
    Target { name: "decompress", check: decompress::check },
    Target { name: "sink_answer", check: sink_answer::check },
    Target { name: "checkpoint", check: checkpoint::check },
    Target { name: "journal", check: journal::check },
    Target { name: "spool", check: spool::check },
    Target { name: "config", check: config::check },
    Target { name: "endpoint", check: endpoint::check },
    Target { name: "pattern", check: pattern::check },
    Target { name: "manifest", check: manifest::check },
    Target { name: "stamp", check: stamp::check },
];

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
