//! Small blobs that are asked for together: one request and one task for many of the machine's streams, and one hand-over
//! for what comes of them.
//!
//! Only where nothing limits what comes, as with a push: with a limit each of them takes its turn by itself. So they do where
//! the source does not know the request, or does not give all of them: then it is seen which.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use lighter_protocol::limits::GET_BLOBS_MAX;
use lighter_protocol::pull::{Command, StreamEnd, StreamId};
use lighter_protocol::{BlobId, PeerId};
use lighter_store::Store;
use lighter_transport::pull::{Gauge, PullError};
use lighter_transport::{Connection, GiveUp, PeerError, Pull, SmallBlob, SmallPull, SmallSink};
use tokio::sync::mpsc;

use super::driver::{Driver, Event};
use super::packer::PackerQueue;
use super::sink::PackSink;
use super::streams::{Right, Stream, stream_end};
use crate::limits::SMALL_SINGLES_MAX;
use crate::shared::now;

/// What one request asks for.
pub(super) struct Batch {
    from: PeerId,
    streams: Vec<(StreamId, BlobId, u64)>,
}

impl Driver<'_> {
    /// Takes what one request can ask for out of those at the front of the commands. None where that is no more than one blob.
    pub(super) fn batch(&self, commands: &mut VecDeque<Command>) -> Option<Batch> {
        let of = |command: &Command| match command {
            Command::Get { stream, from, blob, size, ranges } => {
                let is_one_piece = Store::is_small(*size) && ranges.is_whole(*size);
                (is_one_piece && !self.partials.contains_key(blob))
                    .then_some((*from, (*stream, *blob, *size)))
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
        Some(Batch { from, streams: its.into_iter().map(|(_, (_, stream))| stream).collect() })
    }

    /// Asks for them, in a task of its own.
    pub(super) fn get_batch(&mut self, batch: Batch) {
        let Batch { from, streams } = batch;
        let Some(connection) = self.connection_to(&from) else {
            let events = self.events.clone();
            self.work.spawn(async move {
                let _ = events.send(Event::Lost(from)).await;
                end_all(&streams, StreamEnd::Over, &events).await;
            });
            return;
        };
        let Right { delivery, attestation, .. } = self.right_to_ask(&from);
        let gauge = Gauge::default();
        let small = |(_, blob, size): &(StreamId, BlobId, u64)| SmallBlob {
            blob: *blob,
            size: *size,
            gauge: gauge.beside(),
        };
        let pull = SmallPull {
            delivery,
            blobs: streams.iter().map(small).collect(),
            attestation,
            turns: streams.first().map(|(_, blob, _)| self.turns(*blob)),
        };
        let opened: Vec<_> = streams
            .iter()
            .zip(&pull.blobs)
            .map(|((stream, ..), small)| (*stream, small.gauge.clone()))
            .collect();
        let asking = Asking {
            connection: connection.clone(),
            packer: self.packer.clone(),
            events: self.events.clone(),
        };
        let task = self.work.spawn(async move { asking.run(&streams, pull).await });
        for (stream, gauge) in opened {
            let (task, connection) = (task.clone(), connection.clone());
            self.streams.insert(stream, Stream { task, connection, gauge, made: None, is_left: false });
        }
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
    async fn run(&self, streams: &[(StreamId, BlobId, u64)], pull: SmallPull) {
        let sink = BatchSink { asking: self, streams: Mutex::new(streams) };
        let (kept, pulled) = self.connection.pull_small(&pull, &sink).await;
        let left = &streams[kept..];
        match pulled {
            Ok(()) => {}
            Err(error) if is_of_the_request(&error) => {
                let left = left.iter().copied().zip(pull.blobs[kept..].iter().cloned()).collect::<Vec<_>>();
                let each = left.into_iter().map(|(left, small)| self.alone(left, &pull, small));
                stream::iter(each).buffer_unordered(SMALL_SINGLES_MAX).collect::<()>().await;
            }
            Err(error) => {
                let Some(((first, blob, _), behind)) = left.split_first() else { return };
                let end = stream_end(Err(error), *blob, self.connection.peer());
                let _ = self.events.send(Event::Ended { stream: *first, end }).await;
                // Nobody looked at these.
                end_all(behind, StreamEnd::Left, &self.events).await;
            }
        }
    }

    /// Asks for one of them by itself.
    async fn alone(&self, (stream, blob, size): (StreamId, BlobId, u64), of: &SmallPull, small: SmallBlob) {
        let pull = Pull {
            streams: 1,
            attestation: of.attestation.clone(),
            turns: of.turns.clone(),
            gauge: small.gauge,
            ..Pull::of(of.delivery, blob, size)
        };
        let sink = PackSink { stream, blob, packer: self.packer.clone(), events: self.events.clone() };
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

async fn end_all(streams: &[(StreamId, BlobId, u64)], end: StreamEnd, events: &mpsc::Sender<Event>) {
    for (stream, ..) in streams {
        let _ = events.send(Event::Ended { stream: *stream, end }).await;
    }
}

/// Takes what comes to the packer, and says so.
struct BatchSink<'a> {
    asking: &'a Asking,
    /// Those that have not come yet.
    streams: Mutex<&'a [(StreamId, BlobId, u64)]>,
}

impl SmallSink for BatchSink<'_> {
    async fn keep(&self, blobs: Vec<(BlobId, Bytes)>) -> io::Result<()> {
        let come = {
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            let (come, left) = streams.split_at(blobs.len().min(streams.len()));
            *streams = left;
            come.iter().map(|(stream, _, size)| (*stream, *size)).collect()
        };
        self.asking.packer.keep(blobs).await?;
        // Where the pull's task is gone, so is the need for this.
        let told = self.asking.events.send(Event::Kept(come)).await;
        told.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
