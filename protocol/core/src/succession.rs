//! A store's word that another key takes the place of its own (DESIGN §4): how a device's key is rotated.
//!
//! ```text
//!   key A ──Succession──▶ key B ──Succession──▶ key C
//! ```
//! The location server takes the enrolment over to the next key at this word, at once; whoever had to do with a former key
//! follows the statements from it to the present one: a sender whose drop was sealed to the key of before, a relay that
//! keeps what the key of before left there. No location server can make one: each is signed by the key that goes.

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use crate::limits::{CLOCK_GRACE, SUCCESSIONS_MAX};
use crate::signed::{Signed, SignedError};
use crate::{Mailbox, Statement, UnixTime};

/// The key `next` takes the place of the key `former`, which signs this, as a store of the mailbox. From then on the former
/// key may do nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Succession {
    /// Whose store.
    pub mailbox: Mailbox,
    /// The key that goes; the statement is signed with it.
    pub former: PeerId,
    /// The key that comes.
    pub next: PeerId,
    /// When it was said.
    pub time: UnixTime,
}

impl Statement for Succession {
    const CONTEXT: &'static str = "lighter succession 1";

    fn within_limits(&self) -> bool {
        self.former != self.next
    }
}

/// Why a succession does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuccessionError {
    /// It is not signed by the key that goes, or malformed.
    #[error("succession: {0}")]
    Signed(#[from] SignedError),
    /// The key that comes has not agreed to it.
    #[error("succession by a key that has not agreed")]
    NotAgreed,
    /// It is older, or of a later time, than clocks may differ ([`CLOCK_GRACE`]).
    #[error("succession of another time")]
    Time,
}

impl Succession {
    /// The succession, if the key that goes signed it.
    ///
    /// # Errors
    /// Says which check failed; nothing of it may be used then.
    pub fn verify(signed: &Signed<Self>) -> Result<Self, SuccessionError> {
        Ok(signed.verify(&signed.claim()?.former)?)
    }

    /// The succession, if it is said just now, the key that goes signed it, and the key that comes signed the same: whoever
    /// has one of the two keys only can change nothing.
    ///
    /// # Errors
    /// Says which check failed; nothing of it may be used then.
    pub fn verify_agreed(
        signed: &Signed<Self>,
        agreed: &Signed<Self>,
        now: UnixTime,
    ) -> Result<Self, SuccessionError> {
        let succession = Self::verify(signed)?;
        let by_next = agreed.verify(&succession.next).map_err(|_| SuccessionError::NotAgreed)?;
        if by_next != succession {
            return Err(SuccessionError::NotAgreed);
        }
        if succession.time > now.plus(CLOCK_GRACE) || succession.time.plus(CLOCK_GRACE) < now {
            return Err(SuccessionError::Time);
        }
        Ok(succession)
    }

    /// The keys, newest first, from which `successions` lead to `present`, which is none of them: what it was before. In
    /// whatever order they come; of more than [`SUCCESSIONS_MAX`] the rest is not looked at.
    pub fn formers(successions: &[Signed<Self>], present: &PeerId) -> Vec<PeerId> {
        let verified = successions.iter().take(SUCCESSIONS_MAX).map(Self::verify);
        let verified: Vec<_> = verified.filter_map(Result::ok).collect();
        let (mut keys, mut seen) = (Vec::new(), 0);
        // Those from which it is one step, then those from which it is one more.
        let mut reached = vec![*present];
        while let Some(&next) = reached.get(seen) {
            seen += 1;
            for succession in verified.iter().filter(|succession| succession.next == next) {
                if !reached.contains(&succession.former) {
                    reached.push(succession.former);
                    keys.push(succession.former);
                }
            }
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{MALLORY, STORE, bob, hours, now, peer, signed};

    fn succession(former: u8, next: u8) -> Succession {
        Succession { mailbox: bob(), former: peer(former), next: peer(next), time: now().wall }
    }

    fn said(former: u8, next: u8) -> Signed<Succession> {
        signed(&succession(former, next), former)
    }

    // SPEC: A12 — a device's key is rotated by both of its keys
    #[test]
    fn bad_input_34_a_succession_counts_with_both_signatures_and_at_its_time_only() {
        use SuccessionError as E;
        let start = now().wall;
        let of = succession(STORE, 9);
        let check = |by: u8, agreed: &Succession, agreed_by: u8, now| {
            Succession::verify_agreed(&signed(&of, by), &signed(agreed, agreed_by), now)
        };
        assert_eq!(check(STORE, &of, 9, start), Ok(of.clone()));
        assert_eq!(
            check(MALLORY, &of, 9, start),
            Err(E::Signed(SignedError::Signature)),
            "not by the former"
        );
        assert_eq!(check(9, &of, 9, start), Err(E::Signed(SignedError::Signature)), "by the next alone");
        assert_eq!(check(STORE, &of, STORE, start), Err(E::NotAgreed), "by the former alone");
        let other = Succession { time: start.plus(hours(1)), ..of.clone() };
        assert_eq!(check(STORE, &other, 9, start), Err(E::NotAgreed), "to something else");
        assert_eq!(check(STORE, &of, 9, start.plus(hours(2))), Err(E::Time), "replayed");
        assert_eq!(check(STORE, &of, 9, UnixTime(start.0 - 7_200)), Err(E::Time), "of the future");
        assert_eq!(
            Signed::sign(&succession(STORE, STORE), &crate::fixtures::key(STORE)),
            Err(SignedError::Limits)
        );
    }

    #[test]
    fn former_keys_are_found_over_any_number_of_steps_in_any_order() {
        let mut chain = vec![said(10, 11), said(11, 12), said(12, 13)];
        assert_eq!(Succession::formers(&chain, &peer(13)), [peer(12), peer(11), peer(10)]);
        chain.reverse();
        assert_eq!(Succession::formers(&chain, &peer(13)), [peer(12), peer(11), peer(10)]);
        assert_eq!(Succession::formers(&chain, &peer(12)), [peer(11), peer(10)]);
        assert_eq!(Succession::formers(&chain, &peer(10)), []);
    }

    #[test]
    fn bad_input_34_a_former_key_is_one_only_by_its_own_word_and_a_ring_ends() {
        let forged = signed(&succession(10, MALLORY), MALLORY);
        assert_eq!(Succession::formers(&[forged], &peer(MALLORY)), []);
        let broken = [said(10, 11), signed(&succession(11, 12), 12), said(12, 13)];
        assert_eq!(Succession::formers(&broken, &peer(13)), [peer(12)]);
        let ring = [said(10, 11), said(11, 10)];
        assert_eq!(Succession::formers(&ring, &peer(11)), [peer(10)]);
    }

    #[test]
    fn bad_input_38_of_too_many_successions_the_rest_is_not_looked_at() {
        let chain: Vec<_> = (20..60).map(|number| said(number, number + 1)).collect();
        assert_eq!(Succession::formers(&chain, &peer(60)), [], "the last steps are not among the first");
        assert_eq!(Succession::formers(&chain, &peer(36)).len(), SUCCESSIONS_MAX);
    }
}
