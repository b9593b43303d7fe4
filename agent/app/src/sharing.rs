//! Other recipients of the same message as sources of a delivery (SPEC D3): one of them has it already, perhaps at the next
//! desk, and gives it to another one at the sender's word.
//!
//! ```text
//!   sender ── Offer ──▶ carol ── Receipt ──▶ sender
//!   sender ── Offer ──▶ dave, who pulls
//!   sender ── Sources[carol gives to dave, signed] ──▶ dave
//!                       dave ── looks carol up, GetShared, GetShared … ──▶ carol
//! ```
//!
//! - `shown`: whom the message's header shows: nobody in Bcc ever takes part;
//! - `tell`: the sender's side: who has it, told to those who pull it;
//! - `take`: the taker's: whom it asks; `keep`: whom it asks after a restart;
//! - `give`: the giver's: whom it serves.
//!
//! Each of the three decides by a [`Share`] of its own. A store of many mailboxes takes no part: what is here for one of
//! its users is nobody's to notice.

pub(crate) mod give;
pub(crate) mod keep;
pub(crate) mod shown;
pub(crate) mod take;
pub(crate) mod tell;

use lighter_protocol::Mailbox;
use serde::{Deserialize, Serialize};

/// Between which recipients of a message attachments may be shared: in `[send]`, what a sender says; in `[store]`, what a
/// recipient gives and takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Share {
    /// None.
    Off,
    /// Those of one domain, who have the same location server.
    #[default]
    SameDomain,
    /// Any.
    All,
}

impl Share {
    /// Whether one of them may have from the other.
    pub fn permits(self, one: &Mailbox, other: &Mailbox) -> bool {
        match self {
            Self::Off => false,
            Self::SameDomain => one.domain() == other.domain(),
            Self::All => true,
        }
    }
}

/// Bytes of attachments, from which on it is worth it.
pub(crate) fn is_worth(bytes: u64) -> bool {
    bytes >= crate::limits::SHARED_LEN_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_it_is_shared_within_a_domain_only() {
        let named = |text: &str| text.parse::<Mailbox>().unwrap();
        let (carol, dave) = (named("carol@example.org"), named("dave@example.org"));
        let (below, other) = (named("eve@mail.example.org"), named("carol@example.com"));
        let permits = |share: Share| [&dave, &below, &other].map(|with| share.permits(&carol, with));
        assert_eq!(permits(Share::default()), [true, false, false]);
        assert_eq!(permits(Share::Off), [false; 3]);
        assert_eq!(permits(Share::All), [true; 3]);
    }
}
