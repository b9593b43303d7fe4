//! The socket's lines, bounded; and its path, which the system wants short.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};

use crate::limits::CONTROL_LINE_LEN_MAX;

/// Bytes of a socket's path (unix(7): `sun_path`, its NUL left out).
const PATH_LEN_MAX: usize = 107;

/// A way to a socket that may have a long path: through the open folder.
#[derive(Debug)]
pub(super) struct ShortPath {
    pub(super) path: PathBuf,
    /// The path goes through it.
    _folder: Option<std::fs::File>,
}

impl ShortPath {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        if path.as_os_str().len() <= PATH_LEN_MAX {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let folder = std::fs::File::open(parent)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }
}

/// Reads lines of JSON.
#[derive(Debug)]
pub struct Lines<R>(BufReader<R>);

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Lines from `reader`.
    pub fn new(reader: R) -> Self {
        Self(BufReader::new(reader))
    }

    /// The next line; none at the end.
    ///
    /// # Errors
    /// A line over its bound, one that is no `T`, or what the socket says.
    pub async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut line = Vec::new();
        read_bounded_line(&mut self.0, &mut line).await?;
        if line.is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&line)?))
    }
}

async fn read_bounded_line(reader: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> io::Result<()> {
    reader.take(CONTROL_LINE_LEN_MAX).read_until(b'\n', line).await?;
    if line.len() as u64 == CONTROL_LINE_LEN_MAX && line.last() != Some(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line over its bound"));
    }
    Ok(())
}

/// Writes one line of JSON.
pub(super) async fn write_line(
    writer: &mut (impl AsyncWrite + Unpin),
    value: &impl Serialize,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded_and_a_cut_one_is_no_line() {
        let long = vec![b'1'; usize::try_from(CONTROL_LINE_LEN_MAX).unwrap() + 10];
        assert!(Lines::new(&long[..]).next::<u8>().await.is_err());
        assert!(Lines::new(&b"{\"a\""[..]).next::<serde_json::Value>().await.is_err());
        assert_eq!(Lines::new(&b"5\n6"[..]).next::<u8>().await.unwrap(), Some(5));
        assert_eq!(Lines::new(&b""[..]).next::<u8>().await.unwrap(), None);
    }

    #[test]
    fn a_socket_may_lie_deep() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let short = ShortPath::of(&deep.join("control")).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&short.path).unwrap();
        assert!(deep.join("control").exists());
    }
}
