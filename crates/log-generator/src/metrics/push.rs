//! Pushes the metrics by OTLP/gRPC where the standard `OTEL_EXPORTER_OTLP_*` environment asks for it.
//! Adds no numbers of its own.

use std::env;
use std::sync::Arc;

use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};

use super::{Instrument, METRICS, Metric, Metrics};

/// Name under which the metrics arrive unless `OTEL_SERVICE_NAME` says another.
const SERVICE_NAME: &str = "log-generator";

/// Why metrics can't be pushed as the environment asks for it.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Only gRPC is built in.
    #[error("OTEL_EXPORTER_OTLP_PROTOCOL={0} is not supported here, only grpc")]
    Protocol(String),
    /// TLS is not built in.
    #[error("{0}: an https endpoint is not supported here, only http")]
    Tls(String),
    /// What the exporter says.
    #[error("OTLP exporter: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Starts pushing if the environment names an endpoint for metrics. To be called inside a tokio
/// runtime that is driven while metrics are to be pushed.
///
/// # Errors
/// The environment asks for what isn't built in, or names no valid endpoint.
pub fn start(metrics: &Arc<Metrics>) -> Result<Option<SdkMeterProvider>, PushError> {
    let Some(endpoint) = first_of("ENDPOINT") else { return Ok(None) };
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_METRICS_EXPORTER", "none") {
        return Ok(None);
    }
    if let Some(protocol) = first_of("PROTOCOL").filter(|protocol| protocol != "grpc") {
        return Err(PushError::Protocol(protocol));
    }
    if endpoint.starts_with("https:") {
        return Err(PushError::Tls(endpoint));
    }
    let exporter = MetricExporter::builder().with_tonic().build()?;
    let resource = match env::var_os("OTEL_SERVICE_NAME") {
        Some(_) => Resource::builder().build(),
        None => Resource::builder().with_service_name(SERVICE_NAME).build(),
    };
    let provider = SdkMeterProvider::builder()
        .with_reader(PeriodicReader::builder(exporter).build())
        .with_resource(resource)
        .build();
    let meter = provider.meter(SERVICE_NAME);
    METRICS.iter().for_each(|metric| observe(&meter, metric, metrics));
    Ok(Some(provider))
}

fn observe(meter: &Meter, metric: &'static Metric, metrics: &Arc<Metrics>) {
    let metrics = Arc::clone(metrics);
    match metric.kind {
        Instrument::Counter => {
            meter
                .f64_observable_counter(metric.otlp)
                .with_unit(metric.unit)
                .with_description(metric.help)
                .with_callback(move |observer| observer.observe((metric.read)(&metrics), &[]))
                .build();
        }
        Instrument::Gauge => {
            meter
                .f64_observable_gauge(metric.otlp)
                .with_unit(metric.unit)
                .with_description(metric.help)
                .with_callback(move |observer| observer.observe((metric.read)(&metrics), &[]))
                .build();
        }
    }
}

/// The metrics' own setting, or that of all signals; empty ones count as unset.
fn first_of(setting: &str) -> Option<String> {
    ["OTEL_EXPORTER_OTLP_METRICS_", "OTEL_EXPORTER_OTLP_"]
        .into_iter()
        .find_map(|prefix| env::var(format!("{prefix}{setting}")).ok().filter(|v| !v.is_empty()))
}

fn is(variable: &str, expected: &str) -> bool {
    env::var(variable).is_ok_and(|value| value.eq_ignore_ascii_case(expected))
}
