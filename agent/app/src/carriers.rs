//! The way to a relay: QUIC, or where UDP is blocked TLS on TCP, or a WebSocket on its web server, through a proxy if need be
//! (SPEC A30).
//!
//! - [`plan`]: what is tried when: a value;
//! - [`memory`]: what worked in which network;
//! - [`connect`]: the loop around them;
//! - [`better`]: a better carrier than the one in use, once it works again.
//!
//! Sound because the relay proves its PeerId on each of them, end to end.

pub mod memory;
pub mod plan;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use lighter_protocol::{RelayRecord, UnixTime};
use lighter_transport::proxy::{NotAProxy, Proxies};
use lighter_transport::websocket::WebSockets;
use lighter_transport::{Carrier, Connection};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use crate::config::Config;
use crate::dial;
use crate::limits::{BETTER_TIME_MAX, CARRIER_TIME_MAX, DIAL_TIME_MAX};
use crate::shared::Handle;
use memory::Remembered;
use plan::Plan;

/// What finding carriers needs to remember.
#[derive(Debug)]
pub struct Carriers {
    web: WebSockets,
    remembered: Mutex<Remembered>,
}

impl Carriers {
    /// With what the configuration says of proxies, and what is remembered in `file`.
    ///
    /// # Errors
    /// Where the configuration's proxy is none.
    pub fn new(config: &Config, file: Option<PathBuf>) -> Result<Self, NotAProxy> {
        let web = WebSockets::new(proxies(config)?, config.location.ca_file.as_deref());
        Ok(Self { web, remembered: Mutex::new(Remembered::load(file)) })
    }
}

/// The proxies that web servers are reached through: the configuration's, or those that the environment names.
///
/// # Errors
/// Where the configuration's is none.
pub fn proxies(config: &Config) -> Result<Proxies, NotAProxy> {
    match config.network.proxy.as_deref() {
        None => Ok(Proxies::of_environment()),
        Some("") => Ok(Proxies::none()),
        Some(proxy) => Proxies::all(proxy, &config.network.no_proxy),
    }
}

/// Why a relay was not reached: each carrier that was tried, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotReached(Vec<(Carrier, String)>);

impl fmt::Display for NotReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none of its addresses may be dialled from here");
        }
        for (index, (carrier, why)) in self.0.iter().enumerate() {
            let between = if index == 0 { "" } else { "; " };
            write!(f, "{between}{carrier}: {why}")?;
        }
        Ok(())
    }
}

impl std::error::Error for NotReached {}

/// What leads to `relay` from here.
fn known(shared: &Handle, relay: &RelayRecord) -> Vec<Carrier> {
    let mut known = Vec::new();
    if !shared.dialable(&relay.addresses).is_empty() {
        known.extend([Carrier::Quic, Carrier::Tcp]);
    }
    if relay.retrieval_url.starts_with("https://") || relay.retrieval_url.starts_with("http://") {
        known.push(Carrier::WebSocket);
    }
    known
}

/// Whether anything may lead to `relay` from here.
pub fn is_possible(shared: &crate::shared::Shared, relay: &RelayRecord) -> bool {
    !shared.dialable(&relay.addresses).is_empty() || relay.retrieval_url.starts_with("http")
}

/// A connection to `relay`, by whichever carrier opens it first. The connection is the caller's to close.
///
/// # Errors
/// What came of each that was tried.
pub async fn connect(shared: &Handle, relay: &RelayRecord) -> Result<Connection, NotReached> {
    let network = memory::network_of(&shared.own_addresses());
    let worked = remembered(shared).get(&network);
    let mut plan = Plan::new(&known(shared, relay), worked, Instant::now());
    let connected = timeout(DIAL_TIME_MAX, run(shared, relay, &mut plan)).await.ok().flatten();
    let Some(connection) = connected else { return Err(NotReached(plan.into_failures())) };
    if worked.unwrap_or(Carrier::Quic) != connection.carrier() {
        tracing::info!(relay = %relay.peer, carrier = %connection.carrier(), "this is what works in this network");
        remembered(shared).note(network, connection.carrier(), UnixTime::now());
    }
    Ok(connection)
}

fn remembered(shared: &Handle) -> std::sync::MutexGuard<'_, Remembered> {
    shared.carriers.remembered.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection to `relay` by a better carrier than `now`, if one works.
pub async fn better(shared: &Handle, relay: &RelayRecord, now: Carrier) -> Option<Connection> {
    for carrier in known(shared, relay).into_iter().filter(|carrier| *carrier < now) {
        if let Ok(Ok(connection)) = timeout(BETTER_TIME_MAX, open(shared, relay, carrier)).await {
            let network = memory::network_of(&shared.own_addresses());
            remembered(shared).note(network, carrier, UnixTime::now());
            return Some(connection);
        }
    }
    None
}

/// Tries what the plan says until something opens; none when nothing is left.
async fn run(shared: &Handle, relay: &RelayRecord, plan: &mut Plan) -> Option<Connection> {
    // As many as there are carriers.
    let mut tries = JoinSet::new();
    loop {
        while let Some(carrier) = plan.poll(Instant::now()) {
            let (shared, relay) = (shared.clone(), relay.clone());
            tries.spawn(async move {
                let opened = timeout(CARRIER_TIME_MAX, open(&shared, &relay, carrier)).await;
                (carrier, opened.unwrap_or_else(|_| Err("no answer in time".to_owned())))
            });
        }
        if plan.is_over() {
            return None;
        }
        let next = plan.next_time();
        let wait = async {
            match next {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(ended) = tries.join_next() => match ended {
                Ok((_, Ok(connection))) => return Some(connection),
                Ok((carrier, Err(why))) => {
                    tracing::debug!(relay = %relay.peer, %carrier, why, "not reached so");
                    plan.handle_failed(carrier, why, Instant::now());
                }
                Err(_) => return None, // the runtime is shutting down
            },
            () = wait => {}
        }
    }
}

/// Tries one carrier; gives why it did not work, in words.
async fn open(shared: &Handle, relay: &RelayRecord, carrier: Carrier) -> Result<Connection, String> {
    let endpoint = &shared.endpoint;
    let opened = match carrier {
        Carrier::Quic => {
            endpoint.connect(relay.peer, &shared.dialable(&relay.addresses), CARRIER_TIME_MAX).await
        }
        Carrier::Tcp => {
            endpoint.connect_tcp(relay.peer, &shared.dialable(&relay.addresses), CARRIER_TIME_MAX).await
        }
        Carrier::WebSocket => {
            let own = shared.own_addresses();
            let allowed = |address: &SocketAddr| dial::is_allowed(address, &own);
            let web = shared.carriers.web.connect(&relay.retrieval_url, allowed).await;
            let (halves, address) = web.map_err(|error| said(&error))?;
            endpoint.connect_in(relay.peer, halves, address, carrier, CARRIER_TIME_MAX).await
        }
    };
    opened.map_err(|error| error.to_string())
}

/// An error and what is behind it.
fn said(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", said(source)),
        None => error.to_string(),
    }
}
