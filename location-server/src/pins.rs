//! The keys of other domains' location servers: remembered when they are first seen, and followed where a change was
//! announced (`lighter_transport::location::keys`): a value.
//!
//! ```text
//!  pinned A ── the domain says A, or a chain of changes leads from A to B ──▶ believed
//!           └─ the domain says C, which nothing announced ─▶ not believed for a week, then pinned
//! ```

use lighter_protocol::{PeerId, UnixTime};
use lighter_transport::location::api::DomainAnswer;
use lighter_transport::location::keys::is_same_server;

use crate::limits::{KEY_SURPRISE_WAIT, PIN_SEEN_INTERVAL};
use crate::rows::PinRow;

/// What is to be thought of what a domain says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether its key is believed.
    pub is_believed: bool,
    /// What is to be remembered from now on, where that is not what was.
    pub remember: Option<PinRow>,
}

/// Judges what a domain, whose key was remembered as `pin`, says now.
pub fn judge(pin: Option<&PinRow>, answer: &DomainAnswer, now: UnixTime) -> Verdict {
    let key = answer.location;
    let believed = PinRow { key, seen: now, other: None };
    let Some(pin) = pin else { return Verdict { is_believed: true, remember: Some(believed) } };
    if is_same_server(pin.key, answer, now) {
        let is_new = pin.key != key || pin.other.is_some() || now.since(pin.seen) >= PIN_SEEN_INTERVAL;
        return Verdict { is_believed: true, remember: is_new.then_some(believed) };
    }
    match pin.other {
        Some((other, since)) if other == key => {
            let is_believed = now.since(since) >= KEY_SURPRISE_WAIT;
            Verdict { is_believed, remember: is_believed.then_some(believed) }
        }
        _ => Verdict { is_believed: false, remember: Some(surprised(pin, key, now)) },
    }
}

fn surprised(pin: &PinRow, key: PeerId, now: UnixTime) -> PinRow {
    PinRow { other: Some((key, now)), ..*pin }
}

#[cfg(test)]
mod tests {
    use lighter_protocol::{Keypair, Signed};
    use lighter_transport::location::keys::KeyChange;

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn key(of: u8) -> Keypair {
        Keypair::ed25519_from_bytes([of; 32]).unwrap()
    }

    fn peer(of: u8) -> PeerId {
        key(of).public().to_peer_id()
    }

    fn says(location: u8, key_changes: Vec<Signed<KeyChange>>) -> DomainAnswer {
        DomainAnswer { location: peer(location), domains: Vec::new(), key_changes }
    }

    fn pinned(of: u8) -> PinRow {
        PinRow { key: peer(of), seen: NOW, other: None }
    }

    #[test]
    fn the_first_key_is_remembered_and_the_same_one_believed() {
        let first = judge(None, &says(1, vec![]), NOW);
        assert_eq!(first, Verdict { is_believed: true, remember: Some(pinned(1)) });
        assert_eq!(
            judge(Some(&pinned(1)), &says(1, vec![]), NOW),
            Verdict { is_believed: true, remember: None }
        );
        let later = judge(Some(&pinned(1)), &says(1, vec![]), NOW.plus(PIN_SEEN_INTERVAL));
        assert!(later.remember.is_some(), "that it is still seen");
    }

    #[test]
    fn an_announced_key_is_believed_and_remembered() {
        let change = KeyChange { present: peer(1), next: peer(2), from: NOW };
        let changes = vec![Signed::sign(&change, &key(1)).unwrap()];
        let verdict = judge(Some(&pinned(1)), &says(2, changes), NOW);
        assert_eq!(verdict, Verdict { is_believed: true, remember: Some(pinned(2)) });
    }

    #[test]
    fn bad_input_34_a_key_that_nothing_announced_is_believed_after_a_week_of_the_same() {
        let surprise = judge(Some(&pinned(1)), &says(2, vec![]), NOW);
        assert!(!surprise.is_believed);
        let waiting = surprise.remember.unwrap();
        assert_eq!((waiting.key, waiting.other), (peer(1), Some((peer(2), NOW))));
        let (week, almost) = (NOW.plus(KEY_SURPRISE_WAIT), UnixTime(NOW.0 + KEY_SURPRISE_WAIT.as_secs() - 1));
        assert_eq!(
            judge(Some(&waiting), &says(2, vec![]), almost),
            Verdict { is_believed: false, remember: None }
        );
        assert!(judge(Some(&waiting), &says(2, vec![]), week).is_believed);
        let another = judge(Some(&waiting), &says(3, vec![]), week);
        assert!(!another.is_believed, "the week begins again");
        let back = judge(Some(&waiting), &says(1, vec![]), week);
        assert!(back.is_believed && back.remember.unwrap().other.is_none());
    }
}
