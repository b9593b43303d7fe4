//! The lines of a control socket, bounded.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// Reads lines of JSON.
#[derive(Debug)]
pub struct Lines<R> {
    reader: BufReader<R>,
    len_max: u64,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Lines from `reader`, each of at most `len_max` bytes with the one that ends it.
    pub fn new(reader: R, len_max: u64) -> Self {
        Self { reader: BufReader::new(reader), len_max }
    }

    /// The next line; none at the end.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] where a line is over its bound or no `T`, [`io::ErrorKind::UnexpectedEof`] where
    /// the end comes within one, and what the reader says. After a line over its bound the rest of it is still to come.
    pub async fn read<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut line = Vec::new();
        (&mut self.reader).take(self.len_max).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') {
            let is_full = line.len() as u64 == self.len_max;
            return Err(if is_full {
                io::Error::new(io::ErrorKind::InvalidData, "a line over its bound")
            } else {
                io::ErrorKind::UnexpectedEof.into()
            });
        }
        let value = serde_json::from_slice(&line);
        value.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// Writes one line of JSON.
pub(super) async fn write(writer: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn kind_of(text: &[u8]) -> io::ErrorKind {
        Lines::new(text, 8).read::<serde_json::Value>().await.unwrap_err().kind()
    }

    #[tokio::test]
    async fn a_line_may_be_as_long_as_its_bound_and_no_longer() {
        assert_eq!(Lines::new(&b"1234567\n"[..], 8).read::<u32>().await.unwrap(), Some(1_234_567));
        assert_eq!(kind_of(b"12345678\n").await, io::ErrorKind::InvalidData);
        assert_eq!(kind_of(b"12345678").await, io::ErrorKind::InvalidData);
        // A writer that never ends its line is not waited for.
        let endless = Lines::new(tokio::io::repeat(b'1'), 8).read::<u32>().await;
        assert_eq!(endless.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_cut_line_is_no_line_and_garbage_is_told_from_it() {
        assert_eq!(kind_of(b"{\"a\"").await, io::ErrorKind::UnexpectedEof);
        assert_eq!(kind_of(b"5").await, io::ErrorKind::UnexpectedEof);
        assert_eq!(kind_of(b"{\"a\"\n").await, io::ErrorKind::InvalidData);
        assert_eq!(kind_of(b"\n").await, io::ErrorKind::InvalidData);
        assert_eq!(kind_of(b"\xff\n").await, io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn lines_come_one_after_the_other_until_the_end() {
        let mut lines = Lines::new(&b"5\n6\n"[..], 8);
        assert_eq!(lines.read::<u8>().await.unwrap(), Some(5));
        assert_eq!(lines.read::<u8>().await.unwrap(), Some(6));
        assert_eq!(lines.read::<u8>().await.unwrap(), None);
    }
}
