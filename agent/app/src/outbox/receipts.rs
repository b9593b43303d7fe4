//! What becomes of attachments that stores were still to take when their file was moved to `sent`: the note there says it.

use std::path::Path;
use std::sync::Arc;

use lighter_store::{OutgoingState, Store, StoreError};

use super::names::SENT;
use super::notes;
use super::record::{Fate, Ledger, Record, State};
use crate::shared::Handle;

/// Looks at the deliveries of everything that waits, and writes the notes of those that changed.
pub(crate) async fn note(shared: &Handle, ledger: &Arc<Ledger>, root: &Path) {
    let waiting: Vec<Record> =
        ledger.all().into_iter().filter(|record| matches!(record.state, State::Closed { .. })).collect();
    if waiting.is_empty() {
        return;
    }
    let (ledger, root) = (Arc::clone(ledger), root.to_owned());
    let noted = shared.blocking(move |store| {
        for mut record in waiting {
            if learn(store, &mut record)? {
                write(&ledger, &root, &record);
            }
        }
        Ok::<_, StoreError>(())
    });
    if let Err(error) = noted.await {
        tracing::warn!(%error, "what became of what was sent from the outbox cannot be looked at");
    }
}

/// What the store has on record of its deliveries; gives whether that is news.
fn learn(store: &Store, record: &mut Record) -> Result<bool, StoreError> {
    let mut news = false;
    let identity = &record.identity;
    for (recipient, fate) in record.fates.iter_mut().filter(|(_, fate)| **fate == Fate::ToStore) {
        let now = match store.outgoing(identity.delivery(recipient))?.map(|outgoing| outgoing.state) {
            Some(OutgoingState::Waiting | OutgoingState::Preparing) => continue,
            Some(OutgoingState::Released(_)) => Fate::InStore,
            Some(OutgoingState::Failed { reason }) => Fate::NotTaken { why: reason },
            None => Fate::NotTaken { why: "it is not offered to them any more".to_owned() },
        };
        *fate = now;
        news = true;
    }
    Ok(news)
}

fn write(ledger: &Ledger, root: &Path, record: &Record) {
    let State::Closed { to } = &record.state else { return };
    let sent = root.join(&record.key.folder).join(SENT);
    let is_here = std::fs::symlink_metadata(sent.join(to)).is_ok();
    let noted = notes::put(&sent, to, &notes::sent(record, is_here));
    let kept = if record.waits_for_stores() { ledger.put(record) } else { ledger.remove(record.id) };
    if let Err(error) = noted.and(kept) {
        tracing::warn!(%error, "a note in the outbox could not be written");
    }
}
