//! Every message of a corpus comes back byte for byte: those of this crate, and those of the folder that
//! `LIGHTER_CORPUS` names.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code: a failed unwrap is a failed test")]
#![expect(clippy::print_stdout, reason = "a skipped test says so, and a corpus says how much it holds")]

mod common;

use std::path::{Path, PathBuf};

use common::{comes_back_in_pieces, to_crlf};
use lighter_message::Policy;

/// Every file below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
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
