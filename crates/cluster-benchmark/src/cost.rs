//! What a run costs, from list prices: an estimate that adds up, for those who decide whether to run
//! it again. The bill is AWS's.

use serde::Serialize;

use crate::kubernetes::Node;

/// Where and when the prices were taken.
pub const PRICES_OF: &str = "list prices of eu-central-1, US dollars without tax, November 2026";

/// The node type that the prices are for.
const NODE_TYPE: &str = "m6i.2xlarge";

const CONTROL_PLANE_AN_HOUR: f64 = 0.10;
/// What a control plane costs once its version is out of standard support.
const CONTROL_PLANE_EXTENDED_AN_HOUR: f64 = 0.60;
const NODE_AN_HOUR: f64 = 0.46;
/// 100 GB of gp3 with 250 MB/s, of which 125 are free: a month has 730 hours.
const VOLUME_AN_HOUR: f64 = (100.0 * 0.0952 + 125.0 * 0.048) / 730.0;
const NAT_GATEWAY_AN_HOUR: f64 = 0.052;
const LOAD_BALANCER_AN_HOUR: f64 = 0.027;
/// Of the NAT gateway, and of the load balancer in each of three zones.
const ADDRESSES: f64 = 4.0;
const ADDRESS_AN_HOUR: f64 = 0.005;
const KEY_AN_HOUR: f64 = 1.0 / 730.0;
/// Both sides pay.
const CROSS_ZONE_A_GB: f64 = 0.02;

/// Kubernetes versions, and the day on which their standard support on EKS ends.
const STANDARD_SUPPORT_ENDS: [(&str, &str); 3] =
    [("1.34", "2026-12-02"), ("1.35", "2027-03-27"), ("1.36", "2027-08-02")];

/// The version that the definitions have by default.
const DEFAULT_VERSION: &str = "v1.34";

/// Nodes of a cluster as the definitions make it by default.
pub const NODES: usize = 3;

/// One line of the bill.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Item {
    /// What is paid for.
    pub name: String,
    /// US dollars an hour.
    pub an_hour: f64,
    /// US dollars for the run.
    pub of_run: f64,
}

/// The bill.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// From the first `tofu apply` until the report.
    pub hours: f64,
    /// What it is made of.
    pub items: Vec<Item>,
    /// What is not in it.
    pub caveats: Vec<String>,
}

impl Cost {
    /// US dollars an hour, all items.
    pub fn an_hour(&self) -> f64 {
        self.items.iter().map(|item| item.an_hour).sum()
    }

    /// US dollars for the run, all items.
    pub fn of_run(&self) -> f64 {
        self.items.iter().map(|item| item.of_run).sum()
    }
}

/// What is known of a run when it is billed.
#[derive(Clone, Copy, Debug)]
pub struct Bill<'a> {
    /// From the first `tofu apply`.
    pub hours: f64,
    /// What runs.
    pub nodes: &'a [Node],
    /// Such as `v1.34.1-eks-1234567`.
    pub server_version: &'a str,
    /// Day, as `2026-11-24`.
    pub today: &'a str,
    /// Bytes that the agents sent.
    pub wire_bytes: u64,
}

/// Adds a bill up.
pub fn cost(bill: &Bill<'_>) -> Cost {
    let Bill { hours, nodes, .. } = *bill;
    let count = nodes.len() as f64;
    let is_extended = STANDARD_SUPPORT_ENDS.iter().any(|(version, end)| {
        bill.server_version.strip_prefix('v').is_some_and(|text| text.starts_with(version))
            && bill.today >= *end
    });
    let control_plane =
        if is_extended { CONTROL_PLANE_EXTENDED_AN_HOUR } else { CONTROL_PLANE_AN_HOUR };
    let gigabytes = bill.wire_bytes as f64 / 1e9;
    let item =
        |name: &str, an_hour: f64| Item { name: name.to_owned(), an_hour, of_run: an_hour * hours };
    let mut items = vec![
        item("EKS control plane", control_plane),
        item(&format!("{count} nodes"), count * NODE_AN_HOUR),
        item(&format!("{count} volumes, 100 GB gp3"), count * VOLUME_AN_HOUR),
        item("NAT gateway", NAT_GATEWAY_AN_HOUR),
        item("Network Load Balancer", LOAD_BALANCER_AN_HOUR),
        item("public IPv4 addresses", ADDRESSES * ADDRESS_AN_HOUR),
        item("KMS key", KEY_AN_HOUR),
    ];
    let crossing = gigabytes * CROSS_ZONE_A_GB;
    items.push(Item {
        name: format!("traffic between zones, {gigabytes:.1} GB"),
        an_hour: if hours > 0.0 { crossing / hours } else { 0.0 },
        of_run: crossing,
    });
    let mut caveats = vec![
        "the deletion of the cluster (about 10 minutes) comes on top".to_owned(),
        "all of the agents' traffic is taken to cross zones; what pods pull through the NAT gateway \
         and the load balancer's capacity units are not in it"
            .to_owned(),
    ];
    let others: Vec<&str> = nodes
        .iter()
        .map(|node| node.instance_type.as_str())
        .filter(|one| *one != NODE_TYPE)
        .collect();
    if let Some(other) = others.first() {
        caveats.push(format!("nodes are billed as {NODE_TYPE}, but there are others: {other}"));
    }
    Cost { hours, items, caveats }
}

/// Price of an hour of the cluster that the definitions make by default, on a day as `2026-11-24`.
pub fn default_an_hour(today: &str) -> f64 {
    let node = Node {
        name: String::new(),
        is_ready: true,
        instance_type: NODE_TYPE.into(),
        zone: String::new(),
    };
    let nodes = vec![node; NODES];
    let bill =
        Bill { hours: 1.0, nodes: &nodes, server_version: DEFAULT_VERSION, today, wire_bytes: 0 };
    cost(&bill).an_hour()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(instance_type: &str) -> Vec<Node> {
        let node = Node {
            name: "a".to_owned(),
            is_ready: true,
            instance_type: instance_type.to_owned(),
            zone: String::new(),
        };
        vec![node; 3]
    }

    fn bill<'a>(nodes: &'a [Node], today: &'a str) -> Bill<'a> {
        Bill {
            hours: 2.0,
            nodes,
            server_version: "v1.34.1-eks-1",
            today,
            wire_bytes: 50_000_000_000,
        }
    }

    /// Scenario: two hours of three nodes with 50 GB between zones.
    /// Guarantees: the items add up to the sums, and hours count.
    #[test]
    fn it_adds_up() {
        let nodes = nodes(NODE_TYPE);
        let cost = cost(&bill(&nodes, "2026-11-24"));
        let sum: f64 = cost.items.iter().map(|item| item.of_run).sum();
        assert!((cost.of_run() - sum).abs() < 1e-12);
        assert!((cost.of_run() - 2.0 * cost.an_hour()).abs() < 1e-9);
        assert!((cost.items[7].of_run - 1.0).abs() < 1e-9);
        assert!((default_an_hour("2026-11-24") + 0.5 - cost.an_hour()).abs() < 1e-9);
        assert_eq!(cost.caveats.len(), 2);
    }

    /// Scenario: each known version on the day before the end of its standard support, and on that day.
    /// Guarantees: 50 cents more an hour from that day on; the definitions and their page have the same
    /// days.
    #[test]
    fn each_version_gets_dearer_on_its_day() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../infrastructure/aws");
        let read = |file: &str| std::fs::read_to_string(format!("{directory}/{file}")).unwrap();
        let (definitions, page) = (read("main.tf"), read("README.md"));
        let nodes = nodes(NODE_TYPE);
        for (version, end) in STANDARD_SUPPORT_ENDS {
            let day: jiff::civil::Date = end.parse().unwrap();
            let eve = day.yesterday().unwrap().to_string();
            let server_version = format!("v{version}.1-eks-1");
            let an_hour = |today: &str| {
                cost(&Bill { server_version: &server_version, ..bill(&nodes, today) }).an_hour()
            };
            assert!((an_hour(end) - an_hour(&eve) - 0.5).abs() < 1e-9, "{version}");
            assert!(definitions.contains(&format!("\"{version}\" = \"{end}\"")), "{version}");
            let row = format!("| {version} | {} |", day.strftime("%-d %B %Y"));
            assert!(page.contains(&row), "{row}");
        }
        let known = definitions.split("standard_support_ends = {").nth(1).unwrap();
        let known = known.split('}').next().unwrap().matches('=').count();
        assert_eq!(known, STANDARD_SUPPORT_ENDS.len());
    }

    /// Scenario: the same version before and after the end of its standard support; other nodes.
    /// Guarantees: extended support costs 50 cents more an hour; other nodes are said.
    #[test]
    fn extended_support_and_other_nodes() {
        let nodes = nodes("m6id.2xlarge");
        let before = cost(&bill(&nodes, "2026-12-01"));
        let after = cost(&bill(&nodes, "2026-12-02"));
        assert!((after.an_hour() - before.an_hour() - 0.5).abs() < 1e-9);
        assert!(after.caveats[2].contains("m6id.2xlarge"));
    }
}
