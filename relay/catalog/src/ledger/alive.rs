//! What is alive at a moment at which nothing dead can come alive again (SPEC D8): so what is not, may go.
//!
//! A copy of an attachment is looked up for a message only where some message refers to it, and whoever looks it up holds
//! a claim until the view has the new reference. So at a moment without claims, a copy that nothing refers to is dead for
//! good: nobody knows it who may still refer to it. What a message has been told to leave out, as there was a copy, it
//! claims anew when it is accepted, and is refused where that copy is dead by then (`one_copy`).
//!
//! What messages on their way in have stored, and nothing refers to yet, is not told of here: whoever lets dead records go
//! leaves the segments of the last day alone.

use std::sync::Arc;
use std::time::Duration;

use lighter_storage::StoredBlob;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::{AuditError, Ledger, Log, lock};
use crate::CatalogError;
use crate::limits::{AUDIT_PAUSE_MAX_MS, AUDIT_TRIES_MAX};

impl<L: Log> Ledger<L> {
    /// Shows `visit` each blob that messages refer to, as it is at one moment at which nothing is claimed and no change's
    /// fate is in doubt; what it does not show then, nothing ever refers to again.
    ///
    /// # Errors
    /// [`AuditError::Busy`] where that moment does not come: messages are accepted all the time. The view's.
    // SPEC: D8
    pub async fn alive(&self, mut visit: impl FnMut(&StoredBlob) + Send + 'static) -> Result<(), AuditError> {
        let pause_max = Duration::from_millis(AUDIT_PAUSE_MAX_MS);
        for _ in 0..AUDIT_TRIES_MAX {
            let resting = timeout(pause_max, Arc::clone(self.locks().claiming()).write_owned()).await;
            if let Ok(resting) = resting
                && lock(&self.shared.doubts).is_empty()
            {
                let (looked, looking) = oneshot::channel();
                let view = Arc::clone(&self.shared.catalog);
                let walking = tokio::task::spawn_blocking(move || {
                    let mut looked = Some(looked);
                    view.alive(
                        &mut || {
                            let _ = looked.take().map(|looked| looked.send(()));
                        },
                        &mut visit,
                    )
                });
                let _ = looking.await; // where it does not come, walking tells why
                drop(resting);
                let walked = walking.await.unwrap_or(Err(CatalogError::Damaged("a walk did not end")));
                return Ok(walked?);
            }
            sleep(pause_max).await;
        }
        Err(AuditError::Busy)
    }
}
