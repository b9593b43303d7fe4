//! Tickets: the right to fetch one delivery's attachments over HTTP (DESIGN §2, §8).
//!
//! A ticket is 32 bytes that nobody can guess; its text stands in the stub's links. It is not drawn but derived, from a
//! key that only the relay has, the delivery and a generation: so a stub can be made again at any retry, byte for byte,
//! and no list of tickets lies anywhere. Who serves them keeps only [`TicketHash`]es: a leaked catalog opens nothing.
//! A ticket is revoked by forgetting its hash, and replaced by the next generation's.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::DeliveryId;

/// What separates the tickets' key from all else that is derived from the array key.
const KEY_CONTEXT: &str = "lighter ticket 1";

/// The key that tickets are derived with. Secret.
#[derive(Clone)]
pub struct TicketKey([u8; 32]);

/// A right to fetch. Secret: it has no `Display`, and `Debug` does not show it; [`Ticket::to_text`] is asked for by name.
#[derive(Clone)]
pub struct Ticket([u8; 32]);

/// What is kept of a ticket: its BLAKE3 hash. It lets nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TicketHash(pub [u8; 32]);

/// A text that is no ticket: not 43 characters of base64url that stand for 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a ticket")]
pub struct ParseTicketError;

impl TicketKey {
    /// The tickets' key under `array_key`.
    pub fn derive(array_key: &[u8; 32]) -> Self {
        Self(blake3::derive_key(KEY_CONTEXT, array_key))
    }

    /// The ticket of `delivery`; each `generation` is another one.
    pub fn ticket(&self, delivery: &DeliveryId, generation: u32) -> Ticket {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(delivery.as_bytes()).update(&generation.to_le_bytes());
        Ticket(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(…)")
    }
}

impl Ticket {
    /// Characters of a ticket's text.
    pub const TEXT_LEN: usize = 43;

    /// The ticket as it stands in a link: base64url without padding (RFC 4648 §5).
    pub fn to_text(&self) -> String {
        BASE64URL_NOPAD.encode(&self.0)
    }

    /// What to keep of it, and to look for.
    pub fn hash(&self) -> TicketHash {
        TicketHash(*blake3::hash(&self.0).as_bytes())
    }
}

impl TicketHash {
    /// Whether it is `ticket`'s, in the same time for every ticket.
    pub fn is_of(&self, ticket: &Ticket) -> bool {
        self.0.ct_eq(&ticket.hash().0).into()
    }
}

impl PartialEq for Ticket {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Ticket {}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(…)")
    }
}

impl FromStr for Ticket {
    type Err = ParseTicketError;

    /// Takes exactly the one text that [`Ticket::to_text`] gives: no padding, no stray bits.
    fn from_str(text: &str) -> Result<Self, ParseTicketError> {
        if text.len() != Self::TEXT_LEN {
            return Err(ParseTicketError);
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| ParseTicketError)?;
        bytes.try_into().map(Self).map_err(|_| ParseTicketError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(generation: u32) -> Ticket {
        TicketKey::derive(&[7; 32]).ticket(&DeliveryId([1; 16]), generation)
    }

    #[test]
    fn a_ticket_can_be_made_again() {
        assert_eq!(ticket(0), ticket(0));
        assert_eq!(ticket(0).to_text().parse(), Ok(ticket(0)));
        assert_eq!(ticket(0).to_text(), "3EukE1ZemR4C4ZMId-uTXNkb2W0Mena6v7a7r5ijxr8");
    }

    #[test]
    fn bad_input_34_a_ticket_of_another_delivery_generation_or_array_does_not_match() {
        let hash = ticket(0).hash();
        assert!(hash.is_of(&ticket(0)));
        assert!(!hash.is_of(&ticket(1)));
        assert!(!hash.is_of(&TicketKey::derive(&[7; 32]).ticket(&DeliveryId([2; 16]), 0)));
        assert!(!hash.is_of(&TicketKey::derive(&[8; 32]).ticket(&DeliveryId([1; 16]), 0)));
        assert!(!hash.is_of(&Ticket(hash.0)), "the hash itself lets nobody in");
    }

    #[test]
    fn bad_input_34_a_text_that_is_no_ticket_is_refused() {
        let text = ticket(0).to_text();
        let mut stray_bits = text.clone();
        stray_bits.pop();
        stray_bits.push('J');
        for bad in [
            "",
            "x",
            &text[1..],
            &format!("{text}="),
            &format!("{text}A"),
            &stray_bits,
            &"+".repeat(43),
            &"ü".repeat(22),
        ] {
            assert_eq!(bad.parse::<Ticket>(), Err(ParseTicketError), "{bad}");
        }
    }

    #[test]
    fn a_ticket_does_not_show_in_logs() {
        let shown = format!("{:?} {:?}", ticket(0), TicketKey::derive(&[7; 32]));
        assert_eq!(shown, "Ticket(…) TicketKey(…)");
    }
}
