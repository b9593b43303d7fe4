//! Who comes online, and whose key is none any more: the location server's stream, as events for the queue (SPEC D5).

use std::sync::Arc;

use lighter_protocol::UnixTime;
use lighter_transport::location::PresenceEvent;

use super::driver::Event;
use super::{Shared, probe};

/// Watches the stream until the relay stops. It opens itself again whenever it breaks.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut events = shared.parts.location.presence(&shared.parts.token);
    loop {
        let event = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            // The pages name all that are online, most of whom nothing waits for: the queue asks the other way round,
            // about those for whom something does, once the stream stands.
            PresenceEvent::Snapshot(page) if page.last => {
                shared.tell(Event::PresenceStream { live: true }).await;
            }
            PresenceEvent::Snapshot(_) => {}
            PresenceEvent::Change(change) => {
                let (mailbox, presence) = (change.mailbox, probe::said(change.presence));
                shared.tell(Event::Presence { mailbox, presence }).await;
            }
            PresenceEvent::Revoked(all) => {
                for revoked in &all {
                    shared.revocations.note(revoked, UnixTime::now());
                    for peer in shared.meetings.all(&revoked.peer) {
                        peer.revoke(&revoked.mailbox, revoked.at).await;
                    }
                }
            }
            PresenceEvent::Lost(error) => {
                tracing::warn!(%error, "presence is not told: stores that something waits for are pinged instead");
                shared.tell(Event::PresenceStream { live: false }).await;
            }
        }
    }
}
