//! A sender's word to one recipient's store that another recipient of the same message may read from it (SPEC D3).
//!
//! One message has one manifest and the same attachments for all its recipients, each of whom has a delivery of their own. A
//! recipient who has them may give them to another one whom the header shows. Neither can know of the other's delivery;
//! who sent the message to both does, and says so with a signature.

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use crate::limits::{CLOCK_GRACE, SHARING_LIFE_MAX};
use crate::signed::{Signed, SignedError};
use crate::{DeliveryId, Mailbox, Statement, UnixTime};

/// `taker`'s store may read from `giver`'s store what the giver's delivery holds. Signed by the peer that offered both their
/// deliveries; shown by the taker with each request to the giver, who decides all the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sharing {
    /// The giver's delivery: the signer offered it, and has its receipt.
    pub delivery: DeliveryId,
    /// Who has it.
    pub giver: Mailbox,
    /// The store whose receipt the signer has.
    pub giver_store: PeerId,
    /// Who may read it.
    pub taker: Mailbox,
    /// The store that the signer offers the same message to.
    pub taker_store: PeerId,
    /// At most [`SHARING_LIFE_MAX`] after it was made.
    pub expires: UnixTime,
}

impl Statement for Sharing {
    const CONTEXT: &'static str = "lighter sharing 1";

    fn within_limits(&self) -> bool {
        self.giver != self.taker && self.giver_store != self.taker_store
    }
}

/// Why a sharing does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharingError {
    /// It is not the sender's, or malformed.
    #[error("sharing: {0}")]
    Signed(#[from] SignedError),
    /// It has expired, by more than clocks may differ.
    #[error("sharing expired")]
    Expired,
    /// It would live longer than [`SHARING_LIFE_MAX`].
    #[error("sharing with a life that is not allowed")]
    Life,
    /// It is of another delivery.
    #[error("sharing of another delivery")]
    OtherDelivery,
    /// It lets somebody read from another store, or from this one for another mailbox.
    #[error("sharing by another giver")]
    OtherGiver,
    /// It is for another store, or another mailbox.
    #[error("sharing with another taker")]
    OtherTaker,
}

impl Sharing {
    /// The sharing, for the store `own` that is to give what it received as `delivery` for `mailbox`: if `sender`, who
    /// offered that delivery to it, signed it; if `asker`, the other end of the connection, is the taker's store; and if it is
    /// in date.
    ///
    /// Whether its user gives anything to the taker is another question.
    ///
    /// # Errors
    /// Says which check failed; nothing of it may be used then.
    pub fn verify_to_give(
        signed: &Signed<Self>,
        sender: &PeerId,
        (own, mailbox): (&PeerId, &Mailbox),
        delivery: DeliveryId,
        asker: &PeerId,
        now: UnixTime,
    ) -> Result<Self, SharingError> {
        let sharing = signed.verify(sender)?;
        if sharing.delivery != delivery {
            return Err(SharingError::OtherDelivery);
        }
        if (&sharing.giver_store, &sharing.giver) != (own, mailbox) {
            return Err(SharingError::OtherGiver);
        }
        if sharing.taker_store != *asker {
            return Err(SharingError::OtherTaker);
        }
        sharing.in_date(now)?;
        Ok(sharing)
    }

    /// The sharing, for the store `own` that is to take for `mailbox`: if `sender`, who offers it the message on this
    /// connection, signed it, and it is in date.
    ///
    /// Where the giver's store is, and that it is the giver's, the taker asks its own location server.
    ///
    /// # Errors
    /// Says which check failed; nothing of it may be used then.
    pub fn verify_to_take(
        signed: &Signed<Self>,
        sender: &PeerId,
        (own, mailbox): (&PeerId, &Mailbox),
        now: UnixTime,
    ) -> Result<Self, SharingError> {
        let sharing = signed.verify(sender)?;
        if (&sharing.taker_store, &sharing.taker) != (own, mailbox) {
            return Err(SharingError::OtherTaker);
        }
        sharing.in_date(now)?;
        Ok(sharing)
    }

    /// Whether it counts at `now`: not expired, nor good for longer than one may be, with [`CLOCK_GRACE`] at both ends.
    ///
    /// # Errors
    /// [`SharingError::Expired`] or [`SharingError::Life`].
    pub fn in_date(&self, now: UnixTime) -> Result<(), SharingError> {
        if now >= self.expires.plus(CLOCK_GRACE) {
            return Err(SharingError::Expired);
        }
        if self.expires > now.plus(SHARING_LIFE_MAX + CLOCK_GRACE) {
            return Err(SharingError::Life);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{LOCATION, MALLORY, RELAY, SENDER, STORE, bob, carol, hours, now, peer, signed};

    const DELIVERY: DeliveryId = DeliveryId([7; 16]);

    /// Carol's store, for which the relay's key stands, gives to Bob's.
    fn sharing() -> Sharing {
        Sharing {
            delivery: DELIVERY,
            giver: carol(),
            giver_store: peer(RELAY),
            taker: bob(),
            taker_store: peer(STORE),
            expires: now().wall.plus(hours(24)),
        }
    }

    fn give(sharing: &Sharing, by: u8, asker: u8, at: UnixTime) -> Result<Sharing, SharingError> {
        let own = (&peer(RELAY), &carol());
        Sharing::verify_to_give(&signed(sharing, by), &peer(SENDER), own, DELIVERY, &peer(asker), at)
    }

    fn take(sharing: &Sharing, by: u8, at: UnixTime) -> Result<Sharing, SharingError> {
        Sharing::verify_to_take(&signed(sharing, by), &peer(SENDER), (&peer(STORE), &bob()), at)
    }

    // SPEC: D3
    #[test]
    fn a_sharing_counts_for_its_giver_and_its_taker() {
        assert_eq!(give(&sharing(), SENDER, STORE, now().wall), Ok(sharing()));
        assert_eq!(take(&sharing(), SENDER, now().wall), Ok(sharing()));
    }

    #[test]
    fn bad_input_34_a_sharing_of_another_signer_giver_taker_or_delivery_does_not_count() {
        let at = now().wall;
        for by in [MALLORY, LOCATION, STORE, RELAY] {
            assert_eq!(give(&sharing(), by, STORE, at), Err(SignedError::Signature.into()));
            assert_eq!(take(&sharing(), by, at), Err(SignedError::Signature.into()));
        }
        let other = |change: &dyn Fn(&mut Sharing)| {
            let mut sharing = sharing();
            change(&mut sharing);
            (give(&sharing, SENDER, STORE, at), take(&sharing, SENDER, at))
        };
        let (given, _) = other(&|sharing| sharing.delivery = DeliveryId([8; 16]));
        assert_eq!(given, Err(SharingError::OtherDelivery));
        for given in [
            other(&|sharing| sharing.giver_store = peer(MALLORY)).0,
            other(&|sharing| sharing.giver = "dave@example.org".parse().unwrap()).0,
        ] {
            assert_eq!(given, Err(SharingError::OtherGiver));
        }
        let (given, taken) = other(&|sharing| sharing.taker_store = peer(MALLORY));
        assert_eq!((given, taken), (Err(SharingError::OtherTaker), Err(SharingError::OtherTaker)));
        let (_, taken) = other(&|sharing| sharing.taker = "dave@example.org".parse().unwrap());
        assert_eq!(taken, Err(SharingError::OtherTaker));
        // Replayed by somebody else.
        assert_eq!(give(&sharing(), SENDER, MALLORY, at), Err(SharingError::OtherTaker));
    }

    #[test]
    fn a_sharing_counts_until_it_expires_and_never_for_long() {
        let expires = sharing().expires;
        let last = UnixTime(expires.0 + 3_600 - 1);
        for (at, expected) in [
            (last, Ok(sharing())),
            (UnixTime(last.0 + 1), Err(SharingError::Expired)),
            (UnixTime(expires.0 - 25 * 3_600), Ok(sharing())),
            (UnixTime(expires.0 - 25 * 3_600 - 1), Err(SharingError::Life)),
        ] {
            assert_eq!(give(&sharing(), SENDER, STORE, at), expected, "{at:?}");
            assert_eq!(take(&sharing(), SENDER, at), expected, "{at:?}");
        }
    }

    #[test]
    fn nobody_shares_with_themselves() {
        for sharing in
            [Sharing { taker: carol(), ..sharing() }, Sharing { taker_store: peer(RELAY), ..sharing() }]
        {
            assert_eq!(Signed::sign(&sharing, &crate::fixtures::key(SENDER)), Err(SignedError::Limits));
        }
    }
}
