//! Detaching and proving a message of 100 MiB on one core, beside decoding and hashing its attachment alone, and beside
//! another parser's parse.

use std::io;

use anyhow::Result;
use lighter_harness::mail::TestMessage;
use lighter_message::Policy;
use lighter_message::drive::{self, BlobSink};
use lighter_protocol::BlobId;

use crate::measure::{Comparison, Settings, compare};

/// The attachment, in bytes; as base64 in the message it is a third more.
const SIZE: u64 = 75 << 20;

pub(crate) fn run(settings: &Settings) -> Result<Vec<Comparison>> {
    let message = TestMessage::new("alice@lighter.test", SIZE, 1).to_bytes();
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more digits than f64 has")]
    let work = (message.len() as f64 / f64::from(1 << 20), "MiB/s");
    let alone = compare(
        "detach 100 MiB · base64 decode and BLAKE3 alone",
        settings,
        work,
        0.4,
        || detach(&message),
        || decode_and_hash(&message),
    )?;
    let parser = compare(
        "detach 100 MiB · mail-parser's parse",
        settings,
        work,
        1.5,
        || detach(&message),
        || {
            std::hint::black_box(mail_parser::MessageParser::default().parse(&message));
            Ok(())
        },
    )?;
    Ok(vec![alone, parser])
}

/// Detached and proved; the blobs go nowhere, as the decoder's do.
fn detach(message: &[u8]) -> Result<()> {
    let summary = drive::detach(Policy::default(), &mut &*message, &mut io::sink(), &mut Nowhere)?;
    anyhow::ensure!(summary.parts.len() == 1, "nothing was detached");
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

/// Line by line, as a decoder that knows nothing but base64 would.
fn decode_and_hash(message: &[u8]) -> Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut decoded = vec![0; 1 << 16];
    let mut filled = 0;
    for line in message.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
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
    std::hint::black_box(hasher.finalize());
    Ok(())
}
