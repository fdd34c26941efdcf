//! The order of everything: tools, images, cluster, stack, load, report, and away with it again.
//! What exists is noted before each step that makes or removes something.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    answer::{list_at, text_at},
    checklist::{Check, is_allowed, of_cluster},
    cli::{AwsOptions, HereOptions, Images, LoadOptions},
    cost::{self, Bill, Cost},
    error::{Error, Result, file_error},
    images::{self, ImageSet},
    infrastructure::{Infrastructure, Outputs},
    kubernetes::{Kubernetes, LGTM_NAMESPACE, NAMESPACE, Node, Pod},
    leftovers,
    limits::CHECKLIST_MAX,
    overlay::{self, Changes},
    phases::{Benchmark, Measured},
    registry,
    report::{Directory, Story, outputs_json},
    stack::{AGENT, COLLECTOR, Stack},
    standing::{Stage, Standing},
    tools::{Invocation, Tools},
    verdict::{Outcome, Verdict},
};

/// Where the documents say how to get the tools.
const HINT: &str = "infrastructure/aws/README.md says how to get them";

/// What the metrics of agent, generator and collector are called behind Grafana.
const METRICS: [&str; 3] = [
    "otelcol_exporter_sent_log_records_total",
    "log_generator_lines_total",
    "nop_collector_records_total",
];

/// Says something to whoever watches.
pub type Say<'a> = &'a dyn Fn(&str);

/// On EKS, from nothing to nothing.
///
/// # Errors
/// What kept it from a verdict; `standing` says what exists then.
pub fn on_aws(
    options: &AwsOptions,
    tools: &Tools,
    standing: &mut Standing,
    say: Say<'_>,
) -> Result<Outcome> {
    if options.leftovers {
        tools.require(&["aws"], HINT)?;
        return list_leftovers(tools, &options.region, say);
    }
    let program = opentofu(tools)?;
    tools.require(&["aws", "kubectl"], HINT)?;
    let cluster = options.destroy.as_deref().unwrap_or(&options.cluster);
    let infrastructure = Infrastructure::new(tools, program, cluster, &options.region);
    let aws = Aws { options, tools, infrastructure: &infrastructure, cluster, say };
    if options.destroy.is_some() {
        // Whoever says so believes that there is something.
        standing.stage = Stage::Partly;
        say(&format!("account {}", infrastructure.account()?));
        return aws.destroy(standing).map(|()| Outcome::Passed);
    }
    tools.require(&["git", "make", "curl"], HINT)?;
    images::require_tools(tools, &options.load, HINT)?;
    say(&format!("account {}", infrastructure.account()?));
    aws.run(standing)
}

/// OpenTofu, or else Terraform.
fn opentofu(tools: &Tools) -> Result<&'static str> {
    ["tofu", "terraform"]
        .into_iter()
        .find(|program| tools.require(&[program], HINT).is_ok())
        .ok_or_else(|| Error::ToolsMissing { names: vec!["tofu".to_owned()], hint: HINT })
}

fn list_leftovers(tools: &Tools, region: &str, say: Say<'_>) -> Result<Outcome> {
    let left = leftovers::find(tools, region)?;
    for one in &left {
        match &one.doubt {
            None => say(&format!("still there: {}", one.arn)),
            Some(why) => say(&format!("perhaps still there: {} ({why})", one.arn)),
        }
    }
    if left.is_empty() {
        say(&format!("nothing with the tag Project=Thyme is left in {region}"));
    }
    Ok(if left.is_empty() { Outcome::Passed } else { Outcome::Failed })
}

/// A run on EKS.
struct Aws<'a> {
    options: &'a AwsOptions,
    tools: &'a Tools,
    infrastructure: &'a Infrastructure<'a>,
    cluster: &'a str,
    say: Say<'a>,
}

impl Aws<'_> {
    fn run(&self, standing: &mut Standing) -> Result<Outcome> {
        let Self { options, tools, infrastructure, say, .. } = *self;
        let own = match options.public_access_cidrs.is_empty() {
            true => Some(infrastructure.own_cidr()?),
            false => None,
        };
        let images = images::provide(tools, &options.load, Some(&options.platform))?;
        registry::require_public(tools, &images)?;
        let state = infrastructure.open()?;
        if state.has_resources {
            standing.stage = Stage::ClusterAndStack;
        }
        if !state.has_cluster && infrastructure.cluster_status()?.is_some() {
            return Err(self.somebody_elses());
        }
        let plan = directory(tools.directory(), self.cluster).join("plan");
        let directory = Directory::create(&self.reports(), &today(), "aws")?;
        tools.record_to(&directory.path().join("commands.log"))?;
        let cidrs = match &own {
            None => options.public_access_cidrs.clone(),
            // Whoever could reach the cluster before still can.
            Some(own) => {
                let mut cidrs = match state.has_cluster {
                    true => infrastructure.public_access_cidrs()?,
                    false => Vec::new(),
                };
                if !is_allowed(own, &cidrs) {
                    cidrs.push(own.clone());
                }
                cidrs
            }
        };
        say(&format!("the cluster's API is open to {}", cidrs.join(", ")));
        infrastructure.plan(&cidrs, &plan)?;
        let started = Instant::now();
        if !state.has_resources {
            standing.stage = Stage::Partly;
        }
        say(&format!("cluster {}: about 15 minutes if it is new", self.cluster));
        let outputs = infrastructure.apply(&plan)?;
        if !state.has_resources {
            standing.stage = Stage::Cluster;
        }
        directory.write("configuration/outputs.json", outputs_json(&outputs.all))?;
        let changes = Changes {
            images: Some(images),
            grafana_allowed_cidrs: outputs.grafana_allowed_cidrs.clone(),
        };
        let stack = self.stack(&changes)?;
        standing.stage = Stage::ClusterAndStack;
        stack.deploy(changes.images.as_ref())?;
        let balancer = self.load_balancer(&stack, &outputs, own.as_deref())?;
        let session = Session {
            stack: &stack,
            tools,
            load: &options.load,
            directory: &directory,
            images: changes.images.as_ref(),
            place: "aws",
            say,
        };
        let outcome = session.run(options.active, cost::NODES, Some(balancer), Some(started))?;
        // Who had made the cluster before decides when it goes.
        if options.auto_cleanup.unwrap_or(!state.has_resources) {
            self.take_away(&stack, &outputs.vpc, standing)?;
        }
        Ok(outcome)
    }

    fn somebody_elses(&self) -> Error {
        Error::Refused(format!(
            "there is a cluster {} in {}, and the state here knows nothing of it: it was made from \
             another checkout, backend or workspace, and is left alone",
            self.cluster, self.options.region
        ))
    }

    fn reports(&self) -> PathBuf {
        self.tools.directory().join(&self.options.load.reports)
    }

    fn stack(&self, changes: &Changes) -> Result<Stack<'_>> {
        let Self { options, tools, infrastructure, cluster, .. } = *self;
        let base = Path::new("deployment/aws");
        let overlay = overlay::write(tools.directory(), cluster, base, changes)?;
        let kubeconfig = infrastructure.write_kubeconfig(&overlay.join("kubeconfig"))?;
        let kubernetes = Kubernetes::new(tools, Some(kubeconfig));
        Ok(Stack::new(kubernetes, tools, &options.load, overlay))
    }

    /// Grafana through its load balancer, as far as this machine is let in.
    fn load_balancer(
        &self,
        stack: &Stack<'_>,
        outputs: &Outputs,
        own: Option<&str>,
    ) -> Result<Check> {
        const NAME: &str = "Grafana's load balancer";
        let deadline = Instant::now() + self.options.grafana_wait;
        loop {
            let service = stack.kubernetes.find(LGTM_NAMESPACE, "service", "grafana")?;
            let at = "/status/loadBalancer/ingress/0/hostname";
            let host = service.map(|found| text_at(&found, at)).unwrap_or_default();
            let url = format!("http://{host}:3000");
            let is_in = own.is_some_and(|own| is_allowed(own, &outputs.grafana_allowed_cidrs));
            if !host.is_empty() && !is_in {
                let ranges = outputs.grafana_allowed_cidrs.join(", ");
                let found = format!("{url}, open to {ranges}, so not asked from here");
                return Ok(Check::new(NAME, true, found));
            }
            let health = format!("{url}/api/health");
            let ask = Invocation::new("curl", ["-fsS", "--max-time", "10", health.as_str()]);
            let answer = if host.is_empty() { None } else { Some(self.tools.run(&ask)) };
            match answer {
                Some(Ok(_)) => return Ok(Check::new(NAME, true, url)),
                Some(Err(Error::Interrupted(signal))) => return Err(Error::Interrupted(signal)),
                _ if Instant::now() >= deadline => {
                    return Err(Error::Waited {
                        after: self.options.grafana_wait,
                        what: format!("{NAME}: no answer from {url:?}"),
                    });
                }
                _ => self.tools.pause(self.options.load.poll_interval)?,
            }
        }
    }

    /// Kubernetes resources first: the load balancer is theirs, and holds interfaces in the subnets.
    fn take_away(&self, stack: &Stack<'_>, vpc: &str, standing: &mut Standing) -> Result<()> {
        (self.say)("deleting the Kubernetes resources");
        stack.delete()?;
        self.destroy_network(Some(vpc), self.options.load_balancer_wait, standing)
    }

    /// Destroys what OpenTofu has made, once no load balancer is left in its network.
    fn destroy_network(
        &self,
        vpc: Option<&str>,
        within: Duration,
        standing: &mut Standing,
    ) -> Result<()> {
        let Self { options, infrastructure, say, .. } = *self;
        if let Some(vpc) = vpc {
            say("waiting until the load balancer and its interfaces are gone");
            infrastructure.wait_for_load_balancers(vpc, options.load.poll_interval, within)?;
        }
        standing.stage = Stage::Partly;
        say("destroying the cluster: about 10 minutes");
        infrastructure.destroy()?;
        standing.stage = Stage::Nothing;
        say("everything is destroyed; `--leftovers` asks AWS by tag");
        Ok(())
    }

    /// Takes away what is there, however far it had come. Kubernetes can be asked only once EKS is
    /// done with the cluster, and may refuse even then: in a cluster that was made in part this
    /// account has no rights yet. Then it is the network that shows whether a load balancer is left.
    fn destroy(&self, standing: &mut Standing) -> Result<()> {
        let Self { options, infrastructure, say, .. } = *self;
        let mut within = options.load_balancer_wait;
        let state = infrastructure.open()?;
        let status = infrastructure.settled_status(options.load.poll_interval)?;
        if !state.has_cluster && status.is_some() {
            say(&self.somebody_elses().to_string());
        }
        if !state.has_resources {
            say(&format!("the state of cluster {} is empty: nothing to destroy", self.cluster));
            standing.stage = Stage::Nothing;
            return if status.is_none() { Ok(()) } else { Err(self.somebody_elses()) };
        }
        if state.has_cluster && matches!(status.as_deref(), Some("ACTIVE" | "UPDATING")) {
            standing.stage = Stage::ClusterAndStack;
            say("deleting the Kubernetes resources");
            match self.stack(&Changes::default()).and_then(|stack| stack.delete()) {
                Ok(()) => {}
                Err(Error::Interrupted(signal)) => return Err(Error::Interrupted(signal)),
                Err(error) => {
                    say(&format!("they can't be deleted: {error}"));
                    within = Duration::ZERO;
                }
            }
        }
        self.destroy_network(state.vpc.as_deref(), within, standing)
    }
}

/// On the cluster of the operator's kubeconfig.
///
/// # Errors
/// What kept it from a verdict.
pub fn here(options: &HereOptions, tools: &Tools, say: Say<'_>) -> Result<Outcome> {
    tools.require(&["kubectl", "git"], HINT)?;
    let images = match options.images {
        Images::Overlay => None,
        Images::Commit => {
            tools.require(&["make"], HINT)?;
            images::require_tools(tools, &options.load, HINT)?;
            Some(images::provide(tools, &options.load, None)?)
        }
    };
    let place = options.overlay.file_name().and_then(|name| name.to_str()).unwrap_or("here");
    let changes = Changes { images, grafana_allowed_cidrs: Vec::new() };
    let overlay = overlay::write(tools.directory(), place, &options.overlay, &changes)?;
    let mut kubernetes = Kubernetes::new(tools, None);
    let context = kubernetes.pin_context(&overlay.join("kubeconfig"))?;
    say(&format!("context {context}, Kubernetes {}", kubernetes.server_version()?));
    let reports = tools.directory().join(&options.load.reports);
    let directory = Directory::create(&reports, &today(), place)?;
    tools.record_to(&directory.path().join("commands.log"))?;
    let stack = Stack::new(kubernetes, tools, &options.load, overlay);
    stack.deploy(changes.images.as_ref())?;
    let session = Session {
        stack: &stack,
        tools,
        load: &options.load,
        directory: &directory,
        images: changes.images.as_ref(),
        place,
        say,
    };
    let outcome = session.run(options.active, 1, None, None)?;
    if options.auto_cleanup {
        say("deleting the Kubernetes resources");
        stack.delete()?;
    }
    Ok(outcome)
}

/// A benchmark over a stack that stands.
struct Session<'a> {
    stack: &'a Stack<'a>,
    tools: &'a Tools,
    load: &'a LoadOptions,
    directory: &'a Directory,
    images: Option<&'a ImageSet>,
    place: &'a str,
    say: Say<'a>,
}

/// What is known of the cluster before the load.
struct Facts {
    commit: String,
    server_version: String,
    nodes: Vec<Node>,
    rendered: Vec<u8>,
}

impl Session<'_> {
    fn run(
        &self,
        active: Duration,
        nodes_min: usize,
        balancer: Option<Check>,
        billed: Option<Instant>,
    ) -> Result<Outcome> {
        let result = self.try_run(active, nodes_min, balancer, billed);
        if !matches!(result, Err(Error::Interrupted(_))) {
            // They explain a failure, and must not make one.
            if let Err(error) = self.keep_logs() {
                (self.say)(&format!("the pods' logs can't be kept: {error}"));
            }
        }
        result
    }

    fn try_run(
        &self,
        active: Duration,
        nodes_min: usize,
        balancer: Option<Check>,
        billed: Option<Instant>,
    ) -> Result<Outcome> {
        let Self { stack, tools, load, directory, say, .. } = *self;
        balancer.iter().for_each(|check| say(&check.to_string()));
        let facts = Facts {
            commit: tools.text(&Invocation::new("git", ["rev-parse", "HEAD"]))?,
            server_version: stack.kubernetes.server_version()?,
            nodes: stack.kubernetes.nodes()?,
            rendered: stack.rendered()?,
        };
        directory.write("configuration/rendered.yaml", &facts.rendered)?;
        let generators = stack.generators_wanted()?;
        say("counters to zero");
        let pods = stack.start_from_zero(generators)?;
        let began = jiff::Timestamp::now();
        let mut checklist = self.checklist(nodes_min, generators)?;
        checklist.extend(balancer);
        let measured = Benchmark::new(stack, tools, load, pods).run(active, say)?;
        let verdict = Verdict::new(&measured).map_err(|error| Error::Answer {
            command: "the collectors' reports".to_owned(),
            problem: error.to_string(),
        })?;
        let outcome = verdict.outcome();
        say(&format!("{outcome}: {}/REPORT.md", directory.path().display()));
        verdict.invalid.iter().chain(&verdict.failures).for_each(|reason| say(reason));
        let hours = billed.map(|started| started.elapsed().as_secs_f64() / 3_600.0);
        self.tell(began, &facts, &checklist, &verdict, &measured, hours)?;
        Ok(outcome)
    }

    fn tell(
        &self,
        began: jiff::Timestamp,
        facts: &Facts,
        checklist: &[Check],
        verdict: &Verdict,
        measured: &Measured,
        hours: Option<f64>,
    ) -> Result<()> {
        let Facts { commit, server_version, nodes, .. } = facts;
        let wire_bytes = measured.end.reports.iter().map(|report| report.wire_bytes).sum();
        let cost: Option<Cost> = hours.map(|hours| {
            cost::cost(&Bill { hours, nodes, server_version, today: &today(), wire_bytes })
        });
        let story = Story {
            place: self.place,
            began: began.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            commit: commit.clone(),
            server_version: server_version.clone(),
            images: self.images,
            nodes,
            checklist,
            verdict,
            cost: cost.as_ref(),
            samples_failed: measured.samples_failed,
            samples: &measured.samples,
        };
        self.directory.tell(&story, measured)
    }

    /// Logs of agents and collectors. A generator's log is the load.
    fn keep_logs(&self) -> Result<()> {
        let kubernetes = &self.stack.kubernetes;
        for app in [AGENT, COLLECTOR] {
            for pod in kubernetes.pods_of(app)? {
                let log = kubernetes.log(&pod)?;
                self.directory.write(&format!("logs/{}.log", pod.name), log)?;
            }
        }
        Ok(())
    }

    /// Looks until the list holds.
    fn checklist(&self, nodes_min: usize, generators: u64) -> Result<Vec<Check>> {
        let kubernetes = &self.stack.kubernetes;
        let has_grafana = self.stack.has_grafana()?;
        // On a cluster that is not ours, other people's pods are their own affair.
        let is_ours = |pod: &Pod| {
            self.place == "aws" || pod.namespace == NAMESPACE || pod.namespace == LGTM_NAMESPACE
        };
        let deadline = Instant::now() + CHECKLIST_MAX;
        loop {
            let (nodes, mut pods) = (kubernetes.nodes()?, kubernetes.pods(None)?);
            pods.retain(is_ours);
            let mut checks = of_cluster(&nodes, &pods, nodes_min, generators);
            if has_grafana {
                checks.push(self.grafana()?);
                checks.push(self.metrics()?);
            }
            let is_over = Instant::now() >= deadline;
            if checks.iter().all(|check| check.holds) || is_over {
                checks.iter().for_each(|check| (self.say)(&check.to_string()));
            }
            if checks.iter().all(|check| check.holds) {
                return Ok(checks);
            }
            if is_over {
                let failed = checks.iter().filter(|check| !check.holds);
                let failed: Vec<String> = failed.map(Check::to_string).collect();
                return Err(Error::Waited { after: CHECKLIST_MAX, what: failed.join("; ") });
            }
            self.tools.pause(self.load.poll_interval)?;
        }
    }

    fn grafana(&self) -> Result<Check> {
        let path =
            format!("/api/v1/namespaces/{LGTM_NAMESPACE}/services/grafana:3000/proxy/api/health");
        let found = match self.stack.kubernetes.raw(&path) {
            Ok(_) => return Ok(Check::new("Grafana answers", true, "yes")),
            Err(Error::Interrupted(signal)) => return Err(Error::Interrupted(signal)),
            Err(error) => error.to_string(),
        };
        Ok(Check::new("Grafana answers", false, found))
    }

    fn metrics(&self) -> Result<Check> {
        const NAME: &str = "Prometheus has the metrics of agents, generators and collectors";
        let base = format!("/api/v1/namespaces/{LGTM_NAMESPACE}/services/lgtm:9090/proxy");
        let mut missing = Vec::new();
        for metric in METRICS {
            let answer = self.stack.kubernetes.raw(&format!("{base}/api/v1/query?query={metric}"));
            if let Err(Error::Interrupted(signal)) = answer {
                return Err(Error::Interrupted(signal));
            }
            let answer: serde_json::Value =
                answer.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
            if list_at(&answer, "/data/result").is_empty() {
                missing.push(metric);
            }
        }
        Ok(match missing.is_empty() {
            true => Check::new(NAME, true, METRICS.join(", ")),
            false => Check::new(NAME, false, format!("missing: {}", missing.join(", "))),
        })
    }
}

/// The day, in UTC.
pub fn today() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}

/// Where a run keeps what belongs to one cluster.
pub fn directory(root: &Path, cluster: &str) -> PathBuf {
    root.join("local/run").join(cluster)
}

/// The repository's root: the directory above the working one that has the infrastructure.
///
/// # Errors
/// There is none.
pub fn root() -> Result<PathBuf> {
    let here = std::env::current_dir().map_err(file_error("."))?;
    let root = here.ancestors().find(|path| path.join("infrastructure/aws").is_dir());
    root.map(Path::to_owned).ok_or_else(|| {
        Error::Refused("to be run in the repository: infrastructure/aws is not here".to_owned())
    })
}
