//! Pulling: fetching what is missing of a blob, verified as it comes (SPEC A6, A19, D3).
//!
//! [`Connection::pull`] asks for the missing ranges over a few streams side by side. Every 16 KiB is checked against the
//! blob's id before anything sees it; a [`VerifiedSink`] gets nothing else. Whatever ends a pull early, what had been
//! verified until then is in the sink: the next pull asks for the rest, from this peer or another.
//!
//! Memory is flat: a piece or two for each stream, and QUIC's window ([`crate::limits::PULL_MEMORY_MAX`]).
//!
//! ```no_run
//! # use std::{io, sync::Arc};
//! # use lighter_protocol::{blob::RangeSet, wire::{Offer, OfferedBlob}};
//! use lighter_transport::{Connection, pull::{Piece, Pull, VerifiedSink}};
//!
//! struct Store; // a file, its outboard, and the set of ranges that it has
//!
//! impl VerifiedSink for Store {
//!     async fn write(&self, piece: Piece) -> io::Result<()> {
//!         // … the parents to the outboard, the bytes to the file, the range to the set
//!         Ok(())
//!     }
//! }
//!
//! # async fn example(connection: Connection, offer: Offer, offered: OfferedBlob, had: RangeSet) -> Result<(), Box<dyn std::error::Error>> {
//! let pull = Pull::of(offer.delivery, offered.id, offered.size).missing(had.missing(offered.size));
//! let pulled = connection.pull(&pull, &Arc::new(Store)).await?;
//! # Ok(()) }
//! ```

pub(crate) mod input;
pub(crate) mod receiving;
pub mod verifier;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bao_tree::TreeNode;
use bytes::Bytes;
use lighter_protocol::blob::{self, RangeSet};
use lighter_protocol::limits::GET_RANGES_MAX;
use lighter_protocol::wire::{Get, GetShared, Request, Response, WireError};
use lighter_protocol::{Attestation, BlobId, DeliveryId, Sharing, Signed};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::connection::{Connection, PullWindow};
use crate::error::{ExchangeError, GiveUp, Misbehaviour, PeerError};
use crate::limiter::Turns;
use crate::limits::{PULL_STREAM_LEN_MIN, PULL_STREAMS_MAX};
use crate::message;
use input::Input;
use receiving::Receiving;
use verifier::Verifier;

/// Takes verified pieces of one blob. Several streams call it at once.
pub trait VerifiedSink: Send + Sync + 'static {
    /// Takes a piece. The pull goes on with this stream when it returns, so that nothing piles up; an error ends it.
    fn write(&self, piece: Piece) -> impl Future<Output = io::Result<()>> + Send;
}

/// Verified bytes, and what proves them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where in the blob: at the start of a group.
    pub offset: u64,
    /// Whole groups, but for the blob's last one. At most [`crate::limits::PIECE_LEN`].
    pub bytes: Bytes,
    /// The nodes above these groups that had not come with an earlier piece of the same stream: what an outboard keeps.
    pub parents: Vec<Parent>,
}

/// A verified node of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Which one: [`bao_tree::BaoTree::pre_order_offset`] says where an outboard keeps it.
    pub node: TreeNode,
    /// The hashes of its two halves.
    pub pair: (blake3::Hash, blake3::Hash),
}

/// A pull that is under way, from outside: how much has come, and a way to end it. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    received: Arc<AtomicU64>,
    control: Arc<Control>,
}

#[derive(Debug, Default)]
struct Control {
    stop: watch::Sender<bool>,
    /// Streams that wait for their turn now.
    waiting: AtomicUsize,
    /// One waited since somebody looked.
    waited: AtomicBool,
}

impl Gauge {
    /// Bytes of the verified streams that have come so far, proofs and all.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Ends the pull: what is verified goes to the sink, and [`Connection::pull`] gives
    /// [`GiveUp::Cancelled`].
    pub fn stop(&self) {
        self.control.stop.send_replace(true);
    }

    /// One that counts for itself, and is ended with this one.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self { received: Arc::default(), control: Arc::clone(&self.control) }
    }

    /// Whether a stream waited for its turn since the last time that this was asked, or does: that little came is not the
    /// peer's doing, then.
    pub fn has_waited(&self) -> bool {
        self.control.waited.swap(false, Ordering::Relaxed) || self.is_waiting()
    }

    /// Whether a stream waits for its turn: nothing is asked for on it.
    pub fn is_waiting(&self) -> bool {
        self.control.waiting.load(Ordering::Relaxed) > 0
    }

    /// Waits for a turn, and says so.
    async fn turn(&self, turns: &Turns, wanted: u64) -> u64 {
        self.control.waiting.fetch_add(1, Ordering::Relaxed);
        self.control.waited.store(true, Ordering::Relaxed);
        let _waits = Waits(&self.control.waiting);
        turns.take(wanted).await
    }

    /// Turns true when somebody wants the pull to end.
    pub(crate) fn to_stop(&self) -> watch::Receiver<bool> {
        self.control.stop.subscribe()
    }

    /// Waits until somebody wants the pull to end ([`Gauge::stop`]).
    pub async fn stopped(&self) {
        // The sender is this gauge's own.
        let _ = self.control.stop.subscribe().wait_for(|stop| *stop).await;
    }

    fn add(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What to pull.
#[derive(Clone, Debug)]
pub struct Pull {
    /// The delivery that gives the right to read.
    pub delivery: DeliveryId,
    /// Which blob of it.
    pub blob: BlobId,
    /// Its size, as offered.
    pub size: u64,
    /// What is missing of it.
    pub missing: RangeSet,
    /// For whom the delivery was not offered to (a user's further device): its attestation.
    pub attestation: Option<Signed<Attestation>>,
    /// For another recipient of the same message, whose delivery it is: the sender's word that it may be read.
    pub sharing: Option<Signed<Sharing>>,
    /// How many streams to use at most.
    pub streams: usize,
    /// For who looks on.
    pub gauge: Gauge,
    /// Where it takes turns with others; none: it goes as fast as it can.
    pub turns: Option<Turns>,
}

impl Pull {
    /// The whole blob.
    pub fn of(delivery: DeliveryId, blob: BlobId, size: u64) -> Self {
        let missing = RangeSet::whole(size);
        let gauge = Gauge::default();
        Self {
            delivery,
            blob,
            size,
            missing,
            attestation: None,
            sharing: None,
            streams: PULL_STREAMS_MAX,
            gauge,
            turns: None,
        }
    }

    /// Only what is missing of it ([`RangeSet::missing`]).
    #[must_use]
    pub fn missing(self, missing: RangeSet) -> Self {
        Self { missing, ..self }
    }
}

/// What a pull has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulled {
    /// Bytes of the blob that were verified and given to the sink.
    pub verified: u64,
    /// Bytes of the verified streams, proofs and all.
    pub received: u64,
}

/// Why a pull ended early. What had been verified until then is in the sink.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The peer does not give it: not allowed, not known, not there. It does not say which.
    #[error("the peer does not give it")]
    Refused,
    /// The peer asks to come back after so long.
    #[error("the peer asks to try again in {0:?}")]
    Later(Duration),
    /// The request breaks a bound; nothing was sent.
    #[error("not asked: {0}")]
    Invalid(#[source] WireError),
    /// It failed at the other side.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The sink failed.
    #[error("cannot keep what was pulled")]
    Sink(#[source] io::Error),
}

impl PullError {
    /// What the other side is told of it.
    pub(crate) fn told(&self) -> GiveUp {
        match self {
            Self::Peer(PeerError::Misbehaved(Misbehaviour::TooSlow) | PeerError::TimedOut) => GiveUp::TooSlow,
            Self::Peer(PeerError::GaveUp(GiveUp::Cancelled)) => GiveUp::Cancelled,
            Self::Peer(_) => GiveUp::Unverified,
            _ => GiveUp::Cancelled,
        }
    }
}

impl From<ExchangeError> for PullError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Invalid(error) => Self::Invalid(error),
            ExchangeError::Peer(error) => Self::Peer(error),
        }
    }
}

impl Connection {
    /// Pulls what is missing, and gives it to `sink` in verified pieces.
    ///
    /// It does not say that the sink has made anything durable. Dropped before its end, it stops; pieces that were being
    /// written then may or may not have been.
    ///
    /// # Errors
    /// [`PullError`], by the party at fault.
    pub async fn pull<S: VerifiedSink>(&self, pull: &Pull, sink: &Arc<S>) -> Result<Pulled, PullError> {
        if pull.missing.is_empty() {
            return if pull.size == 0 && pull.blob != blob::empty_id() {
                Err(PeerError::from(Misbehaviour::WrongBytes { offset: 0 }).into())
            } else {
                Ok(Pulled::default())
            };
        }
        let _window = PullWindow::open(self);
        let (stop, stopped) = watch::channel(false);
        let mut streams = JoinSet::new();
        for share in pull.missing.split(stream_count(pull)) {
            let stream = Stream {
                connection: self.clone(),
                pull: Pull { missing: share, ..pull.clone() },
                sink: Arc::clone(sink),
                stopped: stopped.clone(),
                pulled: Pulled::default(),
            };
            streams.spawn(stream.run());
        }
        let mut sum = Pulled::default();
        let mut failed = None;
        loop {
            let ended = tokio::select! {
                ended = streams.join_next() => ended,
                () = pull.gauge.stopped(), if !*stop.borrow() => {
                    stop.send_replace(true);
                    continue;
                }
            };
            let Some(ended) = ended else { break };
            // A stream's task is never aborted while this waits for it, and does not panic.
            let Ok((pulled, result)) = ended else { continue };
            sum.verified += pulled.verified;
            sum.received += pulled.received;
            if let Err(error) = result {
                // The others give what they have verified to the sink, and stop.
                stop.send_replace(true);
                failed = failed.or(Some(error));
            }
        }
        match failed {
            None if sum.verified < pull.missing.len() => Err(PeerError::Gone.into()), // the runtime is shutting down
            None => Ok(sum),
            Some(error) => Err(error),
        }
    }
}

fn stream_count(pull: &Pull) -> usize {
    let worth = usize::try_from(pull.missing.len() / PULL_STREAM_LEN_MIN).unwrap_or(usize::MAX);
    worth.clamp(1, pull.streams.clamp(1, PULL_STREAMS_MAX))
}

/// One stream's share of a pull.
struct Stream<S> {
    connection: Connection,
    /// `missing` is this stream's share.
    pull: Pull,
    sink: Arc<S>,
    stopped: watch::Receiver<bool>,
    pulled: Pulled,
}

impl<S: VerifiedSink> Stream<S> {
    async fn run(mut self) -> (Pulled, Result<(), PullError>) {
        let mut missing = self.pull.missing.clone();
        while !missing.is_empty() {
            let allowed = match self.turn(missing.len()).await {
                Ok(allowed) => allowed,
                Err(error) => return (self.pulled, Err(error)),
            };
            let ranges = missing.take(allowed, GET_RANGES_MAX);
            missing.subtract(&ranges);
            if let Err(error) = self.get(ranges.to_wire()).await {
                return (self.pulled, Err(error));
            }
        }
        (self.pulled, Ok(()))
    }

    /// How much may be asked for now, as soon as anything may.
    async fn turn(&mut self, wanted: u64) -> Result<u64, PullError> {
        let Some(turns) = &self.pull.turns else { return Ok(wanted) };
        tokio::select! {
            biased;
            _ = self.stopped.wait_for(|stop| *stop) => Err(PeerError::GaveUp(GiveUp::Cancelled).into()),
            allowed = self.pull.gauge.turn(turns, wanted) => Ok(allowed),
        }
    }

    /// One request and the verified stream that answers it.
    async fn get(&mut self, ranges: Vec<(u64, u64)>) -> Result<(), PullError> {
        let patience = self.connection.patience();
        let get = Get {
            delivery: self.pull.delivery,
            blob: self.pull.blob,
            ranges,
            attestation: self.pull.attestation.clone(),
        };
        let asked = get.ranges.iter().map(|(start, end)| end - start).sum();
        let mut verifier = Verifier::new(get.blob, self.pull.size, &get.ranges);
        let request = match self.pull.sharing.clone() {
            Some(sharing) => Request::GetShared(GetShared { get, sharing }),
            None => Request::Get(get),
        };
        let asking = tokio::select! {
            biased;
            asking = timeout(patience.response, ask(self.connection.quic(), request)) => asking,
            _ = self.stopped.wait_for(|stop| *stop) => {
                return Err(PeerError::GaveUp(GiveUp::Cancelled).into());
            }
        };
        let (recv, response, rest) = asking.map_err(|_| PeerError::TimedOut)??;
        match response {
            Response::Data { size } if size == self.pull.size => {}
            Response::Data { size } => {
                let kind = Misbehaviour::Size { expected: self.pull.size, claimed: size };
                return Err(PeerError::from(kind).into());
            }
            Response::Refused => return Err(PullError::Refused),
            Response::Later(seconds) => return Err(PullError::Later(Duration::from_secs(seconds.into()))),
            _ => return Err(PeerError::from(Misbehaviour::Answer).into()),
        }

        let gauge = self.pull.gauge.clone();
        let mut input = Input::new(self.connection.quic().clone(), recv, rest, patience.pace, gauge);
        let mut receiving = Receiving::new(Arc::clone(&self.sink), self.stopped.clone(), asked);
        let received = receiving.receive(&mut input, &mut verifier, true).await;
        self.pulled.verified += receiving.verified();
        self.pulled.received += input.received();
        if let Err(error) = &received {
            input.stop(error.told());
        }
        received
    }
}

/// Asks for ranges: the stream, the answer, and what of the verified stream came with it.
pub(crate) async fn ask(
    quic: &quinn::Connection,
    request: Request,
) -> Result<(quinn::RecvStream, Response, Bytes), ExchangeError> {
    let (mut send, mut recv) = quic.open_bi().await.map_err(PeerError::from)?;
    message::write_last(&mut send, &request).await?;
    let (response, rest) = message::read_first(&mut recv).await?;
    Ok((recv, response, rest))
}

#[cfg(test)]
pub(crate) mod tests;
