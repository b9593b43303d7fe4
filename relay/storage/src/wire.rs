//! What relay and storage servers say to each other.
//!
//! Each message travels in a [`Frame`], with its data beside it. Answers come in any order. The first request is
//! [`Request::Hello`]; its answer tells that the server accepted who asks.

mod frame;

use std::net::SocketAddr;

use lighter_protocol::{PeerId, UnixTime};
use serde::{Deserialize, Serialize};

use crate::ids::{DataKey, Epoch, SegmentId, Sequence, UnitId};
use crate::segment::footer::{IndexEntry, Summary};
use crate::unit::SealReport;

pub use frame::{Frame, FrameError, OutFrame};

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
    /// How is your copy of this segment? Of its writer, and of relays that its table lets read. Answered as
    /// [`Request::List`], with one segment or none.
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
    /// Read one record. Of its segment's writer, and of relays that its table lets read. Answered [`Response::Done`] with
    /// the whole record as data.
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
    /// Put a failed or damaged copy out of the way, sealed or not. Answered [`Response::Done`].
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
    /// Let a server read your sealed copy of this segment, for ten minutes from now. Of its writer only. Answered
    /// [`Response::Done`].
    Allow {
        /// The segment.
        segment: SegmentId,
        /// Who may read it.
        peer: PeerId,
    },
    /// Read the file of a sealed segment as it stands: header block, records, footer. Of its writer, or a server that the
    /// writer allowed. Answered [`Response::Done`] with bytes as data: fewer than asked only at the file's end.
    ReadSealed {
        /// The unit.
        unit: UnitId,
        /// The segment.
        segment: SegmentId,
        /// From here, in the file.
        offset: u64,
        /// So many bytes, at most a group.
        length: u32,
    },
    /// Fetch a stretch of a sealed segment's file from another server, which was told to [`Request::Allow`] you, and put
    /// it behind what you have fetched of it; from 0 on, begin anew. Answered [`Response::Received`] once it is synced,
    /// or refused with [`Refusal::Offset`], where another stretch is the next. Nothing of it counts as a copy yet.
    Receive {
        /// The unit that is to have it.
        unit: UnitId,
        /// The present epoch.
        epoch: Epoch,
        /// The segment.
        segment: SegmentId,
        /// Who has it.
        source: Hop,
        /// From here, in the file.
        offset: u64,
        /// So many bytes, at most `limits::RECEIVE_LEN_MAX`; it ends at the file's end.
        length: u32,
    },
    /// Check all of what was fetched, and keep it as a sealed copy. Answered [`Response::Sealed`], also where it is one
    /// already; what is not sound is removed and refused as [`Refusal::Unsound`].
    Adopt {
        /// The unit that has fetched it.
        unit: UnitId,
        /// The present epoch.
        epoch: Epoch,
        /// The segment.
        segment: SegmentId,
        /// What the sealed copies say.
        summary: Summary,
    },
    /// Remove a sealed copy for good, and what was fetched of one: it is not needed here, and not missed. Answered
    /// [`Response::Done`], also where there is none.
    Drop {
        /// Which segment, and under which epoch.
        target: Target,
    },
    /// How is a unit? Answered [`Response::Health`].
    Health {
        /// Which one.
        unit: UnitId,
    },
    /// Put the day key in the data (`WRAPPED_LEN` bytes: the same key, wrapped under another array key) in place of the one
    /// in a segment's header block. Answered [`Response::Done`].
    Rewrap {
        /// Which segment, and under which epoch.
        target: Target,
    },
    /// Which segments go on with the records of this one, which was closed below them? Of their writer, and of relays
    /// that its table lets read; on all units. Answered as [`Request::List`].
    Successors {
        /// The segment that was closed.
        segment: SegmentId,
    },
    /// Give back the room of the dead records in the data: stretches of a sealed segment, each an offset (4 bytes) and a
    /// length (4 bytes), in order. Answered [`Response::Sealed`] once that is durable; what is alive stays where it is. Refused
    /// with [`Refusal::State`] where its records were moved, or it is not old enough by the server's own clock.
    // SPEC: D8
    Thin {
        /// Which segment, and under which epoch.
        target: Target,
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
        /// Up to here the list lacks nothing: of a copy that is being made, or damaged, there may be more elsewhere.
        length: u64,
    },
    /// To [`Request::Seal`].
    Sealed(SealReport),
    /// No.
    Refused(Refusal),
    /// To [`Request::Receive`]: on stable storage, as the beginning of a copy.
    Received {
        /// Where the next stretch begins.
        next: u64,
    },
    /// To [`Request::Health`].
    Health(UnitHealth),
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
    /// Bad stretches in it, as its last reading found: when it was opened, sealed or scrubbed.
    pub damaged: u64,
    /// Its records are in an object store.
    pub is_moved: bool,
}

/// How a unit is: for choosing among units, and for whoever looks after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitHealth {
    /// Bytes of its disk.
    pub total: u64,
    /// Bytes free on it.
    pub free: u64,
    /// Bytes more that it takes as copies ([`Request::Receive`]) before it keeps the rest for appends.
    pub free_for_copies: u64,
    /// Commands that wait for it, appends mostly.
    pub queue: u32,
    /// Of its last syncs, microseconds that 99 in 100 stayed below; 0 before the first.
    pub sync_p99_us: u32,
    /// Segments on it, of all writers.
    pub segments: u64,
    /// Files put out of the way since its start.
    pub set_aside: u64,
    /// Segments of which there was more there than there is.
    pub incomplete: u64,
    /// Segments in which bad stretches were found, of all writers.
    pub damaged_segments: u64,
    /// The asker's own among them, and how many stretches: the first of them, a page.
    pub damaged: Vec<(SegmentId, u64)>,
    /// How far it has re-read what it has.
    pub scrub: ScrubProgress,
    /// What of it is in an object store.
    pub objects: ObjectsHealth,
}

/// What of a unit is in an object store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectsHealth {
    /// Whether its server has one.
    pub has_store: bool,
    /// Whether the last request reached it.
    pub is_well: bool,
    /// Segments whose records are there.
    pub segments: u64,
    /// Their bytes there.
    pub bytes: u64,
    /// Bytes of sealed segments that are on the unit's own disk.
    pub local_bytes: u64,
    /// Objects that are being uploaded, or wait to be removed.
    pub strays: u64,
}

impl ObjectsHealth {
    /// Of two units together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            has_store: self.has_store || other.has_store,
            is_well: self.is_well && other.is_well,
            segments: self.segments.saturating_add(other.segments),
            bytes: self.bytes.saturating_add(other.bytes),
            local_bytes: self.local_bytes.saturating_add(other.local_bytes),
            strays: self.strays.saturating_add(other.strays),
        }
    }
}

/// How far a unit is with re-reading its sealed segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubProgress {
    /// When this round of it began; 0 before the first.
    pub begun: UnixTime,
    /// Bytes of sealed segments read in this round.
    pub done: u64,
    /// Bytes of all sealed segments.
    pub total: u64,
    /// When the last whole round ended; 0 before the first.
    pub last_ended: UnixTime,
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
    /// The server to fetch from did not give it.
    #[error("the source did not give it")]
    Source,
    /// It is in an object store that cannot be reached now: nothing is wrong with this copy.
    #[error("in an object store that cannot be reached now")]
    Away,
}
