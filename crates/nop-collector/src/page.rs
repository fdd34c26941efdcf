//! What the admin port says to people: an index of its paths, and the report in columns.

use thyme_core::{
    quantity::{grouped, in_bytes, in_time},
    table::{Row, columns, verdict},
};

use crate::report::Report;

/// `GET /`.
pub(crate) const INDEX: &str = "\
nop-collector receives OTLP logs, counts them, and stores nothing.

GET  /report          what came, as JSON; ?intervals=1 adds each writer, ?runs=1 each run
GET  /report.txt      the same for people, with a verdict once there is a manifest
POST /manifest        takes what was written, as log-generator's GET /manifest has it: what is
                      lost is known from then on
POST /reset           forgets all of it
GET  /metrics         about this program, for Prometheus
GET  /healthz         ok
";

/// `GET /report.txt`.
pub(crate) fn report_text(report: &Report) -> String {
    let count = |name, number| Row::figure(name, (grouped(number), ""));
    let mut rows = vec![
        count("requests", report.requests),
        Row::figure("on the wire", in_bytes(report.wire_bytes)).note(format!(
            "{} decompressed",
            thyme_core::quantity::size(report.decompressed_bytes)
        )),
        count("records", report.records)
            .note(format!("{} of them without a stamp", grouped(report.unstamped))),
        count("writers", report.streams)
            .note(format!("{} of them have ended", grouped(report.ended_streams))),
        count("lines received", report.received),
    ];
    rows.push(match report.lost {
        Some(lost) => count("lines lost", lost)
            .note(format!("of {} in the manifest", grouped(report.manifest_lines))),
        None => Row::words("lines lost", "not known: no manifest was posted"),
    });
    rows.push(count("gaps", report.gaps).note("lines missing below the highest that came"));
    rows.push(count("lines duplicated", report.duplicated));
    rows.push(count("reordered", report.reordered));
    if report.untracked > 0 {
        rows.push(count("untracked", report.untracked).note("the figures are not exact"));
    }
    for (reason, &number) in &report.invalid {
        rows.push(count("refused", number).note(reason.as_str()));
    }
    match report.latency_ms {
        Some(latency) => {
            let quantiles = [latency.p50, latency.p90, latency.p99, latency.max];
            let names = ["latency p50", "latency p90", "latency p99", "latency max"];
            let rows_of = names.into_iter().zip(quantiles);
            rows.extend(rows_of.map(|(name, ms)| Row::figure(name, in_time(ms))));
        }
        None => rows.push(Row::words("latency", "nothing was measured")),
    }
    let judged = report.lost.map(|lost| verdict(&reasons(report, lost), false));
    columns(&rows) + judged.as_deref().unwrap_or_default()
}

fn reasons(report: &Report, lost: u64) -> Vec<String> {
    let said =
        |number: u64, what: &str| (number > 0).then(|| format!("{} {what}", grouped(number)));
    let nothing = (report.received == 0).then(|| "nothing was received".to_owned());
    let reasons = [
        nothing,
        said(lost, "lines were lost"),
        said(report.duplicated, "came more than once"),
        said(report.untracked, "records are untracked"),
    ];
    reasons.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::LatencyMs;

    /// Scenario: nothing has come; lines have, without a manifest; a manifest says that all came,
    /// then that some did not.
    /// Guarantees: what isn't known isn't shown as a number, and there is no verdict then.
    #[test]
    fn the_text_shows_what_is_known() {
        let empty = report_text(&Report::default());
        assert!(empty.contains("lines lost         not known: no manifest"), "{empty}");
        assert!(empty.contains("latency            nothing was measured\n"), "{empty}");
        assert!(!empty.contains("PASSED") && !empty.contains("FAILED"), "{empty}");

        let latency_ms = Some(LatencyMs { p50: 1.5, p90: 20.0, p99: 300.0, max: 4_000.0 });
        let all = Report { received: 1_234, lost: Some(0), latency_ms, ..Report::default() };
        let text = report_text(&all);
        assert!(text.contains("lines received     1,234\n"), "{text}");
        assert!(text.contains("latency max         4.00 s\n"), "{text}");
        assert!(text.ends_with("\nPASSED\n"), "{text}");
        let text = report_text(&Report { lost: Some(7), duplicated: 1, ..all });
        let expected =
            "\nFAILED             7 lines were lost\n                   1 came more than once\n";
        assert!(text.ends_with(expected), "{text}");
    }
}
