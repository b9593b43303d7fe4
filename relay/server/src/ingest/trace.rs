//! The `Received` field that the relay puts above a message (RFC 5321 §4.4).

use lighter_mail::trace::Received;
use lighter_protocol::{MessageId, UnixTime};
use time::OffsetDateTime;

use crate::intake::MailPeer;

/// The whole field, CR LF included. It names no recipient: with several, that would show Bcc recipients to each other.
pub(super) fn received(peer: &MailPeer, hostname: &str, id: &MessageId, now: OffsetDateTime) -> String {
    let received = Received {
        hello: &peer.hello,
        peer: peer.address.ip(),
        host_name: hostname,
        protocol: peer.protocol,
        extended: peer.extended,
        tls: peer.tls,
        smtputf8: false,
        id: &id.to_string(),
        recipient: None,
        at: UnixTime(u64::try_from(now.unix_timestamp()).unwrap_or_default()),
    };
    received.field()
}

#[cfg(test)]
mod tests {
    use lighter_mail::Protocol;

    use super::*;

    #[test]
    fn the_field_says_who_how_and_when_and_no_recipient() {
        let peer = MailPeer {
            address: "192.0.2.1:25".parse().unwrap(),
            protocol: Protocol::Lmtp,
            hello: "mx.example.org".to_owned(),
            extended: true,
            tls: false,
        };
        let field = received(&peer, "relay.example.org", &MessageId([7; 16]), OffsetDateTime::UNIX_EPOCH);
        assert_eq!(
            field,
            "Received: from mx.example.org ([192.0.2.1])\r\n\tby relay.example.org with LMTP \
             id 07070707070707070707070707070707;\r\n\tThu, 01 Jan 1970 00:00:00 +0000\r\n"
        );
    }
}
