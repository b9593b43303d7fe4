//! One message on its way in, from MAIL to the final reply.

use std::collections::HashMap;

use crate::envelope::{Envelope, MailFrom, RcptTo};
use crate::reply::Reply;
use crate::server::content::Content;
use crate::server::replies;

/// From MAIL to the final reply.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) mail: MailFrom,
    /// Recipients that the shell accepted; moved to the shell with `Begin`.
    recipients: Vec<RcptTo>,
    /// Where each of them stands there, by its key, to know one that comes again.
    known: HashMap<String, usize>,
    /// For each RCPT answered `250`, in order, which of `recipients` it named: RFC 2033 §4.2 wants a reply for each.
    pub(super) accepted: Vec<usize>,
    /// RCPT commands that were answered `452` for want of room.
    pub(super) overshoot: usize,
    /// Whether any RCPT was refused.
    pub(super) refused_any: bool,
    pub(super) chunks: Chunks,
}

/// How far BDAT got.
#[derive(Debug)]
pub(super) enum Chunks {
    /// No BDAT yet.
    None,
    /// A chunk that is not the last has come.
    Open(Content),
    /// A BDAT failed: nothing but RSET helps (RFC 3030 §2).
    Failed,
}

impl Transaction {
    pub(super) fn new(mail: MailFrom) -> Self {
        Self {
            mail,
            recipients: Vec::new(),
            known: HashMap::new(),
            accepted: Vec::new(),
            overshoot: 0,
            refused_any: false,
            chunks: Chunks::None,
        }
    }

    pub(super) fn add(&mut self, rcpt: RcptTo) {
        self.known.insert(rcpt.address.key(), self.recipients.len());
        self.accepted.push(self.recipients.len());
        self.recipients.push(rcpt);
    }

    /// Whether the recipient was accepted before; then this RCPT counts as accepted, too.
    pub(super) fn repeat(&mut self, rcpt: &RcptTo) -> bool {
        let first = self.known.get(&rcpt.address.key()).copied();
        self.accepted.extend(first);
        first.is_some()
    }

    /// The envelope, if there is anybody to send to. It is moved out: nothing is added to it afterwards.
    pub(super) fn envelope(&mut self) -> Result<Envelope, Reply> {
        if self.recipients.is_empty() {
            return Err(if self.refused_any { replies::NO_RECIPIENTS } else { replies::RCPT_FIRST });
        }
        let recipients = std::mem::take(&mut self.recipients);
        Ok(Envelope { mail: self.mail.clone(), recipients })
    }
}
