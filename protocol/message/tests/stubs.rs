//! What happens to stubs on their way: a stub restores right, or it is told apart; never wrong bytes that pass for
//! right ones.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code: a failed unwrap is a failed test")]

mod common;

use common::{Detached, context, detach, to_crlf};
use lighter_message::drive::{self, MemoryBlobs};
use lighter_message::{FromManifest, FromStub, ManifestError, Policy, StubContext, StubWriter, Totals};
use lighter_protocol::DeliveryId;

fn message(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/messages/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn detached(name: &str) -> (Vec<u8>, Detached) {
    let original = message(name);
    let detached = detach(&original, Policy { min_size: 1, ..Policy::default() });
    assert!(!detached.summary.parts.is_empty());
    (original, detached)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The changed stub gives the original back, below `above`.
fn restores(name: &str, change: impl Fn(&str) -> String, above: &str) {
    let (original, detached) = detached(name);
    let stub = change(&text(&detached.stub));
    for pieces in [&[1 << 20][..], &[1], &[100, 3]] {
        let (restored, end) = detached.restore(stub.as_bytes(), pieces);
        assert!(
            matches!(end, FromStub::Verified(field) if field.totals == detached.summary.totals),
            "{name}: {end:?}"
        );
        assert!(restored == [above.as_bytes(), &original].concat(), "{name}: other bytes");
    }
}

/// The changed stub is told apart, and what stood above it is kept for the manifest's sake.
fn is_told_apart(name: &str, change: impl Fn(&str) -> String, above: &str) {
    let (_, detached) = detached(name);
    let stub = change(&text(&detached.stub));
    assert_ne!(stub.as_bytes(), detached.stub, "nothing was changed");
    match detached.restore(stub.as_bytes(), &[1 << 20]).1 {
        FromStub::Mismatch { above: kept, .. } => assert_eq!(text(&kept), above),
        other => panic!("{name}: {other:?}"),
    }
}

/// SPEC: D1
#[test]
fn fields_added_on_top_stay_and_all_below_comes_back() {
    let added = "Return-Path: <a@example.net>\r\nReceived: from a\r\n\tby b\r\n";
    for name in ["mixed.eml", "root-base64.eml", "forwarded.eml", "nested-40.eml"] {
        restores(name, |stub| stub.to_owned(), "");
        restores(name, |stub| format!("{added}{stub}"), added);
    }
}

/// Changes Lighter's own fields, and nothing else.
fn in_our_fields(stub: &str, change: impl Fn(&str) -> String) -> String {
    let mut changed = String::new();
    let mut field = String::new();
    for line in stub.split_inclusive('\n') {
        if !line.starts_with(' ') {
            changed += &change(&field);
            field.clear();
        }
        let is_ours = line.starts_with("Lighter-") || (!field.is_empty() && line.starts_with(' '));
        if is_ours { field += line } else { changed += line }
    }
    changed + &field
}

#[test]
fn our_fields_may_be_folded_anew() {
    for name in ["mixed.eml", "root-base64.eml", "names.eml"] {
        restores(name, |stub| in_our_fields(stub, |field| field.replace(";\r\n ", "; ")), "");
        restores(name, |stub| in_our_fields(stub, |field| field.replace("; ", ";\r\n\t")), "");
        restores(name, |stub| in_our_fields(stub, |field| field.replace("\r\n ", "")), "");
        restores(name, |stub| stub.replace("Lighter-Message:", "lighter-MESSAGE:"), "");
    }
}

#[test]
fn line_ends_that_all_changed_alike_change_back() {
    restores("mixed.eml", |stub| stub.replace("\r\n", "\n"), "");
    restores("root-base64.eml", |stub| stub.replace("\r\n", "\n"), "");
    restores("root-base64-no-line-end.eml", |stub| stub.replace("\r\n", "\n"), "");
    restores("mixed-lf.eml", |stub| stub.replace('\n', "\r\n"), "");
    let added = "Received: by b\n";
    restores("mixed.eml", |stub| format!("{added}{}", stub.replace("\r\n", "\n")), added);
    // Where the original had both kinds, nobody can tell which was where.
    is_told_apart(
        "base64-mixed-line-ends.eml",
        |stub| stub.replacen("Hello Bob,\r\n", "Hello Bob,\n", 1),
        "",
    );
}

#[test]
fn a_stub_that_was_rewritten_is_told_apart() {
    let added = "Received: by b\r\n";
    let with = |stub: String| format!("{added}{stub}");
    for name in ["mixed.eml", "root-base64.eml"] {
        is_told_apart(name, |stub| with(stub.replacen("length=", "length=1", 1)), added);
        is_told_apart(name, |stub| with(stub.replacen("parts=", "parts=1", 1)), added);
        is_told_apart(name, |stub| with(stub.replacen("<!-- Lighter-End", "<!--", 1)), added);
        is_told_apart(name, |stub| with(stub.replacen("Lighter-Part: v=1", "Lighter-Part: v=2", 1)), added);
        is_told_apart(
            name,
            |stub| with(stub.replacen("size=", "size=9", 1).replacen("recipe=b64", "recipe=raw", 1)),
            added,
        );
        is_told_apart(name, |stub| with(stub.clone_end()), added);
    }
    is_told_apart("mixed.eml", |stub| stub.replacen("Hello", "hello", 1), "");
    is_told_apart("mixed.eml", |stub| stub.replacen("Subject: Report", "Subject: [list] Report", 1), "");
    is_told_apart("mixed.eml", |stub| stub.to_owned() + "footer\r\n", "");
}

/// A stub that lost its second half.
trait CloneEnd {
    fn clone_end(&self) -> String;
}

impl CloneEnd for str {
    fn clone_end(&self) -> String {
        self[..self.find("<html").unwrap()].to_owned()
    }
}

#[test]
fn a_placeholder_of_another_delivery_is_only_text() {
    is_told_apart(
        "mixed.eml",
        |stub| {
            let at = stub.find("Lighter-Part").unwrap();
            let (head, rest) = stub.split_at(at);
            head.to_owned() + &rest.replacen("delivery=5a", "delivery=5b", 1)
        },
        "",
    );
    // And in the original's text, somebody else's stub is what it was.
    let (_, inner) = detached("mixed.eml");
    let outer = [b"Subject: Look\r\n\r\n".as_slice(), &inner.stub].concat();
    let policy = Policy::everything();
    assert_eq!(common::comes_back(&outer, policy).original(), outer);
}

#[test]
fn a_blob_that_is_not_the_one_asked_for_is_told_apart() {
    let (_, detached) = detached("mixed.eml");
    let part = &detached.summary.parts[0];
    let mut wrong = detached.blobs.get(part.blob).unwrap().to_vec();
    wrong[7] ^= 1;
    let mut open = |id| {
        if id == part.blob {
            Ok(Box::new(std::io::Cursor::new(wrong.clone())) as Box<dyn std::io::Read>)
        } else {
            detached.blobs.open(id)
        }
    };
    let end = drive::restore(&mut detached.stub.as_slice(), &mut open, &mut Vec::new()).unwrap();
    assert!(matches!(end, FromStub::Mismatch { .. }));
    let end = drive::write_original(&mut detached.manifest.as_slice(), &mut open, &mut Vec::new()).unwrap();
    assert_eq!(end, FromManifest::Mismatch(detached.summary.totals));
}

#[test]
fn a_blob_that_is_missing_or_cut_off_is_an_error() {
    let (_, detached) = detached("mixed.eml");
    let none = MemoryBlobs::new();
    let end = drive::restore(&mut detached.stub.as_slice(), &mut |id| none.open(id), &mut Vec::new());
    assert!(matches!(end, Err(drive::DriveError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound));
    let mut short = |_| Ok(Box::new(std::io::Cursor::new(vec![0_u8; 10])) as Box<dyn std::io::Read>);
    let end = drive::restore(&mut detached.stub.as_slice(), &mut short, &mut Vec::new());
    assert!(matches!(end, Err(drive::DriveError::BlobCutOff(_))));
}

/// SPEC: D1
#[test]
fn no_single_byte_of_a_stub_can_change_unnoticed() {
    for name in ["mixed.eml", "root-base64.eml"] {
        let (original, detached) = detached(name);
        for at in 0..detached.stub.len() {
            for flip in [0x01, 0x20, 0x80] {
                let mut stub = detached.stub.clone();
                stub[at] ^= flip;
                // A changed size may ask for a blob that nobody has: that is noticed, too.
                let open = |id| detached.blobs.open(id);
                let mut restored = Vec::new();
                match drive::restore(&mut stub.as_slice(), &mut { open }, &mut restored) {
                    Ok(FromStub::Verified(field)) => {
                        assert_eq!(field.totals, detached.summary.totals);
                        assert!(restored == original, "{name}: byte {at} changed, and nobody noticed");
                    }
                    Ok(FromStub::NotAStub) => assert!(restored == stub, "{name}: byte {at}"),
                    Ok(FromStub::Mismatch { .. }) | Err(_) => {}
                }
            }
        }
    }
}

#[test]
fn what_is_no_stub_passes_through() {
    for name in ["mixed.eml", "empty.eml", "one-byte.eml", "no-body.eml", "forged-part.eml", "bytes.eml"] {
        let original = message(name);
        for pieces in [&[1 << 20][..], &[1]] {
            let nothing = detach(&original, Policy::nothing());
            assert_eq!(nothing.summary.totals.parts, 0);
            assert!(nothing.stub == original);
            assert_eq!(nothing.restore(&original, pieces), (original.clone(), FromStub::NotAStub), "{name}");
        }
    }
    let endless = [b"X: ".repeat(200_000), b"\r\nLighter-Message: v=1\r\n".to_vec()].concat();
    let nothing = detach(b"", Policy::nothing());
    assert_eq!(nothing.restore(&endless, &[4_096]), (endless.clone(), FromStub::NotAStub));
}

#[test]
fn each_recipient_has_a_stub_of_their_own() {
    let (original, detached) = detached("mixed.eml");
    let stub = |delivery: u8| {
        let mut stub = Vec::new();
        let context = StubContext { delivery: DeliveryId([delivery; 16]), landing: None, expires: None };
        drive::write_stub(&mut detached.manifest.as_slice(), context, detached.summary.totals, &mut stub)
            .unwrap();
        stub
    };
    assert_ne!(stub(1), stub(2));
    assert_eq!(stub(1), stub(1), "the same stub at every retry");
    assert!(!text(&stub(1)).contains(&DeliveryId([2; 16]).to_string()));
    assert!(detached.restore(&stub(2), &[1 << 20]).0 == original);
}

#[test]
fn a_stub_is_written_from_a_manifest_in_any_pieces_and_checked() {
    let (_, detached) = detached("mixed.eml");
    for len in [1, 7, 1_000] {
        let mut writer = StubWriter::new(context(), detached.summary.totals);
        let mut stub = Vec::new();
        for piece in detached.manifest.chunks(len) {
            writer.push(piece, &mut stub).unwrap();
        }
        writer.finish().unwrap();
        assert!(stub == detached.stub);
    }
    let wrong = Totals { length: 1, ..detached.summary.totals };
    let mut writer = StubWriter::new(context(), wrong);
    assert_eq!(writer.push(&detached.manifest, &mut Vec::new()), Err(ManifestError::Totals));
    let mut writer = StubWriter::new(context(), detached.summary.totals);
    writer.push(&detached.manifest[..100], &mut Vec::new()).unwrap();
    assert_eq!(writer.finish(), Err(ManifestError::CutOff));
}

#[test]
fn bad_input_21_a_landing_page_that_is_no_address_is_left_out() {
    let (_, detached) = detached("mixed.eml");
    for landing in [
        "javascript:alert(1)/",
        "https://x/\"onclick=alert(1)/",
        "https://x/\r\nBcc: y/",
        "https://x/<b>/",
        "https://x/no-slash",
        "",
    ] {
        let context = StubContext { landing: Some(landing.to_owned()), ..context() };
        let mut stub = Vec::new();
        drive::write_stub(&mut detached.manifest.as_slice(), context, detached.summary.totals, &mut stub)
            .unwrap();
        assert!(!text(&stub).contains("href"), "{landing}");
    }
}

#[test]
fn a_message_with_crlf_restores_from_a_maildir_that_keeps_lf() {
    let (_, detached) = detached("mixed-lf.eml");
    let crlf = to_crlf(&message("mixed-lf.eml"));
    let detached_crlf = detach(&crlf, Policy { min_size: 1, ..Policy::default() });
    // The blob is the same file, whatever the line ends around it were.
    assert_eq!(detached.summary.parts[0].blob, detached_crlf.summary.parts[0].blob);
}
