//! Calls by which a store's user chooses who learns of it.

use lighter_protocol::time::Now;
use lighter_transport::location::api::{Acceptance, AcceptanceChange};
use lighter_transport::location::limits::ACCEPTANCE_NAMES_MAX;

use super::Location;
use crate::error::CallError;
use crate::lock::read;
use crate::policy::Choice;
use crate::rows::TokenHash;

impl Location {
    /// What the session's mailbox has chosen.
    ///
    /// # Errors
    /// [`CallError::Unauthorised`].
    pub fn acceptance(&self, token: &TokenHash, now: Now) -> Result<Acceptance, CallError> {
        let session = self.session(token, now)?;
        let directory = read(&self.directory);
        Ok(directory.choice(&session.key.mailbox).map(Choice::to_acceptance).unwrap_or_default())
    }

    /// Changes it, durably.
    ///
    /// # Errors
    /// [`CallError::Full`] where something would be said of too many people.
    pub async fn change_acceptance(
        &self,
        token: &TokenHash,
        change: AcceptanceChange,
        now: Now,
    ) -> Result<(), CallError> {
        if change.names() > ACCEPTANCE_NAMES_MAX {
            return Err(CallError::Malformed("at most 1000 mailboxes at once"));
        }
        let session = self.session(token, now)?;
        if let Some(sender) = change.sender.as_ref().filter(|sender| **sender != session.key.mailbox) {
            if let Some(store) = self.speaks_for_hosted(&session, sender, now) {
                let write = self.writer.write(move |directory, changes| {
                    directory.change_acceptance(store, &change, now.wall, changes)
                });
                return Ok(write.await?);
            }
            // What else a user chooses is said by the user's own stores.
            if change.names() != change.wrote_to.len() || change.policy.is_some() {
                return Err(CallError::Refused);
            }
            return self.wrote_to(&session, sender, change.wrote_to.clone(), now).await;
        }
        let store = session.store;
        let write = self
            .writer
            .write(move |directory, changes| directory.change_acceptance(store, &change, now.wall, changes));
        Ok(write.await?)
    }
}
