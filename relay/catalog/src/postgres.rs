//! The catalog in PostgreSQL: past one machine, it is the truth, and the log holds bytes only (SPEC D10).
//!
//! # Schema
//! Tables of their own in the schema `lighter` (`postgres/schema_1.sql`), made at the first start and brought up to
//! date at later ones; a database that is ahead of the program is refused. What is asked for has a column and an index;
//! a message itself is one value, as it was accepted. Partial indexes hold what waits, what is due and what has a
//! deadline, and nothing else: a million waiting deliveries cost disk. (Partitions by deletion day were considered:
//! every look-up is by id, which would have to go through all of them, and ids could be unique in each only.)
//!
//! # Transitions
//! What a change does is decided in `apply.rs`, for every engine. Here, a batch of changes is one transaction: the rows
//! of the messages that it touches are locked and read (`working_set`), the changes are applied to them in memory, and
//! what came out different is written, each kind of row in one statement. So a batch costs a dozen round trips however
//! large it is, and engines cannot come to differ in what a change means.
//!
//! Locks are taken in one order: the relay's own row, messages by id, hand-overs, blobs. Nobody waits in a circle.
//!
//! # Sync
//! A change is durable when its transaction committed (`synchronous_commit` is at least `on`, so a synchronous standby
//! has it). The answer to a commit can get lost. Each transaction of [`PostgresCatalog::commit`] moves a number in the
//! relay's own row from n to n + 1; afterwards that row says whether it was made, once its lock can be had: a
//! transaction that is still under way has it, and one that comes too late finds another number.
//!
//! # Leases
//! See `leases`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lighter_protocol::{BlobId, Day, DeliveryId, Mailbox, MessageId, Receipt, Signed, TicketHash, UnixTime};
use lighter_storage::{Sequence, StoredBlob};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::catalog::{Catalog, DueHandOver, KeptCopy, Purged};
use crate::leases::{ClaimedDeliveries, ClaimedHandOvers, Fence};
use crate::limits::{
    DATABASE_CONNECTIONS_MAX, DATABASE_RETRY_MAX_MS, DATABASE_RETRY_MIN_MS, PAGE_LEN_MAX,
    QUESTION_TIME_MAX_MS,
};
use crate::message::{HandOver, Message};
use crate::references::CopyKey;
use crate::rows::{Counts, Deadline, Delivery, HandOverState, Position};
use crate::tables::{CatalogError, Result};
use crate::{Change, Checkpoint, Disagreement, EmbeddedCatalog};

mod claims;
mod commit;
mod config;
mod error;
mod import;
mod leases;
mod news;
mod pool;
mod queries;
mod schema;
mod state;
mod working_set;

pub use commit::{CommitFailure, Outcome, Proposal};
pub use config::{DatabaseConfigError, DatabaseTls, PostgresConfig};
pub use import::Imported;
pub use news::News;
pub use pool::DatabaseCounters;
pub use state::{DatabaseState, KnownRelay};

use commit::Commits;
use error::DbError;
use leases::Holder;
use pool::{Connection, Pool};

/// A catalog in a PostgreSQL database. Its calls wait for the database: never from a task that others wait for.
pub struct PostgresCatalog {
    pool: Pool,
    runtime: Handle,
    holder: Arc<Holder>,
    commits: tokio::sync::Mutex<Commits>,
}

/// Why the catalog in a database was not opened.
#[derive(Debug, thiserror::Error)]
pub enum PostgresOpenError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] DatabaseConfigError),
    /// The database was made by a later version of this program.
    #[error(
        "the database has version {found} of the catalog's tables, this program knows {known}: use a later one"
    )]
    TooNew {
        /// What is there.
        found: i32,
        /// What this program knows.
        known: i32,
    },
    /// The database cannot be asked, or refuses.
    #[error(transparent)]
    Database(#[from] CatalogError),
}

impl From<DbError> for PostgresOpenError {
    fn from(error: DbError) -> Self {
        Self::Database(error.into())
    }
}

impl PostgresCatalog {
    /// Opens the catalog: its tables are made where there are none, and this relay is known from then on.
    ///
    /// # Errors
    /// See [`PostgresOpenError`].
    pub async fn open(config: &PostgresConfig) -> std::result::Result<Self, PostgresOpenError> {
        config.check()?;
        let connections = config.connections.clamp(2, DATABASE_CONNECTIONS_MAX);
        let pool = Pool::new(config.client()?, config.connector()?, connections);
        let mut connection = pool.connect().await?;
        schema::bring_up_to_date(&mut connection).await?;
        let holder = Arc::new(Holder::register(&mut connection, config).await?);
        drop(connection);
        tokio::spawn(leases::keep(Arc::downgrade(&holder), pool.clone()));
        Ok(Self { pool, runtime: Handle::current(), holder, commits: tokio::sync::Mutex::default() })
    }

    /// What went on between the relay and its database: for metrics.
    pub fn counters(&self) -> DatabaseCounters {
        self.pool.counters()
    }

    /// Lets the lease run out.
    #[cfg(test)]
    pub(crate) fn forget_lease(&self) {
        self.holder.stop();
    }

    /// What other relays tell, from now on.
    pub fn news(&self) -> tokio::sync::mpsc::Receiver<News> {
        news::listen(&self.holder, self.pool.clone(), &self.runtime)
    }

    /// Every relay that ever used this database, this one too.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn relays(&self) -> Result<Vec<KnownRelay>> {
        self.wait(self.ask(async |connection| state::relays(connection).await))
    }

    /// How the database is set up, for whoever runs it; nothing is changed in it, and this relay is not known to it.
    ///
    /// # Errors
    /// See [`PostgresOpenError`].
    pub async fn look(config: &PostgresConfig) -> std::result::Result<DatabaseState, PostgresOpenError> {
        config.check()?;
        let pool = Pool::new(config.client()?, config.connector()?, 1);
        let mut connection = pool.connect().await?;
        Ok(state::read(&mut connection).await?)
    }

    /// Asks the database, again where it is away for a moment.
    async fn ask<R>(
        &self,
        question: impl AsyncFn(&mut Connection) -> std::result::Result<R, DbError>,
    ) -> Result<R> {
        retrying(&self.pool, Duration::from_millis(QUESTION_TIME_MAX_MS), async || {
            let mut pooled = self.pool.get().await?;
            let answer = question(pooled.get()?).await?;
            pooled.done();
            Ok(answer)
        })
        .await
        .map_err(CatalogError::from)
    }

    /// Does something in one transaction, again where it was not made; what may have been made and was not answered is
    /// done again: only for what may.
    async fn change<R>(
        &self,
        work: impl AsyncFn(&mut Connection) -> std::result::Result<R, DbError>,
    ) -> Result<R> {
        retrying(&self.pool, Duration::from_millis(QUESTION_TIME_MAX_MS), async || {
            let mut pooled = self.pool.get().await?;
            let connection = pooled.get()?;
            connection.run("BEGIN").await?;
            let result = work(connection).await?;
            connection.commit().await?;
            pooled.done();
            Ok(result)
        })
        .await
        .map_err(CatalogError::from)
    }

    fn wait<R>(&self, answer: impl Future<Output = R>) -> R {
        self.runtime.block_on(answer)
    }
}

/// Tries until it comes to something else than a passing failure, or `time_max` is over.
async fn retrying<R>(
    pool: &Pool,
    time_max: Duration,
    attempt: impl AsyncFn() -> std::result::Result<R, DbError>,
) -> std::result::Result<R, DbError> {
    let deadline = Instant::now() + time_max;
    let mut pause = Pause::default();
    loop {
        match attempt().await {
            Err(error) if error.is_temporary() && Instant::now() < deadline => {
                tracing::debug!(error = &error as &dyn std::error::Error, "the database is asked again");
                pool.count_retry();
                if matches!(error, DbError::Lost(_)) {
                    pool.forget_idle();
                }
                sleep(pause.next()).await;
            }
            result => return result,
        }
    }
}

/// The wait before the next try: twice as long each time.
#[derive(Debug)]
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(Duration::from_millis(DATABASE_RETRY_MIN_MS))
    }
}

impl Pause {
    fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).min(Duration::from_millis(DATABASE_RETRY_MAX_MS));
        // Not all relays at the same moment.
        now.mul_f64(rand::random_range(0.75..=1.25))
    }
}

impl Catalog for PostgresCatalog {
    fn checkpoint(&self) -> Result<Checkpoint> {
        self.wait(self.ask(async |connection| queries::checkpoint(connection, &self.holder).await))
    }

    fn apply(&self, changes: &[(Sequence, Change)], to: Option<&Checkpoint>) -> Result<()> {
        self.wait(self.change(async |connection| {
            self.holder.lock_writer(connection).await?;
            let from = queries::checkpoint(connection, &self.holder).await?;
            let changes = changes.iter().filter(|(sequence, _)| !from.covers(*sequence));
            let proposals: Vec<Proposal> =
                changes.map(|(_, change)| Proposal::alone(change.clone())).collect();
            commit::apply(connection, &self.holder, &proposals, false).await?;
            if let Some(to) = to {
                queries::put_checkpoint(connection, &self.holder, to).await?;
            }
            Ok(())
        }))
    }

    fn clear(&self) -> Result<()> {
        self.wait(self.change(async |connection| queries::clear(connection).await))
    }

    fn message(&self, id: &MessageId) -> Result<Option<Message>> {
        self.wait(self.ask(async |connection| queries::message(connection, id).await))
    }

    fn hand_overs(&self, id: &MessageId) -> Result<Vec<(HandOver, HandOverState)>> {
        self.wait(self.ask(async |connection| queries::hand_overs(connection, id).await))
    }

    fn delivery(&self, id: &DeliveryId) -> Result<Option<Delivery>> {
        self.wait(self.ask(async |connection| queries::delivery(connection, id).await))
    }

    fn receipt_of_drop(&self, id: &DeliveryId) -> Result<Option<Signed<Receipt>>> {
        self.wait(self.ask(async |connection| queries::receipt_of_drop(connection, id).await))
    }

    fn by_ticket(&self, ticket: &TicketHash) -> Result<Option<Delivery>> {
        self.wait(self.ask(async |connection| queries::by_ticket(connection, ticket).await))
    }

    fn waiting(&self, mailbox: &Mailbox, after: Option<Position>, count_max: usize) -> Result<Vec<Delivery>> {
        let count_max = page_len(count_max);
        self.wait(self.ask(async |connection| queries::waiting(connection, mailbox, after, count_max).await))
    }

    fn waiting_mailboxes(&self, after: Option<&Mailbox>, count_max: usize) -> Result<Vec<Mailbox>> {
        let count_max = page_len(count_max);
        self.wait(self.ask(async |connection| queries::waiting_mailboxes(connection, after, count_max).await))
    }

    fn due(&self, now: UnixTime, count_max: usize, except: &BTreeSet<MessageId>) -> Result<Vec<DueHandOver>> {
        let count_max = page_len(count_max);
        self.wait(self.ask(async |connection| queries::due(connection, now, count_max, except).await))
    }

    fn next_due(&self, now: UnixTime) -> Result<Option<UnixTime>> {
        self.wait(self.ask(async |connection| queries::next_due(connection, now).await))
    }

    fn postpone(&self, message: &MessageId, which: &[HandOver], attempts: u32, next: UnixTime) -> Result<()> {
        self.wait(
            self.ask(async |connection| queries::postpone(connection, message, which, attempts, next).await),
        )
    }

    fn claim_due(
        &self,
        now: UnixTime,
        count_max: usize,
        except: &BTreeSet<MessageId>,
    ) -> Result<ClaimedHandOvers> {
        let count_max = page_len(count_max);
        self.wait(self.ask(async |connection| {
            claims::hand_overs(connection, &self.holder, now, count_max, except).await
        }))
    }

    fn postpone_claimed(&self, fences: &[Fence], attempts: u32, next: UnixTime) -> Result<()> {
        self.wait(self.ask(async |connection| claims::postpone(connection, fences, attempts, next).await))
    }

    fn claim_waiting(
        &self,
        mailbox: &Mailbox,
        after: Option<Position>,
        count_max: usize,
    ) -> Result<ClaimedDeliveries> {
        let count_max = page_len(count_max);
        self.wait(self.ask(async |connection| {
            claims::deliveries(connection, &self.holder, mailbox, after, count_max).await
        }))
    }

    fn give_back(&self, mailbox: &Mailbox) -> Result<()> {
        self.wait(self.ask(async |connection| claims::give_back(connection, &self.holder, mailbox).await))
    }

    fn give_back_all(&self) -> Result<()> {
        self.holder.stop();
        self.wait(self.ask(async |connection| claims::give_back_all(connection, &self.holder).await))
    }

    fn deadlines(&self, now: UnixTime, count_max: usize) -> Result<Vec<(Delivery, Deadline)>> {
        let count_max = page_len(count_max);
        self.wait(self.ask(async |connection| queries::deadlines(connection, now, count_max).await))
    }

    fn purge(&self, today: Day, count_max: usize) -> Result<Purged> {
        let count_max = page_len(count_max);
        self.wait(self.change(async |connection| {
            self.holder.lock_writer(connection).await?;
            commit::purge(connection, &self.holder, today, count_max).await
        }))
    }

    fn messages(&self, after: Option<&MessageId>, count_max: usize) -> Result<Vec<(Message, bool)>> {
        let count_max = page_len(count_max);
        self.wait(self.ask(async |connection| queries::messages(connection, after, count_max).await))
    }

    fn copies_of(&self, blob: &BlobId, until: Day, count_max: usize) -> Result<Vec<StoredBlob>> {
        let count_max = page_len(count_max);
        self.wait(self.ask(async |connection| queries::copies_of(connection, blob, until, count_max).await))
    }

    fn copies(&self, after: Option<&CopyKey>, count_max: usize) -> Result<Vec<KeptCopy>> {
        let count_max = page_len(count_max);
        self.wait(self.ask(async |connection| queries::copies(connection, after, count_max).await))
    }

    /// Page by page, without one long transaction, which would keep the database from tidying up. Sound all the same: a
    /// copy that is not in its page is dead for good, since a message refers to a copy that it did not bring itself only
    /// where another one does, in the same moment (`commit::choose_copies`); and what messages bring meanwhile lies in
    /// segments of the last day, which are left alone.
    fn alive(&self, looked: &mut dyn FnMut(), visit: &mut dyn FnMut(&StoredBlob)) -> Result<()> {
        looked();
        let mut after = None;
        loop {
            let page = self.messages(after.as_ref(), PAGE_LEN_MAX)?;
            page.iter().filter(|(_, refers)| *refers).for_each(|(message, _)| visit(&message.manifest));
            match page.last() {
                Some((last, _)) => after = Some(last.id),
                None => break,
            }
        }
        let mut after = None;
        loop {
            let page = self.copies(after.as_ref(), PAGE_LEN_MAX)?;
            page.iter().for_each(|copy| visit(&copy.blob));
            match page.last() {
                Some(last) => after = Some(CopyKey::of(&last.blob)),
                None => return Ok(()),
            }
        }
    }

    fn compare(
        &self,
        _log: &EmbeddedCatalog,
        _today: Day,
        _looked: &mut dyn FnMut() -> bool,
        _found: &mut dyn FnMut(Disagreement),
    ) -> Result<()> {
        Err(CatalogError::NoView)
    }

    fn counts(&self) -> Result<Counts> {
        self.wait(self.ask(async |connection| queries::counts(connection).await))
    }
}

/// Rows of one page, as the database takes it.
fn page_len(count_max: usize) -> i64 {
    i64::try_from(count_max.min(PAGE_LEN_MAX)).unwrap_or(0)
}
