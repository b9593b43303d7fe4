//! `catalog check`: every disagreement between the view and the log, and between what is referred to and the array.

use std::collections::BTreeMap;
use std::path::Path;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lighter_catalog::{Audit, Ledger};
use lighter_protocol::UnixTime;
use lighter_storage::{Array, CopyFault, DataKey, SegmentId, StoredBlob};
use serde_json::{Value, json};

use super::survey::Survey;
use super::{Progress, UpkeepError};
use crate::layout;
use crate::limits::{FAULTS_TOLD_MAX, VERIFIED_AT_ONCE_MAX};

/// Checks; `data` is where the view lies, and where one to compare it with is made for the time being.
pub(crate) async fn check(
    array: &Array,
    ledger: &Ledger<Array>,
    data: &Path,
    deep: bool,
    progress: &Progress,
) -> Result<Value, UpkeepError> {
    let audit = if ledger.database().is_some() {
        // The database is the truth: there is no log that it could be held against, only the array.
        Audit::default()
    } else {
        let folder = Scratch::new(&layout::catalog_check(data))?;
        ledger.audit(&folder.path, UnixTime::now().day(), progress.changes()).await?
    };
    let copies = look_at_copies(array, ledger, deep, progress).await?;
    Ok(told(&audit, &copies, deep))
}

/// A folder that is empty at first, and gone in the end.
struct Scratch {
    path: std::path::PathBuf,
}

impl Scratch {
    fn new(path: &Path) -> std::io::Result<Self> {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(path)?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(folder = %self.path.display(), %error, "the comparison's folder is left behind");
        }
    }
}

/// What was found of the copies that are referred to.
#[derive(Debug, Default)]
struct Copies {
    /// Blobs that are referred to, and bytes in them.
    blobs: u64,
    bytes: u64,
    /// Those that lie where there is nothing.
    nowhere: u64,
    /// Those of which there are fewer copies than promised just now.
    too_few: u64,
    /// Copies that were read and proved right.
    read: u64,
    damaged: u64,
    missing: u64,
    away: u64,
    /// The first of them.
    faults: Vec<Value>,
}

async fn look_at_copies(
    array: &Array,
    ledger: &Ledger<Array>,
    deep: bool,
    progress: &Progress,
) -> Result<Copies, UpkeepError> {
    let mut found = Copies::default();
    let mut survey = Survey::new(ledger);
    let mut reading = FuturesUnordered::new();
    loop {
        let page = survey.next().await?;
        if page.is_empty() {
            break;
        }
        let ends: BTreeMap<SegmentId, u64> =
            array.segments().into_iter().map(|segment| (segment.segment, segment.records_end())).collect();
        for blob in page {
            progress.count_blob();
            found.take_in(array, &ends, &blob);
            if !deep {
                continue;
            }
            reading.push(async move {
                let verified = array.verify_copies(&blob).await;
                (blob, verified.unwrap_or_default())
            });
            if reading.len() >= VERIFIED_AT_ONCE_MAX
                && let Some((blob, copies)) = reading.next().await
            {
                found.judge(&blob, &copies);
            }
        }
    }
    while let Some((blob, copies)) = reading.next().await {
        found.judge(&blob, &copies);
    }
    Ok(found)
}

impl Copies {
    /// Whether the blob's records are where it says, and on as many copies as promised.
    fn take_in(&mut self, array: &Array, ends: &BTreeMap<SegmentId, u64>, blob: &StoredBlob) {
        self.blobs += 1;
        self.bytes += blob.size;
        let places = array.places(&blob.location);
        let is_there = !places.is_empty()
            && places.iter().all(|place| {
                ends.get(&place.segment).is_some_and(|end| place.offset + u64::from(place.length) <= *end)
            });
        if !is_there {
            self.nowhere += 1;
            self.tell(json!({ "blob": blob.id.to_string(), "fault": "nowhere" }));
        } else if !array.is_whole(&blob.location) {
            self.too_few += 1;
        }
    }

    fn judge(&mut self, blob: &StoredBlob, copies: &[(DataKey, Result<(), CopyFault>)]) {
        for (key, verdict) in copies {
            let Err(fault) = verdict else {
                self.read += 1;
                continue;
            };
            match fault {
                // As with one that is away: it may be there the next time.
                CopyFault::Away | CopyFault::Behind => self.away += 1,
                CopyFault::Missing | CopyFault::Expired => self.missing += 1,
                CopyFault::Damaged => self.damaged += 1,
            }
            self.tell(json!({
                "blob": blob.id.to_string(),
                "fault": fault.to_string(),
                "server": key.server.to_string(),
                "unit": key.unit.to_string(),
                "segment": key.segment.to_string(),
                "offset": key.offset,
            }));
        }
    }

    fn tell(&mut self, fault: Value) {
        if self.faults.len() < FAULTS_TOLD_MAX {
            self.faults.push(fault);
        }
    }
}

fn told(audit: &Audit, copies: &Copies, deep: bool) -> Value {
    let disagreements: Vec<Value> = audit
        .first
        .iter()
        .map(|one| json!({ "about": one.about.name(), "id": one.id, "how": one.how.name() }))
        .collect();
    let is_sound = audit.disagreements == 0
        && audit.alarms == lighter_storage::ReplayAlarms::default()
        && copies.nowhere + copies.damaged + copies.missing == 0;
    let mut answer = json!({
        "sound": is_sound,
        "changes": audit.changes,
        "log_gaps": audit.alarms.gaps,
        "log_unreadable": audit.alarms.unreadable,
        "disagreements": audit.disagreements,
        "first_disagreements": disagreements,
        "blobs": copies.blobs,
        "blobs_bytes": copies.bytes,
        "blobs_nowhere": copies.nowhere,
        "blobs_on_too_few_copies": copies.too_few,
        "faults": copies.faults,
    });
    if deep && let Some(fields) = answer.as_object_mut() {
        fields.insert("copies_verified".to_owned(), copies.read.into());
        fields.insert("copies_damaged".to_owned(), copies.damaged.into());
        fields.insert("copies_missing".to_owned(), copies.missing.into());
        fields.insert("copies_away".to_owned(), copies.away.into());
    }
    answer
}
