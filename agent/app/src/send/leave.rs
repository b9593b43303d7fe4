//! Attachments that are left, sealed, with a relay of the recipient's domain, and the stub that goes out once it has them.

use std::sync::Arc;

use lighter_protocol::{DeliveryId, Mailbox, UnixTime};
use lighter_store::{Outgoing, OutgoingState};
use lighter_transport::location::StoreRecord;

use super::mailing::Mailed;
use super::spool::{self, Spooled};
use super::{SendEvent, Sending, mail};
use crate::drops;
use crate::limits::OUTGOING_LIFE;

impl Sending {
    /// Leaves one recipient's attachments with a relay of their domain, and mails the stub once the relay has them; where
    /// it does not take them, the message goes whole.
    pub(super) async fn leave(
        &self,
        recipient: Mailbox,
        record: Option<Box<StoreRecord>>,
        why: String,
        spooled: &Arc<Spooled>,
    ) {
        let delivery = self.identity.dropped(&recipient);
        let left = match record {
            Some(record) => self.leave_with(delivery, &recipient, &record, spooled).await,
            None => Ok(UnixTime::now().plus(OUTGOING_LIFE)),
        };
        let until = match left {
            Ok(until) => until,
            Err(not_left) => {
                drops::take_back(&self.shared, delivery).await;
                let why = format!("{why}, and {not_left}");
                self.tell(SendEvent::Whole { recipient: recipient.clone(), why }).await;
                self.mail(&[recipient], self.whole_content(Some(spooled))).await;
                return;
            }
        };
        let bytes = spooled.bytes();
        self.tell(SendEvent::Dropped { recipient: recipient.clone(), bytes, until }).await;
        let (store, of) = (self.shared.store.clone(), Arc::clone(spooled));
        let stub = mail::content(move |writer| spool::write_stub(&store, &of, delivery, writer));
        match self.mail(std::slice::from_ref(&recipient), stub).await {
            Mailed::All | Mailed::Unknown => self.shared.drops.tell_left(),
            // What is left is fetched, and no message speaks of it.
            Mailed::Refused => drops::take_back(&self.shared, delivery).await,
        }
    }

    /// The same up to where the relay has everything, and the delivery is on record as one whose message goes out.
    async fn leave_with(
        &self,
        delivery: DeliveryId,
        recipient: &Mailbox,
        record: &StoreRecord,
        spooled: &Spooled,
    ) -> Result<UnixTime, String> {
        let left = self.put_and_leave(delivery, recipient, record, spooled).await?;
        let waiting = |outgoing: &mut Outgoing| {
            if outgoing.state == OutgoingState::Preparing {
                outgoing.state = OutgoingState::Waiting;
            }
        };
        let recorded = self.shared.blocking(move |store| store.change_outgoing(delivery, waiting)).await;
        recorded.map_err(|error| format!("the own store could not record it: {error}"))?;
        Ok(left.until)
    }

    /// The same up to where the relay has everything; no message goes out yet.
    pub(super) async fn put_and_leave(
        &self,
        delivery: DeliveryId,
        recipient: &Mailbox,
        record: &StoreRecord,
        spooled: &Spooled,
    ) -> Result<drops::Left, String> {
        let outgoing = self.put(delivery, recipient, record.peer, spooled, OUTGOING_LIFE, false).await?;
        drops::leave(&self.shared, &outgoing, record).await.map_err(|why| why.to_string())
    }
}
