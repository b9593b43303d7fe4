//! How much of the line transfers may use: a [`Limiter`] gives each transfer its turns, one limiter for each direction.
//!
//! What is paced are requests and writes, not reads. A pull asks for no more than its turn allows, and takes that as fast as
//! it comes; a served stream writes no more than its turn allows. So nobody at the other side waits in the middle of
//! something: neither side's watchdog ([`crate::progress`]) takes the limit for a slow peer, nothing piles up in windows, and
//! what was asked for is never thrown away.
//!
//! Who has the next turn is [`fair`]'s to say, a value without a clock.

pub mod fair;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, oneshot};
use tokio::time::sleep_until;

pub use fair::{Allowance, Class, Hold, Rate, Transfer};
use fair::{Fair, Ticket};

/// Gives turns to transfers of one direction. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Limiter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Something else is allowed now, or somebody does not wait any more.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    fair: Fair,
    waiting: HashMap<Ticket, oneshot::Sender<u64>>,
}

impl Default for Inner {
    fn default() -> Self {
        let state = State { fair: Fair::new(Allowance::default(), Instant::now()), waiting: HashMap::new() };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }
}

impl Limiter {
    /// One that lets everything through.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on, this is allowed.
    pub fn allow(&self, allowance: Allowance) {
        let mut state = self.lock();
        state.fair.allow(allowance, Instant::now());
        state.run();
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// The same, where that is something else than is allowed already.
    pub fn allow_if_other(&self, allowance: Allowance) {
        if self.allowance() != allowance {
            self.allow(allowance);
        }
    }

    /// What is allowed.
    pub fn allowance(&self) -> Allowance {
        self.lock().fair.allowance()
    }

    /// Bytes that turns were given for, since the beginning.
    pub fn granted(&self) -> u64 {
        self.lock().fair.granted()
    }

    /// A transfer's handle.
    pub fn transfer(&self, transfer: Transfer) -> Turns {
        Turns { limiter: self.clone(), transfer }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives the turns that are due, and says when to look again; none: when something changes.
    fn run(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while let Some((ticket, len)) = self.fair.poll(now) {
            if let Some(waiting) = self.waiting.remove(&ticket) {
                // Who went away meanwhile has said so with `Waiting`'s end, or is about to.
                let _ = waiting.send(len);
            }
        }
        self.fair.next(now)
    }
}

/// A transfer's way to its turns. Clones share them: they are streams of one transfer.
#[derive(Clone, Debug)]
pub struct Turns {
    limiter: Limiter,
    transfer: Transfer,
}

impl Turns {
    /// Waits for the next turn, for at most `wanted` bytes; gives how many it is for: at least one, and whole groups of a blob
    /// unless it is for all that was wanted.
    pub async fn take(&self, wanted: u64) -> u64 {
        if wanted == 0 {
            return 0;
        }
        let (to, mut turn) = oneshot::channel();
        let mut waiting = Waiting { limiter: &self.limiter, ticket: None };
        {
            let mut state = self.limiter.lock();
            let ticket = state.fair.wait(self.transfer, wanted);
            state.waiting.insert(ticket, to);
            waiting.ticket = Some(ticket);
        }
        loop {
            let mut changed = std::pin::pin!(self.limiter.0.changed.notified());
            changed.as_mut().enable();
            let next = self.limiter.lock().run();
            let until = async {
                match next {
                    Some(until) => sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                given = &mut turn => {
                    waiting.ticket = None;
                    // The sender goes only with the turn.
                    return given.unwrap_or(wanted);
                }
                () = changed => {}
                () = until => {}
            }
        }
    }

    /// Whether nothing of it goes now, however long it waits.
    pub fn is_held(&self) -> bool {
        self.limiter.allowance().holds(self.transfer.class)
    }

    /// Waits until nothing of it goes.
    pub async fn held(&self) {
        loop {
            let mut changed = std::pin::pin!(self.limiter.0.changed.notified());
            changed.as_mut().enable();
            if self.is_held() {
                return;
            }
            changed.await;
        }
    }
}

/// Somebody who waits; dropped, it does not any more.
struct Waiting<'a> {
    limiter: &'a Limiter,
    ticket: Option<Ticket>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let mut state = self.limiter.lock();
            state.waiting.remove(&ticket);
            state.fair.leave(ticket);
            drop(state);
            self.limiter.0.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const BULK: Transfer = Transfer { id: 1, class: Class::Bulk };

    fn limited(rate: u64) -> Allowance {
        Allowance { rate: Rate::Limited(NonZeroU64::new(rate).unwrap()), hold: Hold::Nothing }
    }

    #[tokio::test]
    async fn without_a_limit_nobody_waits() {
        let limiter = Limiter::new();
        assert_eq!(limiter.transfer(BULK).take(u64::MAX).await, crate::limits::TURN_LEN_ANY);
        assert_eq!(limiter.transfer(BULK).take(0).await, 0);
        assert_eq!(limiter.transfer(BULK).take(5).await, 5);
    }

    #[tokio::test]
    async fn what_is_held_waits_until_it_is_let_go_and_small_things_do_not() {
        let limiter = Limiter::new();
        limiter.allow(Allowance { rate: Rate::Any, hold: Hold::Bulk });
        let bulk = limiter.transfer(BULK);
        assert!(bulk.is_held());
        bulk.held().await;
        assert_eq!(limiter.transfer(Transfer { id: 2, class: Class::First }).take(9).await, 9);
        let waits = tokio::spawn(async move { bulk.take(1_000).await });
        // It is in the queue now, or will be: either way it has its turn once it may.
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        limiter.allow(Allowance::default());
        assert_eq!(waits.await.unwrap(), 1_000);
    }

    #[tokio::test]
    async fn who_goes_away_leaves_the_turn_to_others() {
        let limiter = Limiter::new();
        limiter.allow(limited(1_000_000));
        let turns = limiter.transfer(BULK);
        let hold = Allowance { rate: Rate::Any, hold: Hold::All };
        limiter.allow(hold);
        assert!(timeout(Duration::from_millis(5), turns.take(10)).await.is_err());
        limiter.allow(limited(1_000_000));
        assert_eq!(limiter.granted(), 0, "nothing was given to who is gone");
        assert_eq!(turns.take(10).await, 10);
        assert_eq!(limiter.granted(), 10);
    }

    // SPEC: A6
    #[tokio::test]
    async fn a_limit_holds_for_all_streams_together() {
        let limiter = Limiter::new();
        limiter.allow(limited(400_000));
        let began = Instant::now();
        let mut streams = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let turns = limiter.transfer(BULK);
            streams.spawn(async move {
                let mut left = 150_000;
                while left > 0 {
                    left -= turns.take(left).await;
                }
            });
        }
        streams.join_all().await;
        // 600,000 bytes, less what may go at once.
        let burst = fair::burst(NonZeroU64::new(400_000).unwrap());
        let least = Duration::from_secs_f64((600_000 - burst) as f64 / 400_000.0);
        assert!(began.elapsed() >= least, "{:?} < {least:?}", began.elapsed());
    }
}
