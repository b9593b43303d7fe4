//! The peer: plain files, no format. It writes and syncs as a unit does: what waits is written together, up to 4 MiB, and
//! synced once; zeros are written ahead of small groups, so that the sync need not change the file's length.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use lighter_storage::limits::{FILL_BELOW_LEN, FILL_LEN, GROUP_LEN_MAX, UNIT_QUEUE_MAX};
use tokio::sync::{mpsc, oneshot};

use super::{Load, Room, data};

/// Appends to that many files in `folder` at once: a copy in each.
pub(super) async fn run(folder: &Path, copies: usize, load: Load, room: Room) -> Result<Duration> {
    let files = (0..copies).map(|copy| PlainFile::create(&folder.join(format!("copy-{copy}")), room));
    let (files, workers): (Vec<_>, Vec<_>) = files.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    let time = load
        .run(files, |files| async move {
            let mut answers = Vec::with_capacity(files.len());
            for file in files.iter() {
                answers.push(file.append(data()).await?);
            }
            for answer in answers {
                answer.await??;
            }
            Ok(())
        })
        .await?;
    for worker in workers {
        worker.join().ok().context("a worker panicked")?;
    }
    Ok(time)
}

struct PlainFile(mpsc::Sender<Append>);

struct Append {
    data: Vec<u8>,
    answer: oneshot::Sender<io::Result<()>>,
}

impl PlainFile {
    /// Makes the file, durably, and the thread that owns it and ends with the last handle.
    fn create(path: &Path, room: Room) -> Result<(Self, JoinHandle<()>)> {
        let file = File::create_new(path)?;
        file.sync_all()?;
        File::open(path.parent().context("no folder")?)?.sync_all()?;
        let (appends, queue) = mpsc::channel(UNIT_QUEUE_MAX);
        Ok((Self(appends), std::thread::spawn(move || work(&file, room, queue))))
    }

    async fn append(&self, data: Vec<u8>) -> Result<oneshot::Receiver<io::Result<()>>> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Append { data, answer }).await.ok().context("the worker is gone")?;
        Ok(answered)
    }
}

fn work(file: &File, room: Room, mut queue: mpsc::Receiver<Append>) {
    let (mut end, mut filled) = (0, 0);
    while let Some(first) = queue.blocking_recv() {
        let mut len = first.data.len();
        let mut group = vec![first];
        while len < GROUP_LEN_MAX
            && let Ok(next) = queue.try_recv()
        {
            len += next.data.len();
            group.push(next);
        }
        let written = write(file, &group, len, room, &mut end, &mut filled);
        for append in group {
            // Nobody may wait for it.
            let _ = append.answer.send(written.as_ref().copied().map_err(|error| error.kind().into()));
        }
    }
}

fn write(
    file: &File,
    group: &[Append],
    len: usize,
    room: Room,
    end: &mut u64,
    filled: &mut u64,
) -> io::Result<()> {
    for Append { data, .. } in group {
        file.write_all_at(data, *end)?;
        *end += data.len() as u64;
        *filled = (*filled).max(*end);
        if room == Room::Filled && *end == *filled && len < FILL_BELOW_LEN {
            let zeros = vec![0; usize::try_from(FILL_LEN).unwrap_or(0)];
            file.write_all_at(&zeros, *end)?;
            *filled += zeros.len() as u64;
        }
    }
    file.sync_data()
}
