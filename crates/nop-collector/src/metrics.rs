//! The collector's metrics about itself: one table, read by the Prometheus page and by the OTLP
//! push, so that both always say the same.

use std::fmt::Write;

use crate::report::{LatencyMs, Report};

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows, until a reset.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A metric that is one number of the report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    /// By OpenTelemetry's conventions: without the unit.
    pub(crate) name: &'static str,
    /// In UCUM.
    pub(crate) unit: &'static str,
    pub(crate) description: &'static str,
    pub(crate) kind: Kind,
    pub(crate) read: fn(&Report) -> u64,
}

/// Every metric but the two with attributes: refused requests, and the latency.
pub(crate) const METRICS: [Metric; 10] = [
    Metric {
        name: "nop_collector_records",
        unit: "{record}",
        description: "Log records in accepted requests.",
        kind: Kind::Counter,
        read: |report| report.records,
    },
    Metric {
        name: "nop_collector_requests",
        unit: "{request}",
        description: "Accepted requests.",
        kind: Kind::Counter,
        read: |report| report.requests,
    },
    Metric {
        name: "nop_collector_wire",
        unit: "By",
        description: "Bodies of accepted requests as they came.",
        kind: Kind::Counter,
        read: |report| report.wire_bytes,
    },
    Metric {
        name: "nop_collector_decompressed",
        unit: "By",
        description: "Messages of accepted requests, decompressed.",
        kind: Kind::Counter,
        read: |report| report.decompressed_bytes,
    },
    Metric {
        name: "nop_collector_lines",
        unit: "{line}",
        description: "Distinct stamped lines.",
        kind: Kind::Counter,
        read: |report| report.received,
    },
    Metric {
        name: "nop_collector_duplicated_records",
        unit: "{record}",
        description: "Records beyond the first of each stamped line.",
        kind: Kind::Counter,
        read: |report| report.duplicated,
    },
    Metric {
        name: "nop_collector_reordered_records",
        unit: "{record}",
        description: "First arrivals of a line after a later line of its stream.",
        kind: Kind::Counter,
        read: |report| report.reordered,
    },
    Metric {
        name: "nop_collector_unstamped_records",
        unit: "{record}",
        description: "Records without a stamp.",
        kind: Kind::Counter,
        read: |report| report.unstamped,
    },
    Metric {
        name: "nop_collector_lost_lines",
        unit: "{line}",
        description: "Lines that are missing, by the manifest or below the highest that came.",
        kind: Kind::Gauge,
        read: |report| report.lost.unwrap_or(report.gaps),
    },
    Metric {
        name: "nop_collector_streams",
        unit: "{stream}",
        description: "Pairs of run and writer of which anything came.",
        kind: Kind::Gauge,
        read: |report| report.streams,
    },
];

/// Refused requests, by attribute `reason`.
pub(crate) const REFUSED: (&str, &str) =
    ("nop_collector_refused_requests", "Requests that were refused, by reason.");

/// Quantiles of the latency in seconds, by attribute `quantile`.
pub(crate) const LATENCY: (&str, &str) =
    ("nop_collector_latency", "From the stamp's write time to receipt.");

/// The values of attribute `quantile`, and what they mean in seconds; zeros until a line came.
pub(crate) fn latency_seconds(latency_ms: Option<LatencyMs>) -> [(&'static str, f64); 4] {
    let LatencyMs { p50, p90, p99, max } = latency_ms.unwrap_or_default();
    [("0.5", p50 / 1e3), ("0.9", p90 / 1e3), ("0.99", p99 / 1e3), ("1", max / 1e3)]
}

/// The report in Prometheus's text format, with the names that a Prometheus gives to the OTLP ones.
pub(crate) fn prometheus_text(report: &Report) -> String {
    let mut text = String::new();
    for metric in &METRICS {
        let unit = if metric.unit == "By" { "_bytes" } else { "" };
        let (suffix, kind) = match metric.kind {
            Kind::Counter => ("_total", "counter"),
            Kind::Gauge => ("", "gauge"),
        };
        let name = format!("{}{unit}{suffix}", metric.name);
        put_header(&mut text, &name, metric.description, kind);
        put_sample(&mut text, &name, "", (metric.read)(report));
    }
    let name = format!("{}_total", REFUSED.0);
    put_header(&mut text, &name, REFUSED.1, "counter");
    for (reason, count) in &report.invalid {
        put_sample(&mut text, &name, &format!("{{reason=\"{reason}\"}}"), count);
    }
    let name = format!("{}_seconds", LATENCY.0);
    put_header(&mut text, &name, LATENCY.1, "gauge");
    for (quantile, seconds) in latency_seconds(report.latency_ms) {
        put_sample(&mut text, &name, &format!("{{quantile=\"{quantile}\"}}"), seconds);
    }
    text
}

fn put_header(text: &mut String, name: &str, description: &str, kind: &str) {
    writeln!(text, "# HELP {name} {description}\n# TYPE {name} {kind}")
        .expect("writing to a String can't fail");
}

fn put_sample(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    writeln!(text, "{name}{labels} {value}").expect("writing to a String can't fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a report with every kind of figure.
    /// Guarantees: each stands on the page under a name with its unit.
    #[test]
    fn the_page_shows_the_report() {
        let mut report = Report { records: 7, wire_bytes: 9, lost: Some(3), ..Report::default() };
        report.invalid.insert("too_large".to_owned(), 2);
        report.latency_ms = Some(LatencyMs { p99: 1_500.0, ..LatencyMs::default() });
        let page = prometheus_text(&report);
        for line in [
            "# TYPE nop_collector_records_total counter",
            "nop_collector_records_total 7",
            "nop_collector_wire_bytes_total 9",
            "# TYPE nop_collector_lost_lines gauge",
            "nop_collector_lost_lines 3",
            "nop_collector_refused_requests_total{reason=\"too_large\"} 2",
            "nop_collector_latency_seconds{quantile=\"0.99\"} 1.5",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} isn't in:\n{page}");
        }
    }
}
