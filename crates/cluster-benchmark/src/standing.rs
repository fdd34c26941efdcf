//! What exists because of this run, and so may cost money: kept up to date before each step that
//! makes or removes something, and said on every way out.

use std::fmt;

/// How far a cluster of AWS is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was begun.
    Nothing,
    /// `tofu apply` or `tofu destroy` was begun and has not succeeded: anything may be there.
    Partly,
    /// The cluster stands.
    Cluster,
    /// The cluster stands, and so may the load balancer, which `tofu destroy` does not know.
    ClusterAndStack,
}

/// What is still there.
#[derive(Clone, Debug)]
pub struct Standing {
    /// How far it got.
    pub stage: Stage,
    /// The cluster's name.
    pub cluster: String,
    /// Its region.
    pub region: String,
    /// List price of all of it in US dollars an hour.
    pub dollars_an_hour: f64,
}

impl Standing {
    /// The command that ends it.
    pub fn ending_command(&self) -> String {
        let Self { cluster, region, .. } = self;
        format!("AWS_REGION={region} ./scripts/run-benchmark-aws.sh --destroy {cluster}")
    }
}

/// Empty when nothing is there.
impl fmt::Display for Standing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, cluster, region, dollars_an_hour } = self;
        let what = match stage {
            Stage::Nothing => return Ok(()),
            Stage::Partly => format!("parts of cluster {cluster} may exist in {region}"),
            Stage::Cluster => format!("cluster {cluster} runs in {region}"),
            Stage::ClusterAndStack => {
                format!("cluster {cluster} and Grafana's load balancer run in {region}")
            }
        };
        write!(
            out,
            "\nSTILL COSTS MONEY: {what}, about ${dollars_an_hour:.2} an hour.\n\
             It ends with:   {}\n\
             What is left:   AWS_REGION={region} ./scripts/run-benchmark-aws.sh --leftovers\n",
            self.ending_command()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: each stage a run can end in.
    /// Guarantees: silence only when nothing was made; otherwise what it is, where, and the command
    /// that ends it.
    #[test]
    fn every_stage_but_the_first_speaks() {
        let standing = |stage| Standing {
            stage,
            cluster: "c".to_owned(),
            region: "r".to_owned(),
            dollars_an_hour: 1.25,
        };
        assert_eq!(standing(Stage::Nothing).to_string(), "");
        for stage in [Stage::Partly, Stage::Cluster, Stage::ClusterAndStack] {
            let text = standing(stage).to_string();
            assert!(text.contains("$1.25 an hour"), "{text}");
            assert!(text.contains("AWS_REGION=r ./scripts/run-benchmark-aws.sh --destroy c\n"));
        }
    }
}
