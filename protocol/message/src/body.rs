//! A part's body: decoded and proved while it streams by ([`base64`]), and made again from its blob ([`encoder`]).

pub(crate) mod base64;
pub(crate) mod encoder;
