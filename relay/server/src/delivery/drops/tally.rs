//! How much is held of drops: for each recipient, of each sending domain, and how fast a domain brings more.
//!
//! It follows from the catalog, counts what waits for its store, and is kept beside it: what comes in is reserved before
//! the first byte is pulled, so that many at once do not pass the bounds together. With several relays on one database,
//! each counts what was there at its start and what it took itself.

use std::collections::HashMap;
use std::hash::Hash;

use lighter_protocol::wire::LaterReason;
use lighter_protocol::{DeliveryId, Mailbox, MessageId};
use tokio::time::Instant;

use crate::config::DropsConfig;
use crate::limits::{DROPS_HELD_MAX, DROPS_PER_DOMAIN_MAX, DROPS_PER_DOMAIN_TIME};

/// One drop that is held, or on its way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::delivery) struct Holding {
    pub(super) recipient: Mailbox,
    /// The sender's.
    pub(super) domain: String,
    pub(super) bytes: u64,
    /// None: on its way in.
    pub(super) message: Option<MessageId>,
}

/// What a sender wants to leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) recipient: &'a Mailbox,
    pub(super) domain: &'a str,
    pub(super) bytes: u64,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    count: u64,
    bytes: u64,
}

/// All that is held.
#[derive(Debug, Default)]
pub(in crate::delivery) struct Tally {
    held: HashMap<DeliveryId, Holding>,
    recipients: HashMap<Mailbox, Load>,
    domains: HashMap<String, Load>,
    /// How many drops a domain began, and since when that is counted.
    recent: HashMap<String, (Instant, u32)>,
    /// Everything from before the start is counted.
    is_complete: bool,
}

impl Tally {
    /// Notes a drop; one that is noted already stays as it is, but for the message that it became.
    pub(super) fn hold(&mut self, delivery: DeliveryId, holding: Holding) {
        if let Some(known) = self.held.get_mut(&delivery) {
            known.message = known.message.or(holding.message);
            return;
        }
        let bytes = holding.bytes;
        self.recipients.entry(holding.recipient.clone()).or_default().add(bytes);
        self.domains.entry(holding.domain.clone()).or_default().add(bytes);
        self.held.insert(delivery, holding);
    }

    /// A drop is not held any more.
    pub(super) fn let_go(&mut self, delivery: &DeliveryId) {
        if let Some(Holding { recipient, domain, bytes, .. }) = self.held.remove(delivery) {
            take_away(&mut self.recipients, &recipient, bytes);
            take_away(&mut self.domains, &domain, bytes);
        }
    }

    /// A message does not exist after all.
    pub(super) fn void(&mut self, message: &MessageId) {
        let is_its = |(_, holding): &(&DeliveryId, &Holding)| holding.message == Some(*message);
        if let Some(delivery) = self.held.iter().find(is_its).map(|(delivery, _)| *delivery) {
            self.let_go(&delivery);
        }
    }

    /// Everything from before the start has been noted.
    pub(super) fn complete(&mut self) {
        self.is_complete = true;
    }

    /// Notes a drop that is to come in, if there is room for it.
    pub(super) fn reserve(
        &mut self,
        delivery: DeliveryId,
        wanted: Wanted<'_>,
        config: &DropsConfig,
        now: Instant,
    ) -> Result<(), LaterReason> {
        if !self.is_complete || self.held.len() >= DROPS_HELD_MAX || !self.is_slow_enough(wanted.domain, now)
        {
            return Err(LaterReason::Busy);
        }
        let of_recipient = self.recipients.get(wanted.recipient).copied().unwrap_or_default();
        let of_domain = self.domains.get(wanted.domain).copied().unwrap_or_default();
        if !of_recipient.has_room(wanted.bytes, config.recipient_bytes_max, config.recipient_count_max)
            || !of_domain.has_room(wanted.bytes, config.domain_bytes_max, config.domain_count_max)
        {
            return Err(LaterReason::Quota);
        }
        let Wanted { recipient, domain, bytes } = wanted;
        let holding =
            Holding { recipient: recipient.clone(), domain: domain.to_owned(), bytes, message: None };
        self.hold(delivery, holding);
        Ok(())
    }

    /// Counts one more drop of a domain; false where it brings too many.
    fn is_slow_enough(&mut self, domain: &str, now: Instant) -> bool {
        self.recent.retain(|_, (since, _)| now.duration_since(*since) < DROPS_PER_DOMAIN_TIME);
        let (_, count) = self.recent.entry(domain.to_owned()).or_insert((now, 0));
        *count = count.saturating_add(1);
        *count <= DROPS_PER_DOMAIN_MAX
    }
}

impl Load {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn has_room(self, bytes: u64, bytes_max: u64, count_max: u64) -> bool {
        self.count < count_max && self.bytes.saturating_add(bytes) <= bytes_max
    }
}

fn take_away<K: Eq + Hash>(loads: &mut HashMap<K, Load>, key: &K, bytes: u64) {
    if let Some(load) = loads.get_mut(key) {
        load.count = load.count.saturating_sub(1);
        load.bytes = load.bytes.saturating_sub(bytes);
        if load.count == 0 {
            loads.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> DropsConfig {
        DropsConfig {
            recipient_bytes_max: 100,
            recipient_count_max: 3,
            domain_bytes_max: 150,
            domain_count_max: 10,
            ..DropsConfig::default()
        }
    }

    fn tally() -> Tally {
        Tally { is_complete: true, ..Tally::default() }
    }

    fn reserve(tally: &mut Tally, number: u8, to: &str, domain: &str, bytes: u64) -> Result<(), LaterReason> {
        let recipient = format!("{to}@b.example").parse().unwrap();
        let wanted = Wanted { recipient: &recipient, domain, bytes };
        tally.reserve(DeliveryId([number; 16]), wanted, &config(), Instant::now())
    }

    #[tokio::test]
    async fn what_is_held_for_a_recipient_and_of_a_domain_has_bounds() {
        let mut tally = tally();
        assert_eq!(reserve(&mut tally, 1, "bob", "a.example", 60), Ok(()));
        assert_eq!(reserve(&mut tally, 2, "bob", "c.example", 41), Err(LaterReason::Quota), "bob's bytes");
        assert_eq!(reserve(&mut tally, 3, "bob", "c.example", 40), Ok(()));
        assert_eq!(reserve(&mut tally, 4, "carol", "a.example", 91), Err(LaterReason::Quota), "a's bytes");
        tally.let_go(&DeliveryId([1; 16]));
        assert_eq!(reserve(&mut tally, 4, "carol", "a.example", 91), Ok(()));
        for number in 5..7 {
            assert_eq!(reserve(&mut tally, number, "bob", "c.example", 1), Ok(()));
        }
        assert_eq!(reserve(&mut tally, 7, "bob", "d.example", 1), Err(LaterReason::Quota), "bob's count");
    }

    #[tokio::test]
    async fn noted_twice_it_counts_once_and_let_go_of_it_leaves_nothing() {
        let mut tally = tally();
        reserve(&mut tally, 1, "bob", "a.example", 60).unwrap();
        let known = tally.held[&DeliveryId([1; 16])].clone();
        tally.hold(DeliveryId([1; 16]), Holding { message: Some(MessageId([9; 16])), ..known });
        assert_eq!(tally.domains["a.example"], Load { count: 1, bytes: 60 });
        tally.void(&MessageId([8; 16]));
        assert_eq!(tally.held.len(), 1);
        tally.void(&MessageId([9; 16]));
        assert!(tally.held.is_empty() && tally.recipients.is_empty() && tally.domains.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn bad_input_35_a_domain_that_brings_too_many_at_once_waits_and_others_do_not() {
        let mut tally = tally();
        for _ in 0..DROPS_PER_DOMAIN_MAX {
            tally.let_go(&DeliveryId([1; 16]));
            assert_eq!(reserve(&mut tally, 1, "bob", "a.example", 1), Ok(()));
        }
        tally.let_go(&DeliveryId([1; 16]));
        assert_eq!(reserve(&mut tally, 1, "bob", "a.example", 1), Err(LaterReason::Busy));
        assert_eq!(reserve(&mut tally, 1, "bob", "c.example", 1), Ok(()));
        tokio::time::advance(DROPS_PER_DOMAIN_TIME).await;
        assert_eq!(reserve(&mut tally, 2, "bob", "a.example", 1), Ok(()));
    }

    #[tokio::test]
    async fn nothing_is_taken_before_it_is_known_what_there_is() {
        let mut tally = Tally::default();
        assert_eq!(reserve(&mut tally, 1, "bob", "a.example", 1), Err(LaterReason::Busy));
        tally.complete();
        assert_eq!(reserve(&mut tally, 1, "bob", "a.example", 1), Ok(()));
    }
}
