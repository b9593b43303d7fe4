//! What is tried when, to reach a peer: a value with no I/O; `now` is an argument (RFC 8305 for holes, too).
//!
//! ```text
//!  0 ms   address 1 ──────────────▶        the best first; the next when the one before has failed, or 250 ms later
//!  250      address 2 ────────────▶
//!  500        helper 1 ───────────▶        helpers when nothing opened in 500 ms, or no address is left
//!  750          helper 2 ─────────▶
//! ```
//! The first that opens is used. Everything that was begun goes on beside it until then.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lighter_protocol::PeerId;
use lighter_transport::limits::{ADDRESS_HEAD_START, ADDRESSES_TRIED_MAX};

use super::Way;
use crate::limits::{HELPER_HEAD_START, HELPERS_TRIED_MAX};

/// Something to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Candidate {
    /// An address.
    Address {
        /// What kind it is.
        way: Way,
        /// Where.
        address: SocketAddr,
    },
    /// A hole, with the help of this relay.
    Helper(PeerId),
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { address, .. } => write!(f, "at {address}"),
            Self::Helper(relay) => write!(f, "with the help of relay {relay}"),
        }
    }
}

/// What is known of where a peer is.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// On the local network.
    pub lan: Vec<SocketAddr>,
    /// What it registered, and may be dialled.
    pub registered: Vec<SocketAddr>,
    /// Relays of its domain that can be asked for help.
    pub helpers: Vec<PeerId>,
    /// Whether this machine has a global IPv6 address: IPv6 goes first then (RFC 6724), and last otherwise.
    pub has_ipv6: bool,
}

/// What was tried and did not work, and why: for one clear message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures(Vec<(Candidate, String)>);

impl Failures {
    /// Whether there was nothing to try.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (candidate, why)) in self.0.iter().enumerate() {
            let between = if index == 0 { "" } else { "; " };
            write!(f, "{between}{candidate}: {why}")?;
        }
        Ok(())
    }
}

/// One try to reach a peer.
#[derive(Clone, Debug)]
pub struct Plan {
    begun: Instant,
    addresses: VecDeque<Candidate>,
    helpers: VecDeque<Candidate>,
    /// When the next address may be tried though the one before has not failed.
    next_address: Instant,
    /// The same for helpers; none before the first.
    next_helper: Option<Instant>,
    running: Vec<Candidate>,
    failures: Failures,
}

impl Plan {
    /// A try that begins now.
    pub fn new(known: &Known, now: Instant) -> Self {
        let mut registered = known.registered.clone();
        registered.sort_by_key(|address| address.is_ipv6() != known.has_ipv6);
        let of = |way| move |address: &SocketAddr| Candidate::Address { way, address: *address };
        let all = known.lan.iter().map(of(Way::Lan)).chain(registered.iter().map(of(Way::Direct)));
        let mut seen = Vec::new();
        let mut addresses = VecDeque::new();
        for candidate in all {
            let Candidate::Address { address, .. } = candidate else { continue };
            if addresses.len() < ADDRESSES_TRIED_MAX && !seen.contains(&address) {
                seen.push(address);
                addresses.push_back(candidate);
            }
        }
        let mut helpers = VecDeque::new();
        for helper in known.helpers.iter().copied().map(Candidate::Helper) {
            if helpers.len() < HELPERS_TRIED_MAX && !helpers.contains(&helper) {
                helpers.push_back(helper);
            }
        }
        Self {
            begun: now,
            addresses,
            helpers,
            next_address: now,
            next_helper: None,
            running: Vec::new(),
            failures: Failures::default(),
        }
    }

    /// What is to be begun now, if anything; call it until there is nothing more.
    pub fn poll(&mut self, now: Instant) -> Option<Candidate> {
        let next = if self.next_address <= now { self.addresses.pop_front() } else { None };
        if let Some(candidate) = next {
            self.next_address = now + ADDRESS_HEAD_START;
            self.running.push(candidate);
            return Some(candidate);
        }
        if self.helpers_from() > now {
            return None;
        }
        let candidate = self.helpers.pop_front()?;
        self.next_helper = Some(now + ADDRESS_HEAD_START);
        self.running.push(candidate);
        Some(candidate)
    }

    /// When to poll again at the latest; none where nothing more is to be begun.
    pub fn next_time(&self) -> Option<Instant> {
        let address = (!self.addresses.is_empty()).then_some(self.next_address);
        let helper = (!self.helpers.is_empty()).then(|| self.helpers_from());
        address.into_iter().chain(helper).min()
    }

    /// Something that was begun did not work.
    pub fn handle_failed(&mut self, candidate: Candidate, why: impl Into<String>, now: Instant) {
        let Some(position) = self.running.iter().position(|running| *running == candidate) else { return };
        self.running.swap_remove(position);
        self.failures.0.push((candidate, why.into()));
        match candidate {
            Candidate::Address { .. } => self.next_address = now,
            Candidate::Helper(_) => self.next_helper = Some(now),
        }
    }

    /// Whether nothing runs, and nothing is left to be tried.
    pub fn is_over(&self) -> bool {
        self.running.is_empty() && self.addresses.is_empty() && self.helpers.is_empty()
    }

    /// How long it has been going on.
    pub fn took(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }

    /// What did not work. What still runs did not answer in time.
    pub fn into_failures(mut self) -> Failures {
        let silent = self.running.drain(..).map(|candidate| (candidate, "no answer in time".to_owned()));
        self.failures.0.extend(silent);
        self.failures
    }

    /// When the next helper may be asked: the first one at once where no address is tried any more.
    fn helpers_from(&self) -> Instant {
        let is_address = |candidate: &Candidate| matches!(candidate, Candidate::Address { .. });
        let no_address = self.addresses.is_empty() && !self.running.iter().any(is_address);
        match self.next_helper {
            Some(next) => next,
            None if no_address => self.begun,
            None => self.begun + HELPER_HEAD_START,
        }
    }
}

#[cfg(test)]
mod tests;
