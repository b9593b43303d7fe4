//! The `Received` field that the relay puts above a message (RFC 5321 §4.4).

use lighter_mail::Protocol;
use lighter_protocol::MessageId;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::intake::MailPeer;

/// The whole field, CR LF included. It names no recipient: with several, that would show Bcc recipients to each other.
pub(super) fn received(peer: &MailPeer, hostname: &str, id: &MessageId, now: OffsetDateTime) -> String {
    let protocol = keyword(peer);
    let date = now.format(&Rfc2822).unwrap_or_default();
    let address = match peer.address.ip().to_canonical() {
        std::net::IpAddr::V4(address) => format!("[{address}]"),
        std::net::IpAddr::V6(address) => format!("[IPv6:{address}]"),
    };
    let hello = &peer.hello;
    format!("Received: from {hello} ({address})\r\n\tby {hostname} with {protocol} id {id};\r\n\t{date}\r\n")
}

/// The `with` keyword (RFC 3848).
fn keyword(peer: &MailPeer) -> &'static str {
    match (peer.protocol, peer.extended, peer.tls) {
        (Protocol::Smtp, false, _) => "SMTP",
        (Protocol::Smtp, true, false) => "ESMTP",
        (Protocol::Smtp, true, true) => "ESMTPS",
        (Protocol::Lmtp, _, false) => "LMTP",
        (Protocol::Lmtp, _, true) => "LMTPS",
    }
}

#[cfg(test)]
mod tests {
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
