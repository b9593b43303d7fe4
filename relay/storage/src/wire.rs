//! What relay and storage servers say to each other.
//!
//! A frame, little endian:
//! ```text
//!  0  4  m: bytes of the message, at most 256 KiB
//!  4  4  d: bytes of the data, at most 4 MiB
//!  8  8  the request's number, repeated by its answer
//! 16  m  postcard encoding of a `Request` or a `Response`
//!     d  data: records, header blocks
//! ```
//! Bulk stands beside the message, not in it: it is never copied into an encoding. Answers come in any order. The first
//! request is [`Request::Hello`]; its answer tells that the server accepted who asks.

use std::net::SocketAddr;

use bytes::Bytes;
use lighter_protocol::{PeerId, UnixTime};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::ids::{DataKey, Epoch, SegmentId, Sequence, UnitId};
use crate::limits::{DATA_LEN_MAX, MESSAGE_LEN_MAX};
use crate::segment::footer::{IndexEntry, Summary};
use crate::unit::SealReport;

/// The version that both sides must speak.
pub const VERSION: u16 = 1;

/// What a writer, or another server in a chain, asks of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The first request. Answered [`Response::Hello`].
    Hello {
        /// [`VERSION`].
        version: u16,
        /// The asker's clock: two that disagree by more than an hour let nothing expire.
        now: UnixTime,
    },
    /// Are you there? Answered [`Response::Done`].
    Ping,
    /// Take nothing more from this writer under an older epoch. Answered [`Response::Done`].
    Fence {
        /// The epoch from now on.
        epoch: Epoch,
    },
    /// Which segments of mine does a unit have? Answered [`Response::Segments`], with their header blocks as data.
    List {
        /// The unit.
        unit: UnitId,
        /// Those behind this one.
        after: Option<SegmentId>,
    },
    /// How is your copy of this segment? Answered as [`Request::List`], with one segment or none.
    Stat {
        /// The unit.
        unit: UnitId,
        /// The segment.
        segment: SegmentId,
    },
    /// Open a segment; the data is its header block. Answered [`Response::Done`].
    Open {
        /// The unit.
        unit: UnitId,
        /// The present epoch.
        epoch: Epoch,
        /// It has records elsewhere, which are to be copied here.
        is_anew: bool,
    },
    /// Append the records in the data. Answered [`Response::Appended`].
    Append {
        /// Which segment, and under which epoch.
        target: Target,
        /// Where the first of them begins.
        offset: u64,
        /// Send them on to this member first, and answer for both.
        forward: Option<Hop>,
    },
    /// Read one record. Answered [`Response::Done`] with the whole record as data.
    Read {
        /// Which copy.
        key: DataKey,
    },
    /// Read records from an offset on, without a check. Answered [`Response::Done`] with bytes as data, perhaps ending
    /// within a record.
    ReadRange {
        /// The unit.
        unit: UnitId,
        /// The segment.
        segment: SegmentId,
        /// From here.
        offset: u64,
        /// So many bytes, at most a group.
        length: u32,
    },
    /// Where are a segment's catalog records? Answered [`Response::Index`].
    Index {
        /// The unit.
        unit: UnitId,
        /// The segment.
        segment: SegmentId,
        /// From this entry on.
        from: u32,
    },
    /// Close a segment for good at this length. Answered [`Response::Sealed`].
    Seal {
        /// Which segment, and under which epoch.
        target: Target,
        /// What all members acknowledged.
        length: u64,
    },
    /// Cut a segment to this length and open it again, to bring it up to another copy. Answered [`Response::Done`].
    Truncate {
        /// Which segment, and under which epoch.
        target: Target,
        /// A record's end.
        length: u64,
    },
    /// Remove a segment that has no records. Answered [`Response::Done`].
    Discard {
        /// Which segment, and under which epoch.
        target: Target,
    },
    /// Put a failed or damaged copy out of the way. Answered [`Response::Done`].
    SetAside {
        /// Which segment, and under which epoch.
        target: Target,
    },
    /// Which is the latest table that I put here? Answered [`Response::Done`], with it as data; none: no data.
    GetTable,
    /// Keep the table in the data in place of an earlier one. Answered [`Response::Done`]: durable on every unit.
    PutTable {
        /// The present epoch: that of the table, too.
        epoch: Epoch,
    },
}

/// A segment, as a change names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The unit that has it.
    pub unit: UnitId,
    /// The segment.
    pub segment: SegmentId,
    /// Its writer: who asks, or, along a chain, in whose name.
    pub writer: PeerId,
    /// The epoch under which the writer asks.
    pub epoch: Epoch,
}

/// The next member of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Who it is.
    pub peer: PeerId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its unit that has the copy.
    pub unit: UnitId,
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Hello`].
    Hello {
        /// The server's clock.
        now: UnixTime,
        /// The epoch that counts for the asker.
        epoch: Epoch,
        /// Its units: for writers only.
        units: Vec<UnitInfo>,
    },
    /// Done: durable, where it changed something.
    Done,
    /// To [`Request::List`], in the order of the header blocks in the data.
    Segments(Vec<SegmentInfo>),
    /// To [`Request::Append`]: on stable storage on each of these units.
    // SPEC: C2, C4, C8
    Appended {
        /// One for each unit that has it: one, or along a chain two.
        keys: Vec<DataKey>,
        /// Of the records as they were written (`record::AppendDigest`).
        digest: u32,
    },
    /// To [`Request::Index`].
    Index {
        /// A page of it; empty behind the end.
        entries: Vec<IndexEntry>,
        /// Entries in all.
        total: u32,
    },
    /// To [`Request::Seal`].
    Sealed(SealReport),
    /// No.
    Refused(Refusal),
}

/// A unit, as a server describes it to a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitInfo {
    /// Which one.
    pub unit: UnitId,
    /// The epoch that counts there for the asker; zero in a unit that has never heard of it.
    pub epoch: Epoch,
    /// Bytes of its disk.
    pub total: u64,
    /// Bytes free on it.
    pub free: u64,
    /// Files put out of the way since its start.
    pub set_aside: u64,
    /// Segments of which there was more there than there is.
    pub incomplete: u64,
}

/// A segment, as a server describes its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentInfo {
    /// Up to where it has sound, durable records.
    pub length: u64,
    /// The number of its first record; zero where it has none.
    pub first: Sequence,
    /// What may be done with it.
    pub state: CopyState,
    /// Bad stretches in it.
    pub damaged: u64,
}

/// What may be done with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopyState {
    /// It takes appends.
    Open,
    /// It is sealed.
    Sealed(Summary),
    /// A write failed: it takes appends again once it was cut.
    Short,
    /// A sync failed: it must be set aside.
    Failed,
    /// It is being sealed.
    Sealing,
}

/// Why a server refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// A later epoch counts.
    #[error("fenced: the present epoch is {present:?}")]
    Fenced {
        /// Which.
        present: Epoch,
    },
    /// Not for this peer.
    #[error("not allowed")]
    NotAllowed,
    /// Not there.
    #[error("no such segment")]
    NoSegment,
    /// Its day is over.
    #[error("expired")]
    Expired,
    /// Not the next place.
    #[error("the next record begins at {next}")]
    Offset {
        /// The next place.
        next: u64,
    },
    /// Not in the state that the segment is in.
    #[error("not in the segment's state")]
    State,
    /// What was sent, or what is there, is not sound.
    #[error("unsound")]
    Unsound,
    /// No room.
    #[error("no room")]
    NoSpace,
    /// The disk failed.
    #[error("the disk failed")]
    Disk,
    /// The next member of the chain did not acknowledge.
    #[error("the next in the chain did not acknowledge")]
    Chain,
    /// Not a request, or not now.
    #[error("malformed")]
    Malformed,
    /// Another version.
    #[error("another version")]
    Version,
}

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
        let mut data = vec![0; data_len];
        stream.read_exact(&mut data).await?;
        Ok(Self { id: crate::record::read_u64(&header, 8), message, data: data.into() })
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
