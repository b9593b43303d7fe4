//! Whom to ask about a recipient: the own domain's location server, or that of the recipient's domain, which is found
//! (`lighter_transport::location::finding`) and shown this agent's attestation (DESIGN §4). It is asked for the one who sends,
//! where this agent speaks for them (`speakers`); else for the own mailbox.
//!
//! Whatever fails here, the message goes whole (DESIGN §3 rule 5).

mod speakers;

use std::collections::BTreeMap;

use lighter_protocol::{Introduction, Mailbox, Signed};
use lighter_transport::location::finding::{NotFound, Server};
use lighter_transport::location::foreign::Speaker;
use lighter_transport::location::limits::FOUND_FRESH_MIN;
use lighter_transport::location::{Asker, LocationError, SpeaksFor, StoreRecord};
use tokio::task::JoinSet;

use crate::shared::{Attested, Handle};
pub use speakers::Speakers;

/// Why a recipient could not be asked about.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// This agent is not registered, so it has nobody to ask.
    #[error("this agent is not registered with its location server now")]
    NoSession,
    /// It has nothing to show to another domain.
    #[error("this agent is not attested by its own domain now")]
    NotAttested,
    /// The recipient's domain.
    #[error("{domain}: {source}")]
    Finding {
        /// Which.
        domain: String,
        /// Why.
        source: NotFound,
    },
    /// The location server said no, or nothing.
    #[error("{0}")]
    Location(#[from] LocationError),
    /// The location server of another domain.
    #[error("the location server of {domain}: {source}")]
    Foreign {
        /// Which.
        domain: String,
        /// Why.
        source: LocationError,
    },
}

/// What is known of a recipient's store; none is the one answer for everybody whose store is not for this agent to know,
/// and for those whose domain has no location server.
pub type Looked = Result<Option<StoreRecord>, AskError>;

/// The stores of recipients, for who sends: each domain is asked on its own, all at once (SPEC A2, A10).
pub async fn look_up(
    shared: &Handle,
    sender: &Mailbox,
    recipients: &[Mailbox],
) -> Vec<(Mailbox, Result<Option<StoreRecord>, String>)> {
    let mut domains: BTreeMap<&str, Vec<Mailbox>> = BTreeMap::new();
    for recipient in recipients {
        domains.entry(recipient.domain()).or_default().push(recipient.clone());
    }
    // As many as one message has recipients.
    let mut asking = JoinSet::new();
    for names in domains.into_values() {
        let (shared, sender) = (shared.clone(), sender.clone());
        asking.spawn(async move {
            let answer = of_domain(&shared, &sender, &names).await;
            (names, answer)
        });
    }
    let mut looked_up = Vec::with_capacity(recipients.len());
    while let Some(asked) = asking.join_next().await {
        let Ok((names, answer)) = asked else { continue };
        match answer {
            Ok(stores) => looked_up.extend(names.into_iter().zip(stores.into_iter().map(Ok))),
            Err(error) => {
                tracing::warn!(%error, "recipients cannot be looked up");
                let why = error.to_string();
                looked_up.extend(names.into_iter().map(|name| (name, Err(why.clone()))));
            }
        }
    }
    looked_up
}

/// The store of one recipient, for who sends.
///
/// # Errors
/// Where nobody could be asked.
pub async fn look_up_one(shared: &Handle, sender: &Mailbox, recipient: &Mailbox) -> Looked {
    let mut stores = of_domain(shared, sender, std::slice::from_ref(recipient)).await?;
    Ok(stores.pop().flatten())
}

/// The word of the recipient's location server that this agent may offer `bytes` of the sender's; none is the same as in [`look_up_one`].
///
/// # Errors
/// Where nobody could be asked.
pub async fn introduction(
    shared: &Handle,
    sender: &Mailbox,
    recipient: &Mailbox,
    bytes: u64,
) -> Result<Option<Signed<Introduction>>, AskError> {
    let sender = speakers::on_behalf_of(shared, sender);
    if is_own(shared, recipient.domain()) {
        let session = shared.session().ok_or(AskError::NoSession)?;
        return Ok(shared.location.introduction_for(&session, sender, recipient, bytes).await?);
    }
    let attested = shared.attested().ok_or(AskError::NotAttested)?;
    let mut is_again = false;
    while let Some(server) = server_of(shared, recipient.domain()).await? {
        let speaker = speaker_of(shared, sender).await?;
        let (asker, location) = (asker(shared, &attested), server.answer.location);
        let asked = server.client.foreign_introduction_for(
            &asker,
            speaks_for(sender, speaker.as_ref()),
            location,
            recipient,
            bytes,
        );
        match asked.await {
            Ok(introduction) => return Ok(introduction),
            Err(error) => find_anew(shared, &server, error, &mut is_again)?,
        }
    }
    Ok(None)
}

/// What other domains are shown where it is asked for somebody else.
async fn speaker_of(shared: &Handle, sender: Option<&Mailbox>) -> Result<Option<Signed<Speaker>>, AskError> {
    match sender {
        Some(sender) => Ok(Some(speakers::of(shared, sender.domain()).await?)),
        None => Ok(None),
    }
}

fn speaks_for<'a>(
    sender: Option<&'a Mailbox>,
    speaker: Option<&'a Signed<Speaker>>,
) -> Option<SpeaksFor<'a>> {
    Some(SpeaksFor { sender: sender?, speaker: speaker? })
}

/// Whether the own location server speaks for it.
fn is_own(shared: &Handle, domain: &str) -> bool {
    shared.mailbox().domain() == domain
}

/// The stores of mailboxes of one domain.
async fn of_domain(
    shared: &Handle,
    sender: &Mailbox,
    names: &[Mailbox],
) -> Result<Vec<Option<StoreRecord>>, AskError> {
    let Some(domain) = names.first().map(Mailbox::domain) else { return Ok(Vec::new()) };
    let sender = speakers::on_behalf_of(shared, sender);
    if is_own(shared, domain) {
        let session = shared.session().ok_or(AskError::NoSession)?;
        return Ok(shared.location.lookup_for(&session, sender, names).await?);
    }
    let attested = shared.attested().ok_or(AskError::NotAttested)?;
    let mut is_again = false;
    while let Some(server) = server_of(shared, domain).await? {
        let speaker = speaker_of(shared, sender).await?;
        let (asker, location) = (asker(shared, &attested), server.answer.location);
        let speaks_for = speaks_for(sender, speaker.as_ref());
        match server.client.foreign_lookup_for(&asker, speaks_for, location, names).await {
            Ok(stores) => return Ok(stores),
            Err(error) => find_anew(shared, &server, error, &mut is_again)?,
        }
    }
    Ok(vec![None; names.len()])
}

/// Another domain's location server; none where it has none.
async fn server_of(shared: &Handle, domain: &str) -> Result<Option<Server>, AskError> {
    match shared.finder.find(domain).await {
        Ok(server) => Ok(Some(server)),
        Err(NotFound::None) => Ok(None),
        Err(source) => Err(AskError::Finding { domain: domain.to_owned(), source }),
    }
}

/// A server that was found a while ago, and does not answer as it should, is found anew, once.
fn find_anew(
    shared: &Handle,
    server: &Server,
    source: LocationError,
    is_again: &mut bool,
) -> Result<(), AskError> {
    let may_be_elsewhere = matches!(source, LocationError::Refused | LocationError::Unreachable(_));
    if *is_again || !may_be_elsewhere || server.asked.elapsed() < FOUND_FRESH_MIN {
        return Err(AskError::Foreign { domain: server.domain.to_string(), source });
    }
    shared.finder.forget(&server.domain);
    *is_again = true;
    Ok(())
}

fn asker<'a>(shared: &'a Handle, attested: &'a Attested) -> Asker<'a> {
    Asker { key: shared.identity.keypair(), attestation: &attested.signed }
}
