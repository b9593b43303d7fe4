//! Giving back the room of what nothing refers to any more, once a day (SPEC D8).
//!
//! Which segments are worth it is found from the catalog's side, page by page, while everything goes on. What is dead in
//! them is taken from the catalog as it is at one moment at which nothing dead can come alive again
//! ([`Ledger::alive`]), a few segments at a time, so that memory has a bound.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use lighter_catalog::Ledger;
use lighter_protocol::Day;
use lighter_storage::limits::THIN_AGE_DAYS;
use lighter_storage::{Array, SegmentId, SegmentState, SegmentStatus, ThinError};
use serde_json::{Value, json};

use super::survey::Survey;
use super::{Progress, UpkeepError};
use crate::limits::{THIN_BATCH_LEN, THIN_GAIN_MIN, THIN_SEGMENTS_MAX};

/// Alive records of some segments: where each begins, and its bytes.
type Alive = BTreeMap<SegmentId, Vec<(u64, u64)>>;

/// Gives back what is dead in segments of which less than `below_percent` is alive; says what came of it.
pub(crate) async fn thin(
    array: &Array,
    ledger: &Ledger<Array>,
    below_percent: u8,
    today: Day,
    progress: &Progress,
) -> Result<Value, UpkeepError> {
    let segments: Vec<_> =
        array.segments().into_iter().filter(|segment| is_old_enough(segment, today)).collect();
    let mut alive = bytes_alive(array, ledger, progress).await?;
    let mut worth_it = Vec::new();
    for segment in segments {
        let own = array.catalog_len(segment.segment).await.unwrap_or(segment.stored_len);
        let alive = alive.remove(&segment.segment).unwrap_or_default() + own;
        if let Some(gain) = gain(segment.stored_len, alive, below_percent) {
            worth_it.push((gain, segment.segment));
        }
    }
    // Most first; the rest comes another day.
    worth_it.sort_unstable_by_key(|(gain, _)| std::cmp::Reverse(*gain));
    worth_it.truncate(THIN_SEGMENTS_MAX);
    let (mut thinned, mut given_back, mut put_off) = (0_u64, 0_u64, 0_u64);
    for batch in worth_it.chunks(THIN_BATCH_LEN) {
        let batch: Alive = batch.iter().map(|(_, segment)| (*segment, Vec::new())).collect();
        for (segment, alive) in records_alive(array, ledger, batch).await? {
            match array.thin(segment, alive).await {
                Ok(0) => {}
                Ok(bytes) => (thinned, given_back) = (thinned + 1, given_back + bytes),
                Err(ThinError::NotNow) => put_off += 1,
                Err(error) => {
                    tracing::warn!(%segment, %error, "dead records could not be given back yet");
                    put_off += 1;
                }
            }
        }
    }
    Ok(json!({ "segments_thinned": thinned, "bytes_given_back": given_back, "segments_put_off": put_off }))
}

/// Nothing that is on its way in has anything in it (each server asks its own clock, too). One that goes anyway within a day is
/// not worth it.
fn is_old_enough(segment: &SegmentStatus, today: Day) -> bool {
    segment.state == SegmentState::Sealed
        && segment.storage_day.plus(THIN_AGE_DAYS) <= today
        && segment.deletion_day.0 > today.0.saturating_add(1)
}

/// What each copy of a segment would have less, where that is worth it.
fn gain(stored: u64, alive: u64, below_percent: u8) -> Option<u64> {
    let gain = stored.saturating_sub(alive);
    let is_mostly_dead = u128::from(alive) * 100 < u128::from(stored) * u128::from(below_percent);
    (is_mostly_dead && gain >= THIN_GAIN_MIN).then_some(gain)
}

async fn bytes_alive(
    array: &Array,
    ledger: &Ledger<Array>,
    progress: &Progress,
) -> Result<BTreeMap<SegmentId, u64>, UpkeepError> {
    let mut alive = BTreeMap::new();
    let mut survey = Survey::new(ledger);
    loop {
        let page = survey.next().await?;
        if page.is_empty() {
            return Ok(alive);
        }
        for blob in page {
            progress.count_blob();
            for place in array.places(&blob.location) {
                *alive.entry(place.segment).or_default() += u64::from(place.length);
            }
        }
    }
}

/// All records of the segments in `batch` that are referred to, or may be from now on.
async fn records_alive(array: &Array, ledger: &Ledger<Array>, batch: Alive) -> Result<Alive, UpkeepError> {
    let found = Arc::new(Mutex::new(batch));
    let (into, array) = (Arc::clone(&found), array.clone());
    ledger
        .alive(move |blob| {
            let mut alive = into.lock().unwrap_or_else(PoisonError::into_inner);
            for place in array.places(&blob.location) {
                if let Some(alive) = alive.get_mut(&place.segment) {
                    alive.push((place.offset, u64::from(place.length)));
                }
            }
        })
        .await?;
    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_mostly_dead_and_large_is_worth_it() {
        let mib = 1 << 20;
        assert_eq!(gain(100 * mib, 40 * mib, 50), Some(60 * mib));
        assert_eq!(gain(100 * mib, 50 * mib, 50), None);
        assert_eq!(gain(100 * mib, 60 * mib, 70), Some(40 * mib));
        assert_eq!(gain(100 * mib, 0, 0), None, "turned off");
        assert_eq!(gain(10 * mib, 0, 50), None, "too little");
        assert_eq!(gain(0, mib, 50), None);
    }
}
