//! What the agent says about itself: its log on stderr, and its metrics by Prometheus pull and OTLP
//! push.
//!
//! The stages count in [`Metrics`]; here are only instruments that look at it when somebody asks.
//! This module counts nothing on the way of a line, and serves nothing: `admin` has the listeners.

mod catalog;
mod http_client;
mod instruments;
mod log_writer;
mod logs;
mod process;
mod push;
mod resource;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};
use tokio::runtime::Handle;

pub use log_writer::{LogWriter, say_last_words};
pub use logs::start_log;

use crate::{
    config::{Config, MetricsReader, PrometheusConfig, TelemetryConfig},
    metrics::Metrics,
};

/// Longest wait for the last export when the agent stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the agent can't speak about itself.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log has a writer already.
    #[error("the log can't be started: {0}")]
    Log(#[from] tracing_subscriber::util::TryInitError),
    /// It has no thread.
    #[error("the log's thread can't be started: {0}")]
    LogThread(std::io::Error),
    /// A Prometheus reader can't be built.
    #[error("the Prometheus reader can't be built: {0}")]
    Prometheus(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// An OTLP exporter of metrics can't be built.
    #[error("the OTLP exporter of metrics for {endpoint} can't be built: {source}")]
    Otlp {
        /// The reader's endpoint.
        endpoint: String,
        /// What is wrong with it.
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// The proxy on the way to an endpoint can't be used.
    #[error(transparent)]
    Proxy(crate::export::ExportError),
    /// The authorities that HTTPS needs can't be read.
    #[error("no authority to trust for {endpoint}: {source}")]
    Authorities {
        /// The reader's endpoint.
        endpoint: String,
        /// What the operating system says.
        source: std::io::Error,
    },
}

/// What is wrong with readers, each with its number from 0; nothing is sent or served.
pub(crate) fn check(config: &TelemetryConfig, runtime: &Handle) -> Vec<(usize, TelemetryError)> {
    let readers = config.readers.iter().enumerate();
    let error = |(index, reader): (usize, &MetricsReader)| {
        let made = match reader {
            MetricsReader::Prometheus(page) => PrometheusPage::new(page).exporter().map(drop),
            MetricsReader::Otlp(config) => push::exporter(config, runtime).map(drop),
        };
        Some((index, made.err()?))
    };
    readers.filter_map(error).collect()
}

/// The instruments with their readers; readers stop when it is dropped.
#[derive(Debug)]
pub struct Telemetry {
    provider: SdkMeterProvider,
    pages: Vec<PrometheusPage>,
}

impl Telemetry {
    /// Puts instruments over `metrics` and starts the readers of `config.telemetry`. OTLP over HTTP
    /// and gRPC run on `runtime`.
    ///
    /// # Errors
    /// A reader can't be built; an endpoint that doesn't answer is no error.
    pub fn start(
        config: &Config,
        metrics: Arc<Metrics>,
        runtime: &Handle,
    ) -> Result<Self, TelemetryError> {
        let mut builder = SdkMeterProvider::builder()
            .with_resource(resource::resource(&config.telemetry.resource));
        let mut pages = Vec::new();
        for reader in &config.telemetry.readers {
            builder = match reader {
                MetricsReader::Prometheus(config) => {
                    let page = PrometheusPage::new(config);
                    let exporter = page.exporter()?;
                    pages.push(page);
                    builder.with_reader(exporter)
                }
                MetricsReader::Otlp(config) => builder.with_reader(push::reader(config, runtime)?),
            };
        }
        let provider = builder.build();
        let meter = provider.meter("thyme-agent");
        // Without a reader there is nothing to show, and the SDK complains about each instrument.
        if !config.telemetry.readers.is_empty() {
            // Set once: the counters belong to one pipeline and are shown by one telemetry.
            metrics.batch_send_size.get_or_init(|| instruments::batch_send_size(&meter));
            instruments::register(&meter, config, metrics);
        }
        Ok(Self { provider, pages })
    }

    /// One page for each Prometheus reader.
    pub fn pages(&self) -> &[PrometheusPage] {
        &self.pages
    }

    /// Exports a last time and stops the readers. It blocks, at most for a few seconds: not for a
    /// thread of the runtime.
    pub fn shutdown(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT) {
            tracing::warn!(%error, "the last export of the agent's own metrics failed");
        }
    }
}

/// What a Prometheus server fetches.
#[derive(Clone, Debug)]
pub struct PrometheusPage {
    config: PrometheusConfig,
    registry: Registry,
}

impl PrometheusPage {
    fn new(config: &PrometheusConfig) -> Self {
        Self { config: config.clone(), registry: Registry::new() }
    }

    fn exporter(&self) -> Result<opentelemetry_prometheus::PrometheusExporter, TelemetryError> {
        let mut exporter = opentelemetry_prometheus::exporter()
            .with_registry(self.registry.clone())
            .scope_info_enabled(!self.config.without_scope_info);
        if self.config.without_type_suffix {
            exporter = exporter.without_counter_suffixes();
        }
        if self.config.without_units {
            exporter = exporter.without_units();
        }
        Ok(exporter.build()?)
    }

    /// The page now, in Prometheus' text format.
    ///
    /// # Errors
    /// The instruments can't be written as text.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
