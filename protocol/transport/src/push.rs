//! Pushing: a holder opens streams of its own with what the store told it to push (SPEC A6, A19).
//!
//! It is the verified stream of a pull, without the question in front of it: [`Connection::offer`] asks whether it may
//! push, [`Connection::push`] opens a stream with a [`Push`] message, and the streams of its parts follow. The other side
//! gets it as a request whose [`Responder`] turns into an [`IncomingPush`]; every 16 KiB is checked against the blob's id
//! before anything sees it, as in [`crate::pull`]. Whoever does not want it, or not now, answers anything else: what is on
//! its way is thrown away by QUIC, and costs a connection's window of memory at most.
//!
//! A store of before pushing existed takes [`Request::PushOffer`] for malformed: it is offered to as ever, then, and not
//! asked again on this connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bao_tree::io::fsm::{AsyncSliceReader, Outboard};
use bytes::Bytes;
use lighter_protocol::PeerId;
use lighter_protocol::pull::PushedStream;
use lighter_protocol::wire::{Offer, Push, Request, Response};
use quinn::RecvStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::connection::{AnswerStream, Connection, PullWindow, Responder};
use crate::error::{ExchangeError, GiveUp, PeerError};
use crate::limiter::Turns;
use crate::limits::{PUSH_SILENCE_MAX, PUSHED_TIME_MAX, PUSHES_PER_CONNECTION_MAX};
use crate::message;
use crate::progress::Pace;
use crate::pull::input::Input;
use crate::pull::receiving::Receiving;
use crate::pull::verifier::Verifier;
use crate::pull::{Gauge, PullError, Pulled, VerifiedSink};
use crate::serve::{self, ServeError};

/// What a connection knows of pushing.
pub(crate) struct Pushes {
    /// Those that this side has open.
    own: Arc<Semaphore>,
    /// Those that the other side has open, and that are taken.
    taken: Arc<Semaphore>,
    /// The other side does not know what pushing is.
    unknown: AtomicBool,
}

impl Default for Pushes {
    fn default() -> Self {
        let places = || Arc::new(Semaphore::new(PUSHES_PER_CONNECTION_MAX));
        Self { own: places(), taken: places(), unknown: AtomicBool::new(false) }
    }
}

/// What follows a `Push` on its stream.
#[derive(Debug)]
pub(crate) struct Pushed {
    pub(crate) recv: RecvStream,
    /// What of it came with the message.
    pub(crate) rest: Bytes,
}

/// Why a push came to nothing, or to a part: the store asks for what it lacks.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The store does not take it, or no more of it: it did not want this, has it by now, or asks by itself.
    #[error("the store does not take it")]
    NotTaken,
    /// It could not be sent.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// It could not be announced, or its end was not heard of.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
}

impl Connection {
    /// Offers; where `pushes`, so that the answer may be a [`Response::PushAnswer`].
    ///
    /// # Errors
    /// As [`Connection::request`].
    pub async fn offer(
        &self,
        offer: Offer,
        pushes: bool,
        limit: Duration,
    ) -> Result<Response, ExchangeError> {
        let until = Instant::now() + limit;
        let left = || until.saturating_duration_since(Instant::now());
        let knows = || !self.pushes().unknown.load(Ordering::Relaxed);
        if pushes && knows() {
            match self.request_within(&Request::PushOffer(offer.clone()), left()).await {
                Err(ExchangeError::Peer(PeerError::GaveUp(GiveUp::Malformed))) => {
                    self.pushes().unknown.store(true, Ordering::Relaxed);
                }
                answered => return answered,
            }
        }
        self.request_within(&Request::Offer(offer), left()).await
    }

    /// Opens a stream, and says what is pushed on it; [`PushStream::send`] is to follow for each of its parts. Waits while
    /// as many are open as may be.
    ///
    /// # Errors
    /// As [`Connection::request`].
    pub async fn push(&self, push: &Push) -> Result<PushStream, ExchangeError> {
        let place = Arc::clone(&self.pushes().own).acquire_owned().await;
        let place = place.map_err(|_| PeerError::Gone)?; // it is never closed
        let (send, recv) = self.quic().open_bi().await.map_err(PeerError::from)?;
        let mut stream = PushStream {
            connection: self.clone(),
            out: AnswerStream { send, ended: false },
            recv,
            _place: place,
        };
        let limit = self.patience().response;
        let announced =
            timeout(limit, message::write(&mut stream.out.send, &Request::Push(push.clone()))).await;
        announced.map_err(|_| PeerError::TimedOut)??;
        Ok(stream)
    }
}

/// A push under way, at the holder's side. Dropped before its end, it is cut off: the store keeps what was verified.
#[derive(Debug)]
pub struct PushStream {
    connection: Connection,
    out: AnswerStream,
    recv: RecvStream,
    _place: OwnedSemaphorePermit,
}

impl PushStream {
    /// Sends the next part: these ranges of a blob of `size` bytes. Gives the bytes of the stream. After an error nothing
    /// more can be sent.
    ///
    /// # Errors
    /// [`ServeError`], by the party at fault; [`ServeError::Held`] where nothing of it goes now.
    pub async fn send<D, O>(
        &mut self,
        ranges: &[(u64, u64)],
        size: u64,
        data: D,
        outboard: O,
        turns: Option<&Turns>,
    ) -> Result<u64, ServeError>
    where
        D: AsyncSliceReader,
        O: Outboard,
    {
        let pace = self.connection.patience().pace;
        let sent = serve::encode(&mut self.out.send, pace, ranges, size, (data, outboard), turns).await;
        if let Err(error) = &sent {
            // An error would say that the stream has ended already.
            let _ = self.out.send.reset(serve::told(error).code());
            self.out.ended = true;
        }
        sent
    }

    /// Ends it, and waits until the store says that all of it came.
    ///
    /// # Errors
    /// [`PushError::NotTaken`] where the store says anything else.
    pub async fn finish(mut self) -> Result<(), PushError> {
        self.out.send.finish().map_err(|_| ExchangeError::Peer(PeerError::Gone))?;
        self.out.ended = true;
        let one = Semaphore::const_new(1);
        let answer = timeout(PUSHED_TIME_MAX, message::read_last::<Response>(&mut self.recv, &one)).await;
        match answer {
            Ok(Ok(Response::Pushed)) => Ok(()),
            Ok(Ok(_) | Err(PeerError::GaveUp(_))) => Err(PushError::NotTaken),
            Ok(Err(error)) => Err(ExchangeError::Peer(error).into()),
            Err(_) => Err(ExchangeError::Peer(PeerError::TimedOut).into()),
        }
    }
}

/// A push that came, at the store's side, before or while it is taken. Dropped, it is stopped.
pub struct IncomingPush {
    connection: Connection,
    out: AnswerStream,
    input: Input,
    /// Once something of it is taken.
    window: Option<PullWindow>,
    _place: OwnedSemaphorePermit,
}

impl std::fmt::Debug for IncomingPush {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IncomingPush").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl Responder {
    /// Takes what follows a [`Request::Push`].
    ///
    /// # Errors
    /// Gives the responder back where the request was no push, or as many are taken on this connection as may be.
    pub fn into_push(mut self) -> Result<IncomingPush, Box<Self>> {
        let place = Arc::clone(&self.connection.pushes().taken).try_acquire_owned();
        let (Some(pushed), Ok(place)) = (self.pushed.take(), place) else { return Err(Box::new(self)) };
        let Self { connection, stream, .. } = self;
        let pace = connection.patience().pace;
        let pace = Pace { silence: pace.silence.min(PUSH_SILENCE_MAX), ..pace };
        let input = Input::new(connection.quic().clone(), pushed.recv, pushed.rest, pace, Gauge::default());
        Ok(IncomingPush { connection, out: stream, input, window: None, _place: place })
    }
}

impl IncomingPush {
    /// The connection that it came on.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Who pushes.
    pub fn peer(&self) -> PeerId {
        self.connection.peer()
    }

    /// Does not take it, and says so: nothing more of it is read.
    ///
    /// # Errors
    /// As [`Responder::respond`].
    pub async fn decline(self, response: &Response) -> Result<(), ExchangeError> {
        let Self { connection, out, .. } = self;
        Responder { connection, stream: out, pushed: None }.respond(response).await
    }

    /// Takes the next part, and gives it to `sink` in verified pieces. `is_last`: nothing may follow. `gauge` counts what
    /// comes, and can end it.
    ///
    /// # Errors
    /// [`PullError`], by the party at fault; what was verified until then is in the sink, and the push is stopped.
    pub async fn receive<S: VerifiedSink>(
        &mut self,
        part: &PushedStream,
        is_last: bool,
        sink: Arc<S>,
        gauge: &Gauge,
    ) -> Result<Pulled, PullError> {
        self.window.get_or_insert_with(|| PullWindow::open(&self.connection));
        let before = self.input.received();
        self.input.follow(gauge.clone());
        let mut verifier = Verifier::new(part.blob, part.size, &part.ranges.to_wire());
        let mut receiving = Receiving::new(sink, gauge.to_stop(), part.ranges.len());
        let received = receiving.receive(&mut self.input, &mut verifier, is_last).await;
        if let Err(error) = &received {
            self.input.stop(error.told());
        }
        let pulled = Pulled { verified: receiving.verified(), received: self.input.received() - before };
        received.map(|()| pulled)
    }

    /// All of it came: says so.
    ///
    /// # Errors
    /// As [`Responder::respond`].
    pub async fn done(self) -> Result<(), ExchangeError> {
        self.decline(&Response::Pushed).await
    }
}

#[cfg(test)]
mod tests;
