//! Sends one thing of the outbox by the way of `send`, and keeps on record what became of it for each recipient as it
//! becomes known.
//!
//! What the mail server said is on disk before anything else is done for that recipient. If the agent ends in the moment
//! between, the same message, with the same Message-ID and the same delivery, is submitted once more: of twice or not at
//! all, this is the side that loses nothing. A store takes one delivery once.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use lighter_protocol::Mailbox;
use tokio::sync::mpsc;

use super::record::{Fate, Ledger, Record};
use crate::send::unreachable::Wanted;
use crate::send::{self, Sameness, SendEvent, SendRequest};
use crate::shared::Handle;
use crate::{lookup, send::EVENTS_MAX};

/// Sends it; gives why it did not go to everybody, where that may pass.
pub(crate) async fn send(
    shared: &Handle,
    ledger: &Arc<Ledger>,
    root: &Path,
    record: Record,
) -> Option<String> {
    // Nobody can be looked up before the session is there; without one, the message goes whole (DESIGN §3 rule 5).
    if let Err(why) = lookup::session(shared).await {
        tracing::warn!(%why, "recipients cannot be looked up");
    }
    let request = SendRequest {
        to: record.to.clone(),
        cc: Vec::new(),
        subject: record.subject.clone(),
        body: record.body.clone(),
        files: record.files(root),
        wanted: Wanted::default(),
    };
    let same = Sameness {
        identity: record.identity.clone(),
        done: record.done(),
        files: record.content.files.iter().map(|(_, facts)| *facts).collect(),
    };
    let (events, mut told) = mpsc::channel(EVENTS_MAX);
    let sending = tokio::spawn(send::run_same(shared.clone(), request, same, events));
    let mut story = Story::of(record);
    while let Some(event) = told.recv().await {
        if story.hear(event) {
            put(ledger, story.record.clone()).await;
        }
    }
    match sending.await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => story.why = Some(failure.to_string()),
        Err(_) => story.why = Some("the agent could not go on with it: see its log".to_owned()),
    }
    let why = story.why.unwrap_or_else(|| "it was interrupted".to_owned());
    (!story.record.is_decided()).then_some(why)
}

async fn put(ledger: &Arc<Ledger>, record: Record) {
    let ledger = Arc::clone(ledger);
    let put = tokio::task::spawn_blocking(move || ledger.put(&record)).await;
    if let Ok(Err(error)) = put {
        tracing::warn!(%error, "what was sent from the outbox is not on record: it is sent again after a crash");
    }
}

/// What is heard of a message on its way.
#[derive(Debug)]
struct Story {
    record: Record,
    /// How each recipient's message goes; not on record before the mail server has it.
    ways: HashMap<Mailbox, Fate>,
    /// Whose message follows whole, since their store did not take what their stub speaks of.
    followed: HashSet<Mailbox>,
    /// Why it did not go to somebody, last.
    why: Option<String>,
}

impl Story {
    fn of(record: Record) -> Self {
        Self { record, ways: HashMap::new(), followed: HashSet::new(), why: None }
    }

    /// Takes note; gives whether the record changed.
    fn hear(&mut self, event: SendEvent) -> bool {
        match event {
            SendEvent::ToStore { recipient, .. }
            | SendEvent::Kept { recipient, .. }
            | SendEvent::Dropped { recipient, .. } => {
                self.ways.insert(recipient, Fate::ToStore);
                false
            }
            SendEvent::Whole { recipient, why } => {
                // After its stub was mailed: the store will not take the rest, and the whole message follows.
                let is_mailed = self.record.fates.remove(&recipient).is_some();
                if is_mailed {
                    self.followed.insert(recipient.clone());
                }
                self.ways.insert(recipient, Fate::Whole { why });
                is_mailed
            }
            SendEvent::Mailed { recipient } => {
                let fate = self.ways.get(&recipient).cloned();
                let fate = fate.unwrap_or_else(|| Fate::Whole { why: "its way was not told".to_owned() });
                self.record.fates.insert(recipient, fate);
                true
            }
            SendEvent::Receipted { recipient } => {
                self.record.fates.insert(recipient, Fate::InStore).is_some()
            }
            SendEvent::Failed { recipient, why, temporary: false } => {
                let is_followed = self.followed.contains(&recipient);
                let fate = if is_followed { Fate::NotTaken { why } } else { Fate::Refused { why } };
                self.record.fates.insert(recipient, fate);
                true
            }
            SendEvent::Failed { why, temporary: true, .. } => {
                self.why = Some(why);
                false
            }
            SendEvent::Reading | SendEvent::Pulled { .. } | SendEvent::Waiting { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lighter_protocol::UnixTime;

    use super::super::decide::{Content, Key};
    use super::super::record::State;
    use super::*;
    use crate::send::Identity;

    #[test]
    fn what_is_told_becomes_fates_and_what_may_pass_leaves_none() {
        let recipient: Mailbox = "bob@example.org".parse().unwrap();
        let mut story = Story::of(Record {
            id: 1,
            key: Key { folder: "bob@example.org".into(), name: "a".into() },
            content: Content { is_folder: false, files: Vec::new() },
            identity: Identity::draw(UnixTime(1)),
            to: vec![recipient.clone()],
            subject: String::new(),
            body: String::new(),
            fates: BTreeMap::new(),
            state: State::Pending,
        });
        let to = || recipient.clone();
        let why = || "why".to_owned();
        let mut fate = |event| {
            story.hear(event);
            story.record.fates.get(&recipient).cloned()
        };
        assert_eq!(fate(SendEvent::ToStore { recipient: to(), bytes: 1 }), None, "not mailed yet");
        assert_eq!(fate(SendEvent::Failed { recipient: to(), why: why(), temporary: true }), None);
        assert_eq!(fate(SendEvent::Mailed { recipient: to() }), Some(Fate::ToStore));
        assert_eq!(fate(SendEvent::Waiting { recipient: to(), why: why() }), Some(Fate::ToStore));
        assert_eq!(fate(SendEvent::Receipted { recipient: to() }), Some(Fate::InStore));
        assert_eq!(fate(SendEvent::Whole { recipient: to(), why: why() }), None, "it follows whole");
        let refused = SendEvent::Failed { recipient: to(), why: why(), temporary: false };
        assert_eq!(
            fate(refused),
            Some(Fate::NotTaken { why: why() }),
            "they have a message without attachments"
        );
        assert!(!story.record.is_refused());
    }
}
