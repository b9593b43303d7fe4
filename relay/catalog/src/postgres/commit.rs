//! A batch of changes as one transaction, made once.

use std::collections::{BTreeMap, BTreeSet};

use lighter_protocol::{BlobId, Day, DeliveryId, MessageId};
use lighter_storage::StoredBlob;

use super::PostgresCatalog;
use super::error::DbError;
use super::leases::Holder;
use super::news::{self, News};
use super::pool::Connection;
use super::queries;
use super::working_set::WorkingSet;
use crate::catalog::Purged;
use crate::leases::Fence;
use crate::message::{Cause, Form, Message, Recipient};
use crate::references::CopyKey;
use crate::rows::encode;
use crate::{CatalogError, Change};

type Result<T> = std::result::Result<T, DbError>;

/// A change that is to be made, and on what conditions.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// What is to be so.
    pub change: Change,
    /// Claims under which it is made: where one of them is over, another relay has the work, and nothing is changed.
    pub fences: Vec<Fence>,
    /// For a message: the copies that it brought itself, durable in the array.
    pub own: Vec<StoredBlob>,
    /// For a message: copies of its attachments that were there before, and whether all that was promised of each is
    /// there.
    pub looked_at: Vec<(StoredBlob, bool)>,
    /// Whether copies that were not looked at are left alone: the message keeps its own then. Otherwise, they are to be.
    pub keeps_own: bool,
}

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is made. A message may name other copies of its attachments than proposed: those that were there (SPEC D8).
    Made(Box<Change>),
    /// It is not: another relay claimed the work, or has done it, meanwhile.
    Stale,
    /// It is not: the copies that are referred to are others than were looked at, or one that the message names is
    /// referred to by nobody any more.
    LookAgain,
}

/// Why a batch came to no end.
#[derive(Debug, thiserror::Error)]
pub enum CommitFailure {
    /// Nothing of it was made.
    #[error(transparent)]
    NotMade(CatalogError),
    /// All of it was made, with these outcomes, or nothing of it: [`PostgresCatalog::settle`] finds out.
    #[error("whether the database committed is not known")]
    InDoubt {
        /// Where it was.
        outcomes: Vec<Outcome>,
        /// What happened.
        source: CatalogError,
    },
    /// Another process with this relay's key took its place: this one must stop.
    #[error("another process with this relay's key uses the database")]
    Replaced,
}

/// The transactions of this start of the relay, by number.
#[derive(Debug, Default)]
pub(super) struct Commits {
    /// That of the last one that was made.
    made: i64,
    /// Whether the one behind it may have been.
    in_doubt: bool,
}

impl Proposal {
    /// A change without conditions.
    pub fn alone(change: Change) -> Self {
        Self { change, fences: Vec::new(), own: Vec::new(), looked_at: Vec::new(), keeps_own: true }
    }

    /// Blobs that it is about, for the bound of a batch.
    pub(crate) fn blobs(&self) -> usize {
        if let Change::Accepted(message) = &self.change { message.parts.len() } else { 0 }
    }
}

impl PostgresCatalog {
    /// Tries once to make changes, in one transaction: all of them that can be made, or none.
    /// Whatever was in doubt before must be settled.
    ///
    /// # Errors
    /// See [`CommitFailure`].
    pub fn commit(&self, proposals: &[Proposal]) -> std::result::Result<Vec<Outcome>, CommitFailure> {
        self.wait(self.commit_once(proposals))
    }

    async fn commit_once(&self, proposals: &[Proposal]) -> std::result::Result<Vec<Outcome>, CommitFailure> {
        let mut commits = self.commits.lock().await;
        if commits.in_doubt {
            let source = CatalogError::Damaged("a transaction was begun while another one was in doubt");
            return Err(CommitFailure::NotMade(source));
        }
        let mut pooled = self.pool.get().await.map_err(failure)?;
        let connection = pooled.get().map_err(failure)?;
        let outcomes = async {
            connection.run("BEGIN").await?;
            self.holder.begin(connection, commits.made).await?;
            apply(connection, &self.holder, proposals, true).await
        };
        let outcomes = match outcomes.await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                if let DbError::Elsewhere(made) = error {
                    tracing::error!(
                        known = commits.made,
                        found = made,
                        "the database is not where it was: was an older state of it brought back?"
                    );
                    commits.made = made;
                }
                return Err(self.failed(error));
            }
        };
        match connection.commit().await {
            Ok(()) => {
                commits.made += 1;
                pooled.done();
                Ok(outcomes)
            }
            Err(error @ DbError::InDoubt(_)) => {
                commits.in_doubt = true;
                self.pool.forget_idle();
                Err(CommitFailure::InDoubt { outcomes, source: error.into() })
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Finds out whether the transaction that was in doubt was made.
    ///
    /// # Errors
    /// Not yet: the database cannot be asked, or the transaction is under way there.
    pub fn settle(&self) -> std::result::Result<bool, CommitFailure> {
        self.wait(async {
            let mut commits = self.commits.lock().await;
            let mut pooled = self.pool.get().await.map_err(failure)?;
            let connection = pooled.get().map_err(failure)?;
            // Its row's lock: whoever is still at it has that.
            let made = self.holder.lock_writer(connection).await.map_err(|error| self.failed(error))?;
            pooled.done();
            let was_made = commits.in_doubt && made > commits.made;
            *commits = Commits { made, in_doubt: false };
            Ok(was_made)
        })
    }

    fn failed(&self, error: DbError) -> CommitFailure {
        self.pool.count_retry();
        if matches!(error, DbError::Lost(_)) {
            self.pool.forget_idle();
        }
        failure(error)
    }
}

fn failure(error: DbError) -> CommitFailure {
    match error {
        DbError::Replaced => CommitFailure::Replaced,
        error => CommitFailure::NotMade(error.into()),
    }
}

/// Makes changes in the transaction that is open. With `choose`, messages refer to the copies that are there; otherwise
/// they are taken as they are.
pub(super) async fn apply(
    connection: &mut Connection,
    holder: &Holder,
    proposals: &[Proposal],
    choose: bool,
) -> Result<Vec<Outcome>> {
    let mut touched = Touched::default();
    for proposal in proposals {
        touched.add(&proposal.change);
    }
    let mut set = WorkingSet::load(connection, touched.messages, &touched.deliveries, &touched.blobs).await?;
    let mut outcomes = Vec::with_capacity(proposals.len());
    for proposal in proposals {
        outcomes.push(make(&mut set, proposal, choose)?);
    }
    set.store(connection, holder).await?;
    let made = outcomes.iter().filter_map(|outcome| match outcome {
        Outcome::Made(change) => Some(&**change),
        Outcome::Stale | Outcome::LookAgain => None,
    });
    news::tell(connection, holder, &News::of(made)).await?;
    Ok(outcomes)
}

fn make(set: &mut WorkingSet, proposal: &Proposal, choose: bool) -> Result<Outcome> {
    let mut change = proposal.change.clone();
    for fence in &proposal.fences {
        if !set.is_held(&fence.message, fence.hand_over, fence.number)? {
            return Ok(Outcome::Stale);
        }
    }
    match &mut change {
        Change::Accepted(message) => {
            if let Some(Cause::Notice { delivery }) = &message.cause
                && choose
                && set.is_noticed(delivery)?
            {
                return Ok(Outcome::Stale);
            }
            if choose && !choose_copies(set, message, proposal)? {
                return Ok(Outcome::LookAgain);
            }
            for part in &message.parts {
                set.add_copy(&part.blob);
            }
        }
        Change::Receipted { delivery, receipt, .. } => set.add_receipt(*delivery, encode(receipt)?),
        _ => {}
    }
    set.change(|rows| rows.apply(&change))?;
    Ok(Outcome::Made(Box::new(change)))
}

/// Sees to it that `message` names copies that somebody refers to, where there are good ones, and its own otherwise. Under
/// the blobs' locks: what is found stays. Whether everything is known that decides it.
// SPEC: D8
fn choose_copies(set: &WorkingSet, message: &mut Message, proposal: &Proposal) -> Result<bool> {
    let mut chosen: BTreeMap<BlobId, StoredBlob> = BTreeMap::new();
    for part in &mut message.parts {
        if let Some(blob) = chosen.get(&part.blob.id) {
            part.blob.clone_from(blob);
            continue;
        }
        if let Some(until) = part.blob.location.deletion_day() {
            let named = CopyKey::of(&part.blob);
            let mut good = Vec::new();
            for copy in set.copies_of(&part.blob.id)? {
                let key = CopyKey::of(&copy);
                let looked = proposal.looked_at.iter().find(|(looked, _)| CopyKey::of(looked) == key);
                match looked {
                    _ if copy.location.deletion_day() < Some(until) => {}
                    // Of this very batch: made by this relay a moment ago.
                    _ if set.is_new(&key) => good.push(copy),
                    Some((_, true)) => good.push(copy),
                    Some((_, false)) => {}
                    None if proposal.keeps_own => {}
                    None => return Ok(false),
                }
            }
            if !good.iter().any(|copy| CopyKey::of(copy) == named) {
                if let Some(other) = good.into_iter().next() {
                    part.blob = other;
                } else if !proposal.own.iter().any(|own| CopyKey::of(own) == named) {
                    return Ok(false);
                }
            }
        }
        chosen.insert(part.blob.id, part.blob.clone());
    }
    Ok(true)
}

/// What changes are about.
#[derive(Default)]
struct Touched {
    messages: BTreeSet<MessageId>,
    deliveries: BTreeSet<DeliveryId>,
    blobs: BTreeSet<BlobId>,
}

impl Touched {
    fn add(&mut self, change: &Change) {
        match change {
            Change::Accepted(message) => {
                self.messages.insert(message.id);
                self.blobs.extend(message.parts.iter().map(|part| part.blob.id));
                // The number of a drop is its sender's choice: what has it already is looked at.
                let drops = message.recipients.iter().filter(|to| matches!(to.form, Form::Drop { .. }));
                self.deliveries.extend(drops.filter_map(Recipient::delivery));
                match &message.cause {
                    Some(Cause::Report { message, .. }) => {
                        self.messages.insert(*message);
                    }
                    Some(Cause::Notice { delivery }) => {
                        self.deliveries.insert(*delivery);
                    }
                    None => {}
                }
            }
            Change::Voided(message)
            | Change::HandedOver { message, .. }
            | Change::HandOverFailed { message, .. } => {
                self.messages.insert(*message);
            }
            Change::Receipted { delivery, .. }
            | Change::Released { delivery }
            | Change::Expired { delivery, .. }
            | Change::TicketRevoked { delivery, .. }
            | Change::TicketRenewed { delivery, .. } => {
                self.deliveries.insert(*delivery);
            }
        }
    }
}

/// Forgets messages whose data is gone by `today`.
pub(super) async fn purge(
    connection: &mut Connection,
    holder: &Holder,
    today: Day,
    count_max: i64,
) -> Result<Purged> {
    const OVER: &str = "SELECT id FROM lighter.messages WHERE last_day < $1 ORDER BY last_day, id LIMIT $2";
    let rows = connection.query(OVER, &[&i64::from(today.0), &count_max]).await?;
    let ids = rows.iter().map(|row| queries::bytes(row, 0).map(MessageId)).collect::<Result<Vec<_>>>()?;
    let over = ids.iter().copied().collect();
    let mut set = WorkingSet::load(connection, over, &BTreeSet::new(), &BTreeSet::new()).await?;
    let mut purged = Purged { count: ids.len(), open: Vec::new() };
    for id in ids {
        if set.progress(&id)?.due > 0 {
            purged.open.push(id);
        }
        set.change(|rows| rows.forget(&id))?;
    }
    set.store(connection, holder).await?;
    Ok(purged)
}
