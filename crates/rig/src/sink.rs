//! The sink as the agent sees it: nop-collector, behind relays when it is to refuse connections,
//! and the ways in which it goes away and comes back.

use crate::{
    cli::OutageMode,
    collector::{Addresses, Collector, Report, StreamReport},
    error::Result,
    interrupt::Interrupt,
    process::Process,
    relay::Relay,
    usage::Usage,
};
use std::net::SocketAddr;

/// A collector that can go away.
#[derive(Debug)]
pub struct Sink {
    collector: Collector,
    admin: SocketAddr,
    outage: Outage,
}

#[derive(Debug)]
enum Outage {
    /// It stays.
    Never,
    /// By stopping the process, which is so at present or not.
    Freeze { frozen: bool },
    /// By relays that refuse.
    Refuse(Vec<Relay>),
}

impl Sink {
    /// Puts relays in front of the collector if they are needed; returns where the agent has to
    /// send to.
    pub fn new(
        collector: Collector,
        addresses: Addresses,
        mode: Option<OutageMode>,
    ) -> Result<(Self, Addresses)> {
        let mut seen = addresses;
        let outage = match mode {
            None => Outage::Never,
            Some(OutageMode::Freeze) => Outage::Freeze { frozen: false },
            Some(OutageMode::Refuse) => {
                let (grpc, http) = (Relay::open(addresses.grpc)?, Relay::open(addresses.http)?);
                (seen.grpc, seen.http) = (grpc.address(), http.address());
                Outage::Refuse(vec![grpc, http])
            }
        };
        Ok((Self { collector, admin: addresses.admin, outage }, seen))
    }

    /// Goes away, in the way that was decided at the start.
    pub fn leave(&mut self) -> Result<()> {
        match &mut self.outage {
            Outage::Never => Ok(()),
            Outage::Freeze { frozen } => {
                *frozen = true;
                self.collector.freeze()
            }
            Outage::Refuse(relays) => {
                relays.iter_mut().for_each(Relay::refuse);
                Ok(())
            }
        }
    }

    /// Comes back.
    pub fn come_back(&mut self, interrupt: &Interrupt) -> Result<()> {
        match &mut self.outage {
            Outage::Never => Ok(()),
            Outage::Freeze { frozen } => {
                *frozen = false;
                self.collector.thaw()
            }
            Outage::Refuse(relays) => {
                relays.iter_mut().try_for_each(|relay| relay.accept(interrupt))
            }
        }
    }

    /// Its report.
    pub fn report(&self) -> Result<Report> {
        self.collector.report(self.admin)
    }

    /// Its report with each run.
    pub fn report_with_runs(&self) -> Result<Report> {
        self.collector.report_with_runs(self.admin)
    }

    /// What it knows of each writer.
    pub fn streams(&self) -> Result<Vec<StreamReport>> {
        self.collector.streams(self.admin)
    }

    /// How many distinct lines it has received; `None` while it is stopped and cannot say.
    pub fn received(&self) -> Result<Option<u64>> {
        if matches!(self.outage, Outage::Freeze { frozen: true }) {
            return Ok(None);
        }
        self.report().map(|report| Some(report.received))
    }

    /// Tells it what was written.
    pub fn post_manifest(&self, manifest: &[u8]) -> Result<()> {
        self.collector.post_manifest(self.admin, manifest)
    }

    /// What it uses.
    pub fn usage(&self) -> Usage {
        self.collector.usage()
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        self.collector.process()
    }
}
