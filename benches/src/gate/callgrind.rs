//! Reads callgrind's output: what was executed in all, and what of it within zstd.

use std::collections::HashMap;

use super::figures::Count;

/// Functions whose instructions, with those of all that they call, are not our own share.
fn is_foreign(function: &str) -> bool {
    function.starts_with("ZSTD_")
}

/// Counts the instructions of an output with one event; an error says which line is not understood.
///
/// Lines are `fn=` for the function at hand, `cfn=` and `calls=` for a call whose cost with all below
/// it the next line has, and `LINE COST` for the function's own cost.
pub fn count(text: &str) -> Result<Count, String> {
    let mut names = Names::default();
    let mut count = Count::default();
    let (mut is_within, mut calls_foreign, mut is_call) = (false, false, false);
    for (number, line) in text.lines().enumerate() {
        let broken = |what: &str| format!("line {}: {what}: {line}", number + 1);
        if let Some(name) = line.strip_prefix("fn=") {
            is_within = is_foreign(names.resolve(name));
        } else if let Some(name) = line.strip_prefix("cfn=") {
            calls_foreign = is_foreign(names.resolve(name));
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if let Some(events) = line.strip_prefix("events:") {
            if events.trim() != "Ir" {
                return Err(broken("more events than instructions"));
            }
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            // A line without a cost has none.
            let cost = line.split_whitespace().nth(1).unwrap_or("0");
            let cost: u64 = cost.parse().map_err(|_| broken("a cost"))?;
            if std::mem::take(&mut is_call) {
                if calls_foreign && !is_within {
                    count.foreign += cost;
                }
            } else {
                count.total += cost;
            }
        }
    }
    if count.total == 0 || count.foreign > count.total {
        return Err(format!("{} instructions, {} of them zstd's", count.total, count.foreign));
    }
    Ok(count)
}

/// Names that were given a number, as `(3) name`, are `(3)` from then on.
#[derive(Default)]
struct Names<'a>(HashMap<&'a str, &'a str>);

impl<'a> Names<'a> {
    fn resolve(&mut self, name: &'a str) -> &'a str {
        match name.split_once(')') {
            Some((number, rest)) if number.starts_with('(') => {
                let rest = rest.trim();
                if rest.is_empty() {
                    return self.0.get(number).copied().unwrap_or_default();
                }
                self.0.insert(number, rest);
                rest
            }
            _ => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: an output in which our function calls zstd, which calls itself and others.
    /// Guarantees: each instruction counts once, and what zstd's entry cost is apart.
    #[test]
    fn zstd_with_all_below_it_is_apart() {
        let text = "events: Ir\n\nfn=(1) ours\n10 100\ncfn=(2) ZSTD_compress2\ncalls=1 0\n10 60\n\
                    fn=(2)\n0 20\ncfn=ZSTD_compressBlock\ncalls=2 0\n0 30\ncfn=memcpy\ncalls=1 0\n\
                    +3 10\nfn=ZSTD_compressBlock\n0 30\nfn=memcpy\n0 10\ntotals: 160\n";
        assert_eq!(count(text).unwrap(), Count { total: 160, foreign: 60 });
        assert_eq!(count(&text.replace("(2)", "(9)")).unwrap().own(), 100);
    }

    /// Scenario: an output with caches simulated, one with a cost that is none, an empty one.
    /// Guarantees: each is refused in words.
    #[test]
    fn what_is_not_understood_is_no_count() {
        for (text, said) in [
            ("events: Ir Dr\nfn=a\n1 2 3\n", "line 1: more events"),
            ("fn=a\n1 x\n", "line 2: a cost: 1 x"),
            ("events: Ir\n", "0 instructions"),
        ] {
            let error = count(text).unwrap_err();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
