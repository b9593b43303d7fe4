//! A catalog that was in a file, into the database: message by message, each as it stands.
//!
//! What is moved is the state, never the history: another relay on the database works on what is due as soon as it is
//! there, and must not see a message that was handed over long ago as due. How far it came is noted with each page, so an
//! import that was broken off goes on where it stopped; done once, it does nothing.

use lighter_protocol::{DeliveryId, MessageId, Receipt, Signed};

use super::PostgresCatalog;
use super::error::DbError;
use super::leases::Holder;
use super::news::{self, News};
use super::pool::Connection;
use super::working_set::WorkingSet;
use crate::catalog::Catalog;
use crate::limits::IMPORT_PAGE_LEN;
use crate::message::{HandOver, Message, Recipient};
use crate::rows::{Delivery, HandOverState, decode, encode};
use crate::tables::Result;

/// What an import moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Messages of the file that are in the database, those of an earlier try too.
    pub messages: u64,
    /// Deliveries of theirs.
    pub deliveries: u64,
    /// Those among the messages that were moved now.
    pub moved: u64,
    /// Messages that were looked at in the database afterwards, and are what they are in the file.
    pub verified: u64,
}

/// One message with all that hangs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    message: Message,
    hand_overs: Vec<(HandOver, HandOverState)>,
    deliveries: Vec<Delivery>,
    receipts: Vec<(DeliveryId, Signed<Receipt>)>,
}

impl Item {
    fn read(catalog: &dyn Catalog, message: Message) -> Result<Self> {
        let (mut deliveries, mut receipts) = (Vec::new(), Vec::new());
        for delivery in message.recipients.iter().filter_map(Recipient::delivery) {
            deliveries.extend(catalog.delivery(&delivery)?);
            receipts.extend(catalog.receipt_of_drop(&delivery)?.map(|receipt| (delivery, receipt)));
        }
        Ok(Self { hand_overs: catalog.hand_overs(&message.id)?, deliveries, receipts, message })
    }
}

impl PostgresCatalog {
    /// Moves what `from` holds into the database; `told` hears how many messages were moved so far. Another relay may
    /// begin to work on it at once.
    ///
    /// # Errors
    /// See [`CatalogError`](crate::CatalogError): what was moved by then is, and another try goes on from there.
    pub fn import(&self, from: &dyn Catalog, told: &dyn Fn(u64)) -> Result<Imported> {
        let mut imported = Imported::default();
        let done = self.wait(self.ask(async |connection| cursor(connection, &self.holder).await))?;
        let mut after = None;
        loop {
            let page = from.messages(after.as_ref(), IMPORT_PAGE_LEN)?;
            let Some((last, _)) = page.last() else { break };
            let last = last.id;
            let items = page.into_iter().map(|(message, _)| Item::read(from, message));
            let items = items.collect::<Result<Vec<_>>>()?;
            let new: Vec<&Item> = items.iter().filter(|item| done < Some(item.message.id)).collect();
            if !new.is_empty() {
                self.wait(self.change(async |connection| put(connection, &self.holder, &new, last).await))?;
                imported.moved += new.len() as u64;
                told(imported.moved);
            }
            for item in &items {
                imported.messages += 1;
                imported.deliveries += item.deliveries.len() as u64;
                // What another relay has worked on since is not what it was.
                if let Some(message) = self.message(&item.message.id)? {
                    imported.verified += u64::from(Item::read(self, message)? == *item);
                }
            }
            after = Some(last);
        }
        let to = from.checkpoint()?;
        self.apply(&[], Some(&to))?;
        self.wait(self.ask(async |connection| news::tell(connection, &self.holder, &[News::Missed]).await))?;
        Ok(imported)
    }
}

/// The last message that an import of this relay's has moved. None: it has moved nothing.
async fn cursor(
    connection: &mut Connection,
    holder: &Holder,
) -> std::result::Result<Option<MessageId>, DbError> {
    const SELECT: &str = "SELECT value FROM lighter.meta WHERE name = $1";
    let rows = connection.query(SELECT, &[&name(holder)]).await?;
    rows.first().map(|row| Ok(decode(row.try_get(0)?)?)).transpose()
}

async fn put(
    connection: &mut Connection,
    holder: &Holder,
    items: &[&Item],
    last: MessageId,
) -> std::result::Result<(), DbError> {
    const PUT: &str = "INSERT INTO lighter.meta (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    holder.lock_writer(connection).await?;
    let messages = items.iter().map(|item| item.message.id).collect();
    let blobs = items.iter().flat_map(|item| item.message.parts.iter().map(|part| part.blob.id)).collect();
    let mut set = WorkingSet::load(connection, messages, &std::collections::BTreeSet::new(), &blobs).await?;
    for item in items {
        for part in &item.message.parts {
            set.add_copy(&part.blob);
        }
        for (delivery, receipt) in &item.receipts {
            set.add_receipt(*delivery, encode(receipt)?);
        }
        let Item { message, hand_overs, deliveries, receipts } = item;
        set.change(|rows| rows.restore(message, hand_overs, deliveries, receipts))?;
    }
    set.store(connection, holder).await?;
    connection.execute(PUT, &[&name(holder), &encode(&last)?]).await?;
    Ok(())
}

fn name(holder: &Holder) -> String {
    format!("import of {}", holder.relay)
}
