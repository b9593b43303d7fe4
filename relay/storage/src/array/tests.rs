//! The array against real servers (`real`) and simulated ones (`rewrap`, `slow`, `unmirrored`); stories drawn from a seed are in `cargo sim`.

mod fellows;
mod membership;
mod real;
mod rewrap;
mod slow;
mod thinning;
mod unmirrored;

use super::*;
use crate::keys::ArrayKey;
use lighter_protocol::{BlobId, UnixTime};

/// Bytes that differ from portion to portion, and from seed to seed.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    let mut bytes = vec![0; len];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// 2026-11-21, some time in the day.
const NOW: UnixTime = UnixTime(1_795_260_000);

async fn write_blob(array: &Array, class: Class, data: &[u8]) -> Result<PlacedBlob, WriteError> {
    let mut writer = array.create_blob(class);
    for piece in data.chunks(300_000) {
        writer.write(piece).await?;
    }
    writer.finish().await
}

/// Stores a blob and a record that names it, as a relay does.
async fn store(array: &Array, class: Class, data: &[u8]) -> Result<(Sequence, StoredBlob), WriteError> {
    let placed = write_blob(array, class, data).await?;
    let record = postcard::to_stdvec(placed.stored()).unwrap();
    let sequence = array.append_catalog(record, class, &[&placed]).await?;
    Ok((sequence, placed.stored().clone()))
}

async fn read_all(mut reader: BlobReader) -> Result<Vec<u8>, ReadError> {
    let mut all = Vec::new();
    while let Some(piece) = reader.next().await? {
        assert!(!piece.is_empty());
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

async fn read(array: &Array, blob: &StoredBlob) -> Result<Vec<u8>, ReadError> {
    read_all(array.read_blob(blob, 0..blob.size)).await
}

/// All blobs that the log names, and what was wrong with it.
async fn replayed(array: &Array) -> Result<(Vec<(Sequence, StoredBlob)>, ReplayAlarms), ReadError> {
    let mut replay = array.replay(Sequence::ZERO);
    let mut found: Vec<(Sequence, StoredBlob)> = Vec::new();
    while let Some(entry) = replay.next().await? {
        assert!(found.last().is_none_or(|(last, _)| *last < entry.sequence), "in order");
        found.push((entry.sequence, postcard::from_bytes(&entry.record).unwrap()));
    }
    Ok((found, replay.alarms()))
}
