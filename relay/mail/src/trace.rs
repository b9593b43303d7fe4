//! The trace that a server leaves in a message (RFC 5321 §4.4), and how it knows that a message goes round in circles.

use std::net::IpAddr;

use lighter_protocol::UnixTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::Protocol;
use crate::address::Address;
use crate::limits::HOPS_MAX;

/// What a `Received` field says.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The name that the peer gave itself, as [`crate::server::Event::Hello`] has it.
    pub hello: &'a str,
    /// The peer's address.
    pub peer: IpAddr,
    /// The name of this server.
    pub host_name: &'a str,
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// Whether the peer said EHLO or LHLO.
    pub extended: bool,
    /// Whether the connection was encrypted.
    pub tls: bool,
    /// Whether MAIL said SMTPUTF8.
    pub smtputf8: bool,
    /// This server's name for the message: letters and digits.
    pub id: &'a str,
    /// The recipient, where there is one: with several, none is named, as it would show them to each other.
    pub recipient: Option<&'a Address>,
    /// When it came.
    pub at: UnixTime,
}

impl Received<'_> {
    /// The field, with the CR LF that ends it.
    pub fn field(&self) -> String {
        let literal = match self.peer.to_canonical() {
            IpAddr::V4(v4) => format!("[{v4}]"),
            IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
        };
        let hello = if self.hello.is_empty() { "unknown" } else { self.hello };
        let recipient = self.recipient.map(|address| format!("\r\n\tfor <{address}>")).unwrap_or_default();
        format!(
            "Received: from {hello} ({literal})\r\n\tby {} with {} id {}{recipient};\r\n\t{}\r\n",
            self.host_name,
            self.with(),
            self.id,
            date(self.at)
        )
    }

    /// The protocol's registered name (RFC 3848, RFC 6531 §4.3).
    fn with(&self) -> String {
        let utf8 = if self.smtputf8 { "UTF8" } else { "" };
        let tls = if self.tls { "S" } else { "" };
        match self.protocol {
            Protocol::Lmtp => format!("{utf8}LMTP{tls}"),
            Protocol::Smtp if self.smtputf8 => format!("UTF8SMTP{tls}"),
            Protocol::Smtp if self.extended => format!("ESMTP{tls}"),
            Protocol::Smtp => "SMTP".to_owned(),
        }
    }
}

/// A date as header fields write it (RFC 5322 §3.3), in UTC. A time that has no such form (after the year 9999) reads
/// as the beginning of 1970.
pub fn date(at: UnixTime) -> String {
    let seconds = i64::try_from(at.0).unwrap_or_default();
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc2822).unwrap_or_else(|_| "Thu, 01 Jan 1970 00:00:00 +0000".to_owned())
}

/// Counts the `Received` fields of a message as it comes in (RFC 5321 §6.3).
#[derive(Clone, Debug)]
pub(crate) struct HopCounter {
    /// How many bytes of the present line are those of `Received:`; `None`: one was not.
    matched: Option<usize>,
    /// Bytes of the present line that are neither CR nor LF.
    line_len: usize,
    in_header: bool,
    hops: usize,
}

const RECEIVED: &[u8] = b"received:";

impl HopCounter {
    pub(crate) fn new() -> Self {
        Self { matched: Some(0), line_len: 0, in_header: true, hops: 0 }
    }

    /// Looks at a piece of the content.
    pub(crate) fn count(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while self.in_header && !rest.is_empty() {
            // Behind the point where the line cannot match any more, nothing but its end is of interest.
            if self.matched.is_none_or(|matched| matched == RECEIVED.len()) {
                let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                self.line_len += end;
                rest = &rest[end..];
            }
            let Some((&byte, tail)) = rest.split_first() else { return };
            rest = tail;
            self.take(byte);
        }
    }

    fn take(&mut self, byte: u8) {
        match byte {
            b'\n' => {
                self.in_header = self.line_len > 0;
                (self.matched, self.line_len) = (Some(0), 0);
            }
            b'\r' => {}
            _ => {
                self.line_len += 1;
                let next =
                    self.matched.filter(|matched| RECEIVED.get(*matched) == Some(&byte.to_ascii_lowercase()));
                self.matched = next.map(|matched| matched + 1);
                if self.matched == Some(RECEIVED.len()) {
                    self.hops += 1;
                }
            }
        }
    }

    /// Whether the message has come through more servers than any real way has.
    pub(crate) fn is_loop(&self) -> bool {
        self.hops > HOPS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_received_field_says_who_what_and_when() {
        let recipient = "c@d.example".parse().unwrap();
        let received = Received {
            hello: "client.example",
            peer: "192.0.2.1".parse().unwrap(),
            host_name: "mx.example.org",
            protocol: Protocol::Smtp,
            extended: true,
            tls: true,
            smtputf8: false,
            id: "4f2a",
            recipient: Some(&recipient),
            at: UnixTime(1_795_260_136),
        };
        let expected = "Received: from client.example ([192.0.2.1])\r\n\tby mx.example.org with ESMTPS id 4f2a\r\n\
                        \tfor <c@d.example>;\r\n\tSat, 21 Nov 2026 11:22:16 +0000\r\n";
        assert_eq!(received.field(), expected);
        let lmtp =
            Received { protocol: Protocol::Lmtp, tls: false, peer: "::1".parse().unwrap(), ..received };
        assert!(lmtp.field().contains("([IPv6:::1])") && lmtp.field().contains(" LMTP "));
    }

    #[test]
    fn a_date_is_written_for_any_time() {
        assert_eq!(date(UnixTime(0)), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(date(UnixTime(4_294_967_296)), "Sun, 07 Feb 2106 06:28:16 +0000");
        assert_eq!(date(UnixTime(u64::MAX)), "Thu, 01 Jan 1970 00:00:00 +0000");
    }

    fn hops(text: &str, by: usize) -> usize {
        let mut counter = HopCounter::new();
        for piece in text.as_bytes().chunks(by) {
            counter.count(piece);
        }
        counter.hops
    }

    #[test]
    fn only_received_fields_of_the_header_are_counted() {
        let text = "Received: a\r\n by b\r\nRECEIVED:c\r\nX-Received: d\r\nReceivedx: e\r\n received: f\r\n\
                    Recei\r\n\r\nReceived: in the body\r\n";
        for by in 1..text.len() {
            assert_eq!(hops(text, by), 2, "by {by}");
        }
    }
}
