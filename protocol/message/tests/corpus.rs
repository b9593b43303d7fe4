//! Every message of a corpus comes back byte for byte: those of this crate, and those of the folder that
//! `LIGHTER_CORPUS` names.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code: a failed unwrap is a failed test")]
#![expect(clippy::print_stdout, reason = "a skipped test says so, and a corpus says how much it holds")]

mod common;

use std::path::{Path, PathBuf};

use common::{comes_back, comes_back_in_pieces, to_crlf};
use lighter_message::Policy;

/// Every file below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Rules for git, not a message.
        if path.ends_with(".gitattributes") {
            continue;
        }
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The messages of a mailbox file: each begins at a line `From `.
fn split_mbox(text: &[u8]) -> Vec<&[u8]> {
    let mut starts: Vec<usize> = memchr::memmem::find_iter(text, b"\nFrom ").map(|at| at + 1).collect();
    if starts.is_empty() || !text.starts_with(b"From ") {
        return Vec::new();
    }
    starts.insert(0, 0);
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).filter_map(|(start, end)| text.get(*start..end)).collect()
}

/// Checks one message in every way; gives how many parts went with everything allowed.
fn check(name: &str, message: &[u8], seed: usize) -> usize {
    let mut parts = 0;
    for text in [message.to_vec(), to_crlf(message)] {
        for policy in [Policy::everything(), Policy::default(), Policy { min_size: 1, ..Policy::default() }] {
            for (pieces, block_len) in [
                (&[1 << 20][..], 1 << 16),
                (&[1 + seed % 7, 1 + seed % 97, 1 + seed % 1_009], 1),
                (&[1], 1 + seed % 50),
            ] {
                // The one-byte feed of a large message proves nothing that a small one does not.
                if pieces == [1] && text.len() > 20_000 {
                    continue;
                }
                let detached =
                    std::panic::catch_unwind(|| comes_back_in_pieces(&text, policy, pieces, block_len));
                let Ok(detached) = detached else { panic!("{name}, {policy:?}, pieces of {pieces:?}") };
                if policy == Policy::everything() {
                    parts = detached.summary.parts.len();
                }
            }
        }
    }
    parts
}

fn check_all(folder: &Path) {
    let (mut messages, mut with_parts, mut parts) = (0, 0, 0);
    for (number, path) in files(folder).iter().enumerate() {
        let text = std::fs::read(path).unwrap();
        let whole = [text.as_slice()];
        for message in whole.into_iter().chain(split_mbox(&text)) {
            let found = check(&path.display().to_string(), message, number * 31);
            messages += 1;
            parts += found;
            with_parts += usize::from(found > 0);
        }
    }
    println!("{messages} messages, {with_parts} of them with {parts} parts that may be detached");
    assert!(messages > 0 && parts > 0, "no messages in {}", folder.display());
}

/// SPEC: D1
#[test]
fn every_message_of_the_corpus_comes_back_byte_for_byte() {
    match std::env::var_os("LIGHTER_CORPUS") {
        Some(folder) => check_all(Path::new(&folder)),
        None => println!("skipped: LIGHTER_CORPUS names no folder"),
    }
}

/// SPEC: D1
#[test]
fn every_message_of_our_own_comes_back_byte_for_byte() {
    check_all(&own_messages());
}

fn own_messages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/messages")
}

/// Our own messages, and how many parts go: by default (but for the threshold), and with everything allowed.
const EXPECTED: &[(&str, usize, usize)] = &[
    ("alternative.eml", 0, 2),
    ("apple-alternative.eml", 1, 4),
    ("appledouble.eml", 0, 2),
    ("attachment-first.eml", 1, 2),
    ("base64-mixed-line-ends.eml", 1, 2),
    ("base64-odd.eml", 13, 14),
    ("blank.eml", 0, 0),
    ("boundary-blanks.eml", 0, 3),
    ("boundary-empty.eml", 0, 1),
    ("boundary-junk.eml", 1, 3),
    ("boundary-long.eml", 0, 1),
    ("boundary-missing.eml", 0, 1),
    ("boundary-prefix.eml", 0, 3),
    ("boundary-same.eml", 0, 3),
    ("boundary-twice.eml", 0, 2),
    ("bytes.eml", 0, 2),
    ("calendar.eml", 0, 3),
    ("digest.eml", 1, 2),
    ("eight-bit.eml", 1, 2),
    ("empty.eml", 0, 0),
    ("encrypted.eml", 0, 2),
    ("external-body.eml", 0, 2),
    ("forged-part.eml", 1, 2),
    ("forged-stub.eml", 0, 0),
    ("forwarded-base64.eml", 0, 2),
    ("forwarded.eml", 2, 4),
    ("header-only-part.eml", 0, 2),
    ("hostile-subject.eml", 1, 1),
    ("line-lengths.eml", 13, 14),
    ("mbox.mbox", 1, 2),
    ("mixed-lf.eml", 1, 2),
    ("mixed.eml", 2, 3),
    ("multipart-base64.eml", 0, 2),
    ("names.eml", 11, 12),
    ("nested-40.eml", 1, 1),
    ("no-body.eml", 0, 0),
    ("no-colon.eml", 1, 3),
    ("no-mime.eml", 0, 1),
    ("not-ended-inner.eml", 0, 3),
    ("not-ended.eml", 1, 2),
    ("one-byte.eml", 0, 0),
    ("partial.eml", 0, 1),
    ("parts-in-epilogue.eml", 1, 3),
    ("pgp-inline.eml", 0, 2),
    ("quoted-printable.eml", 1, 2),
    ("related.eml", 1, 5),
    ("report.eml", 0, 4),
    ("root-base64-no-line-end.eml", 1, 1),
    ("root-base64.eml", 1, 1),
    ("signed.eml", 0, 3),
    ("smime-opaque.eml", 0, 1),
    ("text-only.eml", 0, 1),
    ("tnef-broken-nested.eml", 2, 3),
    ("tnef.eml", 1, 2),
    ("two-content-types.eml", 1, 4),
    ("two-of-all.eml", 1, 2),
];

#[test]
fn what_goes_from_our_own_messages_is_known() {
    let found: Vec<_> = files(&own_messages())
        .iter()
        .map(|path| {
            let text = std::fs::read(path).unwrap();
            let parts = |policy| comes_back(&text, policy).summary.parts.len();
            let by_default = parts(Policy { min_size: 1, ..Policy::default() });
            (path.file_name().unwrap().display().to_string(), by_default, parts(Policy::everything()))
        })
        .collect();
    let found: Vec<_> = found.iter().map(|(name, default, all)| (name.as_str(), *default, *all)).collect();
    assert_eq!(found, EXPECTED);
}

/// Another parser sees the same structure in the stub as in the original: nothing moved, nothing was lost.
#[test]
fn a_stub_has_the_structure_of_its_original() {
    for path in files(&own_messages()) {
        let text = to_crlf(&std::fs::read(&path).unwrap());
        let detached = comes_back(&text, Policy { min_size: 1, ..Policy::default() });
        if detached.summary.parts.is_empty() {
            continue;
        }
        let parser = mail_parser::MessageParser::new();
        let (original, stub) = (parser.parse(&text).unwrap(), parser.parse(&detached.stub).unwrap());
        assert_eq!(stub.parts.len(), original.parts.len(), "{}", path.display());
        assert_eq!(stub.subject(), original.subject(), "{}", path.display());
        let placeholders =
            stub.parts.iter().filter(|part| part.headers.iter().any(|h| h.name() == "Lighter-Part"));
        let nested = stub.parts.iter().filter_map(|part| part.message()).flat_map(|message| &message.parts);
        let nested = nested.filter(|part| part.headers.iter().any(|h| h.name() == "Lighter-Part"));
        assert!(placeholders.count() + nested.count() >= detached.summary.parts.len(), "{}", path.display());
    }
}
