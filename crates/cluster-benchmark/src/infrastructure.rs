//! The cluster on AWS: OpenTofu with a workspace for each cluster's name, and the questions to AWS
//! that OpenTofu has no answer to. It never touches a state that holds another cluster.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    answer::{list_at, text_at},
    cli::DEFAULT_CLUSTER,
    error::{Error, Result},
    limits::{APPLY_MAX, CLUSTER_SETTLES_MAX, INIT_MAX},
    tools::{Invocation, Tools},
};

/// Where the definitions are, from the root of the repository.
const DIRECTORY: &str = "infrastructure/aws";

/// Answers with the address that asks it. Of AWS, which is trusted with the cluster anyway.
const ADDRESS_SERVICE: &str = "https://checkip.amazonaws.com";

/// Stands for nobody (RFC 5737) where a cluster is only taken away.
const NOBODY: &str = "192.0.2.1/32";

/// One cluster, made by OpenTofu.
#[derive(Debug)]
pub struct Infrastructure<'a> {
    tools: &'a Tools,
    /// `tofu` or `terraform`.
    program: &'static str,
    cluster: String,
    region: String,
}

/// What OpenTofu says of a cluster that it has made.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// The network that the cluster is in.
    pub vpc: String,
    /// Who may reach Grafana; empty for the network itself only.
    pub grafana_allowed_cidrs: Vec<String>,
    /// All of them, for the report.
    pub all: BTreeMap<String, Value>,
}

/// What a state holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Anything at all.
    pub has_resources: bool,
    /// The cluster itself: one of that name that isn't here is somebody else's.
    pub has_cluster: bool,
    /// The network, once there is one.
    pub vpc: Option<String>,
}

/// A question to AWS in a region, whose answer is JSON.
pub fn aws<'a>(region: &str, arguments: impl IntoIterator<Item = &'a str>) -> Invocation {
    let own = arguments.into_iter().map(str::to_owned);
    Invocation::new("aws", own.chain(["--region", region, "--output", "json"].map(str::to_owned)))
}

impl<'a> Infrastructure<'a> {
    /// A cluster by name; `program` is the OpenTofu or Terraform to use.
    pub fn new(tools: &'a Tools, program: &'static str, cluster: &str, region: &str) -> Self {
        Self { tools, program, cluster: cluster.to_owned(), region: region.to_owned() }
    }

    /// The workspace: the quick start by hand is in the default one.
    fn workspace(&self) -> &str {
        if self.cluster == DEFAULT_CLUSTER { "default" } else { &self.cluster }
    }

    fn tofu<I: Into<String>>(&self, arguments: impl IntoIterator<Item = I>) -> Invocation {
        let directory = format!("-chdir={DIRECTORY}");
        let arguments = arguments.into_iter().map(Into::into);
        Invocation::new(self.program, std::iter::once(directory).chain(arguments))
    }

    fn aws(&self, arguments: &[&str]) -> Invocation {
        aws(&self.region, arguments.iter().copied())
    }

    /// The account, which also shows that there are credentials.
    ///
    /// # Errors
    /// There are none.
    pub fn account(&self) -> Result<String> {
        let identity: Value = self.tools.json(&self.aws(&["sts", "get-caller-identity"]))?;
        Ok(text_at(&identity, "/Account"))
    }

    /// This machine's address as AWS sees it, as a CIDR.
    ///
    /// # Errors
    /// The answer is no address.
    pub fn own_cidr(&self) -> Result<String> {
        let ask = Invocation::new("curl", ["-fsS", "--max-time", "10", ADDRESS_SERVICE]);
        let answer = self.tools.text(&ask)?;
        match answer.trim().parse() {
            Ok(IpAddr::V4(address)) => Ok(format!("{address}/32")),
            _ => Err(Error::Answer {
                command: ask.line(),
                problem: format!(
                    "{answer:?} is no IPv4 address; set PUBLIC_ACCESS_CIDRS to who may reach the \
                     cluster's API"
                ),
            }),
        }
    }

    /// Who may reach the API of the cluster that is there already; nobody where there is none.
    ///
    /// # Errors
    /// AWS can't be asked.
    pub fn public_access_cidrs(&self) -> Result<Vec<String>> {
        let cidrs = list_at(
            &self.describe_cluster()?.unwrap_or_default(),
            "/cluster/resourcesVpcConfig/publicAccessCidrs",
        )
        .iter()
        .filter_map(|cidr| cidr.as_str().map(str::to_owned))
        .collect();
        Ok(cidrs)
    }

    /// Makes OpenTofu ready, and makes sure that its state is this cluster's or nobody's.
    ///
    /// # Errors
    /// The state holds another cluster, or another region.
    pub fn open(&self) -> Result<State> {
        self.tools.run(&self.tofu(["init", "-input=false"]).within(INIT_MAX).shown())?;
        let select = ["workspace", "select", "-or-create", self.workspace()];
        self.tools.run(&self.tofu(select))?;
        self.state()
    }

    fn state(&self) -> Result<State> {
        let show = self.tofu(["show", "-json"]);
        let state: Value = self.tools.json(&show)?;
        let resources = list_at(&state, "/values/root_module/resources");
        let managed = || resources.iter().filter(|one| one["mode"] == "managed");
        let clusters = managed().filter(|one| one["type"] == "aws_eks_cluster");
        let names = clusters.map(|one| text_at(one, "/values/name"));
        let regions = managed().map(|one| text_at(one, "/values/region"));
        for (what, expected, found) in [
            ("cluster", &self.cluster, names.collect::<Vec<_>>()),
            ("region", &self.region, regions.collect()),
        ] {
            let other = found.into_iter().find(|one| !one.is_empty() && one != expected);
            if let Some(other) = other {
                return Err(Error::Refused(format!(
                    "the state in workspace {:?} of {DIRECTORY} holds {what} {other:?}, not \
                     {expected:?}: it is left alone. Give the run another cluster name, or the \
                     region that the state has",
                    self.workspace()
                )));
            }
        }
        let mut networks = managed().filter(|one| one["type"] == "aws_vpc");
        Ok(State {
            has_resources: managed().next().is_some(),
            has_cluster: managed().any(|one| one["type"] == "aws_eks_cluster"),
            vpc: networks.next().map(|one| text_at(one, "/values/id")).filter(|id| !id.is_empty()),
        })
    }

    fn variables(&self, cidrs: &[String]) -> [String; 3] {
        let cidrs = serde_json::to_string(cidrs).expect("texts are valid JSON");
        [
            format!("-var=cluster_name={}", self.cluster),
            format!("-var=aws_region={}", self.region),
            format!("-var=cluster_endpoint_public_access_cidrs={cidrs}"),
        ]
    }

    /// Plans the cluster, or what changes it to what the definitions say. The plan goes into a file.
    ///
    /// # Errors
    /// As OpenTofu's; or something that is there would be deleted or replaced, which no benchmark
    /// should do unasked.
    pub fn plan(&self, public_access_cidrs: &[String], file: &Path) -> Result<()> {
        let out = format!("-out={}", file.display());
        let fixed = ["plan".to_owned(), "-input=false".to_owned(), out];
        let plan = self.tofu(fixed.into_iter().chain(self.variables(public_access_cidrs)));
        self.tools.run(&plan.within(APPLY_MAX).shown())?;
        let show = self.tofu(["show".to_owned(), "-json".to_owned(), file.display().to_string()]);
        let plan: Value = self.tools.json(&show)?;
        let changes = list_at(&plan, "/resource_changes");
        let deletes =
            |change: &&Value| list_at(change, "/change/actions").iter().any(|one| one == "delete");
        let deleted: Vec<String> =
            changes.iter().filter(deletes).map(|change| text_at(change, "/address")).collect();
        if deleted.is_empty() {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "the cluster exists, and this run would delete or replace a part of it: {}. What was \
             given to `tofu apply` by hand belongs into {DIRECTORY}/terraform.tfvars, so that it \
             holds here as well",
            deleted.join(", ")
        )))
    }

    /// Makes what a plan says.
    ///
    /// # Errors
    /// As OpenTofu's; anything may exist then.
    pub fn apply(&self, plan: &Path) -> Result<Outputs> {
        let plan = plan.display().to_string();
        let apply = self.tofu(["apply", "-input=false", &plan]);
        self.tools.run(&apply.within(APPLY_MAX).shown())?;
        self.outputs()
    }

    /// Takes the cluster away.
    ///
    /// # Errors
    /// As OpenTofu's; anything may be left then. Nothing was done if the state is another cluster's
    /// by now.
    pub fn destroy(&self) -> Result<()> {
        self.state()?;
        let variables = self.variables(&[NOBODY.to_owned()]);
        let fixed = ["destroy", "-auto-approve", "-input=false"].map(str::to_owned);
        let destroy = self.tofu(fixed.into_iter().chain(variables));
        self.tools.run(&destroy.within(APPLY_MAX).shown()).map(drop)
    }

    /// What OpenTofu says of the cluster.
    ///
    /// # Errors
    /// An output is missing: the cluster was made in part only.
    pub fn outputs(&self) -> Result<Outputs> {
        let command = self.tofu(["output", "-json"]);
        let all: BTreeMap<String, Value> = self.tools.json(&command)?;
        let all: BTreeMap<String, Value> =
            all.into_iter().map(|(name, output)| (name, output["value"].clone())).collect();
        let missing = |name: &str| Error::Answer {
            command: command.line(),
            problem: format!("there is no output {name:?}: the cluster is not complete"),
        };
        let vpc = all.get("vpc_id").and_then(Value::as_str).ok_or_else(|| missing("vpc_id"))?;
        let cidrs = all.get("grafana_allowed_cidrs").cloned();
        let cidrs = cidrs.and_then(|cidrs| serde_json::from_value(cidrs).ok());
        Ok(Outputs {
            vpc: vpc.to_owned(),
            grafana_allowed_cidrs: cidrs.ok_or_else(|| missing("grafana_allowed_cidrs"))?,
            all,
        })
    }

    /// Writes a kubeconfig of the cluster's own; the operator's stays as it is.
    ///
    /// # Errors
    /// There is no such cluster.
    pub fn write_kubeconfig(&self, path: &Path) -> Result<PathBuf> {
        let path_text = path.display().to_string();
        let name = ["eks", "update-kubeconfig", "--name", &self.cluster];
        let arguments = [&name[..], &["--kubeconfig", &path_text]].concat();
        self.tools.run(&self.aws(&arguments))?;
        Ok(path.to_owned())
    }

    /// The cluster's status in EKS; none where there is no such cluster.
    ///
    /// # Errors
    /// AWS can't be asked.
    pub fn cluster_status(&self) -> Result<Option<String>> {
        Ok(self.describe_cluster()?.map(|answer| text_at(&answer, "/cluster/status")))
    }

    fn describe_cluster(&self) -> Result<Option<Value>> {
        let ask = self.aws(&["eks", "describe-cluster", "--name", &self.cluster]);
        match self.tools.json(&ask) {
            Ok(answer) => Ok(Some(answer)),
            Err(Error::Failed { message, .. }) if message.contains("ResourceNotFound") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until EKS is done with making or deleting the cluster: before, nothing can be done
    /// about it. Its status then.
    ///
    /// # Errors
    /// It takes too long.
    pub fn settled_status(&self, poll: Duration) -> Result<Option<String>> {
        let started = Instant::now();
        loop {
            let status = self.cluster_status()?;
            if !matches!(status.as_deref(), Some("CREATING" | "DELETING" | "PENDING")) {
                return Ok(status);
            }
            if started.elapsed() >= CLUSTER_SETTLES_MAX {
                let what = format!("the cluster is still {}", status.unwrap_or_default());
                return Err(Error::Waited { after: CLUSTER_SETTLES_MAX, what });
            }
            self.tools.pause(poll)?;
        }
    }

    /// Waits until no load balancer is left in the network, nor any interface of one: they would
    /// keep its subnets from being removed.
    ///
    /// # Errors
    /// Some are left after a while; they are named.
    pub fn wait_for_load_balancers(
        &self,
        vpc: &str,
        poll: Duration,
        within: Duration,
    ) -> Result<()> {
        let started = Instant::now();
        loop {
            let left = self.load_balancers(vpc)?;
            if left.is_empty() {
                return Ok(());
            }
            if started.elapsed() >= within {
                return Err(Error::Waited {
                    after: within,
                    what: format!(
                        "still in {vpc}: {}. The cluster is not destroyed: they would stay \
                         behind, and `destroy` would hang on their subnets",
                        left.join(", ")
                    ),
                });
            }
            self.tools.pause(poll)?;
        }
    }

    /// Names of load balancers in a network, and of their interfaces.
    ///
    /// # Errors
    /// AWS can't be asked.
    pub fn load_balancers(&self, vpc: &str) -> Result<Vec<String>> {
        let mut left = Vec::new();
        // Of the newer kind, and of the classic one, which a Service without annotations gets.
        for (service, list, id) in
            [("elbv2", "/LoadBalancers", "VpcId"), ("elb", "/LoadBalancerDescriptions", "VPCId")]
        {
            let all: Value = self.tools.json(&self.aws(&[service, "describe-load-balancers"]))?;
            let here = list_at(&all, list).iter().filter(|one| one[id] == vpc);
            left.extend(here.map(|one| text_at(one, "/LoadBalancerName")));
        }
        let in_vpc = format!("Name=vpc-id,Values={vpc}");
        let of_balancers = "Name=description,Values=ELB *";
        let ask = ["ec2", "describe-network-interfaces", "--filters", &in_vpc, of_balancers];
        let found: Value = self.tools.json(&self.aws(&ask))?;
        let found = list_at(&found, "/NetworkInterfaces").iter();
        left.extend(found.map(|one| text_at(one, "/NetworkInterfaceId")));
        Ok(left)
    }
}
