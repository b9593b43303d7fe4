//! A segment's header block: its first 4096 bytes.
//!
//! ```text
//!    0    8  magic "LTRSEG1\n"
//!    8   16  segment
//!   24    2  class, in days
//!   26    1  flags: bit 0, the day key was erased
//!   27    1  number of members, 1 to 8
//!   28    4  storage day
//!   32    4  deletion day
//!   36    2  number of segments that this one closes, at most 100
//!   38    1  number of members after whose acknowledgement a record is acknowledged; zero: all of them
//!   39    1  zero
//!   40    8  epoch in which it was opened
//!   48   60  day key, wrapped under the array key; zeros once erased
//!  108    4  zero
//!  112   64  writer: length, PeerId, zeros
//!  176   80  for each member: length, PeerId, zeros (64 bytes), unit (16 bytes)
//!            zeros
//!  816   32  for each segment that this one closes: segment (16 bytes), length (8 bytes), flags (1 byte: bit 0, it
//!            goes on here), zeros (7 bytes)
//!            zeros
//! 4092    4  CRC32C of bytes 0 to 4091
//! ```

use lighter_protocol::{Day, PeerId};

use crate::ids::{Class, Epoch, SegmentId, UnitId};
use crate::keys::{WRAPPED_LEN, WrappedKey};
use crate::limits::{CLOSED_MAX, MEMBERS_MAX, SEGMENT_HEADER_LEN, SEGMENT_LEN_MAX};
use crate::record::{read_u32, read_u64};

/// What a segment is: decided by its writer when it opens it, the same on every member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Its name.
    pub segment: SegmentId,
    /// The retention of its records.
    pub class: Class,
    /// The day on which it was opened.
    pub storage_day: Day,
    /// At the end of this day it is deleted.
    pub deletion_day: Day,
    /// The epoch in which it was opened.
    pub epoch: Epoch,
    /// The relay that opened it.
    pub writer: PeerId,
    /// Who has a copy: the chain's order.
    pub members: Vec<Member>,
    /// A record counts as acknowledged once so many of them have it on stable storage, 1 to all; the others get it in the
    /// background (SPEC B12). Whoever takes the array over knows by it how many of them must be asked.
    pub acknowledged_after: usize,
    /// The day's key, wrapped; `None` once erased.
    pub day_key: Option<WrappedKey>,
    /// Segments that end where this says, whatever a copy of them has beyond. Being durable on all members of this
    /// one before it has a record, that is known to whoever takes the array over.
    pub closed: Vec<Closed>,
}

/// Where a segment ends of which a member failed, as the header of a later one says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Which one.
    pub segment: SegmentId,
    /// Its length: what is below was acknowledged, and what is above is no part of the log.
    pub length: u64,
    /// What was placed at `length` and above lies in the later one instead, from its first record's offset on, in the
    /// same order.
    pub goes_on: bool,
}

/// One holder of a segment's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// The server.
    pub peer: PeerId,
    /// Its unit.
    pub unit: UnitId,
}

/// Why a block is no segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not 4096 bytes.
    #[error("a header block of the wrong length")]
    Length,
    /// Not a segment, or one of another version.
    #[error("no segment header")]
    NoMagic,
    /// The checksum is wrong.
    #[error("a header block with a wrong checksum")]
    Checksum,
    /// A field has a value that it cannot have, under a right checksum.
    #[error("impossible value at {at}")]
    Field {
        /// Where the field stands.
        at: usize,
    },
}

const MAGIC: [u8; 8] = *b"LTRSEG1\n";
const KEY_AT: usize = 48;
const WRITER_AT: usize = 112;
const MEMBERS_AT: usize = 176;
const PEER_LEN: usize = 64;
const MEMBER_LEN: usize = PEER_LEN + 16;
const CLOSED_COUNT_AT: usize = 36;
const ACKNOWLEDGED_AT: usize = 38;
const CLOSED_AT: usize = MEMBERS_AT + MEMBERS_MAX * MEMBER_LEN;
const CLOSED_LEN: usize = 32;
const CRC_AT: usize = SEGMENT_HEADER_LEN - 4;
const ERASED: u8 = 1;
const GOES_ON: u8 = 1;

const _: () = assert!(CLOSED_AT + CLOSED_MAX * CLOSED_LEN <= CRC_AT);

impl SegmentHeader {
    /// The block's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; SEGMENT_HEADER_LEN];
        block[..8].copy_from_slice(&MAGIC);
        block[8..24].copy_from_slice(&self.segment.0);
        block[24..26].copy_from_slice(&(self.class as u16).to_le_bytes());
        block[26] = if self.day_key.is_none() { ERASED } else { 0 };
        block[27] = u8::try_from(self.members.len()).unwrap_or(u8::MAX);
        block[28..32].copy_from_slice(&self.storage_day.0.to_le_bytes());
        block[32..36].copy_from_slice(&self.deletion_day.0.to_le_bytes());
        let closed = u16::try_from(self.closed.len()).unwrap_or(u16::MAX);
        block[CLOSED_COUNT_AT..CLOSED_COUNT_AT + 2].copy_from_slice(&closed.to_le_bytes());
        if self.is_mirrored_later() {
            block[ACKNOWLEDGED_AT] = u8::try_from(self.acknowledged_after).unwrap_or(0);
        }
        block[40..48].copy_from_slice(&self.epoch.0.to_le_bytes());
        block[KEY_AT..KEY_AT + WRAPPED_LEN].copy_from_slice(&self.day_key.unwrap_or([0; WRAPPED_LEN]));
        put_peer(&mut block[WRITER_AT..WRITER_AT + PEER_LEN], &self.writer);
        let slots = block[MEMBERS_AT..CLOSED_AT].chunks_exact_mut(MEMBER_LEN);
        for (slot, member) in slots.zip(&self.members) {
            put_peer(&mut slot[..PEER_LEN], &member.peer);
            slot[PEER_LEN..].copy_from_slice(&member.unit.0);
        }
        let slots = block[CLOSED_AT..CRC_AT].chunks_exact_mut(CLOSED_LEN);
        for (slot, closed) in slots.zip(&self.closed) {
            slot[..16].copy_from_slice(&closed.segment.0);
            slot[16..24].copy_from_slice(&closed.length.to_le_bytes());
            slot[24] = if closed.goes_on { GOES_ON } else { 0 };
        }
        let crc = crc32c::crc32c(&block[..CRC_AT]);
        block[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// Reads a header block.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub fn decode(block: &[u8]) -> Result<Self, HeaderError> {
        if block.len() != SEGMENT_HEADER_LEN {
            return Err(HeaderError::Length);
        }
        if block[..8] != MAGIC {
            return Err(HeaderError::NoMagic);
        }
        if crc32c::crc32c(&block[..CRC_AT]) != read_u32(block, CRC_AT) {
            return Err(HeaderError::Checksum);
        }
        let mut segment = [0; 16];
        segment.copy_from_slice(&block[8..24]);
        let count = usize::from(block[27]);
        if count == 0 || count > MEMBERS_MAX {
            return Err(HeaderError::Field { at: 27 });
        }
        let slots = block[MEMBERS_AT..CLOSED_AT].chunks_exact(MEMBER_LEN).take(count).enumerate();
        let members = slots.map(|(index, slot)| {
            let peer = take_peer(&slot[..PEER_LEN])
                .ok_or(HeaderError::Field { at: MEMBERS_AT + index * MEMBER_LEN })?;
            let mut unit = [0; 16];
            unit.copy_from_slice(&slot[PEER_LEN..]);
            Ok(Member { peer, unit: UnitId(unit) })
        });
        let header = Self {
            segment: SegmentId(segment),
            class: Class::from_days(u16::from_le_bytes([block[24], block[25]]))
                .ok_or(HeaderError::Field { at: 24 })?,
            storage_day: Day(read_u32(block, 28)),
            deletion_day: Day(read_u32(block, 32)),
            epoch: Epoch(read_u64(block, 40)),
            writer: take_peer(&block[WRITER_AT..WRITER_AT + PEER_LEN])
                .ok_or(HeaderError::Field { at: WRITER_AT })?,
            members: members.collect::<Result<_, _>>()?,
            acknowledged_after: match usize::from(block[ACKNOWLEDGED_AT]) {
                0 => count,
                some => some,
            },
            day_key: take_key(block)?,
            closed: take_closed(block)?,
        };
        if header.deletion_day < header.storage_day {
            return Err(HeaderError::Field { at: 32 });
        }
        // What stands where nothing does, or is written in another way than ours, is not ours.
        if header.encode() != block {
            return Err(HeaderError::Field { at: 36 });
        }
        Ok(header)
    }

    /// Whether records are acknowledged before all members have them.
    pub fn is_mirrored_later(&self) -> bool {
        self.acknowledged_after < self.members.len()
    }

    /// The unit of `server` that has a copy.
    pub fn unit_of(&self, server: &PeerId) -> Option<UnitId> {
        self.members.iter().find(|member| member.peer == *server).map(|member| member.unit)
    }
}

fn take_closed(block: &[u8]) -> Result<Vec<Closed>, HeaderError> {
    let count = usize::from(u16::from_le_bytes([block[CLOSED_COUNT_AT], block[CLOSED_COUNT_AT + 1]]));
    if count > CLOSED_MAX {
        return Err(HeaderError::Field { at: CLOSED_COUNT_AT });
    }
    let slots = block[CLOSED_AT..CRC_AT].chunks_exact(CLOSED_LEN).take(count).enumerate();
    let closed = slots.map(|(index, slot)| {
        let mut segment = [0; 16];
        segment.copy_from_slice(&slot[..16]);
        let length = read_u64(slot, 16);
        if length > SEGMENT_LEN_MAX {
            return Err(HeaderError::Field { at: CLOSED_AT + index * CLOSED_LEN + 16 });
        }
        Ok(Closed { segment: SegmentId(segment), length, goes_on: slot[24] == GOES_ON })
    });
    closed.collect()
}

fn take_key(block: &[u8]) -> Result<Option<WrappedKey>, HeaderError> {
    let mut key = [0; WRAPPED_LEN];
    key.copy_from_slice(&block[KEY_AT..KEY_AT + WRAPPED_LEN]);
    match block[26] {
        0 => Ok(Some(key)),
        ERASED => Ok(None),
        _ => Err(HeaderError::Field { at: 26 }),
    }
}

/// Ed25519 PeerIds have 38 bytes; others at most 34.
fn put_peer(slot: &mut [u8], peer: &PeerId) {
    let bytes = peer.to_bytes();
    debug_assert!(bytes.len() < slot.len());
    slot[0] = u8::try_from(bytes.len()).unwrap_or(0);
    slot[1..=bytes.len()].copy_from_slice(&bytes);
}

fn take_peer(slot: &[u8]) -> Option<PeerId> {
    let (len, rest) = slot.split_first()?;
    PeerId::from_bytes(rest.get(..usize::from(*len))?).ok()
}
