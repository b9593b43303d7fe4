//! A location server's key, and how it changes: announced beforehand, signed by the key that goes (DESIGN §4).
//!
//! ```text
//!            announced                from
//!  key A ────────┼─────────────────────┤
//!  key B         └╌╌╌╌╌╌╌ known ╌╌╌╌╌╌╌├──────────────▶
//! ```
//! The server gives all its changes with `GET /v1/domain`, oldest first, so whoever knows any of its former keys follows
//! the chain to the present one; who was away over the change, too. A key that no chain leads to is another server's.

use lighter_protocol::limits::{ATTESTATION_LIFE_MAX, CLOCK_GRACE};
use lighter_protocol::{PeerId, Signed, Statement, UnixTime};
use serde::{Deserialize, Serialize};

use super::api::DomainAnswer;
use super::limits::KEY_CHANGES_MAX;

/// A location server's word, signed with its present key, that another takes its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// The key that goes, and signs this.
    pub present: PeerId,
    /// The key that comes.
    pub next: PeerId,
    /// From here on the next one signs.
    pub from: UnixTime,
}

impl Statement for KeyChange {
    const CONTEXT: &'static str = "lighter location key change 1";
}

/// Where `changes` lead from a key that is trusted: the key that signs at `now`.
pub fn follow(trusted: PeerId, changes: &[Signed<KeyChange>], now: UnixTime) -> PeerId {
    let mut key = trusted;
    for signed in changes.iter().take(KEY_CHANGES_MAX) {
        // Older changes, of keys before the trusted one, are no step of its chain.
        if let Ok(change) = signed.verify(&key)
            && change.present == key
            && change.from <= now
        {
            key = change.next;
        }
    }
    key
}

/// Whether a server that says `answer` is the one whose key was `trusted`: that is its key, or its changes lead from there
/// to it. Around a change the clocks may differ.
pub fn is_same_server(trusted: PeerId, answer: &DomainAnswer, now: UnixTime) -> bool {
    let early = UnixTime(now.0.saturating_sub(CLOCK_GRACE.as_secs()));
    [early, now, now.plus(CLOCK_GRACE)]
        .into_iter()
        .any(|now| follow(trusted, &answer.key_changes, now) == answer.location)
}

/// The keys by which a server that says `answer` may have attested what still counts at `now`: its present one, one that
/// takes over about now, and those that did not go longer ago than an attestation lives.
pub fn attesting(answer: &DomainAnswer, now: UnixTime) -> Vec<PeerId> {
    let mut keys = vec![answer.location];
    for signed in answer.key_changes.iter().take(KEY_CHANGES_MAX) {
        let Ok(claim) = signed.claim() else { continue };
        let Ok(change) = signed.verify(&claim.present) else { continue };
        if keys.contains(&change.present) && change.from <= now.plus(CLOCK_GRACE) {
            keys.push(change.next);
        } else if keys.contains(&change.next) && now < change.from.plus(ATTESTATION_LIFE_MAX + CLOCK_GRACE) {
            keys.push(change.present);
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use lighter_protocol::Keypair;

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn key(of: u8) -> Keypair {
        Keypair::ed25519_from_bytes([of; 32]).unwrap()
    }

    fn peer(of: u8) -> PeerId {
        key(of).public().to_peer_id()
    }

    fn change(present: u8, next: u8, from: u64, by: u8) -> Signed<KeyChange> {
        let change = KeyChange { present: peer(present), next: peer(next), from: UnixTime(from) };
        Signed::sign(&change, &key(by)).unwrap()
    }

    fn answer(location: u8, key_changes: Vec<Signed<KeyChange>>) -> DomainAnswer {
        DomainAnswer { location: peer(location), domains: Vec::new(), key_changes }
    }

    #[test]
    fn a_chain_of_changes_leads_from_any_former_key_to_the_present_one() {
        let changes = vec![change(1, 2, NOW.0 - 900_000, 1), change(2, 3, NOW.0 - 10_000, 2)];
        for trusted in [1, 2, 3] {
            assert_eq!(follow(peer(trusted), &changes, NOW), peer(3));
            assert!(is_same_server(peer(trusted), &answer(3, changes.clone()), NOW));
        }
        assert!(!is_same_server(peer(4), &answer(3, changes), NOW), "no chain leads from there");
    }

    #[test]
    fn bad_input_34_a_change_that_the_present_key_did_not_sign_is_none() {
        for forged in [change(1, 2, 0, 2), change(1, 2, 0, 9), change(9, 2, 0, 9), change(9, 2, 0, 1)] {
            assert_eq!(follow(peer(1), std::slice::from_ref(&forged), NOW), peer(1));
            assert!(!is_same_server(peer(1), &answer(2, vec![forged]), NOW));
        }
    }

    #[test]
    fn an_announced_key_counts_from_its_time_on_give_or_take_the_clocks() {
        let from = NOW.0 + 7 * 24 * 3600;
        let announced = vec![change(1, 2, from, 1)];
        assert_eq!(follow(peer(1), &announced, NOW), peer(1));
        assert!(is_same_server(peer(1), &answer(1, announced.clone()), NOW));
        assert!(!is_same_server(peer(1), &answer(2, announced.clone()), NOW), "not yet");
        let grace = CLOCK_GRACE.as_secs();
        for (now, old, new) in [
            (from - grace - 1, true, false),
            (from - 1, true, true),
            (from + 1, true, true),
            (from + grace + 1, false, true),
        ] {
            let now = UnixTime(now);
            assert_eq!(is_same_server(peer(1), &answer(1, announced.clone()), now), old, "{now}");
            assert_eq!(is_same_server(peer(1), &answer(2, announced.clone()), now), new, "{now}");
        }
    }

    #[test]
    fn what_a_former_key_attested_counts_for_as_long_as_attestations_live() {
        let change = |hours_ago: u64| vec![change(1, 2, NOW.0 - hours_ago * 3600, 1)];
        assert_eq!(attesting(&answer(2, change(1)), NOW), [peer(2), peer(1)]);
        assert_eq!(attesting(&answer(2, change(26)), NOW), [peer(2)]);
        // Said before the change, and remembered since.
        assert_eq!(attesting(&answer(1, change(1)), NOW), [peer(1), peer(2)]);
        let forged =
            vec![Signed::sign(&KeyChange { present: peer(2), next: peer(9), from: NOW }, &key(9)).unwrap()];
        assert_eq!(attesting(&answer(2, forged), NOW), [peer(2)]);
    }
}
