//! A session with each relay of the own domain (DESIGN §6 `Waiting?`): the agent dials, so it needs no address that
//! others can reach; what waits there is offered on that connection, at once and whenever something new comes (SPEC
//! A18, D5).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use lighter_protocol::wire::{Request, Response, Waiting};
use lighter_protocol::{PeerId, RelayRecord};
use lighter_transport::Connection;
use rand::RngExt;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::limits::{DIAL_TIME_MAX, RECONNECT_MAX, RECONNECT_MIN, SESSION_GOOD_AFTER, STORE_PING_TIME_MAX};
use crate::serve;
use crate::shared::Handle;

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

/// Dials again whenever the session breaks, with growing waits and jitter; at once after a wake.
async fn keep(shared: Handle, relay: RelayRecord) {
    let mut wait = RECONNECT_MIN;
    loop {
        let mut wakes = shared.wakes.subscribe();
        let began = Instant::now();
        let ended = session(&shared, &relay).await;
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
    NotConnected(lighter_transport::ConnectError),
    #[error("none of its addresses may be dialled from here")]
    NoAddress,
    #[error("the relay does not accept the attestation")]
    NotAccepted,
    #[error("the connection broke")]
    Broken,
}

async fn session(shared: &Handle, relay: &RelayRecord) -> Ended {
    let addresses = shared.dialable(&relay.addresses);
    if addresses.is_empty() {
        return Ended::NoAddress;
    }
    let connection = match shared.endpoint.connect(relay.peer, &addresses, DIAL_TIME_MAX).await {
        Ok(connection) => connection,
        Err(error) => return Ended::NotConnected(error),
    };
    // What the relay asks is served beside the session; both end with the connection.
    let serving = tokio::spawn(serve::connection(shared.clone(), connection.clone()));
    let ended = wait_on(shared, &connection).await;
    connection.close();
    serving.abort();
    shared.links.sweep(&relay.peer);
    ended
}

/// Says `Waiting?` with each new attestation, and holds the session until it breaks.
async fn wait_on(shared: &Handle, connection: &Connection) -> Ended {
    let mut membership = shared.membership.subscribe();
    let mut wakes = shared.wakes.subscribe();
    loop {
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
                _ = wakes.changed() => {
                    if connection.ping(STORE_PING_TIME_MAX).await.is_err() {
                        return Ended::Broken;
                    }
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
