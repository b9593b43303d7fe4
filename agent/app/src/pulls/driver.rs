//! One delivery's task: it hands what happens to the machine of `lighter_protocol::pull`, and does what the machine
//! says. It waits for nothing but the next event: whatever takes time runs beside it and comes back as one.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use lighter_protocol::pull::{Command, Pull, SourceView, Standing, StreamEnd, StreamId};
use lighter_protocol::wire::{Offer, PushAnswer, Request, Response};
use lighter_protocol::{BlobId, DeliveryId, PeerId, Receipt, Sharing, Signed};
use lighter_store::{Partial, StoreError};
use lighter_transport::limiter::{Allowance, Turns};
use lighter_transport::{Connection, Responder};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::begin;
use super::finisher::{Finisher, FinisherQueue};
use super::packer::{Packer, PackerQueue};
use super::push::Arrived;
use super::settle::settle;
use super::streams::{Right, Stream};
use crate::guest::{self, decide::Verdict};
use crate::shared::{Handle, now};
use crate::sharing::take::Givers;
use crate::sources::Found;

/// An offer that the door let in.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) offer: Offer,
    /// The holder would push.
    pub(super) pushes: bool,
    pub(super) standing: Standing,
    pub(super) responder: Responder,
}

/// What a sender says of others who have it.
#[derive(Debug)]
pub(super) struct ToldSources {
    pub(super) sharings: Vec<Signed<Sharing>>,
    pub(super) responder: Responder,
}

/// What happens to a pull.
#[derive(Debug)]
pub(super) enum Event {
    /// It is offered, again or by somebody else.
    Offer(Box<Offered>),
    /// A holder pushes.
    Push(Box<Arrived>),
    /// These bytes are verified and written.
    Verified { stream: StreamId, range: Range<u64> },
    /// Small blobs, so many bytes each, are verified and written, and their streams ended.
    Kept(Vec<(StreamId, u64)>),
    /// A stream ended.
    Ended { stream: StreamId, end: StreamEnd },
    /// The connection to a source is gone.
    Lost(PeerId),
    /// Somebody else may have it, too.
    Source(Found),
    /// A sender says that others have it, too.
    Sources(Box<ToldSources>),
    /// Somebody wants to see who brings what.
    Show(oneshot::Sender<Vec<SourceView>>),
    /// A blob was read again.
    Reread { blob: BlobId, well: bool },
    /// Everything is durable and the receipt is kept; or not.
    Settled(Option<Box<Signed<Receipt>>>),
    /// A holder heard of the receipt, or did not; `sending`: which time it was sent.
    Heard { by: PeerId, released: bool, sending: u64 },
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
        if shared.stop.is_cancelled() {
            // Whoever offers comes again.
            shared.pulls.lock().remove(&delivery);
            return;
        }
        if let Some(offered) = next.take()
            && let Err(error) = begin::pull(&shared, offered, &events, &mut receiver).await
        {
            tracing::warn!(%delivery, %error, "a pull ended");
        }
        // What streams of the last pull still had to say is of no use, and would be taken for the next one's; further
        // offers are.
        let mut offers = VecDeque::new();
        while let Ok(event) = receiver.try_recv() {
            if let Event::Offer(offered) = event {
                offers.push_back(offered);
            }
        }
        next = offers.pop_front().map(|offered| *offered);
        for offered in offers {
            // There is room: it was just emptied. A holder who is not answered comes again.
            let _ = events.try_send(Event::Offer(offered));
        }
        if next.is_none() && shared.pulls.end(&delivery, &receiver) {
            return;
        }
    }
}

pub(super) struct Driver<'a> {
    pub(super) shared: &'a Handle,
    pub(super) machine: Pull,
    pub(super) events: mpsc::Sender<Event>,
    /// Streams, re-reads, the sync, receipts on their way: all end with the pull.
    pub(super) work: JoinSet<()>,
    /// Answers on their way: they are sent though the pull is over, since most are when it says that nothing is pulled.
    pub(super) answering: JoinSet<()>,
    /// The streams that run.
    pub(super) streams: HashMap<StreamId, Stream>,
    /// Who waits for the end of a source's connection.
    pub(super) watched: JoinSet<()>,
    /// Offers that are not answered yet.
    pub(super) responders: HashMap<PeerId, Responder>,
    /// The connections that offers came on, and those to further sources: what a holder offered is pulled over the
    /// connection that it opened.
    pub(super) holders: HashMap<PeerId, Connection>,
    /// Connections that were opened for this pull, and end with it.
    pub(super) dialled: Vec<Connection>,
    /// Other recipients of the message who may be asked.
    pub(super) givers: Givers,
    pub(super) partials: HashMap<BlobId, (Arc<Partial>, Arc<AtomicBool>)>,
    pub(super) finisher: FinisherQueue,
    pub(super) packer: PackerQueue,
    /// What runs behind both: ends with the pull.
    pub(super) tasks: (Finisher, Packer),
    /// What is here is being made durable, and receipted.
    pub(super) is_syncing: bool,
    pub(super) deadline: Option<Instant>,
    /// What may go now.
    pub(super) guest: watch::Receiver<Verdict>,
    /// What is asked for was asked for without a limit.
    pub(super) went_free: bool,
    /// What is here for other users of a hosted store is asked for as if it were not.
    pub(super) hides: bool,
    /// Those of them that were: read again before they are receipted.
    pub(super) hidden: BTreeSet<BlobId>,
    /// How often each holder was sent the receipt.
    pub(super) sendings: HashMap<PeerId, u64>,
}

impl<'a> Driver<'a> {
    /// One that knows of no source yet.
    pub(super) fn new(shared: &'a Handle, machine: Pull, events: &mpsc::Sender<Event>) -> Self {
        let (finisher, packer) = (Finisher::start(shared), Packer::start(shared));
        let mut driver = Self {
            shared,
            machine,
            events: events.clone(),
            work: JoinSet::new(),
            answering: JoinSet::new(),
            streams: HashMap::new(),
            watched: JoinSet::new(),
            responders: HashMap::new(),
            holders: HashMap::new(),
            dialled: Vec::new(),
            givers: Givers::default(),
            partials: HashMap::new(),
            finisher: finisher.queue(),
            packer: packer.queue(),
            tasks: (finisher, packer),
            is_syncing: false,
            deadline: None,
            guest: shared.guest.verdict(),
            went_free: true,
            hides: false,
            hidden: BTreeSet::new(),
            sendings: HashMap::new(),
        };
        driver.went_free = driver.goes_free();
        driver
    }
}

impl Driver<'_> {
    pub(super) async fn run(&mut self, first: Vec<Command>, receiver: &mut mpsc::Receiver<Event>) {
        let mut commands = VecDeque::from(first);
        loop {
            loop {
                if let Some(batch) = self.batch(&mut commands) {
                    self.get_batch(batch);
                    continue;
                }
                let Some(command) = commands.pop_front() else { break };
                if let Command::Stop(stop) = command {
                    tracing::info!(delivery = %self.machine.offer().delivery, %stop, "pull ended");
                    let answered = async { while self.answering.join_next().await.is_some() {} };
                    tokio::select! {
                        () = answered => {}
                        () = self.shared.stop.cancelled() => {}
                    }
                    return self.end().await;
                }
                commands.extend(self.execute(command).await);
            }
            // While there are several sources, it is looked how fast they are.
            let look = self.machine.next_look();
            let deadline = self.deadline.into_iter().chain(look).min();
            let wait = async {
                match deadline {
                    Some(until) => sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            commands.extend(tokio::select! {
                // The sender is this pull's own, too: the channel never closes.
                Some(event) = receiver.recv() => self.handle(event).await,
                () = wait => self.time_passed(),
                // The sender is this agent's own.
                _ = self.guest.changed() => self.limits_changed(),
                () = self.shared.stop.cancelled() => return self.stop(receiver).await,
            });
            while self.work.try_join_next().is_some() {}
            while self.answering.try_join_next().is_some() {}
        }
    }

    /// Whether what comes has no limit now.
    pub(super) fn goes_free(&self) -> bool {
        self.shared.guest.down.allowance() == Allowance::default()
    }

    /// With limits that were not there, what was asked for as if there were none ends here, and is asked for again in turns:
    /// what is verified of it stays. With other limits than before, the turns are short enough to end by themselves.
    fn limits_changed(&mut self) -> Vec<Command> {
        let goes_free = self.goes_free();
        let went_free = std::mem::replace(&mut self.went_free, goes_free);
        if went_free && !self.went_free {
            for open in self.streams.values_mut().filter(|open| !open.gauge.is_waiting()) {
                open.is_left = true;
                open.gauge.stop();
            }
            // Only who asks can keep to a limit.
            return self.machine.handle_pull_only(now());
        }
        Vec::new()
    }

    fn time_passed(&mut self) -> Vec<Command> {
        let now = now();
        let mut commands = Vec::new();
        if self.machine.next_look().is_some_and(|at| at <= now.instant) {
            let held: Vec<_> = self.streams.iter().filter(|(_, open)| open.gauge.has_waited()).collect();
            self.machine.handle_held(&held.into_iter().map(|(stream, _)| *stream).collect::<Vec<_>>());
            let received: Vec<_> =
                self.streams.iter().map(|(stream, open)| (*stream, open.gauge.received())).collect();
            commands.extend(self.machine.handle_look(&received, now));
        }
        if self.deadline.is_some_and(|at| at <= now.instant) {
            self.deadline = None;
            commands.extend(self.machine.handle_time(now));
        }
        commands
    }

    async fn handle(&mut self, event: Event) -> Vec<Command> {
        match event {
            Event::Offer(offered) => self.offered_again(*offered).await,
            Event::Push(arrived) => self.pushed(*arrived).await,
            Event::Verified { stream, range } => self.machine.handle_verified(stream, range, now()),
            Event::Kept(streams) => self.kept(streams),
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
            Event::Source(found) => self.found(found),
            Event::Sources(told) => {
                self.told_sources(*told);
                Vec::new()
            }
            Event::Show(to) => {
                let _ = to.send(self.machine.sources());
                Vec::new()
            }
            Event::Reread { blob, well } => self.machine.handle_reread(&blob, well, now()),
            Event::Settled(receipt) => {
                self.is_syncing = false;
                match receipt {
                    Some(receipt) => self.machine.handle_receipted(&receipt),
                    None => self.machine.handle_not_synced(),
                }
            }
            Event::Heard { by, released: true, .. } => self.machine.handle_released(&by),
            // It came back, and is being told on its new connection: that the old one is dead says nothing.
            Event::Heard { by, sending, .. } if self.sendings.get(&by) != Some(&sending) => Vec::new(),
            Event::Heard { by, .. } => self.machine.handle_lost(&by, now()),
        }
    }

    async fn execute(&mut self, command: Command) -> Vec<Command> {
        match command {
            Command::Answer { to, answers } => self.answer(to, Response::Answer(answers)),
            Command::PushAnswer { to, answers, wanted } => {
                self.answer(to, Response::PushAnswer(PushAnswer { answers, wanted }));
            }
            Command::Reread { blob, size } => self.reread(blob, size),
            Command::Get { stream, from, blob, size, ranges } => {
                let Right { delivery, attestation, sharing } = self.right_to_ask(&from);
                let pull = lighter_transport::pull::Pull {
                    streams: 1,
                    attestation,
                    sharing,
                    turns: Some(self.turns(blob)),
                    ..lighter_transport::pull::Pull::of(delivery, blob, size).missing(ranges)
                };
                self.get(stream, from, pull).await;
            }
            Command::Leave { stream } => {
                if let Some(open) = self.streams.get_mut(&stream) {
                    tracing::info!(source = %open.connection.peer(), "another source takes a stream over");
                    if open.together.is_some() {
                        return self.leave_one(stream);
                    }
                    open.is_left = true;
                    open.gauge.stop();
                }
            }
            Command::Enough { stream } => return self.abort(stream).await,
            Command::Wait(until) => self.deadline = Some(until),
            Command::SyncThenReceipt { delivery, .. } => self.sync(delivery),
            Command::SendReceipt { to, receipt } => self.send_receipt(to, receipt),
            // Ends the loop before it comes here.
            Command::Stop(_) => {}
        }
        Vec::new()
    }

    fn answer(&mut self, to: PeerId, response: Response) {
        let Some(responder) = self.responders.remove(&to) else { return };
        self.answering.spawn(async move {
            if let Err(error) = responder.respond(&response).await {
                tracing::debug!(peer = %to, %error, "could not answer an offer");
            }
        });
    }

    pub(super) fn turns(&self, blob: BlobId) -> Turns {
        let Offer { delivery, manifest, blobs, .. } = self.machine.offer();
        self.shared.guest.down.transfer(guest::transfer(*delivery, manifest.id == blob, blobs))
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

    /// Everything is here: final places, the proof, the receipt, kept.
    fn sync(&mut self, delivery: DeliveryId) {
        let (shared, events, finisher) = (self.shared.clone(), self.events.clone(), self.finisher.clone());
        let hidden = std::mem::take(&mut self.hidden);
        self.is_syncing = true;
        // The last streams have brought all that they were asked for, and not ended yet.
        let mut streams = std::mem::take(&mut self.streams);
        streams.values_mut().for_each(|open| self.keep_made(Some(open)));
        self.streams = streams;
        let rest: Vec<_> = self.partials.drain().map(|(_, (partial, _))| partial).collect();
        let parts: Vec<_> = std::iter::once(&self.machine.offer().manifest)
            .chain(&self.machine.offer().blobs)
            .map(|part| (part.id, part.size))
            .collect();
        self.work.spawn(async move {
            for partial in rest {
                finisher.finish(partial).await;
            }
            let mut placed = finisher.flush().await;
            for blob in hidden {
                placed &= shared.blocking(move |store| store.recheck(blob)).await.unwrap_or(false);
            }
            let receipt = if placed { settle(&shared, delivery, parts).await } else { None };
            let _ = events.send(Event::Settled(receipt.map(Box::new))).await;
        });
    }

    fn send_receipt(&mut self, to: PeerId, receipt: Box<Signed<Receipt>>) {
        let events = self.events.clone();
        let connection = self.connection_to(&to);
        let last = self.sendings.entry(to).or_default();
        *last += 1;
        let sending = *last;
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
            let _ = events.send(Event::Heard { by: to, released, sending }).await;
        });
    }
}

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        self.dialled.iter().for_each(Connection::close);
    }
}
