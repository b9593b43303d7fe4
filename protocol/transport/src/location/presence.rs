//! The presence stream as a client sees it: pages of a snapshot, then changes, and again after every break.

use std::mem::Discriminant;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use rand::RngExt;
use tokio::time::Instant;

use super::api::{
    EVENT_AGAIN, EVENT_CHANGE, EVENT_REVOKED, EVENT_SNAPSHOT, Revocation, Revocations, Secret, SnapshotPage,
    StorePresence,
};
use super::client::LocationClient;
use super::error::LocationError;
use super::limits::{RECONNECT_MAX, RECONNECT_MIN, STREAM_SILENCE_MAX};
use super::sse::{SseEvent, SseParser};

/// What the presence stream tells.
#[derive(Debug)]
pub enum PresenceEvent {
    /// A page of the snapshot that every (re)opened stream begins with: stores that are online. Those not named in any
    /// page up to the one that is `last` are not known to be online.
    Snapshot(SnapshotPage),
    /// A store's presence changed.
    Change(StorePresence),
    /// These keys are no stores any more, whatever was attested for them before. Every (re)opened stream says all that may
    /// still matter, before its snapshot.
    Revoked(Vec<Revocation>),
    /// The stream broke, or could not be opened: nothing is known until the next snapshot. Told once for each outage
    /// and kind of error; the stream is opened again, with growing waits.
    Lost(LocationError),
}

/// An endless stream of [`PresenceEvent`]s. Dropping it closes the connection.
#[derive(Debug)]
pub struct PresenceEvents {
    client: LocationClient,
    token: Secret,
    state: State,
    /// Next wait before a broken stream is opened again.
    reconnect_delay: Duration,
    /// The kind of error that was told last, while the stream has not worked since.
    told: Option<Discriminant<LocationError>>,
}

#[derive(Debug)]
enum State {
    Closed { open_at: Instant },
    Open { body: Incoming, parser: SseParser },
}

impl PresenceEvents {
    pub(super) fn new(client: LocationClient, token: Secret) -> Self {
        let state = State::Closed { open_at: Instant::now() };
        Self { client, token, state, reconnect_delay: RECONNECT_MIN, told: None }
    }

    /// The next event. Waits as long as it takes; dropping the future loses nothing.
    pub async fn next(&mut self) -> PresenceEvent {
        loop {
            match self.step().await {
                Ok(Some(event)) => return event,
                Ok(None) => {}
                Err(error) => {
                    if let Some(lost) = self.broken(error) {
                        return lost;
                    }
                }
            }
        }
    }

    /// One event of the stream, or one step towards it.
    async fn step(&mut self) -> Result<Option<PresenceEvent>, LocationError> {
        match &mut self.state {
            State::Closed { open_at } => {
                tokio::time::sleep_until(*open_at).await;
                let body = self.client.open_presence(&self.token).await?;
                self.state = State::Open { body, parser: SseParser::default() };
                Ok(None)
            }
            State::Open { body, parser } => {
                if let Some(event) = parser.next_event() {
                    return self.understand(&event);
                }
                let frame = tokio::time::timeout(STREAM_SILENCE_MAX, body.frame())
                    .await
                    .map_err(LocationError::unreachable)?
                    .ok_or_else(|| LocationError::unreachable("the stream ended"))?
                    .map_err(LocationError::unreachable)?;
                if let Some(bytes) = frame.data_ref() {
                    parser.feed(bytes).map_err(|_| LocationError::Malformed)?;
                }
                Ok(None)
            }
        }
    }

    fn understand(&mut self, event: &SseEvent) -> Result<Option<PresenceEvent>, LocationError> {
        match event.name.as_str() {
            EVENT_SNAPSHOT => {
                let page: SnapshotPage =
                    serde_json::from_str(&event.data).map_err(|_| LocationError::Malformed)?;
                if page.last {
                    self.reconnect_delay = RECONNECT_MIN;
                    self.told = None;
                }
                Ok(Some(PresenceEvent::Snapshot(page)))
            }
            EVENT_CHANGE => serde_json::from_str(&event.data)
                .map(|change| Some(PresenceEvent::Change(change)))
                .map_err(|_| LocationError::Malformed),
            EVENT_REVOKED => serde_json::from_str(&event.data)
                .map(|Revocations { revoked }| Some(PresenceEvent::Revoked(revoked)))
                .map_err(|_| LocationError::Malformed),
            EVENT_AGAIN => Err(LocationError::unreachable("the server asks to come again")),
            // A later version may tell more.
            _ => Ok(None),
        }
    }

    /// Plans the next opening; the event to give, unless it was told already.
    fn broken(&mut self, error: LocationError) -> Option<PresenceEvent> {
        let delay = match &error {
            LocationError::TooMany { retry_after } => (*retry_after).min(RECONNECT_MAX),
            _ => self.reconnect_delay,
        };
        self.reconnect_delay = (self.reconnect_delay * 2).min(RECONNECT_MAX);
        // Many relays lose one server at the same moment: full jitter over the upper half.
        let jittered = delay.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.state = State::Closed { open_at: Instant::now() + jittered };
        let kind = std::mem::discriminant(&error);
        if self.told == Some(kind) {
            tracing::debug!(%error, "presence stream still cannot be opened");
            return None;
        }
        self.told = Some(kind);
        Some(PresenceEvent::Lost(error))
    }
}
