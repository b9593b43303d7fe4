//! A value that others wait for, as [`tokio::sync::watch`], whose waiters go on in the order in which they began to wait.
//!
//! Tokio's go on in an order that it draws, to spread them over its threads; with that no simulated run would be the same
//! twice, and few of its failures could be seen again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Sets the value.
#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// Sees it.
#[derive(Debug)]
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// The version that was seen last.
    seen: u64,
}

/// There is no sender any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct State<T> {
    value: T,
    version: u64,
    is_closed: bool,
}

/// A value, and who sees it.
pub(crate) fn channel<T: Copy>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// A value that nobody sees yet.
    pub(crate) fn new(value: T) -> Self {
        let state = Mutex::new(State { value, version: 0, is_closed: false });
        Self(Arc::new(Shared { state, changed: Notify::new() }))
    }

    /// Somebody who sees it, and has seen it as it is now.
    pub(crate) fn subscribe(&self) -> Receiver<T> {
        let seen = self.0.state().version;
        Receiver { shared: Arc::clone(&self.0), seen }
    }

    /// Sets it.
    pub(crate) fn send_replace(&self, value: T) {
        let mut state = self.0.state();
        state.value = value;
        state.version += 1;
        drop(state);
        self.0.changed.notify_waiters();
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
        self.0.changed.notify_waiters();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T: Copy> Receiver<T> {
    /// The value now.
    pub(crate) fn get(&self) -> T {
        self.shared.state().value
    }

    /// Returns when it was set anew since it was seen last.
    pub(crate) async fn changed(&mut self) -> Result<(), Closed> {
        let seen = self.seen;
        self.seen = self.until(|state| (state.version != seen).then_some(state.version)).await?;
        Ok(())
    }

    /// The value, once it `is` so; that may be at once.
    pub(crate) async fn wait_for(&mut self, is: impl Fn(&T) -> bool) -> Result<T, Closed> {
        let found = self.until(|state| is(&state.value).then_some((state.value, state.version))).await?;
        self.seen = found.1;
        Ok(found.0)
    }

    async fn until<R>(&self, found: impl Fn(&State<T>) -> Option<R>) -> Result<R, Closed> {
        loop {
            // Before the look: what is set after it is not missed.
            let changed = self.shared.changed.notified();
            let state = *self.shared.state();
            match found(&state) {
                Some(found) => return Ok(found),
                None if state.is_closed => return Err(Closed),
                None => changed.await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::{JoinSet, yield_now};

    use super::*;

    #[tokio::test]
    async fn who_waits_sees_each_change_and_the_end() {
        let (sender, mut receiver) = channel(1);
        assert_eq!((receiver.get(), receiver.wait_for(|value| *value == 1).await), (1, Ok(1)));
        sender.send_replace(2);
        assert_eq!(receiver.changed().await, Ok(()));
        let mut other = sender.subscribe();
        let waiting = tokio::spawn(async move { other.wait_for(|value| *value == 3).await });
        yield_now().await;
        sender.send_replace(3);
        assert_eq!(waiting.await.unwrap(), Ok(3));
        drop(sender);
        assert_eq!((receiver.changed().await, receiver.changed().await), (Ok(()), Err(Closed)));
        assert_eq!(receiver.wait_for(|value| *value == 3).await, Ok(3), "also after the end");
        assert_eq!(receiver.wait_for(|value| *value == 4).await, Err(Closed));
    }

    #[tokio::test]
    async fn those_who_wait_go_on_in_the_order_in_which_they_began() {
        let (sender, receiver) = channel(false);
        let mut waiting = JoinSet::new();
        for number in 0..50 {
            let mut receiver = receiver.clone();
            waiting.spawn(async move { receiver.wait_for(|is_set| *is_set).await.map(|_| number) });
        }
        yield_now().await;
        sender.send_replace(true);
        assert_eq!(waiting.join_all().await, (0..50).map(Ok).collect::<Vec<_>>());
    }
}
