//! Reads callgrind's output: what was executed in all, and what of it is our own share.

use std::collections::HashMap;

use super::figures::Count;

/// Whose instructions a function's are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// Compression; with all that it calls it is not our own share.
    Zstd,
    /// The simulated world around the agent.
    World,
    /// What the simulated world steps of the agent.
    Stage,
    /// Any other code.
    Other,
}

/// Where the parts of the agent lie that the simulation steps.
const STAGES: [&str; 6] = [
    "worker::",
    "discover::",
    "checkpoint::",
    "spool::",
    "export::supervise::",
    "export::delivery::",
];

fn owner(function: &str) -> Owner {
    if function.starts_with("ZSTD_") {
        return Owner::Zstd;
    }
    let path = function.trim_start_matches('<');
    let Some(path) = path.strip_prefix("thyme_agent::") else { return Owner::Other };
    if path.starts_with("simulation::") || path.starts_with("export::simulated::") {
        return Owner::World;
    }
    if STAGES.iter().any(|stage| path.starts_with(stage)) { Owner::Stage } else { Owner::Other }
}

/// Sums of what calls between owners cost with all below them.
#[derive(Default)]
struct Calls {
    into_zstd: u64,
    /// Of these, what compresses: only the agent does that, only the world decompresses.
    into_compression: u64,
    into_world: u64,
    into_stages: u64,
    /// The world is there at all.
    has_world: bool,
}

impl Calls {
    fn add(&mut self, caller: Owner, callee: &str, cost: u64) {
        match (caller, owner(callee)) {
            (Owner::Stage | Owner::World | Owner::Other, Owner::Zstd) => {
                self.into_zstd += cost;
                self.into_compression +=
                    if callee.starts_with("ZSTD_compress2") { cost } else { 0 };
            }
            (Owner::World, Owner::Stage) => self.into_stages += cost,
            (Owner::Stage, Owner::World) => self.into_world += cost,
            _ => {}
        }
    }

    fn own(&self, total: u64) -> Option<u64> {
        if self.has_world {
            self.into_stages.checked_sub(self.into_world + self.into_compression)
        } else {
            total.checked_sub(self.into_zstd)
        }
    }
}

/// Counts the instructions of an output with one event; an error says which line is not understood.
///
/// Lines are `fn=` for the function at hand, `cfn=` and `calls=` for a call whose cost with all below
/// it the next line has, and `LINE COST` for the function's own cost.
pub fn count(text: &str) -> Result<Count, String> {
    let mut names = Names::default();
    let (mut total, mut calls) = (0, Calls::default());
    let (mut caller, mut callee, mut is_call) = (Owner::Other, "", false);
    for (number, line) in text.lines().enumerate() {
        let broken = |what: &str| format!("line {}: {what}: {line}", number + 1);
        if let Some(name) = line.strip_prefix("fn=") {
            caller = owner(names.resolve(name));
            calls.has_world |= caller == Owner::World;
        } else if let Some(name) = line.strip_prefix("cfn=") {
            callee = names.resolve(name);
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
                calls.add(caller, callee, cost);
            } else {
                total += cost;
            }
        }
    }
    match calls.own(total) {
        Some(own) if total > 0 => Ok(Count { total, own }),
        _ => Err(format!("{total} instructions, less than what was called of others")),
    }
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
        assert_eq!(count(text).unwrap(), Count { total: 160, own: 100 });
        assert_eq!(count(&text.replace("(2)", "(9)")).unwrap().own, 100);
    }

    /// Scenario: a simulated world steps a worker, which asks for the time, compresses and parses; the
    /// world decompresses what it got.
    /// Guarantees: our share is what the worker did itself, with what it calls for that.
    #[test]
    fn the_simulated_world_is_apart() {
        let text = "fn=thyme_agent::simulation::run::turn\n1 1000\n\
                    cfn=thyme_agent::worker::Worker::step\ncalls=1 0\n1 170\n\
                    cfn=ZSTD_decompressStream\ncalls=1 0\n1 400\n\
                    fn=thyme_agent::worker::Worker::step\n1 60\n\
                    cfn=<thyme_agent::simulation::world::Shared as thyme_agent::world::Clock>::now\n\
                    calls=3 0\n1 30\ncfn=ZSTD_compress2\ncalls=1 0\n1 70\n\
                    cfn=thyme_agent::parse::parse_lines\ncalls=1 0\n1 10\n\
                    fn=ZSTD_compress2\n1 70\nfn=ZSTD_decompressStream\n1 400\n\
                    fn=<thyme_agent::simulation::world::Shared as thyme_agent::world::Clock>::now\n1 30\n\
                    fn=thyme_agent::parse::parse_lines\n1 10\n";
        assert_eq!(count(text).unwrap(), Count { total: 1_570, own: 70 });
    }

    /// Scenario: a simulated consumer delivers a request: what it calls is what keeps a request over a panic, and
    /// that calls delivery through the standard library.
    /// Guarantees: delivery is our share.
    #[test]
    fn delivery_is_called_through_its_supervisor() {
        let text = "fn=thyme_agent::export::simulated::consume::{{closure}}\n1 50\n\
                    cfn=thyme_agent::export::supervise::catch::{{closure}}\ncalls=1 0\n1 90\n\
                    fn=thyme_agent::export::supervise::catch::{{closure}}\n1 10\n\
                    cfn=std::panicking::catch_unwind\ncalls=1 0\n1 80\n\
                    fn=std::panicking::catch_unwind\n1 20\n\
                    cfn=thyme_agent::export::delivery::send_all_of\ncalls=1 0\n1 60\n\
                    fn=thyme_agent::export::delivery::send_all_of\n1 60\n";
        assert_eq!(count(text).unwrap(), Count { total: 140, own: 90 });
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
