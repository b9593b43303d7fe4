//! What a running relay answers to `queue`, `array`, `catalog` and `ticket`.

mod array;

use lighter_catalog::{Change, Delivery, Ledger};
use lighter_protocol::DeliveryId;
use lighter_protocol::ticket::TicketKey;
use lighter_storage::Array;
use serde_json::json;

use super::key_change::KeyChange;
use crate::control::{Answers, Question, Reply};
use crate::upkeep::Jobs;

/// Answers from array and catalog.
pub(super) struct Answering {
    array: Array,
    ledger: Ledger<Array>,
    tickets: TicketKey,
    retrieval_url: String,
    jobs: Jobs,
    keys: KeyChange,
}

impl Answering {
    pub(super) fn new(
        array: Array,
        ledger: Ledger<Array>,
        tickets: TicketKey,
        retrieval_url: String,
        jobs: Jobs,
        keys: KeyChange,
    ) -> Self {
        Self { array, ledger, tickets, retrieval_url, jobs, keys }
    }

    async fn queue(&self) -> Reply {
        match self.ledger.read(|catalog| catalog.counts()).await {
            Ok(counts) => Reply::Answer(json!({
                "deliveries_waiting": counts.waiting,
                "bytes_waiting": counts.waiting_bytes,
                "deliveries_receipted": counts.receipted,
                "hand_overs_waiting": counts.hand_overs,
            })),
            Err(error) => Reply::Error(error.to_string()),
        }
    }

    async fn catalog(&self) -> Reply {
        let (behind, in_doubt) = self.ledger.backlog();
        match self.ledger.read(|catalog| catalog.counts()).await {
            Ok(counts) => Reply::Answer(json!({
                "messages": counts.messages,
                "deliveries_waiting": counts.waiting,
                "deliveries_receipted": counts.receipted,
                "deliveries_released": counts.released,
                "hand_overs_waiting": counts.hand_overs,
                "attachments_referred": counts.references,
                "attachments_referred_bytes": counts.references_bytes,
                "attachments_kept": counts.copies,
                "attachments_kept_bytes": counts.copies_bytes,
                "changes_behind": behind,
                "changes_in_doubt": in_doubt,
            })),
            Err(error) => Reply::Error(error.to_string()),
        }
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Delivery, Reply> {
        match self.ledger.read(move |catalog| catalog.delivery(&id)).await {
            Ok(Some(delivery)) => Ok(delivery),
            Ok(None) => Err(Reply::Error(format!("there is no delivery {id}"))),
            Err(error) => Err(Reply::Error(error.to_string())),
        }
    }

    async fn ticket(&self, id: DeliveryId) -> Reply {
        match self.delivery(id).await {
            Ok(delivery) => {
                let token = self.tickets.ticket(&id, delivery.generation).to_text();
                Reply::Answer(json!({
                    "delivery": id.to_string(),
                    "mailbox": delivery.mailbox.to_string(),
                    "link": format!("{}/t/{token}/", self.retrieval_url),
                }))
            }
            Err(reply) => reply,
        }
    }

    async fn revoke(&self, id: DeliveryId) -> Reply {
        let delivery = match self.delivery(id).await {
            Ok(delivery) => delivery,
            Err(reply) => return reply,
        };
        let id_of_message = delivery.message;
        let message = match self.ledger.read(move |catalog| catalog.message(&id_of_message)).await {
            Ok(Some(message)) => message,
            Ok(None) => return Reply::Error(format!("there is no message of delivery {id}")),
            Err(error) => return Reply::Error(error.to_string()),
        };
        let change = Change::TicketRevoked { delivery: id, generation: delivery.generation };
        match self.ledger.commit_applied(change, message.class).await {
            Ok(()) => Reply::Answer(json!({ "delivery": id.to_string(), "ticket": "revoked" })),
            Err(error) => Reply::Error(format!("{error}: try again")),
        }
    }
}

impl Answers for Answering {
    async fn answer(&self, question: Question) -> Reply {
        match question {
            Question::Queue => self.queue().await,
            Question::Array => Reply::Answer(array::describe(&self.array)),
            Question::Change { change } => array::change(&self.array, &change).await,
            Question::Catalog => self.catalog().await,
            Question::Keys => Reply::Answer(self.keys.status()),
            Question::Rotate => match self.keys.begin().await {
                Ok(()) => Reply::Answer(self.keys.status()),
                Err(error) => Reply::Error(error),
            },
            Question::Ticket { delivery } => self.ticket(delivery).await,
            Question::Revoke { delivery } => self.revoke(delivery).await,
            Question::Begin { task } => match self.jobs.begin(task) {
                Some(job) => Reply::Answer(json!({ "job": job })),
                None => Reply::Error("the relay is at another check of the catalog: try again".to_owned()),
            },
            Question::Job { job } => Reply::Answer(self.jobs.look(job)),
        }
    }
}
