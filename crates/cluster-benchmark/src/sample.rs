//! One look at everything that runs: processor time and memory by the kubelets' own account, the
//! same for every agent; the collectors' counts; the agents' queues.

use std::{collections::BTreeMap, time::Instant};

use serde::Serialize;

use crate::{
    error::{Error, Result},
    kubernetes::{NAMESPACE, Pod},
    page,
    stack::{AGENT, Stack},
};

/// The part of a run that a sample is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Load whose figures don't count.
    RampUp,
    /// Load whose figures count.
    Active,
    /// No load: the last lines arrive.
    CoolDown,
    /// No load, and all lines have arrived.
    Idle,
}

/// What a pod has used, by the kubelet that runs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Processor time since its start, seconds.
    pub cpu_seconds: f64,
    /// When the kubelet took it, Unix time in milliseconds.
    pub at_unix_ms: i64,
    /// Working set, bytes.
    pub memory_bytes: u64,
}

/// One look.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Since the load's start, seconds.
    pub at_seconds: f64,
    /// Part of the run.
    pub phase: Phase,
    /// By pod, of everything in the benchmark's namespace.
    pub usage: BTreeMap<String, Usage>,
    /// Distinct lines that all collectors have received.
    pub received: u64,
    /// Bytes of all requests' bodies.
    pub wire_bytes: u64,
    /// Requests that wait or are on their way, by agent; none where the agent doesn't say.
    pub queue_size: BTreeMap<String, f64>,
    /// 99th percentile of the latency since the collectors' start, milliseconds; the worst of them.
    pub latency_p99_ms: f64,
}

/// Takes a look.
///
/// # Errors
/// The cluster can't be asked.
pub fn take(stack: &Stack<'_>, pods: &[Pod], started: Instant, phase: Phase) -> Result<Sample> {
    let mut nodes: Vec<&str> = pods.iter().map(|pod| pod.node.as_str()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let mut usage = BTreeMap::new();
    for node in nodes {
        let text = stack.kubernetes.raw(&format!("/api/v1/nodes/{node}/proxy/metrics/resource"))?;
        add_usage(&String::from_utf8_lossy(&text), &mut usage);
    }
    let of = |app: &'static str| pods.iter().filter(move |pod| pod.app == app);
    let collectors: Vec<Pod> = of(crate::stack::COLLECTOR).cloned().collect();
    let reports = stack.reports(&collectors, false)?;
    let mut queue_size = BTreeMap::new();
    for agent in of(AGENT) {
        // Another agent in thyme's place may have no such page, and one that restarts has none now.
        let text = match stack.kubernetes.metrics(agent) {
            Err(Error::Interrupted(signal)) => return Err(Error::Interrupted(signal)),
            Err(_no_page) => continue,
            Ok(text) => text,
        };
        let size = page::sum(&String::from_utf8_lossy(&text), "otelcol_exporter_queue_size");
        queue_size.extend(size.map(|size| (agent.name.clone(), size)));
    }
    let p99 = reports.iter().filter_map(|report| Some(report.latency_ms?.p99));
    Ok(Sample {
        at_seconds: started.elapsed().as_secs_f64(),
        phase,
        usage,
        received: reports.iter().map(|report| report.received).sum(),
        wire_bytes: reports.iter().map(|report| report.wire_bytes).sum(),
        queue_size,
        latency_p99_ms: p99.fold(0.0, f64::max),
    })
}

/// Adds a kubelet's `/metrics/resource` up by pod.
fn add_usage(text: &str, usage: &mut BTreeMap<String, Usage>) {
    for sample in page::samples(text) {
        if sample.label("namespace") != Some(NAMESPACE) {
            continue;
        }
        let Some(pod) = sample.label("pod") else { continue };
        let mut add = |cpu_seconds: f64, at_unix_ms: i64, memory_bytes: u64| {
            let entry = usage.entry(pod.to_owned()).or_default();
            entry.cpu_seconds += cpu_seconds;
            entry.at_unix_ms = entry.at_unix_ms.max(at_unix_ms);
            entry.memory_bytes += memory_bytes;
        };
        match sample.name {
            "container_cpu_usage_seconds_total" => {
                add(sample.value, sample.timestamp_ms.unwrap_or_default(), 0);
            }
            "container_memory_working_set_bytes" => add(0.0, 0, sample.value as u64),
            _ => {}
        }
    }
}

/// What pods used between the first and the last of some samples that know them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Used {
    /// Processor time over time, all pods together.
    pub cores: f64,
    /// The busiest pod alone.
    pub cores_max: f64,
    /// Processor time, seconds, all pods together.
    pub cpu_seconds: f64,
    /// The largest working set of one pod, bytes.
    pub memory_bytes_max: u64,
}

/// Adds up what the pods of one kind used over `samples`.
pub fn used(samples: &[&Sample], pods: &[Pod], app: &str) -> Used {
    let mut used = Used::default();
    for pod in pods.iter().filter(|pod| pod.app == app) {
        let of_pod = || samples.iter().filter_map(|sample| sample.usage.get(&pod.name));
        let memory = of_pod().map(|usage| usage.memory_bytes).max().unwrap_or_default();
        used.memory_bytes_max = used.memory_bytes_max.max(memory);
        // Before a container's first reading the kubelet gives none, and a restart begins at zero.
        let mut timed = of_pod().filter(|usage| usage.at_unix_ms > 0);
        let (Some(first), Some(last)) = (timed.next(), timed.next_back()) else { continue };
        let seconds = (last.at_unix_ms - first.at_unix_ms) as f64 / 1e3;
        let cpu_seconds = last.cpu_seconds - first.cpu_seconds;
        if seconds > 0.0 && cpu_seconds >= 0.0 {
            used.cpu_seconds += cpu_seconds;
            used.cores += cpu_seconds / seconds;
            used.cores_max = used.cores_max.max(cpu_seconds / seconds);
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBELET: &str = "\
container_cpu_usage_seconds_total{container=\"thyme\",namespace=\"thyme-benchmark\",pod=\"t1\"} 10.5 1000
container_cpu_usage_seconds_total{container=\"side\",namespace=\"thyme-benchmark\",pod=\"t1\"} 0.5 2000
container_cpu_usage_seconds_total{container=\"x\",namespace=\"kube-system\",pod=\"other\"} 99 1000
container_memory_working_set_bytes{container=\"thyme\",namespace=\"thyme-benchmark\",pod=\"t1\"} 3e+07 1000
node_cpu_usage_seconds_total 1000 1000
";

    fn sample(usage: &[(&str, f64, i64, u64)]) -> Sample {
        let one = |&(pod, cpu_seconds, at_unix_ms, memory_bytes): &(&str, f64, i64, u64)| {
            (pod.to_owned(), Usage { cpu_seconds, at_unix_ms, memory_bytes })
        };
        Sample {
            at_seconds: 0.0,
            phase: Phase::Active,
            usage: usage.iter().map(one).collect(),
            received: 0,
            wire_bytes: 0,
            queue_size: BTreeMap::new(),
            latency_p99_ms: 0.0,
        }
    }

    fn agent(name: &str) -> Pod {
        Pod {
            namespace: NAMESPACE.to_owned(),
            name: name.to_owned(),
            uid: name.to_owned(),
            app: AGENT.to_owned(),
            node: "a".to_owned(),
            phase: "Running".to_owned(),
            is_ready: true,
            restarts: 0,
            is_leaving: false,
        }
    }

    /// Scenario: a kubelet's page with two containers of a pod, and other namespaces.
    /// Guarantees: containers are added up by pod; nothing else is counted.
    #[test]
    fn containers_are_added_up() {
        let mut usage = BTreeMap::new();
        add_usage(KUBELET, &mut usage);
        let expected = Usage { cpu_seconds: 11.0, at_unix_ms: 2_000, memory_bytes: 30_000_000 };
        assert_eq!(usage, BTreeMap::from([("t1".to_owned(), expected)]));
    }

    /// Scenario: two agents over three samples; one has no reading at first, and one of a third was
    /// restarted.
    /// Guarantees: time is the kubelet's; rates are added, the busiest and the largest found; what
    /// can't be told is left out.
    #[test]
    fn usage_is_measured_between_readings() {
        let samples = [
            sample(&[("t1", 1.0, 10_000, 5), ("t3", 9.0, 10_000, 1)]),
            sample(&[("t1", 2.0, 15_000, 9), ("t2", 1.0, 15_000, 1)]),
            sample(&[("t1", 3.0, 20_000, 7), ("t2", 6.0, 20_000, 2), ("t3", 1.0, 20_000, 1)]),
        ];
        let samples: Vec<&Sample> = samples.iter().collect();
        let pods = [agent("t1"), agent("t2"), agent("t3")];
        let found = used(&samples, &pods, AGENT);
        assert!((found.cores - 1.2).abs() < 1e-9 && (found.cores_max - 1.0).abs() < 1e-9);
        assert!((found.cpu_seconds - 7.0).abs() < 1e-9);
        assert_eq!(found.memory_bytes_max, 9);
        assert_eq!(used(&samples[..1], &pods, AGENT).cores, 0.0);
    }
}
