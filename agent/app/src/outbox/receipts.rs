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
        let known = match store.outgoing(identity.delivery(recipient))? {
            None => store.outgoing(identity.dropped(recipient))?,
            known => known,
        };
        let now = match known.map(|outgoing| outgoing.state) {
            Some(OutgoingState::Waiting | OutgoingState::Preparing) => continue,
            Some(OutgoingState::Released(_)) => Fate::InStore,
            Some(OutgoingState::Failed { reason }) => Fate::NotTaken { why: reason },
            Some(OutgoingState::MailedWhole(_)) => {
                Fate::Whole { why: "their store did not take it in time".to_owned() }
            }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write as _;

    use lighter_protocol::wire::OfferedBlob;
    use lighter_protocol::{Keypair, Mailbox, Receipt, Signed, UnixTime};
    use lighter_store::{Outgoing, Settings};

    use super::super::decide::{Content, Key};
    use super::*;
    use crate::send::Identity;

    #[test]
    fn the_note_says_when_the_store_has_it_and_when_it_never_will() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store"), Settings::default()).unwrap();
        let ledger = Ledger::open(&folder.path().join("records")).unwrap();
        let recipient: Mailbox = "bob@example.org".parse().unwrap();
        let sent = folder.path().join("bob@example.org").join(SENT);
        std::fs::create_dir_all(&sent).unwrap();
        std::fs::write(sent.join("x"), b"x").unwrap();
        let mut record = Record {
            id: 1,
            key: Key { folder: "bob@example.org".into(), name: "a".into() },
            content: Content { is_folder: false, files: Vec::new() },
            identity: Identity::draw(UnixTime(1)),
            to: vec![recipient.clone()],
            subject: String::new(),
            body: String::new(),
            fates: BTreeMap::from([(recipient.clone(), Fate::ToStore)]),
            state: State::Closed { to: "x".into() },
        };
        ledger.put(&record).unwrap();
        let hold = store.hold();
        let mut import = store.import().unwrap();
        import.write_all(b"manifest").unwrap();
        let (id, size) = import.finish(&hold, UnixTime(1)).unwrap();
        let keypair = Keypair::ed25519_from_bytes([1; 32]).unwrap();
        let peer = keypair.public().to_peer_id();
        let delivery = record.identity.delivery(&recipient);
        let mut outgoing = Outgoing {
            delivery,
            sender: "sam@example.org".parse().unwrap(),
            recipient: recipient.clone(),
            store: peer,
            manifest: OfferedBlob { id, size, name: String::new(), media_type: String::new() },
            blobs: Vec::new(),
            introduction: None,
            subject: String::new(),
            created: UnixTime(1),
            expires: UnixTime(2),
            state: OutgoingState::Waiting,
        };
        store.put_outgoing(&outgoing).unwrap();
        assert!(!learn(&store, &mut record).unwrap());
        let receipt = Receipt { delivery, mailbox: recipient, store: peer, manifest: id, time: UnixTime(1) };
        let given = [
            (OutgoingState::Failed { reason: "its time ran out".to_owned() }, "its time ran out"),
            (OutgoingState::Released(Signed::sign(&receipt, &keypair).unwrap()), "are in their store"),
        ];
        for (state, says) in given {
            outgoing.state = state;
            store.put_outgoing(&outgoing).unwrap();
            let mut record = record.clone();
            ledger.put(&record).unwrap();
            assert!(learn(&store, &mut record).unwrap());
            write(&ledger, folder.path(), &record);
            assert!(std::fs::read_to_string(sent.join("x.status.txt")).unwrap().contains(says));
            assert!(ledger.all().is_empty());
        }
    }
}
