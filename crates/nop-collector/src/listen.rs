//! A listening port: accepts connections within the limit, and can be closed and opened again on
//! the same address, which is how tests make a sink disappear.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::connection;
use crate::intake::Intake;
use crate::limits::PortLimits;
use crate::tls::PortTls;

/// After an `accept` that failed, which means that descriptors are short: the wait before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a port serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP.
    Http,
    /// Report, manifest, metrics.
    Admin,
}

/// How far a port is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It accepts connections.
    Open,
    /// It accepts none; requests in flight may finish.
    Draining,
    /// Its connections are dropped.
    Closed,
}

/// One port and, while it is open, the task that accepts on it.
#[derive(Debug)]
pub(crate) struct Port {
    /// Where it listens; with the port number that the kernel chose if it was asked to.
    pub(crate) address: SocketAddr,
    acceptor: Acceptor,
    open: Option<(watch::Sender<Phase>, JoinHandle<()>)>,
}

/// What an accepted connection needs.
#[derive(Clone)]
pub(crate) struct Acceptor {
    pub(crate) role: Role,
    pub(crate) tls: Option<PortTls>,
    pub(crate) limits: PortLimits,
    pub(crate) intake: Arc<Intake>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tls = self.tls.is_some();
        out.debug_struct("Acceptor").field("role", &self.role).field("tls", &tls).finish()
    }
}

impl Port {
    /// Binds `address` (a name is resolved) and starts to accept.
    pub(crate) async fn open(address: &str, acceptor: Acceptor) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let mut port = Self { address: listener.local_addr()?, acceptor, open: None };
        port.start(listener);
        Ok(port)
    }

    /// Opens a closed port again on the address that it had.
    pub(crate) async fn reopen(&mut self) -> io::Result<()> {
        if self.open.is_none() {
            let listener = TcpListener::bind(self.address).await?;
            self.start(listener);
        }
        Ok(())
    }

    /// Ends the port and its connections as `phase` says, and waits until they are gone.
    pub(crate) async fn close(&mut self, phase: Phase) {
        if let Some((sender, task)) = self.open.take() {
            // The task only ends early by a panic, and then there is nobody to tell.
            sender.send_replace(phase);
            if let Err(error) = task.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }

    fn start(&mut self, listener: TcpListener) {
        let (sender, phase) = watch::channel(Phase::Open);
        let task = tokio::spawn(accept(listener, self.acceptor.clone(), phase));
        self.open = Some((sender, task));
    }
}

/// Accepts until the phase changes or the port is dropped; then waits for the connections.
async fn accept(listener: TcpListener, acceptor: Acceptor, mut phase: watch::Receiver<Phase>) {
    let mut connections = JoinSet::new();
    let free = Arc::new(Semaphore::new(acceptor.limits.connections_max));
    loop {
        let next = async {
            let permit = Arc::clone(&free).acquire_owned().await;
            (permit.expect("the semaphore is never closed"), listener.accept().await)
        };
        tokio::select! {
            _ = phase.changed() => break,
            Some(_) = connections.join_next() => {}
            (permit, accepted) = next => match accepted {
                Ok((stream, _)) => {
                    let one = serve(stream, acceptor.clone(), permit, phase.clone());
                    connections.spawn(one);
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve(
    stream: TcpStream,
    acceptor: Acceptor,
    _permit: OwnedSemaphorePermit,
    phase: watch::Receiver<Phase>,
) {
    let Acceptor { role, tls, limits, intake } = acceptor;
    if stream.set_nodelay(true).is_err() {
        return;
    }
    match tls {
        None => connection::serve(stream, role, limits, intake, phase).await,
        Some(tls) => {
            let handshake = async { tls.acceptor().await.accept(stream).await };
            let handshake = tokio::time::timeout(limits.handshake_timeout, handshake);
            if let Ok(Ok(stream)) = handshake.await {
                connection::serve(stream, role, limits, intake, phase).await;
            }
        }
    }
}
