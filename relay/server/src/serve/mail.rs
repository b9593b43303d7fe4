//! The mail roles: array, catalog, and what takes mail in, hands it on, and hands attachments over.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lighter_catalog::{Change, Ledger};
use lighter_location::LocationServer;
use lighter_mail::Protocol;
use lighter_message::Policy;
use lighter_protocol::RelayRecord;
use lighter_protocol::ticket::TicketKey;
use lighter_shell::count;
use lighter_storage::{Array, ArrayConfig, ArrayKeys, Class, ServerEntry, wall_clock};
use lighter_transport::location::{LocationClient, Scope, Secret};
use lighter_transport::{Endpoint, EndpointConfig, Identity, tunnel};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Addresses;
use super::answers::Answering;
use super::catalog;
use super::key_change::KeyChange;
use crate::commands::CommandError;
use crate::config::{ArrayServerConfig, Config, Role};
use crate::control;
use crate::delivery::{self, DeliveryGauges, DeliveryParts, DeliverySignals};
use crate::hand_over::{self, HandOverParts};
use crate::ingest::{Admit, Decide, Ingest, IngestParts};
use crate::layout;
use crate::next_hop::NextHop;
use crate::retrieval::{self, LedgerAttachments, RelayStatus, Tunnels};
use crate::smtp_in::MailServer;
use crate::upkeep::Jobs;

/// Between two tries to tell the location server of this relay: the first, and the longest.
const MAKE_KNOWN_PAUSE_MIN: Duration = Duration::from_millis(500);
const MAKE_KNOWN_PAUSE_MAX: Duration = Duration::from_secs(60);
/// How often a location server is told again that has heard: it may have been set up anew, or from an older backup.
const MAKE_KNOWN_AGAIN: Duration = Duration::from_secs(300);

/// The mail roles, running.
pub(super) struct Mail {
    array: Array,
    ledger: Ledger<Array>,
    /// Takes mail; stops first.
    taking: CancellationToken,
    listeners: JoinSet<()>,
    /// Hands on and over; stops when nothing is taken any more.
    giving: CancellationToken,
    workers: JoinSet<()>,
    control: tokio::task::JoinHandle<()>,
}

impl Mail {
    /// Opens array and catalog, starts everything, and writes where it listens into `addresses`.
    pub(super) async fn start(
        config: &Config,
        identity: &Identity,
        location: Option<&LocationServer>,
        addresses: &mut Addresses,
    ) -> Result<Self, CommandError> {
        let keys = ArrayKeys::load_or_create(&layout::array_key(&config.data), &mut rand::rng())
            .map_err(|error| CommandError::failed("the array key", error))?;
        let tickets = TicketKey::derive(&keys.ticket_secret());
        let (web, retrieval_url) = bind_web(config, addresses).await?;
        let array = open_array(config, identity, keys.clone(), addresses).await?;
        let key_change = KeyChange::new(array.clone(), config.data.clone(), keys);
        let due = Arc::new(Notify::new());
        let (signals, inbox) = DeliverySignals::new();
        let observer = observer(Arc::clone(&due), signals.clone());
        let ledger = catalog::open(config, identity, &array, observer).await?;
        let (client, token) = location_client(config, location).await?;
        let ingest = Ingest::new(IngestParts {
            array: array.clone(),
            ledger: ledger.clone(),
            decide: Decide::new(client.clone(), token.clone(), &config.domains),
            policy: policy(config),
            class: Class::for_days(config.retention.days).unwrap_or(Class::Days365),
            tickets: tickets.clone(),
            hostname: config.hostname.clone(),
            admit: Admit::new(&config.domains, &config.trusted),
        });
        let giving = CancellationToken::new();
        let jobs = Jobs::new(array.clone(), ledger.clone(), config.data.clone());
        let thinning = jobs.clone().thin_daily(config.array.thin_below_percent, giving.clone());
        let answering = Answering::new(
            array.clone(),
            ledger.clone(),
            tickets.clone(),
            retrieval_url.clone(),
            jobs,
            key_change.clone(),
        );
        let mut mail = Self {
            array: array.clone(),
            ledger: ledger.clone(),
            taking: CancellationToken::new(),
            listeners: JoinSet::new(),
            giving,
            workers: JoinSet::new(),
            control: answer_commands(config, answering)?,
        };
        mail.workers.spawn(key_change.run(mail.giving.clone()));
        mail.workers.spawn(thinning);
        if let Some(database) = mail.ledger.database() {
            let (database, due) = (Arc::clone(database), Arc::clone(&due));
            let fellows = catalog::hear(database, array.clone(), identity.peer(), signals, due);
            mail.workers.spawn(catalog::until(fellows, mail.giving.clone()));
        }
        mail.hand_over(config, &ingest, &tickets, &retrieval_url, due)?;
        let (endpoint, tcp) = bind_endpoint(config, identity, addresses).await?;
        if let Some(listener) = tcp {
            mail.workers.spawn(listen_tcp(endpoint.clone(), listener, mail.giving.clone()));
        }
        let tunnels = Tunnels::new(endpoint.clone(), &config.web.proxies);
        let record = relay_record(config, identity, &endpoint, &retrieval_url)?;
        mail.workers.spawn(make_known(client.clone(), token.clone(), record, mail.giving.clone()));
        let delivery = DeliveryParts {
            endpoint,
            array,
            ledger,
            location: client,
            token,
            location_key: location.map(LocationServer::peer),
            keep_after_receipt: days(config.retention.keep_after_receipt_days),
            ping_interval: Some(Duration::from_secs(config.queue.ping_interval_s)),
            push_bytes_max: config.queue.push_bytes_max(),
            ingest: ingest.clone(),
            tickets,
            retrieval_url,
            hostname: config.hostname.clone(),
            drops: config.drops,
        };
        let gauges = DeliveryGauges::default();
        if let Some(listener) = web {
            let attachments = LedgerAttachments::new(mail.ledger.clone(), mail.array.clone());
            let status = RelayStatus::new(mail.ledger.clone(), mail.array.clone(), gauges.clone());
            mail.workers.spawn(retrieval::serve(listener, attachments, status, tunnels, mail.giving.clone()));
        }
        mail.workers.spawn(delivery::run(delivery, inbox, gauges, mail.giving.clone()));
        // The last to begin: mail is taken when everything stands that it goes through.
        mail.listen(config, &ingest, addresses).await?;
        Ok(mail)
    }

    /// Returns when nothing can be taken any more because the catalog's view failed.
    pub(super) async fn failed(&self) {
        self.ledger.failed().await;
    }

    /// Stops cleanly: first what takes mail in, then what gives it out.
    pub(super) async fn stop(mut self) {
        self.taking.cancel();
        while self.listeners.join_next().await.is_some() {}
        self.giving.cancel();
        let workers = &mut self.workers;
        let ended = async { while workers.join_next().await.is_some() {} };
        if tokio::time::timeout(crate::limits::STOP_TIMEOUT, ended).await.is_err() {
            tracing::warn!("work under way was given up; it is done again after the next start");
            self.workers.abort_all();
        }
        self.control.abort();
        catalog::give_back(&self.ledger).await;
        self.array.close().await;
    }

    async fn listen(
        &mut self,
        config: &Config,
        ingest: &Ingest,
        addresses: &mut Addresses,
    ) -> Result<(), CommandError> {
        let intake = Arc::new(ingest.clone());
        for (role, protocol, listener) in
            [(Role::Smtp, Protocol::Smtp, &config.smtp), (Role::Lmtp, Protocol::Lmtp, &config.lmtp)]
        {
            if !config.roles.contains(&role) {
                continue;
            }
            let name = if role == Role::Smtp { "smtp" } else { "lmtp" };
            if listener.listen.is_empty() {
                return Err(CommandError::Relay(format!(
                    "{name}.listen: no address to listen on; name one, or leave out the role {name}"
                )));
            }
            let server = MailServer::bind(listener, protocol, &config.hostname)
                .await
                .map_err(|error| CommandError::failed("a mail listener", error))?;
            match protocol {
                Protocol::Smtp => addresses.smtp = server.addresses().to_vec(),
                Protocol::Lmtp => addresses.lmtp = server.addresses().to_vec(),
            }
            self.listeners.spawn(server.serve(Arc::clone(&intake), self.taking.clone()));
        }
        Ok(())
    }

    fn hand_over(
        &mut self,
        config: &Config,
        ingest: &Ingest,
        tickets: &TicketKey,
        retrieval_url: &str,
        due: Arc<Notify>,
    ) -> Result<(), CommandError> {
        let next_hop = NextHop::from_config(&config.next_hop, &config.data, &config.hostname)
            .map_err(|error| CommandError::failed("the next hop", error))?;
        let parts = HandOverParts {
            array: self.array.clone(),
            ledger: self.ledger.clone(),
            next_hop,
            ingest: ingest.clone(),
            tickets: tickets.clone(),
            retrieval_url: retrieval_url.to_owned(),
            hostname: config.hostname.clone(),
            give_up_after: Duration::from_secs(config.queue.give_up_hours * 3600),
            due,
        };
        self.workers.spawn(hand_over::run(parts, self.giving.clone()));
        Ok(())
    }
}

/// What is told of each change.
fn observer(due: Arc<Notify>, signals: DeliverySignals) -> Box<lighter_catalog::Observer> {
    Box::new(move |change: &Change| {
        signals.observe(change);
        if matches!(change, Change::Accepted(_) | Change::Expired { .. }) {
            due.notify_one();
        }
    })
}

/// The web listener, and what links begin with.
async fn bind_web(
    config: &Config,
    addresses: &mut Addresses,
) -> Result<(Option<TcpListener>, String), CommandError> {
    let mut address = config.web.listen;
    let mut listener = None;
    if config.roles.contains(&Role::Web) {
        let what = || format!("listening on {address}");
        let bound = TcpListener::bind(address).await.map_err(|error| CommandError::failed(what(), error))?;
        address = bound.local_addr().map_err(|error| CommandError::failed(what(), error))?;
        addresses.web = Some(address);
        listener = Some(bound);
    }
    let url = config.web.url.clone().unwrap_or_else(|| retrieval::default_url(address));
    Ok((listener, url.trim_end_matches('/').to_owned()))
}

/// The endpoint for agents on UDP, and its listener on TCP.
async fn bind_endpoint(
    config: &Config,
    identity: &Identity,
    addresses: &mut Addresses,
) -> Result<(Endpoint, Option<TcpListener>), CommandError> {
    let mut tries = if config.quic.listen.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let endpoint = bind_quic(config, identity)?;
        let udp = endpoint
            .local_addr()
            .map_err(|error| CommandError::failed("the QUIC endpoint's address", error))?;
        addresses.quic = Some(udp);
        if !config.tcp.enabled {
            return Ok((endpoint, None));
        }
        let address = config.tcp.listen.unwrap_or(udp);
        match TcpListener::bind(address).await {
            Ok(listener) => {
                addresses.tcp = listener.local_addr().ok();
                return Ok((endpoint, Some(listener)));
            }
            // The system chose the UDP port, and TCP's of that number is taken: another one.
            Err(error) if tries > 0 && error.kind() == std::io::ErrorKind::AddrInUse => {
                endpoint.close().await;
            }
            Err(error) => {
                let what = format!("listening on {address} (TLS on TCP, for agents; off with tcp.enabled)");
                return Err(CommandError::failed(what, error));
            }
        }
    }
}

/// Ports that are tried where the system chooses.
const PORT_TRIES: u32 = 8;

fn bind_quic(config: &Config, identity: &Identity) -> Result<Endpoint, CommandError> {
    let what = || format!("listening on {} (QUIC)", config.quic.listen);
    Endpoint::bind(identity, config.quic.listen, EndpointConfig::default())
        .map_err(|error| CommandError::failed(what(), error))
}

/// Takes agents' TCP connections until `stopping`.
async fn listen_tcp(endpoint: Endpoint, listener: TcpListener, stopping: CancellationToken) {
    tokio::select! {
        listening = tunnel::listen::tcp(&endpoint, listener) => if let Err(error) = listening {
            tracing::error!(%error, "agents cannot come over TCP");
        },
        () = stopping.cancelled() => {}
    }
}

/// What agents are told of this relay.
fn relay_record(
    config: &Config,
    identity: &Identity,
    endpoint: &Endpoint,
    retrieval_url: &str,
) -> Result<RelayRecord, CommandError> {
    let mut address =
        endpoint.local_addr().map_err(|error| CommandError::failed("the QUIC endpoint's address", error))?;
    if address.ip().is_unspecified() {
        let is_v4 = address.is_ipv4();
        address.set_ip(if is_v4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    let addresses =
        if config.quic.advertise.is_empty() { vec![address] } else { config.quic.advertise.clone() };
    Ok(RelayRecord { peer: identity.peer(), addresses, retrieval_url: retrieval_url.to_owned() })
}

/// Tells the location server where this relay is, until it has heard and now and then after: attestations name it from
/// then on.
async fn make_known(client: LocationClient, token: Secret, record: RelayRecord, stop: CancellationToken) {
    let mut pause = MAKE_KNOWN_PAUSE_MIN;
    let mut is_known = false;
    loop {
        let wait = match client.put_relay(&token, &record).await {
            Ok(()) => {
                if !is_known {
                    tracing::info!(location = client.url(), "the location server knows this relay");
                }
                (is_known, pause) = (true, MAKE_KNOWN_PAUSE_MIN);
                MAKE_KNOWN_AGAIN
            }
            Err(error) => {
                tracing::warn!(%error, "the location server was not told of this relay, trying again");
                is_known = false;
                let wait = pause;
                pause = (pause * 2).min(MAKE_KNOWN_PAUSE_MAX);
                wait
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 3600)
}

pub(super) async fn open_array(
    config: &Config,
    identity: &Identity,
    keys: ArrayKeys,
    addresses: &Addresses,
) -> Result<Array, CommandError> {
    let named = config.array.servers.iter().map(ArrayServerConfig::entry);
    // Those in this process, as they are configured.
    let inside = addresses.storage.iter().zip(layout::storage_servers(config));
    let inside = inside.map(|(server, configured)| configured.entry(server.peer, server.address));
    let servers: Vec<ServerEntry> =
        if config.array.servers.is_empty() { inside.collect() } else { named.collect() };
    let has_table = layout::array_table(&config.data).exists();
    if servers.len() < config.array.copies && !has_table {
        return Err(CommandError::Relay(format!(
            "{} for {}: name others (array.servers), or run some here (role storage)",
            count(servers.len(), "storage server", "storage servers"),
            count(config.array.copies, "copy", "copies")
        )));
    }
    let array = ArrayConfig {
        servers,
        copies: config.array.copies,
        acknowledge_after: config.array.acknowledge_after,
        given_up: config.array.given_up.clone(),
        policy: config.array.placing,
        allowed_together: config.array.allowed_together.clone(),
        table_file: Some(layout::array_table(&config.data)),
        rebuild_after: Duration::from_secs(u64::from(config.array.rebuild_after_minutes) * 60),
        heal_rate: NonZeroU64::new(u64::from(config.array.rebuild_mib_per_second) << 20),
        local: addresses.local.clone(),
        ..ArrayConfig::new(Vec::new())
    };
    Array::open(array, identity, keys, wall_clock())
        .await
        .map_err(|error| CommandError::failed("opening the storage array", error))
}

/// The location server that is named, or the one in this process: asked over HTTP either way.
async fn location_client(
    config: &Config,
    inside: Option<&LocationServer>,
) -> Result<(LocationClient, Secret), CommandError> {
    let (url, token) = match (&config.location.url, &config.location.token_file, inside) {
        (Some(url), Some(file), _) => (url.clone(), read_token(file)?),
        (_, _, Some(server)) => (server.url(), own_token(config, server).await?),
        _ => {
            return Err(CommandError::Relay(
                "no location server: name one (location.url and location.token_file), or run one (role location)"
                    .to_owned(),
            ));
        }
    };
    let client =
        LocationClient::new(&url, None).map_err(|error| CommandError::failed(url.as_str(), error))?;
    Ok((client, token))
}

fn read_token(file: &Path) -> Result<Secret, CommandError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| CommandError::failed(file.display().to_string(), error))?;
    Ok(Secret::new(text.trim()))
}

/// The token for the location server inside: made where there is none that it knows, kept in a file for its owner only.
async fn own_token(config: &Config, server: &LocationServer) -> Result<Secret, CommandError> {
    const SCOPES: [Scope; 3] = [Scope::Lookup, Scope::Presence, Scope::Relay];
    let path = layout::location_token(&config.data);
    let failed = |error: std::io::Error| CommandError::failed(path.display().to_string(), error);
    if path.exists() {
        let token = read_token(&path)?;
        if server.is_good_for(&token, &SCOPES) {
            return Ok(token);
        }
        tracing::warn!("the location server does not know this relay's token: another is made");
        std::fs::remove_file(&path).map_err(failed)?;
    }
    let token = server
        .create_token("relay", &SCOPES)
        .await
        .map_err(|error| CommandError::failed("making a token for the location server", error))?;
    crate::files::write_new(&path, token.expose().as_bytes()).map_err(failed)?;
    Ok(token)
}

fn policy(config: &Config) -> Policy {
    let base = if config.detach.everything { Policy::everything() } else { Policy::default() };
    Policy { min_size: usize::try_from(config.detach.size_bytes_min).unwrap_or(usize::MAX), ..base }
}

fn answer_commands(
    config: &Config,
    answering: Answering,
) -> Result<tokio::task::JoinHandle<()>, CommandError> {
    let listener =
        control::listen(&config.data).map_err(|error| CommandError::failed("the control socket", error))?;
    Ok(tokio::spawn(control::serve(listener, Arc::new(answering))))
}
