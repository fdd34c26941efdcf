//! Pages of metrics in Prometheus' text format 0.0.4, as far as sums of samples need it.

/// One sample of a page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    /// Name of the metric.
    pub name: &'a str,
    /// What stands between the braces; empty without any.
    labels: &'a str,
    /// Value.
    pub value: f64,
    /// Unix time in milliseconds, if the page gives one.
    pub timestamp_ms: Option<i64>,
}

impl<'a> Sample<'a> {
    /// Value of a label. Values with escaped quotes don't occur in what is read here, and are cut.
    pub fn label(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.labels;
        while let Some((key, after)) = rest.split_once("=\"") {
            let (value, after) = after.split_once('"')?;
            if key.trim_start_matches(',').trim() == name {
                return Some(value);
            }
            rest = after;
        }
        None
    }
}

/// The samples of a page; lines that are none are passed over.
pub fn samples(page: &str) -> impl Iterator<Item = Sample<'_>> {
    page.lines().filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    if line.starts_with('#') {
        return None;
    }
    let (name, labels, rest) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, rest) = rest.rsplit_once('}')?;
            (name, labels, rest)
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, "", rest)
        }
    };
    let mut words = rest.split_ascii_whitespace();
    let value = words.next()?.parse().ok()?;
    let timestamp_ms = words.next().and_then(|word| word.parse().ok());
    Some(Sample { name, labels, value, timestamp_ms })
}

/// Sum over all samples of a metric of an OpenTelemetry component, whose name may or may not end in
/// its unit and in `_total`; none if there is no sample.
pub fn sum(page: &str, name: &str) -> Option<f64> {
    let is_it = |found: &str| {
        found.strip_prefix(name).is_some_and(|end| {
            matches!(end, "" | "_total" | "_bytes" | "_seconds" | "_seconds_total" | "_bytes_total")
        })
    };
    samples(page)
        .filter(|sample| is_it(sample.name))
        .map(|sample| sample.value)
        .reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# HELP a_total Help
# TYPE a_total counter
a_total{x=\"1\",pod=\"p, q\"} 2 1700000000123
a_total{x=\"2\"} 3.5
ab 100
q_bytes 7
nonsense
";

    /// Scenario: a page with labels, timestamps, comments and nonsense.
    /// Guarantees: samples with their labels and times; sums by name, with or without suffixes.
    #[test]
    fn a_page_is_read() {
        let all: Vec<Sample<'_>> = samples(PAGE).collect();
        assert_eq!(all.len(), 4);
        assert_eq!((all[0].label("pod"), all[0].label("x")), (Some("p, q"), Some("1")));
        assert_eq!((all[0].label("y"), all[2].label("x")), (None, None));
        assert_eq!((all[0].timestamp_ms, all[1].timestamp_ms), (Some(1_700_000_000_123), None));
        assert_eq!(sum(PAGE, "a"), Some(5.5));
        assert_eq!(sum(PAGE, "a_total"), Some(5.5));
        assert_eq!(sum(PAGE, "q"), Some(7.0));
        assert_eq!(sum(PAGE, "missing"), None);
    }
}
