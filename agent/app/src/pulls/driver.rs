//! One delivery's task: it hands what happens to the machine of `lighter_protocol::pull`, and does what the machine
//! says. It waits for nothing but the next event: whatever takes time runs beside it and comes back as one.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use lighter_protocol::limits::OFFER_BLOBS_MAX;
use lighter_protocol::pull::{Command, Held, NotAdmitted, Pull, Room, Standing, Stop, StreamEnd, StreamId};
use lighter_protocol::wire::{Answer, LaterReason, NewDrop, Offer, Request, Response};
use lighter_protocol::{BlobId, DeliveryId, PeerId, Receipt, Signed, UnixTime};
use lighter_sealing::SealingSecret;
use lighter_store::limits::MANIFEST_SIZE_MAX;
use lighter_store::{Admission, Durable, Here, IncomingState, Partial, Store, StoreError, Wanted};
use lighter_transport::error::PeerError;
use lighter_transport::pull::PullError;
use lighter_transport::{Connection, Identity, Responder};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep_until;

use super::finisher::{Finisher, FinisherQueue};
use super::sink::Sink;
use crate::drops::{self, NotOpened, OpenedDrop};
use crate::shared::{Handle, now};

/// An offer that the door let in.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) offer: Offer,
    pub(super) standing: Standing,
    pub(super) responder: Responder,
}

/// What happens to a pull.
#[derive(Debug)]
pub(super) enum Event {
    /// It is offered, again or by somebody else.
    Offer(Box<Offered>),
    /// These bytes are verified and written.
    Verified { stream: StreamId, range: Range<u64> },
    /// A stream ended.
    Ended { stream: StreamId, end: StreamEnd },
    /// The connection to a holder is gone.
    Lost(PeerId),
    /// A blob was read again.
    Reread { blob: BlobId, well: bool },
    /// Everything is durable and the receipt is kept; or not.
    Settled(Option<Box<Signed<Receipt>>>),
    /// A holder heard of the receipt, or did not.
    Heard { by: PeerId, released: bool },
}

/// What is known of a delivery before the machine starts.
enum Known {
    Receipted(Box<Signed<Receipt>>),
    Held { held: HashMap<BlobId, Held>, room: Room },
    OtherContents,
}

/// Runs a delivery from its offer on, until nothing is to be done for it any more.
pub(super) async fn run(
    shared: Handle,
    first: Offered,
    events: mpsc::Sender<Event>,
    mut receiver: mpsc::Receiver<Event>,
) {
    let delivery = first.offer.delivery;
    let mut next = Some(first);
    loop {
        if let Some(offered) = next.take()
            && let Err(error) = pull(&shared, offered, &events, &mut receiver).await
        {
            tracing::warn!(%delivery, %error, "a pull ended");
        }
        // What streams of the last pull still had to say is of no use; a further offer is.
        while let Ok(event) = receiver.try_recv() {
            if let Event::Offer(offered) = event {
                next = Some(*offered);
                break;
            }
        }
        if next.is_none() && shared.pulls.end(&delivery, &receiver) {
            return;
        }
    }
}

async fn pull(
    shared: &Handle,
    offered: Offered,
    events: &mpsc::Sender<Event>,
    receiver: &mut mpsc::Receiver<Event>,
) -> Result<(), StoreError> {
    let Offered { offer, standing, responder } = offered;
    let from = responder.peer();
    let refuse = |reason: NotAdmitted, responder: Responder| async move {
        tracing::info!(peer = %responder.peer(), %reason, "offer refused");
        let _ = responder.respond(&Response::Refused).await;
    };
    let asked = offer.clone();
    let known = match shared.blocking(move |store| look(store, &asked)).await {
        Ok(known) => known,
        Err(error) => {
            let _ = responder.respond(&Response::Later(super::LATER_S)).await;
            return Err(error);
        }
    };
    let begun = match known {
        Known::OtherContents => {
            refuse(NotAdmitted::OtherContents, responder).await;
            return Ok(());
        }
        Known::Receipted(receipt) => Pull::again(offer.clone(), from, &standing, &receipt),
        Known::Held { held, room } => {
            let held = |blob: &BlobId| held.get(blob).cloned().unwrap_or(Held::Some(Default::default()));
            Ok(Pull::begin(offer.clone(), from, &standing, &room, held, now()))
        }
    };
    let (machine, commands) = match begun {
        Ok(begun) => begun,
        Err(reason) => {
            refuse(reason, responder).await;
            return Ok(());
        }
    };
    // On record before the first byte is pulled: files that no delivery refers to are removed at the next start.
    if !commands.iter().any(|command| matches!(command, Command::Stop(Stop::Declined))) {
        let recorded = offer.clone();
        let admitted = shared.blocking(move |store| store.admit(&recorded, from, UnixTime::now())).await;
        match admitted {
            Ok(Admission::New(_) | Admission::Known(_)) => {}
            Ok(Admission::Conflict) => {
                refuse(NotAdmitted::OtherContents, responder).await;
                return Ok(());
            }
            Err(error) => {
                // Without an attachment there is no answer that could say `Later`.
                let response = match offer.blobs.len().min(OFFER_BLOBS_MAX) {
                    0 => Response::Later(super::LATER_S),
                    count => Response::Answer(vec![Answer::Later(LaterReason::Disk); count]),
                };
                let _ = responder.respond(&response).await;
                return Err(error);
            }
        }
    }
    let finisher = Finisher::start(shared);
    let mut driver = Driver {
        shared,
        machine,
        events: events.clone(),
        work: JoinSet::new(),
        answering: JoinSet::new(),
        streams: HashMap::new(),
        watched: JoinSet::new(),
        responders: HashMap::from([(from, responder)]),
        holders: HashMap::new(),
        partials: HashMap::new(),
        finisher: finisher.queue(),
        deadline: None,
    };
    driver.hold(from);
    driver.run(commands, receiver).await;
    Ok(())
}

/// Looks up what there is of a delivery. Blocks on the disk.
fn look(store: &Store, offer: &Offer) -> Result<Known, StoreError> {
    if let Some(incoming) = store.incoming(offer.delivery)? {
        let is_rejected = matches!(incoming.state, IncomingState::Rejected { .. });
        if is_rejected || !store.is_same(&incoming, offer)? {
            return Ok(Known::OtherContents);
        }
        if let Some(receipt) = incoming.receipt() {
            return Ok(Known::Receipted(Box::new(receipt.clone())));
        }
    }
    let mut held = HashMap::new();
    for part in std::iter::once(&offer.manifest).chain(&offer.blobs) {
        held.insert(
            part.id,
            match store.here(part.id, part.size, UnixTime::now())? {
                Here::Whole => Held::Whole,
                Here::Part(ranges) => Held::Some(ranges),
            },
        );
    }
    let space = store.space(offer.delivery)?;
    let room = Room {
        blob_size_max: store.settings().blob_size_max,
        manifest_size_max: MANIFEST_SIZE_MAX,
        quota_left: space.quota_left,
        disk_left: space.disk_left,
        closed: None,
    };
    Ok(Known::Held { held, room })
}

/// Where a stream writes to.
enum Target {
    Partial(Arc<Partial>, Arc<AtomicBool>),
    /// The blob is here already.
    Held,
    /// The disk does not take it.
    None,
}

struct Driver<'a> {
    shared: &'a Handle,
    machine: Pull,
    events: mpsc::Sender<Event>,
    /// Streams, re-reads, the sync, receipts on their way: all end with the pull.
    work: JoinSet<()>,
    /// Answers on their way: they are sent though the pull is over, since most are when it says that nothing is pulled.
    answering: JoinSet<()>,
    /// The streams that run, and the connection that each is on.
    streams: HashMap<StreamId, (AbortHandle, Connection)>,
    /// Who waits for the end of a holder's connection.
    watched: JoinSet<()>,
    /// Offers that are not answered yet.
    responders: HashMap<PeerId, Responder>,
    /// The connections that offers came on: what a holder offered is pulled over the connection that it opened.
    holders: HashMap<PeerId, Connection>,
    partials: HashMap<BlobId, (Arc<Partial>, Arc<AtomicBool>)>,
    finisher: FinisherQueue,
    deadline: Option<Instant>,
}

impl Driver<'_> {
    async fn run(&mut self, first: Vec<Command>, receiver: &mut mpsc::Receiver<Event>) {
        let mut commands = first;
        loop {
            for command in commands {
                if let Command::Stop(stop) = command {
                    tracing::info!(delivery = %self.machine.offer().delivery, %stop, "pull ended");
                    while self.answering.join_next().await.is_some() {}
                    return;
                }
                self.execute(command).await;
            }
            let deadline = self.deadline;
            let wait = async {
                match deadline {
                    Some(until) => sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            commands = tokio::select! {
                // The sender is this pull's own, too: the channel never closes.
                Some(event) = receiver.recv() => self.handle(event).await,
                () = wait => {
                    self.deadline = None;
                    self.machine.handle_time(now())
                }
            };
            while self.work.try_join_next().is_some() {}
            while self.answering.try_join_next().is_some() {}
        }
    }

    async fn handle(&mut self, event: Event) -> Vec<Command> {
        match event {
            Event::Offer(offered) => self.offered_again(*offered).await,
            Event::Verified { stream, range } => self.machine.handle_verified(stream, range, now()),
            Event::Ended { stream, end } => self.ended(stream, end).await,
            Event::Lost(peer) => {
                if let Some(other) = self.shared.links.get(&peer) {
                    // Only one of its connections: streams on it end by themselves.
                    self.holders.insert(peer, other);
                    self.watch(peer);
                    return Vec::new();
                }
                self.holders.remove(&peer);
                self.machine.handle_lost(&peer, now())
            }
            Event::Reread { blob, well } => self.machine.handle_reread(&blob, well, now()),
            Event::Settled(Some(receipt)) => self.machine.handle_receipted(&receipt),
            Event::Settled(None) => self.machine.handle_not_synced(),
            Event::Heard { by, released: true } => self.machine.handle_released(&by),
            Event::Heard { by, released: false } => self.machine.handle_lost(&by, now()),
        }
    }

    async fn offered_again(&mut self, offered: Offered) -> Vec<Command> {
        let from = offered.responder.peer();
        match self.machine.handle_offer(&offered.offer, from, now()) {
            Ok(mut commands) => {
                let connection = offered.responder.connection().clone();
                self.holders.insert(from, connection.clone());
                self.watch(from);
                self.responders.insert(from, offered.responder);
                commands.extend(self.leave_older(from, &connection).await);
                commands
            }
            Err(reason) => {
                tracing::info!(peer = %from, %reason, "offer refused");
                let _ = offered.responder.respond(&Response::Refused).await;
                Vec::new()
            }
        }
    }

    /// A holder offers on a new connection: the one before is dead, though nobody here knows yet (the holder was killed
    /// and came back, or changed networks), or a worse way. Its streams go on over there.
    async fn leave_older(&mut self, from: PeerId, newest: &Connection) -> Vec<Command> {
        let is_left = |(stream, (_, connection)): (&StreamId, &(AbortHandle, Connection))| {
            (connection.peer() == from && !connection.is_same(newest)).then_some(*stream)
        };
        let left: Vec<_> = self.streams.iter().filter_map(is_left).collect();
        let mut commands = Vec::new();
        for stream in left {
            if let Some((task, _)) = self.streams.remove(&stream) {
                task.abort();
            }
            commands.extend(self.ended(stream, StreamEnd::Moved).await);
        }
        commands
    }

    /// A stream is over. A blob that is whole now goes to its final place.
    async fn ended(&mut self, stream: StreamId, end: StreamEnd) -> Vec<Command> {
        self.streams.remove(&stream);
        let whole = self.machine.blob_of(stream).and_then(|blob| match self.partials.get(&blob) {
            Some((partial, _)) if partial.is_complete() => Some(blob),
            _ => None,
        });
        if let Some((partial, _)) = whole.and_then(|blob| self.partials.remove(&blob)) {
            self.finisher.finish(partial).await;
        }
        self.machine.handle_end(stream, end, now())
    }

    async fn execute(&mut self, command: Command) {
        match command {
            Command::Answer { to, answers } => {
                if let Some(responder) = self.responders.remove(&to) {
                    self.answering.spawn(async move {
                        if let Err(error) = responder.respond(&Response::Answer(answers)).await {
                            tracing::debug!(peer = %to, %error, "could not answer an offer");
                        }
                    });
                }
            }
            Command::Reread { blob, size } => self.reread(blob, size),
            Command::Get { stream, from, blob, size, ranges } => {
                let pull = lighter_transport::pull::Pull {
                    streams: 1,
                    ..lighter_transport::pull::Pull::of(self.machine.offer().delivery, blob, size)
                        .missing(ranges)
                };
                self.get(stream, from, pull).await;
            }
            Command::Wait(until) => self.deadline = Some(until),
            Command::SyncThenReceipt { delivery, .. } => self.sync(delivery),
            Command::SendReceipt { to, receipt } => self.send_receipt(to, receipt),
            // Ends the loop before it comes here.
            Command::Stop(_) => {}
        }
    }

    fn reread(&mut self, blob: BlobId, size: u64) {
        let (shared, events) = (self.shared.clone(), self.events.clone());
        self.work.spawn(async move {
            let read = shared
                .blocking(move |store| {
                    let is_sized = store.open_blob(blob).is_ok_and(|stored| stored.size() == size);
                    Ok::<_, StoreError>(is_sized && store.recheck(blob)?)
                })
                .await;
            let well = read
                .inspect_err(|error| tracing::warn!(%blob, %error, "cannot be read again"))
                .unwrap_or(false);
            let _ = events.send(Event::Reread { blob, well }).await;
        });
    }

    async fn get(&mut self, stream: StreamId, from: PeerId, pull: lighter_transport::pull::Pull) {
        let events = self.events.clone();
        let connection = self.holders.get(&from).filter(|connection| !connection.is_closed()).cloned();
        let connection = connection.or_else(|| self.shared.links.get(&from));
        let target = self.target(pull.blob, pull.size).await;
        let on = connection.clone();
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
                (Some(connection), Target::Partial(partial, checkpointing)) => {
                    let sink = Sink { stream, partial, checkpointing, events: events.clone() };
                    stream_end(connection.pull(&pull, &Arc::new(sink)).await.map(|_| ()), pull.blob)
                }
                (None, Target::Partial(..)) => {
                    let _ = events.send(Event::Lost(from)).await;
                    StreamEnd::Over
                }
            };
            let _ = events.send(Event::Ended { stream, end }).await;
        });
        if let Some(connection) = on {
            self.streams.insert(stream, (task, connection));
        }
    }

    /// Where a stream writes to.
    async fn target(&mut self, blob: BlobId, size: u64) -> Target {
        if let Some((partial, checkpointing)) = self.partials.get(&blob)
            && !partial.is_given_up()
        {
            return Target::Partial(Arc::clone(partial), Arc::clone(checkpointing));
        }
        match self.shared.blocking(move |store| store.want(blob, size, UnixTime::now())).await {
            Ok(Wanted::Partial(partial)) => {
                let checkpointing = Arc::new(AtomicBool::new(false));
                self.partials.insert(blob, (Arc::clone(&partial), Arc::clone(&checkpointing)));
                Target::Partial(partial, checkpointing)
            }
            Ok(Wanted::Held) => Target::Held,
            Err(error) => {
                tracing::warn!(%blob, %error, "cannot be stored");
                Target::None
            }
        }
    }

    /// Everything is here: final places, the proof, the receipt, kept.
    fn sync(&mut self, delivery: DeliveryId) {
        let (shared, events, finisher) = (self.shared.clone(), self.events.clone(), self.finisher.clone());
        let rest: Vec<_> = self.partials.drain().map(|(_, (partial, _))| partial).collect();
        let parts: Vec<_> = std::iter::once(&self.machine.offer().manifest)
            .chain(&self.machine.offer().blobs)
            .map(|part| (part.id, part.size))
            .collect();
        self.work.spawn(async move {
            for partial in rest {
                finisher.finish(partial).await;
            }
            let placed = finisher.flush().await;
            let identity = shared.identity.clone();
            let settled = shared
                .blocking(move |store| {
                    if !placed {
                        return Ok(None);
                    }
                    for (blob, size) in parts {
                        // The empty blob was never asked for: there is nothing to fetch.
                        if let Wanted::Partial(partial) = store.want(blob, size, UnixTime::now())? {
                            store.finish(&[partial], UnixTime::now())?;
                        }
                    }
                    let Some(durable) = store.durable(delivery)? else { return Ok(None) };
                    let receipt = durable.receipt(identity.peer(), UnixTime::now());
                    let Ok(signed) = Signed::sign(&receipt, identity.keypair()) else { return Ok(None) };
                    if durable.incoming().manifest.media_type == NewDrop::MEDIA_TYPE {
                        return settle_drop(store, &identity, durable, signed);
                    }
                    store.settle(durable, signed).map(Some)
                })
                .await;
            let receipt = settled.unwrap_or_else(|error: StoreError| {
                tracing::warn!(%delivery, %error, "no receipt: it is not durable");
                None
            });
            let _ = events.send(Event::Settled(receipt.map(Box::new))).await;
        });
    }

    fn send_receipt(&mut self, to: PeerId, receipt: Box<Signed<Receipt>>) {
        let events = self.events.clone();
        let connection = self.holders.get(&to).filter(|connection| !connection.is_closed()).cloned();
        let connection = connection.or_else(|| self.shared.links.get(&to));
        self.work.spawn(async move {
            let released = match connection {
                Some(connection) => match connection.request(&Request::Receipt(*receipt)).await {
                    Ok(Response::Released) => true,
                    Ok(other) => {
                        tracing::info!(peer = %to, answer = ?other, "a receipt was not taken");
                        false
                    }
                    Err(error) => {
                        tracing::debug!(peer = %to, %error, "a receipt did not get through");
                        false
                    }
                },
                None => false,
            };
            let _ = events.send(Event::Heard { by: to, released }).await;
        });
    }

    /// Notes the connection that an offer came on.
    fn hold(&mut self, peer: PeerId) {
        if let Some(responder) = self.responders.get(&peer) {
            self.holders.insert(peer, responder.connection().clone());
            self.watch(peer);
        }
    }

    /// Tells this task when that connection is gone.
    fn watch(&mut self, peer: PeerId) {
        let Some(connection) = self.holders.get(&peer).cloned() else { return };
        let events = self.events.clone();
        self.watched.spawn(async move {
            connection.closed().await;
            let _ = events.send(Event::Lost(peer)).await;
        });
    }
}

/// Opens a drop, whose sealed blobs are all here, and puts the receipt on record with what was in it. One that never
/// opens is not kept, and its user is told.
fn settle_drop(
    store: &Store,
    identity: &Identity,
    durable: Durable,
    receipt: Signed<Receipt>,
) -> Result<Option<Signed<Receipt>>, StoreError> {
    let delivery = durable.incoming().delivery;
    let secret = match SealingSecret::derive(&identity.secret_bytes()) {
        Ok(secret) => secret,
        Err(error) => {
            tracing::warn!(%delivery, %error, "a drop is not opened");
            return Ok(None);
        }
    };
    match drops::open(store, &secret, durable.incoming()) {
        Ok(OpenedDrop { manifest, blobs, hold }) => {
            store.settle_opened(durable, manifest, blobs, &hold, receipt).map(Some)
        }
        Err(NotOpened::Never(reason)) => {
            tracing::warn!(%delivery, %reason, "what was left for this store is of no use");
            store.reject(delivery, &reason)?;
            Ok(None)
        }
        Err(NotOpened::Store(error)) => Err(error),
        Err(NotOpened::Io(source)) => Err(StoreError::Io { doing: "opening a drop", source }),
    }
}

/// What the end of a transport's pull is to the machine.
fn stream_end(ended: Result<(), PullError>, blob: BlobId) -> StreamEnd {
    let Err(error) = ended else { return StreamEnd::Over };
    tracing::debug!(%blob, %error, "a stream ended early");
    match error {
        PullError::Refused => StreamEnd::Refused,
        PullError::Later(wait) => StreamEnd::Later(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX)),
        PullError::Peer(PeerError::Misbehaved(_)) => StreamEnd::Wrong,
        PullError::Peer(_) | PullError::Invalid(_) => StreamEnd::Over,
        PullError::Sink(error) => {
            tracing::warn!(%blob, %error, "what was pulled cannot be written");
            StreamEnd::Over
        }
    }
}
