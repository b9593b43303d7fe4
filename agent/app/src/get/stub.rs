//! What a stub says of its attachments. None of it is believed: a blob proves itself by its id, and a link is followed
//! only to an own relay ([`Link::parse`]).

use std::io::{self, BufRead, Read};

use data_encoding::HEXUPPER_PERMISSIVE;
use lighter_message::fields::{PART_FIELD, PartField};
use lighter_message::name::sanitize_name;
use lighter_protocol::limits::OFFER_BLOBS_MAX;
use lighter_protocol::{BlobId, DeliveryId, Ticket};

use crate::limits::STUB_LINE_LEN_MAX;

/// The field that a placeholder's link stands in.
const LINK_FIELD: &str = "X-Mozilla-Cloud-Part";

/// An attachment that a stub speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) delivery: DeliveryId,
    pub(super) blob: BlobId,
    pub(super) size: u64,
    /// Where its placeholder points to.
    pub(super) link: Option<String>,
}

/// Reads the attachments out of a stub, in their order.
///
/// # Errors
/// What reading says.
pub(super) fn attachments(stub: &mut impl BufRead) -> io::Result<Vec<Attachment>> {
    let mut found = Vec::new();
    let mut line = Vec::new();
    // The fields of the placeholder's header that is being read; none outside of one.
    let mut fields: Option<Vec<Vec<u8>>> = None;
    while found.len() < OFFER_BLOBS_MAX && read_line(stub, &mut line)? {
        let is_begin = starts_with_name(&line, PART_FIELD);
        match &mut fields {
            None if is_begin => fields = Some(vec![std::mem::take(&mut line)]),
            None => {}
            Some(_) if line.is_empty() => found.extend(attachment(&fields.take().unwrap_or_default())),
            Some(fields) => match fields.last_mut() {
                Some(last) if line.starts_with(b" ") || line.starts_with(b"\t") => {
                    // What is longer than any field of ours is none.
                    if last.len() <= STUB_LINE_LEN_MAX {
                        last.extend_from_slice(&line);
                    }
                }
                _ => fields.push(std::mem::take(&mut line)),
            },
        }
        if fields.as_ref().is_some_and(|fields| fields.len() > FIELDS_MAX) {
            fields = None;
        }
    }
    Ok(found)
}

/// Header fields of a placeholder: the relay writes five.
const FIELDS_MAX: usize = 64;

/// The next line without its end, the rest of an overlong one left out; false at the end.
fn read_line(stub: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let len_max = STUB_LINE_LEN_MAX as u64;
    if stub.by_ref().take(len_max).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    let mut rest = Vec::new();
    let mut ended = line.last() == Some(&b'\n') || (line.len() as u64) < len_max;
    while !ended {
        rest.clear();
        let len = stub.by_ref().take(len_max).read_until(b'\n', &mut rest)?;
        ended = len == 0 || rest.last() == Some(&b'\n');
    }
    while line.last().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
        line.pop();
    }
    Ok(true)
}

fn starts_with_name(line: &[u8], name: &str) -> bool {
    line.split_at_checked(name.len())
        .is_some_and(|(start, rest)| start.eq_ignore_ascii_case(name.as_bytes()) && rest.starts_with(b":"))
}

fn attachment(fields: &[Vec<u8>]) -> Option<Attachment> {
    let value = |name: &str| {
        let field = fields.iter().find(|field| starts_with_name(field, name))?;
        field.get(name.len() + 1..)
    };
    let part = PartField::parse(value(PART_FIELD)?).ok()?;
    let link = value(LINK_FIELD).and_then(|value| url_of(&String::from_utf8_lossy(value)));
    Some(Attachment { delivery: part.delivery, blob: part.blob, size: part.size, link })
}

/// `cloudFile; url=URL; name="…"`: what stands after `url=`.
fn url_of(value: &str) -> Option<String> {
    value.split(';').find_map(|item| item.trim().strip_prefix("url=")).map(|url| url.trim().to_owned())
}

/// A link to an attachment at an own relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Made anew from what was understood of the stub's.
    pub(super) url: String,
    /// The file name at its end, made harmless.
    pub(super) name: Option<String>,
}

impl Link {
    /// A stub's link, where it leads to one of `relays` (their retrieval URLs, as the own attestation says): whoever
    /// else it leads to would learn that somebody opened the mail, and could be anybody on this network.
    pub(super) fn parse(text: &str, relays: &[String]) -> Option<Self> {
        let (base, path) = relays.iter().find_map(|relay| {
            let base = relay.trim_end_matches('/');
            Some((base, text.strip_prefix(base)?.strip_prefix("/t/")?))
        })?;
        let mut segments = path.split('/');
        let ticket: Ticket = segments.next()?.parse().ok()?;
        let number: u32 = segments.next()?.parse().ok()?;
        let name = segments.next().and_then(percent_decode).map(|name| sanitize_name(&name));
        if segments.next().is_some() {
            return None;
        }
        Some(Self { url: format!("{base}/t/{}/{number}", ticket.to_text()), name })
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, later)) = rest.split_first() {
        rest = later;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, later) = rest.split_at_checked(2)?;
        bytes.extend(HEXUPPER_PERMISSIVE.decode(digits).ok()?);
        rest = later;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use lighter_message::drive::{self, MemoryBlobs};
    use lighter_message::{Policy, StubContext};

    use super::*;

    const TICKET: &str = "3EukE1ZemR4C4ZMId-uTXNkb2W0Mena6v7a7r5ijxr8";

    fn stub(names: &[&str], landing: Option<&str>) -> Vec<u8> {
        let mut message =
            b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n".to_vec();
        for name in names {
            let part = format!(
                "--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename*=utf-8''{name}\r\n\
                 Content-Transfer-Encoding: base64\r\n\r\nQUJD\r\n"
            );
            message.extend_from_slice(part.as_bytes());
        }
        message.extend_from_slice(b"--b--\r\n");
        let (mut manifest, mut blobs) = (Vec::new(), MemoryBlobs::new());
        let policy = Policy { min_size: 1, ..Policy::default() };
        let summary = drive::detach(policy, &mut &message[..], &mut manifest, &mut blobs).unwrap();
        let context =
            StubContext { delivery: DeliveryId([7; 16]), landing: landing.map(str::to_owned), expires: None };
        let mut stub = Vec::new();
        drive::write_stub(&mut &manifest[..], context, summary.totals, &mut stub).unwrap();
        stub
    }

    #[test]
    fn a_stub_says_which_attachments_it_had_and_where_they_are() {
        let landing = format!("https://relay.example.org/t/{TICKET}/");
        let stub = stub(&["a%20gr%C3%B6%C3%9Fe.pdf", &"x".repeat(200)], Some(&landing));
        for text in [stub.clone(), String::from_utf8(stub).unwrap().replace("\r\n", "\n").into_bytes()] {
            let found = attachments(&mut &text[..]).unwrap();
            assert_eq!(found.len(), 2);
            assert_eq!(
                (found[0].delivery, found[0].blob, found[0].size),
                (DeliveryId([7; 16]), BlobId::of(b"ABC"), 3)
            );
            let relays = ["https://other.example.org".to_owned(), "https://relay.example.org/".to_owned()];
            let link = Link::parse(found[0].link.as_deref().unwrap(), &relays).unwrap();
            assert_eq!(link.url, format!("{landing}0"));
            assert_eq!(link.name.as_deref(), Some("a größe.pdf"));
            let link = Link::parse(found[1].link.as_deref().unwrap(), &relays).unwrap();
            assert_eq!(link.url, format!("{landing}1"));
        }
        let found = attachments(&mut &self::stub(&["a"], None)[..]).unwrap();
        assert_eq!((found.len(), found[0].link.as_ref()), (1, None));
    }

    #[test]
    fn bad_input_20_34_a_link_to_elsewhere_or_with_anything_odd_in_it_is_none() {
        let relays = ["https://relay.example.org".to_owned()];
        let good = format!("https://relay.example.org/t/{TICKET}/0/a.pdf");
        assert!(Link::parse(&good, &relays).is_some());
        for bad in [
            format!("https://relay.example.org.evil.test/t/{TICKET}/0/a"),
            format!("https://relay.example.org@evil.test/t/{TICKET}/0/a"),
            format!("http://relay.example.org/t/{TICKET}/0/a"),
            format!("https://evil.test/https://relay.example.org/t/{TICKET}/0/a"),
            format!("https://relay.example.org/t/{TICKET}/-1/a"),
            format!("https://relay.example.org/t/{TICKET}/0/a/../../x"),
            format!("https://relay.example.org/t/{TICKET}/0 HTTP/1.1\r\nX: y/a"),
            "https://relay.example.org/t/short/0/a".to_owned(),
            "https://relay.example.org/metrics".to_owned(),
            String::new(),
        ] {
            assert_eq!(Link::parse(&bad, &relays), None, "{bad}");
        }
        assert_eq!(Link::parse(&good, &[]), None);
        for (name, shown) in [
            ("..%2F..%2F.bashrc", Some("bashrc")),
            ("a%E2%80%AEgpj.exe", Some("agpj.exe")),
            ("a%1B%5B2J", Some("a[2J")),
            ("%FF", None),
            ("%4", None),
        ] {
            let link =
                Link::parse(&format!("https://relay.example.org/t/{TICKET}/0/{name}"), &relays).unwrap();
            assert_eq!(link.name.as_deref(), shown, "{name}");
        }
    }

    #[test]
    fn bad_input_17_22_what_is_no_stub_has_no_attachments_and_long_lines_cost_no_memory() {
        let long = [b"Lighter-Part: ".as_slice(), &vec![b'x'; 3 * STUB_LINE_LEN_MAX], b"\r\n\r\n"].concat();
        let many = b"Lighter-Part: v=1\r\nA: b\r\n".repeat(1_000);
        for text in [
            &b""[..],
            b"Subject: x\r\n\r\nLighter-Part\r\n",
            &long,
            &many,
            b"Lighter-Part: v=1; delivery=00\r\n\r\n",
        ] {
            assert_eq!(attachments(&mut &*text).unwrap(), []);
        }
    }
}
