//! A message that somebody else made, kept as it came: it is sent, and restored, to the byte.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use lighter_message::Policy;
use lighter_message::drive::{self, BlobSink};
use lighter_protocol::BlobId;

use crate::limits::HEADER_REPORTED_LEN;

/// A whole message in a file without a name: gone with whoever holds it.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    file: Arc<File>,
    len: u64,
}

impl Made {
    /// The first `len` bytes of `file`.
    pub(crate) fn new(file: File, len: u64) -> Self {
        Self { file: Arc::new(file), len }
    }

    /// Its bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// It, from the beginning.
    pub(crate) fn reader(&self) -> MadeReader {
        MadeReader { made: self.clone(), at: 0 }
    }

    /// Whether `policy` lets anything be taken out of it (SPEC A1). Where that cannot be told, it is to be tried. Blocks
    /// on the disk.
    pub(crate) fn has_attachments(&self, policy: Policy) -> bool {
        match drive::detach(policy, &mut self.reader(), &mut io::sink(), &mut Nowhere) {
            Ok(summary) => !summary.parts.is_empty(),
            // Something was taken out, and then looked at again.
            Err(_) => true,
        }
    }

    /// The beginning of it, as much of a header as a report gives back. Blocks on the disk.
    pub(crate) fn beginning(&self) -> io::Result<Bytes> {
        let mut beginning = Vec::new();
        self.reader().take(HEADER_REPORTED_LEN).read_to_end(&mut beginning)?;
        Ok(beginning.into())
    }
}

/// Reads a [`Made`].
#[derive(Debug)]
pub(crate) struct MadeReader {
    made: Made,
    at: u64,
}

impl Read for MadeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.made.len - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..left).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let read = self.made.file.read_at(buffer, self.at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        Ok(read)
    }
}

/// Takes attachments, and keeps nothing.
struct Nowhere;

impl BlobSink for Nowhere {
    fn start(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn restart(&mut self) -> io::Result<Box<dyn Read>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn end(&mut self, _: BlobId, _: u64) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn made(bytes: &[u8]) -> Made {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Made::new(file, bytes.len() as u64)
    }

    fn message(kind: &str, attachment: &str) -> Vec<u8> {
        format!(
            "Subject: s\r\nMIME-Version: 1.0\r\nContent-Type: {kind}; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n\
             Content-Type: application/pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n{attachment}--b--\r\n"
        )
        .into_bytes()
    }

    // SPEC: A1
    #[test]
    fn a_message_with_something_to_take_out_is_told_from_one_without() {
        let large = format!("{}\r\n", "QUJD".repeat(19)).repeat(10_000);
        let policy = Policy::default();
        assert!(made(&message("multipart/mixed", &large)).has_attachments(policy));
        assert!(!made(&message("multipart/mixed", "QUJD\r\n")).has_attachments(policy));
        assert!(!made(&message("multipart/signed", &large)).has_attachments(policy));
        assert!(!made(b"Subject: x\r\n\r\ntext\r\n").has_attachments(policy));
        // Base64 that turns out to be none, late.
        assert!(made(&message("multipart/mixed", &format!("{large}!!\r\n"))).has_attachments(policy));
    }

    #[test]
    fn it_is_read_again_and_again_to_the_byte() {
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let made = made(&bytes);
        for _ in 0..2 {
            let mut read = Vec::new();
            made.reader().read_to_end(&mut read).unwrap();
            assert!(read == bytes);
        }
    }
}
