//! The key that the domain's attestations are signed with: given, or asked for and remembered for a while, since a
//! location server that was set up anew has another.

use std::future::Future;

use lighter_protocol::PeerId;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::limits::{LOCATION_KEY_COUNTS, LOCATION_KEY_RETRY};

/// The key, as far as it is known.
#[derive(Debug)]
pub(super) enum LocationKey {
    /// It stays: the location server is in this process.
    Given(PeerId),
    /// What the location server said, and until when it is not asked again.
    Asked(Mutex<Option<(PeerId, Instant)>>),
}

impl LocationKey {
    pub(super) fn new(given: Option<PeerId>) -> Self {
        given.map_or_else(|| Self::Asked(Mutex::default()), Self::Given)
    }

    /// The key; `ask` gives what the location server says now. While it says nothing, the key of before counts. None:
    /// nothing was ever heard.
    pub(super) async fn get(&self, ask: impl Future<Output = Option<PeerId>>) -> Option<PeerId> {
        let known = match self {
            Self::Given(key) => return Some(*key),
            Self::Asked(known) => known,
        };
        // Held while it is asked: however many want to know, it is asked once.
        let mut known = known.lock().await;
        match *known {
            Some((key, until)) if Instant::now() < until => return Some(key),
            _ => {}
        }
        let (key, counts) = match (ask.await, *known) {
            (Some(key), _) => (key, LOCATION_KEY_COUNTS),
            (None, Some((key, _))) => (key, LOCATION_KEY_RETRY),
            (None, None) => return None,
        };
        *known = Some((key, Instant::now() + counts));
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use lighter_transport::Identity;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_location_server_that_was_set_up_anew_is_believed_after_a_while_and_one_that_is_away_as_before()
    {
        let (old, new) = (Identity::generate().peer(), Identity::generate().peer());
        let key = LocationKey::new(None);
        assert_eq!(key.get(ready(None)).await, None);
        assert_eq!(key.get(ready(Some(old))).await, Some(old));
        assert_eq!(key.get(ready(Some(new))).await, Some(old), "not asked again so soon");
        tokio::time::advance(LOCATION_KEY_COUNTS).await;
        assert_eq!(key.get(ready(None)).await, Some(old), "away");
        tokio::time::advance(LOCATION_KEY_RETRY).await;
        assert_eq!(key.get(ready(Some(new))).await, Some(new));
    }

    #[tokio::test]
    async fn a_key_that_was_given_stays() {
        let (given, other) = (Identity::generate().peer(), Identity::generate().peer());
        assert_eq!(LocationKey::new(Some(given)).get(ready(Some(other))).await, Some(given));
    }
}
