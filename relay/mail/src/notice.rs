//! The messages that a relay writes itself: what did not arrive, told to its sender ([`DeliveryReport`]), and what
//! waits and will expire, told to the one it waits for ([`ExpiryNotice`]).
//!
//! Why they are sound: every text of a stranger's (subject, file name, reply, address) goes through one of two doors,
//! [`fields`](self) for header fields and quoted-printable for bodies, which let no line end, no control character
//! and no direction mark through, and which bound its length. A report goes to nobody but the envelope's sender, from the
//! null path, and asks for no report about itself (RFC 3461 §6.1): it cannot start a war of reports.

mod expiry;
mod fields;
mod quoted_printable;
mod report;

use data_encoding::HEXLOWER;
use lighter_protocol::UnixTime;

pub use expiry::{ExpiryNotice, WaitingItem};
pub use report::{Action, DeliveryReport, ReportedRecipient};

use crate::address::Address;
use crate::envelope::{Envelope, MailFrom, Notify, RcptTo};
use crate::trace::date;
use fields::{Fields, Line};

/// Where and when a message is written, and the chance that names it.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// The name of the relay: a domain name.
    pub host_name: &'a str,
    /// Now.
    pub now: UnixTime,
    /// 128 random bits, drawn for this message.
    pub chance: [u8; 16],
}

/// The envelope that a message of the relay's goes out in: from nobody, so that nothing comes back.
pub fn envelope(to: &Address) -> Envelope {
    let never = Some(Notify::default());
    Envelope {
        mail: MailFrom { smtputf8: !to.is_ascii(), ..MailFrom::default() },
        recipients: vec![RcptTo { address: to.clone(), notify: never, orcpt: None }],
    }
}

impl Stamp<'_> {
    /// A header up to the fields that say what the content is.
    fn header(&self, to: &Address, subject: &str, auto_submitted: &'static str) -> Fields {
        let mut header = Fields::new();
        header.field("From", &[Line::Word(&format!("Lighter <postmaster@{}>", self.host_name))]);
        header.field("To", &[Line::Word(&format!("<{to}>"))]);
        header.field("Subject", &[Line::Text(subject)]);
        header.field("Date", &[Line::Word(&date(self.now))]);
        header.field(
            "Message-ID",
            &[Line::Word(&format!("<{}@{}>", HEXLOWER.encode(&self.chance), self.host_name))],
        );
        header.field("Auto-Submitted", &[Line::Word(auto_submitted)]); // RFC 3834 §5
        header.field("MIME-Version", &[Line::Word("1.0")]);
        header
    }

    /// A boundary that stands in no part: quoted-printable writes no `=_`, and nobody can guess the rest.
    fn boundary(&self) -> String {
        format!("=_lighter_{}", HEXLOWER.encode(&self.chance))
    }
}
