//! Integration tests: agents in this process and as processes, against a real collector.

#![expect(clippy::unwrap_used, reason = "a test may end where its own set-up fails")]

mod authority;
mod kubelet;
mod links;
mod namespace;
mod node;
mod program;
mod stage;
mod state;

mod allocations;
mod answers;
mod backpressure;
mod bomb;
mod cli;
mod crash;
mod credentials;
mod damage;
mod export;
mod hidden;
mod hostile;
mod identity;
mod late;
mod many;
mod renamed;
mod misdirected;
mod proxy;
mod replaced;
mod refusals;
mod pings;
mod rewritten;
mod rotation;
mod secrecy;
mod shortage;
mod spool;
mod stuck;
mod thin_link;
mod unseen;
