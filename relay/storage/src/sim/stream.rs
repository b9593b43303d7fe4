//! A simulated connection: bytes in order, late, held up or cut off as the net between its ends says.
//!
//! As with TCP, what cannot pass is not lost but waits, until it can pass or one end has had enough.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use lighter_protocol::PeerId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::lock;
use super::net::SimNet;
use super::run::count_step;

/// Bytes that are on their way in one direction at most.
const PIPE_LEN: usize = 256 * 1024;

/// What joins two streams.
pub(super) struct Wire {
    /// Who dialled, and who was dialled.
    ends: [PeerId; 2],
    /// From the first end to the second, and back.
    pipes: [Mutex<Pipe>; 2],
}

#[derive(Default)]
struct Pipe {
    /// What is on its way, and since when.
    sent: VecDeque<(Instant, Bytes)>,
    len: usize,
    /// Nothing more is sent.
    is_over: bool,
    /// Nobody reads, or the connection is broken.
    is_broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// One end of a connection.
pub(super) struct SimStream {
    wire: Arc<Wire>,
    /// Which end.
    side: usize,
    net: Arc<SimNet>,
    /// Until the next bytes are due.
    due: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    /// A connection from `from` to `to`: both its ends, and what joins them.
    pub(super) fn new(net: &Arc<SimNet>, from: PeerId, to: PeerId) -> (Arc<Self>, SimStream, SimStream) {
        let wire = Arc::new(Self { ends: [from, to], pipes: Default::default() });
        let end = |side| SimStream { wire: Arc::clone(&wire), side, net: Arc::clone(net), due: None };
        let (near, far) = (end(0), end(1));
        (wire, near, far)
    }

    pub(super) fn has(&self, peer: &PeerId) -> bool {
        self.ends.contains(peer)
    }

    /// Breaks it: both ends notice at once.
    pub(super) fn cut(&self) {
        for pipe in &self.pipes {
            let mut pipe = lock(pipe);
            pipe.is_broken = true;
            pipe.sent.clear();
            pipe.wake();
        }
    }

    /// What holds up the bytes has changed.
    pub(super) fn look_again(&self) {
        self.pipes.iter().for_each(|pipe| lock(pipe).wake());
    }
}

impl Pipe {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let [from, to] = [this.wire.ends[1 - this.side], this.wire.ends[this.side]];
        let (passes, delay) = (this.net.passes(from, to), this.net.delay(from, to));
        let mut pipe = lock(&this.wire.pipes[1 - this.side]);
        if pipe.is_broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let due = pipe.sent.front().map(|(sent, _)| *sent + delay);
        let is_due = due.is_none_or(|due| due <= Instant::now());
        if !passes || !is_due || (due.is_none() && !pipe.is_over) {
            pipe.reader = Some(context.waker().clone());
            drop(pipe);
            this.due = due.filter(|_| passes && !is_due).map(|due| Box::pin(sleep_until(due)));
            if let Some(sleep) = &mut this.due {
                // It is not over yet: looked at once, it wakes us.
                let _ = sleep.as_mut().poll(context);
            }
            return Poll::Pending;
        }
        if let Some((_, bytes)) = pipe.sent.front_mut() {
            let len = bytes.len().min(into.remaining());
            into.put_slice(&bytes[..len]);
            bytes.advance(len);
            if bytes.is_empty() {
                pipe.sent.pop_front();
            }
            pipe.len -= len;
            if let Some(writer) = pipe.writer.take() {
                writer.wake();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = lock(&self.wire.pipes[self.side]);
        if pipe.is_broken || pipe.is_over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = PIPE_LEN.saturating_sub(pipe.len);
        if room == 0 {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        count_step();
        let part = &bytes[..bytes.len().min(room)];
        tracing::trace!(from = %self.wire.ends[self.side], len = part.len(), "sent");
        pipe.sent.push_back((Instant::now(), Bytes::copy_from_slice(part)));
        pipe.len += part.len();
        if let Some(reader) = pipe.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = lock(&self.wire.pipes[self.side]);
        pipe.is_over = true;
        pipe.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let mut ours = lock(&self.wire.pipes[self.side]);
        ours.is_over = true;
        ours.wake();
        drop(ours);
        let mut theirs = lock(&self.wire.pipes[1 - self.side]);
        theirs.is_broken = true;
        theirs.sent.clear();
        theirs.wake();
    }
}
