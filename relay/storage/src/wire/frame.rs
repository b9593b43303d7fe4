//! A frame of the storage protocol: message and data, each bounded before memory is taken.
//!
//! Little endian:
//! ```text
//!  0  4  m: bytes of the message, at most 256 KiB
//!  4  4  d: bytes of the data, at most 4 MiB
//!  8  8  the request's number, repeated by its answer
//! 16  m  postcard encoding of a `Request` or a `Response`
//!     d  data: records, header blocks, pieces of a segment's file
//! ```
//! Bulk stands beside the message, not in it: it is never copied into an encoding.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::buffers::Buffer;
use crate::limits::{DATA_LEN_MAX, MESSAGE_LEN_MAX};

/// A frame as it came: bounded, not yet decoded.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The request's number.
    pub id: u64,
    message: Vec<u8>,
    /// What stands beside the message.
    pub data: Bytes,
}

/// Why a frame is none.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A length over its limit.
    #[error("a frame over its limit")]
    TooLong,
    /// Not the encoding of a message, or with bytes left over.
    #[error("malformed message")]
    Malformed,
    /// The connection ended, or failed.
    #[error("connection")]
    Io(#[from] std::io::Error),
}

const FRAME_HEADER_LEN: usize = 16;

impl Frame {
    /// Reads the next frame.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Self, FrameError> {
        let mut header = [0; FRAME_HEADER_LEN];
        stream.read_exact(&mut header).await?;
        let message_len = crate::record::read_u32(&header, 0) as usize;
        let data_len = crate::record::read_u32(&header, 4) as usize;
        if message_len > MESSAGE_LEN_MAX || data_len > DATA_LEN_MAX {
            return Err(FrameError::TooLong);
        }
        let mut message = vec![0; message_len];
        stream.read_exact(&mut message).await?;
        let mut data = Buffer::take(data_len);
        stream.read_exact(&mut data).await?;
        Ok(Self { id: crate::record::read_u64(&header, 8), message, data: data.freeze() })
    }

    /// The message in it.
    ///
    /// # Errors
    /// [`FrameError::Malformed`].
    pub fn decode<M: for<'a> Deserialize<'a>>(&self) -> Result<M, FrameError> {
        let (message, rest) = postcard::take_from_bytes(&self.message).map_err(|_| FrameError::Malformed)?;
        if rest.is_empty() { Ok(message) } else { Err(FrameError::Malformed) }
    }
}

/// A frame to be sent: header and message in one piece, then the data's pieces.
#[derive(Clone, Debug)]
pub struct OutFrame {
    front: Vec<u8>,
    data: Vec<Bytes>,
}

impl OutFrame {
    /// Makes a frame of `message` and `data`.
    ///
    /// # Errors
    /// [`FrameError::TooLong`].
    pub fn new<M: Serialize>(id: u64, message: &M, data: Vec<Bytes>) -> Result<Self, FrameError> {
        let data_len: usize = data.iter().map(Bytes::len).sum();
        let mut front =
            postcard::to_extend(message, vec![0; FRAME_HEADER_LEN]).map_err(|_| FrameError::Malformed)?;
        let message_len = front.len() - FRAME_HEADER_LEN;
        if message_len > MESSAGE_LEN_MAX || data_len > DATA_LEN_MAX {
            return Err(FrameError::TooLong);
        }
        front[..4].copy_from_slice(&u32::try_from(message_len).unwrap_or(u32::MAX).to_le_bytes());
        front[4..8].copy_from_slice(&u32::try_from(data_len).unwrap_or(u32::MAX).to_le_bytes());
        front[8..16].copy_from_slice(&id.to_le_bytes());
        Ok(Self { front, data })
    }

    /// Writes it; flushing is the caller's.
    ///
    /// # Errors
    /// The connection's.
    pub async fn write(&self, stream: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        stream.write_all(&self.front).await?;
        for piece in &self.data {
            stream.write_all(piece).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use lighter_protocol::PeerId;

    use crate::ids::{Epoch, SegmentId, UnitId};
    use crate::wire::{Refusal, Request, Response, Target};

    fn bytes_of(frame: &OutFrame) -> Vec<u8> {
        [&frame.front[..], &frame.data.concat()].concat()
    }

    #[tokio::test]
    async fn a_frame_is_these_bytes() {
        let request =
            Request::ReadRange { unit: UnitId([1; 16]), segment: SegmentId([2; 16]), offset: 300, length: 5 };
        let frame =
            OutFrame::new(9, &request, vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")]).unwrap();
        let mut expected = vec![36, 0, 0, 0]; // message length
        expected.extend_from_slice(&[3, 0, 0, 0]); // data length
        expected.extend_from_slice(&[9, 0, 0, 0, 0, 0, 0, 0]); // number
        expected.push(8); // ReadRange
        expected.extend_from_slice(&[1; 16]); // unit
        expected.extend_from_slice(&[2; 16]); // segment
        expected.extend_from_slice(&[0xAC, 0x02]); // offset 300, varint
        expected.push(5); // length
        expected.extend_from_slice(b"abc"); // data
        let bytes = bytes_of(&frame);
        assert_eq!(bytes, expected);
        let read = Frame::read(&mut &bytes[..]).await.unwrap();
        assert_eq!(read.decode::<Request>().unwrap(), request);
        assert_eq!((read.id, &read.data[..]), (9, &b"abc"[..]));
    }

    /// A server of before must not take one message for another.
    #[test]
    fn messages_keep_their_numbers() {
        let (unit, segment, epoch) = (UnitId([1; 16]), SegmentId([2; 16]), Epoch(3));
        let target = Target { unit, segment, writer: PeerId::random(), epoch };
        let requests = [
            (13, Request::SetAside { target }),
            (14, Request::GetTable),
            (15, Request::PutTable { epoch }),
            (16, Request::Allow { segment, peer: PeerId::random() }),
            (17, Request::ReadSealed { unit, segment, offset: 0, length: 1 }),
            (20, Request::Drop { target }),
            (21, Request::Health { unit }),
            (22, Request::Rewrap { target }),
            (23, Request::Successors { segment }),
            (24, Request::Thin { target }),
        ];
        for (number, request) in requests {
            assert_eq!(postcard::to_stdvec(&request).unwrap()[0], number, "{request:?}");
        }
        let responses = [(6, Response::Refused(Refusal::Source)), (7, Response::Received { next: 0 })];
        for (number, response) in responses {
            assert_eq!(postcard::to_stdvec(&response).unwrap()[0], number, "{response:?}");
        }
    }

    #[tokio::test]
    async fn a_frame_that_is_too_long_is_refused_before_memory_is_taken() {
        for header in [[0xFF; 16], {
            let mut header = [0; 16];
            header[4..8].copy_from_slice(&u32::try_from(DATA_LEN_MAX + 1).unwrap().to_le_bytes());
            header
        }] {
            assert!(matches!(Frame::read(&mut &header[..]).await, Err(FrameError::TooLong)));
        }
        let too_long = vec![Bytes::from(vec![0; DATA_LEN_MAX]), Bytes::from_static(b"x")];
        assert!(matches!(OutFrame::new(0, &Request::Ping, too_long), Err(FrameError::TooLong)));
    }

    proptest! {
        #[test]
        fn messages_from_anywhere_never_panic(message in proptest::collection::vec(any::<u8>(), 0..200)) {
            let frame = Frame { id: 0, message, data: Bytes::new() };
            let _ = frame.decode::<Request>();
            let _ = frame.decode::<Response>();
        }
    }
}
