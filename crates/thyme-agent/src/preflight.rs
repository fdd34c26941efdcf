//! What the start would refuse, found without starting anything: `validate` and the start ask here
//! first, so that neither takes what the other refuses. It runs the constructors that the start
//! runs; what only the start can know (whether ports are free, whether the state directory can be
//! had) is not asked.

use tokio::runtime::Handle;

use crate::{
    config::{Config, ConfigError, Problem},
    discover::Source,
    export, telemetry,
};

/// Checks the configuration; OTLP readers are made on `runtime`, and send nothing.
///
/// # Errors
/// All that is wrong, each with its line and key.
pub fn check(config: &Config, runtime: &Handle) -> Result<(), ConfigError> {
    let mut problems: Vec<Problem> = Vec::new();
    for receiver in &config.receivers {
        if let Err(error) = Source::new(receiver) {
            let key = format!("receivers::{}", receiver.id);
            problems.push(config.origin.problem(&key, error.to_string()));
        }
    }
    if let Err(error) = export::check(&config.exporter) {
        let key = error.key(&config.exporter);
        problems.push(config.origin.problem(&key, error.to_string()));
    }
    for (index, error) in telemetry::check(&config.telemetry, runtime) {
        let key = format!("service::telemetry::metrics::readers[{index}]");
        problems.push(config.origin.problem(&key, error.to_string()));
    }
    problems.sort_by_key(|problem| problem.line);
    if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems)) }
}
