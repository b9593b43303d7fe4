//! `lighter-message`: detaching, manifests, stubs.

use std::io::{self, Read};

use lighter_message::drive::{self, MemoryBlobs};
use lighter_message::line_end::LineEnds;
use lighter_message::{FromManifest, FromStub, MessageField, PartField, Policy, StubContext, Totals};
use lighter_protocol::{BlobId, DeliveryId, UnixTime};

use crate::Target;

/// This crate's targets.
pub const TARGETS: &[Target] = &[
    Target { name: "message_detach", run: message_detach, seeds: message_seeds },
    Target { name: "manifest", run: manifest, seeds: manifest_seeds },
    Target { name: "stub", run: stub, seeds: stub_seeds },
    Target { name: "stub_field", run: stub_field, seeds: field_seeds },
];

/// A message: whatever it is, manifest and stub give it back byte for byte, however it was cut.
pub fn message_detach(data: &[u8]) {
    for (policy, piece) in
        [(Policy::everything(), usize::MAX), (Policy::everything(), 3), (Policy::default(), 64)]
    {
        let (mut manifest, mut blobs) = (Vec::new(), MemoryBlobs::new());
        let summary = drive::detach(policy, &mut Pieces { data, piece }, &mut manifest, &mut blobs);
        let summary = summary.expect("memory takes everything");

        let mut original = Vec::new();
        let end = drive::write_original(&mut manifest.as_slice(), &mut |id| blobs.open(id), &mut original);
        assert!(matches!(end, Ok(FromManifest::Verified(_))), "the manifest does not verify: {end:?}");
        assert!(original == data, "the manifest gives another message");

        let mut stub = Vec::new();
        drive::write_stub(&mut manifest.as_slice(), context(), summary.totals, &mut stub)
            .expect("an own manifest");
        if summary.totals.parts == 0 {
            assert!(stub == data, "nothing was detached, and the stub is another message");
            continue;
        }
        original.clear();
        let end = drive::restore(&mut stub.as_slice(), &mut |id| blobs.open(id), &mut original);
        assert!(matches!(end, Ok(FromStub::Verified(_))), "the stub does not verify: {end:?}");
        assert!(original == data, "the stub gives another message");
    }
}

/// A manifest from who knows where: it is read or refused.
pub fn manifest(data: &[u8]) {
    for piece in [usize::MAX, 1] {
        let _ = drive::write_original(&mut Pieces { data, piece }, &mut open, &mut io::sink());
    }
    let totals = Totals {
        length: data.len() as u64,
        hash: BlobId::of(data).0,
        parts: 1,
        line_ends: LineEnds::default(),
    };
    let _ = drive::write_stub(&mut &data[..], context(), totals, &mut io::sink());
}

/// A stub from who knows where: it is restored, told apart, or handed through as it is.
pub fn stub(data: &[u8]) {
    let mut before = None;
    for piece in [usize::MAX, 61] {
        let mut original = Vec::new();
        let end = drive::restore(&mut Pieces { data, piece }, &mut open, &mut original).ok();
        if end == Some(FromStub::NotAStub) {
            assert!(original == data, "not a stub, and changed");
        }
        let outcome = (end, original);
        assert!(
            before.as_ref().is_none_or(|before| *before == outcome),
            "the pieces' size makes a difference"
        );
        before = Some(outcome);
    }
}

/// The value of a field of Lighter's own: what parses is whole and has a recipe that can be followed.
pub fn stub_field(data: &[u8]) {
    if let Ok(field) = MessageField::parse(data) {
        assert!(MessageField::parse(data).ok() == Some(field), "not the same twice");
    }
    if let Ok(field) = PartField::parse(data) {
        assert!(field.recipe.validate(field.size).is_ok(), "a recipe that is none: {field:?}");
        assert!(field.recipe.body_len(field.size).is_some(), "a length that cannot be: {field:?}");
        assert!(field.header.len() <= data.len(), "more came out than went in");
    }
}

/// Bytes that come in pieces.
struct Pieces<'a> {
    data: &'a [u8],
    piece: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.data.len().min(self.piece).min(buffer.len());
        let (now, later) = self.data.split_at(len);
        buffer[..len].copy_from_slice(now);
        self.data = later;
        Ok(len)
    }
}

/// Every blob is 64 KiB of one letter.
#[expect(clippy::unnecessary_wraps, reason = "the shape of what opens blobs")]
fn open(_: BlobId) -> io::Result<Box<dyn Read>> {
    Ok(Box::new(io::repeat(b'A').take(64 * 1024)))
}

fn context() -> StubContext {
    StubContext {
        delivery: DeliveryId([3; 16]),
        landing: Some("https://b.example/t/TICKET/".to_owned()),
        expires: Some(UnixTime(1_800_000_000)),
    }
}

// ---- seeds ----

fn message_seeds() -> Vec<Vec<u8>> {
    let mixed = "From: a@a.example\r\nSubject: =?utf-8?q?=C3=BC?=\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\npreamble\r\n--b\r\nContent-Type: text/plain\r\n\r\nText\r\n\
        --b\r\nContent-Type: application/pdf; name*0*=utf-8''%C3%BC; name*1=.pdf\r\n\
        Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=\"../x.pdf\"\r\n\r\n\
        QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0NTY3\r\n\
        ODkrL0FCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaYWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXow\r\nMTIzNDU2Nzg5\r\n\
        --b--\r\nepilogue\r\n";
    let nested = "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: multipart/alternative; boundary=ab\
        \r\n\r\n--ab\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=3Cb>=\r\n\r\n--ab--\r\n\
        --a\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nbody\r\n--a\r\nContent-Type: image/png\r\n\
        Content-Transfer-Encoding: base64\r\n\r\nQUJD\r\nQQ==junk\r\n--a--\r\n";
    let single = "Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD\r\n";
    let unix = mixed.replace("\r\n", "\n");
    // Found so: a field above it would have swallowed its first line.
    let folded =
        " at all\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD\r\n";
    [mixed, nested, single, folded, &unix, "Subject: plain\r\n\r\nText\r\n", "no header at all", ""]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

fn detached() -> Vec<(Vec<u8>, Vec<u8>)> {
    let detach = |message: Vec<u8>| {
        let (mut manifest, mut blobs, mut stub) = (Vec::new(), MemoryBlobs::new(), Vec::new());
        let summary = drive::detach(Policy::everything(), &mut message.as_slice(), &mut manifest, &mut blobs);
        let totals = summary.expect("memory takes everything").totals;
        drive::write_stub(&mut manifest.as_slice(), context(), totals, &mut stub).expect("an own manifest");
        (manifest, stub)
    };
    message_seeds().into_iter().map(detach).collect()
}

fn manifest_seeds() -> Vec<Vec<u8>> {
    detached().into_iter().map(|(manifest, _)| manifest).collect()
}

fn stub_seeds() -> Vec<Vec<u8>> {
    detached().into_iter().map(|(_, stub)| stub).collect()
}

/// The values of the stubs' own fields, unfolded or not.
fn field_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for stub in stub_seeds() {
        let text = String::from_utf8_lossy(&stub).replace("\r\n ", "\n ");
        for line in text.replace("\n ", " ").lines() {
            let value = ["Lighter-Message:", "Lighter-Part:"].iter().find_map(|name| line.strip_prefix(name));
            seeds.extend(value.map(|value| value.trim().as_bytes().to_vec()));
        }
    }
    seeds
}
