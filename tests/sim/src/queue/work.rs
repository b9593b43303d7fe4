//! The relay's work: handing over, offering and being pulled from, letting go.

use std::time::Duration;

use lighter_catalog::{Catalog, Change, Deadline, Delivery, DueHandOver, Position};
use lighter_protocol::offer::Delivery as Offered;
use lighter_protocol::wire::{Answer, OfferedBlob, Response};
use lighter_protocol::{BlobId, DeliveryId, MessageId, Receipt, Signed};
use lighter_queue::{Command, Deliveries, HandOvers, Retry, Task};
use lighter_storage::sim::NOW;
use lighter_storage::{Class, StoredBlob};
use rand::RngExt;

use super::model::{alice, class_of, read};
use super::world::World;

impl World {
    /// Everything that is due goes to the next hop, as the relay does it.
    pub(super) async fn hand_over(&mut self) {
        let mut queue = HandOvers::<DueHandOver>::default();
        while let Some(task) = queue.poll() {
            let Some(relay) = &self.relay else { return };
            // What cannot be written down is not handed over.
            if !relay.log.array().expect("it lives").status().writable {
                return;
            }
            match task {
                Task::Fetch { count_max, except } => {
                    let now = self.now().wall;
                    let page = relay.view.due(now, count_max, &except).unwrap();
                    queue.handle_page(page.into_iter().map(|due| (due.message, due)).collect(), None);
                }
                Task::HandOver { message, due } => {
                    if !self.hand_over_one(message, due).await {
                        return;
                    }
                    queue.handle_done(&message);
                }
            }
        }
    }

    /// Whether the queue may go on.
    pub(super) async fn hand_over_one(&mut self, id: MessageId, due: Vec<DueHandOver>) -> bool {
        let mut taken = Vec::new();
        for due in due {
            let key = (id, due.hand_over);
            assert!(!self.model.handed_over.contains(&key), "{key:?}: handed over, and again");
            if self.chance.random_range(0..5) == 0 {
                let attempts = due.attempts + 1;
                let retry = Retry::after(attempts, NOW, None, self.now().wall, &mut self.chance);
                let Retry::At(next) = retry else { panic!("given up after minutes") };
                let Some(relay) = &self.relay else { return false };
                relay.view.postpone(&id, &[due.hand_over], attempts, next).unwrap();
                continue;
            }
            *self.model.taken.entry(key).or_default() += 1;
            taken.push(due.hand_over);
        }
        if taken.is_empty() {
            return true;
        }
        let change = Change::HandedOver { message: id, hand_overs: taken.clone(), at: self.now().wall };
        let written = self.commit(change, class_of(&id)).await;
        for hand_over in taken {
            if written {
                self.model.handed_over.insert((id, hand_over));
            } else {
                *self.model.windows.entry((id, hand_over)).or_default() += 1;
            }
        }
        written
    }

    /// Whether the relay heard that it is written down; sometimes it is killed while it waits for that.
    pub(super) async fn commit(&mut self, change: Change, class: Class) -> bool {
        let Some(relay) = &self.relay else { return false };
        let ledger = relay.ledger.clone();
        let committing = async move { ledger.commit_applied(change, class).await };
        if self.chance.random_range(0..12) != 0 {
            return committing.await.is_ok();
        }
        let task = tokio::spawn(committing);
        for _ in 0..self.chance.random_range(0..100) {
            tokio::task::yield_now().await;
        }
        self.kill().await;
        task.abort();
        matches!(task.await, Ok(Ok(())))
    }

    /// Alice's store comes, and pulls what it is offered.
    pub(super) async fn session(&mut self) {
        let mut queue = Deliveries::new(None);
        self.sessions += 1;
        queue.handle_session(&alice(), self.store.public().to_peer_id(), self.sessions, self.now());
        while let Some(command) = queue.poll() {
            let Some(relay) = &self.relay else { return };
            match command {
                Command::Fetch { mailbox, after, count_max } => {
                    let after = after.map(|(accepted, delivery)| Position { accepted, delivery });
                    let rows = relay.view.waiting(&mailbox, after, count_max).unwrap();
                    let more = rows.len() == count_max;
                    let page = rows.iter().map(|row| ((row.accepted, row.id), self.facts(row))).collect();
                    let now = self.now();
                    queue.handle_page(&mailbox, page, more, now, &mut self.chance);
                }
                Command::Offer { offer, .. } => {
                    let id = offer.delivery;
                    assert!(!self.model.receipted.contains(&id), "{id}: receipted, and offered again");
                    let pull = Response::Answer(offer.blobs.iter().map(|_| Answer::Pull).collect());
                    queue.handle_response(&id, &pull, self.now());
                    // A store that goes away in the middle comes again with the next session.
                    if self.chance.random_range(0..10) == 0 || !self.pull(id, offer.manifest.id).await {
                        return;
                    }
                    queue.handle_ended(&id, self.now());
                }
                Command::Probe { .. } | Command::FetchMailboxes { .. } => {}
            }
        }
    }

    pub(super) fn facts(&self, row: &Delivery) -> Offered {
        let view = &self.relay.as_ref().unwrap().view;
        let message = view.message(&row.message).unwrap().expect("a message goes with its delivery");
        let blob = |stored: &StoredBlob| OfferedBlob {
            id: stored.id,
            size: stored.size,
            name: String::new(),
            media_type: String::new(),
        };
        Offered {
            id: row.id,
            mailbox: row.mailbox.clone(),
            manifest: blob(&message.manifest),
            blobs: message.parts.iter().map(|part| blob(&part.blob)).collect(),
            sources: Vec::new(),
            expires: row.expires.end(),
        }
    }

    /// Pulls all of a delivery and brings the receipt; whether that was written down.
    pub(super) async fn pull(&mut self, id: DeliveryId, manifest: BlobId) -> bool {
        let Some(relay) = &self.relay else { return false };
        let message = relay.view.message(&MessageId(id.0)).unwrap().expect("what is offered is there");
        let sent = self.model.sent[&message.id].clone();
        let array = relay.log.array().expect("it lives");
        for (blob, data) in [(&message.manifest, &sent.manifest), (&message.parts[0].blob, &sent.part)] {
            match read(&array, blob).await {
                Ok(found) => assert!(found == *data, "{id}: not what was sent"),
                Err(_) => return false, // servers are away
            }
        }
        drop(array);
        let receipt = Receipt {
            delivery: id,
            mailbox: alice(),
            store: self.store.public().to_peer_id(),
            manifest,
            time: self.now().wall,
        };
        let receipt = Signed::sign(&receipt, &self.store).unwrap();
        self.model.receipts.insert(id);
        let release = self.now().wall.plus(Duration::from_secs(60));
        let class = class_of(&message.id);
        let written = self.commit(Change::Receipted { delivery: id, receipt, release }, class).await;
        if written {
            self.model.receipted.insert(id);
        }
        written
    }

    /// What is receipted and has been kept long enough is let go of.
    pub(super) async fn release(&mut self) {
        loop {
            let Some(relay) = &self.relay else { return };
            let due = relay.view.deadlines(self.now().wall, 10).unwrap();
            if due.is_empty() {
                return;
            }
            for (delivery, deadline) in due {
                assert_eq!(deadline, Deadline::Release, "nothing lapses within a day");
                assert!(self.model.receipts.contains(&delivery.id), "let go of without a receipt");
                let class = class_of(&delivery.message);
                if !self.commit(Change::Released { delivery: delivery.id }, class).await {
                    return;
                }
                self.model.released.insert(delivery.id);
            }
        }
    }
}
