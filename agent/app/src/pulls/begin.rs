//! The beginning of a pull: what is there, what there is room for, and the delivery on record before its first byte.

use lighter_protocol::limits::OFFER_BLOBS_MAX;
use lighter_protocol::pull::{Command, Held, NotAdmitted, Pull, Standing, Stop};
use lighter_protocol::wire::{Answer, LaterReason, Offer, OfferedBlob, Response};
use lighter_protocol::{BlobId, UnixTime};
use lighter_store::{Admission, StoreError};
use tokio::sync::mpsc;

use super::driver::{Driver, Event, Offered};
use super::known::{Known, look_as};
use super::links::refuse;
use super::{LATER_S, push};
use crate::shared::{Handle, now};

/// Pulls what is offered, until nothing is to be done for it any more.
pub(super) async fn pull(
    shared: &Handle,
    offered: Offered,
    events: &mpsc::Sender<Event>,
    receiver: &mut mpsc::Receiver<Event>,
) -> Result<(), StoreError> {
    let Offered { offer, pushes, standing, responder } = offered;
    let from = responder.peer();
    let asked = offer.clone();
    let closed = shared.guest.is_held().then_some(LaterReason::Paused);
    // A stranger must not learn from what is asked for what another user of a hosted store has.
    let hides = shared.hosted.is_on() && matches!(standing, Standing::Introduced(_));
    let handle = shared.clone();
    let known = match shared.blocking(move |store| look_as(&handle, store, &asked, closed, hides)).await {
        Ok(known) => known,
        Err(error) => {
            let _ = responder.respond(&Response::Later(LATER_S)).await;
            return Err(error);
        }
    };
    let mut room_left = None;
    let begun = match known {
        Known::OtherContents => {
            refuse(NotAdmitted::OtherContents, responder).await;
            return Ok(());
        }
        Known::Receipted(receipt) => Pull::again(offer.clone(), from, &standing, &receipt),
        Known::Held { held, room } => {
            let held = |blob: &BlobId| held.get(blob).cloned().unwrap_or(Held::Some(Default::default()));
            room_left = Some((room, missing(&offer, held)));
            // What is hidden is asked for as if it were missing; a push of it would be the one that is declined.
            let is_pushed = pushes && !hides && push::are_taken(shared);
            let begin = if is_pushed { Pull::begin_pushed } else { Pull::begin };
            Ok(begin(offer.clone(), from, &standing, &room, held, now()))
        }
    };
    let (machine, commands) = match begun {
        Ok(begun) => begun,
        Err(reason) => {
            refuse(reason, responder).await;
            return Ok(());
        }
    };
    shared.pulls.waits.answered(&offer, from, &commands, room_left);
    if commands.iter().any(|command| matches!(command, Command::Stop(Stop::Declined))) {
        shared.hosted.unreserve(&offer);
    }
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
                    0 => Response::Later(LATER_S),
                    count => Response::Answer(vec![Answer::Later(LaterReason::Disk); count]),
                };
                let _ = responder.respond(&response).await;
                return Err(error);
            }
        }
    }
    let mut driver = Driver::new(shared, machine, events);
    driver.responders.insert(from, responder);
    driver.hides = hides;
    driver.hold(from);
    driver.find_sources(from);
    driver.run(commands, receiver).await;
    Ok(())
}

/// Bytes of the attachments that are missing.
fn missing(offer: &Offer, held: impl Fn(&BlobId) -> Held) -> u64 {
    let missing = |part: &OfferedBlob| match held(&part.id) {
        Held::Whole => 0,
        Held::Some(ranges) => part.size.saturating_sub(ranges.len()),
    };
    offer.blobs.iter().fold(0, |sum, part| sum.saturating_add(missing(part)))
}
