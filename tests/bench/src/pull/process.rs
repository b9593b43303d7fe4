//! Holder and agent as two processes; see [`crate::worker`].

use std::io::BufRead;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lighter_agent::serve;
use lighter_agent::shared::Handle;
use lighter_protocol::{BlobId, Mailbox, PeerId};
use lighter_store::{Settings as StoreSettings, Store};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::agent::{MAILBOX, offer};
use super::holder::{Contents, Holder, MANIFEST};
use super::{CONNECT_TIME_MAX, agent};
use crate::cost::{Cost, Watch};
use crate::settings::Settings;
use crate::worker::{Job, Worker, say};

/// How often an agent is looked at that is watched.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// A holder on a host.
pub(crate) struct HoldingProcess {
    worker: Worker,
    peer: String,
    address: SocketAddr,
    /// The first of its blobs.
    blob: String,
}

/// What a pull showed whose second source died half way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Died {
    pub(crate) time: Duration,
    pub(crate) cost: Cost,
    /// Bytes that sources had brought, and bytes that were on disk, at the last look before the end.
    pub(crate) brought: u64,
    pub(crate) kept: u64,
}

/// Whence, whither, and how many blobs of which size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    /// What commands begin with that run on the hosts of holder and agent.
    pub(crate) through: [&'a [String]; 2],
    /// Of both.
    pub(crate) addresses: [IpAddr; 2],
    pub(crate) count: u32,
    pub(crate) size: u64,
}

impl HoldingProcess {
    /// Starts one with a store in `folder`; each blob is also copied into a file of `copies`.
    pub(crate) fn start(plan: &Plan<'_>, folder: &Path, copies: Option<PathBuf>) -> Result<Self> {
        let Plan { count, size, .. } = *plan;
        let job = Job::Hold { folder: folder.to_owned(), count, size, address: plan.addresses[0], copies };
        let mut worker = Worker::start(plan.through[0], &job)?;
        let line = worker.line()?;
        let mut words = line.split(' ');
        let mut word = || words.next().context("a word is missing");
        Ok(Self { peer: word()?.to_owned(), address: word()?.parse()?, blob: word()?.to_owned(), worker })
    }

    /// As [`HoldingProcess::pull`], with `other` as a second source, which is killed when half of it is here.
    pub(crate) fn pull_while_dies(
        &mut self,
        mut other: Self,
        plan: &Plan<'_>,
        settings: &Settings,
    ) -> Result<Died> {
        let folder = settings.temporary()?;
        other.worker.tell("serve")?;
        self.worker.tell(&format!("offer {}", other.peer))?;
        // The further source first: there is a connection with it when the offer comes.
        let holders = vec![(other.peer.clone(), other.address), (self.peer.clone(), self.address)];
        let watched = Some((self.blob.clone(), plan.size));
        let job =
            Job::Agent { folder: folder.path().to_owned(), holders, address: plan.addresses[1], watched };
        let mut agent = Worker::start(plan.through[1], &job)?;
        agent.line().context("the agent")?;
        let watch = Watch::start(&[self.worker.pid(), other.worker.pid(), agent.pid()]);
        agent.tell("connect")?;
        agent.line().context("half of it")?;
        other.worker.kill();
        let nanos = self.worker.line().context("the holder")?.parse()?;
        let cost = watch.end();
        let line = agent.line().context("the agent's account")?;
        let (brought, kept) = line.split_once(' ').context("half an account")?;
        let time = Duration::from_nanos(nanos);
        Ok(Died { time, cost, brought: brought.parse()?, kept: kept.parse()? })
    }

    /// An agent with an empty store in `folder` pulls everything: the time from the first offer until the last receipt.
    pub(crate) fn pull(&mut self, plan: &Plan<'_>, folder: &TempDir) -> Result<(Duration, Cost)> {
        self.worker.tell("offer")?;
        let holders = vec![(self.peer.clone(), self.address)];
        let job = Job::Agent {
            folder: folder.path().to_owned(),
            holders,
            address: plan.addresses[1],
            watched: None,
        };
        let mut agent = Worker::start(plan.through[1], &job)?;
        agent.line().context("the agent")?;
        let watch = Watch::start(&[self.worker.pid(), agent.pid()]);
        agent.tell("connect")?;
        let nanos = self.worker.line().context("the holder")?.parse()?;
        Ok((Duration::from_nanos(nanos), watch.end()))
    }
}

/// The holder's process: for each `offer` that it is told, everything is offered to the next agent that connects, perhaps with the
/// name of a further source; for each `serve`, the next that connects is only served.
pub(crate) fn hold(
    folder: &Path,
    count: u32,
    size: u64,
    address: IpAddr,
    copies: Option<&Path>,
) -> Result<()> {
    let contents = Contents::make(folder, count, size)?;
    if let Some(copies) = copies {
        contents.copy_to(copies)?;
    }
    let runtime = Runtime::new()?;
    let holder = runtime.block_on(async { Holder::bind(&contents, address) })?;
    say(&format!("{} {} {}", holder.peer(), holder.address()?, contents.first()))?;
    let mailbox: Mailbox = MAILBOX.parse()?;
    let mut served = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let Some(sources) = line.strip_prefix("offer") else {
            served.push(runtime.block_on(holder.accept())?);
            continue;
        };
        let sources = sources.split_whitespace().map(str::parse).collect::<Result<Vec<PeerId>, _>>()?;
        let took = runtime.block_on(offer(&holder, &mailbox, &contents, &sources))?;
        say(&took.as_nanos().to_string())?;
    }
    Ok(())
}

/// The agent's process: connects when it is told to, and serves until it is ended. Of a blob that is watched, it says when half is
/// here, and at the end what sources had brought and what was on disk when it last looked.
pub(crate) fn agent(
    folder: &Path,
    holders: &[(String, SocketAddr)],
    address: IpAddr,
    watched: Option<(String, u64)>,
) -> Result<()> {
    let runtime = Runtime::new()?;
    let store = Store::open(folder, StoreSettings::default())?;
    let holders = holders.iter().map(|(peer, address)| Ok((peer.parse::<PeerId>()?, *address)));
    let holders = holders.collect::<Result<Vec<_>>>()?;
    let peers: Vec<_> = holders.iter().map(|(peer, _)| *peer).collect();
    let agent = runtime.block_on(async { agent::agent(store, &MAILBOX.parse()?, &peers, address) })?;
    say("ready")?;
    std::io::stdin().lock().lines().next().context("nobody wants it")??;
    runtime.block_on(async {
        let mut serving = JoinSet::new();
        for (peer, address) in holders {
            let connection = connect(&agent.endpoint, peer, address).await?;
            serving.spawn(serve::connection(agent.clone(), connection));
        }
        if let Some((blob, size)) = watched {
            look_on(&agent, blob.parse()?, size).await?;
        }
        while serving.join_next().await.is_some() {}
        Ok(())
    })
}

/// Says when half of a blob is here, and at the end what sources had brought and what was on disk at the last look.
async fn look_on(agent: &Handle, blob: BlobId, size: u64) -> Result<()> {
    let (mut is_half, mut last) = (false, (0, 0));
    loop {
        // What was brought is looked at first: what is on disk can only have grown since.
        let views = agent.pulls.sources().await;
        let brought: u64 = views.values().flatten().map(|view| view.bytes).sum();
        let kept = agent.store.len_here(blob, size)?;
        if !views.is_empty() && kept < size {
            last = (brought, kept + MANIFEST.len() as u64);
        }
        if kept >= size / 2 && !is_half {
            is_half = true;
            say("half")?;
        }
        if kept >= size {
            return say(&format!("{} {}", last.0, last.1));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// A first flight may be lost whole.
async fn connect(
    endpoint: &lighter_transport::Endpoint,
    peer: PeerId,
    address: SocketAddr,
) -> Result<lighter_transport::Connection> {
    let began = Instant::now();
    loop {
        match endpoint.connect(peer, &[address], CONNECT_TIME_MAX).await {
            Ok(connection) => return Ok(connection),
            Err(error) if began.elapsed() > 3 * CONNECT_TIME_MAX => return Err(error.into()),
            Err(_) => {}
        }
    }
}
