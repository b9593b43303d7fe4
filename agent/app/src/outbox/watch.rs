//! What the system says about the outbox: a hint to look now. What is to be done is never decided by an event, since
//! events get lost (a full queue, a file system of another machine, an agent that did not run).

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::decide::Key;
use super::names::is_note;
use crate::limits::OUTBOX_HINTS_MAX;

/// What happened since somebody looked.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    /// What was renamed into place.
    placed: Mutex<HashSet<Key>>,
    /// Something happened.
    pub(crate) wake: Notify,
}

impl Hints {
    /// What was renamed into place since the last time.
    pub(crate) fn take_placed(&self) -> HashSet<Key> {
        std::mem::take(&mut *self.placed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn event(&self, root: &Path, event: &Event) {
        if !event.need_rescan() {
            if !tells(&event.kind) || event.paths.iter().all(|path| is_own(path)) {
                return;
            }
            if let EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) = event.kind
                && let Some(key) = event.paths.last().and_then(|path| key(root, path))
            {
                let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
                if placed.len() < OUTBOX_HINTS_MAX {
                    placed.insert(key);
                }
            }
        }
        self.wake.notify_one();
    }
}

/// Whether an event can mean that something is to be done: not those of looking and reading.
fn tells(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(access) => matches!(access, AccessKind::Close(AccessMode::Write)),
        _ => true,
    }
}

/// The agent's own notes, finished or not.
fn is_own(path: &Path) -> bool {
    path.file_name().is_some_and(|name| is_note(name) || name.as_encoded_bytes().starts_with(b".lighter-"))
}

/// What lies directly in a recipient's folder.
fn key(root: &Path, path: &Path) -> Option<Key> {
    let mut parts = path.strip_prefix(root).ok()?.components();
    let mut part = || match parts.next() {
        Some(Component::Normal(name)) => Some(OsStr::to_owned(name)),
        _ => None,
    };
    match (part(), part(), part()) {
        (Some(folder), Some(name), None) => Some(Key { folder, name }),
        _ => None,
    }
}

/// Watches `root` for as long as the watcher is kept.
///
/// # Errors
/// What the system says: too many watches, for one.
pub(crate) fn watch(root: PathBuf, hints: Arc<Hints>) -> notify::Result<RecommendedWatcher> {
    let config = Config::default().with_follow_symlinks(false);
    let watched = root.clone();
    let mut watcher = RecommendedWatcher::new(
        move |event: notify::Result<Event>| match event {
            Ok(event) => hints.event(&root, &event),
            // Whatever it is, looking tells.
            Err(_) => hints.wake.notify_one(),
        },
        config,
    )?;
    watcher.watch(&watched, RecursiveMode::Recursive)?;
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_rename_into_place_is_told_and_reading_and_own_notes_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let hints = Arc::new(Hints::default());
        std::fs::create_dir(root.join("bob@example.org")).unwrap();
        let _watcher = watch(root.clone(), hints.clone()).unwrap();
        std::fs::write(root.join("bob@example.org/a.part"), b"x").unwrap();
        std::fs::rename(root.join("bob@example.org/a.part"), root.join("bob@example.org/a")).unwrap();
        let mut placed = HashSet::new();
        while placed.is_empty() {
            hints.wake.notified().await;
            placed.extend(hints.take_placed());
        }
        assert_eq!(placed.into_iter().next().unwrap().name, "a");
        for (kind, path) in [
            (EventKind::Access(AccessKind::Open(AccessMode::Any)), "bob@example.org/a"),
            (EventKind::Create(notify::event::CreateKind::File), "bob@example.org/a.status.txt"),
        ] {
            let quiet = Hints::default();
            quiet.event(&root, &Event::new(kind).add_path(root.join(path)));
            let woken =
                tokio::time::timeout(std::time::Duration::from_millis(1), quiet.wake.notified()).await;
            assert!(woken.is_err(), "{kind:?}");
        }
    }
}
