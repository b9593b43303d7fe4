//! Small blobs that are asked for together: one request and one task for many of the machine's streams, and one hand-over
//! for what comes of them.
//!
//! Only where nothing limits what comes, as with a push: with a limit each of them takes its turn by itself. So they do where
//! the source does not know the request, or does not give all of them: then it is seen which.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use lighter_protocol::limits::GET_BLOBS_MAX;
use lighter_protocol::pull::{Command, StreamEnd, StreamId};
use lighter_protocol::{BlobId, PeerId, blob};
use lighter_transport::pull::{Gauge, PullError};
use lighter_transport::{Connection, GiveUp, PeerError, Pull, SmallBlob, SmallPull, SmallSink};
use tokio::sync::mpsc;

use super::driver::{Driver, Event};
use super::packer::PackerQueue;
use super::sink::{Sink, Way};
use super::streams::{Right, Stream, stream_end};
use crate::limits::SMALL_SINGLES_MAX;
use crate::shared::now;

/// What one request asks for.
pub(super) struct Batch {
    from: PeerId,
    parts: Vec<Part>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Part {
    stream: StreamId,
    blob: BlobId,
    size: u64,
    /// Set when the machine has left this one: what comes of it is thrown away, and nothing is told of it.
    is_left: Arc<AtomicBool>,
}

impl Part {
    fn is_left(&self) -> bool {
        self.is_left.load(Ordering::Relaxed)
    }
}

impl Driver<'_> {
    /// Takes what one request can ask for out of those at the front of the commands. None where that is no more than one blob.
    pub(super) fn batch(&self, commands: &mut VecDeque<Command>) -> Option<Batch> {
        let of = |command: &Command| match command {
            Command::Get { stream, from, blob, size, ranges } => {
                let is_one_piece = blob::is_small(*size) && ranges.is_whole(*size);
                let (stream, blob, size) = (*stream, *blob, *size);
                let part = || Part { stream, blob, size, is_left: Arc::default() };
                (is_one_piece && !self.partials.contains_key(&blob)).then(|| (*from, part()))
            }
            _ => None,
        };
        let (from, _) = commands.front().and_then(of)?;
        if self.hides || !self.goes_free() || self.givers.shown_to(&from).is_some() {
            return None;
        }
        // With several sources, those of one lie among those of the others.
        let front = commands.iter().map_while(of).enumerate();
        let its: Vec<_> = front.filter(|(_, (peer, _))| *peer == from).take(GET_BLOBS_MAX).collect();
        if its.len() < 2 {
            return None;
        }
        for (at, _) in its.iter().rev() {
            commands.remove(*at);
        }
        Some(Batch { from, parts: its.into_iter().map(|(_, (_, part))| part).collect() })
    }

    /// Asks for them, in a task of its own.
    pub(super) fn get_batch(&mut self, batch: Batch) {
        let Batch { from, parts } = batch;
        let Some(connection) = self.connection_to(&from) else {
            let events = self.events.clone();
            self.work.spawn(async move {
                let _ = events.send(Event::Lost(from)).await;
                end_all(&parts, StreamEnd::Over, &events).await;
            });
            return;
        };
        let Right { delivery, attestation, .. } = self.right_to_ask(&from);
        let gauge = Gauge::default();
        let small = |part: &Part| SmallBlob { blob: part.blob, size: part.size, gauge: gauge.beside() };
        let pull = SmallPull {
            delivery,
            blobs: parts.iter().map(small).collect(),
            attestation,
            turns: parts.first().map(|part| self.turns(part.blob)),
        };
        let opened: Vec<_> = parts
            .iter()
            .zip(&pull.blobs)
            .map(|(part, small)| (part.stream, small.gauge.clone(), Arc::clone(&part.is_left)))
            .collect();
        let asking = Asking {
            connection: connection.clone(),
            packer: self.packer.clone(),
            events: self.events.clone(),
        };
        let task = self.work.spawn(async move { asking.run(&parts, pull).await });
        for (stream, gauge, one) in opened {
            let (task, connection) = (task.clone(), connection.clone());
            let open = Stream { task, connection, gauge, made: None, is_left: false, together: Some(one) };
            self.streams.insert(stream, open);
        }
    }

    /// One of those that are asked for together is to come from elsewhere: it is over here, and the others still come. With the
    /// last of them the request is.
    pub(super) fn leave_one(&mut self, stream: StreamId) -> Vec<Command> {
        let Some(open) = self.streams.remove(&stream) else { return Vec::new() };
        if let Some(one) = &open.together {
            one.store(true, Ordering::Relaxed);
        }
        let request = open.task.id();
        if !self.streams.values().any(|other| other.task.id() == request) {
            open.gauge.stop();
        }
        self.machine.handle_end(stream, StreamEnd::Left, now())
    }

    /// Small blobs have come: none of them is in files of its own, so that nothing is left to do for it.
    pub(super) fn kept(&mut self, streams: Vec<(StreamId, u64)>) -> Vec<Command> {
        let mut commands = Vec::new();
        for (stream, size) in streams {
            let is_left = self.streams.remove(&stream).is_some_and(|open| open.is_left);
            commands.extend(self.machine.handle_verified(stream, 0..size, now()));
            let end = if is_left { StreamEnd::Left } else { StreamEnd::Over };
            commands.extend(self.machine.handle_end(stream, end, now()));
        }
        commands
    }
}

/// One request on its way.
struct Asking {
    connection: Connection,
    packer: PackerQueue,
    events: mpsc::Sender<Event>,
}

impl Asking {
    async fn run(&self, parts: &[Part], pull: SmallPull) {
        let sink = BatchSink { asking: self, parts: Mutex::new(parts) };
        let (kept, pulled) = self.connection.pull_small(&pull, &sink).await;
        let rest = parts[kept..].iter().zip(&pull.blobs[kept..]).filter(|(part, _)| !part.is_left());
        let rest: Vec<_> = rest.map(|(part, small)| (part.clone(), small.clone())).collect();
        match pulled {
            Ok(()) => {}
            Err(error) if is_of_the_request(&error) => {
                let each = rest.into_iter().map(|(part, small)| self.alone(part, &pull, small));
                stream::iter(each).buffer_unordered(SMALL_SINGLES_MAX).collect::<()>().await;
            }
            Err(error) => {
                let rest: Vec<_> = rest.into_iter().map(|(part, _)| part).collect();
                let Some((first, behind)) = rest.split_first() else { return };
                let end = stream_end(Err(error), first.blob, self.connection.peer());
                let _ = self.events.send(Event::Ended { stream: first.stream, end }).await;
                // Nobody looked at these.
                end_all(behind, StreamEnd::Left, &self.events).await;
            }
        }
    }

    /// Asks for one of them by itself.
    async fn alone(&self, part: Part, of: &SmallPull, small: SmallBlob) {
        if part.is_left() {
            return;
        }
        let Part { stream, blob, size, .. } = part;
        let pull = Pull {
            streams: 1,
            attestation: of.attestation.clone(),
            turns: of.turns.clone(),
            gauge: small.gauge,
            ..Pull::of(of.delivery, blob, size)
        };
        let way = Way::Packed(blob, self.packer.clone());
        let sink = Sink { stream, way, events: self.events.clone() };
        let ended = self.connection.pull(&pull, &Arc::new(sink)).await.map(|_| ());
        let end = stream_end(ended, blob, self.connection.peer());
        let _ = self.events.send(Event::Ended { stream, end }).await;
    }
}

/// Whether it is not about one blob, or about one of which it is not known that the others are like it.
fn is_of_the_request(error: &PullError) -> bool {
    matches!(
        error,
        PullError::Refused
            | PullError::Peer(PeerError::GaveUp(GiveUp::Malformed | GiveUp::Damaged | GiveUp::NoAnswer))
    )
}

async fn end_all(parts: &[Part], end: StreamEnd, events: &mpsc::Sender<Event>) {
    for part in parts {
        let _ = events.send(Event::Ended { stream: part.stream, end }).await;
    }
}

/// Takes what comes to the packer, and says so.
struct BatchSink<'a> {
    asking: &'a Asking,
    /// Those that have not come yet.
    parts: Mutex<&'a [Part]>,
}

impl SmallSink for BatchSink<'_> {
    async fn keep(&self, blobs: Vec<(BlobId, Bytes)>) -> io::Result<()> {
        let come = {
            let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
            let (come, behind) = parts.split_at(blobs.len().min(parts.len()));
            *parts = behind;
            come
        };
        let wanted = come.iter().zip(blobs).filter(|(part, _)| !part.is_left());
        let (come, blobs): (Vec<_>, Vec<_>) =
            wanted.map(|(part, blob)| ((part.stream, part.size), blob)).unzip();
        if blobs.is_empty() {
            return Ok(());
        }
        self.asking.packer.keep(blobs).await?;
        // Where the pull's task is gone, so is the need for this.
        let told = self.asking.events.send(Event::Kept(come)).await;
        told.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
