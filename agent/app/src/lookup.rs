//! `lookup`: what the location server says of a mailbox, and whether the store itself answers (SPEC A2 to A4).

use std::time::Duration;

use lighter_protocol::Mailbox;
use lighter_transport::location::{Presence, StoreRecord};
use tokio::time::timeout;

use crate::failure::Failure;
use crate::finding;
use crate::shared::Handle;
use crate::views::{LookedUp, Lookup};
use crate::ways;

/// How long a freshly started agent waits for its session with the location server.
const SESSION_TIME_MAX: Duration = Duration::from_secs(15);

/// Asks.
///
/// # Errors
/// Where the location server does not answer.
pub async fn ask(shared: &Handle, mailbox: Mailbox) -> Result<Lookup, Failure> {
    session(shared).await?;
    let Some(store) = finding::look_up_one(shared, shared.mailbox(), &mailbox).await? else {
        return Ok(Lookup { mailbox, store: None });
    };
    let store = looked_up(shared, &mailbox, store).await;
    Ok(Lookup { mailbox, store: Some(store) })
}

/// What is known of a store, and whether it answers.
pub(crate) async fn looked_up(shared: &Handle, mailbox: &Mailbox, store: StoreRecord) -> LookedUp {
    let reached = ways::reach(shared, shared.mailbox(), mailbox, &store).await;
    let (way, problem) = match reached {
        Ok(reached) => {
            reached.connection.close();
            (Some(reached.way), None)
        }
        Err(why) => (None, Some(why.to_string())),
    };
    let presence = match store.presence {
        Presence::Online => "online",
        Presence::Offline => "offline",
        Presence::Unknown => "unknown",
    };
    LookedUp {
        peer: store.peer,
        addresses: store.addresses,
        presence: presence.to_owned(),
        since: store.since,
        answers: way.is_some(),
        way,
        problem,
    }
}

/// The session with the location server, waited for a little.
///
/// # Errors
/// Where there is none in time.
pub async fn session(shared: &Handle) -> Result<lighter_transport::location::Secret, Failure> {
    let mut membership = shared.membership.subscribe();
    let registered = membership.wait_for(|membership| membership.session.is_some());
    if let Ok(Ok(membership)) = timeout(SESSION_TIME_MAX, registered).await
        && let Some(session) = membership.session.clone()
    {
        return Ok(session);
    }
    let problem = shared.membership.borrow().problem.clone();
    Err(Failure::temporary(problem.unwrap_or_else(|| "the location server does not answer".to_owned())))
}
