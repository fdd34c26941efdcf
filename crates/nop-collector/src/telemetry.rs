//! Pushes the collector's metrics about itself over OTLP, if the standard environment asks for it.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, OTEL_EXPORTER_OTLP_ENDPOINT,
    OTEL_EXPORTER_OTLP_METRICS_ENDPOINT,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;

use crate::collector::Running;
use crate::intake::Intake;
use crate::metrics::{Kind, LATENCY, METRICS, Metric, REFUSED, latency_seconds};
use crate::report::Detail;

/// Starts pushing over OTLP/gRPC to where `OTEL_EXPORTER_OTLP_ENDPOINT` (or its variant for
/// metrics) says, each `OTEL_METRIC_EXPORT_INTERVAL`; `None` when neither is set. Must be called on
/// a tokio runtime. The caller shuts the provider down, which pushes a last time.
///
/// # Errors
/// When the environment asks for something that can't be had.
pub fn push_from_environment(
    running: &Running,
) -> Result<Option<SdkMeterProvider>, ExporterBuildError> {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !set(OTEL_EXPORTER_OTLP_ENDPOINT) && !set(OTEL_EXPORTER_OTLP_METRICS_ENDPOINT) {
        return Ok(None);
    }
    let exporter = MetricExporter::builder().with_tonic().build()?;
    let resource = Resource::builder().with_service_name("nop-collector").build();
    let provider = SdkMeterProvider::builder()
        .with_periodic_exporter(exporter)
        .with_resource(resource)
        .build();
    observe(&provider.meter("nop_collector"), running.intake());
    Ok(Some(provider))
}

fn observe(meter: &Meter, intake: &Arc<Intake>) {
    for metric in &METRICS {
        observe_number(meter, metric, Arc::clone(intake));
    }
    let source = Arc::clone(intake);
    meter
        .u64_observable_counter(REFUSED.0)
        .with_unit("{request}")
        .with_description(REFUSED.1)
        .with_callback(move |observer| {
            for (reason, count) in source.verifier().report(Detail::default()).invalid {
                observer.observe(count, &[KeyValue::new("reason", reason)]);
            }
        })
        .build();
    let source = Arc::clone(intake);
    meter
        .f64_observable_gauge(LATENCY.0)
        .with_unit("s")
        .with_description(LATENCY.1)
        .with_callback(move |observer| {
            let latency_ms = source.verifier().report(Detail::default()).latency_ms;
            for (quantile, seconds) in latency_seconds(latency_ms) {
                observer.observe(seconds, &[KeyValue::new("quantile", quantile)]);
            }
        })
        .build();
}

fn observe_number(meter: &Meter, metric: &'static Metric, source: Arc<Intake>) {
    let read = move || (metric.read)(&source.verifier().report(Detail::default()));
    match metric.kind {
        Kind::Counter => {
            meter
                .u64_observable_counter(metric.name)
                .with_unit(metric.unit)
                .with_description(metric.description)
                .with_callback(move |observer| observer.observe(read(), &[]))
                .build();
        }
        Kind::Gauge => {
            meter
                .u64_observable_gauge(metric.name)
                .with_unit(metric.unit)
                .with_description(metric.description)
                .with_callback(move |observer| observer.observe(read(), &[]))
                .build();
        }
    }
}
