//! `accept`, `block`, `forget`, `policy`: who learns of this mailbox's stores, and may offer to them (DESIGN §4). The choice
//! is kept at the location server, which answers for it. Whom the user writes to is accepted by that.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lighter_protocol::Mailbox;
use lighter_transport::location::api::{Acceptance, AcceptanceChange, AcceptancePolicy, Standing};
use lighter_transport::location::limits::ACCEPTANCE_NAMES_MAX;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::limits::WRITTEN_TO_MAX;
use crate::lookup;
use crate::shared::Handle;

/// Who wrote to whom since this agent started, as far as the location server was told: it is told once of each pair.
#[derive(Debug, Default)]
pub struct WrittenTo(Mutex<HashSet<(Mailbox, Mailbox)>>);

impl WrittenTo {
    fn lock(&self) -> MutexGuard<'_, HashSet<(Mailbox, Mailbox)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the user has chosen, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AcceptanceView(pub Acceptance);

/// Changes what the user has chosen (nothing, where `change` says nothing), and gives all of it.
///
/// # Errors
/// Where the location server does not answer, or something would be said of too many people.
pub async fn change(shared: &Handle, change: AcceptanceChange) -> Result<AcceptanceView, Failure> {
    let session = lookup::session(shared).await?;
    let other = change.sender.clone().filter(|mailbox| mailbox != shared.mailbox());
    if change != (AcceptanceChange { sender: change.sender.clone(), ..AcceptanceChange::default() }) {
        shared.location.change_acceptance(&session, &change).await?;
        // Of whom nothing is said any more may be written to again.
        let mut told = shared.written_to.lock();
        for mailbox in change.forget.iter().chain(&change.block) {
            told.remove(&(shared.mailbox().clone(), mailbox.clone()));
        }
    }
    let chosen = match &other {
        Some(mailbox) => shared.location.acceptance_of(&session, mailbox).await?,
        None => shared.location.acceptance(&session).await?,
    };
    Ok(AcceptanceView(chosen))
}

/// `sender`, who is the user or somebody this agent speaks for, writes to `recipients`: those of other domains may answer with attachments from now on. Where the location
/// server cannot be told, the next message to them does it.
pub async fn wrote_to(shared: &Handle, sender: &Mailbox, recipients: &[Mailbox]) {
    let pair = |mailbox: &Mailbox| (sender.clone(), mailbox.clone());
    let own = sender.domain();
    let new: Vec<Mailbox> = {
        let told = shared.written_to.lock();
        let is_new = |mailbox: &&Mailbox| mailbox.domain() != own && !told.contains(&pair(mailbox));
        recipients.iter().filter(is_new).take(ACCEPTANCE_NAMES_MAX).cloned().collect()
    };
    let Some(session) = shared.session().filter(|_| !new.is_empty()) else { return };
    let other = (sender != shared.mailbox()).then(|| sender.clone());
    let change = AcceptanceChange { wrote_to: new, sender: other, ..AcceptanceChange::default() };
    match shared.location.change_acceptance(&session, &change).await {
        Ok(()) => {
            let mut told = shared.written_to.lock();
            if told.len() + change.wrote_to.len() > WRITTEN_TO_MAX {
                told.clear();
            }
            told.extend(change.wrote_to.iter().map(pair));
        }
        Err(error) => tracing::warn!(%error, "the location server was not told whom the user writes to"),
    }
}

impl fmt::Display for AcceptanceView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Acceptance { policy, correspondents } = &self.0;
        let who = match policy {
            AcceptancePolicy::Open => "everybody whose own domain vouches for them",
            AcceptancePolicy::Known => "your own domain, whom you accepted, and whom you wrote to",
            AcceptancePolicy::Closed => "nobody: attachments come by mail",
        };
        writeln!(f, "policy     {policy}: {who}")?;
        for correspondent in correspondents {
            let standing = match correspondent.standing {
                Standing::Accepted => "accepted",
                Standing::WrittenTo => "written to",
                Standing::Blocked => "blocked",
            };
            writeln!(f, "{standing:10} {}", correspondent.mailbox)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use lighter_protocol::UnixTime;
    use lighter_transport::location::api::Correspondent;

    use super::*;

    #[test]
    fn a_choice_is_shown_in_words() {
        let correspondent = |text: &str, standing| Correspondent {
            mailbox: text.parse().unwrap(),
            standing,
            since: UnixTime(1),
        };
        let view = AcceptanceView(Acceptance {
            policy: AcceptancePolicy::Known,
            correspondents: vec![
                correspondent("a@a.example", Standing::WrittenTo),
                correspondent("b@b.example", Standing::Blocked),
            ],
        });
        let lines: Vec<_> = view.to_string().lines().map(str::to_owned).collect();
        assert!(lines[0].starts_with("policy     known: your own domain"), "{lines:?}");
        assert_eq!(lines[1..], ["written to a@a.example", "blocked    b@b.example"]);
    }
}
