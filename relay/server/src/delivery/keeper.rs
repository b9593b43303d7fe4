//! What its day has come for: people are told, messages go whole, copies are let go, and what is over is forgotten
//! (DESIGN §3 rule 3).
//!
//! The catalog says what is due; each step is one change, so a crash between two costs nothing. While the wall clock is
//! in doubt, everything stands still (DESIGN §3 rule 9).

use std::sync::Arc;

use lighter_catalog::{Change, Deadline, Delivery, Message};
use lighter_protocol::{Now, UnixTime};
use lighter_queue::Clock;

use super::Shared;
use super::notice::{self, NoticeError};
use crate::ingest::Failure;
use crate::limits::{KEEPER_INTERVAL, KEEPER_PAGE_LEN, PURGE_INTERVAL};

/// Looks at what is due until the relay stops.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut clock = Clock::new(Now::read());
    let mut purged: Option<Now> = None;
    loop {
        let now = Now::read();
        if clock.is_sound(now) {
            work(&shared, now.wall).await;
            if purged.is_none_or(|at| now.instant.saturating_duration_since(at.instant) >= PURGE_INTERVAL) {
                purge(&shared, now.wall).await;
                purged = Some(now);
            }
        } else {
            tracing::error!("the wall clock jumped: nothing expires until it goes right again");
        }
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = shared.wake.keeper.notified() => {}
            () = tokio::time::sleep(KEEPER_INTERVAL) => {}
        }
    }
}

/// Does everything that is due, a page at a time, and what becomes due by that. What cannot be done now is left for the
/// next time.
async fn work(shared: &Shared, now: UnixTime) {
    let mut before = Vec::new();
    loop {
        let page = shared.parts.ledger.read(move |catalog| {
            let mut page = Vec::new();
            for (delivery, deadline) in catalog.deadlines(now, KEEPER_PAGE_LEN)? {
                if let Some(message) = catalog.message(&delivery.message)? {
                    page.push((delivery, deadline, message));
                }
            }
            Ok(page)
        });
        let page = match page.await {
            Ok(page) => page,
            Err(error) => return tracing::warn!(%error, "the catalog does not say what is due"),
        };
        if page.is_empty() {
            return;
        }
        let mut done = Vec::with_capacity(page.len());
        let mut all_done = true;
        for (delivery, deadline, message) in page {
            if shared.stop.is_cancelled() {
                return;
            }
            let what = (delivery.id, deadline);
            if before.contains(&what) {
                tracing::error!(delivery = %delivery.id, ?deadline, "done, and due again");
                return;
            }
            all_done &= settle(shared, &delivery, deadline, &message, now).await;
            done.push(what);
        }
        // What was not done would come again at once.
        if !all_done {
            return;
        }
        before = done;
    }
}

/// Does one thing that is due; whether it was done.
async fn settle(
    shared: &Shared,
    delivery: &Delivery,
    deadline: Deadline,
    message: &Message,
    now: UnixTime,
) -> bool {
    let id = delivery.id;
    let done = match deadline {
        Deadline::Notice => {
            match notice::send(&shared.parts, delivery, message, now).await {
                // Who cannot be told gets the whole message now.
                Err(NoticeError::Address) => {
                    commit(shared, Change::Expired { delivery: id, at: now }, message).await
                }
                // Another relay told them in the same moment.
                Err(NoticeError::NotTaken(Failure::Stale)) => Ok(()),
                told => told.map_err(|error| error.to_string()),
            }
        }
        Deadline::Expire => commit(shared, Change::Expired { delivery: id, at: now }, message).await,
        Deadline::Release => commit(shared, Change::Released { delivery: id }, message).await,
    };
    match done {
        Ok(()) => tracing::info!(delivery = %id, ?deadline, "done"),
        Err(error) => {
            tracing::warn!(delivery = %id, ?deadline, error, "not done yet");
            return false;
        }
    }
    true
}

async fn commit(shared: &Shared, change: Change, message: &Message) -> Result<(), String> {
    shared.parts.ledger.commit_applied(change, message.class).await.map_err(|error| error.to_string())
}

/// Forgets what the storage servers have dropped.
async fn purge(shared: &Shared, now: UnixTime) {
    loop {
        match shared.parts.ledger.read(move |catalog| catalog.purge(now.day(), KEEPER_PAGE_LEN)).await {
            Ok(purged) => {
                for message in &purged.open {
                    tracing::error!(%message, "a message was never taken by the next hop, and its time is over");
                }
                if purged.count < KEEPER_PAGE_LEN {
                    return;
                }
            }
            Err(error) => return tracing::warn!(%error, "what is over is not forgotten yet"),
        }
    }
}
