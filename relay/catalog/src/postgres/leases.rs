//! A relay among others on the same database: what it holds, and for how long.
//!
//! Each start of a relay has a number, its *incarnation*; what it claims carries that number, and belongs to it as long
//! as its row in `lighter.relays` says (`holds_until`, by the database's clock), which the relay renews. So a relay that
//! holds a hundred thousand deliveries renews one row, a clean stop gives everything back by one update, and what a dead
//! relay held is free when its time is over, or when it starts again. Deadlines for the work itself are with the work:
//! everything that is done under a claim is bounded by timeouts of its own.

use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lighter_protocol::PeerId;
use tokio::time::sleep;

use super::config::PostgresConfig;
use super::error::DbError;
use super::news::{self, News};
use super::pool::{Connection, Pool};
use crate::rows::Counts;

type Result<T> = std::result::Result<T, DbError>;

/// This start of this relay.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) relay: PeerId,
    peer: Vec<u8>,
    pub(super) incarnation: i64,
    pub(super) lease: Duration,
    /// It gave back what it held, or another process took its place.
    stopped: AtomicBool,
}

impl Holder {
    /// Makes the relay known; whoever ran with its key before holds nothing from then on.
    pub(super) async fn register(connection: &mut Connection, config: &PostgresConfig) -> Result<Self> {
        const RELAY: &str = "INSERT INTO lighter.relays (peer, name, incarnation, holds_until)
             VALUES ($1, $2, nextval('lighter.incarnations'), now() + make_interval(secs => $3))
             ON CONFLICT (peer) DO UPDATE SET name = excluded.name, incarnation = excluded.incarnation,
                 holds_until = excluded.holds_until, seen = now()
             RETURNING incarnation";
        const WRITER: &str = "INSERT INTO lighter.writers (peer, incarnation) VALUES ($1, $2)
             ON CONFLICT (peer) DO UPDATE SET incarnation = excluded.incarnation, commits = 0";
        let peer = config.relay.to_bytes();
        connection.run("BEGIN").await?;
        let lease = config.lease.as_secs_f64();
        let rows = connection.query(RELAY, &[&peer, &config.name, &lease]).await?;
        let row = rows.first().ok_or_else(|| DbError::late("the relay was not made known"))?;
        let incarnation: i64 = row.try_get(0)?;
        connection.execute(WRITER, &[&peer, &incarnation]).await?;
        let stopped = AtomicBool::new(false);
        let holder = Self { relay: config.relay, peer, incarnation, lease: config.lease, stopped };
        news::tell(connection, &holder, &[News::Relays]).await?;
        connection.commit().await?;
        Ok(holder)
    }

    /// Takes the lock of the relay's own row, and gives the number of its last transaction.
    pub(super) async fn lock_writer(&self, connection: &mut Connection) -> Result<i64> {
        const LOCK: &str =
            "SELECT commits FROM lighter.writers WHERE peer = $1 AND incarnation = $2 FOR UPDATE";
        let rows = connection.query(LOCK, &[&self.peer, &self.incarnation]).await?;
        match rows.first() {
            Some(row) => Ok(row.try_get(0)?),
            None => Err(self.note_replaced()),
        }
    }

    /// Begins the transaction behind number `made`: its first statement, whose answer is awaited before anything else
    /// is sent. One that was given up on and comes late finds another number here.
    pub(super) async fn begin(&self, connection: &mut Connection, made: i64) -> Result<()> {
        const BEGIN: &str = "UPDATE lighter.writers SET commits = commits + 1
             WHERE peer = $1 AND incarnation = $2 AND commits = $3";
        if connection.execute(BEGIN, &[&self.peer, &self.incarnation, &made]).await? == 1 {
            return Ok(());
        }
        self.lock_writer(connection).await.and_then(|made| Err(DbError::Elsewhere(made)))
    }

    /// Adds the difference of the totals to the relay's own.
    pub(super) async fn count(
        &self,
        connection: &mut Connection,
        after: &Counts,
        before: &Counts,
    ) -> Result<()> {
        const COUNT: &str = "UPDATE lighter.writers SET messages = messages + $2, hand_overs = hand_overs + $3,
                 waiting = waiting + $4, waiting_bytes = waiting_bytes + $5, receipted = receipted + $6,
                 released = released + $7, named = named + $8, named_bytes = named_bytes + $9, copies = copies + $10,
                 copies_bytes = copies_bytes + $11
             WHERE peer = $1";
        if after == before {
            return Ok(());
        }
        let by = |after: u64, before: u64| after.wrapping_sub(before).cast_signed();
        connection
            .execute(
                COUNT,
                &[
                    &self.peer,
                    &by(after.messages, before.messages),
                    &by(after.hand_overs, before.hand_overs),
                    &by(after.waiting, before.waiting),
                    &by(after.waiting_bytes, before.waiting_bytes),
                    &by(after.receipted, before.receipted),
                    &by(after.released, before.released),
                    &by(after.references, before.references),
                    &by(after.references_bytes, before.references_bytes),
                    &by(after.copies, before.copies),
                    &by(after.copies_bytes, before.copies_bytes),
                ],
            )
            .await?;
        Ok(())
    }

    /// Says that what the relay holds stays its own for another while.
    async fn renew(&self, connection: &mut Connection) -> Result<()> {
        const RENEW: &str = "UPDATE lighter.relays
             SET holds_until = now() + make_interval(secs => $3), seen = now() WHERE peer = $1 AND incarnation = $2";
        let lease = self.lease.as_secs_f64();
        match connection.execute(RENEW, &[&self.peer, &self.incarnation, &lease]).await? {
            0 => Err(self.note_replaced()),
            _ => Ok(()),
        }
    }

    /// Nothing is renewed any more.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    fn note_replaced(&self) -> DbError {
        self.stop();
        DbError::Replaced
    }
}

/// Renews what the relay holds, as long as its catalog is there.
pub(super) async fn keep(holder: Weak<Holder>, pool: Pool) {
    loop {
        let Some(lease) = holder.upgrade().map(|holder| holder.lease) else { return };
        sleep(lease / 3).await;
        let Some(holder) = holder.upgrade().filter(|holder| !holder.stopped.load(Ordering::Acquire)) else {
            return;
        };
        let renewed = async {
            let mut pooled = pool.get().await?;
            holder.renew(pooled.get()?).await?;
            pooled.done();
            Ok::<_, DbError>(())
        };
        let renewed = renewed.await;
        pool.count_renewal(renewed.is_ok());
        match renewed {
            Ok(()) => {}
            Err(DbError::Replaced) => {
                return tracing::error!("another process with this relay's key uses the database");
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the relay's leases are not renewed yet"
                );
            }
        }
    }
}
