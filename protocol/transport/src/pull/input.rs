//! A verified stream's bytes as they come, exactly as many as are asked for, at a pace that is watched.

use bytes::{Buf, Bytes, BytesMut};
use quinn::RecvStream;
use tokio::time::{Instant, timeout};

use crate::connection::probe;
use crate::error::{GiveUp, Misbehaviour, PeerError};
use crate::limits::SILENCE_PROBE_TIME;
use crate::progress::{Pace, Progress};
use crate::pull::Gauge;

/// Pieces taken off the stream at once: quinn's lock is taken once for all of them.
const CHUNKS: usize = 32;

pub(crate) struct Input {
    quic: quinn::Connection,
    stream: RecvStream,
    /// Those from `next` on are still to be used.
    chunks: [Bytes; CHUNKS],
    next: usize,
    progress: Progress,
    received: u64,
    gauge: Gauge,
}

impl Input {
    /// The rest of `stream`, of which `first` was read already.
    pub(crate) fn new(
        quic: quinn::Connection,
        stream: RecvStream,
        first: Bytes,
        pace: Pace,
        gauge: Gauge,
    ) -> Self {
        let mut chunks = [const { Bytes::new() }; CHUNKS];
        let received = first.len() as u64;
        gauge.add(first.len());
        chunks[CHUNKS - 1] = first;
        Self { quic, stream, chunks, next: CHUNKS - 1, progress: Progress::new(pace), received, gauge }
    }

    /// From now on, what comes is counted here.
    pub(crate) fn follow(&mut self, gauge: Gauge) {
        self.gauge = gauge;
    }

    /// Bytes that came so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Fills `out`.
    pub(crate) async fn read_exact(&mut self, mut out: &mut [u8]) -> Result<(), PeerError> {
        while !out.is_empty() {
            let chunk = self.chunk().await?;
            let len = chunk.len().min(out.len());
            let (now, later) = out.split_at_mut(len);
            chunk.copy_to_slice(now);
            out = later;
        }
        Ok(())
    }

    /// Puts `len` bytes behind what is in `out`.
    pub(crate) async fn read_to(&mut self, out: &mut BytesMut, len: usize) -> Result<(), PeerError> {
        let end = out.len() + len;
        while out.len() < end {
            let chunk = self.chunk().await?;
            let now = chunk.split_to(chunk.len().min(end - out.len()));
            out.extend_from_slice(&now);
        }
        Ok(())
    }

    /// What comes next: never empty.
    async fn chunk(&mut self) -> Result<&mut Bytes, PeerError> {
        while self.chunks.get(self.next).is_none_or(Bytes::is_empty) {
            if self.next < CHUNKS {
                self.next += 1;
            } else if self.fill().await? == 0 {
                return Err(Misbehaviour::TooFew.into());
            }
        }
        Ok(&mut self.chunks[self.next])
    }

    /// The stream must be at its end.
    pub(crate) async fn expect_end(&mut self) -> Result<(), PeerError> {
        let left = self.chunks.iter().skip(self.next).any(|chunk| !chunk.is_empty());
        if left || self.fill().await? > 0 { Err(Misbehaviour::TooMany.into()) } else { Ok(()) }
    }

    /// Tells the other side that no more is wanted, and why.
    pub(crate) fn stop(&mut self, why: GiveUp) {
        // An error would say that the stream is at its end already.
        let _ = self.stream.stop(why.code());
    }

    /// Takes new chunks off the stream: how many bytes; 0 at the end.
    async fn fill(&mut self) -> Result<usize, PeerError> {
        let began = Instant::now();
        let count = loop {
            let left = self.progress.patience().saturating_sub(began.elapsed());
            let reading = self.stream.read_chunks(&mut self.chunks);
            match timeout(left.min(SILENCE_PROBE_TIME), reading).await {
                Ok(read) => break read?.unwrap_or(0),
                Err(_) if began.elapsed() >= self.progress.patience() => return Err(PeerError::TimedOut),
                Err(_) => probe(&self.quic),
            }
        };
        let (now, rest) = self.chunks.split_at_mut(count);
        let len = now.iter().map(Bytes::len).sum();
        // What was in the other places has been used.
        rest.fill(Bytes::new());
        self.next = 0;
        self.received += len as u64;
        self.gauge.add(len);
        if !self.progress.moved(len, began.elapsed()) {
            return Err(Misbehaviour::TooSlow.into());
        }
        Ok(len)
    }
}
