//! Whom a message's header shows: the addresses in To and Cc. Only they share, since only they know of each other anyway.
//!
//! Found too few, somebody shares nothing; what is found is there for every recipient to read.

use std::collections::BTreeSet;

use lighter_protocol::Mailbox;
use mail_parser::{HeaderName, HeaderValue, MessageParser};

use super::Share;

/// The addresses in the To and Cc fields of a message that begins so; none where the header does not end in it, since an
/// address may be cut off then.
pub(crate) fn of_header(beginning: &[u8]) -> BTreeSet<Mailbox> {
    let ends = |end: &[u8]| beginning.windows(end.len()).position(|window| window == end);
    let Some(len) = ends(b"\r\n\r\n").into_iter().chain(ends(b"\n\n")).min() else { return BTreeSet::new() };
    let parser = MessageParser::new().with_address_headers();
    let Some(message) = parser.parse_headers(beginning.get(..len + 2).unwrap_or_default()) else {
        return BTreeSet::new();
    };
    let fields =
        message.headers().iter().filter(|header| matches!(header.name, HeaderName::To | HeaderName::Cc));
    let addresses = fields.filter_map(|header| match &header.value {
        HeaderValue::Address(addresses) => Some(addresses),
        _ => None,
    });
    let addresses = addresses.flat_map(|addresses| addresses.iter()).filter_map(|address| address.address());
    addresses.filter_map(|address| address.parse().ok()).collect()
}

/// Whether `recipient` is shown, with somebody to share with.
pub(crate) fn may_share(shown: &BTreeSet<Mailbox>, recipient: &Mailbox, share: Share) -> bool {
    shown.contains(recipient)
        && shown.iter().any(|other| other != recipient && share.permits(recipient, other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(header: &str) -> Vec<String> {
        of_header(header.as_bytes()).iter().map(|mailbox| mailbox.as_str().to_owned()).collect()
    }

    // SPEC: D3
    #[test]
    fn to_and_cc_are_shown_and_bcc_is_not() {
        let header = "From: ann@a.example\r\nTo: Carol <Carol@Example.org>,\r\n \"Dave, d@x.example\" <dave@example.org>\r\n\
            CC: the team: eve@b.example, (a comment) frank@b.example;\r\nBcc: gus@example.org\r\n\
            Resent-To: hal@example.org\r\nReply-To: ida@example.org\r\nSubject: To: jon@example.org\r\n\r\n\
            To: kim@example.org\r\n\r\n";
        assert_eq!(
            shown(header),
            ["carol@example.org", "dave@example.org", "eve@b.example", "frank@b.example"]
        );
        assert_eq!(shown(&header.replace("\r\n", "\n")).len(), 4);
    }

    #[test]
    fn bad_input_20_a_header_that_is_none_or_does_not_end_shows_nobody() {
        for header in [
            "",
            "To: a@b.example\r\n",
            "To: a@b.exam",
            "To:\r\n\r\n",
            "\r\n\r\n",
            "To: <>, @, a@, \u{0}\r\n\r\n",
        ] {
            assert_eq!(shown(header), Vec::<String>::new(), "{header:?}");
        }
        let long = format!("To: {}\r\n\r\n", "x@y.example, ".repeat(100_000));
        assert_eq!(shown(&long), ["x@y.example"]);
        let deep = format!("To: {}\r\n\r\n", "(".repeat(100_000));
        assert_eq!(shown(&deep), Vec::<String>::new());
    }

    // SPEC: D3
    #[test]
    fn who_is_alone_in_the_header_or_in_their_domain_shares_nothing() {
        let of =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<BTreeSet<Mailbox>>();
        let (carol, dave) = ("carol@a.example".parse().unwrap(), "dave@a.example".parse().unwrap());
        let both = of(&["carol@a.example", "dave@a.example", "eve@b.example"]);
        assert!(may_share(&both, &carol, Share::SameDomain) && may_share(&both, &dave, Share::SameDomain));
        assert!(!may_share(&both, &carol, Share::Off));
        let one = of(&["carol@a.example", "eve@b.example"]);
        assert!(!may_share(&one, &carol, Share::SameDomain) && may_share(&one, &carol, Share::All));
        assert!(!may_share(&one, &dave, Share::All), "in Bcc");
        assert!(!may_share(&of(&["carol@a.example"]), &carol, Share::All));
    }
}
