//! Detaching and proving a message on one core, beside decoding and hashing its attachment alone, and beside another
//! parser's parse.

use std::io;

use anyhow::{Result, ensure};
use lighter_harness::mail::TestMessage;
use lighter_message::Policy;
use lighter_message::drive::{self, BlobSink};
use lighter_protocol::BlobId;

use crate::measure::{Comparison, Pair, Side, Work, compare};
use crate::settings::{MIB, Settings, amount};

pub(crate) fn run(settings: &Settings) -> Result<Vec<Comparison>> {
    // A line of 76 characters and its end is 57 bytes of the attachment.
    let size = settings.detach_mib * MIB * 57 / 78;
    let message = TestMessage::new("alice@lighter.test", size, 1).to_bytes();
    let work = Work { amount: amount(message.len() as u64) / amount(MIB), unit: "MiB/s" };
    let sides = vec![
        Side::timed(format!("detach {} MiB", settings.detach_mib), || detach(&message)),
        Side::timed("base64 decode and BLAKE3 alone", || decode_and_hash(&message, size)),
        Side::timed("mail-parser's parse", || parse(&message)),
    ];
    let pairs = [Pair { ours: 0, peer: 1, aim: Some(0.4) }, Pair { ours: 0, peer: 2, aim: Some(1.5) }];
    compare(settings.rounds, work, sides, &pairs)
}

/// Detached and proved; the blobs go nowhere, as the decoder's do.
fn detach(message: &[u8]) -> Result<()> {
    let summary = drive::detach(Policy::default(), &mut &*message, &mut io::sink(), &mut Nowhere)?;
    ensure!(summary.parts.len() == 1, "nothing was detached");
    Ok(())
}

struct Nowhere;

impl BlobSink for Nowhere {
    fn start(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        std::hint::black_box(bytes);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<Box<dyn io::Read>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn end(&mut self, _id: BlobId, _size: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Line by line, as a decoder that knows nothing but base64 would; lines of other text are mostly no base64.
fn decode_and_hash(message: &[u8], size: u64) -> Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut decoded = vec![0; 1 << 16];
    let mut filled = 0;
    let mut begin = 0;
    for end in memchr::memchr_iter(b'\n', message) {
        let line = &message[begin..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        begin = end + 1;
        if decoded.len() - filled < line.len() {
            hasher.update(&decoded[..filled]);
            filled = 0;
        }
        let target = base64_simd::Out::from_slice(&mut decoded[filled..]);
        if let Ok(bytes) = base64_simd::STANDARD.decode(line, target) {
            filled += bytes.len();
        }
    }
    hasher.update(&decoded[..filled]);
    ensure!(hasher.count() >= size, "not all of it was decoded");
    std::hint::black_box(hasher.finalize());
    Ok(())
}

fn parse(message: &[u8]) -> Result<()> {
    let parsed = mail_parser::MessageParser::default().parse(message);
    ensure!(std::hint::black_box(parsed).is_some(), "it was not parsed");
    Ok(())
}
