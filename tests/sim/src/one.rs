//! One seed: its world is run in this thread, and anything that panics in it, in whatever task, is its failure.

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use clap::ValueEnum;
use lighter_storage::sim::{Limits, run_within, steps};
use serde::Serialize;

use crate::trace::Trace;
use crate::{queue, storage};

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum World {
    /// A relay's array over storage servers.
    Storage,
    /// A relay's catalog, hand-overs and deliveries over its array.
    Queue,
}

/// Which run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed {
    pub(crate) world: World,
    pub(crate) number: u64,
}

/// Several times what the longest story needs. A story that needs more goes round in circles, or waits for ever.
const LIMITS: Limits = Limits { steps: 3_000_000, time: Duration::from_secs(20 * 86_400) };

impl Seed {
    /// The run of `number` in `world`, or in the one that it picks.
    pub(crate) fn new(world: Option<World>, number: u64) -> Self {
        let picked = if number % 5 == 4 { World::Queue } else { World::Storage };
        Self { world: world.unwrap_or(picked), number }
    }

    /// Runs it; says what went wrong, if something did.
    pub(crate) fn run(self) -> Result<(), String> {
        PANICS.take();
        let ran = catch_unwind(AssertUnwindSafe(|| {
            run_within(LIMITS, async {
                match self.world {
                    World::Storage => storage::run(self.number).await,
                    World::Queue => {
                        let queue::Counts { sent, acknowledged, refused, again, shared } =
                            queue::run(self.number).await;
                        tracing::info!(sent, acknowledged, refused, again, shared, "the end");
                    }
                }
            })
        }));
        // Also of tasks, whose panics end nothing but themselves.
        let panics = PANICS.take();
        match ran {
            _ if !panics.is_empty() => Err(panics.join("\n")),
            Ok(ran) => ran.map_err(|stuck| stuck.to_string()),
            Err(_) => Err("a panic that left no word".into()),
        }
    }

    /// As [`Seed::run`], with every step of it to `trace`.
    pub(crate) fn run_traced(self, trace: &Trace) -> Result<(), String> {
        trace.record(|| {
            let ran = self.run();
            tracing::info!(steps = steps(), error = ran.as_ref().err(), "ended");
            ran
        })
    }

    /// The command that shows it again.
    pub(crate) fn replay(self) -> String {
        format!("cargo sim --world {} --seed {} --trace", self.world, self.number)
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Storage => "storage",
            Self::Queue => "queue",
        })
    }
}

thread_local! {
    /// What panicked in this thread, with its place.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// From now on, panics are taken down instead of printed. Once for the process.
pub(crate) fn watch_panics() {
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, "panic");
        PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
    }));
}
