//! Being a good guest on machine and network: how much transfers may use, and when.
//!
//! ```text
//!   [guest] of the configuration ─┐
//!   limit, pause (by hand) ───────┤
//!   NetworkManager: metered? ─────┼─▶ decide ─▶ Verdict ─▶ two limiters ─▶ pulls, served streams
//!   battery ──────────────────────┤                   └──▶ status; offers: `Later`
//!   local time ───────────────────┘
//! ```
//!
//! Deciding is [`mod@decide`]'s, a value; who has the next turn is `lighter_transport::limiter`'s. Here is the loop around: it looks
//! again when anything tells of a change, and when the verdict says that time changes it. While transfers wait, offers are
//! answered `Later`, so that whoever holds them keeps them; when they may go again, whoever waits is asked for them
//! ([`Guest::there_is_room`]).

pub mod amounts;
pub mod battery;
pub mod by_hand;
pub mod decide;
pub mod follow;
pub mod metered;
pub mod schedule;
pub mod view;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::tz::TimeZone;
use lighter_protocol::wire::{OfferedBlob, Request, Waiting};
use lighter_protocol::{DeliveryId, UnixTime};
use lighter_transport::limiter::{Class, Hold, Limiter, Transfer};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::config::Paths;
use crate::failure::Failure;
use crate::limits::{GUEST_LOOK_INTERVAL, SMALL_DELIVERY_LEN};
use crate::offers;
use crate::shared::Handle;
use battery::Battery;
use by_hand::{ByHand, Wish};
use decide::{Around, GuestConfig, Verdict, decide};
use metered::Metered;
use view::GuestView;

/// What holds for this agent's transfers.
#[derive(Debug)]
pub struct Guest {
    /// Gives turns to what comes.
    pub down: Limiter,
    /// Gives turns to what goes.
    pub up: Limiter,
    verdict: watch::Sender<Verdict>,
    /// Counts the times that there was room again.
    room: watch::Sender<u64>,
    said: Mutex<Said>,
    metered: watch::Sender<Option<Metered>>,
    /// Where what is set by hand is kept.
    file: Option<PathBuf>,
}

#[derive(Debug)]
struct Said {
    config: GuestConfig,
    by_hand: ByHand,
    battery: Option<Battery>,
    /// Why the configuration as it is now is not used.
    problem: Option<String>,
}

impl Guest {
    /// As configured; what is set by hand is kept in `data`.
    pub fn new(config: GuestConfig, data: Option<&Path>) -> Self {
        let file = data.map(file_in);
        let by_hand = file.as_deref().map(ByHand::read).unwrap_or_default();
        let battery = battery::look(Path::new(battery::POWER_SUPPLIES));
        let guest = Self {
            down: Limiter::new(),
            up: Limiter::new(),
            verdict: watch::Sender::default(),
            room: watch::Sender::default(),
            said: Mutex::new(Said { config, by_hand, battery, problem: None }),
            metered: watch::Sender::default(),
            file,
        };
        guest.look();
        guest
    }

    /// What was decided, and what will be.
    pub fn verdict(&self) -> watch::Receiver<Verdict> {
        self.verdict.subscribe()
    }

    /// The same, for who looks on.
    pub fn view(&self) -> GuestView {
        GuestView::of(&self.verdict.borrow(), UnixTime::now(), &TimeZone::system())
    }

    /// Whether transfers that nobody waits for wait.
    pub fn is_held(&self) -> bool {
        self.verdict.borrow().hold != Hold::Nothing
    }

    /// Counts the times that there was room again for what waits.
    pub fn room(&self) -> watch::Receiver<u64> {
        self.room.subscribe()
    }

    /// There is room again, or may be: who was told `Later` is asked.
    pub fn there_is_room(&self) {
        self.room.send_modify(|times| *times += 1);
    }

    /// What is wrong with the configuration as it is now.
    pub fn problem(&self) -> Option<String> {
        self.said().problem.clone()
    }

    /// The configuration is another one, or cannot be used.
    pub fn configure(&self, config: Result<GuestConfig, String>) {
        {
            let mut said = self.said();
            match config {
                Ok(config) => (said.config, said.problem) = (config, None),
                Err(problem) => said.problem = Some(problem),
            }
        }
        self.look();
    }

    /// What the user says by hand; kept before it holds.
    ///
    /// # Errors
    /// Where it cannot be kept.
    pub fn say(&self, wish: Wish) -> Result<GuestView, Failure> {
        if wish != Wish::Show {
            let mut said = self.said();
            let mut by_hand = said.by_hand.at(UnixTime::now());
            by_hand.say(wish);
            if let Some(file) = &self.file {
                by_hand.write(file).map_err(|error| Failure::failed(error).when(file.display()))?;
            }
            said.by_hand = by_hand;
        }
        self.look();
        Ok(self.view())
    }

    /// Decides anew. Gives how long that holds.
    fn look(&self) -> Duration {
        let now = UnixTime::now();
        let verdict = {
            let said = self.said();
            let around = Around { metered: self.metered.borrow().clone(), battery: said.battery };
            decide(&said.config, &said.by_hand, &around, now, &TimeZone::system())
        };
        // A change of clock or time zone is seen in time.
        let next = verdict.next.map_or(GUEST_LOOK_INTERVAL, |next| next.since(now).min(GUEST_LOOK_INTERVAL));
        self.down.allow_if_other(verdict.down());
        self.up.allow_if_other(verdict.up());
        let mut was_let_go = false;
        self.verdict.send_if_modified(|before| {
            if *before == verdict {
                return false;
            }
            was_let_go = verdict.hold < before.hold;
            *before = verdict;
            true
        });
        if was_let_go {
            self.there_is_room();
        }
        next
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file_in(data: &Path) -> PathBuf {
    data.join("guest.json")
}

/// What the user says by hand where no agent runs: it holds for the next one.
///
/// # Errors
/// Where it cannot be kept.
pub fn say_alone(config: &GuestConfig, paths: &Paths, wish: Wish) -> Result<GuestView, Failure> {
    Guest::new(config.clone(), Some(&paths.data)).say(wish)
}

/// A delivery's transfer of one of its parts.
pub fn transfer(delivery: DeliveryId, is_manifest: bool, parts: &[OfferedBlob]) -> Transfer {
    let len = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.size));
    let class = match is_manifest {
        true => Class::First,
        false if len <= SMALL_DELIVERY_LEN => Class::Small,
        false => Class::Bulk,
    };
    Transfer { id: u128::from_be_bytes(delivery.0), class }
}

/// Something that somebody waits for.
pub fn asked(delivery: DeliveryId) -> Transfer {
    Transfer { id: u128::from_be_bytes(delivery.0), class: Class::Asked }
}

/// Looks again and again, and asks for what waits when it may come, until the agent stops.
pub async fn run(shared: Handle) {
    let following = metered::follow(shared.guest.metered.clone());
    tokio::join!(following, look_on(&shared), ask_again(&shared));
}

async fn look_on(shared: &Handle) {
    let guest = &shared.guest;
    let mut metered = guest.metered.subscribe();
    let mut wakes = shared.wakes.subscribe();
    let mut before = guest.verdict.borrow().clone();
    loop {
        let battery = tokio::task::spawn_blocking(|| battery::look(Path::new(battery::POWER_SUPPLIES))).await;
        guest.said().battery = battery.unwrap_or_default();
        let next = guest.look();
        let verdict = guest.verdict.borrow().clone();
        if (verdict.hold, &verdict.download, &verdict.upload)
            != (before.hold, &before.download, &before.upload)
        {
            let what = guest.view();
            let words = if what.is_nothing() { "no limits".to_owned() } else { what.lines().join("; ") };
            tracing::info!("transfers: {words}");
        }
        before = verdict;
        if shared.pulls.waits.wait_for_disk() {
            look_for_disk(shared).await;
        }
        tokio::select! {
            () = sleep(next) => {}
            _ = metered.changed() => {}
            _ = wakes.changed() => {}
        }
    }
}

/// What waits for the disk goes on when that has room: nothing tells of it.
async fn look_for_disk(shared: &Handle) {
    let left = shared.blocking(|store| store.disk_free()).await;
    let Ok(left) = left else { return };
    let left = left.saturating_sub(lighter_store::limits::DISK_RESERVE);
    if shared.pulls.waits.fits_disk(left) {
        shared.guest.there_is_room();
    }
}

/// Each time that there is room, senders that were told `Later` are asked for what they hold, and own offers are made again.
/// (Relays are asked by their sessions.)
async fn ask_again(shared: &Handle) {
    let mut room = shared.guest.room();
    while room.changed().await.is_ok() {
        offers::offer_again(shared);
        let Some(attested) = shared.attested() else { continue };
        for peer in shared.pulls.waits.holders() {
            let Some(connection) = shared.links.get(&peer).filter(|_| !shared.is_own_relay(&peer)) else {
                continue;
            };
            let waiting = Request::Waiting(Waiting { attestation: attested.signed.clone() });
            tokio::spawn(async move {
                if let Err(error) = connection.request(&waiting).await {
                    tracing::debug!(%peer, %error, "a sender was not asked again");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests;
