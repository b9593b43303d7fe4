//! Deliveries being pulled: who may offer is asked at the door, then each delivery is a task of its own that drives the
//! machine of `lighter_protocol::pull` with streams, disk and receipts (`driver`); what a holder pushes comes to it there
//! (`push`), and small blobs are asked for together (`small`). One that nobody offers now, and that other recipients of its message have by its sender's word on record, is a
//! task all the same (`resume`).

mod begin;
mod driver;
mod finisher;
mod known;
mod links;
mod packer;
mod push;
mod resume;
mod settle;
mod sink;
mod small;
mod stop;
mod streams;
pub mod waits;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lighter_protocol::pull::{NotAdmitted, Own, SourceView, Standing};
use lighter_protocol::wire::{LaterReason, Offer, Response, Sources};
use lighter_protocol::{DeliveryId, PeerId};
use lighter_transport::Responder;
use lighter_transport::limiter::Class;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::limits::{
    HELD_LATER_S, HOSTED_PULLS_MAX, PULL_EVENTS_MAX, PULL_SHOW_TIME_MAX, PULLS_MAX, SHARINGS_VERIFIED_MAX,
    STRANGER_PULLS_MAX,
};
use crate::shared::{Handle, now};
use crate::sharing::{Share, keep};
use driver::{Event, Offered, ToldSources};
pub use push::pushed;
pub(crate) use resume::resume;
use waits::{Wait, Waits};

/// Seconds after which somebody whom this agent cannot answer now is asked to come back.
const LATER_S: u32 = 5;

/// The deliveries being pulled.
#[derive(Debug, Default)]
pub struct Pulls {
    running: Mutex<HashMap<DeliveryId, Running>>,
    /// Their tasks: the agent's stop waits for them.
    tasks: TaskTracker,
    /// Blobs that are here and wait for others before they get their final place.
    held: AtomicUsize,
    /// Deliveries that wait with whoever holds them.
    pub waits: Waits,
    /// Whether holders may push, as the configuration says now.
    pub takes_pushes: AtomicBool,
}

#[derive(Debug)]
struct Running {
    events: mpsc::Sender<Event>,
    /// Who offered it first, if that is a stranger.
    stranger: Option<PeerId>,
    /// Statements of who else has it that were looked at to be kept, good or not: each costs.
    looked_at: usize,
}

impl Pulls {
    /// None yet.
    pub fn new(takes_pushes: bool) -> Self {
        Self { takes_pushes: AtomicBool::new(takes_pushes), ..Self::default() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Whether this delivery is being pulled now.
    pub fn is_running(&self, delivery: &DeliveryId) -> bool {
        self.lock().contains_key(delivery)
    }

    /// From whom each delivery is pulled now, and what each has brought. One whose task has other things to do just then
    /// is left out.
    pub async fn sources(&self) -> HashMap<DeliveryId, Vec<SourceView>> {
        let asked: Vec<_> = {
            let running = self.lock();
            let ask = |(delivery, pull): (&DeliveryId, &Running)| {
                let (to, shown) = oneshot::channel();
                pull.events.try_send(Event::Show(to)).ok().map(|()| (*delivery, shown))
            };
            running.iter().filter_map(ask).collect()
        };
        let mut sources = HashMap::new();
        let show = async {
            for (delivery, shown) in asked {
                if let Ok(views) = shown.await {
                    sources.insert(delivery, views);
                }
            }
        };
        let _ = timeout(PULL_SHOW_TIME_MAX, show).await;
        sources
    }

    /// Waits until all of them have left off, which they do once the agent stops ([`Shared::stop`](crate::shared::Shared::stop)).
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DeliveryId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a pull that is over. False where an offer came in the meantime: it goes on with that.
    fn end(&self, delivery: &DeliveryId, events: &mpsc::Receiver<Event>) -> bool {
        let mut running = self.lock();
        if !events.is_empty() {
            return false;
        }
        running.remove(delivery);
        true
    }
}

/// An offer came: asks the door, and hands it to the delivery's task, a new one if need be. `pushes`: its holder would
/// push.
pub async fn offered(shared: &Handle, offer: Offer, pushes: bool, responder: Responder) {
    let peer = responder.peer();
    let refusal = match admit(shared, &offer, &peer) {
        Ok(_) if shared.guest.down.allowance().holds(Class::First) => {
            shared.pulls.waits.add(Wait::of(&offer, peer, LaterReason::Paused, 0));
            let _ = responder.respond(&Response::Later(HELD_LATER_S)).await;
            return;
        }
        Ok(standing) => {
            let delivery = offer.delivery;
            let offered = Offered { offer, pushes, standing, responder };
            match hand_over(shared, delivery, offered) {
                Ok(()) => return,
                Err(offered) => {
                    let _ = offered.responder.respond(&Response::Later(LATER_S)).await;
                    return;
                }
            }
        }
        Err(refusal) => refusal,
    };
    links::refuse(refusal, responder).await;
}

/// A sender says who else has what it offers (SPEC D3): that goes to the delivery's task, which answers it.
pub async fn told_sources(shared: &Handle, sources: Sources, responder: Responder) {
    let takes_part = shared.share() != Share::Off && !shared.hosted.is_on();
    let Sources { delivery, sharings } = sources;
    let (by, count) = (responder.peer(), sharings.len());
    let pull = {
        let mut running = shared.pulls.lock();
        running.get_mut(&delivery).filter(|_| takes_part).map(|pull| {
            pull.looked_at += count;
            (pull.events.clone(), pull.looked_at <= SHARINGS_VERIFIED_MAX)
        })
    };
    let Some((pull, is_kept)) = pull else {
        let _ = responder.respond(&Response::Refused).await;
        return;
    };
    let kept = if is_kept { sharings.clone() } else { Vec::new() };
    let told = Event::Sources(Box::new(ToldSources { sharings, responder }));
    if let Err(error) = pull.try_send(told) {
        if let Event::Sources(told) = error.into_inner() {
            let _ = told.responder.respond(&Response::Later(LATER_S)).await;
        }
        return;
    }
    if !kept.is_empty() {
        keep::keep(shared, delivery, kept, by).await;
    }
}

fn admit(shared: &Handle, offer: &Offer, peer: &PeerId) -> Result<Standing, NotAdmitted> {
    // Without an attestation the store does not know whom to believe: nobody, then.
    let attested = shared.attested_for(&offer.mailbox).or_else(|| shared.attested());
    let Some(attested) = attested else { return Err(NotAdmitted::Stranger) };
    let location = shared.location_peer();
    let own = Own { attestation: &attested.attestation, location: &location };
    shared.door().admit(offer, peer, own, now().wall)
}

/// Gives the offer to the delivery's task. Gives it back where there is no room for it now.
fn hand_over(shared: &Handle, delivery: DeliveryId, offered: Offered) -> Result<(), Box<Offered>> {
    let mut running = shared.pulls.lock();
    if let Some(pull) = running.get(&delivery) {
        return pull.events.try_send(Event::Offer(Box::new(offered))).map_err(|error| {
            match error.into_inner() {
                Event::Offer(offered) => offered,
                _ => unreachable!("what was sent comes back"),
            }
        });
    }
    let stranger = match offered.standing {
        Standing::OwnRelay => None,
        Standing::Introduced(_) => Some(offered.responder.peer()),
    };
    let of_stranger = running.values().filter(|pull| stranger.is_some() && pull.stranger == stranger).count();
    let pulls_max = if shared.hosted.is_on() { HOSTED_PULLS_MAX } else { PULLS_MAX };
    if running.len() >= pulls_max || of_stranger >= STRANGER_PULLS_MAX || shared.stop.is_cancelled() {
        return Err(Box::new(offered));
    }
    let (events, receiver) = mpsc::channel(PULL_EVENTS_MAX);
    running.insert(delivery, Running { events: events.clone(), stranger, looked_at: 0 });
    shared.pulls.tasks.spawn(driver::run(shared.clone(), offered, events, receiver));
    Ok(())
}
