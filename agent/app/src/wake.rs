//! Notices that the machine slept, or is on another network: everything that waits to try again then tries at once.

mod network;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lighter_protocol::UnixTime;
use tokio::time::sleep;

use crate::limits::{NETWORK_SETTLE, SLEPT_MIN, WATCH_INTERVAL};
use crate::registration;
use crate::shared::Handle;

/// Looks when the kernel tells of a change, and every few seconds, until the agent stops.
pub async fn run(shared: Handle) {
    let mut changes = network::Changes::listen()
        .inspect_err(|error| tracing::info!(%error, "changes of network are noticed by looking only"))
        .ok();
    let mut watch = Watch::begin(Instant::now(), UnixTime::now(), registration::local_addresses(&shared));
    loop {
        let changed = async {
            match &changes {
                Some(changes) => changes.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep(WATCH_INTERVAL) => {}
            told = changed => match told {
                Ok(()) => sleep(NETWORK_SETTLE).await,
                Err(error) => {
                    tracing::info!(%error, "changes of network are noticed by looking only");
                    changes = None;
                }
            },
        }
        if let Some(why) = watch.look(Instant::now(), UnixTime::now(), registration::local_addresses(&shared))
        {
            tracing::info!(?why, "connections are looked after at once");
            shared.location.forget_connections();
            shared.finder.network_changed();
            shared.wakes.send_modify(|count| *count += 1);
        }
    }
}

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The wall clock went on while the monotonic one stood still.
    Slept,
    /// Other addresses than before.
    Moved,
}

struct Watch {
    instant: Instant,
    wall: UnixTime,
    addresses: Vec<SocketAddr>,
}

impl Watch {
    fn begin(instant: Instant, wall: UnixTime, addresses: Vec<SocketAddr>) -> Self {
        Self { instant, wall, addresses }
    }

    fn look(&mut self, instant: Instant, wall: UnixTime, addresses: Vec<SocketAddr>) -> Option<Change> {
        let before = std::mem::replace(self, Self { instant, wall, addresses });
        let awake: Duration = instant.saturating_duration_since(before.instant);
        if wall.since(before.wall) > awake + SLEPT_MIN {
            return Some(Change::Slept);
        }
        (before.addresses != self.addresses).then_some(Change::Moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_and_a_new_network_are_noticed_and_nothing_else() {
        let (start, wall) = (Instant::now(), UnixTime(1_800_000_000));
        let home = vec![SocketAddr::from(([192, 168, 1, 2], 7443))];
        let mut watch = Watch::begin(start, wall, home.clone());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(watch.look(after(5), UnixTime(wall.0 + 5), home.clone()), None);
        assert_eq!(watch.look(after(10), UnixTime(wall.0 + 3_600), home.clone()), Some(Change::Slept));
        assert_eq!(watch.look(after(15), UnixTime(wall.0 + 3_605), Vec::new()), Some(Change::Moved));
        assert_eq!(watch.look(after(20), UnixTime(wall.0 + 3_610), home.clone()), Some(Change::Moved));
        // A clock that was set back is no sleep.
        assert_eq!(watch.look(after(25), wall, home), None);
    }
}
