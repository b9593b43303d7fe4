//! What a store asks of another domain's location server (DESIGN §4): it shows its own domain's attestation, and signs the
//! question with the key that the attestation names.
//!
//! The question names the server and the time, and is what is signed, whole: shown to another server, later, or with other
//! names in it, it is none. Shown again to the same server within [`super::limits::FOREIGN_TIME_DIFFERENCE_MAX`], the answer
//! goes to whoever holds the connection; that is one who could read the first answer, too.
//!
//! An outgoing mail server asks for each user of a domain (SPEC A26). It shows the domain's word for that, a [`Speaker`], and
//! names the user in the question, so that what the recipient chose about this user is what counts. It is a statement of its
//! own, and no attestation of the users' mailboxes: with those, it could take what waits for them.

use lighter_protocol::limits::{ATTESTATION_LIFE_MAX, CLOCK_GRACE, DOMAIN_LEN_MAX};
use lighter_protocol::{Attestation, Keypair, Mailbox, PeerId, Signed, SignedError, Statement, UnixTime};
use serde::{Deserialize, Serialize};

use super::limits::FOREIGN_NAMES_MAX;

/// A question to another domain's location server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignQuestion {
    /// The key of the server that is asked.
    pub server: PeerId,
    /// When.
    pub time: UnixTime,
    /// What.
    pub ask: ForeignAsk,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForeignAsk {
    /// The stores of these mailboxes: at most [`FOREIGN_NAMES_MAX`].
    Lookup(Vec<Mailbox>),
    /// An introduction to this mailbox's store.
    Introduction {
        /// Whose store.
        recipient: Mailbox,
        /// Bytes that will be offered, all blobs together.
        bytes: u64,
    },
    /// As [`ForeignAsk::Lookup`], for a user of a domain that the asker speaks for.
    LookupFor {
        /// That user.
        sender: Mailbox,
        /// The mailboxes: at most [`FOREIGN_NAMES_MAX`].
        names: Vec<Mailbox>,
    },
    /// As [`ForeignAsk::Introduction`], for a user of a domain that the asker speaks for.
    IntroductionFor {
        /// That user.
        sender: Mailbox,
        /// Whose store.
        recipient: Mailbox,
        /// Bytes that will be offered, all blobs together.
        bytes: u64,
    },
}

impl ForeignAsk {
    /// The same, asked for `sender`.
    #[must_use]
    pub fn on_behalf_of(self, sender: Mailbox) -> Self {
        match self {
            Self::Lookup(names) | Self::LookupFor { names, .. } => Self::LookupFor { sender, names },
            Self::Introduction { recipient, bytes } | Self::IntroductionFor { recipient, bytes, .. } => {
                Self::IntroductionFor { sender, recipient, bytes }
            }
        }
    }

    /// What is asked by itself, and for whom where that is not the asker.
    pub fn split(self) -> (Option<Mailbox>, Self) {
        match self {
            Self::LookupFor { sender, names } => (Some(sender), Self::Lookup(names)),
            Self::IntroductionFor { sender, recipient, bytes } => {
                (Some(sender), Self::Introduction { recipient, bytes })
            }
            own => (None, own),
        }
    }
}

impl Statement for ForeignQuestion {
    const CONTEXT: &'static str = "lighter foreign question 1";

    fn within_limits(&self) -> bool {
        match &self.ask {
            ForeignAsk::Lookup(names) | ForeignAsk::LookupFor { names, .. } => {
                names.len() <= FOREIGN_NAMES_MAX
            }
            ForeignAsk::Introduction { .. } | ForeignAsk::IntroductionFor { .. } => true,
        }
    }
}

/// A domain's word, signed by its location server: this peer sends for every user of the domain, until a date. It says
/// nothing about what comes for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speaker {
    /// The domain, as mailboxes have it.
    pub domain: String,
    /// The outgoing mail server's key.
    pub peer: PeerId,
    /// When it was made.
    pub issued: UnixTime,
    /// At most 24 hours after `issued`.
    pub expires: UnixTime,
}

impl Statement for Speaker {
    const CONTEXT: &'static str = "lighter speaker 1";

    fn within_limits(&self) -> bool {
        self.domain.len() <= DOMAIN_LEN_MAX
    }
}

impl Speaker {
    /// The statement, if the location server `location` signed it, it is in date, and it is of `peer` and the domain of
    /// `sender`.
    ///
    /// # Errors
    /// [`NotASpeaker`]; nothing of it may be used then.
    pub fn verify(
        signed: &Signed<Self>,
        location: &PeerId,
        peer: &PeerId,
        sender: &Mailbox,
        now: UnixTime,
    ) -> Result<Self, NotASpeaker> {
        let speaker = signed.verify(location)?;
        if speaker.peer != *peer || speaker.domain != sender.domain() {
            return Err(NotASpeaker::Other);
        }
        let has_life =
            speaker.issued <= speaker.expires && speaker.expires <= speaker.issued.plus(ATTESTATION_LIFE_MAX);
        let is_begun = now.plus(CLOCK_GRACE) >= speaker.issued;
        if has_life && is_begun && now < speaker.expires.plus(CLOCK_GRACE) {
            Ok(speaker)
        } else {
            Err(NotASpeaker::Date)
        }
    }
}

/// Why a [`Speaker`] does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotASpeaker {
    /// It is not the domain's, or malformed.
    #[error("speaker: {0}")]
    Signed(#[from] SignedError),
    /// It is another peer's, or speaks for another domain.
    #[error("speaker of another domain, or another peer")]
    Other,
    /// It is not valid yet, or any more, or would be for too long.
    #[error("speaker out of date")]
    Date,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The store's key.
    pub key: &'a Keypair,
    /// Its own domain's word that it acts for a mailbox.
    pub attestation: &'a Signed<Attestation>,
}

/// For whom an outgoing mail server asks.
#[derive(Clone, Copy, Debug)]
pub struct SpeaksFor<'a> {
    /// The user.
    pub sender: &'a Mailbox,
    /// That user's domain's word that it may.
    pub speaker: &'a Signed<Speaker>,
}

impl Asker<'_> {
    /// The question, signed.
    ///
    /// # Errors
    /// Where it is beyond its limits.
    pub fn sign(
        &self,
        server: PeerId,
        ask: ForeignAsk,
        now: UnixTime,
    ) -> Result<Signed<ForeignQuestion>, SignedError> {
        Signed::sign(&ForeignQuestion { server, time: now, ask }, self.key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Identity;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    // SPEC: A26
    #[test]
    fn bad_input_34_a_speaker_counts_for_its_peer_its_domain_and_its_day_only() {
        let (location, other, peer) =
            (Identity::generate(), Identity::generate(), Identity::generate().peer());
        let sender: Mailbox = "sam@example.org".parse().unwrap();
        let right = Speaker {
            domain: "example.org".to_owned(),
            peer,
            issued: NOW,
            expires: NOW.plus(Duration::from_hours(24)),
        };
        let counts = |speaker: &Speaker, by: &Identity, now: UnixTime| {
            let signed = Signed::sign(speaker, by.keypair()).unwrap();
            Speaker::verify(&signed, &location.peer(), &peer, &sender, now)
        };
        assert_eq!(counts(&right, &location, NOW), Ok(right.clone()));
        assert!(matches!(counts(&right, &other, NOW), Err(NotASpeaker::Signed(_))));
        for domain in ["example.com", "sub.example.org", "org", ""] {
            let wrong = Speaker { domain: domain.to_owned(), ..right.clone() };
            assert_eq!(counts(&wrong, &location, NOW), Err(NotASpeaker::Other), "{domain}");
        }
        let wrong = Speaker { peer: other.peer(), ..right.clone() };
        assert_eq!(counts(&wrong, &location, NOW), Err(NotASpeaker::Other));
        for (issued, expires) in [(0, 86_401), (1, 0), (-86_400 * 3, -86_400 * 2), (86_400, 86_400 * 2)] {
            let at = |seconds: i64| UnixTime(NOW.0.saturating_add_signed(seconds));
            let wrong = Speaker { issued: at(issued), expires: at(expires), ..right.clone() };
            assert_eq!(counts(&wrong, &location, NOW), Err(NotASpeaker::Date), "{issued} {expires}");
        }
    }

    #[test]
    fn what_is_asked_for_another_is_the_same_question_with_a_name_in_it() {
        let [sam, eve, bob] =
            ["sam@a.example", "eve@a.example", "bob@b.example"].map(|text| text.parse().unwrap());
        for ask in [
            ForeignAsk::Lookup(vec![Mailbox::clone(&bob)]),
            ForeignAsk::Introduction { recipient: bob, bytes: 7 },
        ] {
            assert_eq!(ask.clone().split(), (None, ask.clone()));
            let for_eve = ask.clone().on_behalf_of(Mailbox::clone(&eve));
            assert_eq!(for_eve.on_behalf_of(Mailbox::clone(&sam)).split(), (Some(Mailbox::clone(&sam)), ask));
        }
    }
}
