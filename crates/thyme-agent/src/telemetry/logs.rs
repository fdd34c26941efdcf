//! The agent's own log: on stderr, as lines for people or as JSON.

use std::io::stderr;

use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use super::TelemetryError;
use crate::config::{LogEncoding, LogLevel, TelemetryConfig};

/// Libraries whose words below a warning are about their own work, not the agent's.
const QUIET: [&str; 9] = [
    "h2",
    "hyper",
    "hyper_util",
    "mio",
    "opentelemetry",
    "opentelemetry_sdk",
    "rustls",
    "tonic",
    "tower",
];

/// Starts the log, once in a process.
///
/// # Errors
/// There is a log already.
pub fn start_log(config: &TelemetryConfig) -> Result<(), TelemetryError> {
    let layer = fmt::layer().with_writer(stderr);
    let layer = match config.log_encoding {
        LogEncoding::Console => layer.with_ansi(false).boxed(),
        LogEncoding::Json => layer.json().flatten_event(true).boxed(),
    };
    let filter = filter(config.log_level);
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    Ok(())
}

fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let quiet = QUIET.into_iter().map(|target| (target, level.min(LevelFilter::WARN)));
    Targets::new().with_default(level).with_targets(quiet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    /// Scenario: events of the agent and of its HTTP/2 library at each level.
    /// Guarantees: the configured level counts for the agent, warnings at least for libraries.
    #[test]
    fn libraries_are_quiet() {
        let debug = filter(LogLevel::Debug);
        assert!(debug.would_enable("thyme_agent::tail", &Level::DEBUG));
        assert!(!debug.would_enable("h2::codec", &Level::INFO));
        assert!(debug.would_enable("h2::codec", &Level::WARN));
        let error = filter(LogLevel::Error);
        assert!(!error.would_enable("thyme_agent", &Level::WARN));
        assert!(!error.would_enable("hyper", &Level::WARN));
    }
}
