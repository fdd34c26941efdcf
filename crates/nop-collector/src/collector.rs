//! Starts and stops a collector within a process: the ports, and the handle that tests and `main`
//! hold.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use credentials::ContentError;
use thyme_core::manifest::ManifestLine;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use crate::faults::Faults;
use crate::intake::{Intake, KeptRequest};
use crate::limits::{BUFFERED_BYTES_MAX, DECOMPRESSED_BYTES_MAX_DEFAULT, PortLimits};
use crate::listen::{Acceptor, Phase, Port, Role};
use crate::manifest::ManifestCause;
use crate::report::{Detail, Report};
use crate::tls::{PortTls, TlsFiles};
use crate::verify::Verifier;

/// What a collector is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where OTLP/gRPC is served, `host:port`; port 0 lets the kernel choose.
    pub grpc: String,
    /// Where OTLP/HTTP is served.
    pub http: String,
    /// Where the report, the manifest and the metrics are served; always without TLS.
    pub admin: String,
    /// Largest decompressed message of a request, bytes.
    pub decompressed_bytes_max: usize,
    /// Certificates for the two OTLP ports; plain text if there are none.
    pub tls: Option<TlsFiles>,
    /// Limits of each port.
    pub limits: PortLimits,
    /// Keeps a copy of each request until [`Running::take_requests`]; only for tests, since
    /// nothing bounds it.
    pub keep_requests: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            grpc: "127.0.0.1:4317".to_owned(),
            http: "127.0.0.1:4318".to_owned(),
            admin: "127.0.0.1:8080".to_owned(),
            decompressed_bytes_max: DECOMPRESSED_BYTES_MAX_DEFAULT,
            tls: None,
            limits: PortLimits::default(),
            keep_requests: false,
        }
    }
}

impl Options {
    /// Ports that the kernel chooses on the loopback interface: what tests want.
    pub fn ephemeral() -> Self {
        let any = || "127.0.0.1:0".to_owned();
        Self { grpc: any(), http: any(), admin: any(), ..Self::default() }
    }
}

/// Why a collector can't be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be listened on.
    #[error("--{option} {address}: {cause}")]
    Bind {
        /// Which address.
        option: &'static str,
        /// What was asked for.
        address: String,
        /// What the system says.
        cause: io::Error,
    },
    /// Certificates or keys are of no use.
    #[error("TLS: {0}")]
    Tls(#[from] ContentError),
    /// The limit on messages makes no sense.
    #[error("the limit on decompressed messages, {bytes} bytes, isn't within 1 and {max}",
        max = BUFFERED_BYTES_MAX)]
    DecompressedBytesMax {
        /// What was asked for.
        bytes: usize,
    },
    /// No runtime can be made for a collector on its own threads.
    #[error("can't start threads: {0}")]
    Threads(io::Error),
}

/// Starts collectors.
#[derive(Debug)]
pub struct Collector;

impl Collector {
    /// Starts a collector on the current runtime. It stops when the handle is dropped.
    ///
    /// # Errors
    /// When an address can't be listened on, or an option makes no sense.
    pub async fn start(options: Options) -> Result<Running, StartError> {
        let bytes = options.decompressed_bytes_max;
        if bytes == 0 || bytes > BUFFERED_BYTES_MAX {
            return Err(StartError::DecompressedBytesMax { bytes });
        }
        let limits = options.limits;
        let intake = Arc::new(Intake::new(bytes, limits.body_timeout, options.keep_requests));
        let open = async |option, role, address: String, alpn: &[&str]| {
            let tls = options.tls.as_ref().map(|files| PortTls::load(files, alpn)).transpose()?;
            let acceptor = Acceptor { role, tls, limits, intake: Arc::clone(&intake) };
            let port = Port::open(&address, acceptor).await;
            port.map_err(|cause| StartError::Bind { option, address, cause })
        };
        let grpc = open("grpc", Role::Grpc, options.grpc.clone(), &["h2"]).await?;
        let http = open("http", Role::Http, options.http.clone(), &["h2", "http/1.1"]).await?;
        let acceptor =
            Acceptor { role: Role::Admin, tls: None, limits, intake: Arc::clone(&intake) };
        let address = options.admin;
        let admin = Port::open(&address, acceptor).await;
        let admin = admin.map_err(|cause| StartError::Bind { option: "admin", address, cause })?;
        let addresses = [grpc.address, http.address, admin.address];
        Ok(Running { intake, addresses, ports: Mutex::new(Ports { sinks: [grpc, http], admin }) })
    }

    /// Starts a collector on threads of its own, for callers that aren't asynchronous.
    ///
    /// # Errors
    /// As [`Self::start`], and when threads can't be started.
    pub fn start_on_threads(options: Options, threads: usize) -> Result<OnThreads, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("nop-collector")
            .enable_all()
            .build()
            .map_err(StartError::Threads)?;
        let running = runtime.block_on(Self::start(options))?;
        Ok(OnThreads { running, runtime: Some(runtime) })
    }
}

/// A running collector.
#[derive(Debug)]
pub struct Running {
    intake: Arc<Intake>,
    /// gRPC, HTTP, admin.
    addresses: [SocketAddr; 3],
    ports: Mutex<Ports>,
}

#[derive(Debug)]
struct Ports {
    /// The two that serve OTLP.
    sinks: [Port; 2],
    admin: Port,
}

impl Running {
    /// Where OTLP/gRPC is served.
    pub const fn grpc_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Where OTLP/HTTP is served.
    pub const fn http_addr(&self) -> SocketAddr {
        self.addresses[1]
    }

    /// Where the report, the manifest and the metrics are served.
    pub const fn admin_addr(&self) -> SocketAddr {
        self.addresses[2]
    }

    /// What was received, without the streams.
    pub fn report(&self) -> Report {
        self.intake.verifier().report(Detail::default())
    }

    /// What was received, with each stream and the distribution of latencies.
    pub fn report_with_intervals(&self) -> Report {
        self.intake.verifier().report(Detail { streams: true, runs: false })
    }

    /// Takes over a manifest; a writer's newer line replaces its older one.
    ///
    /// # Errors
    /// When there are too many writers.
    pub fn add_manifest(&self, lines: Vec<ManifestLine>) -> Result<(), ManifestCause> {
        self.intake.verifier().add_manifest(lines)
    }

    /// Forgets everything that was received, and the manifest; the script of faults stays.
    pub fn reset(&self) {
        *self.intake.verifier() = Verifier::default();
    }

    /// The script of faults.
    pub fn faults(&self) -> &Faults {
        &self.intake.faults
    }

    /// The requests that came since the last call, if [`Options::keep_requests`] was set.
    pub fn take_requests(&self) -> Vec<KeptRequest> {
        self.intake.take_kept()
    }

    /// Closes the OTLP ports and drops their connections, as if the sink had died; what was
    /// received stays known, and the admin port stays open.
    pub async fn stop_listening(&self) {
        for port in &mut self.ports.lock().await.sinks {
            port.close(Phase::Closed).await;
        }
    }

    /// Opens the OTLP ports again on the same addresses.
    ///
    /// # Errors
    /// When an address can't be listened on any more.
    pub async fn listen_again(&self) -> io::Result<()> {
        for port in &mut self.ports.lock().await.sinks {
            port.reopen().await?;
        }
        Ok(())
    }

    /// Stops: no new connections, and requests in flight have
    /// [`SHUTDOWN_TIMEOUT`](crate::limits::SHUTDOWN_TIMEOUT) to finish.
    pub async fn shut_down(self) {
        let Ports { sinks: [mut grpc, mut http], mut admin } = self.ports.into_inner();
        let drain = Phase::Draining;
        tokio::join!(grpc.close(drain), http.close(drain), admin.close(drain));
    }

    pub(crate) const fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }
}

/// A collector on threads of its own, which stop when it is dropped. Must not be dropped or called
/// from asynchronous code.
pub struct OnThreads {
    running: Running,
    /// There until it is dropped.
    runtime: Option<Runtime>,
}

impl OnThreads {
    /// As [`Running::stop_listening`], waiting for it.
    pub fn stop_listening(&self) {
        self.runtime().block_on(self.running.stop_listening());
    }

    /// As [`Running::listen_again`], waiting for it.
    ///
    /// # Errors
    /// When an address can't be listened on any more.
    pub fn listen_again(&self) -> io::Result<()> {
        self.runtime().block_on(self.running.listen_again())
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("the runtime is there until this is dropped")
    }
}

impl Deref for OnThreads {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl Drop for OnThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Requests that a fault stalls would otherwise hold up the caller.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for OnThreads {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("OnThreads").field("running", &self.running).finish_non_exhaustive()
    }
}
