//! The watched outbox: a folder for each recipient; what is completely written there is sent, once, and moved to `sent`
//! with a note that says what became of it.
//!
//! ```text
//!   watch ──▶ (look now) ──▶ keeper ── scan ─▶ decide ─▶ one step, on disk ─┐
//!                              ▲  ▲                                        │ … until nothing is to be done
//!                              │  └────────────────────────────────────────┘
//!                              │ ended                what is to be sent
//!                            sender ◀──────────────────────┘   each by `send`, with the record's identity
//! ```
//!
//! **Once**: the record (`record`) is durable before anything leaves, and everything that others could see twice comes
//! from it: the Message-ID, the date, each recipient's delivery. A crash at any point leads to the same message again, and
//! only for recipients of whom it is not on record that they have it. The bytes are those of the record: `send` reads the
//! files' sizes and times when it opens and when it has read them, and sends nothing of a file that is another one.
//!
//! **Idle**: nothing but a sweep a minute, which lists the folders.

pub mod decide;
pub mod keeper;
mod message;
mod names;
pub(crate) mod notes;
mod receipts;
pub mod record;
mod scan;
mod sender;
pub mod status;
mod watch;
mod writers;

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lighter_protocol::UnixTime;
use notify::RecommendedWatcher;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::address_books;
use crate::address_books::recipients::{Recipient, Strictness, resolve};
use crate::config::{Config, Paths};
use crate::limits::{OUTBOX_GATHER, OUTBOX_SWEEP, OUTBOX_SWEEP_BLIND, RECIPIENTS_MAX};
use crate::shared::Handle;
use decide::Settle;
use keeper::{Keeper, Plan, Resolve};
use record::{Ledger, RecordId};
use watch::Hints;

/// Which outbox it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbox {
    /// The agent's folders: where its address books are.
    pub paths: Paths,
    /// The folder that the user knows.
    pub folder: PathBuf,
    /// Where the records are.
    pub records: PathBuf,
    /// How long a file stays as it is before it counts as complete.
    pub settle: Duration,
    /// The same for a folder that is one message.
    pub settle_folder: Duration,
}

/// Looks after the outbox until the agent stops.
pub async fn run(shared: Handle, outbox: Outbox) {
    let mut wait = OUTBOX_SWEEP_BLIND;
    let (ledger, root) = loop {
        let opening = outbox.clone();
        let opened = tokio::task::spawn_blocking(move || open(&opening)).await;
        match opened.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(opened) => break opened,
            Err(error) => {
                tracing::warn!(folder = %outbox.folder.display(), %error, "the outbox cannot be used");
                shared.outbox.send_replace(Some(status::OutboxStatus {
                    folder: outbox.folder.clone(),
                    problem: Some(format!("the outbox cannot be used: {error}")),
                    ..status::OutboxStatus::default()
                }));
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(OUTBOX_SWEEP);
    };
    let settle = Settle { file: outbox.settle, folder: outbox.settle_folder };
    let keeper = Keeper::new(
        root.clone(),
        ledger.clone(),
        settle,
        resolver(shared.config.clone(), outbox.paths.clone()),
    );
    let hints = Arc::new(Hints::default());
    let eyes = Eyes { root: root.clone(), hints: hints.clone(), watching: None };
    Runner { shared, root, ledger, keeper: Some((keeper, eyes)), hints, sending: JoinSet::new() }.run().await;
}

/// Who gets what is in a folder of this name: as `send --to` understands it, a mailbox or a group.
fn resolver(config: Config, paths: Paths) -> Resolve {
    Arc::new(move |name| {
        let said = |why: &dyn std::fmt::Display| {
            format!(
                "Its name is no mailbox, such as bob@example.org, and no group that can be sent to: {why}. What is in it \
                 is not sent."
            )
        };
        let recipient: Recipient = name.parse().map_err(|error| said(&error))?;
        let books = match &recipient {
            Recipient::Mailbox(mailbox) => return Ok(vec![mailbox.clone()]),
            Recipient::Group(_) => address_books::read(&config, &paths),
        };
        let members =
            resolve(&books, &[recipient], &[], Strictness::Strict).map_err(|error| said(&error))?.to;
        if members.len() > RECIPIENTS_MAX {
            return Err(said(&format!("it has {} members, more than {RECIPIENTS_MAX}", members.len())));
        }
        Ok(members)
    })
}

/// Makes the folders, and reads what is on record.
fn open(outbox: &Outbox) -> io::Result<(Arc<Ledger>, PathBuf)> {
    let ledger = Ledger::open(&outbox.records)?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&outbox.folder)?;
    Ok((Arc::new(ledger), outbox.folder.canonicalize()?))
}

/// The watcher, and which folder it watches: one that was replaced is watched anew.
struct Eyes {
    root: PathBuf,
    hints: Arc<Hints>,
    watching: Option<((u64, u64), RecommendedWatcher)>,
}

impl Eyes {
    /// Watches, if that is possible; else says so once, and the sweeps are all there is.
    fn open(&mut self) {
        let identity = std::fs::metadata(&self.root).ok().map(|found| (found.dev(), found.ino()));
        if self.watching.as_ref().map(|(watched, _)| *watched) == identity {
            return;
        }
        self.watching = None;
        let Some(identity) = identity else { return };
        match watch::watch(self.root.clone(), self.hints.clone()) {
            Ok(watcher) => self.watching = Some((identity, watcher)),
            Err(error) => {
                tracing::warn!(%error, "the system does not tell of changes in the outbox: it is looked at often");
            }
        }
    }

    fn sweep(&self) -> Duration {
        if self.watching.is_some() { OUTBOX_SWEEP } else { OUTBOX_SWEEP_BLIND }
    }
}

/// The loop around the keeper.
struct Runner {
    shared: Handle,
    root: PathBuf,
    ledger: Arc<Ledger>,
    /// Away while they look.
    keeper: Option<(Keeper, Eyes)>,
    hints: Arc<Hints>,
    sending: JoinSet<(RecordId, Option<String>)>,
}

impl Runner {
    async fn run(mut self) {
        let mut wakes = self.shared.wakes.subscribe();
        let mut sweep_at = Instant::now();
        loop {
            let now = Instant::now();
            let is_sweep = now >= sweep_at;
            if is_sweep {
                receipts::note(&self.shared, &self.ledger, &self.root).await;
            }
            let Some((plan, sweep)) = self.look(is_sweep).await else { return };
            if is_sweep {
                sweep_at = now + sweep;
            }
            let look_at = plan.look_at.map_or(sweep_at, |at| at.min(sweep_at));
            self.shared.outbox.send_replace(Some(plan.status));
            for record in plan.send {
                let (shared, ledger, root) = (self.shared.clone(), self.ledger.clone(), self.root.clone());
                self.sending.spawn(async move {
                    let id = record.id;
                    (id, sender::send(&shared, &ledger, &root, record).await)
                });
            }
            tokio::select! {
                () = sleep_until(look_at.into()) => {}
                () = self.hints.wake.notified() => sleep(OUTBOX_GATHER).await,
                Some(ended) = self.sending.join_next(), if !self.sending.is_empty() => {
                    // A sending that panicked stays one that is sent: the next start tries it again.
                    if let (Ok((id, retry)), Some((keeper, _))) = (ended, &mut self.keeper) {
                        keeper.ended(id, retry, Instant::now());
                    }
                }
                Ok(()) = wakes.changed() => if let Some((keeper, _)) = &mut self.keeper {
                    keeper.retry_now(Instant::now());
                },
            }
        }
    }

    /// One look, on a thread that may block, and how long until the next sweep; none when the runtime ends.
    async fn look(&mut self, is_sweep: bool) -> Option<(Plan, Duration)> {
        let (mut keeper, mut eyes) = self.keeper.take()?;
        let placed: HashSet<_> = self.hints.take_placed();
        let looked = tokio::task::spawn_blocking(move || {
            // In this order: what is put there between watching and looking is seen by one of them.
            if is_sweep {
                eyes.open();
            }
            let plan = keeper.look(&placed, Instant::now(), UnixTime::now());
            (keeper, eyes, plan)
        });
        let (keeper, eyes, plan) = looked.await.ok()?;
        let sweep = eyes.sweep();
        self.keeper = Some((keeper, eyes));
        Some((plan, sweep))
    }
}

/// Where the outbox is when nobody says so: where its user finds it, unless the agent has a data folder of its own.
pub fn default_folder(data: &Path, usual_data: Option<&Path>, home: Option<&Path>) -> PathBuf {
    match home {
        Some(home) if usual_data == Some(data) => home.join("Lighter Outbox"),
        _ => data.join("outbox"),
    }
}
