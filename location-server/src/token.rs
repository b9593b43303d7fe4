//! New tokens: 256 random bits each, with a prefix that tells people (and secret scanners) what they are.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use lighter_transport::location::Secret;
use rand::{CryptoRng, RngExt};

/// What kind of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A mail server's or relay's.
    Api,
    /// For one enrolment.
    Invitation,
    /// A store's, from one registration to the next.
    Session,
}

impl TokenKind {
    /// What the token's text begins with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Api => "lapi_",
            Self::Invitation => "linv_",
            Self::Session => "lses_",
        }
    }

    /// A new token.
    pub fn draw(self, random: &mut impl CryptoRng) -> Secret {
        let bytes: [u8; 32] = random.random();
        Secret::new(format!("{}{}", self.prefix(), BASE64URL_NOPAD.encode(&bytes)))
    }
}

/// A short name for a token, to revoke it by.
pub fn draw_id(random: &mut impl CryptoRng) -> String {
    HEXLOWER.encode(&random.random::<[u8; 6]>())
}
