//! The range streams of a pull: each a task that asks one source for some of one blob, and says what came of it; and the
//! end of any stream, asked for or pushed.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use lighter_protocol::blob;
use lighter_protocol::pull::{Command, Role, StreamEnd, StreamId};
use lighter_protocol::{Attestation, BlobId, DeliveryId, PeerId, Sharing, Signed, UnixTime};
use lighter_store::{Partial, Wanted};
use lighter_transport::Connection;
use lighter_transport::error::{GiveUp, Misbehaviour, PeerError};
use lighter_transport::pull::{Gauge, Pull, PullError};
use tokio::task::AbortHandle;

use super::driver::{Driver, Event};
use super::sink::{Sink, Way};
use crate::limits::SMALL_LEN_MAX;
use crate::shared::now;

/// What a stream's blob needs.
pub(super) enum Target {
    /// What comes goes there.
    Way(Way),
    /// Nothing: it is here already.
    Held,
    /// The disk does not take it.
    None,
}

/// A stream that runs.
pub(super) struct Stream {
    pub(super) task: AbortHandle,
    pub(super) connection: Connection,
    pub(super) gauge: Gauge,
    /// Where its blob's files are, once they are made, when they were not as it began.
    pub(super) made: Option<Arc<OnceLock<Arc<Partial>>>>,
    /// It was told to stop: that it ends early is not its source's doing.
    pub(super) is_left: bool,
    /// It is one of many that are asked for together: set, what comes of it is not used.
    pub(super) together: Option<Arc<AtomicBool>>,
}

/// What a source is shown.
pub(super) struct Right {
    /// Whose number the source knows: the own delivery, or another recipient's.
    pub(super) delivery: DeliveryId,
    pub(super) attestation: Option<Signed<Attestation>>,
    pub(super) sharing: Option<Signed<Sharing>>,
}

impl Driver<'_> {
    /// What shows a source that did not offer the delivery to this store that it may be read all the same.
    pub(super) fn right_to_ask(&self, source: &PeerId) -> Right {
        let offer = self.machine.offer();
        let views = self.machine.sources();
        let role = views.iter().find(|view| view.peer == *source).map_or(Role::Holder, |view| view.role);
        let attestation = || self.shared.attested_for(&offer.mailbox).map(|attested| attested.signed);
        match (role, self.givers.shown_to(source)) {
            (Role::Holder, _) => Right { delivery: offer.delivery, attestation: None, sharing: None },
            (Role::Recipient, Some((signed, sharing))) => Right {
                delivery: sharing.delivery,
                // Another domain's giver could not tell whether it is true.
                attestation: (sharing.giver.domain() == sharing.taker.domain()).then(attestation).flatten(),
                sharing: Some(signed.clone()),
            },
            _ => Right { delivery: offer.delivery, attestation: attestation(), sharing: None },
        }
    }

    /// The connection that a source is asked on.
    pub(super) fn connection_to(&self, source: &PeerId) -> Option<Connection> {
        let connection = self.holders.get(source).filter(|connection| !connection.is_closed()).cloned();
        connection.or_else(|| self.shared.links.get(source))
    }

    pub(super) async fn get(&mut self, stream: StreamId, from: PeerId, pull: Pull) {
        let events = self.events.clone();
        let connection = self.connection_to(&from);
        // Of what is small nothing is waited for before it is asked for: with many of them it would be the longest part.
        let is_unmade = (1..=SMALL_LEN_MAX).contains(&pull.size)
            && pull.missing.is_whole(pull.size)
            && !self.hides
            && !self.partials.contains_key(&pull.blob);
        let target = match is_unmade {
            true if blob::is_small(pull.size) => Target::Way(Way::Packed(pull.blob, self.packer.clone())),
            true => {
                let (store, made) = (self.shared.store.clone(), Arc::default());
                Target::Way(Way::Unmade { store, blob: pull.blob, size: pull.size, made })
            }
            false => self.target(pull.blob, pull.size).await,
        };
        let made = match &target {
            Target::Way(Way::Unmade { made, .. }) => Some(Arc::clone(made)),
            _ => None,
        };
        let (on, gauge) = (connection.clone(), pull.gauge.clone());
        let task = self.work.spawn(async move {
            let end = match (connection, target) {
                (_, Target::Held) => {
                    // Another delivery brought it in the meantime.
                    for range in pull.missing.iter() {
                        let _ = events.send(Event::Verified { stream, range }).await;
                    }
                    StreamEnd::Over
                }
                // The disk does not take it: nobody else's fault, but nothing comes of asking.
                (_, Target::None) => StreamEnd::Over,
                (Some(connection), Target::Way(way)) => {
                    let sink = Sink { stream, way, events: events.clone() };
                    let ended = connection.pull(&pull, &Arc::new(sink)).await.map(|_| ());
                    stream_end(ended, pull.blob, from)
                }
                (None, Target::Way(_)) => {
                    let _ = events.send(Event::Lost(from)).await;
                    StreamEnd::Over
                }
            };
            let _ = events.send(Event::Ended { stream, end }).await;
        });
        if let Some(connection) = on {
            self.streams
                .insert(stream, Stream { task, connection, gauge, made, is_left: false, together: None });
        }
    }

    /// A stream is over.
    pub(super) async fn ended(&mut self, stream: StreamId, end: StreamEnd) -> Vec<Command> {
        let is_left = self.close(stream).await;
        let has_stopped = matches!(end, StreamEnd::Over | StreamEnd::Later(_));
        let end = if is_left && has_stopped { StreamEnd::Left } else { end };
        self.machine.handle_end(stream, end, now())
    }

    /// Forgets a stream that is over; whether it was told to stop. A blob that is whole now goes to its final place.
    pub(super) async fn close(&mut self, stream: StreamId) -> bool {
        let mut open = self.streams.remove(&stream);
        self.keep_made(open.as_mut());
        self.place(stream).await;
        open.is_some_and(|open| open.is_left)
    }

    /// Ends a stream, whatever is on its way; with it those that come behind it, where it is part of a push.
    pub(super) async fn abort(&mut self, stream: StreamId) -> Vec<Command> {
        let mut commands = Vec::new();
        for stream in self.drop_stream(stream).await {
            commands.extend(self.machine.handle_end(stream, StreamEnd::Left, now()));
        }
        commands
    }

    /// The same, without telling the machine: which streams have ended.
    pub(super) async fn drop_stream(&mut self, stream: StreamId) -> Vec<StreamId> {
        let mut ended = vec![stream];
        if let Some(mut open) = self.streams.remove(&stream) {
            open.task.abort();
            let task = open.task.id();
            let mates = self.streams.extract_if(|_, other| other.task.id() == task);
            ended.extend(mates.map(|(mate, _)| mate));
            self.keep_made(Some(&mut open));
        }
        for stream in &ended {
            self.place(*stream).await;
        }
        ended
    }

    /// The files that a stream made are its blob's from now on; of it nothing comes any more that makes a difference.
    pub(super) fn keep_made(&mut self, stream: Option<&mut Stream>) {
        if let Some(partial) = stream.and_then(|open| open.made.take()).and_then(|made| made.get().cloned()) {
            self.partials.entry(partial.blob()).or_insert_with(|| (partial, Arc::default()));
        }
    }

    /// Gives a stream's blob its final place, if it is whole.
    async fn place(&mut self, stream: StreamId) {
        let whole = self.machine.blob_of(stream).and_then(|blob| match self.partials.get(&blob) {
            Some((partial, _)) if partial.is_complete() => Some(blob),
            _ => None,
        });
        if let Some((partial, _)) = whole.and_then(|blob| self.partials.remove(&blob)) {
            self.finisher.finish(partial).await;
        }
    }

    /// Where a stream writes to.
    pub(super) async fn target(&mut self, blob: BlobId, size: u64) -> Target {
        if let Some((partial, checkpointing)) = self.partials.get(&blob)
            && !partial.is_given_up()
        {
            return Target::Way(Way::Partial(Arc::clone(partial), Arc::clone(checkpointing)));
        }
        match self.shared.blocking(move |store| store.want(blob, size, UnixTime::now())).await {
            Ok(Wanted::Partial(partial)) => {
                let checkpointing = Arc::new(AtomicBool::new(false));
                self.partials.insert(blob, (Arc::clone(&partial), Arc::clone(&checkpointing)));
                Target::Way(Way::Partial(partial, checkpointing))
            }
            Ok(Wanted::Held) if self.hides => {
                self.hidden.insert(blob);
                Target::Way(Way::Nowhere)
            }
            Ok(Wanted::Held) => Target::Held,
            Err(error) => {
                tracing::warn!(%blob, %error, "cannot be stored");
                Target::None
            }
        }
    }
}

/// What the end of a transport's pull is to the machine.
pub(super) fn stream_end(ended: Result<(), PullError>, blob: BlobId, source: PeerId) -> StreamEnd {
    let Err(error) = ended else { return StreamEnd::Over };
    tracing::debug!(%blob, %source, %error, "a stream ended early");
    match error {
        PullError::Refused => StreamEnd::Refused,
        PullError::Later(wait) => StreamEnd::Later(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX)),
        PullError::Peer(PeerError::Misbehaved(Misbehaviour::TooSlow)) => {
            tracing::info!(%blob, %source, "too slow");
            StreamEnd::Slow
        }
        PullError::Peer(PeerError::Misbehaved(error)) => {
            tracing::warn!(%blob, %source, %error, "what it sends is wrong: not asked again for this delivery");
            StreamEnd::Wrong
        }
        // Its own limits hold it up: it is asked again.
        PullError::Peer(PeerError::GaveUp(GiveUp::Cancelled)) => StreamEnd::Later(super::LATER_S),
        PullError::Peer(_) | PullError::Invalid(_) => StreamEnd::Over,
        PullError::Sink(error) => {
            tracing::warn!(%blob, %error, "what was pulled cannot be written");
            StreamEnd::Over
        }
    }
}
