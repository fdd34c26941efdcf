//! Which address gets the next request: all in turn, but for those that failed lately. Pure: it
//! neither resolves nor connects, and time is an argument.
//!
//! ```text
//! untried --joined--> in use --failed--> ejected --time is up--> probed --joined--> in use
//!                                           ^                       |
//!                                           '------- failed --------'   (each time twice as long)
//! ```

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::limits::{REFUSALS_IN_A_ROW_MAX, Timing};

/// The addresses of a sink, each with something of the caller's.
#[derive(Debug)]
pub(super) struct Balance<T> {
    /// In the order of the last [`Balance::update`].
    members: Vec<Member<T>>,
    /// Where the next turn begins; any number.
    turn: usize,
    ejection_min: Duration,
    ejection_max: Duration,
}

#[derive(Debug)]
struct Member<T> {
    address: SocketAddr,
    state: State,
    /// Ejections since it last took a request; the next one lasts `ejection_min * 2^ejections`.
    ejections: u32,
    /// Answers in a row that it can't take requests.
    refusals: u32,
    item: T,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is known yet.
    Untried,
    /// A connection could be made.
    InUse,
    /// Left out until then.
    Ejected { until: Instant },
    /// Somebody connects to find out.
    Probed,
}

impl<T: Clone> Balance<T> {
    /// `turn` decides which address comes first; by chance, so that many agents don't all begin
    /// with the same one.
    pub(super) fn new(timing: &Timing, turn: usize) -> Self {
        let Timing { ejection_min, ejection_max, .. } = *timing;
        Self { members: Vec::new(), turn, ejection_min, ejection_max }
    }

    /// Takes over a resolution's result: what stays keeps its state, what is gone is dropped.
    pub(super) fn update(&mut self, addresses: &[SocketAddr], new: impl Fn(SocketAddr) -> T) {
        let mut old = std::mem::take(&mut self.members);
        for &address in addresses {
            let known = old.iter().position(|member| member.address == address);
            let member = known.map(|index| old.swap_remove(index)).unwrap_or_else(|| Member {
                address,
                state: State::Untried,
                ejections: 0,
                refusals: 0,
                item: new(address),
            });
            self.members.push(member);
        }
    }

    /// The item for the next request, leaving out `tried`: in turn among those in use; if there is
    /// none, in turn among the untried; if there is none either, what was ejected longest ago, for
    /// where all are dead it is the request that has to find out whether one came back.
    pub(super) fn pick(&mut self, tried: &[SocketAddr]) -> Option<T> {
        self.turn = self.turn.wrapping_add(1);
        let fresh = || self.members.iter().filter(|member| !tried.contains(&member.address));
        let in_turn = |wanted: State| {
            let candidates = || fresh().filter(|member| member.state == wanted);
            candidates().nth(self.turn.checked_rem(candidates().count())?)
        };
        let until = |member: &&Member<T>| match member.state {
            State::Ejected { until } => Some(until),
            _ => None,
        };
        let member = in_turn(State::InUse)
            .or_else(|| in_turn(State::Untried))
            .or_else(|| fresh().min_by_key(until))?;
        Some(member.item.clone())
    }

    /// What should be probed beside the requests: the untried, and those whose ejection is over;
    /// nothing while no address is in use, for then requests do it. Each is named once.
    pub(super) fn due_probes(&mut self, now: Instant) -> Vec<T> {
        if !self.has_in_use(None) {
            return Vec::new();
        }
        let mut due = Vec::new();
        for member in &mut self.members {
            let is_due = match member.state {
                State::Untried => true,
                State::Ejected { until } => until <= now,
                State::InUse | State::Probed => false,
            };
            if is_due {
                member.state = State::Probed;
                due.push(member.item.clone());
            }
        }
        due
    }

    /// Whether an address other than `but` is in use.
    pub(super) fn has_in_use(&self, but: Option<SocketAddr>) -> bool {
        let mut members = self.members.iter();
        members.any(|member| member.state == State::InUse && Some(member.address) != but)
    }

    /// Whether nothing is known to resolve to.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A connection to this address was made.
    pub(super) fn joined(&mut self, address: SocketAddr) {
        if let Some(member) = self.member(address) {
            member.state = State::InUse;
        }
    }

    /// This address took a request.
    pub(super) fn succeeded(&mut self, address: SocketAddr) {
        if let Some(member) = self.member(address) {
            (member.state, member.ejections, member.refusals) = (State::InUse, 0, 0);
        }
    }

    /// This address answered that it can't take requests. Once or twice is the sink's business as
    /// a whole; always is a pod of it that is going away or starting up.
    pub(super) fn refused(&mut self, address: SocketAddr, now: Instant) {
        let Some(member) = self.member(address) else { return };
        member.refusals += 1;
        if member.refusals >= REFUSALS_IN_A_ROW_MAX {
            self.failed(address, now);
        }
    }

    /// This address could not be connected to, broke a new connection, or did not answer.
    pub(super) fn failed(&mut self, address: SocketAddr, now: Instant) {
        let (min, max) = (self.ejection_min, self.ejection_max);
        if let Some(member) = self.member(address) {
            let wait = min.saturating_mul(1 << member.ejections.min(16)).min(max);
            member.state = State::Ejected { until: now + wait };
            member.ejections += 1;
            member.refusals = 0;
        }
    }

    fn member(&mut self, address: SocketAddr) -> Option<&mut Member<T>> {
        self.members.iter_mut().find(|member| member.address == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, number], 4317))
    }

    fn addresses(numbers: impl IntoIterator<Item = u8>) -> Vec<SocketAddr> {
        numbers.into_iter().map(address).collect()
    }

    /// A balance over these addresses, all in use; an item is its address.
    fn in_use(numbers: impl IntoIterator<Item = u8>) -> Balance<SocketAddr> {
        let mut balance = Balance::new(&Timing::default(), 7);
        let addresses = addresses(numbers);
        balance.update(&addresses, |address| address);
        addresses.iter().for_each(|&address| balance.joined(address));
        balance
    }

    fn picks(balance: &mut Balance<SocketAddr>, count: usize) -> Vec<SocketAddr> {
        let mut picks: Vec<_> = (0..count).filter_map(|_| balance.pick(&[])).collect();
        picks.sort_unstable();
        picks
    }

    /// Scenario: failure mode 27: three addresses, 300 requests.
    /// Guarantees: each gets 100.
    #[test]
    fn all_addresses_in_turn() {
        let picks = picks(&mut in_use(1..=3), 300);
        for number in 1..=3 {
            assert_eq!(picks.iter().filter(|&&pick| pick == address(number)).count(), 100);
        }
    }

    /// Scenario: one of three fails, again after each probe, then recovers.
    /// Guarantees: it gets nothing while it is left out; it is probed once per ejection, each twice
    /// as long, up to the maximum; after the probe succeeds it is in turn again.
    #[test]
    fn dead_address_is_left_out_and_probed() {
        let timing = Timing::default();
        let mut balance = in_use(1..=3);
        let mut now = Instant::now();
        for round in 0..8 {
            balance.failed(address(2), now);
            let wait = timing.ejection_min * (1 << round);
            let wait = wait.min(timing.ejection_max);
            assert!(balance.due_probes(now + wait - Duration::from_millis(1)).is_empty());
            assert!(!picks(&mut balance, 9).contains(&address(2)));
            now += wait;
            assert_eq!(balance.due_probes(now), [address(2)]);
            assert!(balance.due_probes(now).is_empty());
            assert!(!picks(&mut balance, 9).contains(&address(2)));
        }
        balance.joined(address(2));
        assert_eq!(picks(&mut balance, 9).iter().filter(|&&pick| pick == address(2)).count(), 3);
        // It has not taken a request yet: the next ejection is still a long one.
        balance.failed(address(2), now);
        assert!(balance.due_probes(now + timing.ejection_max / 2).is_empty());
        now += timing.ejection_max;
        assert_eq!(balance.due_probes(now), [address(2)]);
        balance.succeeded(address(2));
        balance.failed(address(2), now);
        assert_eq!(balance.due_probes(now + timing.ejection_min), [address(2)]);
    }

    /// Scenario: all addresses are dead.
    /// Guarantees: requests still get one, what failed longest ago first, and none twice in a try.
    #[test]
    fn all_dead_is_not_nothing() {
        let mut balance = in_use(1..=3);
        let now = Instant::now();
        for (number, late) in [(2, 0), (3, 1), (1, 2)] {
            balance.failed(address(number), now + Duration::from_secs(late));
        }
        assert!(balance.due_probes(now + Duration::from_secs(99)).is_empty());
        assert_eq!(balance.pick(&[]), Some(address(2)));
        assert_eq!(balance.pick(&addresses([2])), Some(address(3)));
        assert_eq!(balance.pick(&addresses([2, 3])), Some(address(1)));
        assert_eq!(balance.pick(&addresses([2, 3, 1])), None);
        assert_eq!(in_use([]).pick(&[]), None);
    }

    /// Scenario: a start with three addresses of which nothing is known.
    /// Guarantees: several consumers begin with different ones; once one is in use, the others are
    /// probed beside the requests.
    #[test]
    fn start_with_untried_addresses() {
        let mut balance = Balance::new(&Timing::default(), 0);
        balance.update(&addresses(1..=3), |address| address);
        assert!(balance.due_probes(Instant::now()).is_empty());
        assert_eq!(picks(&mut balance, 3), addresses(1..=3));
        balance.joined(address(3));
        assert_eq!(balance.due_probes(Instant::now()), addresses([1, 2]));
        assert_eq!(picks(&mut balance, 2), addresses([3, 3]));
    }

    /// Scenario: failure mode 27: DNS names other pods: one stays (ejected), two go, two come.
    /// Guarantees: what goes is never picked again, what stays keeps its state.
    #[test]
    fn names_are_swapped() {
        let mut balance = in_use(1..=3);
        let now = Instant::now();
        balance.failed(address(3), now);
        balance.update(&addresses([3, 4, 5]), |address| address);
        assert_eq!(picks(&mut balance, 4), addresses([4, 4, 5, 5]));
        balance.joined(address(4));
        balance.joined(address(5));
        assert_eq!(picks(&mut balance, 4), addresses([4, 4, 5, 5]));
        balance.joined(address(1));
        assert!(!picks(&mut balance, 9).contains(&address(1)));
    }

    /// Scenario: an address answers "unavailable" now and then, another always.
    /// Guarantees: only the second is left out.
    #[test]
    fn only_steady_refusals_eject() {
        let mut balance = in_use(1..=2);
        let now = Instant::now();
        for _ in 0..REFUSALS_IN_A_ROW_MAX {
            balance.refused(address(1), now);
            balance.succeeded(address(1));
            balance.refused(address(2), now);
        }
        assert_eq!(picks(&mut balance, 2), addresses([1, 1]));
    }
}
