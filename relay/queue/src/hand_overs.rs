//! What waits for the next hop: which messages are handed over now, and when to look again.
//!
//! The catalog has what is due, in order; here is only what is being handed over at this moment, so that nothing is
//! handed over twice at once.

use std::collections::{BTreeMap, BTreeSet};

use lighter_protocol::{MessageId, UnixTime};

use crate::limits::{DUE_PAGE_LEN, HAND_OVERS_MAX};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task<D> {
    /// Ask the catalog for what is due, without the messages named, and hand it to [`HandOvers::handle_page`].
    Fetch {
        /// Rows at most.
        count_max: usize,
        /// Messages that are being handed over.
        except: BTreeSet<MessageId>,
    },
    /// Hand these over, and then call [`HandOvers::handle_done`].
    HandOver {
        /// Of which message.
        message: MessageId,
        /// What is due of it.
        due: Vec<D>,
    },
}

/// The scheduler of hand-overs. `D` is what the catalog says of one that is due.
#[derive(Debug)]
pub struct HandOvers<D> {
    running: BTreeSet<MessageId>,
    ready: Vec<(MessageId, Vec<D>)>,
    fetch: Fetch,
    next: Option<UnixTime>,
}

/// Whether the catalog is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fetch {
    /// No: nothing has come since it was asked.
    Idle,
    /// Yes, as soon as there is room.
    Wanted,
    /// It is being asked, and perhaps once more afterwards.
    Running { again: bool },
}

impl<D> Default for HandOvers<D> {
    /// Begins by asking what is due.
    fn default() -> Self {
        Self { running: BTreeSet::new(), ready: Vec::new(), fetch: Fetch::Wanted, next: None }
    }
}

impl<D> HandOvers<D> {
    /// A message was accepted, or something else is due now.
    pub fn handle_due(&mut self) {
        self.fetch = match self.fetch {
            Fetch::Running { .. } => Fetch::Running { again: true },
            _ => Fetch::Wanted,
        };
    }

    /// What the catalog said is due, and when the next one after these is.
    pub fn handle_page(&mut self, page: Vec<(MessageId, D)>, next: Option<UnixTime>) {
        let was_full = page.len() >= DUE_PAGE_LEN;
        let again = self.fetch == Fetch::Running { again: true };
        self.fetch = if again || was_full { Fetch::Wanted } else { Fetch::Idle };
        self.next = next;
        let mut by_message = BTreeMap::<MessageId, Vec<D>>::new();
        for (message, due) in page {
            if !self.running.contains(&message) {
                by_message.entry(message).or_default().push(due);
            }
        }
        for (message, due) in by_message {
            if self.running.len() < HAND_OVERS_MAX {
                self.running.insert(message);
                self.ready.push((message, due));
            } else {
                self.fetch = Fetch::Wanted;
            }
        }
    }

    /// The catalog could not be asked.
    pub fn handle_page_lost(&mut self, retry: UnixTime) {
        self.fetch = Fetch::Idle;
        self.next = Some(retry);
    }

    /// A message was handed over, put off, or given up: the catalog has it.
    pub fn handle_done(&mut self, message: &MessageId) {
        self.running.remove(message);
        // What was put off comes at a time that only the catalog knows.
        self.handle_due();
    }

    /// Time has passed.
    pub fn handle_time(&mut self, now: UnixTime) {
        if self.next.is_some_and(|next| next <= now) {
            self.next = None;
            self.handle_due();
        }
    }

    /// What is to be done next; None: wait for something to happen, or for [`Self::next_time`].
    pub fn poll(&mut self) -> Option<Task<D>> {
        if let Some((message, due)) = self.ready.pop() {
            return Some(Task::HandOver { message, due });
        }
        if self.fetch == Fetch::Wanted && self.running.len() < HAND_OVERS_MAX {
            self.fetch = Fetch::Running { again: false };
            return Some(Task::Fetch { count_max: DUE_PAGE_LEN, except: self.running.clone() });
        }
        None
    }

    /// When to call [`Self::handle_time`]. None: nothing is put off.
    pub fn next_time(&self) -> Option<UnixTime> {
        self.next
    }
}

#[cfg(test)]
mod tests;
