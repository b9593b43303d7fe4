//! Why a message was not handed on, where this side knows and not the next hop.

use crate::reply::Reply;

pub(super) const LOST: Reply = Reply::fixed(451, 4, 2, "Connection to the next hop lost");
/// The next hop may have the message: sending it again may double it, not sending it again may lose it.
pub(super) const LOST_AT_END: Reply =
    Reply::fixed(451, 4, 2, "Connection to the next hop lost before its final reply");
pub(super) const NO_AUTH: Reply = Reply::fixed(454, 7, 0, "Cannot authenticate now");
pub(super) const TIMED_OUT: Reply = Reply::fixed(451, 4, 2, "The next hop is too slow");
pub(super) const GARBLED: Reply = Reply::fixed(451, 5, 0, "The next hop does not speak the protocol");
pub(super) const NO_TLS: Reply = Reply::fixed(451, 7, 0, "The next hop offers no TLS, which is required");
pub(super) const NO_TLS_AGREED: Reply = Reply::fixed(451, 7, 5, "TLS with the next hop failed");
pub(super) const NO_REPLY: Reply = Reply::fixed(451, 5, 0, "The next hop did not answer for this recipient");
pub(super) const SOURCE_FAILED: Reply = Reply::fixed(451, 3, 0, "The message could not be read");
/// RFC 1870 §6.
pub(super) const TOO_BIG: Reply = Reply::fixed(552, 3, 4, "Message too big for the next hop");
/// RFC 6152 §3.
pub(super) const NEEDS_8BITMIME: Reply = Reply::fixed(554, 6, 3, "The next hop takes no 8-bit content");
/// RFC 6531 §3.5.
pub(super) const NEEDS_SMTPUTF8: Reply =
    Reply::fixed(553, 6, 7, "The next hop takes no internationalized mail");
pub(super) const BARE_LINE_END: Reply =
    Reply::fixed(554, 6, 0, "Message has a bare CR or LF (RFC 5321 section 2.3.8)");
