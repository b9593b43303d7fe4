//! What lies in the array that nothing refers to: what messages brought that failed, that a copy was there of before, or
//! that are over (SPEC D8). It goes with its segment.
//!
//! Counted from the catalog's side: what is referred to lies in so many bytes of a segment, the catalog's own records in
//! so many; the rest of it is dead. So not a byte of a blob is read, and it costs what the catalog costs to walk over. A
//! segment that is being written has, for a moment, records of messages that are still on their way in.

use std::collections::BTreeMap;

use lighter_catalog::Ledger;
use lighter_storage::{Array, ReadError, SegmentId, SegmentState, SegmentStatus};
use serde_json::{Value, json};

use super::survey::Survey;
use super::{Progress, UpkeepError};

/// What is alive in a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Alive {
    bytes: u64,
    records: u64,
}

/// Says for each segment how much of it is dead.
pub(crate) async fn orphans(
    array: &Array,
    ledger: &Ledger<Array>,
    progress: &Progress,
) -> Result<Value, UpkeepError> {
    // Segments first: what is referred to later lies in them, or in later ones, which are not told of.
    let segments = array.segments();
    let mut alive: BTreeMap<SegmentId, Alive> = BTreeMap::new();
    let mut survey = Survey::new(ledger);
    loop {
        let page = survey.next().await?;
        if page.is_empty() {
            break;
        }
        for blob in page {
            progress.count_blob();
            for place in array.places(&blob.location) {
                let found = alive.entry(place.segment).or_default();
                found.bytes += u64::from(place.length);
                found.records += 1;
            }
        }
    }
    let mut lines = Vec::with_capacity(segments.len());
    let mut total = Totals::default();
    for segment in segments {
        let own = match array.catalog_len(segment.segment).await {
            Ok(own) => own,
            Err(ReadError::Expired) => continue, // gone meanwhile
            Err(error) => return Err(error.into()),
        };
        let alive = alive.remove(&segment.segment).unwrap_or_default();
        lines.push(total.line(&segment, alive, own));
    }
    Ok(json!({
        "segments": lines,
        "bytes": total.bytes,
        "referred_bytes": total.alive,
        "catalog_bytes": total.own,
        "orphaned_bytes": total.dead,
        "orphaned_portions": total.dead_records,
    }))
}

#[derive(Default)]
struct Totals {
    bytes: u64,
    alive: u64,
    own: u64,
    dead: u64,
    dead_records: u64,
}

impl Totals {
    fn line(&mut self, segment: &SegmentStatus, alive: Alive, own: u64) -> Value {
        let dead = segment.records_len.saturating_sub(alive.bytes).saturating_sub(own);
        // How many records there are is known once it is sealed.
        let dead_records = segment.portions.map(|all| all.saturating_sub(alive.records));
        self.bytes += segment.records_len;
        self.alive += alive.bytes;
        self.own += own;
        self.dead += dead;
        self.dead_records += dead_records.unwrap_or_default();
        let percent = (segment.records_len - dead) * 100 / segment.records_len.max(1);
        json!({
            "segment": segment.segment.to_string(),
            "class_days": segment.class.days(),
            "storage_day": segment.storage_day.0,
            "deletion_day": segment.deletion_day.0,
            "state": match segment.state {
                SegmentState::Open => "open",
                SegmentState::Closing => "closing",
                SegmentState::Sealed => "sealed",
            },
            "bytes": segment.records_len,
            "referred_bytes": alive.bytes,
            "catalog_bytes": own,
            "orphaned_bytes": dead,
            "orphaned_portions": dead_records,
            "alive_percent": percent,
        })
    }
}
