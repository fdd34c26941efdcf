//! The committed figures, and the comparison with them.

use std::{collections::BTreeMap, fmt::Write};

/// More than this many percent above a figure is a failure; as far below it asks for new figures.
pub const LIMIT_PERCENT: u64 = 3;

/// Instructions of one benchmark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// All of them.
    pub total: u64,
    /// Those of our own, without zstd and the simulated world.
    pub own: u64,
}

/// What was counted where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Compiler, and the processor as valgrind shows it: where these differ, nothing is compared.
    pub made_by: BTreeMap<String, String>,
    /// Counts by benchmark.
    pub counts: BTreeMap<String, Count>,
}

const HEAD: &str = "\
# Instructions by callgrind, written by `make gate-accept` and compared by `make gate`.
# The last column is without zstd and what it calls, and of the simulated run what the agent does.
";

const COLUMNS: &str = "benchmark\tinstructions\town share\n";

impl Figures {
    /// As a file.
    pub fn write(&self) -> String {
        let mut text = HEAD.to_owned();
        for (name, value) in &self.made_by {
            writeln!(text, "# {name}: {value}").expect("memory");
        }
        text.push_str(COLUMNS);
        for (name, count) in &self.counts {
            writeln!(text, "{name}\t{}\t{}", count.total, count.own).expect("memory");
        }
        text
    }

    /// Reads what [`Self::write`] has written.
    ///
    /// # Errors
    /// Says which line is none of a file of figures.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut figures = Self::default();
        let lines = text.strip_prefix(HEAD).unwrap_or(text).lines();
        for line in lines.filter(|line| !line.is_empty() && *line != COLUMNS.trim_end()) {
            if let Some((name, value)) = line.strip_prefix("# ").and_then(|it| it.split_once(": "))
            {
                figures.made_by.insert(name.to_owned(), value.to_owned());
                continue;
            }
            let mut cells = line.split('\t');
            let mut number = || cells.next_back().and_then(|cell| cell.parse::<u64>().ok());
            let (own, total) = (number(), number());
            let (Some(name), Some(own), Some(total)) = (cells.next(), own, total) else {
                return Err(format!("expected a name and two counts: {line}"));
            };
            if own > total {
                return Err(format!("the share is more than all: {line}"));
            }
            figures.counts.insert(name.to_owned(), Count { total, own });
        }
        Ok(figures)
    }
}

/// What a comparison came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// A line for each benchmark.
    pub lines: Vec<String>,
    /// Why it fails.
    pub failures: Vec<String>,
    /// What is so much better that the figures no longer guard it.
    pub better: Vec<String>,
}

/// Compares what was counted `now` with the figures that are committed.
pub fn compare(committed: &Figures, now: &Figures) -> Verdict {
    let mut verdict = Verdict::default();
    for (name, value) in &now.made_by {
        let before = committed.made_by.get(name).map_or("unknown", String::as_str);
        if before != value {
            let text = format!("{name}: the figures are from {before}, here it is {value}");
            verdict.failures.push(text);
        }
    }
    if !verdict.failures.is_empty() {
        return verdict;
    }
    for (name, count) in &now.counts {
        let Some(before) = committed.counts.get(name) else {
            verdict.failures.push(format!("{name}: there is no figure for it yet"));
            continue;
        };
        let [all, own] = [(before.total, count.total), (before.own, count.own)].map(percent);
        verdict.lines.push(format!(
            "{name:<34} {:>12} {all:>+8.2} % {:>12} {own:>+8.2} %",
            count.total, count.own
        ));
        let shares = [
            ("instructions", all, before.total, count.total),
            ("our own share", own, before.own, count.own),
        ];
        // Where all is ours, both are the same.
        let shown = if before.own == before.total && count.own == count.total { 1 } else { 2 };
        for (share, change, before, now) in shares.into_iter().take(shown) {
            let text = format!("{name}: {share}: {change:+.2} %, from {before} to {now}");
            // In whole numbers, since 1.03 - 1.0 is more than 0.03 in floating point.
            let [scaled, figure] = [now, before].map(|it| u128::from(it) * 100);
            let limit = u128::from(before) * u128::from(LIMIT_PERCENT);
            if scaled > figure + limit {
                verdict.failures.push(text);
            } else if scaled + limit < figure {
                verdict.better.push(text);
            }
        }
    }
    for name in committed.counts.keys().filter(|name| !now.counts.contains_key(*name)) {
        verdict.failures.push(format!("{name}: was not counted"));
    }
    verdict
}

fn percent((before, now): (u64, u64)) -> f64 {
    (now as f64 / before.max(1) as f64 - 1.0) * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(counts: &[(&str, u64, u64)]) -> Figures {
        let mut figures = Figures::default();
        figures.made_by.insert("rustc".to_owned(), "1.95.0".to_owned());
        for &(name, total, own) in counts {
            figures.counts.insert(name.to_owned(), Count { total, own });
        }
        figures
    }

    /// Scenario: figures are written and read.
    /// Guarantees: they are the same; other text is refused by its line.
    #[test]
    fn figures_are_read_as_written() {
        let written = figures(&[("a", 100, 100), ("b::c", 2_000, 500)]);
        assert_eq!(Figures::read(&written.write()).unwrap(), written);
        assert!(Figures::read("a\tb\n").unwrap_err().ends_with("a\tb"));
        assert!(Figures::read("a\t1\t2\n").unwrap_err().ends_with("a\t1\t2"));
    }

    /// Scenario: counts a little and much above and below their figures, in all and in our share.
    /// Guarantees: only more than 3 % worse fails, with name and amount; as much better is said.
    #[test]
    fn only_worse_by_more_than_the_limit_fails() {
        let before = figures(&[("a", 1_000, 1_000), ("b", 1_000, 100), ("c", 1_000, 1_000)]);
        let verdict =
            compare(&before, &figures(&[("a", 1_030, 1_030), ("b", 1_000, 100), ("c", 970, 970)]));
        assert_eq!((verdict.failures.len(), verdict.better.len()), (0, 0), "{verdict:?}");
        let verdict =
            compare(&before, &figures(&[("a", 1_031, 1_031), ("b", 1_004, 104), ("c", 960, 960)]));
        assert_eq!(
            verdict.failures,
            [
                "a: instructions: +3.10 %, from 1000 to 1031",
                "b: our own share: +4.00 %, from 100 to 104"
            ]
        );
        assert_eq!(verdict.better, ["c: instructions: -4.00 %, from 1000 to 960"]);
    }

    /// Scenario: a benchmark is new, another has gone, and then the compiler is another.
    /// Guarantees: each fails; figures of another compiler are not compared.
    #[test]
    fn what_can_not_be_compared_fails() {
        let before = figures(&[("a", 1_000, 1_000)]);
        let verdict = compare(&before, &figures(&[("b", 1_000, 1_000)]));
        assert_eq!(verdict.failures, ["b: there is no figure for it yet", "a: was not counted"]);
        let mut other = figures(&[("a", 1, 1)]);
        other.made_by.insert("rustc".to_owned(), "1.96.0".to_owned());
        let verdict = compare(&before, &other);
        assert_eq!(verdict.failures, ["rustc: the figures are from 1.95.0, here it is 1.96.0"]);
    }
}
