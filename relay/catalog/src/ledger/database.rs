//! Changes into the database: gathered, made together in one transaction, tried again until it is known what became of
//! them.
//!
//! One task makes the transactions, one at a time; what comes while one is under way goes into the next. A caller is
//! answered when its change is durable, or when it surely is not; where neither is known in time, it is told so, and the
//! change stays here until it is: then a message is voided, and any other change is made (as with the log).
//!
//! # A primary that goes away
//! is asked again until it, or its standby, answers. What was under way then is settled first
//! ([`PostgresCatalog::settle`]), so nothing is made twice: another relay may have handed a message over, and forgotten
//! it, before this one hears that it was made.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lighter_storage::StoredBlob;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use super::{CommitError, Ledger, Log, LogError, Observer, Submission, Truth};
use crate::limits::{
    APPLY_QUEUE_LEN_MAX, BATCH_BLOBS_MAX, BATCH_LEN_MAX, CHANGE_TIME_MAX_MS, COPIES_LOOKED_AT_MAX,
    DATABASE_RETRY_MAX_MS, DATABASE_RETRY_MIN_MS,
};
use crate::one_copy::{Claims, Gone};
use crate::references::CopyKey;
use crate::{Catalog, CatalogError, Change, CommitFailure, Message, Outcome, PostgresCatalog, Proposal};

/// Times that the copies of a message's attachments are looked at before it keeps its own.
const LOOKS_MAX: usize = 3;

/// A change on its way to the database.
pub(super) struct Request {
    proposal: Proposal,
    /// When its caller is told something.
    deadline: Instant,
    /// None: it was told that it is not known.
    answer: Option<oneshot::Sender<Answer>>,
}

/// What the caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Made,
    Stale,
    LookAgain,
    NotMade,
    InDoubt,
}

impl<L: Log> Ledger<L> {
    /// Opens the catalog in a database, which has the truth from then on; the log holds bytes only.
    pub fn open_database(log: L, catalog: Arc<PostgresCatalog>, observer: Box<Observer>) -> Self {
        let (requests, inbox) = mpsc::channel(APPLY_QUEUE_LEN_MAX);
        let (fail, failed) = watch::channel(false);
        let committer = Committer {
            database: Arc::clone(&catalog),
            observer: observer.into(),
            inbox,
            waiting: VecDeque::new(),
        };
        tokio::spawn(committer.run(fail));
        let truth = Truth::Database(Arc::clone(&catalog), requests);
        Self::over(log, catalog, truth, failed)
    }
}

/// Makes a change, once the blobs that it names are durable.
pub(super) async fn propose<L: Log>(
    ledger: &Ledger<L>,
    database: &Arc<PostgresCatalog>,
    requests: &mpsc::Sender<Request>,
    change: Change,
    with: Submission<L::Blob>,
) -> Result<(), CommitError> {
    let deadline = Instant::now() + Duration::from_millis(CHANGE_TIME_MAX_MS);
    let unavailable = |error: LogError| CommitError::Unavailable(Some(error));
    ledger.log().make_durable(&with.blobs).await.map_err(unavailable)?;
    let own: Vec<StoredBlob> = with.blobs.iter().map(|blob| L::stored(blob).clone()).collect();
    // Of many messages that bring the same attachment to this relay at once, one makes the copy, and the others wait.
    let _claims = match &change {
        Change::Accepted(message) => {
            let claims = ledger.claim(&mut message.clone(), &with.blobs).await;
            // A part that was left out has no copy any more: the next try brings it.
            claims.map_err(|Gone| CommitError::Unavailable(None))?
        }
        _ => Claims::default(),
    };
    for look in 1..=LOOKS_MAX {
        let looked_at = match &change {
            Change::Accepted(message) => look_at_copies(ledger, database, message).await,
            _ => Vec::new(),
        };
        let proposal = Proposal {
            change: change.clone(),
            fences: with.fences.clone(),
            own: own.clone(),
            looked_at,
            keeps_own: look == LOOKS_MAX,
        };
        let (answer, wait) = oneshot::channel();
        let request = Request { proposal, deadline, answer: Some(answer) };
        let sent = tokio::time::timeout_at(deadline, requests.send(request)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return Err(CommitError::Unavailable(None));
        }
        match wait.await {
            Ok(Answer::Made) => {
                if let Some(applied) = with.applied {
                    let _ = applied.send(());
                }
                return Ok(());
            }
            Ok(Answer::Stale) => return Err(CommitError::Stale),
            Ok(Answer::LookAgain) => {}
            // The task that makes the transactions ended: what it was about to make may be made.
            Ok(Answer::InDoubt) | Err(_) => return Err(CommitError::InDoubt(None)),
            Ok(Answer::NotMade) => return Err(CommitError::Unavailable(None)),
        }
    }
    Err(CommitError::Unavailable(None))
}

/// The copies of a message's attachments that are there, and whether each is good enough.
async fn look_at_copies<L: Log>(
    ledger: &Ledger<L>,
    database: &Arc<PostgresCatalog>,
    message: &Message,
) -> Vec<(StoredBlob, bool)> {
    let wanted: Vec<_> = message
        .parts
        .iter()
        .filter_map(|part| Some((part.blob.id, part.blob.location.deletion_day()?)))
        .collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let database = Arc::clone(database);
    let found = tokio::task::spawn_blocking(move || {
        let mut found = Vec::new();
        for (blob, until) in wanted {
            found.extend(database.copies_of(&blob, until, COPIES_LOOKED_AT_MAX)?);
        }
        Ok::<_, CatalogError>(found)
    });
    let found = match found.await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the catalog does not say what is there");
            Vec::new()
        }
        Err(_) => Vec::new(),
    };
    let mut looked_at: Vec<(StoredBlob, bool)> = Vec::with_capacity(found.len());
    for copy in found {
        if !looked_at.iter().any(|(known, _)| CopyKey::of(known) == CopyKey::of(&copy)) {
            let is_kept = ledger.log().is_kept(&copy).await;
            looked_at.push((copy, is_kept));
        }
    }
    looked_at
}

/// The task that makes the transactions.
struct Committer {
    database: Arc<PostgresCatalog>,
    observer: Arc<Observer>,
    inbox: mpsc::Receiver<Request>,
    /// Taken from the inbox, and not in a transaction yet.
    waiting: VecDeque<Request>,
}

/// Another process took this relay's place in the database.
struct Replaced;

impl Committer {
    async fn run(mut self, fail: watch::Sender<bool>) {
        loop {
            let batch = self.next_batch().await;
            if batch.is_empty() {
                return;
            }
            if let Err(Replaced) = self.make(batch).await {
                tracing::error!("another process with this relay's key uses the database");
                fail.send_replace(true);
                return;
            }
        }
    }

    /// What waits, as much as one transaction takes; nothing when nobody is there any more who could ask for anything.
    async fn next_batch(&mut self) -> Vec<Request> {
        if self.waiting.is_empty() {
            let mut batch = Vec::with_capacity(BATCH_LEN_MAX);
            self.inbox.recv_many(&mut batch, BATCH_LEN_MAX).await;
            self.waiting.extend(batch);
        }
        self.take_in();
        let (mut batch, mut blobs) = (Vec::new(), 0);
        while batch.len() < BATCH_LEN_MAX
            && blobs < BATCH_BLOBS_MAX
            && let Some(request) = self.waiting.pop_front()
        {
            blobs += request.proposal.blobs();
            batch.push(request);
        }
        batch
    }

    fn take_in(&mut self) {
        while self.waiting.len() < APPLY_QUEUE_LEN_MAX
            && let Ok(request) = self.inbox.try_recv()
        {
            self.waiting.push_back(request);
        }
    }

    /// Makes a batch, however long that takes: on return, what became of each is known.
    async fn make(&mut self, mut batch: Vec<Request>) -> Result<(), Replaced> {
        let mut doubt: Option<Vec<Outcome>> = None;
        let mut pause = Duration::from_millis(DATABASE_RETRY_MIN_MS);
        while !batch.is_empty() {
            let step = match doubt.take() {
                Some(outcomes) => self.settle(outcomes).await,
                None => self.attempt(&batch).await,
            };
            match step {
                Step::Made(outcomes) => {
                    self.answer(batch, outcomes);
                    return Ok(());
                }
                Step::Unmade => {
                    // Who was told that it is not known has not answered: a message is not made then.
                    batch.retain(|request| request.answer.is_some() || !request.is_message());
                    continue;
                }
                Step::Replaced => return Err(Replaced),
                Step::Refused(error) if batch.len() == 1 => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "the database refuses a change");
                    for request in batch {
                        request.tell(Answer::NotMade);
                    }
                    return Ok(());
                }
                Step::Refused(_) => {
                    // One of them, perhaps: each by itself.
                    for request in batch {
                        Box::pin(self.make(vec![request])).await?;
                    }
                    return Ok(());
                }
                Step::InDoubt(outcomes) => doubt = Some(outcomes),
                Step::Again => {}
            }
            self.tell_late(&mut batch, doubt.is_some());
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(DATABASE_RETRY_MAX_MS));
        }
        Ok(())
    }

    async fn attempt(&self, batch: &[Request]) -> Step {
        let database = Arc::clone(&self.database);
        let proposals: Vec<Proposal> = batch.iter().map(|request| request.proposal.clone()).collect();
        let made = tokio::task::spawn_blocking(move || database.commit(&proposals));
        match made.await {
            Ok(Ok(outcomes)) => Step::Made(outcomes),
            Ok(Err(CommitFailure::InDoubt { outcomes, source })) => {
                let error = &source as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    changes = batch.len(),
                    "the database did not answer a commit: it is found out"
                );
                Step::InDoubt(outcomes)
            }
            Ok(Err(CommitFailure::Replaced)) => Step::Replaced,
            Ok(Err(CommitFailure::NotMade(error @ CatalogError::Unavailable(_)))) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, changes = batch.len(), "the database takes no changes now");
                Step::Again
            }
            Ok(Err(CommitFailure::NotMade(error))) => Step::Refused(error),
            Err(_) => Step::Refused(CatalogError::Damaged("a transaction did not end")),
        }
    }

    /// Finds out whether a transaction was made that would have had these outcomes.
    async fn settle(&self, outcomes: Vec<Outcome>) -> Step {
        let database = Arc::clone(&self.database);
        match tokio::task::spawn_blocking(move || database.settle()).await {
            Ok(Ok(true)) => Step::Made(outcomes),
            Ok(Ok(false)) => Step::Unmade,
            Ok(Err(CommitFailure::Replaced)) => Step::Replaced,
            Ok(Err(_)) | Err(_) => Step::InDoubt(outcomes),
        }
    }

    /// Tells those whose time is over, in the batch and behind it.
    fn tell_late(&mut self, batch: &mut Vec<Request>, in_doubt: bool) {
        let now = Instant::now();
        if in_doubt {
            for request in batch.iter_mut().filter(|request| request.deadline <= now) {
                if let Some(answer) = request.answer.take() {
                    let _ = answer.send(Answer::InDoubt);
                }
            }
        } else {
            tell_not_made(batch, now);
        }
        self.take_in();
        let mut waiting = std::mem::take(&mut self.waiting).into();
        tell_not_made(&mut waiting, now);
        self.waiting = waiting.into();
    }

    fn answer(&mut self, batch: Vec<Request>, outcomes: Vec<Outcome>) {
        for (request, outcome) in batch.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Made(change) => {
                    match &*change {
                        // Nobody was answered, so it must not be.
                        Change::Accepted(message) if request.answer.is_none() => {
                            let voided = Proposal::alone(Change::Voided(message.id));
                            let deadline = request.deadline;
                            self.waiting.push_front(Request { proposal: voided, deadline, answer: None });
                            continue;
                        }
                        change => (self.observer)(change),
                    }
                    request.tell(Answer::Made);
                }
                Outcome::Stale => request.tell(Answer::Stale),
                Outcome::LookAgain => request.tell(Answer::LookAgain),
            }
        }
    }
}

/// What came of a try.
enum Step {
    /// The batch is made, or settled to be.
    Made(Vec<Outcome>),
    /// It is settled not to be.
    Unmade,
    /// It is not known yet.
    InDoubt(Vec<Outcome>),
    /// It was not, and is tried again.
    Again,
    /// It was not, and will not be as it is.
    Refused(CatalogError),
    Replaced,
}

impl Request {
    fn is_message(&self) -> bool {
        matches!(self.proposal.change, Change::Accepted(_))
    }

    fn tell(self, answer: Answer) {
        if let Some(caller) = self.answer {
            let _ = caller.send(answer);
        }
    }
}

/// Tells those whose time is over that their change is not made; those that were told something before stay.
fn tell_not_made(requests: &mut Vec<Request>, now: Instant) {
    let (late, rest) = std::mem::take(requests)
        .into_iter()
        .partition::<Vec<_>, _>(|request| request.deadline <= now && request.answer.is_some());
    *requests = rest;
    for request in late {
        request.tell(Answer::NotMade);
    }
}
