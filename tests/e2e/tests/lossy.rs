//! Lines that lose, double, delay, reorder and are slow, and addresses that change in the middle, from seeds: real
//! endpoints on real sockets, with a [`Wire`] between them. Every pull ends whole and verified, and nothing that was
//! verified is fetched again.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bao_tree::io::outboard::PreOrderOutboard;
use bao_tree::io::sync::CreateOutboard;
use lighter_harness::wire::{Line, Wire};
use lighter_protocol::blob::{GROUP, RangeSet, tree};
use lighter_protocol::wire::{Get, Request};
use lighter_protocol::{BlobId, DeliveryId};
use lighter_transport::serve::FileSlices;
use lighter_transport::{
    Connection, Endpoint, EndpointConfig, Identity, Piece, Pull, PullError, Responder, VerifiedSink,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

const ANY_PORT: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
/// Long enough on a busy machine, and short enough for a test that hangs.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(60);
const PULL_TIME_MAX: Duration = Duration::from_secs(120);
/// Patience for lines that stand still for a while.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);
/// Pulls of one blob, each after the connection before was lost.
const PULLS_MAX: usize = 10;

/// A blob in files, as a store has it.
struct Held {
    bytes: Vec<u8>,
    id: BlobId,
    data: Arc<std::fs::File>,
    outboard: Arc<std::fs::File>,
}

impl Held {
    fn new(chance: &mut StdRng, len: usize) -> Result<Self> {
        let mut bytes = vec![0; len];
        chance.fill_bytes(&mut bytes);
        let outboard = PreOrderOutboard::<Vec<u8>>::create(io::Cursor::new(&bytes), GROUP)?;
        let file = |bytes: &[u8]| {
            let mut file = tempfile::tempfile()?;
            io::Write::write_all(&mut file, bytes)?;
            Ok::<_, io::Error>(Arc::new(file))
        };
        let (id, data, outboard) = (BlobId::from(outboard.root), file(&bytes)?, file(&outboard.data)?);
        Ok(Self { bytes, id, data, outboard })
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn answer(&self, get: &Get, responder: Responder) {
        let outboard = PreOrderOutboard {
            root: self.id.hash(),
            tree: tree(self.size()),
            data: FileSlices::of_outboard(Arc::clone(&self.outboard), self.size()),
        };
        // The other side may be gone: it says so itself.
        let data = FileSlices::of_blob(Arc::clone(&self.data), self.size());
        let _ = responder.serve(get, self.size(), data, outboard).await;
    }
}

/// Answers every `Get` on every connection.
async fn serve(endpoint: Endpoint, held: Arc<Held>) {
    let mut connections = JoinSet::new();
    while let Some(connection) = endpoint.accept().await {
        let held = Arc::clone(&held);
        connections.spawn(async move {
            let mut answers = JoinSet::new();
            while let Some(incoming) = connection.accept_request().await {
                let Request::Get(get) = incoming.request else { continue };
                let held = Arc::clone(&held);
                answers.spawn(async move { held.answer(&get, incoming.responder).await });
            }
        });
    }
}

/// Where verified bytes go; it takes none twice.
struct Sink {
    state: Mutex<(Vec<u8>, RangeSet)>,
    verified: watch::Sender<u64>,
}

impl Sink {
    fn new(size: usize) -> Self {
        Self { state: Mutex::new((vec![0; size], RangeSet::new())), verified: watch::Sender::new(0) }
    }

    fn missing(&self, size: u64) -> RangeSet {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.missing(size)
    }

    /// Waits until so many bytes are here.
    async fn has(&self, bytes: u64) {
        // The sender is this value's own.
        let _ = self.verified.subscribe().wait_for(|verified| *verified >= bytes).await;
    }
}

impl VerifiedSink for Sink {
    async fn write(&self, piece: Piece) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let range = piece.offset..piece.offset + piece.bytes.len() as u64;
        let before = state.1.len();
        if !state.1.insert(range.clone()) || state.1.len() - before != piece.bytes.len() as u64 {
            return Err(io::Error::other(format!("{range:?} came twice")));
        }
        let start = usize::try_from(range.start).map_err(io::Error::other)?;
        state.0[start..start + piece.bytes.len()].copy_from_slice(&piece.bytes);
        self.verified.send_replace(state.1.len());
        Ok(())
    }
}

/// Both ends and the wire between them.
struct Ends {
    held: Arc<Held>,
    server: Endpoint,
    client: Endpoint,
    wire: Wire,
    sink: Arc<Sink>,
    /// Pulls that were cut off.
    cut_off: watch::Sender<usize>,
    _serving: JoinSet<()>,
}

impl Ends {
    fn new(len: usize, line: Line, idle_time_max: Duration, seed: u64) -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let held = Arc::new(Held::new(&mut StdRng::seed_from_u64(seed), len)?);
        let keep_alive = Some(idle_time_max / 3);
        let config = EndpointConfig { idle_time_max, keep_alive, ..EndpointConfig::default() };
        let bind = || Endpoint::bind(&Identity::generate(), ANY_PORT.into(), config.clone());
        let (server, client) = (bind()?, bind()?);
        let wire = Wire::start(server.local_addr()?, line, seed)?;
        let mut serving = JoinSet::new();
        serving.spawn(serve(server.clone(), Arc::clone(&held)));
        let (sink, cut_off) = (Arc::new(Sink::new(len)), watch::Sender::new(0));
        Ok(Self { held, server, client, wire, sink, cut_off, _serving: serving })
    }

    async fn connect(&self) -> Result<Connection> {
        let addresses: [SocketAddr; 1] = [self.wire.address];
        let mut last = None;
        // A first flight may be lost whole.
        for _ in 0..3 {
            match self.client.connect(self.server.peer(), &addresses, CONNECT_TIME_MAX).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no attempt")?.into())
    }

    /// Pulls until all is here, over as many connections as it takes: that many.
    async fn pull(&self) -> Result<usize> {
        let size = self.held.size();
        for pulls in 1..=PULLS_MAX {
            let connection = self.connect().await?;
            let missing = self.sink.missing(size);
            let pull = Pull::of(DeliveryId([9; 16]), self.held.id, size).missing(missing);
            match timeout(PULL_TIME_MAX, connection.pull(&pull, &self.sink)).await? {
                Ok(_) => return Ok(pulls),
                Err(PullError::Peer(error)) => {
                    eprintln!("pull {pulls} ended: {error}");
                    self.cut_off.send_replace(pulls);
                }
                Err(error) => return Err(error.into()),
            }
        }
        anyhow::bail!("not whole after {PULLS_MAX} pulls")
    }

    fn check(&self) -> Result<()> {
        let state = self.sink.state.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(state.1.is_whole(self.held.size()) && state.0 == self.held.bytes, "not what was sent");
        Ok(())
    }
}

/// A line as bad as its seed says.
fn line(seed: u64) -> Line {
    let mut chance = StdRng::seed_from_u64(seed);
    Line {
        loss: chance.random_range(0.001..0.02),
        doubled: chance.random_range(0.0..0.03),
        delay: Duration::from_millis(chance.random_range(1..15)),
        jitter: Duration::from_millis(chance.random_range(0..5)),
        rate: chance.random_bool(0.5).then(|| chance.random_range(2_000_000..20_000_000)),
        queue: Duration::from_millis(chance.random_range(20..200)),
        ..Line::default()
    }
}

/// What happens while a blob is pulled over the line of a seed: the router forgets its mappings, the client's own
/// address changes, and for half a second nothing comes through.
async fn trouble(ends: &Ends, seed: u64) -> Result<()> {
    let size = ends.held.size();
    ends.sink.has(size / 8).await;
    ends.wire.rebind();
    ends.sink.has(size / 3).await;
    ends.client.move_to(ANY_PORT.into())?;
    ends.sink.has(size / 2).await;
    let line = line(seed);
    ends.wire.set(Line { loss: 1.0, ..line });
    tokio::time::sleep(Duration::from_millis(500)).await;
    ends.wire.set(line);
    ends.sink.has(size * 3 / 4).await;
    ends.wire.rebind();
    Ok(())
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_any_bad_line_with_changing_addresses_a_pull_ends_whole_and_nothing_comes_twice() -> Result<()> {
    let mut runs = JoinSet::new();
    for seed in [1, 2, 3, 4, 5, 6, 7, 8] {
        runs.spawn(async move {
            let ends =
                Ends::new(1_200_000 + 100_003 * usize::try_from(seed)?, line(seed), IDLE_TIME_MAX, seed)?;
            let (pulled, trouble) = tokio::join!(ends.pull(), trouble(&ends, seed));
            let (pulls, ()) = (pulled?, trouble?);
            ends.check()?;
            ensure!(ends.wire.lost() > 0, "nothing was lost");
            // The connection outlives all of it: QUIC's connection ids are not addresses.
            ensure!(pulls == 1, "{pulls} connections");
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(run) = runs.join_next().await {
        run??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_over_a_line_that_broke_goes_on_over_the_next_connection_where_it_was() -> Result<()> {
    let line = Line { delay: Duration::from_millis(10), rate: Some(3_000_000), ..Line::default() };
    let ends = Ends::new(3_000_000, line, Duration::from_secs(3), 11)?;
    let broken = async {
        ends.sink.has(1_000_000).await;
        ends.wire.set(Line { loss: 1.0, ..line });
        let mut cut_off = ends.cut_off.subscribe();
        let _ = cut_off.wait_for(|pulls| *pulls > 0).await;
        ends.client.move_to(ANY_PORT.into())?;
        ends.wire.set(line);
        Ok::<_, anyhow::Error>(())
    };
    let (pulls, broken) = timeout(PULL_TIME_MAX, async { tokio::join!(ends.pull(), broken) }).await?;
    broken?;
    ensure!(pulls? > 1, "the connection was to be lost");
    ends.check()
}
