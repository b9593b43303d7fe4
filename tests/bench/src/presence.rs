//! Presence changes a second at one location server: stores register and go offline, over kept-alive HTTP connections, each change
//! durable in its database, and a relay that watches all of it sees every one.
//!
//! The server is a process of its own, all of it real. The "peer" is the bound that was set: 100,000 changes a minute.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lighter_protocol::{Registration, Signed, UnixTime};
use lighter_transport::Identity;
use lighter_transport::location::api::{RegisterAnswer, RegisterRequest};
use lighter_transport::location::{LocationClient, PresenceEvent, PresenceEvents, Secret};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::cost::Watch;
use crate::http_client::Connection;
use crate::lookups::server::{self, Running};
use crate::measure::{Comparison, Pair, Side, Work, compare};
use crate::settings::{Settings, amount};
use crate::worker::{Job, Worker, say};

/// Changes a minute that one server is to bear.
const CHANGES_A_MINUTE: u32 = 100_000;
/// No change is so late.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(60);

pub(crate) fn run(settings: &Settings) -> Result<Vec<Comparison>> {
    let folder = settings.temporary()?;
    let changes = settings.presence_changes / 2 * 2;
    // Each store that changes goes online and offline.
    let stores = settings.presence_stores.max(changes / 2);
    let identity = Identity::load_or_create(&key_file(folder.path()))?;
    let job = Job::Location { folder: folder.path().to_owned(), stores };
    let mut worker = Worker::start(&[], &job)?;
    let line = worker.line()?;
    let (address, token) = line.split_once(' ').context("no address")?;
    let (address, token): (SocketAddr, _) = (address.parse()?, Secret::new(token));
    let runtime = Runtime::new()?;
    let client = LocationClient::new(&format!("http://{address}"), None)?;
    let mut watching = client.presence(&token);
    runtime.block_on(snapshot(&mut watching))?;

    let mut sequence = 1;
    let bound = Duration::from_secs_f64(60.0 * f64::from(changes) / f64::from(CHANGES_A_MINUTE));
    let connections = settings.connections;
    let sides = vec![
        Side::costed(
            format!(
                "presence, {stores} stores, {connections} connections, {changes} changes that a relay sees"
            ),
            || {
                sequence += 1;
                let requests: Result<Vec<_>> =
                    (0..changes / 2).map(|number| register(&identity, address, number, sequence)).collect();
                let watch = Watch::start(&[worker.pid()]);
                let time = runtime.block_on(change(
                    address,
                    requests?,
                    settings.connections,
                    &mut watching,
                    changes,
                ))?;
                Ok((time, watch.end()))
            },
        ),
        Side::new(format!("{CHANGES_A_MINUTE} changes a minute"), || Ok(bound)),
    ];
    let pairs = [Pair { ours: 0, peer: 1, aim: Some(1.0) }];
    compare(settings.rounds, Work { amount: amount(changes.into()), unit: "changes/s" }, sides, &pairs)
}

/// The server's process.
pub(crate) fn serve(folder: &Path, stores: u32) -> Result<()> {
    let runtime = Runtime::new()?;
    let identity = Identity::load_or_create(&key_file(folder))?;
    let running = runtime.block_on(Running::durable(stores, identity, &folder.join("location.redb")))?;
    say(&format!("{} {}", running.address, running.token.expose()))?;
    // Until nobody wants it any more.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

/// The key that all stores have here.
fn key_file(folder: &Path) -> PathBuf {
    folder.join("store-key")
}

/// The request that registers a store.
fn register(identity: &Identity, address: SocketAddr, number: u32, sequence: u64) -> Result<Vec<u8>> {
    let registration = Registration {
        mailbox: server::mailbox(number).parse()?,
        peer: identity.peer(),
        addresses: vec!["127.0.0.1:4001".parse()?],
        sequence,
        expires: UnixTime::now().plus(Duration::from_secs(3600)),
    };
    let registration = Signed::sign(&registration, identity.keypair())?;
    let body = serde_json::to_string(&RegisterRequest { registration, sealing_key: None })?;
    Ok(request(address, "register", "", &body))
}

fn request(address: SocketAddr, call: &str, fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /v1/{call} HTTP/1.1\r\nhost: {address}\r\n{fields}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Every store goes online and offline: until the last change has been seen.
async fn change(
    address: SocketAddr,
    registers: Vec<Vec<u8>>,
    connections: usize,
    watching: &mut PresenceEvents,
    changes: u32,
) -> Result<Duration> {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Connection::open(address).await?);
    }
    let (registers, next) = (Arc::new(registers), Arc::new(AtomicUsize::new(0)));
    let mut asking = JoinSet::new();
    let began = Instant::now();
    for mut connection in open {
        let (registers, next) = (Arc::clone(&registers), Arc::clone(&next));
        asking.spawn(async move {
            while let Some(register) = registers.get(next.fetch_add(1, Ordering::Relaxed)) {
                let answer: RegisterAnswer = serde_json::from_slice(connection.body_of(register).await?)?;
                let bearer = format!("authorization: Bearer {}\r\n", answer.session.expose());
                connection.body_of(&request(address, "offline", &bearer, "")).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    for _ in 0..changes {
        match tokio::time::timeout(CHANGE_TIME_MAX, watching.next()).await.context("a change is missing")? {
            PresenceEvent::Change(_) => {}
            other => bail!("{other:?} instead of a change"),
        }
    }
    let took = began.elapsed();
    while let Some(ended) = asking.join_next().await {
        ended??;
    }
    Ok(took)
}

/// Reads what the stream begins with.
async fn snapshot(watching: &mut PresenceEvents) -> Result<()> {
    loop {
        match watching.next().await {
            PresenceEvent::Snapshot(page) => {
                ensure!(page.stores.is_empty(), "nobody is online yet");
                if page.last {
                    return Ok(());
                }
            }
            other => bail!("{other:?} instead of a snapshot"),
        }
    }
}
