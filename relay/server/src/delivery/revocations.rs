//! Keys that are no store's any more, as the location server tells: a device that was lost, or whose key was rotated. What
//! was attested for them verifies for hours still, and does not count (DESIGN §4).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lighter_protocol::limits::{ATTESTATION_LIFE_MAX, CLOCK_GRACE};
use lighter_protocol::{Attestation, Mailbox, PeerId, UnixTime};
use lighter_transport::location::Revocation;

use crate::limits::REVOCATIONS_MAX;

/// All of them. In memory: every presence stream begins with those that may still matter.
#[derive(Default)]
pub(super) struct Revocations(Mutex<Known>);

/// Invariant: `by_time` is `at`, the other way round.
#[derive(Default)]
struct Known {
    at: HashMap<(Mailbox, PeerId), UnixTime>,
    by_time: BTreeSet<(UnixTime, Mailbox, PeerId)>,
}

impl Revocations {
    /// The location server says so.
    pub(super) fn note(&self, revoked: &Revocation, now: UnixTime) {
        let Revocation { mailbox, peer, at } = revoked;
        let mut known = self.known();
        while let Some((first, ..)) = known.by_time.first()
            && (is_over(*first, now) || known.by_time.len() >= REVOCATIONS_MAX)
        {
            if let Some((_, mailbox, peer)) = known.by_time.pop_first() {
                known.at.remove(&(mailbox, peer));
            }
        }
        let before = known.at.insert((mailbox.clone(), *peer), *at);
        if let Some(before) = before {
            known.by_time.remove(&(before, mailbox.clone(), *peer));
        }
        known.by_time.insert((*at, mailbox.clone(), *peer));
    }

    /// Whether an attestation, which verified, counts: one that was made after its key was revoked does.
    pub(super) fn allow(&self, attestation: &Attestation) -> bool {
        let known = self.known();
        let revoked = known.at.get(&(attestation.mailbox.clone(), attestation.peer));
        revoked.is_none_or(|at| *at < attestation.issued)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nothing that was attested until then can verify any more.
fn is_over(at: UnixTime, now: UnixTime) -> bool {
    at.plus(ATTESTATION_LIFE_MAX + 2 * CLOCK_GRACE) < now
}

#[cfg(test)]
mod tests {
    use lighter_transport::Identity;

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn revocation(peer: PeerId, at: u64) -> Revocation {
        Revocation { mailbox: "bob@b.example".parse().unwrap(), peer, at: UnixTime(at) }
    }

    #[test]
    fn what_was_attested_before_the_revocation_does_not_count_and_what_was_after_does() {
        let peer = Identity::generate().peer();
        let revocations = Revocations::default();
        let attested = |mailbox: &str, peer, issued| Attestation {
            mailbox: mailbox.parse().unwrap(),
            peer,
            primary: true,
            relays: Vec::new(),
            issued: UnixTime(issued),
            expires: UnixTime(issued + 3_600),
        };
        revocations.note(&revocation(peer, NOW.0), NOW);
        assert!(!revocations.allow(&attested("bob@b.example", peer, NOW.0 - 1)));
        assert!(!revocations.allow(&attested("bob@b.example", peer, NOW.0)));
        assert!(revocations.allow(&attested("bob@b.example", peer, NOW.0 + 1)), "enrolled again");
        assert!(revocations.allow(&attested("ann@b.example", peer, NOW.0)), "of another mailbox");
        assert!(revocations.allow(&attested("bob@b.example", Identity::generate().peer(), NOW.0)));
    }

    #[test]
    fn bad_input_38_so_many_are_remembered_and_for_as_long_as_they_matter() {
        let revocations = Revocations::default();
        let count = |revocations: &Revocations| {
            let known = revocations.known();
            (known.at.len(), known.by_time.len())
        };
        let peers: Vec<_> = (0..5).map(|_| Identity::generate().peer()).collect();
        for (peer, at) in peers.iter().zip([NOW.0, NOW.0, NOW.0 + 50, NOW.0, NOW.0 + 60]) {
            revocations.note(&revocation(*peer, at), NOW);
            revocations.note(&revocation(*peer, at), NOW);
        }
        assert_eq!(count(&revocations), (5, 5));
        let late = NOW.plus(ATTESTATION_LIFE_MAX + 3 * CLOCK_GRACE);
        revocations.note(&revocation(peers[0], late.0), late);
        assert_eq!(count(&revocations), (1, 1));
    }
}
