//! Follows the configuration file: what it says of limits and of the store's quota holds as soon as it is written. Everything
//! else in it holds from the next start on. A file that cannot be used changes nothing, and is told of in `status`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::config::Config;
use crate::limits::CONFIG_SETTLE;
use crate::shared::Handle;

/// Follows the file until the agent stops.
pub async fn run(shared: Handle, path: PathBuf) {
    let wake = Arc::new(Notify::new());
    let _watcher = match watch(&path, Arc::clone(&wake)) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::info!(path = %path.display(), %error, "changes of the configuration hold from the next start on");
            return;
        }
    };
    // What was written between the start and now is seen, too.
    wake.notify_one();
    loop {
        wake.notified().await;
        sleep(CONFIG_SETTLE).await;
        let from = path.clone();
        let read = tokio::task::spawn_blocking(move || Config::read(&from)).await;
        match read {
            Ok(Ok(config)) => apply(&shared, config),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the configuration as it is now is not used");
                shared.guest.configure(Err(error.to_string()));
            }
            Err(_) => return,
        }
    }
}

fn apply(shared: &Handle, config: Config) {
    let (before, now) = (shared.store.settings(), config.store.settings());
    if before != now {
        tracing::info!(?now, "the store's settings are others");
        shared.store.change_settings(now);
        shared.guest.there_is_room();
    }
    shared.change_share(config.store.share);
    shared.pulls.takes_pushes.store(config.store.accept_push, Ordering::Relaxed);
    if config.hosted.is_some() {
        shared.hosted.configure(config.hosted);
        shared.guest.there_is_room();
    }
    shared.guest.configure(Ok(config.guest));
}

/// Watches the folder: editors put a new file in the old one's place.
fn watch(path: &Path, wake: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
    let name = path.file_name().map(ToOwned::to_owned);
    let is_it = move |event: &Event| {
        let changes = !matches!(event.kind, EventKind::Access(access) if access != notify::event::AccessKind::Close(notify::event::AccessMode::Write));
        changes && (event.need_rescan() || event.paths.iter().any(|path| path.file_name() == name.as_deref()))
    };
    let tell = move |event: notify::Result<Event>| {
        if event.map_or(true, |event| is_it(&event)) {
            wake.notify_one();
        }
    };
    let mut watcher = RecommendedWatcher::new(tell, notify::Config::default())?;
    watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
