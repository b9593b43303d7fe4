//! Sending a message with files (SPEC A1 to A10): for each recipient on their own, the attachments go to the
//! recipient's store while the message with placeholders goes by mail, or all of it goes by mail.
//!
//! The order, for a recipient with a store: the store is found and pinged, the delivery is offered, the store takes it;
//! then it is recorded as one whose message goes out, and only then its message is mailed. A store that cannot be
//! reached, or does not take it, costs nothing: the message goes whole. What is recorded is offered until it is
//! receipted, by this process or the next one.

mod compose;
mod identity;
pub(crate) mod made;
pub(crate) mod mail;
mod spool;
pub(crate) mod submitted;
pub mod unreachable;
mod words;

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lighter_message::Policy;
use lighter_protocol::{DeliveryId, Mailbox, PeerId, UnixTime};
use lighter_store::{Outgoing, OutgoingState};
use lighter_transport::location::{Presence, StoreRecord};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::acceptance;
use crate::config::SmtpConfig;
use crate::drops;
use crate::failure::Failure;
use crate::finding;
use crate::limits::{
    BODY_LEN_MAX, DIAL_TIME_MAX, FILES_MAX, OFFER_ANSWER_TIME_MAX, OUTGOING_LIFE, RECIPIENTS_MAX,
    SUBJECT_CHARS_MAX, WRITTEN_TO_TIME_MAX,
};
use crate::offers::{self, Attempt, Stage};
use crate::shared::Handle;
use crate::sharing;
use compose::Draft;
pub use identity::{FileFacts, Identity, Sameness};
use mail::{Content, Fate};
use spool::Spooled;
pub(crate) use spool::write_original;
use unreachable::{Next, Wanted};

/// Events that wait for the command to show them.
pub const EVENTS_MAX: usize = 64;

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendRequest {
    /// To whom.
    pub to: Vec<Mailbox>,
    /// To whom besides.
    pub cc: Vec<Mailbox>,
    /// What it is about.
    pub subject: String,
    /// Its text.
    pub body: String,
    /// Its attachments: absolute paths.
    pub files: Vec<PathBuf>,
    /// What happens where a recipient's store cannot be reached, if not what is configured.
    #[serde(default)]
    pub wanted: Wanted,
}

/// What happens to a message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum SendEvent {
    /// The attachments are being read.
    Reading,
    /// The recipient's store takes the attachments: their message goes with placeholders.
    ToStore {
        /// Who.
        recipient: Mailbox,
        /// Bytes of the attachments.
        bytes: u64,
    },
    /// The recipient's store cannot be reached now: the attachments wait here, their message goes with placeholders.
    Kept {
        /// Who.
        recipient: Mailbox,
        /// Bytes of the attachments.
        bytes: u64,
        /// What is not taken until then goes whole by mail.
        until: UnixTime,
        /// Why it cannot be reached.
        why: String,
    },
    /// The recipient's store cannot be reached now: the attachments are left, sealed, with a relay of its domain, and the
    /// message goes with placeholders.
    Dropped {
        /// Who.
        recipient: Mailbox,
        /// Bytes of the attachments.
        bytes: u64,
        /// The relay keeps them until then.
        until: UnixTime,
    },
    /// All of it goes by mail.
    Whole {
        /// Who.
        recipient: Mailbox,
        /// Why.
        why: String,
    },
    /// The mail server took the message.
    Mailed {
        /// For whom.
        recipient: Mailbox,
    },
    /// The store pulled so much.
    Pulled {
        /// Whose store.
        recipient: Mailbox,
        /// Bytes served.
        bytes: u64,
    },
    /// The store has everything, durable; nothing is kept here any more.
    Receipted {
        /// Whose store.
        recipient: Mailbox,
    },
    /// The store went away before it had everything: a running agent goes on.
    Waiting {
        /// Whose store.
        recipient: Mailbox,
        /// Why.
        why: String,
    },
    /// The message did not go.
    Failed {
        /// For whom.
        recipient: Mailbox,
        /// Why.
        why: String,
        /// Whether trying again may help.
        temporary: bool,
    },
}

impl SendRequest {
    /// The recipients, each once.
    fn recipients(&self) -> Vec<Mailbox> {
        let mut seen = BTreeSet::new();
        self.to.iter().chain(&self.cc).filter(|mailbox| seen.insert(*mailbox)).cloned().collect()
    }

    fn check(&self) -> Result<(), Failure> {
        if self.to.is_empty() && self.cc.is_empty() {
            return Err(Failure::wrong_use("nobody to send it to"));
        }
        let recipients = self.recipients().len();
        if recipients > RECIPIENTS_MAX {
            return Err(Failure::wrong_use(format!(
                "{recipients} recipients, the members of groups among them: more than {RECIPIENTS_MAX}"
            )));
        }
        if self.files.len() > FILES_MAX {
            return Err(Failure::wrong_use(format!("more than {FILES_MAX} files")));
        }
        if self.body.len() as u64 > BODY_LEN_MAX {
            return Err(Failure::wrong_use(format!("a text of more than {BODY_LEN_MAX} bytes: attach it")));
        }
        if self.subject.chars().count() > SUBJECT_CHARS_MAX || self.subject.chars().any(char::is_control) {
            return Err(Failure::wrong_use("a subject is one line, not too long"));
        }
        for path in &self.files {
            let metadata = std::fs::metadata(path)
                .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
            if !metadata.is_file() {
                return Err(Failure::failed(format!("{} is not a file", path.display())));
            }
        }
        Ok(())
    }
}

/// Sends a message, telling what happens; returns when every recipient's way has come to an end, or waits for a later
/// try.
///
/// # Errors
/// Where it cannot be sent to anybody at all. What becomes of each recipient is told by events.
pub async fn run(
    shared: Handle,
    request: SendRequest,
    events: mpsc::Sender<SendEvent>,
) -> Result<(), Failure> {
    run_same(shared, request, Sameness::new(UnixTime::now()), events).await
}

/// As [`run`], for a message that may have been tried before: it is the very same message again, with the same
/// Message-ID and deliveries, for those recipients who are not known to have it.
///
/// # Errors
/// As [`run`].
pub async fn run_same(
    shared: Handle,
    request: SendRequest,
    same: Sameness,
    events: mpsc::Sender<SendEvent>,
) -> Result<(), Failure> {
    let request = tokio::task::spawn_blocking(move || request.check().map(|()| request));
    let request = request.await.map_err(Failure::failed)??;
    let smtp = shared.config.smtp.clone();
    let smtp =
        smtp.ok_or_else(|| Failure::wrong_use("no mail server: run `setup` with --smtp, or set [smtp]"))?;
    let recipients = request.recipients();
    let draft = Draft {
        from: shared.mailbox().clone(),
        to: request.to,
        cc: request.cc,
        subject: request.subject,
        body: request.body,
        files: request.files,
        made: None,
        expected: same.files,
        date: same.identity.date,
        unique: same.identity.unique(),
    };
    let recipients = recipients.into_iter().filter(|recipient| !same.done.contains(recipient)).collect();
    let (identity, wanted) = (same.identity, request.wanted);
    let shown = draft.shown();
    let sending = Arc::new(Sending { shared, smtp, draft, identity, shown, wanted, events });
    sending.run(recipients).await;
    Ok(())
}

/// One message being sent.
struct Sending {
    shared: Handle,
    smtp: SmtpConfig,
    draft: Draft,
    identity: Identity,
    /// Whom its header shows.
    shown: BTreeSet<Mailbox>,
    wanted: Wanted,
    events: mpsc::Sender<SendEvent>,
}

/// A recipient's store.
#[derive(Clone)]
struct Found {
    peer: PeerId,
    /// Whether the location server's word that it is online is enough (SPEC A4): it was not asked itself.
    trusted: bool,
    /// Why it cannot be relied on now.
    unreached: Option<String>,
    /// What the location server says of it, where it cannot and a relay of its domain may take things for it.
    leave: Option<Box<StoreRecord>>,
}

/// What look-ups gave.
#[derive(Default)]
struct LookedUp {
    found: HashMap<Mailbox, Found>,
    /// Who could not be asked about, and why.
    unasked: HashMap<Mailbox, String>,
}

/// How a recipient's message goes.
enum Way {
    Store {
        delivery: DeliveryId,
        stages: watch::Receiver<Stage>,
    },
    /// The attachments wait here until their store takes them.
    Kept {
        delivery: DeliveryId,
        stages: watch::Receiver<Stage>,
        until: UnixTime,
        why: String,
    },
    /// The attachments are to be left with a relay of the recipient's domain; none: an earlier try has left them.
    Relay {
        record: Option<Box<StoreRecord>>,
        why: String,
    },
    Whole {
        why: String,
    },
}

/// What became of a message that was handed to the mail server: the worst over all recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mailed {
    All,
    /// The mail server said so, or was not even there.
    Refused,
    /// It was lost before the mail server said what it did.
    Unknown,
}

impl Sending {
    async fn run(self: Arc<Self>, recipients: Vec<Mailbox>) {
        let earlier = self.earlier(&recipients).await;
        let noting = tokio::spawn(note(self.shared.clone(), recipients.clone()));
        let LookedUp { found: stores, unasked } = self.look_up(&recipients).await;
        let is_for_stores =
            !earlier.is_empty() || stores.iter().any(|(recipient, store)| self.may_go_to(recipient, store));
        let spooled = if is_for_stores { self.spool().await } else { None };
        // Offers first, all at once; who is not offered to, or does not take it, is told why.
        let mut offering = JoinSet::new();
        for recipient in recipients {
            if let (Some(Ok(spooled)), Some(outgoing)) = (&spooled, earlier.get(&recipient))
                && spooled.is_of(outgoing)
            {
                let is_left = outgoing.delivery == self.identity.dropped(&recipient);
                let way = if is_left {
                    Way::Relay { record: None, why: String::new() }
                } else {
                    self.go_on(outgoing.clone())
                };
                offering.spawn(async move { (recipient, way) });
                continue;
            }
            let way = match (&spooled, stores.get(&recipient)) {
                (Some(Ok(spooled)), Some(store)) => Ok((Arc::clone(spooled), store.clone())),
                (Some(Err(why)), Some(_)) => Err(why.clone()),
                (None, Some(Found { unreached: Some(why), .. })) => Err(why.clone()),
                _ if !self.draft.has_attachments() => Err("it has no attachments".to_owned()),
                _ => Err(match unasked.get(&recipient) {
                    Some(why) => format!("it could not be asked where the recipient's store is: {why}"),
                    None => "the recipient has no store that can be reached from here".to_owned(),
                }),
            };
            let sending = Arc::clone(&self);
            offering.spawn(async move {
                let way = match way {
                    Ok((spooled, Found { peer, trusted: true, .. })) => {
                        sending.trust(&recipient, peer, &spooled).await
                    }
                    Ok((spooled, Found { peer, unreached: None, .. })) => {
                        sending.offer(&recipient, peer, &spooled).await
                    }
                    Ok((spooled, Found { peer, unreached: Some(why), leave, .. })) => {
                        sending.keep(&recipient, peer, leave, &spooled, why).await
                    }
                    Err(why) => Way::Whole { why },
                };
                (recipient, way)
            });
        }
        let mut following = JoinSet::new();
        let mut whole = Vec::new();
        while let Some(offered) = offering.join_next().await {
            let Ok((recipient, way)) = offered else { continue };
            match (way, &spooled) {
                (Way::Store { delivery, stages }, Some(Ok(spooled))) => {
                    let (sending, spooled) = (Arc::clone(&self), Arc::clone(spooled));
                    following.spawn(async move {
                        let bytes = spooled.bytes();
                        sending.tell(SendEvent::ToStore { recipient: recipient.clone(), bytes }).await;
                        sending.deliver(recipient, delivery, stages, &spooled).await;
                    });
                }
                (Way::Kept { delivery, stages, until, why }, Some(Ok(spooled))) => {
                    let (sending, spooled) = (Arc::clone(&self), Arc::clone(spooled));
                    following.spawn(async move {
                        let bytes = spooled.bytes();
                        sending
                            .tell(SendEvent::Kept { recipient: recipient.clone(), bytes, until, why })
                            .await;
                        sending.deliver(recipient, delivery, stages, &spooled).await;
                    });
                }
                // Each on its own: sealing and leaving may take long, and nobody else waits for it.
                (Way::Relay { record, why }, Some(Ok(spooled))) => {
                    let (sending, spooled) = (Arc::clone(&self), Arc::clone(spooled));
                    following.spawn(async move { sending.leave(recipient, record, why, &spooled).await });
                }
                (Way::Store { .. } | Way::Kept { .. } | Way::Relay { .. }, _) => {}
                (Way::Whole { why }, _) => {
                    self.tell(SendEvent::Whole { recipient: recipient.clone(), why }).await;
                    whole.push(recipient);
                }
            }
        }
        if !whole.is_empty() {
            self.mail(&whole, self.whole_content(spooled.as_ref().and_then(|spooled| spooled.as_ref().ok())))
                .await;
        }
        while following.join_next().await.is_some() {}
        if let Some(Ok(spooled)) = spooled {
            self.clean_up(&spooled).await;
        }
        let _ = timeout(WRITTEN_TO_TIME_MAX, noting).await;
    }

    async fn tell(&self, event: SendEvent) {
        // A command that went away is told nothing; the message goes on.
        let _ = self.events.send(event).await;
    }

    /// The deliveries that an earlier try of the same message put on record as mailed: their stubs may have arrived, so
    /// they stay the way to these recipients.
    async fn earlier(&self, recipients: &[Mailbox]) -> HashMap<Mailbox, Outgoing> {
        let wanted: Vec<(Mailbox, DeliveryId)> = recipients
            .iter()
            .flat_map(|recipient| {
                let deliveries = [self.identity.delivery(recipient), self.identity.dropped(recipient)];
                deliveries.map(|delivery| (recipient.clone(), delivery))
            })
            .collect();
        let found = self.shared.blocking(move |store| {
            let mut found = HashMap::new();
            for (recipient, delivery) in wanted {
                if let Some(outgoing) = store.outgoing(delivery)?
                    && matches!(outgoing.state, OutgoingState::Waiting | OutgoingState::Released(_))
                {
                    found.insert(recipient, outgoing);
                }
            }
            Ok::<_, lighter_store::StoreError>(found)
        });
        found.await.unwrap_or_else(|error| {
            tracing::warn!(%error, "earlier tries of this message cannot be looked at");
            HashMap::new()
        })
    }

    /// Goes on with a delivery that an earlier try began.
    fn go_on(&self, outgoing: Outgoing) -> Way {
        let delivery = outgoing.delivery;
        let stages = match outgoing.state {
            OutgoingState::Released(_) => {
                watch::channel(Stage { attempt: Attempt::Released, ..Stage::default() }).1
            }
            _ => offers::begin(&self.shared, outgoing),
        };
        Way::Store { delivery, stages }
    }

    /// Whether the attachments may go to a recipient's store, now or later.
    fn may_go_to(&self, recipient: &Mailbox, store: &Found) -> bool {
        store.unreached.is_none()
            || match self.decide(recipient, 0) {
                Next::Retry(_) => true,
                Next::Drop => store.leave.is_some(),
                Next::Whole { .. } => false,
            }
    }

    /// What is done where a recipient's store cannot be reached.
    fn decide(&self, recipient: &Mailbox, bytes: u64) -> Next {
        unreachable::decide(&self.shared.config.send.rules(), self.wanted, recipient, bytes)
    }

    /// The recipients' stores, and which of them can be relied on now (SPEC A2 to A4). Whatever fails, the message goes
    /// whole (DESIGN §3 rule 5).
    async fn look_up(&self, recipients: &[Mailbox]) -> LookedUp {
        let mut looked_up = LookedUp::default();
        if !self.draft.has_attachments() {
            return looked_up;
        }
        let mut pings = JoinSet::new();
        for (recipient, record) in finding::look_up(&self.shared, &self.draft.from, recipients).await {
            let record = match record {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(why) => {
                    looked_up.unasked.insert(recipient, why);
                    continue;
                }
            };
            let found = &mut looked_up.found;
            if self.shared.config.send.trust_presence && record.presence == Presence::Online {
                let found_it = Found { peer: record.peer, trusted: true, unreached: None, leave: None };
                found.insert(recipient.clone(), found_it);
                continue;
            }
            let (shared, sender) = (self.shared.clone(), self.draft.from.clone());
            pings.spawn(async move {
                let reached = crate::ways::reach(&shared, &sender, &recipient, &record).await;
                (recipient, record, reached)
            });
        }
        let found = &mut looked_up.found;
        while let Some(pinged) = pings.join_next().await {
            match pinged {
                Ok((recipient, record, Ok(reached))) => {
                    reached.connection.close();
                    let peer = record.peer;
                    found.insert(recipient, Found { peer, trusted: false, unreached: None, leave: None });
                }
                Ok((recipient, record, Err(why))) => {
                    tracing::info!(%recipient, %why, "the store is not relied on");
                    let (peer, unreached) = (record.peer, Some(why.to_string()));
                    let leave = drops::is_possible(&self.shared, &record).then(|| Box::new(record));
                    found.insert(recipient, Found { peer, trusted: false, unreached, leave });
                }
                Err(_) => {}
            }
        }
        looked_up
    }

    /// Takes the attachments into the store; none where policy lets nothing go.
    async fn spool(&self) -> Option<Result<Arc<Spooled>, String>> {
        self.tell(SendEvent::Reading).await;
        let policy = Policy { min_size: self.shared.config.send.size_bytes_min, ..Policy::default() };
        let draft = self.draft.clone();
        match self.shared.blocking(move |store| spool::spool(store, &draft, policy)).await {
            Ok(spooled) if spooled.blobs.is_empty() => Some(Err("its attachments are small".to_owned())),
            Ok(spooled) => Some(Ok(Arc::new(spooled))),
            Err(error) => {
                tracing::warn!(%error, "the attachments could not be taken into the store");
                Some(Err(format!("the own store could not take the attachments: {error}")))
            }
        }
    }

    /// Puts a delivery on record, not mailed yet.
    ///
    /// # Errors
    /// Why it goes whole.
    async fn prepare(
        &self,
        recipient: &Mailbox,
        store: PeerId,
        spooled: &Spooled,
        life: Duration,
    ) -> Result<Outgoing, String> {
        // The same for each try: a store that took an earlier one goes on with it.
        let delivery = self.identity.delivery(recipient);
        let known = self.shared.blocking(move |store| store.outgoing(delivery)).await;
        if !matches!(known, Ok(None)) {
            return Err("an earlier try of it did not get to their store".to_owned());
        }
        let share = self.shared.config.send.share;
        let is_shown = sharing::shown::may_share(&self.shown, recipient, share);
        self.put(delivery, recipient, store, spooled, life, is_shown).await
    }

    /// Puts a delivery of this number on record; `is_shown`: with the recipient as one who may share it.
    async fn put(
        &self,
        delivery: DeliveryId,
        recipient: &Mailbox,
        store: PeerId,
        spooled: &Spooled,
        life: Duration,
        is_shown: bool,
    ) -> Result<Outgoing, String> {
        let now = UnixTime::now();
        let outgoing = Outgoing {
            delivery,
            sender: self.draft.from.clone(),
            recipient: recipient.clone(),
            store,
            manifest: spooled.manifest.clone(),
            blobs: spooled.blobs.clone(),
            introduction: None,
            subject: spooled.summary.subject.clone().unwrap_or_default(),
            created: now,
            expires: now.plus(life),
            state: OutgoingState::Preparing,
        };
        let recorded = outgoing.clone();
        let put = self.shared.blocking(move |store| match is_shown {
            true => store.put_outgoing_shown(&recorded),
            false => store.put_outgoing(&recorded),
        });
        let put = put.await;
        put.map_err(|error| format!("it could not be recorded: {error}"))?;
        Ok(outgoing)
    }

    /// Leaves one recipient's attachments with a relay of their domain, and mails the stub once the relay has them; where
    /// it does not take them, the message goes whole.
    async fn leave(
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
    async fn put_and_leave(
        &self,
        delivery: DeliveryId,
        recipient: &Mailbox,
        record: &StoreRecord,
        spooled: &Spooled,
    ) -> Result<drops::Left, String> {
        let outgoing = self.put(delivery, recipient, record.peer, spooled, OUTGOING_LIFE, false).await?;
        drops::leave(&self.shared, &outgoing, record).await.map_err(|why| why.to_string())
    }

    /// Offers to one recipient's store on the location server's word that it is online (SPEC A4): the message does not wait for the
    /// store's answer. Where that does not come, the attachments wait here as long as any that are retried, and then the
    /// message goes whole.
    async fn trust(&self, recipient: &Mailbox, store: PeerId, spooled: &Arc<Spooled>) -> Way {
        let life = self.wanted.time(&self.shared.config.send.rules());
        match self.prepare(recipient, store, spooled, life).await {
            Ok(outgoing) => {
                let delivery = outgoing.delivery;
                Way::Store { delivery, stages: offers::begin(&self.shared, outgoing) }
            }
            Err(why) => Way::Whole { why },
        }
    }

    /// Offers to one recipient's store, and waits for its answer.
    async fn offer(&self, recipient: &Mailbox, store: PeerId, spooled: &Arc<Spooled>) -> Way {
        let outgoing = match self.prepare(recipient, store, spooled, OUTGOING_LIFE).await {
            Ok(outgoing) => outgoing,
            Err(why) => return Way::Whole { why },
        };
        let delivery = outgoing.delivery;
        let mut stages = offers::begin(&self.shared, outgoing);
        let answered = stages.wait_for(|stage| stage.attempt != Attempt::Looking);
        let attempt = match timeout(DIAL_TIME_MAX + OFFER_ANSWER_TIME_MAX, answered).await {
            Ok(Ok(stage)) => stage.attempt.clone(),
            Ok(Err(_)) | Err(_) => {
                Attempt::Waiting { why: "the recipient's store did not answer in time".to_owned() }
            }
        };
        match attempt {
            Attempt::Pulling | Attempt::Released => Way::Store { delivery, stages },
            Attempt::Looking => {
                self.keep_on(recipient, delivery, spooled, "the recipient's store did not answer".to_owned())
                    .await
            }
            Attempt::Waiting { why } => self.keep_on(recipient, delivery, spooled, why).await,
            Attempt::Failed { why } | Attempt::MailedWhole { why } => self.withdraw(delivery, why).await,
        }
    }

    /// For a recipient whose store cannot be reached: the attachments are left with a relay of theirs, or wait here, if they
    /// may (SPEC A7).
    async fn keep(
        &self,
        recipient: &Mailbox,
        store: PeerId,
        leave: Option<Box<StoreRecord>>,
        spooled: &Spooled,
        why: String,
    ) -> Way {
        let life = match self.decide(recipient, spooled.bytes()) {
            Next::Retry(life) => life,
            Next::Drop => {
                return match leave {
                    Some(record) => Way::Relay { record: Some(record), why },
                    None => Way::Whole { why },
                };
            }
            Next::Whole { too_large } => return Way::Whole { why: because(why, too_large) },
        };
        match self.prepare(recipient, store, spooled, life).await {
            Ok(outgoing) => {
                let (delivery, until) = (outgoing.delivery, outgoing.expires);
                Way::Kept { delivery, stages: offers::begin(&self.shared, outgoing), until, why }
            }
            Err(why) => Way::Whole { why },
        }
    }

    /// The same for a delivery that was offered, and not answered.
    async fn keep_on(
        &self,
        recipient: &Mailbox,
        delivery: DeliveryId,
        spooled: &Spooled,
        why: String,
    ) -> Way {
        let life = match self.decide(recipient, spooled.bytes()) {
            Next::Retry(life) => life,
            // The store may have begun on it: what it knows is not left elsewhere under another number.
            Next::Drop => return self.withdraw(delivery, why).await,
            Next::Whole { too_large } => return self.withdraw(delivery, because(why, too_large)).await,
        };
        self.shared.offers.cancel(&delivery);
        let until = UnixTime::now().plus(life);
        let changed = move |store: &lighter_store::Store| {
            store.change_outgoing(delivery, |outgoing| outgoing.expires = until)
        };
        match self.shared.blocking(changed).await {
            Ok(outgoing) => Way::Kept { delivery, stages: offers::begin(&self.shared, outgoing), until, why },
            Err(error) => Way::Whole { why: format!("it could not be recorded: {error}") },
        }
    }

    /// The delivery is not offered any more: its message goes whole. It stays on record until that is done.
    async fn withdraw(&self, delivery: DeliveryId, why: String) -> Way {
        self.shared.offers.cancel(&delivery);
        Way::Whole { why }
    }

    /// Mails one recipient's stub, then follows the pull.
    async fn deliver(
        &self,
        recipient: Mailbox,
        delivery: DeliveryId,
        stages: watch::Receiver<Stage>,
        spooled: &Arc<Spooled>,
    ) {
        // On record before the mail server can have the stub: a stub without its delivery would never be whole. The
        // other way round costs nothing: a delivery that no message speaks of is pulled, and that is all.
        let waiting = |outgoing: &mut Outgoing| {
            if outgoing.state == OutgoingState::Preparing {
                outgoing.state = OutgoingState::Waiting;
            }
        };
        let recorded = self.shared.blocking(move |store| store.change_outgoing(delivery, waiting)).await;
        if let Err(error) = recorded {
            self.shared.offers.cancel(&delivery);
            let why = format!("the own store could not record it: {error}");
            self.tell(SendEvent::Whole { recipient: recipient.clone(), why }).await;
            self.mail(&[recipient], self.whole_content(Some(spooled))).await;
            return;
        }
        let (store, of) = (self.shared.store.clone(), Arc::clone(spooled));
        let stub = mail::content(move |writer| spool::write_stub(&store, &of, delivery, writer));
        match self.mail(std::slice::from_ref(&recipient), stub).await {
            Mailed::All => self.follow(recipient, stages, spooled).await,
            // The stub may have arrived: the delivery goes on, and whoever sends again makes another one.
            Mailed::Unknown => {}
            Mailed::Refused => {
                self.shared.offers.cancel(&delivery);
                let removed = self.shared.blocking(move |store| store.remove_outgoing(delivery)).await;
                if let Err(error) = removed {
                    tracing::warn!(%delivery, %error, "a delivery without a message stays on record");
                }
            }
        }
    }

    /// Follows a pull until the receipt; a store that will not take it after all gets the message whole.
    async fn follow(&self, recipient: Mailbox, mut stages: watch::Receiver<Stage>, spooled: &Arc<Spooled>) {
        loop {
            let Stage { served, attempt, .. } = stages.borrow_and_update().clone();
            match attempt {
                Attempt::Released => {
                    self.tell(SendEvent::Receipted { recipient }).await;
                    return;
                }
                Attempt::Waiting { why } => {
                    self.tell(SendEvent::Waiting { recipient, why }).await;
                    return;
                }
                Attempt::MailedWhole { why } => {
                    self.tell(SendEvent::Whole { recipient: recipient.clone(), why }).await;
                    self.tell(SendEvent::Mailed { recipient }).await;
                    return;
                }
                Attempt::Failed { why } => {
                    self.tell(SendEvent::Whole { recipient: recipient.clone(), why }).await;
                    self.mail(&[recipient], self.whole_content(Some(spooled))).await;
                    return;
                }
                Attempt::Looking | Attempt::Pulling => {
                    let bytes = served.values().sum();
                    self.tell(SendEvent::Pulled { recipient: recipient.clone(), bytes }).await;
                }
            }
            if stages.changed().await.is_err() {
                return;
            }
        }
    }

    /// The whole message: from the store where its attachments are there, else from the files themselves.
    fn whole_content(&self, spooled: Option<&Arc<Spooled>>) -> Content {
        match spooled {
            Some(spooled) => {
                let (store, spooled) = (self.shared.store.clone(), Arc::clone(spooled));
                mail::content(move |writer| write_original(&store, spooled.manifest.id, writer))
            }
            None => {
                let draft = self.draft.clone();
                mail::content(move |writer| std::io::copy(&mut draft.reader(), writer).map(|_| ()))
            }
        }
    }

    /// Hands one message to the mail server, and tells what became of it.
    async fn mail(&self, recipients: &[Mailbox], content: Content) -> Mailed {
        let fates = match mail::send(&self.smtp, &self.draft.from, recipients, content).await {
            Ok(fates) => fates,
            Err(failure) => {
                let (why, temporary) = (failure.to_string(), failure.is_temporary());
                for recipient in recipients.iter().cloned() {
                    self.tell(SendEvent::Failed { recipient, why: why.clone(), temporary }).await;
                }
                return Mailed::Refused;
            }
        };
        let mut mailed = Mailed::All;
        for (recipient, fate) in recipients.iter().cloned().zip(fates) {
            let failure = match fate {
                Fate::Taken => {
                    self.tell(SendEvent::Mailed { recipient }).await;
                    continue;
                }
                Fate::Refused(failure) => {
                    mailed = mailed.max(Mailed::Refused);
                    failure
                }
                Fate::Unknown(failure) => {
                    mailed = Mailed::Unknown;
                    failure
                }
            };
            let (why, temporary) = (failure.to_string(), failure.is_temporary());
            self.tell(SendEvent::Failed { recipient, why, temporary }).await;
        }
        mailed
    }

    /// Forgets deliveries that were withdrawn: what the store kept for them goes, unless another one needs it.
    async fn clean_up(&self, spooled: &Spooled) {
        let manifest = spooled.manifest.id;
        let cleaned = self
            .shared
            .blocking(move |store| {
                for outgoing in store.all_outgoing()? {
                    if outgoing.manifest.id == manifest && outgoing.state == OutgoingState::Preparing {
                        store.remove_outgoing(outgoing.delivery)?;
                    }
                }
                Ok::<_, lighter_store::StoreError>(())
            })
            .await;
        if let Err(error) = cleaned {
            tracing::warn!(%error, "what was not offered stays until the next start");
        }
    }
}

/// Who is written to may write back.
async fn note(shared: Handle, recipients: Vec<Mailbox>) {
    acceptance::wrote_to(&shared, shared.mailbox(), &recipients).await;
}

/// Why a message goes whole whose recipient's store cannot be reached.
fn because(why: String, too_large: bool) -> String {
    if too_large { format!("{why}, and its attachments are larger than may wait for it") } else { why }
}

/// Hands one message to the user's mail server for one recipient, outside of any sending.
///
/// # Errors
/// Temporary where trying again may help.
pub(crate) async fn mail_one(
    shared: &Handle,
    from: &Mailbox,
    to: &Mailbox,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()> + Send + 'static,
) -> Result<(), Failure> {
    let smtp = shared.config.smtp.as_ref();
    let smtp = smtp.ok_or_else(|| Failure::wrong_use("no mail server is set: [smtp]"))?;
    let fates = mail::send(smtp, from, std::slice::from_ref(to), mail::content(write)).await?;
    match fates.into_iter().next() {
        Some(Fate::Taken) => Ok(()),
        Some(Fate::Refused(failure)) => Err(failure),
        Some(Fate::Unknown(failure)) => Err(Failure::temporary(failure)),
        None => Err(Failure::failed("the mail server said nothing of it")),
    }
}
