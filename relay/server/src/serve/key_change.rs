//! Changing the array key while the relay runs: the file on this side, the copies' headers on the other.
//!
//! The steps, and why a crash between them loses nothing, are told where the file is (`lighter_storage::ArrayKeys`):
//! both keys are in the file before anything is wrapped under the new one, and the former one leaves it only when no copy
//! anywhere needs it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lighter_storage::{Array, ArrayKeys};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::commands::keys::were_exported;
use crate::layout;
use crate::limits::KEY_FILE_RETRY_PAUSE;

/// The array key's change. Clones are handles of the same one.
#[derive(Clone)]
pub(super) struct KeyChange {
    array: Array,
    data: PathBuf,
    keys: Arc<Mutex<ArrayKeys>>,
    begun: Arc<Notify>,
}

impl KeyChange {
    /// `keys` are those in the file in `data`, with which `array` was opened.
    pub(super) fn new(array: Array, data: PathBuf, keys: ArrayKeys) -> Self {
        Self { array, data, keys: Arc::new(Mutex::new(keys)), begun: Arc::default() }
    }

    fn keys(&self) -> MutexGuard<'_, ArrayKeys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to change the array key: the new one is in the file, and in use, when this returns well.
    ///
    /// # Errors
    /// For the person who asked.
    pub(super) async fn begin(&self) -> Result<(), String> {
        // The others could not read what is wrapped anew, and would go on under the former one.
        if !self.array.table().readers.is_empty() {
            return Err("other relays share this array key, and it cannot be changed under them: \
                        stop all but this one, leave them out of the catalog, and give them the new key afterwards"
                .to_owned());
        }
        let this = self.clone();
        let begun = tokio::task::spawn_blocking(move || {
            let mut keys = this.keys();
            let next = keys.rotated(&mut rand::rng()).ok_or("the array key is being changed already")?;
            next.replace(&layout::array_key(&this.data)).map_err(|error| {
                tracing::error!(%error, "the new array key cannot be written");
                "the new array key cannot be written down: nothing was changed"
            })?;
            this.array.set_keys(next.clone());
            *keys = next;
            Ok::<_, &str>(())
        });
        begun.await.map_err(|error| error.to_string())??;
        tracing::info!("the array key is being changed: export it");
        self.begun.notify_one();
        Ok(())
    }

    /// How it is, for the person who asked.
    pub(super) fn status(&self) -> serde_json::Value {
        let keys = self.keys().clone();
        let waiting: Vec<_> = self.array.servers_to_rewrap().iter().map(ToString::to_string).collect();
        json!({
            "array_key": if keys.is_rotating() { "being changed" } else { "settled" },
            "servers_waited_for": waiting,
            "exported": were_exported(&self.data, &keys),
        })
    }

    /// Finishes what was begun, before the start or since, until `stopping`.
    pub(super) async fn run(self, stopping: CancellationToken) {
        let finishing = async {
            loop {
                if self.keys().is_rotating() {
                    self.array.rewrapped().await;
                    self.finish().await;
                } else {
                    self.begun.notified().await;
                }
            }
        };
        tokio::select! {
            biased;
            () = stopping.cancelled() => {}
            () = finishing => {}
        }
    }

    /// No copy needs the former key any more: it is destroyed.
    async fn finish(&self) {
        let this = self.clone();
        let finished = tokio::task::spawn_blocking(move || {
            let mut keys = this.keys();
            let settled = keys.settled();
            settled.replace(&layout::array_key(&this.data))?;
            this.array.set_keys(settled.clone());
            *keys = settled;
            Ok::<_, std::io::Error>(())
        });
        match finished.await.map_err(std::io::Error::other).and_then(|done| done) {
            Ok(()) => tracing::info!("the array key was changed, and the former one destroyed"),
            Err(error) => {
                tracing::error!(%error, "the former array key cannot be removed from its file");
                tokio::time::sleep(KEY_FILE_RETRY_PAUSE).await;
            }
        }
    }
}
