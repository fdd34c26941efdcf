//! The stack on a cluster: applied, waited for, counted from zero, taken away.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::Instant,
};

use nop_collector::{manifest, report::Report};
use serde_json::json;
use thyme_core::manifest::ManifestLine;

use crate::{
    cli::LoadOptions,
    error::{Error, Result, file_error},
    images::ImageSet,
    kubernetes::{Kubernetes, LGTM_NAMESPACE, NAMESPACE, Pod},
    limits::{DRAIN_MAX, ROLLOUT_MAX},
    overlay,
    tools::Tools,
};

/// The load.
pub const GENERATOR: &str = "log-generator";

/// The sink.
pub const COLLECTOR: &str = "nop-collector";

/// The agent under test.
pub const AGENT: &str = "thyme";

/// Secret with the password of Grafana's user `admin`.
const PASSWORD_SECRET: &str = "grafana-admin";

/// What is deployed, and where.
#[derive(Debug)]
pub struct Stack<'a> {
    /// The cluster.
    pub kubernetes: Kubernetes<'a>,
    tools: &'a Tools,
    options: &'a LoadOptions,
    /// The kustomization that is applied.
    directory: PathBuf,
}

impl<'a> Stack<'a> {
    /// A kustomization for a cluster.
    pub fn new(
        kubernetes: Kubernetes<'a>,
        tools: &'a Tools,
        options: &'a LoadOptions,
        directory: PathBuf,
    ) -> Self {
        Self { kubernetes, tools, options, directory }
    }

    fn directory(&self) -> String {
        self.directory.display().to_string()
    }

    /// Gives Grafana's user `admin` a password that nobody knows yet, unless there is one: before
    /// anything listens.
    ///
    /// # Errors
    /// As kubectl's.
    fn ensure_password(&self) -> Result<()> {
        let Self { kubernetes, .. } = self;
        // An existing one keeps its labels, which an apply without them would take away.
        if kubernetes.find(LGTM_NAMESPACE, "namespace", LGTM_NAMESPACE)?.is_none() {
            let name = json!({"name": LGTM_NAMESPACE});
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": name});
            kubernetes.create(&namespace)?;
        }
        if kubernetes.find(LGTM_NAMESPACE, "secret", PASSWORD_SECRET)?.is_some() {
            return Ok(());
        }
        kubernetes.create(&json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": PASSWORD_SECRET, "namespace": LGTM_NAMESPACE},
            "type": "Opaque",
            "stringData": {"password": random_password()?},
        }))
    }

    /// Applies everything, the password first, and waits until all but the generators is ready.
    ///
    /// # Errors
    /// As kubectl's; or the overlay does not take the images that it was given.
    pub fn deploy(&self, images: Option<&ImageSet>) -> Result<()> {
        if let Some(images) = images {
            overlay::check_images(&self.rendered()?, images)?;
        }
        self.ensure_password()?;
        self.kubernetes.apply(&self.directory())?;
        let roll_out =
            |namespace, workload: &str| self.kubernetes.rollout(namespace, workload, ROLLOUT_MAX);
        roll_out(NAMESPACE, &format!("deployment/{COLLECTOR}"))?;
        if self.has_grafana()? {
            roll_out(LGTM_NAMESPACE, "deployment/lgtm")?;
        }
        roll_out(NAMESPACE, &format!("daemonset/{AGENT}"))
    }

    /// Whether the overlay has Grafana and what is behind it.
    ///
    /// # Errors
    /// As kubectl's.
    pub fn has_grafana(&self) -> Result<bool> {
        Ok(self.replicas_wanted(LGTM_NAMESPACE, "lgtm")? > 0)
    }

    /// How many generators the overlay wants.
    ///
    /// # Errors
    /// There is no such deployment.
    pub fn generators_wanted(&self) -> Result<u64> {
        match self.replicas_wanted(NAMESPACE, GENERATOR)? {
            0 => Err(Error::Refused(format!(
                "the overlay has no deployment {GENERATOR} with replicas: nothing would be measured"
            ))),
            replicas => Ok(replicas),
        }
    }

    /// How many pods a deployment wants; none where there is no such deployment.
    fn replicas_wanted(&self, namespace: &str, name: &str) -> Result<u64> {
        let deployment = self.kubernetes.find(namespace, "deployment", name)?;
        let replicas = deployment.and_then(|found| found.pointer("/spec/replicas")?.as_u64());
        Ok(replicas.unwrap_or_default())
    }

    /// Ends whatever load there is, lets it arrive, sets all counters to zero, and starts the load
    /// anew: nothing of an earlier run is counted. The pods as they were when counting began.
    ///
    /// # Errors
    /// As kubectl's, or an earlier load does not come to its end.
    pub fn start_from_zero(&self, generators: u64) -> Result<Vec<Pod>> {
        self.kubernetes.scale(GENERATOR, 0)?;
        self.wait_until("generators of an earlier load are still there", || {
            Ok(self.kubernetes.pods(Some(NAMESPACE))?.iter().all(|pod| pod.app != GENERATOR))
        })?;
        // One that is restarted from here on has forgotten lines.
        let mut pods = self.kubernetes.pods_of(COLLECTOR)?;
        let (mut before, mut since) = (None, Instant::now());
        self.wait_until("lines of an earlier load still arrive", || {
            let reports = self.reports(&pods, false)?;
            let stamped: u64 =
                reports.iter().map(|report| report.received + report.duplicated).sum();
            if before.replace(stamped) != Some(stamped) {
                since = Instant::now();
            }
            Ok(since.elapsed() >= self.options.quiet_time)
        })?;
        for pod in &pods {
            self.kubernetes.post(pod, "reset")?;
        }
        self.kubernetes.scale(GENERATOR, generators)?;
        self.kubernetes.rollout(NAMESPACE, &format!("deployment/{GENERATOR}"), ROLLOUT_MAX)?;
        let others = self.kubernetes.pods(Some(NAMESPACE))?;
        pods.extend(others.into_iter().filter(|pod| pod.app != COLLECTOR && !pod.is_leaving));
        Ok(pods)
    }

    /// The collectors' reports; with `detail` all that a verdict needs.
    ///
    /// # Errors
    /// As kubectl's, or an answer isn't a report.
    pub fn reports(&self, collectors: &[Pod], detail: bool) -> Result<Vec<Report>> {
        collectors.iter().map(|pod| self.report(pod, detail)).collect()
    }

    /// One collector's report; with `detail` all that a verdict needs.
    ///
    /// # Errors
    /// As kubectl's, or the answer isn't a report.
    pub fn report(&self, pod: &Pod, detail: bool) -> Result<Report> {
        let path = if detail { "report?intervals=1" } else { "report" };
        let text = self.kubernetes.admin(pod, path)?;
        serde_json::from_slice(&text).map_err(|error| Error::Answer {
            command: format!("{}/{path}", pod.name),
            problem: error.to_string(),
        })
    }

    /// One generator's manifest.
    ///
    /// # Errors
    /// As kubectl's, or the answer isn't a manifest.
    pub fn manifest(&self, pod: &Pod) -> Result<Vec<ManifestLine>> {
        let text = self.kubernetes.admin(pod, "manifest")?;
        manifest::parse(&text).map_err(|error| Error::Answer {
            command: format!("{}/manifest", pod.name),
            problem: error.to_string(),
        })
    }

    /// Deletes everything, and waits until it is gone.
    ///
    /// # Errors
    /// As kubectl's.
    pub fn delete(&self) -> Result<()> {
        self.kubernetes.delete(&self.directory())
    }

    /// What is applied, rendered.
    ///
    /// # Errors
    /// As kubectl's.
    pub fn rendered(&self) -> Result<Vec<u8>> {
        self.kubernetes.render(&self.directory())
    }

    fn wait_until(&self, problem: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
        let started = Instant::now();
        while !is_so()? {
            if started.elapsed() >= DRAIN_MAX {
                return Err(Error::Waited { after: DRAIN_MAX, what: problem.to_owned() });
            }
            self.tools.pause(self.options.poll_interval)?;
        }
        Ok(())
    }
}

/// 128 bits from the system, as text.
fn random_password() -> Result<String> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; 16];
    File::open(source)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(file_error(source))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
