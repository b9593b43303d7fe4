//! Many small blobs; and a blob of 1 GiB over loopback: verified and dropped, beside raw quinn; verified into the store's files, and pulled by
//! the agent from the offer until the receipt, beside sendme.
//!
//! The holder reads from the files of a store, as a sending agent does. The agent and who offers to it are two processes, as
//! sendme is; where a part of ours is measured, and for raw quinn, both sides run in this process, each on a runtime of its own.

mod agent;
mod holder;
pub(crate) mod process;
mod quinn;
pub(crate) mod sendme;

use std::cell::RefCell;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lighter_protocol::{DeliveryId, UnixTime};
use lighter_store::{Partial, Settings as StoreSettings, Store, Wanted};
use lighter_transport::{Connection, Endpoint, EndpointConfig, Identity, Piece, Pull, VerifiedSink};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::spawn_blocking;

use crate::cost::Watch;
use crate::measure::{Comparison, Pair, Side, Work, compare};
use crate::settings::{MIB, Settings, amount};
use holder::{Contents, Holder};
use process::{HoldingProcess, Plan};
use sendme::Sendme;

/// A port from the kernel.
const ANY_PORT: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
/// Bytes of each of many blobs (DESIGN §11).
pub(crate) const MANY_SIZE: u64 = 16 * 1024;
/// More than enough on loopback.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

pub(crate) fn run(settings: &Settings) -> Result<Vec<Comparison>> {
    let folder = settings.temporary()?;
    let contents = Contents::make(folder.path(), 1, settings.pull_mib * MIB)?;
    let runtimes = Runtimes::start()?;
    let sendme = Sendme::start(&[], folder.path(), &contents.path()?)?;
    let mib = settings.pull_mib;
    let (plan, apart) = (here(1, mib * MIB), settings.temporary()?);
    let mut holder = HoldingProcess::start(&plan, apart.path(), None)?;
    let own = [std::process::id()];
    let costed = |run: &dyn Fn() -> Result<Duration>| {
        let watch = Watch::start(&own);
        let time = run()?;
        Ok((time, watch.end()))
    };

    let mut sides = vec![
        Side::costed(format!("pull {mib} MiB, verified"), || costed(&|| verified(&runtimes, &contents))),
        Side::costed("raw quinn, default MTU", || costed(&|| quinn::run(&runtimes, mib))),
        Side::costed(format!("agent: {mib} MiB, offer to receipt"), || {
            holder.pull(&plan, &settings.temporary()?)
        }),
    ];
    let mut pairs = vec![Pair { ours: 0, peer: 1, aim: Some(0.7) }, Pair { ours: 2, peer: 1, aim: None }];
    if let Some(sendme) = &sendme {
        sides.push(Side::costed(format!("pull {mib} MiB, verified, into files"), || {
            let folder = settings.temporary()?;
            let store = Store::open(folder.path(), StoreSettings::default())?;
            costed(&|| into_files(&runtimes, &contents, &store))
        }));
        sides.push(Side::costed("sendme", || sendme.receive(&[], &settings.temporary()?, contents.size)));
        pairs.push(Pair { ours: 3, peer: 4, aim: Some(4.0) });
        pairs.push(Pair { ours: 2, peer: 4, aim: Some(2.0) });
    }
    compare(settings.rounds, Work { amount: amount(mib), unit: "MiB/s" }, sides, &pairs)
}

/// Many small blobs, by the agent from the offers until the last receipt, beside sendme with a folder of as many files.
pub(crate) fn many(settings: &Settings) -> Result<Vec<Comparison>> {
    let folder = settings.temporary()?;
    let (count, size) = (settings.many_blobs, MANY_SIZE);
    let (plan, files) = (here(count, size), folder.path().join("files"));
    let mut holder = HoldingProcess::start(&plan, folder.path(), Some(files.clone()))?;
    let Some(sendme) = Sendme::start(&[], folder.path(), &files)? else { return Ok(Vec::new()) };
    let kept = Kept::default();
    let sides = vec![
        Side::costed(format!("agent: {count} blobs of {} KiB, offers to receipts", size / 1024), || {
            holder.pull(&plan, &*kept.folder(settings)?)
        }),
        Side::costed("sendme", || sendme.receive(&[], &*kept.folder(settings)?, u64::from(count) * size)),
    ];
    let pairs = [Pair { ours: 0, peer: 1, aim: Some(3.0) }];
    compare(settings.rounds, Work { amount: f64::from(count), unit: "blobs/s" }, sides, &pairs)
}

/// The folders of all rounds, cleared away at their end: a file system without a journal looks for free inodes among those that
/// were let go of within the last minutes, at length (ext4), and both sides would mostly wait for that.
#[derive(Debug, Default)]
pub(crate) struct Kept(RefCell<Vec<Rc<TempDir>>>);

impl Kept {
    /// A new one.
    pub(crate) fn folder(&self, settings: &Settings) -> io::Result<Rc<TempDir>> {
        let folder = Rc::new(settings.temporary()?);
        self.0.borrow_mut().push(Rc::clone(&folder));
        Ok(folder)
    }
}

/// Both processes on this machine, with nothing between them.
pub(crate) fn here(count: u32, size: u64) -> Plan<'static> {
    Plan { through: [&[], &[]], addresses: [Ipv4Addr::LOCALHOST.into(); 2], count, size }
}

/// The two sides of a transfer, each with its own threads.
struct Runtimes {
    holder: Runtime,
    puller: Runtime,
}

impl Runtimes {
    fn start() -> Result<Self> {
        Ok(Self { holder: Runtime::new()?, puller: Runtime::new()? })
    }

    /// Pulls over a new connection, on the puller's runtime.
    fn pull(
        &self,
        contents: &Contents,
        pull: impl AsyncFnOnce(Connection) -> Result<Duration>,
    ) -> Result<Duration> {
        let holder = self.holder.block_on(async { Holder::start(contents) })?;
        let time = self.puller.block_on(async {
            let endpoint = Endpoint::bind(&Identity::generate(), ANY_PORT.into(), EndpointConfig::default())?;
            let connection = endpoint.connect(holder.peer(), &[holder.address()?], CONNECT_TIME_MAX).await?;
            let time = pull(connection).await?;
            endpoint.close().await;
            Ok::<_, anyhow::Error>(time)
        })?;
        self.holder.block_on(holder.stop());
        Ok(time)
    }
}

/// Verified by the transport, and let go of.
fn verified(runtimes: &Runtimes, contents: &Contents) -> Result<Duration> {
    struct Nowhere;

    impl VerifiedSink for Nowhere {
        async fn write(&self, piece: Piece) -> io::Result<()> {
            std::hint::black_box(piece);
            Ok(())
        }
    }

    runtimes.pull(contents, async |connection| {
        let began = Instant::now();
        let pull = Pull::of(DeliveryId([0; 16]), contents.first(), contents.size);
        connection.pull(&pull, &Arc::new(Nowhere)).await?;
        Ok(began.elapsed())
    })
}

/// Verified into the store's files, not yet synced: as far as sendme goes.
fn into_files(runtimes: &Runtimes, contents: &Contents, store: &Store) -> Result<Duration> {
    struct Files(Arc<Partial>);

    impl VerifiedSink for Files {
        async fn write(&self, piece: Piece) -> io::Result<()> {
            let partial = Arc::clone(&self.0);
            let written = spawn_blocking(move || {
                partial.write_pairs(piece.parents.iter().map(|parent| (parent.node, parent.pair)))?;
                partial.write_data(piece.offset, &piece.bytes)
            });
            written.await?.map(drop).map_err(io::Error::other)
        }
    }

    runtimes.pull(contents, async |connection| {
        let began = Instant::now();
        let Wanted::Partial(partial) = store.want(contents.first(), contents.size, UnixTime::now())? else {
            bail!("the store has it already");
        };
        let pull = Pull::of(DeliveryId([0; 16]), contents.first(), contents.size);
        connection.pull(&pull, &Arc::new(Files(Arc::clone(&partial)))).await.context("pull")?;
        let time = began.elapsed();
        anyhow::ensure!(partial.is_complete(), "something is missing");
        Ok(time)
    })
}
