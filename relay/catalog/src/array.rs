//! The array as the log.

use std::ops::ControlFlow;

use lighter_storage::{Array, Class, PlacedBlob, ReadError, ReplayAlarms, Sequence, StoredBlob, WriteError};

use crate::{Log, LogError};

impl Log for Array {
    type Blob = PlacedBlob;

    async fn append(
        &self,
        change: Vec<u8>,
        class: Class,
        blobs: Vec<PlacedBlob>,
    ) -> Result<Sequence, LogError> {
        let blobs: Vec<&PlacedBlob> = blobs.iter().collect();
        self.append_catalog(change, class, &blobs).await.map_err(|error| match error {
            WriteError::InDoubt => LogError::InDoubt(Box::new(error)),
            error => LogError::Unavailable(Box::new(error)),
        })
    }

    async fn make_durable(&self, blobs: &[PlacedBlob]) -> Result<(), LogError> {
        for blob in blobs {
            // Nothing names it yet: where it is in doubt, it is an orphan, and no more.
            blob.durable().await.map_err(|error| LogError::Unavailable(Box::new(error)))?;
        }
        Ok(())
    }

    fn stored(blob: &PlacedBlob) -> &StoredBlob {
        blob.stored()
    }

    async fn is_kept(&self, blob: &StoredBlob) -> bool {
        self.has_all_copies(&blob.location).await
    }

    async fn is_readable(&self, blob: &StoredBlob) -> bool {
        self.blob_tree(blob).await.is_ok()
    }

    async fn replay(
        &self,
        from: Sequence,
        visit: &mut (dyn FnMut(Sequence, &[u8]) -> ControlFlow<()> + Send),
    ) -> Result<ReplayAlarms, LogError> {
        let unavailable = |error: ReadError| LogError::Unavailable(Box::new(error));
        // The array gives what comes after a number.
        let mut replay = Self::replay(self, Sequence(from.0.saturating_sub(1)));
        while let Some(entry) = replay.next().await.map_err(unavailable)? {
            if visit(entry.sequence, &entry.record).is_break() {
                return Ok(replay.alarms());
            }
        }
        let alarms = replay.alarms();
        if alarms != ReplayAlarms::default() {
            tracing::error!(
                alarms.gaps,
                alarms.unreadable,
                "records are missing from the catalog's log: what they told is lost"
            );
        }
        Ok(alarms)
    }
}
