//! A verified stream on its way from the connection to the sink: checked group by group, gathered into pieces.

use std::future::Future;
use std::sync::Arc;

use bytes::BytesMut;
use lighter_protocol::blob::PAIR_LEN;
use tokio::sync::watch;

use super::input::Input;
use super::verifier::{self, Next, Verifier};
use super::{Parent, Piece, PullError, VerifiedSink};
use crate::error::{GiveUp, Misbehaviour, PeerError};
use crate::limits::PIECE_LEN;

/// Takes one verified stream.
pub(crate) struct Receiving<S> {
    sink: Arc<S>,
    /// Turns true when it is not wanted any more.
    stopped: watch::Receiver<bool>,
    gathering: Gathering,
    verified: u64,
}

impl<S: VerifiedSink> Receiving<S> {
    /// For `len` bytes in all.
    pub(crate) fn new(sink: Arc<S>, stopped: watch::Receiver<bool>, len: u64) -> Self {
        Self { sink, stopped, gathering: Gathering::new(len), verified: 0 }
    }

    /// Bytes that were verified and given to the sink.
    pub(crate) fn verified(&self) -> u64 {
        self.verified
    }

    /// Takes what `verifier` expects off `input`. Whatever happens, what was verified is given to the sink. `is_last`:
    /// nothing may follow.
    pub(crate) async fn receive(
        &mut self,
        input: &mut Input,
        verifier: &mut Verifier,
        is_last: bool,
    ) -> Result<(), PullError> {
        let mut received = self.read(input, verifier).await;
        if received.is_ok() && is_last {
            received = self.unless_stopped(input.expect_end()).await;
        }
        if !matches!(received, Err(PullError::Sink(_))) {
            let flushed = self.flush().await;
            received = received.and(flushed);
        }
        received
    }

    async fn read(&mut self, input: &mut Input, verifier: &mut Verifier) -> Result<(), PullError> {
        while let Some(next) = verifier.poll_next() {
            match next {
                Next::Pair(node) => {
                    let mut pair = [0; PAIR_LEN];
                    self.unless_stopped(input.read_exact(&mut pair)).await?;
                    if !verifier.take_pair(&pair) {
                        let offset = node.mid().to_bytes();
                        return Err(PeerError::from(Misbehaviour::WrongBytes { offset }).into());
                    }
                    let (left, right) = verifier::halves(&pair);
                    self.gathering.parents.push(Parent { node, pair: (left.into(), right.into()) });
                }
                Next::Group { offset, len } => {
                    if !self.gathering.fits(offset) {
                        self.flush().await?;
                    }
                    let room = self.gathering.room(offset);
                    unless(&mut self.stopped, input.read_to(room, len)).await?;
                    if !verifier.take_group(self.gathering.unverified()) {
                        return Err(PeerError::from(Misbehaviour::WrongBytes { offset }).into());
                    }
                    self.gathering.keep(len);
                    if self.gathering.is_full() {
                        self.flush().await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn unless_stopped(
        &mut self,
        reading: impl Future<Output = Result<(), PeerError>>,
    ) -> Result<(), PullError> {
        unless(&mut self.stopped, reading).await
    }

    async fn flush(&mut self) -> Result<(), PullError> {
        if let Some(piece) = self.gathering.take() {
            let len = piece.bytes.len() as u64;
            self.sink.write(piece).await.map_err(PullError::Sink)?;
            self.verified += len;
        }
        Ok(())
    }
}

/// Waits for the peer, unless another stream of this pull has failed, or it was ended.
pub(crate) async fn unless<T>(
    stopped: &mut watch::Receiver<bool>,
    reading: impl Future<Output = Result<T, PeerError>>,
) -> Result<T, PullError> {
    tokio::select! {
        biased;
        read = reading => Ok(read?),
        // An error would say that the pull is dropped: it takes this task along.
        _ = stopped.wait_for(|stop| *stop) => Err(PeerError::GaveUp(GiveUp::Cancelled).into()),
    }
}

/// Verified groups on their way to the sink, one behind the other.
struct Gathering {
    offset: u64,
    /// Verified up to `verified`; behind that, the group that is being read.
    bytes: BytesMut,
    verified: usize,
    parents: Vec<Parent>,
    piece_len: usize,
}

impl Gathering {
    /// For `len` bytes in all.
    fn new(len: u64) -> Self {
        let piece_len = usize::try_from(len).unwrap_or(PIECE_LEN).min(PIECE_LEN);
        Self { offset: 0, bytes: BytesMut::new(), verified: 0, parents: Vec::new(), piece_len }
    }

    /// Whether the group at `offset` follows on what is here.
    fn fits(&self, offset: u64) -> bool {
        self.verified == 0 || self.offset + self.verified as u64 == offset
    }

    /// Where the group at `offset`, which fits, is to be put behind.
    fn room(&mut self, offset: u64) -> &mut BytesMut {
        if self.verified == 0 {
            self.offset = offset;
            self.bytes.clear();
            self.bytes.reserve(self.piece_len);
        }
        &mut self.bytes
    }

    /// The group that was put there.
    fn unverified(&self) -> &[u8] {
        &self.bytes[self.verified..]
    }

    /// It is verified.
    fn keep(&mut self, len: usize) {
        self.verified += len;
    }

    /// Whether it is a whole piece: at the edges of portions, so that pieces are the same whoever asked for what.
    fn is_full(&self) -> bool {
        (self.offset + self.verified as u64).is_multiple_of(PIECE_LEN as u64)
    }

    fn take(&mut self) -> Option<Piece> {
        if self.verified == 0 {
            return None;
        }
        let bytes = self.bytes.split_to(self.verified).freeze();
        self.verified = 0;
        Some(Piece { offset: self.offset, bytes, parents: std::mem::take(&mut self.parents) })
    }
}
