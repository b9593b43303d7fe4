//! Connections to the database: a few, kept open, each with the statements that it has prepared.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::DbError;
use crate::limits::{
    ANSWER_TIME_MAX_MS, COMMIT_ANSWER_TIME_MAX_MS, CONNECT_TIME_MAX_MS, IDLE_IN_TRANSACTION_MAX_MS,
    LOCK_TIME_MAX_MS, STATEMENT_TIME_MAX_MS,
};

type Result<T> = std::result::Result<T, DbError>;

/// Parameters of a statement.
pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A bounded number of connections.
#[derive(Clone)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
    idle: Mutex<Vec<Connection>>,
    free: Arc<Semaphore>,
    connections: usize,
    counters: Counters,
}

/// What went on, for metrics.
#[derive(Debug, Default)]
struct Counters {
    connects: AtomicU64,
    transactions: AtomicU64,
    transaction_micros: AtomicU64,
    retries: AtomicU64,
    renewals: AtomicU64,
    failed_renewals: AtomicU64,
}

/// What went on between the relay and its database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatabaseCounters {
    /// Connections that are in use at this moment.
    pub in_use: usize,
    /// Connections that were made.
    pub connects: u64,
    /// Questions and transactions that came to their end.
    pub transactions: u64,
    /// How long these took together, in microseconds.
    pub transaction_micros: u64,
    /// Tries beyond the first.
    pub retries: u64,
    /// Renewals of what the relay holds.
    pub renewals: u64,
    /// Renewals that failed: after a few in a row, others take over what it holds.
    pub failed_renewals: u64,
}

impl Pool {
    pub(super) fn new(config: tokio_postgres::Config, tls: MakeRustlsConnect, connections: usize) -> Self {
        let free = Arc::new(Semaphore::new(connections));
        let (idle, counters) = (Mutex::default(), Counters::default());
        let shared = Shared { config, tls, idle, free, connections, counters };
        Self { shared: Arc::new(shared) }
    }

    /// A connection: one that is idle, or a new one. Waits while all are in use.
    pub(super) async fn get(&self) -> Result<Pooled> {
        let waiting = Arc::clone(&self.shared.free).acquire_owned();
        let permit = timeout(Duration::from_millis(STATEMENT_TIME_MAX_MS), waiting).await;
        let Ok(Ok(permit)) = permit else { return Err(DbError::late("all connections are in use")) };
        let idle = {
            let mut idle = self.idle();
            idle.retain(|connection| !connection.client.is_closed());
            idle.pop()
        };
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(Pooled {
            connection: Some(connection),
            began: Instant::now(),
            pool: self.clone(),
            _permit: permit,
        })
    }

    /// A connection beside the bounded ones, that is made anew.
    pub(super) async fn connect(&self) -> Result<Connection> {
        let connecting = self.shared.config.connect(self.shared.tls.clone());
        let connected = timeout(self.connect_time_max(), connecting).await;
        let (client, driver) = connected.map_err(|_| DbError::late("connecting took too long"))??;
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a connection to the database ended"
                );
            }
        });
        self.shared.counters.connects.fetch_add(1, Ordering::Relaxed);
        let mut connection = Connection::over(client);
        connection.set_up().await?;
        Ok(connection)
    }

    /// One server after the other is tried.
    pub(super) fn connect_time_max(&self) -> Duration {
        let servers = u32::try_from(self.shared.config.get_hosts().len()).unwrap_or(1);
        Duration::from_millis(CONNECT_TIME_MAX_MS) * (servers + 1)
    }

    /// What a listening connection is made with.
    pub(super) fn config(&self) -> (&tokio_postgres::Config, MakeRustlsConnect) {
        (&self.shared.config, self.shared.tls.clone())
    }

    /// Closes what is idle: after one connection broke, the others to the same server are no better.
    pub(super) fn forget_idle(&self) {
        self.idle().clear();
    }

    pub(super) fn count_retry(&self) {
        self.shared.counters.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn counters(&self) -> DatabaseCounters {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DatabaseCounters {
            in_use: self.shared.connections.saturating_sub(self.shared.free.available_permits()),
            connects: read(&counters.connects),
            transactions: read(&counters.transactions),
            transaction_micros: read(&counters.transaction_micros),
            retries: read(&counters.retries),
            renewals: read(&counters.renewals),
            failed_renewals: read(&counters.failed_renewals),
        }
    }

    /// What the relay holds was renewed, or could not be.
    pub(super) fn count_renewal(&self, is_done: bool) {
        let Counters { renewals, failed_renewals, .. } = &self.shared.counters;
        let counter = if is_done { renewals } else { failed_renewals };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection on loan. Where it was not given back by [`Pooled::done`], it is closed.
pub(super) struct Pooled {
    connection: Option<Connection>,
    began: Instant,
    pool: Pool,
    _permit: OwnedSemaphorePermit,
}

impl Pooled {
    pub(super) fn get(&mut self) -> Result<&mut Connection> {
        self.connection.as_mut().ok_or_else(|| DbError::late("the connection was given back"))
    }

    /// Gives it back: no transaction is open on it.
    pub(super) fn done(mut self) {
        let counters = &self.pool.shared.counters;
        counters.transactions.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        counters.transaction_micros.fetch_add(micros, Ordering::Relaxed);
        if let Some(connection) = self.connection.take() {
            self.pool.idle().push(connection);
        }
    }
}

/// One connection.
pub(super) struct Connection {
    client: Client,
    statements: HashMap<&'static str, Statement>,
}

impl Connection {
    fn over(client: Client) -> Self {
        Self { client, statements: HashMap::new() }
    }

    /// Bounds for everything that is said on it; and a commit is answered when it is durable, whatever the database's
    /// own default.
    async fn set_up(&mut self) -> Result<()> {
        let settings = format!(
            "SET statement_timeout = {STATEMENT_TIME_MAX_MS};
             SET lock_timeout = {LOCK_TIME_MAX_MS};
             SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MAX_MS};
             SET enable_seqscan = off;
             SELECT set_config('synchronous_commit', 'on', false)
                 WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')"
        );
        in_time(self.client.batch_execute(&settings)).await
    }

    /// Prepares statements that are not yet.
    pub(super) async fn prepare(&mut self, statements: &[&'static str]) -> Result<()> {
        for sql in statements {
            if !self.statements.contains_key(sql) {
                let statement = in_time(self.client.prepare(sql)).await?;
                self.statements.insert(sql, statement);
            }
        }
        Ok(())
    }

    pub(super) async fn query(&mut self, sql: &'static str, parameters: Parameters<'_>) -> Result<Vec<Row>> {
        self.prepare(&[sql]).await?;
        self.query_prepared(sql, parameters).await
    }

    pub(super) async fn execute(&mut self, sql: &'static str, parameters: Parameters<'_>) -> Result<u64> {
        self.prepare(&[sql]).await?;
        self.execute_prepared(sql, parameters).await
    }

    /// As [`Self::query`], with a statement that was prepared: several of these that are waited for together go out
    /// together.
    pub(super) async fn query_prepared(
        &self,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>> {
        match self.statements.get(sql) {
            Some(statement) => in_time(self.client.query(statement, parameters)).await,
            None => in_time(self.client.query(sql, parameters)).await,
        }
    }

    /// As [`Self::query_prepared`], for the number of rows.
    pub(super) async fn execute_prepared(
        &self,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<u64> {
        match self.statements.get(sql) {
            Some(statement) => in_time(self.client.execute(statement, parameters)).await,
            None => in_time(self.client.execute(sql, parameters)).await,
        }
    }

    /// Runs statements without parameters.
    pub(super) async fn run(&self, sql: &str) -> Result<()> {
        in_time(self.client.batch_execute(sql)).await
    }

    /// Commits. Only what the server says before it has begun to is certain.
    ///
    /// No statement timeout: it would end the wait for a standby, and the server would say that it had committed.
    pub(super) async fn commit(&self) -> Result<()> {
        self.run("SET LOCAL statement_timeout = 0").await?;
        let committing = self.client.batch_execute("COMMIT");
        match timeout(Duration::from_millis(COMMIT_ANSWER_TIME_MAX_MS), committing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => match error.code().map(|code| code.code()) {
                Some(code) if code.starts_with("40") || code.starts_with("23") || code.starts_with("25") => {
                    Err(error.into())
                }
                _ => Err(DbError::InDoubt(Box::new(error))),
            },
            Err(_) => Err(DbError::InDoubt("no answer in time".into())),
        }
    }
}

/// The server bounds a statement; where it is gone without a word, so does the relay.
async fn in_time<R>(
    answer: impl Future<Output = std::result::Result<R, tokio_postgres::Error>>,
) -> Result<R> {
    match timeout(Duration::from_millis(ANSWER_TIME_MAX_MS), answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(DbError::late("no answer in time")),
    }
}
