//! The reference model: what must be true of what the array said, whatever happens to it.
//!
//! - What was acknowledged is there, with its bytes, until its day: it is never said to be damaged or unknown, and it is
//!   in the log. It may be out of reach for a while, where the story has taken servers away.
//! - What is read is what was written. Nothing else is ever given out.
//! - What was surely refused does not come back. What was in doubt may: once seen, it counts as acknowledged.
//! - After its day nothing is read any more.

use std::collections::{BTreeMap, BTreeSet};

use lighter_protocol::{BlobId, Day, UnixTime};
use lighter_storage::{
    Array, BlobReader, Class, PlacedBlob, ReadError, ReplayAlarms, Sequence, StoredBlob, WriteError,
};

/// What is known of everything that was ever stored.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) acked: BTreeMap<Sequence, Acked>,
    /// What may come back: blobs whose record was in doubt.
    pub(crate) in_doubt: BTreeSet<BlobId>,
    /// Somebody's clock is wrong: what this one takes for expired is not judged.
    pub(crate) clocks_differ: bool,
}

/// What was acknowledged.
#[derive(Clone)]
pub(crate) struct Acked {
    pub(crate) blob: StoredBlob,
    data: Vec<u8>,
    /// Its deletion day.
    until: Day,
}

/// What was said of a blob, and on which day it is deleted.
pub(crate) type Said = Result<(Sequence, StoredBlob, Option<Day>), WriteError>;

impl Model {
    /// It was said that this is there for good.
    pub(crate) fn acknowledge(&mut self, at: Sequence, blob: StoredBlob, data: Vec<u8>, until: Option<Day>) {
        let until = until.expect("what was stored lies somewhere");
        let before = self.acked.insert(at, Acked { blob, data, until });
        assert!(before.is_none(), "{at:?} was given out twice");
    }

    /// It was said that this failed.
    pub(crate) fn refuse(&mut self, data: &[u8], error: WriteError) {
        if !error.is_certain() {
            self.in_doubt.insert(BlobId::of(data));
        }
    }

    /// What was read of something acknowledged; with `must_be_there`, it is not out of reach.
    pub(crate) fn judge(
        &self,
        at: Sequence,
        read: Result<Vec<u8>, ReadError>,
        now: UnixTime,
        must_be_there: bool,
    ) {
        let acked = &self.acked[&at];
        let is_over = acked.until.end() <= now;
        match read {
            Ok(data) => {
                assert!(data == acked.data, "{at:?}: something else was given out");
                assert!(!is_over || self.clocks_differ, "{at:?}: read after its day");
            }
            Err(ReadError::Unavailable) if !must_be_there => {}
            Err(ReadError::Expired) => {
                assert!(is_over || self.clocks_differ, "{at:?}: expired before its day");
            }
            Err(error) => assert!(is_over, "{at:?}: acknowledged, and lost: {error}"),
        }
    }

    /// What the log has.
    pub(crate) fn judge_log(&self, found: &BTreeMap<Sequence, StoredBlob>, now: UnixTime) {
        for (at, acked) in &self.acked {
            match found.get(at) {
                Some(blob) => assert_eq!(blob, &acked.blob, "{at:?}: another record"),
                None => {
                    let may_lack = acked.until.end() <= now || self.clocks_differ;
                    assert!(may_lack, "{at:?}: an acknowledged record is not in the log");
                }
            }
        }
        for (at, blob) in found {
            let is_known = self.acked.contains_key(at) || self.in_doubt.contains(&blob.id);
            assert!(is_known, "{at:?}: a refused record came back");
        }
    }
}

/// Bytes that differ from portion to portion, and from number to number.
pub(crate) fn bytes(number: u64, len: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes());
    let mut bytes = vec![0; len];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

async fn write_blob(array: &Array, class: Class, data: &[u8]) -> Result<PlacedBlob, WriteError> {
    let mut writer = array.create_blob(class);
    for piece in data.chunks(300_000) {
        writer.write(piece).await?;
    }
    writer.finish().await
}

/// Stores a blob and a record that names it, as a relay does.
pub(crate) async fn store(
    array: &Array,
    class: Class,
    data: &[u8],
) -> Result<(Sequence, StoredBlob), WriteError> {
    let placed = write_blob(array, class, data).await?;
    let record = postcard::to_stdvec(placed.stored()).expect("a location can be encoded");
    let sequence = array.append_catalog(record, class, &[&placed]).await?;
    Ok((sequence, placed.stored().clone()))
}

/// All bytes of a blob.
pub(crate) async fn read(array: &Array, blob: &StoredBlob) -> Result<Vec<u8>, ReadError> {
    read_all(array.read_blob(blob, 0..blob.size)).await
}

async fn read_all(mut reader: BlobReader) -> Result<Vec<u8>, ReadError> {
    let mut all = Vec::new();
    while let Some(piece) = reader.next().await? {
        assert!(!piece.is_empty(), "a piece has bytes");
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// All blobs that the log names, and what was wrong with it.
pub(crate) async fn replayed(
    array: &Array,
) -> Result<(BTreeMap<Sequence, StoredBlob>, ReplayAlarms), ReadError> {
    let mut replay = array.replay(Sequence::ZERO);
    let mut found = BTreeMap::<Sequence, StoredBlob>::new();
    while let Some(entry) = replay.next().await? {
        let last = found.last_key_value().map(|(last, _)| *last);
        assert!(last < Some(entry.sequence), "the log is in order: {last:?}, {:?}", entry.sequence);
        let blob = postcard::from_bytes(&entry.record).expect("a record is what was appended");
        found.insert(entry.sequence, blob);
    }
    Ok((found, replay.alarms()))
}
