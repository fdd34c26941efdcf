//! What must hold before a figure means anything: the list that an operator would go through by
//! hand. Judges what it is shown; asks nobody.

use std::{collections::BTreeSet, fmt, net::Ipv4Addr};

use serde::Serialize;

use crate::{
    kubernetes::{Node, Pod},
    stack::{AGENT, COLLECTOR, GENERATOR},
};

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is looked at.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub holds: bool,
    /// What was found.
    pub found: String,
}

impl Check {
    /// A line of the list.
    pub fn new(name: &'static str, holds: bool, found: impl Into<String>) -> Self {
        Self { name, holds, found: found.into() }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.holds { "ok" } else { "NOT" };
        write!(out, "{mark:>4}  {}: {}", self.name, self.found)
    }
}

/// Nodes, pods, where they are, and how many of each there must be.
pub fn of_cluster(nodes: &[Node], pods: &[Pod], nodes_min: usize, generators: u64) -> Vec<Check> {
    vec![
        nodes_are_ready(nodes, nodes_min),
        pods_run(pods),
        generators_share_a_node(pods, generators),
        an_agent_on_each_node(pods, nodes),
        collectors_are_placed(pods),
    ]
}

fn nodes_are_ready(nodes: &[Node], nodes_min: usize) -> Check {
    let ready = nodes.iter().filter(|node| node.is_ready).count();
    let holds = ready == nodes.len() && ready >= nodes_min;
    Check::new(
        "nodes are Ready",
        holds,
        format!("{ready} of {}, at least {nodes_min}", nodes.len()),
    )
}

fn pods_run(pods: &[Pod]) -> Check {
    let is_well = |pod: &&Pod| {
        pod.phase == "Succeeded" || pod.is_leaving || (pod.phase == "Running" && pod.is_ready)
    };
    let (well, ill): (Vec<&Pod>, Vec<&Pod>) = pods.iter().partition(is_well);
    let named: Vec<String> =
        ill.iter().take(5).map(|pod| format!("{} ({})", pod.name, pod.phase)).collect();
    let found = match named.is_empty() {
        true => format!("all {}", well.len()),
        false => format!("{} of {} are not: {}", ill.len(), pods.len(), named.join(", ")),
    };
    Check::new("pods are Running", ill.is_empty() && !pods.is_empty(), found)
}

fn of<'a>(pods: &'a [Pod], app: &'a str) -> impl Iterator<Item = &'a Pod> {
    pods.iter().filter(move |pod| pod.app == app && !pod.is_leaving)
}

fn generators_share_a_node(pods: &[Pod], generators: u64) -> Check {
    let found: Vec<&Pod> = of(pods, GENERATOR).collect();
    let nodes: BTreeSet<&str> = found.iter().map(|pod| pod.node.as_str()).collect();
    let holds = found.len() as u64 == generators && nodes.len() == 1 && !nodes.contains("");
    let text = format!("{} of {generators} generators on {} node(s)", found.len(), nodes.len());
    Check::new("generators are on one node", holds, text)
}

fn an_agent_on_each_node(pods: &[Pod], nodes: &[Node]) -> Check {
    let at: BTreeSet<&str> =
        of(pods, AGENT).filter(|pod| pod.is_ready).map(|pod| pod.node.as_str()).collect();
    let all: BTreeSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    let text = format!("ready on {} of {} nodes", at.len(), all.len());
    Check::new("an agent is on each node", at == all && !all.is_empty(), text)
}

/// Where the collectors are. Beside the generators they take processor time from the agent that is
/// measured: the scheduler prefers other nodes, and is not made to take them, since a small cluster
/// has none. So it is said, and keeps nothing from running.
fn collectors_are_placed(pods: &[Pod]) -> Check {
    let ready: Vec<&Pod> = of(pods, COLLECTOR).filter(|pod| pod.is_ready).collect();
    let nodes: BTreeSet<&str> = ready.iter().map(|pod| pod.node.as_str()).collect();
    let loaded: BTreeSet<&str> = of(pods, GENERATOR).map(|pod| pod.node.as_str()).collect();
    let beside = ready.iter().filter(|pod| loaded.contains(pod.node.as_str())).count();
    let text = format!(
        "{} on {} node(s), {beside} of them on the generators' node",
        ready.len(),
        nodes.len()
    );
    Check::new("collectors are ready", !ready.is_empty(), text)
}

/// Generators and collectors that are not the ones of the start, or were restarted: their counts
/// are not of the whole run.
pub fn replaced(before: &[Pod], after: &[Pod]) -> Vec<String> {
    let mut problems = Vec::new();
    for app in [GENERATOR, COLLECTOR] {
        for pod in of(before, app) {
            match after.iter().find(|other| other.uid == pod.uid) {
                None => problems.push(format!("{} is gone", pod.name)),
                Some(other) if other.restarts != pod.restarts => {
                    problems.push(format!("{} was restarted", pod.name));
                }
                Some(_) => {}
            }
        }
        let is_new = |pod: &&Pod| before.iter().all(|other| other.uid != pod.uid);
        problems.extend(of(after, app).filter(is_new).map(|pod| format!("{} is new", pod.name)));
    }
    problems
}

/// Agents that were restarted or replaced. That loses nothing, but lines may come twice.
pub fn restarted_agents(before: &[Pod], after: &[Pod]) -> Vec<String> {
    let is_same = |pod: &Pod| {
        after.iter().any(|other| other.uid == pod.uid && other.restarts == pod.restarts)
    };
    of(before, AGENT).filter(|pod| !is_same(pod)).map(|pod| pod.name.clone()).collect()
}

/// Whether an address, written as `a.b.c.d/32`, lies in one of the ranges.
pub fn is_allowed(address: &str, ranges: &[String]) -> bool {
    let parse = |range: &str| -> Option<(u32, u32)> {
        let (address, length) = range.split_once('/')?;
        let length: u32 = length.parse().ok().filter(|length| *length <= 32)?;
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        Some((u32::from(address.parse::<Ipv4Addr>().ok()?) & mask, mask))
    };
    let Some((address, _)) = parse(address) else { return false };
    ranges.iter().filter_map(|range| parse(range)).any(|(first, mask)| address & mask == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(app: &str, name: &str, node: &str) -> Pod {
        Pod {
            namespace: "n".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-of-{name}"),
            app: app.to_owned(),
            node: node.to_owned(),
            phase: "Running".to_owned(),
            is_ready: true,
            restarts: 0,
            is_leaving: false,
        }
    }

    fn node(name: &str, is_ready: bool) -> Node {
        Node { name: name.to_owned(), is_ready, instance_type: String::new(), zone: String::new() }
    }

    fn verdicts(nodes: &[Node], pods: &[Pod]) -> Vec<bool> {
        of_cluster(nodes, pods, 2, 2).iter().map(|check| check.holds).collect()
    }

    /// Scenario: a cluster as it should be; then one thing after the other goes wrong.
    /// Guarantees: exactly the lines about it say so.
    #[test]
    fn each_fault_shows_in_its_own_line() {
        let nodes = [node("a", true), node("b", true)];
        let good = || {
            vec![
                pod(GENERATOR, "g1", "a"),
                pod(GENERATOR, "g2", "a"),
                pod(AGENT, "t1", "a"),
                pod(AGENT, "t2", "b"),
                pod(COLLECTOR, "c1", "b"),
            ]
        };
        assert_eq!(verdicts(&nodes, &good()), [true; 5]);
        assert_eq!(verdicts(&nodes[..1], &good()), [false, true, true, false, true]);
        assert_eq!(
            verdicts(&[node("a", true), node("b", false)], &good()),
            [false, true, true, true, true]
        );
        let with = |change: fn(&mut Vec<Pod>)| {
            let mut pods = good();
            change(&mut pods);
            verdicts(&nodes, &pods)
        };
        assert_eq!(with(|pods| pods[1].node = "b".into()), [true, true, false, true, true]);
        assert_eq!(with(|pods| drop(pods.remove(0))), [true, true, false, true, true]);
        assert_eq!(with(|pods| pods[0].phase = "Pending".into()), [true, false, true, true, true]);
        assert_eq!(with(|pods| pods[3].is_ready = false), [true, false, true, false, true]);
        assert_eq!(with(|pods| pods[4].is_ready = false), [true, false, true, true, false]);
        assert_eq!(with(Vec::clear), [true, false, false, false, false]);
    }

    /// Scenario: of three collectors one is on the generators' node.
    /// Guarantees: it is said, and keeps nothing from running.
    #[test]
    fn collectors_beside_the_generators_are_counted() {
        let generator = pod(GENERATOR, "g1", "a");
        let collectors = ["a", "b", "b"].map(|at| pod(COLLECTOR, "c", at));
        let check = collectors_are_placed(&[&[generator], &collectors[..]].concat());
        assert!(check.holds);
        assert_eq!(check.found, "3 on 2 node(s), 1 of them on the generators' node");
    }

    /// Scenario: between start and end a collector is restarted, a generator replaced, an agent
    /// restarted.
    /// Guarantees: collector and generator spoil the run, by name; the agent doesn't.
    #[test]
    fn who_was_replaced_is_named() {
        let before = [pod(GENERATOR, "g1", "a"), pod(COLLECTOR, "c1", "b"), pod(AGENT, "t1", "a")];
        assert!(replaced(&before, &before).is_empty());
        assert!(restarted_agents(&before, &before).is_empty());
        let mut after = before.clone();
        after[0] = pod(GENERATOR, "g2", "a");
        after[1].restarts = 1;
        after[2].restarts = 1;
        assert_eq!(replaced(&before, &after), ["g1 is gone", "g2 is new", "c1 was restarted"]);
        assert_eq!(restarted_agents(&before, &after), ["t1"]);
    }

    /// Scenario: addresses inside and outside of ranges.
    /// Guarantees: plain arithmetic of prefixes, the whole internet included.
    #[test]
    fn addresses_and_ranges() {
        let ranges = |text: &str| vec![text.to_owned()];
        assert!(is_allowed("203.0.113.7/32", &ranges("203.0.113.0/24")));
        assert!(is_allowed("203.0.113.7/32", &ranges("0.0.0.0/0")));
        assert!(!is_allowed("203.0.113.7/32", &ranges("10.0.0.0/16")));
        assert!(!is_allowed("203.0.113.7/32", &ranges("nonsense")));
        assert!(!is_allowed("", &ranges("0.0.0.0/0")));
    }
}
