//! The keys of `service.telemetry`: the agent's own logs, resource and metrics.

use std::time::Duration;

use super::{
    LogEncoding, LogLevel, MetricsReader, OtlpReaderConfig, PrometheusConfig, Protocol,
    TelemetryConfig, Temporality,
    exporter::{check_endpoint, headers, refuse_credentials},
    extension::is_host,
    read::{Field, Section, all},
};

// The declarative configuration counts periods in milliseconds.
const PERIOD_MS_MAX: i64 = 24 * 3600 * 1000;
const INTERVAL_MS_DEFAULT: i64 = 60_000;
const READER_TIMEOUT_MS_DEFAULT: i64 = 30_000;
const EXPORT_TIMEOUT_MS_DEFAULT: i64 = 10_000;

/// Reads the section.
pub(super) fn read(body: &Section<'_>) -> TelemetryConfig {
    let default = TelemetryConfig::default();
    let logs = body
        .field("logs")
        .and_then(|field| field.section(LOGS_LATER, |logs| Some((level(logs), encoding(logs)))));
    let (log_level, log_encoding) = logs.unwrap_or((default.log_level, default.log_encoding));
    let readers = body.field("metrics").and_then(|field| field.section(&["views"], metrics));
    if let Some(traces) = body.field("traces") {
        traces.refuse("thyme makes no traces of its own yet");
    }
    TelemetryConfig {
        log_level,
        log_encoding,
        resource: body.field("resource").and_then(|field| resource(&field)).unwrap_or_default(),
        readers: readers.unwrap_or(default.readers),
    }
}

const LOGS_LATER: &[&str] = &[
    "development",
    "disable_caller",
    "disable_stacktrace",
    "disable_zap_resource",
    "error_output_paths",
    "initial_fields",
    "output_paths",
    "processors",
    "sampling",
];

fn level(logs: &Section<'_>) -> LogLevel {
    let words = [
        ("debug", LogLevel::Debug),
        ("info", LogLevel::Info),
        ("warn", LogLevel::Warn),
        ("error", LogLevel::Error),
        ("DEBUG", LogLevel::Debug),
        ("INFO", LogLevel::Info),
        ("WARN", LogLevel::Warn),
        ("ERROR", LogLevel::Error),
    ];
    logs.one_of("level", &words, LogLevel::Info)
}

fn encoding(logs: &Section<'_>) -> LogEncoding {
    let words = [("console", LogEncoding::Console), ("json", LogEncoding::Json)];
    logs.one_of("encoding", &words, LogEncoding::Console)
}

/// Either a mapping of names to texts, where nothing takes an attribute away, or the declarative
/// form `attributes: [{name, value}]`.
fn resource(field: &Field<'_>) -> Option<Vec<(String, Option<String>)>> {
    let entries = field.entries()?;
    if entries.iter().any(|(name, _)| matches!(*name, "attributes" | "schema_url")) {
        return field
            .section(&["schema_url", "attributes_list", "detection/development"], |body| {
                all(body.required("attributes")?.items()?.iter().map(attribute))
            });
    }
    let inline = |(name, value): (&str, Field<'_>)| {
        let value = if value.is_null() { None } else { Some(value.text_or_empty()?) };
        Some((name.to_owned(), value))
    };
    all(entries.into_iter().map(inline))
}

fn attribute(item: &Field<'_>) -> Option<(String, Option<String>)> {
    item.section(&["type"], |body| {
        let (name, value) = (body.required("name"), body.required("value"));
        let (name, value) = (name?, value?);
        Some((name.text()?, Some(value.text_or_empty()?)))
    })
}

fn metrics(body: &Section<'_>) -> Option<Vec<MetricsReader>> {
    let levels = [("none", false), ("basic", true), ("normal", true), ("detailed", true)];
    let wanted = body.one_of("level", &levels, true);
    let default = TelemetryConfig::default().readers;
    let readers = match body.field("readers") {
        Some(field) => all(field.items()?.iter().map(reader))?,
        None => default,
    };
    if wanted && readers.is_empty() {
        let message = "`readers` must not be empty unless `level` is none";
        body.refuse_of(&["level", "readers"], message);
    }
    Some(if wanted { readers } else { Vec::new() })
}

/// `pull: {exporter: {prometheus: ...}}` or `periodic: {exporter: {otlp: ...}}`.
fn reader(item: &Field<'_>) -> Option<MetricsReader> {
    item.section(&[], |body| match (body.field("pull"), body.field("periodic")) {
        (Some(pull), None) => pull.section(&["cardinality_limits", "producers"], |pull| {
            pull.required("exporter")?.section(&[], |exporter| {
                exporter.required("prometheus")?.section(PROMETHEUS_LATER, prometheus)
            })
        }),
        (None, Some(periodic)) => {
            periodic.section(&["cardinality_limits", "producers"], |periodic| {
                let interval = milliseconds(periodic, "interval", INTERVAL_MS_DEFAULT);
                let timeout = milliseconds(periodic, "timeout", READER_TIMEOUT_MS_DEFAULT);
                periodic.required("exporter")?.section(&["console"], |exporter| {
                    exporter.required("otlp")?.section(OTLP_LATER, |otlp| {
                        Some(MetricsReader::Otlp(otlp_reader(otlp, interval, timeout)?))
                    })
                })
            })
        }
        _ => {
            body.refuse("expected one of `pull` and `periodic`");
            None
        }
    })
}

fn milliseconds(body: &Section<'_>, key: &'static str, default: i64) -> Duration {
    Duration::from_millis(body.integer(key, 1..=PERIOD_MS_MAX, default).unsigned_abs())
}

const PROMETHEUS_LATER: &[&str] = &["with_resource_constant_labels"];

fn prometheus(body: &Section<'_>) -> Option<MetricsReader> {
    let default = PrometheusConfig::default();
    let port = body.integer("port", 0..=i64::from(u16::MAX), i64::from(default.port));
    Some(MetricsReader::Prometheus(PrometheusConfig {
        host: body.field("host").and_then(|field| host(&field)).unwrap_or(default.host),
        port: u16::try_from(port).expect("the range is that of a port"),
        without_scope_info: body.flag("without_scope_info", default.without_scope_info),
        without_type_suffix: body.flag("without_type_suffix", default.without_type_suffix),
        without_units: body.flag("without_units", default.without_units),
    }))
}

/// A name or an address to listen on.
fn host(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    if is_host(&text) {
        return Some(text);
    }
    let expected =
        "expected a name or an address without brackets and port, such as localhost or ::1";
    field.refuse(format!("{expected}, found {}", field.found()));
    None
}

const OTLP_LATER: &[&str] = &[
    "certificate",
    "client_certificate",
    "client_key",
    "compression",
    "default_histogram_aggregation",
    "headers_list",
];

fn otlp_reader(
    body: &Section<'_>,
    interval: Duration,
    reader_timeout: Duration,
) -> Option<OtlpReaderConfig> {
    let protocols = [("grpc", Protocol::Grpc), ("http/protobuf", Protocol::Http)];
    let temporalities = [
        ("cumulative", Temporality::Cumulative),
        ("delta", Temporality::Delta),
        ("lowmemory", Temporality::LowMemory),
    ];
    let protocol = body.required("protocol").and_then(|field| field.one_of(&protocols));
    let insecure = body.flag("insecure", false);
    let endpoint = body.required("endpoint").and_then(|field| url(&field, insecure));
    let timeout = milliseconds(body, "timeout", EXPORT_TIMEOUT_MS_DEFAULT);
    let temporality =
        body.one_of("temporality_preference", &temporalities, Temporality::Cumulative);
    // Which names of headers there may be is the protocol's to say; unknown, it is the wider one.
    let of_protocol = protocol.unwrap_or(Protocol::Http);
    let headers = body.field("headers").and_then(|field| headers(&field, of_protocol));
    Some(OtlpReaderConfig {
        interval,
        timeout: timeout.min(reader_timeout),
        protocol: protocol?,
        endpoint: endpoint?,
        headers: headers.unwrap_or_default(),
        temporality,
        proxy: None,
    })
}

/// A URL; without a scheme `insecure` decides, as in the Collector.
fn url(field: &Field<'_>, insecure: bool) -> Option<String> {
    let text = field.text()?;
    if refuse_credentials(field, &text) {
        return None;
    }
    let url = match (text.contains("://"), insecure) {
        (true, _) => text,
        (false, true) => format!("http://{text}"),
        (false, false) => format!("https://{text}"),
    };
    if let Err(reason) = check_endpoint(&url, Protocol::Http) {
        let found = field.found();
        field.refuse(format!(
            "expected a URL, such as http://collector:4317, found {found}: {reason}"
        ));
        return None;
    }
    Some(url)
}
