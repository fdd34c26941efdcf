//! The periodic OTLP reader: sends the agent's metrics with `opentelemetry-otlp`.
//!
//! The reader has a thread of its own, where no async reactor runs: what connects is given the
//! agent's runtime.

use std::{collections::HashMap, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
    tonic_types::{metadata::MetadataMap, transport::ClientTlsConfig},
};
use opentelemetry_sdk::metrics::{PeriodicReader, Temporality};
use tokio::runtime::Handle;

use super::{TelemetryError, http_client::Client};
use crate::config::{self, OtlpReaderConfig, Protocol, Secret};

/// Builds the reader; it exports after each interval.
pub(super) fn reader(
    config: &OtlpReaderConfig,
    runtime: &Handle,
) -> Result<PeriodicReader<MetricExporter>, TelemetryError> {
    let exporter = exporter(config, runtime)?;
    Ok(PeriodicReader::builder(exporter).with_interval(config.interval).build())
}

/// What the reader sends with.
pub(super) fn exporter(
    config: &OtlpReaderConfig,
    runtime: &Handle,
) -> Result<MetricExporter, TelemetryError> {
    let exporter = match config.protocol {
        Protocol::Grpc => grpc(config, runtime),
        Protocol::Http => http(config, Arc::new(Client::new(config, runtime)?)),
    };
    exporter.map_err(|source| TelemetryError::Otlp { endpoint: config.endpoint.clone(), source })
}

fn grpc(config: &OtlpReaderConfig, runtime: &Handle) -> Result<MetricExporter, ExporterBuildError> {
    if let Some(proxy) = &config.proxy {
        // As the library has it.
        tracing::warn!(
            endpoint = config.endpoint,
            proxy = proxy.authority(),
            "the agent's own metrics are pushed over gRPC past the proxy: with http/protobuf they would go through it"
        );
    }
    // The channel spawns its tasks where it is made.
    let _entered = runtime.enter();
    let mut metadata = HeaderMap::new();
    for (name, value) in &config.headers {
        let value = HeaderValue::from_str(value.expose());
        let (Ok(name), Ok(mut value)) = (name.parse::<HeaderName>(), value) else {
            continue; // Refused by the configuration's parser.
        };
        value.set_sensitive(true);
        metadata.append(name, value);
    }
    let mut builder = MetricExporter::builder()
        .with_temporality(temporality(config.temporality))
        .with_tonic()
        .with_endpoint(&config.endpoint)
        .with_timeout(config.timeout)
        .with_metadata(MetadataMap::from_headers(metadata));
    if config.endpoint.starts_with("https://") {
        builder = builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    builder.build()
}

fn http(
    config: &OtlpReaderConfig,
    client: Arc<Client>,
) -> Result<MetricExporter, ExporterBuildError> {
    let plain = |(name, value): &(String, Secret)| (name.clone(), value.expose().to_owned());
    let headers: HashMap<_, _> = config.headers.iter().map(plain).collect();
    MetricExporter::builder()
        .with_temporality(temporality(config.temporality))
        .with_http()
        .with_endpoint(&config.endpoint)
        .with_timeout(config.timeout)
        .with_headers(headers)
        .with_shared_http_client(client)
        .build()
}

fn temporality(configured: config::Temporality) -> Temporality {
    match configured {
        config::Temporality::Cumulative => Temporality::Cumulative,
        config::Temporality::Delta => Temporality::Delta,
        config::Temporality::LowMemory => Temporality::LowMemory,
    }
}
