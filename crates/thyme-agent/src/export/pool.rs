//! Connections to the addresses of a sink: keeps them, replaces them when they are old, and finds
//! out beside the requests which addresses are alive. What is sent over them is not its business.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::sync::Notify;

use super::{
    balance::Balance,
    chance,
    connect::{ConnectError, Connector, Dialled, Opened, Resolver, Sender, resolve},
    first_bytes::FirstBytes,
    limits::{ADDRESSES_PER_CONNECTION_MAX, Timing},
    outcome::Quote,
    signs::Signs,
    warnings::{Topic, Warnings},
};
use crate::config::Protocol;

/// All connections to one sink.
pub(super) struct Pool {
    dialled: Dialled,
    connector: Connector,
    resolver: Arc<dyn Resolver>,
    timing: Timing,
    warnings: Arc<Warnings>,
    balance: Mutex<Balance<Arc<Slot>>>,
    /// When the name is resolved next; `None` is at once.
    resolve_at: Mutex<Option<Instant>>,
    /// Held while somebody resolves.
    resolving: tokio::sync::Mutex<()>,
    /// The last lease failed for want of any address.
    is_down: AtomicBool,
    /// Wakes those who wait since then, when a connection can be made again.
    up: Notify,
    next_id: AtomicU64,
}

/// The connections to one address.
#[derive(Debug)]
pub(super) struct Slot {
    address: SocketAddr,
    /// HTTP/1.1: the idle ones. HTTP/2: one, or two while the older one is replaced, newest last.
    connections: Mutex<Vec<Connection>>,
    /// HTTP/2: held while somebody connects, so that all share one connection.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Connection {
    id: u64,
    sender: Sender,
    /// From then on it should be replaced.
    renew_at: Instant,
    /// Shared with its leases.
    signs: Arc<Signs>,
    /// What the peer began with.
    first: Arc<FirstBytes>,
}

/// The right to send one request over a connection.
#[derive(Debug)]
pub(super) struct Lease {
    /// To send with.
    pub(super) sender: Sender,
    slot: Arc<Slot>,
    id: u64,
    renew_at: Instant,
    signs: Arc<Signs>,
    first: Arc<FirstBytes>,
}

impl Lease {
    /// Words about a peer that speaks something else than `protocol`.
    pub(super) fn unexpected(&self, protocol: Protocol) -> Option<String> {
        self.first.unexpected(protocol)
    }

    /// Where it leads.
    pub(super) fn address(&self) -> SocketAddr {
        self.slot.address
    }

    /// Whether an answer came over this connection before. If it breaks now, it was old, which
    /// says nothing about its address.
    pub(super) fn has_served(&self) -> bool {
        self.signs.has_served()
    }

    /// The connection's signs of life.
    pub(super) fn signs(&self) -> &Arc<Signs> {
        &self.signs
    }
}

impl Slot {
    fn new(address: SocketAddr) -> Self {
        let connections = Mutex::new(Vec::new());
        Self { address, connections, opening: tokio::sync::Mutex::new(()) }
    }

    /// A connection that is there: the HTTP/2 one, or an idle HTTP/1.1 one of its own.
    fn take(self: &Arc<Self>) -> Option<Lease> {
        let mut connections = lock(&self.connections);
        let now = Instant::now();
        connections.retain(|connection| !connection.sender.is_closed() && !connection.is_over(now));
        let sender = match connections.last()?.sender {
            Sender::Http2(ref shared) => Some(Sender::Http2(shared.clone())),
            Sender::Http1(_) => None,
        };
        match sender {
            Some(sender) => Some(connections.last()?.lease(sender, self)),
            None => connections.pop().map(|connection| connection.into_lease(self)),
        }
    }

    /// Puts an idle HTTP/1.1 connection back, unless it is old; an HTTP/2 one never left.
    fn put_back(&self, lease: Lease, now: Instant) {
        let Lease { sender, id, renew_at, signs, first, .. } = lease;
        if matches!(sender, Sender::Http1(_)) && now < renew_at {
            lock(&self.connections).push(Connection { id, sender, renew_at, signs, first });
        }
    }

    fn remove(&self, id: u64) {
        lock(&self.connections).retain(|connection| connection.id != id);
    }
}

impl Connection {
    /// Whether it is too old to be used again. A shared one is, until another is there for it.
    fn is_over(&self, now: Instant) -> bool {
        matches!(self.sender, Sender::Http1(_)) && self.renew_at <= now
    }

    fn lease(&self, sender: Sender, slot: &Arc<Slot>) -> Lease {
        let (signs, first) = (Arc::clone(&self.signs), Arc::clone(&self.first));
        let (slot, renew_at) = (Arc::clone(slot), self.renew_at);
        Lease { sender, slot, id: self.id, renew_at, signs, first }
    }

    fn into_lease(self, slot: &Arc<Slot>) -> Lease {
        let Self { id, sender, renew_at, signs, first } = self;
        Lease { sender, slot: Arc::clone(slot), id, renew_at, signs, first }
    }
}

impl Pool {
    pub(super) fn new(
        dialled: Dialled,
        connector: Connector,
        resolver: Arc<dyn Resolver>,
        timing: Timing,
        warnings: Arc<Warnings>,
    ) -> Self {
        let balance = Balance::new(&timing, chance::bits() as usize);
        Self {
            dialled,
            connector,
            resolver,
            timing,
            warnings,
            balance: Mutex::new(balance),
            resolve_at: Mutex::new(None),
            resolving: tokio::sync::Mutex::new(()),
            is_down: AtomicBool::new(false),
            up: Notify::new(),
            next_id: AtomicU64::new(0),
        }
    }

    /// A connection for one request, to the address whose turn it is. Where one can't be had, the
    /// next address is tried.
    ///
    /// # Errors
    /// When none of the addresses tried can be connected to.
    pub(super) async fn lease(self: &Arc<Self>) -> Result<Lease, ConnectError> {
        let result = self.lease_of_any().await;
        if result.is_err() {
            self.is_down.store(true, Ordering::Relaxed);
        } else if self.is_down.swap(false, Ordering::Relaxed) {
            self.up.notify_waiters();
        }
        result
    }

    /// Waits until a lease succeeds after one that failed.
    pub(super) async fn up_again(&self) {
        self.up.notified().await;
    }

    /// Whether a request could go elsewhere than to this address.
    pub(super) fn has_other_than(&self, address: SocketAddr) -> bool {
        lock(&self.balance).has_in_use(Some(address))
    }

    /// The answer has been read to its end; `took_it` unless it says that this address can't take
    /// requests.
    pub(super) fn answered(&self, lease: Lease, took_it: bool) {
        let (slot, now) = (Arc::clone(&lease.slot), Instant::now());
        lease.signs.answered();
        slot.put_back(lease, now);
        let mut balance = lock(&self.balance);
        if took_it {
            balance.succeeded(slot.address);
        } else {
            balance.refused(slot.address, now);
        }
    }

    /// The connection is of no more use. Requests under way on it go on.
    pub(super) fn discard(&self, lease: &Lease) {
        lease.slot.remove(lease.id);
    }

    /// The connection is of no more use, and its address is suspect.
    pub(super) fn failed(&self, lease: &Lease) {
        self.discard(lease);
        self.eject(&lease.slot);
    }

    fn eject(&self, slot: &Slot) {
        let now = Instant::now();
        if !self.connector.shares_connections() {
            // The idle ones would only fail one after the other.
            lock(&slot.connections).clear();
        }
        lock(&self.balance).failed(slot.address, now);
        // The name may have moved on; but not a resolution for each failure.
        let soon = now + self.timing.resolve_interval_min;
        let mut resolve_at = lock(&self.resolve_at);
        *resolve_at = resolve_at.map(|at| at.min(soon));
    }

    async fn lease_of_any(self: &Arc<Self>) -> Result<Lease, ConnectError> {
        self.refresh_addresses().await?;
        let mut tried = Vec::new();
        let mut last_error = None;
        while tried.len() < ADDRESSES_PER_CONNECTION_MAX {
            let (slot, probes) = {
                let mut balance = lock(&self.balance);
                (balance.pick(&tried), balance.due_probes(Instant::now()))
            };
            for probe in probes {
                tokio::spawn(Arc::clone(self).probe(probe));
            }
            let Some(slot) = slot else { break };
            match self.lease_of(&slot).await {
                Ok(lease) => return Ok(lease),
                Err(error) => last_error = Some(error),
            }
            self.eject(&slot);
            tried.push(slot.address);
        }
        let host = || self.dialled.name.clone();
        Err(last_error.unwrap_or_else(|| ConnectError::NoAddress { host: host() }))
    }

    async fn lease_of(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Lease, ConnectError> {
        if let Some(lease) = self.take_ready(slot).await {
            return Ok(lease);
        }
        let is_shared = self.connector.shares_connections();
        let _opening = if is_shared { Some(slot.opening.lock().await) } else { None };
        if is_shared && let Some(lease) = self.take_ready(slot).await {
            return Ok(lease);
        }
        let connection = self.open(slot).await?;
        lock(&self.balance).joined(slot.address);
        if !is_shared {
            return Ok(connection.into_lease(slot));
        }
        lock(&slot.connections).push(connection);
        self.take_ready(slot).await.ok_or(ConnectError::Closed { address: slot.address })
    }

    /// A connection that is there and takes requests. An old shared one is replaced beside the
    /// requests, which go on using it until the new one is there.
    async fn take_ready(self: &Arc<Self>, slot: &Arc<Slot>) -> Option<Lease> {
        while let Some(mut lease) = slot.take() {
            // An HTTP/1.1 connection whose last request was answered early may never get ready.
            let ready = tokio::time::timeout(self.timing.connect_timeout, lease.sender.ready());
            if !matches!(ready.await, Ok(Ok(()))) {
                self.discard(&lease);
                continue;
            }
            if self.connector.shares_connections() && self.claim_renewal(&lease) {
                tokio::spawn(Arc::clone(self).renew(Arc::clone(slot), lease.id));
            }
            return Some(lease);
        }
        None
    }

    /// Whether the connection is old and the caller is the first to see it.
    fn claim_renewal(&self, lease: &Lease) -> bool {
        let now = Instant::now();
        if now < lease.renew_at {
            return false;
        }
        let mut connections = lock(&lease.slot.connections);
        let Some(connection) = connections.iter_mut().find(|one| one.id == lease.id) else {
            return false;
        };
        // If it fails, somebody shall try again, but not at once.
        let is_first = connection.renew_at <= now;
        connection.renew_at = now + 2 * self.timing.connect_timeout;
        is_first
    }

    /// Replaces an old connection; it closes once the requests on it are answered.
    async fn renew(self: Arc<Self>, slot: Arc<Slot>, id: u64) {
        match self.open(&slot).await {
            Ok(connection) => {
                lock(&slot.connections).push(connection);
                slot.remove(id);
            }
            Err(error) => self.warnings.about(Topic::Renewal, |suppressed| {
                let error = Quote::of_error(&error);
                tracing::warn!(
                    %error,
                    suppressed,
                    "can't replace an old connection to the sink; it stays in use"
                );
            }),
        }
    }

    /// Finds out whether an address can be connected to. The connection is kept for use.
    async fn probe(self: Arc<Self>, slot: Arc<Slot>) {
        match self.open(&slot).await {
            Ok(connection) => {
                lock(&slot.connections).push(connection);
                lock(&self.balance).joined(slot.address);
            }
            Err(error) => {
                self.eject(&slot);
                self.warnings.about(Topic::Address, |suppressed| {
                    let error = Quote::of_error(&error);
                    tracing::warn!(%error, suppressed, "an address of the sink is left out");
                });
            }
        }
    }

    async fn open(&self, slot: &Slot) -> Result<Connection, ConnectError> {
        let Opened { sender, first } = self.connector.open(slot.address).await?;
        let age_max = self.timing.connection_age_max.mul_f64(0.9 + 0.2 * chance::share());
        Ok(Connection {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            sender,
            renew_at: Instant::now() + age_max,
            signs: Arc::default(),
            first,
        })
    }

    /// Resolves the name if it is time: beside the requests while some address is in use, else
    /// before them.
    async fn refresh_addresses(self: &Arc<Self>) -> Result<(), ConnectError> {
        if !self.is_resolution_due() {
            return Ok(());
        }
        if lock(&self.balance).has_in_use(None) {
            let pool = Arc::clone(self);
            tokio::spawn(async move { pool.resolve_once().await });
            return Ok(());
        }
        let result = self.resolve_once().await;
        if lock(&self.balance).is_empty() { result } else { Ok(()) }
    }

    fn is_resolution_due(&self) -> bool {
        lock(&self.resolve_at).is_none_or(|at| at <= Instant::now())
    }

    async fn resolve_once(&self) -> Result<(), ConnectError> {
        let _resolving = self.resolving.lock().await;
        if !self.is_resolution_due() {
            return Ok(());
        }
        let resolved = resolve(&self.resolver, &self.dialled, &self.timing).await;
        let wait = match &resolved {
            Ok(_) => self.timing.resolve_interval,
            Err(_) => self.timing.resolve_interval_min,
        };
        *lock(&self.resolve_at) = Some(Instant::now() + wait);
        match resolved {
            Ok(addresses) => {
                lock(&self.balance).update(&addresses, |address| Arc::new(Slot::new(address)));
                Ok(())
            }
            Err(error) => {
                let what = if lock(&self.balance).is_empty() {
                    "the sink has no address yet: its name is looked up again"
                } else {
                    "the sink's name can't be looked up now: the addresses known before stay in use"
                };
                self.warnings.about(Topic::Resolve, |suppressed| {
                    let error = Quote::of_error(&error);
                    tracing::warn!(%error, suppressed, "{what}");
                });
                Err(error)
            }
        }
    }
}

/// Locks what is only held for a moment, and by nobody who panics half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
