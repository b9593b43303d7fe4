//! For whom an agent speaks besides its own mailbox: that of an outgoing mail server for all users of its domains (SPEC A26).
//!
//! At the own location server naming the user is enough: it knows who may. Others are shown its word for that, which is asked
//! for when it is needed, and kept until half of its time is over, or the session that it was got with.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use lighter_protocol::{Mailbox, Signed, UnixTime};
use lighter_transport::location::foreign::Speaker;
use lighter_transport::location::{LocationError, Secret};

use super::AskError;
use crate::shared::Handle;

/// The statements that are good now, by domain: no more than domains that the configuration names.
#[derive(Debug, Default)]
pub struct Speakers(Mutex<HashMap<String, Kept>>);

#[derive(Debug)]
struct Kept {
    speaker: Signed<Speaker>,
    session: Secret,
    renew: UnixTime,
}

/// For whom it is asked where that is not the own mailbox.
pub(super) fn on_behalf_of<'a>(shared: &Handle, sender: &'a Mailbox) -> Option<&'a Mailbox> {
    let is_other = sender != shared.mailbox();
    (is_other && shared.config.speaks_for(sender)).then_some(sender)
}

/// The own location server's word that this agent speaks for the users of `domain`.
pub(super) async fn of(shared: &Handle, domain: &str) -> Result<Signed<Speaker>, AskError> {
    let session = shared.session().ok_or(AskError::NoSession)?;
    let now = UnixTime::now();
    let kept = |kept: &&Kept| kept.session == session && now < kept.renew;
    if let Some(kept) = lock(&shared.speakers).get(domain).filter(kept) {
        return Ok(kept.speaker.clone());
    }
    let speaker = shared.location.speaker(&session, domain).await?;
    let claim = speaker.claim().map_err(|_| LocationError::Malformed)?;
    let renew = now.plus(claim.expires.since(now) / 2);
    let kept = Kept { speaker: speaker.clone(), session, renew };
    lock(&shared.speakers).insert(domain.to_owned(), kept);
    Ok(speaker)
}

fn lock(speakers: &Speakers) -> std::sync::MutexGuard<'_, HashMap<String, Kept>> {
    speakers.0.lock().unwrap_or_else(PoisonError::into_inner)
}
