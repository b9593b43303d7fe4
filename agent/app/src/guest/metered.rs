//! Whether the network costs by the byte, as NetworkManager tells on the system bus: its property `Metered`, and its signal
//! when that changes. Where there is no such bus, or no NetworkManager on it, the network is not metered.

use std::pin::{Pin, pin};

use tokio::sync::watch;
use tokio::time::sleep;
use zbus::export::futures_core::Stream;
use zbus::zvariant::OwnedObjectPath;
use zbus::{Connection, Proxy};

use crate::limits::{BUS_RETRY, NETWORK_NAME_LEN_MAX};
use crate::views::harmless;

/// `NM_METERED_YES` and `NM_METERED_GUESS_YES` of NetworkManager's D-Bus interface.
const METERED: [u32; 2] = [1, 3];
const NAME: &str = "org.freedesktop.NetworkManager";
const PATH: &str = "/org/freedesktop/NetworkManager";

/// A network that costs by the byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metered {
    /// What the user calls it, where that is known.
    pub name: Option<String>,
}

/// Tells of each change, for as long as it runs.
pub async fn follow(told: watch::Sender<Option<Metered>>) {
    loop {
        if let Err(error) = follow_bus(&told).await {
            tracing::debug!(%error, "the system bus does not tell whether the network is metered");
        }
        tell(&told, None);
        sleep(BUS_RETRY).await;
    }
}

/// Follows it for as long as the bus is there. The address is the usual one, or `DBUS_SYSTEM_BUS_ADDRESS`.
async fn follow_bus(told: &watch::Sender<Option<Metered>>) -> zbus::Result<()> {
    let bus = Connection::system().await?;
    let manager = Proxy::new(&bus, NAME, PATH, NAME).await?;
    let mut owners = pin!(manager.receive_owner_changed().await?);
    let mut metered = pin!(manager.receive_property_changed::<u32>("Metered").await);
    let mut primary = pin!(manager.receive_property_changed::<OwnedObjectPath>("PrimaryConnection").await);
    let mut is_there = true;
    loop {
        let now = if is_there { look(&bus, &manager).await } else { None };
        tell(told, now);
        let changed = tokio::select! {
            owner = next(owners.as_mut()) => owner.map(|owner| is_there = owner.is_some()),
            changed = next(metered.as_mut()) => changed.map(drop),
            changed = next(primary.as_mut()) => changed.map(drop),
        };
        if changed.is_none() {
            return Ok(());
        }
    }
}

fn tell(told: &watch::Sender<Option<Metered>>, now: Option<Metered>) {
    told.send_if_modified(|before| {
        let is_new = *before != now;
        *before = now;
        is_new
    });
}

async fn look(bus: &Connection, manager: &Proxy<'_>) -> Option<Metered> {
    let metered = manager.get_property::<u32>("Metered").await.ok()?;
    if !METERED.contains(&metered) {
        return None;
    }
    let name = name(bus, manager).await.ok();
    let name =
        name.map(|name| harmless(&name).chars().filter(|c| *c != '\n').take(NETWORK_NAME_LEN_MAX).collect());
    Some(Metered { name: name.filter(|name: &String| !name.is_empty()) })
}

async fn name(bus: &Connection, manager: &Proxy<'_>) -> zbus::Result<String> {
    let path = manager.get_property::<OwnedObjectPath>("PrimaryConnection").await?;
    let active = Proxy::new(bus, NAME, path, "org.freedesktop.NetworkManager.Connection.Active").await?;
    active.get_property("Id").await
}

async fn next<S: Stream>(mut stream: Pin<&mut S>) -> Option<S::Item> {
    std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await
}
