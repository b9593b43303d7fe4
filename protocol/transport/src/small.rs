//! Many small blobs by one request (SPEC A6, A19).
//!
//! A blob of one group is its own proof: what hashes to its id is it. So [`Request::GetBlobs`] is answered with the bytes of
//! one behind the other, and nothing in between. A request, a stream and a task for each of them would cost more than their
//! bytes do.
//!
//! A peer of before that message existed takes it for malformed, and is not asked again on its connection. So as not to be
//! taken for one that sends nothing else, nobody asks a second time before the first answer is there.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lighter_protocol::blob;
use lighter_protocol::wire::{GetBlobs, Request, Response};
use lighter_protocol::{Attestation, BlobId, DeliveryId, Signed};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

use crate::connection::{Connection, PullWindow, Responder};
use crate::error::{ExchangeError, GiveUp, Misbehaviour, PeerError};
use crate::limiter::Turns;
use crate::limits::SMALL_BATCH_LEN;
use crate::pull::input::Input;
use crate::pull::receiving::unless;
use crate::pull::{Gauge, PullError, ask};
use crate::serve::{Output, ServeError, begin, told};

/// What to pull: small blobs of one delivery.
#[derive(Clone, Debug)]
pub struct SmallPull {
    /// The delivery that gives the right to read.
    pub delivery: DeliveryId,
    /// Which of its blobs, at most [`lighter_protocol::limits::GET_BLOBS_MAX`].
    pub blobs: Vec<SmallBlob>,
    /// For whom the delivery was not offered to: its attestation.
    pub attestation: Option<Signed<Attestation>>,
    /// Where it takes turns with others; none: it goes as fast as it can.
    pub turns: Option<Turns>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct SmallBlob {
    /// Its id.
    pub blob: BlobId,
    /// Bytes in it, as offered: small ([`blob::is_small`]).
    pub size: u64,
    /// For who looks on. All of one pull are ended together ([`Gauge::beside`]).
    pub gauge: Gauge,
}

impl SmallPull {
    /// Bytes of all of them.
    fn len(&self) -> u64 {
        self.blobs.iter().map(|small| small.size).sum()
    }
}

/// Takes blobs, verified and whole, in the order in which they were asked for.
pub trait SmallSink: Send + Sync {
    /// Takes the next ones. The pull goes on when it returns, so that nothing piles up; an error ends it.
    fn keep(&self, blobs: Vec<(BlobId, Bytes)>) -> impl Future<Output = io::Result<()>> + Send;
}

/// Whether the other side of a connection knows the message.
#[derive(Debug, Default)]
pub(crate) struct Known {
    state: AtomicU8,
    /// Held by the first that asks.
    asking: Mutex<()>,
}

const KNOWN: u8 = 1;
const NOT_KNOWN: u8 = 2;

impl Known {
    /// Waits until it is known, or this one is to find out.
    async fn ask(&self) -> Result<Option<MutexGuard<'_, ()>>, PeerError> {
        if self.is_known()? {
            return Ok(None);
        }
        let first = self.asking.lock().await;
        Ok(if self.is_known()? { None } else { Some(first) })
    }

    fn is_known(&self) -> Result<bool, PeerError> {
        match self.state.load(Ordering::Acquire) {
            KNOWN => Ok(true),
            NOT_KNOWN => Err(PeerError::GaveUp(GiveUp::Malformed)),
            _ => Ok(false),
        }
    }

    fn learn<T>(&self, answered: &Result<T, ExchangeError>) {
        match answered {
            Ok(_) => self.state.store(KNOWN, Ordering::Release),
            Err(ExchangeError::Peer(PeerError::GaveUp(GiveUp::Malformed))) => {
                self.state.store(NOT_KNOWN, Ordering::Release);
            }
            Err(_) => {}
        }
    }
}

impl Connection {
    /// Pulls small blobs, and gives each to `sink` when it is whole and verified. Gives how many it was given, and what ended it
    /// before the last: that is the next one's matter, and those behind it were not looked at.
    ///
    /// Dropped before its end, it stops; blobs that were being kept then may or may not have been.
    ///
    /// # Errors
    /// [`PullError`], by the party at fault. [`PullError::Refused`] is about all of them, and [`GiveUp::Malformed`] about the
    /// message, which the peer does not know: asked for one by one ([`Connection::pull`]), it may give some.
    pub async fn pull_small<S: SmallSink>(
        &self,
        pull: &SmallPull,
        sink: &S,
    ) -> (usize, Result<(), PullError>) {
        let mut kept = 0;
        let pulled = self.get_blobs(pull, sink, &mut kept).await;
        (kept, pulled)
    }

    async fn get_blobs<S: SmallSink>(
        &self,
        pull: &SmallPull,
        sink: &S,
        kept: &mut usize,
    ) -> Result<(), PullError> {
        let Some(first) = pull.blobs.first() else { return Ok(()) };
        let mut stopped = first.gauge.to_stop();
        let patience = self.patience();
        if let Some(turns) = &pull.turns {
            let (mut counted, len) = (0, pull.len());
            while counted < len {
                let turn = async { Ok(turns.take(len - counted).await) };
                counted += unless(&mut stopped, turn).await?;
            }
        }
        let request = GetBlobs {
            delivery: pull.delivery,
            blobs: pull.blobs.iter().map(|small| small.blob).collect(),
            attestation: pull.attestation.clone(),
        };
        let _window = PullWindow::open(self);
        let asking = async {
            let finding_out = self.small().ask().await?;
            let answered = ask(self.quic(), Request::GetBlobs(request)).await;
            self.small().learn(&answered);
            drop(finding_out);
            Ok(answered)
        };
        let limited = async { timeout(patience.response, asking).await.map_err(|_| PeerError::TimedOut)? };
        let (recv, response, rest) = unless(&mut stopped, limited).await??;
        match response {
            Response::Data { size } if size == pull.len() => {}
            Response::Data { size } => {
                let kind = Misbehaviour::Size { expected: pull.len(), claimed: size };
                return Err(PeerError::from(kind).into());
            }
            Response::Refused => return Err(PullError::Refused),
            Response::Later(seconds) => return Err(PullError::Later(Duration::from_secs(seconds.into()))),
            _ => return Err(PeerError::from(Misbehaviour::Answer).into()),
        }
        let mut input = Input::new(self.quic().clone(), recv, rest, patience.pace, first.gauge.clone());
        let mut gathered = Gathered { sink, kept, blobs: Vec::new(), bytes: BytesMut::new() };
        let mut received = gathered.receive(&pull.blobs, &mut input, &mut stopped).await;
        if !matches!(received, Err(PullError::Sink(_))) {
            // Whatever happens, what was verified is kept.
            let flushed = gathered.flush().await;
            received = received.and(flushed);
        }
        if let Err(error) = &received {
            input.stop(error.told());
        }
        received
    }
}

/// Blobs on their way to the sink.
struct Gathered<'a, S> {
    sink: &'a S,
    kept: &'a mut usize,
    blobs: Vec<(BlobId, Bytes)>,
    /// Room for the next ones.
    bytes: BytesMut,
}

impl<S: SmallSink> Gathered<'_, S> {
    async fn receive(
        &mut self,
        blobs: &[SmallBlob],
        input: &mut Input,
        stopped: &mut tokio::sync::watch::Receiver<bool>,
    ) -> Result<(), PullError> {
        let mut gathered = 0;
        for SmallBlob { blob, size, gauge } in blobs {
            input.follow(gauge.clone());
            // No message with a larger one was sent.
            let len = usize::try_from(*size).unwrap_or(usize::MAX);
            if self.bytes.capacity() < len {
                self.bytes.reserve(SMALL_BATCH_LEN);
            }
            unless(stopped, input.read_to(&mut self.bytes, len)).await?;
            if blake3::hash(&self.bytes) != blob.hash() {
                return Err(PeerError::from(Misbehaviour::WrongBytes { offset: 0 }).into());
            }
            self.blobs.push((*blob, self.bytes.split().freeze()));
            gathered += len;
            if gathered >= SMALL_BATCH_LEN {
                gathered = 0;
                self.flush().await?;
            }
        }
        unless(stopped, input.expect_end()).await
    }

    async fn flush(&mut self) -> Result<(), PullError> {
        let blobs = std::mem::take(&mut self.blobs);
        let count = blobs.len();
        if count > 0 {
            self.sink.keep(blobs).await.map_err(PullError::Sink)?;
            *self.kept += count;
        }
        Ok(())
    }
}

impl Responder {
    /// Answers a [`GetBlobs`] with these blobs, in its order. Each is looked at once more before it goes: damage on this side's
    /// disk is this side's. Gives the bytes that were sent.
    ///
    /// # Errors
    /// [`ServeError`], by the party at fault; [`ServeError::Held`] where nothing of it goes now. What is in front of a damaged
    /// one has been sent.
    pub async fn serve_small(
        self,
        blobs: &[(BlobId, Bytes)],
        turns: Option<&Turns>,
    ) -> Result<u64, ServeError> {
        let (connection, mut stream) = self.into_parts();
        let patience = connection.patience();
        let size = blobs.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        begin(&mut stream, size, patience.response).await?;
        let mut output = Output::new(&mut stream.send, patience.pace, turns);
        let mut sent = Ok(());
        for (blob, bytes) in blobs {
            let is_it = blob::is_small(bytes.len() as u64) && blake3::hash(bytes) == blob.hash();
            sent =
                if is_it { output.add(bytes.clone()).await } else { Err(ServeError::Damaged { offset: 0 }) };
            if sent.is_err() {
                break;
            }
        }
        let flushed = if matches!(sent, Ok(()) | Err(ServeError::Damaged { .. })) {
            output.end().await
        } else {
            Ok(())
        };
        let bytes = output.sent();
        match sent.and(flushed) {
            Ok(()) => {
                stream.send.finish().map_err(|_| PeerError::Gone)?;
                stream.ended = true;
                Ok(bytes)
            }
            Err(error) => {
                stream.give_up(told(&error));
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests;
