//! Serving: the verified stream that answers a `Get` (SPEC A6, A19).
//!
//! The bytes and their outboard come through `bao-tree`'s traits: an agent's from two files ([`FileSlices`]), a relay's
//! from portions ([`lighter_protocol::blob::PortionBlob`]). Each group is checked on its way out, so that damage on this
//! side's disk is found here and not put down to this side's honesty.
//!
//! Who may read what is decided before ([`crate::connection::Responder`] is the program's); here is only the sending.
//!
//! ```no_run
//! # use lighter_protocol::{BlobId, wire::Get};
//! # use lighter_transport::{Responder, serve::FileSlices};
//! # async fn example(responder: Responder, get: Get, size: u64) -> Result<(), Box<dyn std::error::Error>> {
//! use bao_tree::io::outboard::PreOrderOutboard;
//!
//! let data = FileSlices::of_blob(std::fs::File::open("blob")?, size);
//! let outboard = PreOrderOutboard {
//!     root: get.blob.hash(),
//!     tree: lighter_protocol::blob::tree(size),
//!     data: FileSlices::of_outboard(std::fs::File::open("blob.outboard")?, size),
//! };
//! let sent = responder.serve(&get, size, data, outboard).await?;
//! # Ok(()) }
//! ```

mod file;

use std::io;
use std::ops::Range;
use std::time::Duration;

use bao_tree::io::EncodeError;
use bao_tree::io::fsm::{AsyncSliceReader, Outboard, encode_ranges_validated};
use bytes::{Bytes, BytesMut};
use iroh_io::AsyncStreamWriter;
use lighter_protocol::blob::chunk_ranges;
use lighter_protocol::wire::{Get, Response};
use quinn::SendStream;
use tokio::time::{Instant, timeout};

pub use file::FileSlices;

use crate::connection::{AnswerStream, Responder};
use crate::error::{ExchangeError, GiveUp, Misbehaviour, PeerError};
use crate::limiter::Turns;
use crate::limits::SEND_BATCH_LEN;
use crate::message;
use crate::progress::{Pace, Progress};

/// Why a `Get` was not served to its end. The other side was told.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It failed at the other side.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The source cannot be read.
    #[error("cannot read what was to be sent")]
    Read(#[source] io::Error),
    /// The source is not the blob: what is at `offset`, or in a node above it, does not hash to what it should.
    #[error("what was to be sent is damaged, at {offset}")]
    Damaged {
        /// Where in the blob.
        offset: u64,
    },
    /// Nothing of it goes now.
    #[error("held up by this side's own limits")]
    Held,
}

impl Responder {
    /// Answers `get` with the ranges that it asks for of a blob of `size` bytes. Gives the bytes of the stream.
    ///
    /// That they were sent does not say that they arrived: only a receipt does.
    ///
    /// # Errors
    /// [`ServeError`], by the party at fault.
    pub async fn serve<D, O>(self, get: &Get, size: u64, data: D, outboard: O) -> Result<u64, ServeError>
    where
        D: AsyncSliceReader,
        O: Outboard,
    {
        self.serve_in_turns(get, size, data, outboard, None).await
    }

    /// As [`Responder::serve`], taking turns with others. Where nothing of it goes any more, it is given up, as
    /// [`GiveUp::Cancelled`]: the other side has what was sent, and asks again.
    ///
    /// # Errors
    /// As [`Responder::serve`]; [`ServeError::Held`] where nothing of it goes now.
    pub async fn serve_in_turns<D, O>(
        self,
        get: &Get,
        size: u64,
        data: D,
        outboard: O,
        turns: Option<&Turns>,
    ) -> Result<u64, ServeError>
    where
        D: AsyncSliceReader,
        O: Outboard,
    {
        let (connection, mut stream) = self.into_parts();
        let patience = connection.patience();
        begin(&mut stream, size, patience.response).await?;
        match encode(&mut stream.send, patience.pace, &get.ranges, size, (data, outboard), turns).await {
            Ok(sent) => {
                stream.send.finish().map_err(|_| PeerError::Gone)?;
                stream.ended = true;
                Ok(sent)
            }
            Err(error) => {
                stream.give_up(told(&error));
                Err(error)
            }
        }
    }
}

/// Says that `size` bytes are there.
pub(crate) async fn begin(stream: &mut AnswerStream, size: u64, limit: Duration) -> Result<(), ServeError> {
    let beginning = Response::Data { size };
    match timeout(limit, message::write(&mut stream.send, &beginning)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(ExchangeError::Peer(error))) => Err(error.into()),
        Ok(Err(ExchangeError::Invalid(error))) => {
            Err(ServeError::Read(io::Error::new(io::ErrorKind::InvalidInput, error)))
        }
        Err(_) => Err(PeerError::TimedOut.into()),
    }
}

/// Writes the verified stream of these ranges; gives its bytes.
pub(crate) async fn encode<D: AsyncSliceReader, O: Outboard>(
    stream: &mut SendStream,
    pace: Pace,
    ranges: &[(u64, u64)],
    size: u64,
    (data, outboard): (D, O),
    turns: Option<&Turns>,
) -> Result<u64, ServeError> {
    let mut output = Output::new(stream, pace, turns);
    let ranges = chunk_ranges(ranges, size);
    let mut encoded = encode_ranges_validated(data, outboard, &ranges, &mut output).await;
    if encoded.is_ok() {
        encoded = output.flush().await.map_err(EncodeError::Io);
    }
    match (output.failed.take(), encoded) {
        (Some(error), _) => Err(error),
        (None, Ok(())) => Ok(output.sent),
        (None, Err(error)) => Err(serve_error(error)),
    }
}

/// What the other side is told where the stream ends early.
pub(crate) fn told(error: &ServeError) -> GiveUp {
    match error {
        ServeError::Held => GiveUp::Cancelled,
        ServeError::Peer(_) => GiveUp::TooSlow,
        ServeError::Read(_) | ServeError::Damaged { .. } => GiveUp::Damaged,
    }
}

fn serve_error(error: EncodeError) -> ServeError {
    match error {
        EncodeError::ParentHashMismatch(node) | EncodeError::ParentWrite(node) => {
            ServeError::Damaged { offset: node.mid().to_bytes() }
        }
        EncodeError::LeafHashMismatch(chunk) | EncodeError::LeafWrite(chunk) => {
            ServeError::Damaged { offset: chunk.to_bytes() }
        }
        EncodeError::SizeMismatch => ServeError::Damaged { offset: 0 },
        EncodeError::Io(error) => ServeError::Read(error),
    }
}

/// The stream as `bao-tree` writes to it: small pieces are gathered, large ones passed on without copying.
pub(crate) struct Output<'a> {
    stream: &'a mut SendStream,
    /// To be sent, in order; then `pairs`.
    batch: Vec<Bytes>,
    batch_len: usize,
    pairs: BytesMut,
    progress: Progress,
    sent: u64,
    /// What went wrong, where an `io::Error` cannot say it.
    failed: Option<ServeError>,
    turns: Option<&'a Turns>,
}

impl<'a> Output<'a> {
    pub(crate) fn new(stream: &'a mut SendStream, pace: Pace, turns: Option<&'a Turns>) -> Self {
        let progress = Progress::new(pace);
        Self {
            stream,
            batch: Vec::new(),
            batch_len: 0,
            pairs: BytesMut::new(),
            progress,
            sent: 0,
            failed: None,
            turns,
        }
    }

    /// Bytes that were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Takes the next bytes, and sends what is here once it is enough.
    pub(crate) async fn add(&mut self, bytes: Bytes) -> Result<(), ServeError> {
        self.batch_len += bytes.len();
        self.batch.push(bytes);
        if self.batch_len >= SEND_BATCH_LEN { self.end().await } else { Ok(()) }
    }

    /// Sends what is here.
    pub(crate) async fn end(&mut self) -> Result<(), ServeError> {
        let sent = self.send().await;
        self.batch.clear();
        self.batch_len = 0;
        sent
    }

    fn end_pairs(&mut self) {
        if !self.pairs.is_empty() {
            self.batch.push(self.pairs.split().freeze());
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.end_pairs();
        self.end().await.map_err(|error| {
            self.failed = Some(error);
            io::ErrorKind::BrokenPipe.into()
        })
    }

    async fn send(&mut self) -> Result<(), ServeError> {
        let mut from = 0;
        while from < self.batch.len() {
            let rest = self.batch[from..].iter().map(|piece| piece.len() as u64).sum();
            let allowed = self.turn(rest).await?;
            let to = cut(&mut self.batch, from, allowed);
            while from < to {
                from += self.write(from..to).await?;
            }
        }
        Ok(())
    }

    /// How much of what is to be sent may go now, as soon as anything may.
    async fn turn(&self, wanted: u64) -> Result<u64, ServeError> {
        let Some(turns) = self.turns else { return Ok(wanted) };
        tokio::select! {
            biased;
            () = turns.held() => Err(ServeError::Held),
            allowed = turns.take(wanted) => Ok(allowed),
        }
    }

    /// Writes some of these pieces; gives how many of them went as a whole.
    async fn write(&mut self, pieces: Range<usize>) -> Result<usize, PeerError> {
        let began = Instant::now();
        let writing =
            timeout(self.progress.patience(), self.stream.write_chunks(&mut self.batch[pieces])).await;
        let written = writing.map_err(|_| PeerError::TimedOut)??;
        self.sent += written.bytes as u64;
        if !self.progress.moved(written.bytes, began.elapsed()) {
            return Err(Misbehaviour::TooSlow.into());
        }
        Ok(written.chunks)
    }
}

/// Cuts the pieces behind `from` so that some of them are `len` bytes together; gives where these end.
fn cut(pieces: &mut Vec<Bytes>, from: usize, len: u64) -> usize {
    let mut left = usize::try_from(len).unwrap_or(usize::MAX);
    let mut to = from;
    while left > 0 && to < pieces.len() {
        if pieces[to].len() > left {
            let first = pieces[to].split_to(left);
            pieces.insert(to, first);
        }
        left -= pieces[to].len();
        to += 1;
    }
    to
}

impl AsyncStreamWriter for Output<'_> {
    async fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.pairs.extend_from_slice(data);
        self.batch_len += data.len();
        if self.batch_len >= SEND_BATCH_LEN { self.flush().await } else { Ok(()) }
    }

    async fn write_bytes(&mut self, data: Bytes) -> io::Result<()> {
        self.end_pairs();
        self.batch_len += data.len();
        self.batch.push(data);
        if self.batch_len >= SEND_BATCH_LEN { self.flush().await } else { Ok(()) }
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_where_a_turn_ends_and_nothing_is_lost() {
        let whole =
            || vec![Bytes::from_static(b"abc"), Bytes::from_static(b"defg"), Bytes::from_static(b"h")];
        for from in 0..=3 {
            for len in 1..=10_usize {
                let mut pieces = whole();
                let to = cut(&mut pieces, from, len as u64);
                let now: Vec<u8> = pieces[from..to].concat();
                let rest: Vec<u8> = whole()[from..].concat();
                assert_eq!(now, rest[..rest.len().min(len)], "{from} {len}");
                assert_eq!(pieces.concat(), b"abcdefgh");
            }
        }
    }
}
