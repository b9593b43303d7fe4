//! An accepted message, as the record that makes it exist tells it.

use lighter_message::Totals;
use lighter_protocol::{Day, DeliveryId, Mailbox, MessageId, PeerId, TicketHash, UnixTime};
use lighter_storage::{Class, StoredBlob};
use serde::{Deserialize, Serialize};

use crate::limits::{
    ADDRESS_LEN_MAX, DSN_TEXT_LEN_MAX, NAME_LEN_MAX, PARTS_MAX, RECIPIENTS_MAX, SUMMARY_LEN_MAX,
    TRACE_LEN_MAX,
};

/// A message that the relay answered `250` for: what came with it, where it lies, and what each recipient gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its number on this relay.
    pub id: MessageId,
    /// When it came in.
    pub accepted: UnixTime,
    /// What SMTP said besides the recipients.
    pub envelope: Envelope,
    /// Proves that what is made from the manifest is what came in; stands at the top of every stub.
    pub original: Totals,
    /// For notices to people; hostile input, like everything in a header.
    pub summary: Summary,
    /// Whole lines with their CR LF that the relay puts above the message for the next hop (RFC 5321 §4.4), made when
    /// it came in so that every try hands over the same bytes.
    pub trace: String,
    /// The message in order: literal bytes and parts (DESIGN §5).
    pub manifest: StoredBlob,
    /// The detached parts, in the order of the manifest.
    pub parts: Vec<Part>,
    /// Each on their own (SPEC A10).
    pub recipients: Vec<Recipient>,
    /// The retention class that its records are filed in.
    pub class: Class,
    /// The last day of the promise: after it, what nobody has fetched may be gone (DESIGN §3 rules 3 and 9).
    pub expires: Day,
    /// For a message that the relay wrote itself: what it settles, in the same record.
    pub cause: Option<Cause>,
}

/// The envelope but for the recipients (RFC 5321 §2.3.1, RFC 3461).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// What stood in MAIL FROM, verbatim; empty for the null path.
    pub reverse_path: String,
    /// RET: what of the message a report brings back. None: not given.
    pub ret: Option<Ret>,
    /// ENVID as it came, in xtext. None: not given.
    pub envid: Option<String>,
    /// BODY as it was declared.
    pub body: Body,
    /// SMTPUTF8 was declared (RFC 6531).
    pub smtputf8: bool,
}

/// RET (RFC 3461 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header.
    Headers,
}

/// BODY (RFC 6152, RFC 3030).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Declared, or taken, to be ASCII in lines.
    #[default]
    SevenBit,
    /// 8-bit bytes in lines.
    EightBitMime,
    /// Anything, by BDAT only.
    BinaryMime,
}

/// What a notice says about a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The From field's text, cut off at [`SUMMARY_LEN_MAX`] bytes.
    pub from: String,
    /// The Subject field's text, likewise.
    pub subject: String,
}

/// One detached part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Where it lies.
    pub blob: StoredBlob,
    /// Its name, as the message gave it.
    pub name: String,
    /// Its media type, likewise.
    pub media_type: String,
}

/// One recipient, and what they get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// What stood in RCPT TO, verbatim: the next hop gets it so.
    pub address: String,
    /// The same as a mailbox. None: not an address that could have a store.
    pub mailbox: Option<Mailbox>,
    /// NOTIFY.
    pub notify: Notify,
    /// ORCPT as it came, in xtext. None: not given.
    pub orcpt: Option<String>,
    /// Whole, or as a stub.
    pub form: Form,
}

/// NOTIFY (RFC 3461 §4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notify {
    /// Not given: failures are reported, delays may be.
    #[default]
    Default,
    /// Nothing is reported.
    Never,
    /// Reported is what is named.
    On {
        /// Delivery.
        success: bool,
        /// Failure.
        failure: bool,
        /// Delay.
        delay: bool,
    },
}

impl Notify {
    /// Whether a failure is reported to the sender.
    pub fn failure(self) -> bool {
        match self {
            Self::Default => true,
            Self::Never => false,
            Self::On { failure, .. } => failure,
        }
    }

    /// Whether a delivery is reported to the sender.
    pub fn success(self) -> bool {
        matches!(self, Self::On { success: true, .. })
    }
}

/// What a recipient gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// The message as it came (SPEC A9).
    Whole,
    /// The stub; the parts wait for the store (SPEC A17).
    Stub {
        /// The recipient's own: Bcc recipients share nothing that shows each other.
        delivery: DeliveryId,
        /// From which the ticket is made again, with the delivery and a key.
        generation: u32,
        /// What is known of the ticket: it opens nothing.
        ticket: TicketHash,
    },
    /// Nothing, from here: a sender left sealed blobs for the store, and mailed the message itself (DESIGN §6, "drop").
    /// The envelope stands for the manifest, the sealed blobs for the parts.
    Drop {
        /// As the sender drew it.
        delivery: DeliveryId,
        /// The sender's agent: nobody else is told what becomes of it.
        from: PeerId,
    },
}

impl Recipient {
    /// The recipient's delivery, where something waits for their store.
    pub fn delivery(&self) -> Option<DeliveryId> {
        match self.form {
            Form::Whole => None,
            Form::Stub { delivery, .. } | Form::Drop { delivery, .. } => Some(delivery),
        }
    }
}

/// One thing to hand over to the next hop: a message to one recipient, the first time or the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HandOver {
    /// The recipient's place in the message.
    pub recipient: u32,
    /// The message went as a stub, nobody fetched the rest in time, and now it goes whole (DESIGN §3 rule 3).
    pub lapsed: bool,
}

impl HandOver {
    /// The first one for a recipient, in the form that was decided when the message came in.
    pub fn first(recipient: u32) -> Self {
        Self { recipient, lapsed: false }
    }

    /// The one after a delivery has lapsed: whole.
    pub fn lapsed(recipient: u32) -> Self {
        Self { recipient, lapsed: true }
    }
}

/// What a message that the relay wrote itself settles by coming into being: one record does both, so that neither a
/// crash nor a replay can report twice or lose the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// A delivery status notification (RFC 3464).
    Report {
        /// The message that it is about.
        message: MessageId,
        /// What the next hop took.
        handed_over: Vec<HandOver>,
        /// What it will never take.
        failed: Vec<HandOver>,
    },
    /// Told the user that a delivery will soon lapse (DESIGN §3 rule 3).
    Notice {
        /// Which.
        delivery: DeliveryId,
    },
}

/// Which bound a message breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is over its bound, or missing")]
pub struct OutOfBounds(pub &'static str);

impl Message {
    /// Whether it keeps every bound of [`crate::limits`], and hangs together.
    ///
    /// # Errors
    /// Names the first field that does not.
    pub fn check(&self) -> Result<(), OutOfBounds> {
        let bound = |name, len: usize, max: usize| if len <= max { Ok(()) } else { Err(OutOfBounds(name)) };
        bound("reverse path", self.envelope.reverse_path.len(), ADDRESS_LEN_MAX)?;
        bound("ENVID", self.envelope.envid.as_ref().map_or(0, String::len), DSN_TEXT_LEN_MAX)?;
        bound("From", self.summary.from.len(), SUMMARY_LEN_MAX)?;
        bound("Subject", self.summary.subject.len(), SUMMARY_LEN_MAX)?;
        bound("trace", self.trace.len(), TRACE_LEN_MAX)?;
        bound("parts", self.parts.len(), PARTS_MAX)?;
        bound("recipients", self.recipients.len(), RECIPIENTS_MAX)?;
        for part in &self.parts {
            bound("name", part.name.len(), NAME_LEN_MAX)?;
            bound("media type", part.media_type.len(), NAME_LEN_MAX)?;
        }
        for recipient in &self.recipients {
            bound("recipient", recipient.address.len(), ADDRESS_LEN_MAX)?;
            bound("ORCPT", recipient.orcpt.as_ref().map_or(0, String::len), DSN_TEXT_LEN_MAX)?;
            if recipient.delivery().is_some() && recipient.mailbox.is_none() {
                return Err(OutOfBounds("mailbox of a recipient with a store"));
            }
            if matches!(recipient.form, Form::Drop { .. }) && self.recipients.len() != 1 {
                return Err(OutOfBounds("recipients of a drop"));
            }
        }
        if let Some(Cause::Report { handed_over, failed, .. }) = &self.cause {
            bound("reported hand-overs", handed_over.len().saturating_add(failed.len()), RECIPIENTS_MAX)?;
        }
        Ok(())
    }

    /// Every blob that it names: the manifest, then the parts.
    pub fn blobs(&self) -> impl Iterator<Item = &StoredBlob> {
        std::iter::once(&self.manifest).chain(self.parts.iter().map(|part| &part.blob))
    }

    /// Bytes in the detached parts together.
    pub fn parts_size(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.blob.size))
    }
}

/// The beginning of `text`, at most `len_max` bytes, cut between two characters.
pub fn shorten(text: &str, len_max: usize) -> &str {
    &text[..text.floor_char_boundary(len_max)]
}
