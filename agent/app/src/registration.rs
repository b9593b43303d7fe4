//! Being known to the location server (SPEC A12 to A14): registering, pinging, saying offline.
//!
//! One task does it, over one kept-alive HTTP connection. What it learns (session, attestation, what is wrong) is in
//! [`Membership`], which everybody can watch.

use std::net::SocketAddr;
use std::time::Duration;

use lighter_protocol::{Attestation, AttestationError, Registration, Signed, UnixTime};
use lighter_transport::location::api::RegisterAnswer;
use lighter_transport::location::{LocationError, Secret, keys};
use rand::RngExt;
use tokio::time::{sleep, timeout};

use crate::dial;
use crate::drops;
use crate::hosted::Sync;
use crate::limits::{RECONNECT_MAX, RECONNECT_MIN, REGISTRATION_LIFE, STOP_TIME_MAX};
use crate::port_mapping::PortMappingStatus;
use crate::shared::{Attested, Handle, Membership};

/// The store's durable counter of registrations.
pub const SEQUENCE: &str = "registration";

/// Stays registered until the agent is to stop; then says offline.
pub async fn run(shared: Handle) {
    let stop = shared.stop.clone();
    let mut member = Member {
        shared,
        sequence_min: 1,
        shown: Shown::All,
        mapped: None,
        wait: RECONNECT_MIN,
        hosting: Sync::default(),
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = member.stay() => {}
    }
    member.leave().await;
}

/// Where the store can be reached, as far as this machine knows: its own addresses, and what its router maps to it.
pub fn addresses(shared: &Handle) -> Vec<SocketAddr> {
    let mut addresses = local_addresses(shared);
    addresses.extend(mapped(shared.port_mapping.borrow().as_ref()));
    addresses
}

fn mapped(status: Option<&PortMappingStatus>) -> Option<SocketAddr> {
    status?.address
}

/// Where the store listens, as far as this machine knows.
pub fn local_addresses(shared: &Handle) -> Vec<SocketAddr> {
    let quic = &shared.config.quic;
    if !quic.advertise.is_empty() {
        return quic.advertise.clone();
    }
    match shared.endpoint.local_addr() {
        Ok(local) if local.ip().is_unspecified() => dial::route_addresses(shared.location.url())
            .into_iter()
            .map(|ip| SocketAddr::new(ip, local.port()))
            .collect(),
        Ok(local) => vec![local],
        Err(_) => Vec::new(),
    }
}

/// Which of the own addresses the location server is told of: it refuses a registration with one that it does not let
/// others dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    All,
    /// Those that everybody can route to.
    Global,
    /// The store is reached with the help of its relays, and on its own sessions.
    None,
}

impl Shown {
    fn of(self, mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        addresses.retain(|address| match self {
            Self::All => true,
            Self::Global => dial::is_global(address.ip()),
            Self::None => false,
        });
        addresses
    }
}

struct Member {
    shared: Handle,
    /// The location server knows registrations up to here.
    sequence_min: u64,
    /// Which addresses are registered.
    shown: Shown,
    /// What the router mapped when it last registered.
    mapped: Option<SocketAddr>,
    wait: Duration,
    /// How far it is with the mailboxes that this is the hosted store of.
    hosting: Sync,
}

impl Member {
    async fn stay(&mut self) {
        loop {
            let mut wakes = self.shared.wakes.subscribe();
            let pause = match self.register().await {
                Ok(answer) => {
                    self.wait = RECONNECT_MIN;
                    self.ping(&answer).await
                }
                Err(error) => self.failed(&error),
            };
            tokio::select! {
                () = sleep(pause) => {}
                _ = wakes.changed() => {}
                () = self.remapped() => {}
            }
        }
    }

    async fn register(&mut self) -> Result<RegisterAnswer, LocationError> {
        let floor = self.sequence_min;
        let sequence = self.shared.blocking(move |store| store.next_number(SEQUENCE, floor)).await;
        let sequence = sequence.map_err(|error| LocationError::Unreachable(Box::new(error)))?;
        self.mapped = mapped(self.shared.port_mapping.borrow().as_ref());
        let registration = Registration {
            mailbox: self.shared.mailbox().clone(),
            peer: self.shared.identity.peer(),
            addresses: self.shown.of(addresses(&self.shared)),
            sequence,
            expires: UnixTime::now().plus(REGISTRATION_LIFE),
        };
        let signed = Signed::sign(&registration, self.shared.identity.keypair());
        let signed = signed.map_err(|error| LocationError::Unreachable(Box::new(error)))?;
        let sealing_key = drops::sealing_key(&self.shared.identity, self.shared.mailbox());
        let answer = self.shared.location.register_sealed(&signed, sealing_key.as_ref()).await?;
        tracing::info!(addresses = ?registration.addresses, sequence, "registered");
        let attestation = self.believe(answer.attestation.as_ref()).await;
        let problem = attestation
            .is_none()
            .then(|| "the location server has not attested this store yet".to_owned())
            .or_else(|| self.no_way_in(&registration.addresses, attestation.as_ref()));
        let session = Some(answer.session.clone());
        self.shared.membership.send_replace(Membership { session, attestation, problem });
        self.hosting.begin_anew();
        self.keep_up(&answer.session, None).await;
        Ok(answer)
    }

    /// Pings until the server does not know the session any more, or something changed; gives how long to wait before
    /// registering again.
    async fn ping(&mut self, answer: &RegisterAnswer) -> Duration {
        let interval = Duration::from_secs(u64::from(answer.ping_interval_s.max(1)));
        let mut wakes = self.shared.wakes.subscribe();
        loop {
            // Stores that registered together (after the server's restart) do not ping together.
            let pause = interval.mul_f64(rand::rng().random_range(0.8..=1.0));
            tokio::select! {
                () = sleep(pause) => {}
                _ = wakes.changed() => return Duration::ZERO,
                () = self.remapped() => return Duration::ZERO,
            }
            match self.shared.location.ping(&answer.session).await {
                Ok(pong) => {
                    self.wait = RECONNECT_MIN;
                    if let Some(attested) = self.believe(pong.attestation.as_ref()).await {
                        self.shared.membership.send_modify(|membership| {
                            membership.attestation = Some(attested);
                            membership.problem =
                                membership.problem.take().filter(|_| self.shown == Shown::None);
                        });
                    }
                    self.keep_up(&answer.session, pong.hosting.as_ref()).await;
                }
                Err(LocationError::Unauthorised) => return Duration::ZERO,
                Err(error) => return self.failed(&error),
            }
        }
    }

    /// Serves the mailboxes that the location server names, where this is the store of many. What does not work now is tried
    /// again with the next ping.
    async fn keep_up(&mut self, session: &Secret, told: Option<&String>) {
        if !self.shared.hosted.is_on() || !self.hosting.is_due(told) {
            return;
        }
        let problem = match self.hosting.run(&self.shared, session).await {
            Ok(()) => None,
            Err(LocationError::Refused) => Some(format!(
                "hosted: the location server names no mailbox for this store: `[[hosted]]` there, with peer = \"{}\"",
                self.shared.identity.peer()
            )),
            Err(error) => Some(format!("hosted: {error}")),
        };
        self.shared.membership.send_if_modified(|membership| {
            let is_hosting = |problem: &String| problem.starts_with("hosted: ");
            if membership.problem.as_ref().is_some_and(|known| !is_hosting(known)) {
                return false;
            }
            if let Some(problem) = problem.as_ref().filter(|_| membership.problem != problem) {
                tracing::warn!("{problem}");
            }
            std::mem::replace(&mut membership.problem, problem.clone()) != problem
        });
    }

    /// Waits until the router maps something else than when it last registered.
    async fn remapped(&self) {
        let mut mapping = self.shared.port_mapping.subscribe();
        let is_told = mapping.wait_for(|status| mapped(status.as_ref()) != self.mapped).await.is_ok();
        if !is_told {
            // The agent is going.
            std::future::pending::<()>().await;
        }
    }

    /// The attestation, where it is the location server's, for this key and this mailbox.
    async fn believe(&self, signed: Option<&Signed<Attestation>>) -> Option<Attested> {
        let signed = signed?;
        let own = self.shared.identity.peer();
        let mut verified =
            Attestation::verify_of(signed, &self.shared.location_peer(), &own, UnixTime::now());
        if matches!(verified, Err(AttestationError::Signed(_))) && self.follow_location().await {
            verified = Attestation::verify_of(signed, &self.shared.location_peer(), &own, UnixTime::now());
        }
        match verified {
            Ok(attestation) if attestation.mailbox == *self.shared.mailbox() => {
                Some(Attested { signed: signed.clone(), attestation })
            }
            Ok(_) => {
                tracing::warn!("the location server attested another mailbox");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "an attestation that does not count");
                None
            }
        }
    }

    /// The location server signs with another key: whether it is one that the key of the enrolment leads to.
    async fn follow_location(&self) -> bool {
        let answer = match self.shared.location.domain().await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%error, "the location server cannot be asked for its key");
                return false;
            }
        };
        let enrolled = self.shared.config.location.peer;
        let is_same = keys::is_same_server(enrolled, &answer, UnixTime::now());
        if is_same {
            tracing::info!(key = %answer.location, "the location server has another key, as it announced");
            self.shared.follow_location(answer.location);
        } else {
            tracing::warn!(key = %answer.location, "another location server answers: nothing of it is believed");
        }
        is_same
    }

    /// What is wrong where nobody can dial this store, nor is helped to reach it: one behind a home router, whose domain
    /// has a relay, is well.
    fn no_way_in(&self, addresses: &[SocketAddr], attested: Option<&Attested>) -> Option<String> {
        let has_helper = attested.is_some_and(|attested| !attested.attestation.relays.is_empty());
        let is_cut_off = addresses.is_empty() && self.shown != Shown::All && !has_helper;
        is_cut_off
            .then(|| "the own addresses cannot be reached by others, and the domain has no relay".to_owned())
    }

    /// Notes what went wrong; gives how long to wait before trying again.
    fn failed(&mut self, error: &LocationError) -> Duration {
        match error {
            // Once for each number that it names: a server that says the same again is waited for like any other.
            LocationError::Stale { sequence } if sequence.saturating_add(1) > self.sequence_min => {
                self.sequence_min = sequence.saturating_add(1);
                return Duration::ZERO;
            }
            LocationError::Address if self.shown != Shown::None => {
                self.shown = if self.shown == Shown::All { Shown::Global } else { Shown::None };
                return Duration::ZERO;
            }
            _ => {}
        }
        let problem = format!("not registered: {error}");
        let known = self.shared.membership.borrow().problem.as_deref() == Some(&problem);
        if !known {
            tracing::warn!(%error, "not registered");
        }
        self.shared.membership.send_modify(|membership| {
            membership.session = None;
            membership.problem = Some(problem);
        });
        let wait = match error {
            LocationError::TooMany { retry_after } => *retry_after,
            _ => self.wait,
        };
        self.wait = (self.wait * 2).min(RECONNECT_MAX);
        wait.min(RECONNECT_MAX).mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Going offline (SPEC A13).
    async fn leave(&self) {
        let Some(session) = self.shared.session() else { return };
        match timeout(STOP_TIME_MAX / 2, self.shared.location.offline(&session)).await {
            Ok(Ok(())) => tracing::info!("said offline"),
            Ok(Err(error)) => tracing::warn!(%error, "could not say offline"),
            Err(_) => tracing::warn!("could not say offline in time"),
        }
        self.shared.membership.send_modify(|membership| membership.session = None);
    }
}
