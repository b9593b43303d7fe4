//! Deliveries that were let in before, and that nobody offers now: those who have them by their sender's word are looked for,
//! and asked.

use lighter_protocol::pull::{Held, Pull};
use lighter_protocol::wire::{LaterReason, Offer, Response};
use lighter_protocol::{Sharing, Signed};
use lighter_store::{Incoming, IncomingState, StoreError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Running;
use super::driver::{self, Driver, Event};
use super::known::{self, Known};
use crate::limits::{PULL_EVENTS_MAX, RESUMED_PULLS_MAX};
use crate::shared::{Handle, now};
use crate::sharing::take::{self, Givers};
use crate::sources::Found;

/// Goes on with a delivery that was let in before, and that nobody offers now: those who have it by its sender's word `told`
/// are looked for, and asked. Nothing, where it is being pulled, or too many are.
pub(crate) fn resume(shared: &Handle, incoming: Incoming, told: Vec<Signed<Sharing>>) {
    let mut running = shared.pulls.lock();
    let is_full = running.len() >= RESUMED_PULLS_MAX;
    if running.contains_key(&incoming.delivery) || is_full || shared.stop.is_cancelled() {
        return;
    }
    let (events, receiver) = mpsc::channel(PULL_EVENTS_MAX);
    running.insert(incoming.delivery, Running { events: events.clone(), stranger: None, looked_at: 0 });
    shared.pulls.tasks.spawn(resumed(shared.clone(), incoming, told, events, receiver));
}

/// Runs such a delivery until nobody is left to be looked for, or somebody offers it: from then on it is like any other.
async fn resumed(
    shared: Handle,
    incoming: Incoming,
    told: Vec<Signed<Sharing>>,
    events: mpsc::Sender<Event>,
    mut receiver: mpsc::Receiver<Event>,
) {
    let (delivery, own) = (incoming.delivery, shared.identity.peer());
    let mut givers = Givers::default();
    let named = givers.take(told, &incoming.from, (&own, &incoming.mailbox), shared.share(), now().wall);
    let mut seeking = JoinSet::new();
    for sharing in named {
        let (shared, events) = (shared.clone(), events.clone());
        seeking.spawn(async move {
            let (sender, mut found) = mpsc::channel(1);
            let forward = async {
                while let Some(found) = found.recv().await {
                    let _ = events.send(Event::Source(found)).await;
                }
            };
            tokio::join!(take::seek(shared, sharing, sender), forward);
        });
    }
    let stop = shared.stop.clone();
    loop {
        let event = tokio::select! {
            biased;
            // Nobody is looked for any more.
            () = stop.cancelled() => {
                seeking.shutdown().await;
                shared.pulls.lock().remove(&delivery);
                return;
            }
            // The sender is this task's own, too: the channel never closes.
            Some(event) = receiver.recv() => event,
            ended = seeking.join_next() => {
                if ended.is_none() && shared.pulls.end(&delivery, &receiver) {
                    return;
                }
                continue;
            }
        };
        match event {
            Event::Offer(offered) => return driver::run(shared, *offered, events, receiver).await,
            Event::Source(found) if !found.connection.is_closed() => {
                tracing::info!(%delivery, source = %found.connection.peer(), "goes on without who offered it");
                match pull_from(&shared, &incoming, found, &mut givers, &events, &mut receiver).await {
                    Ok(true) => {}
                    Ok(false) => seeking.shutdown().await,
                    Err(error) => {
                        tracing::warn!(%delivery, %error, "cannot go on without who offered it");
                        seeking.shutdown().await;
                    }
                }
                keep_offers(&events, &mut receiver);
            }
            Event::Sources(told) => {
                // Who has not offered it is not believed.
                let _ = told.responder.respond(&Response::Refused).await;
            }
            _ => {}
        }
    }
}

/// Pulls from the first giver that was found, and from whoever comes. Gives whether something is still missing.
async fn pull_from(
    shared: &Handle,
    incoming: &Incoming,
    found: Found,
    givers: &mut Givers,
    events: &mpsc::Sender<Event>,
    receiver: &mut mpsc::Receiver<Event>,
) -> Result<bool, StoreError> {
    let offer = Offer {
        delivery: incoming.delivery,
        mailbox: incoming.mailbox.clone(),
        manifest: incoming.manifest.clone(),
        blobs: incoming.blobs.clone(),
        sources: Vec::new(),
        expires: incoming.expires,
        introduction: None,
    };
    let (delivery, asked, handle) = (offer.delivery, offer.clone(), shared.clone());
    let closed = shared.guest.is_held().then_some(LaterReason::Paused);
    let known = shared.blocking(move |store| known::look_as(&handle, store, &asked, closed, false)).await?;
    let Known::Held { held, room } = known else { return Ok(false) };
    let held = |blob: &_| held.get(blob).cloned().unwrap_or(Held::Some(Default::default()));
    let Found { role, connection } = found;
    let source = connection.peer();
    let (machine, commands) = Pull::resume(offer, (source, role), &room, held, now());
    let mut driver = Driver::new(shared, machine, events);
    driver.holders.insert(source, connection.clone());
    driver.dialled.push(connection);
    driver.givers = std::mem::take(givers);
    driver.watch(source);
    driver.find_sources(source);
    driver.run(commands, receiver).await;
    *givers = std::mem::take(&mut driver.givers);
    let now = shared.blocking(move |store| store.incoming(delivery)).await?;
    Ok(now.is_some_and(|incoming| incoming.state == IncomingState::Pulling))
}

/// What the streams of a pull that is over still had to say is of no use to the next one: offers and sources are.
fn keep_offers(events: &mpsc::Sender<Event>, receiver: &mut mpsc::Receiver<Event>) {
    let mut kept = Vec::new();
    while let Ok(event) = receiver.try_recv() {
        if matches!(event, Event::Offer(_) | Event::Source(_)) {
            kept.push(event);
        }
    }
    for event in kept {
        // There is room: it was just emptied. A holder who is not answered comes again.
        let _ = events.try_send(event);
    }
}
