//! What becomes of a submitted message: untouched on its way, or each recipient's way on its own (SPEC A1 to A10).
//!
//! The order, where something goes to stores: the message is on record; the stores have answered; those without one are
//! mailed to, whole; then each of the others, with their delivery on record first. Whom the provider has taken it for is
//! put on record at once. Whatever fails here before anything was mailed, the message goes untouched.

use std::collections::BTreeSet;
use std::sync::Arc;

use lighter_mail::client::{Origin, Outcome};
use lighter_mail::notice::{self, Action, DeliveryReport, ReportedRecipient, Stamp};
use lighter_mail::{Envelope, MailFrom, RcptTo, Reply};
use lighter_message::Policy;
use lighter_protocol::{Mailbox, UnixTime};
use tokio::time::timeout;

use super::Settings;
use super::provider::Provider;
use super::record::{Claim, Key, Record};
use crate::acceptance;
use crate::limits::{OUTGOING_LEAVE_TIME_MAX, SUBMISSION_DECIDE_TIME_MAX};
use crate::send::made::Made;
use crate::send::mail::{self, Content};
use crate::send::submitted::{Offered, OfferedStore, Submission, Submitted};
use crate::shared::Handle;

const BEING_SENT: Reply = Reply::fixed(451, 3, 0, "This message is being sent already");
const SENT_BEFORE: Reply = Reply::fixed(250, 0, 0, "Sent before, to everybody");
const PARTLY: Reply =
    Reply::fixed(451, 3, 0, "Sent to some of the recipients only; send it again, and nobody gets it twice");
const NOT_RECORDED: Reply = Reply::fixed(451, 3, 0, "It could not be recorded here; nothing more was sent");

/// Sends a message whose transaction is open at the provider; what its client is told.
pub(super) async fn deliver(
    shared: &Handle,
    settings: &Settings,
    provider: &mut Provider,
    envelope: Envelope,
    made: Made,
    hash: blake3::Hash,
) -> Reply {
    note(shared, settings, &envelope);
    let Some(from) = look_at(shared, settings, &envelope, &made).await else {
        return untouched(shared, provider, &made).await;
    };
    let Some(claim) = settings.records.claim(Key::of(&envelope, &hash)) else {
        provider.abandon();
        return BEING_SENT;
    };
    let claim = Arc::new(claim);
    let now = UnixTime::now();
    let records = settings.records.clone();
    let known = on_disk(&claim, move |claim| {
        if let Err(error) = records.prune(now) {
            tracing::warn!(%error, "records of submitted messages could not be tidied up");
        }
        claim.read(now)
    });
    let record = known.await.flatten().unwrap_or_else(|| Record::new(now));
    let run = Run { shared, settings, provider, envelope, made, claim, record, sent: Sent::default() };
    run.run(from, now).await
}

/// Whom the user of this agent, or somebody it speaks for, writes to may write back.
fn note(shared: &Handle, settings: &Settings, envelope: &Envelope) {
    let from = envelope.mail.path.as_ref().and_then(|path| path.as_str().parse::<Mailbox>().ok());
    let Some(from) = from.filter(|from| from == shared.mailbox() || shared.config.speaks_for(from)) else {
        return;
    };
    let Ok(place) = settings.notes.clone().try_acquire_owned() else { return };
    let recipients: Vec<Mailbox> = envelope.recipients.iter().filter_map(mailbox).collect();
    let shared = shared.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = acceptance::wrote_to(&shared, &from, &recipients) => {}
            () = shared.stop.cancelled() => {}
        }
        drop(place);
    });
}

/// The sender, where the message is one to look at and has something to take out (SPEC A1).
async fn look_at(shared: &Handle, settings: &Settings, envelope: &Envelope, made: &Made) -> Option<Mailbox> {
    let from = envelope.mail.path.as_ref()?.as_str().parse::<Mailbox>().ok()?;
    let policy = policy(shared);
    if !settings.role.looks_at(&from) || made.len() < policy.min_size as u64 {
        return None;
    }
    let made = made.clone();
    shared.blocking(move |_| made.has_attachments(policy)).await.then_some(from)
}

fn policy(shared: &Handle) -> Policy {
    Policy { min_size: shared.config.send.size_bytes_min, ..Policy::default() }
}

/// On in the transaction that is open.
async fn untouched(shared: &Handle, provider: &mut Provider, made: &Made) -> Reply {
    let reply = provider.content(whole(made)).await;
    if reply.is_done() {
        shared.count_submission(|status| status.untouched += 1);
    }
    reply
}

/// The message as the client made it.
fn whole(made: &Made) -> Content {
    let made = made.clone();
    mail::content(move |writer| std::io::copy(&mut made.reader(), writer).map(drop))
}

/// Something to do with the record, on a thread that may wait for the disk.
async fn on_disk<T: Send + 'static>(
    claim: &Arc<Claim>,
    work: impl FnOnce(&Claim) -> T + Send + 'static,
) -> Option<T> {
    let claim = claim.clone();
    tokio::task::spawn_blocking(move || work(&claim)).await.ok()
}

/// One message being sent.
struct Run<'a> {
    shared: &'a Handle,
    settings: &'a Settings,
    provider: &'a mut Provider,
    envelope: Envelope,
    made: Made,
    claim: Arc<Claim>,
    record: Record,
    sent: Sent,
}

/// What was said of it so far.
#[derive(Default)]
struct Sent {
    /// The provider's first yes.
    taken: Option<Reply>,
    /// For whom the provider did not take it, after it had taken it for somebody.
    failures: Vec<(RcptTo, Outcome)>,
    to_store: u64,
    left: u64,
    whole: u64,
}

impl Run<'_> {
    async fn run(mut self, from: Mailbox, now: UnixTime) -> Reply {
        let left: Vec<RcptTo> =
            self.envelope.recipients.iter().filter(|rcpt| !self.has_it(rcpt)).cloned().collect();
        if left.is_empty() {
            self.provider.abandon();
            return SENT_BEFORE;
        }
        if !self.put_on_record().await {
            return if self.is_first() {
                untouched(self.shared, self.provider, &self.made).await
            } else {
                self.provider.abandon();
                NOT_RECORDED
            };
        }
        let (smtp, identity) = (self.settings.smtp.clone(), self.record.identity.clone());
        let submitted = Submitted { from, made: self.made.clone() };
        let needs_password = self.provider.is_authenticated();
        let submission = Submission::new(self.shared, smtp, submitted, identity, needs_password).await;
        let mailboxes: BTreeSet<Mailbox> = left.iter().filter_map(mailbox).collect();
        let mailboxes: Vec<Mailbox> = mailboxes.into_iter().collect();
        let mut offered = match timeout(SUBMISSION_DECIDE_TIME_MAX, submission.offer(&mailboxes)).await {
            Ok(offered) => offered,
            Err(_) => {
                tracing::warn!("looking up and offering took too long: a submitted message goes whole");
                submission.give_up(&mailboxes).await;
                None
            }
        };
        if let Some(offered) = offered.as_mut().filter(|_| self.settings.role.waits_for_relays()) {
            offered.leave(OUTGOING_LEAVE_TIME_MAX).await;
        }
        let stores = offered.as_mut().map_or_else(Vec::new, Offered::take_stores);
        if stores.is_empty() && self.is_first() {
            self.forget().await;
            submission.give_up(&mailboxes).await;
            return untouched(self.shared, self.provider, &self.made).await;
        }
        let (to_store, whole) = ways(left, stores);
        let reply = self.mail(offered.as_ref(), to_store, whole, now).await;
        submission.give_up(&mailboxes).await;
        if self.is_first() {
            self.forget().await; // Nobody has it.
        } else {
            let Sent { to_store, left, whole, .. } = self.sent;
            self.shared.count_submission(|status| {
                status.detached += 1;
                status.recipients_to_store += to_store;
                status.recipients_left += left;
                status.recipients_whole += whole;
            });
        }
        reply
    }

    /// Mails it to everybody, each their own way; what the client is told.
    async fn mail(
        &mut self,
        offered: Option<&Offered>,
        to_store: Vec<(RcptTo, OfferedStore)>,
        whole: Vec<RcptTo>,
        now: UnixTime,
    ) -> Reply {
        if !whole.is_empty()
            && let Err(refused) = self.mail_whole(whole).await
        {
            if let Some(offered) = offered {
                for (_, store) in &to_store {
                    offered.withdraw(store).await;
                }
            }
            return refused;
        }
        let mut to_store = to_store.into_iter();
        while let (Some(offered), Some((rcpt, store))) = (offered, to_store.next()) {
            if let Err(refused) = self.mail_stub(offered, rcpt, store).await {
                for (_, store) in to_store {
                    offered.withdraw(&store).await;
                }
                return refused;
            }
        }
        let taken = self.sent.taken.clone().unwrap_or(PARTLY);
        if self.sent.failures.is_empty() || self.report(now).await { taken } else { PARTLY }
    }

    /// All of it in one transaction.
    ///
    /// # Errors
    /// What the client is told where nobody has got it by this try: nothing more is to be sent.
    async fn mail_whole(&mut self, recipients: Vec<RcptTo>) -> Result<(), Reply> {
        let mail = MailFrom { size: Some(self.made.len()), ..self.envelope.mail.clone() };
        let envelope = Envelope { mail, recipients: recipients.clone() };
        let outcomes = self.provider.send(envelope, whole(&self.made)).await;
        let before = self.record.done.len();
        self.take_note(recipients, outcomes).await?;
        self.sent.whole += (self.record.done.len() - before) as u64;
        Ok(())
    }

    /// One recipient's stub, the delivery on record first.
    ///
    /// # Errors
    /// As [`Run::mail_whole`].
    async fn mail_stub(&mut self, offered: &Offered, rcpt: RcptTo, store: OfferedStore) -> Result<(), Reply> {
        if let Err(why) = offered.promise(&store).await {
            tracing::warn!(recipient = %store.recipient, %why, "a delivery could not be recorded: it goes whole");
            offered.withdraw(&store).await;
            return self.mail_whole(vec![rcpt]).await;
        }
        let mail = MailFrom { size: None, ..self.envelope.mail.clone() };
        let envelope = Envelope { mail, recipients: vec![rcpt.clone()] };
        let outcomes = self.provider.send(envelope, offered.stub(&store)).await;
        let refused =
            outcomes.first().is_some_and(|outcome| outcome.from == Origin::Peer && !outcome.is_delivered());
        let is_taken = outcomes.first().is_some_and(Outcome::is_delivered);
        if is_taken {
            tracing::debug!(bytes = offered.bytes(), "attachments go to a store");
            let count = if store.is_left() { &mut self.sent.left } else { &mut self.sent.to_store };
            *count += 1;
            offered.follow(store);
        } else if refused {
            offered.withdraw(&store).await;
        }
        // Otherwise the stub may have arrived: its delivery goes on, and the next try is of the same one.
        self.take_note(vec![rcpt], outcomes).await
    }

    /// Takes note of what the provider said.
    ///
    /// # Errors
    /// As [`Run::mail_whole`].
    async fn take_note(&mut self, recipients: Vec<RcptTo>, outcomes: Vec<Outcome>) -> Result<(), Reply> {
        let is_taken = outcomes.iter().any(Outcome::is_delivered);
        if !is_taken && self.sent.taken.is_none() {
            let refused = outcomes.into_iter().next();
            return Err(refused.map_or(PARTLY, |outcome| outcome.reply));
        }
        for (rcpt, outcome) in recipients.into_iter().zip(outcomes) {
            if outcome.is_delivered() {
                self.record.done.insert(rcpt.address.key());
                self.sent.taken.get_or_insert(outcome.reply);
            } else {
                self.sent.failures.push((rcpt, outcome));
            }
        }
        if is_taken {
            // Not recorded, a second try would be sent twice; that is no reason to tell the client no.
            self.put_on_record().await;
        }
        Ok(())
    }

    /// Tells the sender by mail who does not get it; whether that mail went.
    async fn report(&mut self, now: UnixTime) -> bool {
        let Some(sender) = self.envelope.mail.path.clone() else { return true };
        let server = &self.settings.smtp.server;
        let host = server.rsplit_once(':').map_or(server.as_str(), |(host, _)| host);
        let wants = |rcpt: &RcptTo| rcpt.notify.is_none_or(|notify| notify.failure);
        let recipients: Vec<ReportedRecipient<'_>> = self
            .sent
            .failures
            .iter()
            .filter(|(rcpt, _)| wants(rcpt))
            .map(|(rcpt, outcome)| ReportedRecipient {
                address: &rcpt.address,
                orcpt: rcpt.orcpt.as_ref(),
                action: Action::Failed,
                reply: &outcome.reply,
                remote: (outcome.from == Origin::Peer).then_some(host),
            })
            .collect();
        if recipients.is_empty() {
            return true;
        }
        let made = self.made.clone();
        let beginning = self.shared.blocking(move |_| made.beginning()).await.unwrap_or_default();
        let report = DeliveryReport {
            to: &sender,
            envid: self.envelope.mail.envid.as_ref(),
            arrived: now,
            recipients: &recipients,
            header: header(&beginning),
        };
        let stamp = Stamp { host_name: self.shared.mailbox().domain(), now, chance: rand::random() };
        let report = report.message(&stamp);
        let envelope = notice::envelope(&sender);
        // From nobody, as reports are; a provider may let its users send in their own name only.
        let own_name = MailFrom { path: Some(sender), ..envelope.mail.clone() };
        for mail in [envelope.mail.clone(), own_name] {
            let envelope = Envelope { mail, ..envelope.clone() };
            let report = report.clone();
            let outcomes =
                self.provider.send(envelope, mail::content(move |writer| writer.write_all(&report))).await;
            if outcomes.iter().all(Outcome::is_delivered) {
                return true;
            }
        }
        tracing::warn!("a report about a submitted message could not be mailed");
        false
    }

    /// Whether nobody has the message so far.
    fn is_first(&self) -> bool {
        self.record.done.is_empty()
    }

    fn has_it(&self, rcpt: &RcptTo) -> bool {
        self.record.done.contains(&rcpt.address.key())
    }

    async fn put_on_record(&self) -> bool {
        let record = self.record.clone();
        let written = on_disk(&self.claim, move |claim| claim.write(&record)).await;
        match written {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                tracing::warn!(%error, "a submitted message could not be put on record");
                false
            }
            None => false,
        }
    }

    async fn forget(&self) {
        on_disk(&self.claim, Claim::forget).await;
    }
}

/// Who gets a stub, and who all of it.
fn ways(left: Vec<RcptTo>, stores: Vec<OfferedStore>) -> (Vec<(RcptTo, OfferedStore)>, Vec<RcptTo>) {
    let mut stores: Vec<Option<OfferedStore>> = stores.into_iter().map(Some).collect();
    let (mut to_store, mut whole) = (Vec::new(), Vec::new());
    for rcpt in left {
        let wanted = mailbox(&rcpt);
        let is_theirs = |store: &&mut Option<OfferedStore>| {
            store.as_ref().map(|store| &store.recipient) == wanted.as_ref()
        };
        match wanted.as_ref().and_then(|_| stores.iter_mut().find(is_theirs)).and_then(Option::take) {
            Some(store) => to_store.push((rcpt, store)),
            None => whole.push(rcpt),
        }
    }
    (to_store, whole)
}

/// The recipient as the location server knows them; none where it cannot.
fn mailbox(rcpt: &RcptTo) -> Option<Mailbox> {
    rcpt.address.as_str().parse().ok()
}

/// The header, without the empty line behind it.
fn header(beginning: &[u8]) -> &[u8] {
    let end = beginning.windows(4).position(|window| window == b"\r\n\r\n");
    end.and_then(|end| beginning.get(..end + 2)).unwrap_or(beginning)
}
