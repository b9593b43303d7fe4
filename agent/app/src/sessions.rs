//! A session with each relay of the own domain (DESIGN §6 `Waiting?`): the agent dials, so it needs no address that
//! others can reach; what waits there is offered on that connection, at once and whenever something new comes (SPEC
//! A18, D5).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lighter_protocol::wire::{Request, Response, Waiting};
use lighter_protocol::{Mailbox, PeerId, RelayRecord};
use lighter_transport::{Carrier, Connection};
use rand::RngExt;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::carriers::NotReached;
use crate::hosted::Mailboxes;
use crate::limits::{
    BETTER_PAUSE_FIRST, BETTER_PAUSE_MAX, BETTER_PAUSE_MIN, HOSTED_REFUSED_PAUSE_S, HOSTED_WAITS_AT_ONCE,
    RECONNECT_MAX, RECONNECT_MIN, SESSION_GOOD_AFTER, STORE_PING_TIME_MAX,
};
use crate::shared::{Attested, Handle};
use crate::{carriers, serve};

/// Keeps a session with each relay that the attestation names, until the agent stops.
pub async fn run(shared: Handle) {
    let mut membership = shared.membership.subscribe();
    let mut sessions: HashMap<PeerId, Session> = HashMap::new();
    loop {
        let relays = membership.borrow_and_update().attestation.clone();
        let relays = relays.map(|attested| attested.attestation.relays).unwrap_or_default();
        sessions.retain(|_, session| relays.contains(&session.relay));
        for relay in relays {
            sessions.entry(relay.peer).or_insert_with(|| Session::start(&shared, relay));
        }
        if membership.changed().await.is_err() {
            return;
        }
    }
}

struct Session {
    relay: RelayRecord,
    task: JoinHandle<()>,
}

impl Session {
    fn start(shared: &Handle, relay: RelayRecord) -> Self {
        let task = tokio::spawn(keep(shared.clone(), relay.clone()));
        Self { relay, task }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Dials again whenever the session breaks, with growing waits and jitter; at once after a wake, and where a better carrier
/// has opened already.
async fn keep(shared: Handle, relay: RelayRecord) {
    let mut wait = RECONNECT_MIN;
    let mut opened = None;
    loop {
        let mut wakes = shared.wakes.subscribe();
        let began = Instant::now();
        let ended = match session(&shared, &relay, opened.take()).await {
            Ok(better) => {
                opened = Some(better);
                continue;
            }
            Err(ended) => ended,
        };
        if began.elapsed() >= SESSION_GOOD_AFTER {
            wait = RECONNECT_MIN;
        }
        tracing::debug!(relay = %relay.peer, %ended, "no session with the relay");
        let pause = wait.mul_f64(rand::rng().random_range(0.5..=1.0));
        wait = (wait * 2).min(RECONNECT_MAX);
        tokio::select! {
            () = sleep(pause) => {}
            _ = wakes.changed() => wait = RECONNECT_MIN,
        }
    }
}

/// Why a session ended.
#[derive(Clone, Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    NotConnected(NotReached),
    #[error("the relay does not accept the attestation")]
    NotAccepted,
    #[error("the connection broke")]
    Broken,
    #[error("a mailbox is not hosted here any more")]
    Fewer,
}

/// One session, on `opened` or on a connection of its own. Gives a connection by a better carrier, to go on with.
async fn session(shared: &Handle, relay: &RelayRecord, opened: Option<Open>) -> Result<Open, Ended> {
    let open = match opened {
        Some(opened) => opened,
        None => Open::new(shared, carriers::connect(shared, relay).await.map_err(Ended::NotConnected)?),
    };
    let connection = &open.connection;
    tokio::select! {
        ended = wait_on(shared, connection) => Err(ended),
        better = look_for_better(shared, relay, connection.carrier()) => {
            tracing::info!(relay = %relay.peer, carrier = %better.carrier(), "the session moves to a better carrier");
            Ok(Open::new(shared, better))
        }
    }
}

/// An open connection to a relay. What the relay asks is served beside the session; both end with it.
struct Open {
    shared: Handle,
    connection: Connection,
    serving: JoinHandle<()>,
}

impl Open {
    fn new(shared: &Handle, connection: Connection) -> Self {
        let serving = tokio::spawn(serve::connection(shared.clone(), connection.clone()));
        Self { shared: shared.clone(), connection, serving }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection.close();
        self.serving.abort();
        self.shared.links.sweep(&self.connection.peer());
    }
}

/// Tries better carriers now and then, and after each wake, until one opens.
async fn look_for_better(shared: &Handle, relay: &RelayRecord, carrier: Carrier) -> Connection {
    if carrier == Carrier::Quic {
        return std::future::pending().await;
    }
    let mut wakes = shared.wakes.subscribe();
    let mut pause = BETTER_PAUSE_FIRST;
    loop {
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).clamp(BETTER_PAUSE_MIN, BETTER_PAUSE_MAX),
            changed = wakes.changed() => {
                if changed.is_err() {
                    return std::future::pending().await;
                }
                pause = BETTER_PAUSE_MIN;
            }
        }
        if let Some(better) = carriers::better(shared, relay, carrier).await {
            return better;
        }
    }
}

/// Says `Waiting?` with each new attestation, and when there is room for what was answered `Later`, and holds the session until it breaks.
async fn wait_on(shared: &Handle, connection: &Connection) -> Ended {
    let mut membership = shared.membership.subscribe();
    let mut wakes = shared.wakes.subscribe();
    let mut room = shared.guest.room();
    let mut hosted = HostedWaits::new(shared);
    loop {
        room.mark_unchanged();
        let attested = membership.borrow_and_update().attestation.clone();
        let Some(attested) = attested else { return Ended::NotAccepted };
        let waiting = Request::Waiting(Waiting { attestation: attested.signed.clone() });
        match connection.request(&waiting).await {
            Ok(Response::Waiting(count)) => {
                tracing::info!(relay = %connection.peer(), waiting = count, "session with the relay");
            }
            Ok(Response::Later(seconds)) => {
                let pause = Duration::from_secs(u64::from(seconds.max(1))).min(RECONNECT_MAX);
                tokio::select! {
                    () = sleep(pause) => continue,
                    _ = connection.closed() => return Ended::Broken,
                }
            }
            Ok(_) => return Ended::NotAccepted,
            Err(_) => return Ended::Broken,
        }
        loop {
            tokio::select! {
                _ = connection.closed() => return Ended::Broken,
                ended = hosted.say(connection) => return ended,
                _ = wakes.changed() => {
                    if connection.ping(STORE_PING_TIME_MAX).await.is_err() {
                        return Ended::Broken;
                    }
                }
                // Everything that waits there is offered again.
                _ = room.changed() => {
                    hosted.say_again(&shared.pulls.waits.mailboxes_at(&connection.peer()));
                    break;
                }
                changed = membership.changed() => {
                    if changed.is_err() {
                        return Ended::Broken;
                    }
                    let now = membership.borrow().attestation.as_ref().map(|attested| attested.signed.clone());
                    if now.as_ref() != Some(&attested.signed) {
                        break;
                    }
                }
            }
        }
    }
}

/// What the relay was told of hosted mailboxes on one connection (SPEC A29): each has a `Waiting` of its own.
struct HostedWaits {
    now: watch::Receiver<Arc<Mailboxes>>,
    /// What was shown of each. Kept here, since [`HostedWaits::say`] may be left at any point.
    shown: BTreeMap<Mailbox, Arc<Attested>>,
}

impl HostedWaits {
    fn new(shared: &Handle) -> Self {
        let mut now = shared.hosted.mailboxes();
        now.mark_changed();
        Self { now, shown: BTreeMap::new() }
    }

    /// They are told of anew.
    fn say_again(&mut self, mailboxes: &BTreeSet<Mailbox>) {
        self.shown.retain(|mailbox, _| !mailboxes.contains(mailbox));
    }

    /// Says `Waiting?` for each mailbox with each new attestation, some at a time, until the session is over: also because one is
    /// not hosted any more, for which the relay ends only with the connection.
    async fn say(&mut self, connection: &Connection) -> Ended {
        loop {
            let mailboxes = self.now.borrow_and_update().clone();
            if self.shown.keys().any(|mailbox| !mailboxes.contains_key(mailbox)) {
                return Ended::Fewer;
            }
            let is_new = |(mailbox, attested): &(&Mailbox, &Arc<Attested>)| {
                !self.shown.get(*mailbox).is_some_and(|shown| shown.signed == attested.signed)
            };
            let new: Vec<_> =
                mailboxes.iter().filter(is_new).map(|(mailbox, of)| (mailbox.clone(), of.clone())).collect();
            let mut new = new.into_iter();
            let mut waiting = JoinSet::new();
            let (mut said, mut later) = (0, None);
            loop {
                while waiting.len() < HOSTED_WAITS_AT_ONCE
                    && let Some((mailbox, attested)) = new.next()
                {
                    let connection = connection.clone();
                    waiting.spawn(async move {
                        let request = Request::Waiting(Waiting { attestation: attested.signed.clone() });
                        (connection.request(&request).await, mailbox, attested)
                    });
                }
                let Some(answered) = waiting.join_next().await else { break };
                let Ok((response, mailbox, attested)) = answered else { return Ended::Broken };
                match response {
                    Ok(Response::Waiting(_)) => {
                        self.shown.insert(mailbox, attested);
                        said += 1;
                    }
                    Ok(Response::Later(seconds)) => later = later.max(Some(seconds)),
                    Ok(_) => {
                        tracing::warn!(relay = %connection.peer(), %mailbox, "the relay does not accept a hosted mailbox");
                        later = later.max(Some(HOSTED_REFUSED_PAUSE_S));
                    }
                    Err(_) => return Ended::Broken,
                }
            }
            if said > 0 {
                tracing::info!(relay = %connection.peer(), mailboxes = said, "session for hosted mailboxes");
            }
            let pause =
                later.map(|seconds| Duration::from_secs(u64::from(seconds.max(1))).min(RECONNECT_MAX));
            let again = pause.map(|pause| tokio::time::Instant::now() + pause);
            tokio::select! {
                changed = self.now.changed() => if changed.is_err() {
                    return Ended::Broken;
                },
                () = until(again) => {}
            }
        }
    }
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
