//! Questions by stores of other domains (DESIGN §4): who asks is proved first, then answered as anybody else is.
//!
//! The proof, in this order: the question is signed with the key that the attestation names, for this server and about now;
//! the attestation is in date; the location server of its mailbox's domain, which is found as senders find any, signed it
//! with a key that is believed. Nothing of it depends on whom is asked about, and what does takes the same time whatever the
//! answer: each is given [`FOREIGN_ANSWER_TIME`] after the proof.
//!
//! Where the question names another sender, what is proved is that this sender's domain lets the asker speak for its users;
//! the answer is what that sender learns.

use std::time::Instant;

use lighter_protocol::time::Now;
use lighter_protocol::{Attestation, Mailbox, PeerId, UnixTime};
use lighter_transport::location::api::{
    ForeignRequest, IntroductionAnswer, IntroductionRequest, LookupAnswer,
};
use lighter_transport::location::finding::{NotFound, Server};
use lighter_transport::location::foreign::{ForeignAsk, ForeignQuestion, Speaker};
use lighter_transport::location::keys::attesting;
use lighter_transport::location::limits::{FOREIGN_TIME_DIFFERENCE_MAX, FOUND_FRESH_MIN};

use super::{Caller, Location};
use crate::error::CallError;
use crate::limits::FOREIGN_ANSWER_TIME;
use crate::lock::{lock, read};
use crate::pins::judge;
use crate::rate::{TooMany, registrable};
use crate::rows::StoreKey;

/// A question whose asker is proved.
#[derive(Clone, Debug)]
pub struct ForeignCall {
    asker: StoreKey,
    ask: ForeignAsk,
    /// When it is answered.
    due: Instant,
}

impl Location {
    /// Proves who asks.
    ///
    /// # Errors
    /// [`CallError::Refused`] for whatever is wrong with the proof; [`CallError::Unavailable`] where the asker's domain
    /// cannot be asked now.
    pub async fn prove_foreign(&self, request: &ForeignRequest, now: Now) -> Result<ForeignCall, CallError> {
        let malformed = |_| CallError::Malformed("not an attestation");
        let claim = request.attestation.claim().map_err(malformed)?;
        let question = request.question.verify(&claim.peer).map_err(|_| CallError::Refused)?;
        if !(self.is_for_me(&question, now.wall) && claim.in_date(now.wall).is_ok()) {
            return Err(CallError::Refused);
        }
        let (sender, ask) = question.ask.split();
        let asker = StoreKey { mailbox: sender.clone().unwrap_or(claim.mailbox), peer: claim.peer };
        if sender.is_some() {
            let speaker = request.speaker.as_ref().ok_or(CallError::Refused)?;
            let is_by =
                |key: &PeerId| Speaker::verify(speaker, key, &asker.peer, &asker.mailbox, now.wall).is_ok();
            self.prove_signed(&asker.mailbox, is_by, now).await?;
        } else {
            let is_by = |key: &PeerId| {
                Attestation::verify_of(&request.attestation, key, &asker.peer, now.wall)
                    .is_ok_and(|attested| attested.mailbox == asker.mailbox)
            };
            self.prove_signed(&asker.mailbox, is_by, now).await?;
        }
        Ok(ForeignCall { asker, ask, due: Instant::now() + FOREIGN_ANSWER_TIME })
    }

    /// The stores that a proved question is about, in its order.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn foreign_lookup(&self, call: ForeignCall, now: Now) -> Result<Vec<LookupAnswer>, CallError> {
        let ForeignCall { asker, ask: ForeignAsk::Lookup(names), due } = call else {
            return Err(CallError::Malformed("not a look-up"));
        };
        let answer = self.lookup(&Caller::Foreign(asker), &names, now);
        tokio::time::sleep_until(due.into()).await;
        answer
    }

    /// This server's word that a proved asker may offer.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn foreign_introduction(
        &self,
        call: ForeignCall,
        now: Now,
    ) -> Result<IntroductionAnswer, CallError> {
        let ForeignCall { asker, ask: ForeignAsk::Introduction { recipient, bytes }, due } = call else {
            return Err(CallError::Malformed("not a question for an introduction"));
        };
        let request = IntroductionRequest { recipient, bytes, sender: None };
        let answer = self.introduce_caller(&Caller::Foreign(asker.clone()), &asker, request, now);
        tokio::time::sleep_until(due.into()).await;
        answer
    }

    /// Counts names that stores of another domain look up. Asked for when the domain is proved: nobody uses up another
    /// domain's allowance.
    pub(super) fn count_foreign(&self, domain: &str, names: u64, now: Now) -> Result<(), TooMany> {
        lock(&self.rates.foreign_domains).take(registrable(domain).to_owned(), names, now.instant)?;
        self.rates.foreign_taken.take(&self.rates.foreign_names, names, now.instant)
    }

    fn is_for_me(&self, question: &ForeignQuestion, now: UnixTime) -> bool {
        let difference = now.0.abs_diff(question.time.0);
        difference <= FOREIGN_TIME_DIFFERENCE_MAX.as_secs() && self.own_keys(now).contains(&question.server)
    }

    /// The keys by which this server is known to somebody.
    fn own_keys(&self, now: UnixTime) -> Vec<PeerId> {
        let mut answer = self.domain();
        answer.location = self.signing(now).peer();
        attesting(&answer, now)
    }

    /// Whether what the asker shows is signed by the location server of the domain of `asker`: `is_by` says with which key.
    async fn prove_signed(
        &self,
        asker: &Mailbox,
        is_by: impl Fn(&PeerId) -> bool,
        now: Now,
    ) -> Result<(), CallError> {
        // Another domain of this server.
        if self.own_keys(now.wall).iter().any(&is_by) {
            return Ok(());
        }
        let domain = asker.domain();
        if self.config.domains.iter().any(|own| own == domain) {
            return Err(CallError::Refused);
        }
        let mut server = self.find(domain).await?;
        if !attesting(&server.answer, now.wall).iter().any(&is_by)
            && server.asked.elapsed() >= FOUND_FRESH_MIN
        {
            // Its key may have changed since it was asked.
            self.finder.forget(domain);
            server = self.find(domain).await?;
        }
        if !attesting(&server.answer, now.wall).iter().any(&is_by) {
            return Err(CallError::Refused);
        }
        self.believe(asker, &server, now.wall).await
    }

    async fn find(&self, domain: &str) -> Result<Server, CallError> {
        self.finder.find(domain).await.map_err(|error| match error {
            NotFound::None => CallError::Refused,
            NotFound::Failed => CallError::Unavailable,
        })
    }

    /// Whether the key of the asker's domain is the one that is remembered, or one that it led to.
    async fn believe(&self, asker: &Mailbox, server: &Server, now: UnixTime) -> Result<(), CallError> {
        let domain = asker.domain().to_owned();
        let verdict = judge(read(&self.directory).pin(&domain), &server.answer, now);
        if let Some(row) = verdict.remember {
            if !verdict.is_believed {
                tracing::warn!(
                    domain,
                    "another location server's key that nothing announced: not believed for a week"
                );
            }
            let pin = move |directory: &mut crate::directory::Directory, changes: &mut Vec<_>| {
                directory.pin_domain(&domain, row, changes);
                Ok(())
            };
            self.writer.write(pin).await?;
        }
        if verdict.is_believed { Ok(()) } else { Err(CallError::Refused) }
    }
}
