//! What the next hop said it can do.

use crate::auth;
use crate::envelope::{Body, Envelope, MailFrom, RcptTo};
use crate::reply::Reply;

use super::reasons;

/// The extensions announced in the reply to EHLO or LHLO that this client uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 1870.
    pub size: Size,
    /// RFC 4954: the names of the ways to authenticate, as they were said.
    pub mechanisms: Vec<String>,
}

/// The SIZE extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Size {
    /// Not announced.
    #[default]
    Unknown,
    /// Announced without a limit.
    Unlimited,
    /// Announced with a limit, in octets.
    Limited(u64),
}

impl Capabilities {
    /// Reads the lines of the reply, of which the first is the server's name.
    pub(super) fn read(lines: &[String]) -> Self {
        let mut capabilities = Self::default();
        for line in lines.iter().skip(1) {
            let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
            match keyword.to_ascii_uppercase().as_str() {
                "PIPELINING" => capabilities.pipelining = true,
                "8BITMIME" => capabilities.eight_bit_mime = true,
                "SMTPUTF8" => capabilities.smtputf8 = true,
                "DSN" => capabilities.dsn = true,
                "AUTH" => {
                    let names = value.split_ascii_whitespace().filter(|name| auth::mechanism(name).is_some());
                    capabilities.mechanisms = names.map(str::to_owned).collect();
                }
                "STARTTLS" => capabilities.starttls = true,
                "SIZE" => {
                    capabilities.size = match value.trim().parse() {
                        Ok(0) | Err(_) => Size::Unlimited, // RFC 1870 §4: no limit is known.
                        Ok(limit) => Size::Limited(limit),
                    }
                }
                _ => {}
            }
        }
        capabilities
    }

    /// Why a message of this envelope cannot be handed over as it is.
    pub(super) fn objection(&self, envelope: &Envelope) -> Option<Reply> {
        let mail = &envelope.mail;
        let all_ascii = envelope.recipients.iter().all(|rcpt| rcpt.address.is_ascii())
            && mail.path.as_ref().is_none_or(|address| address.is_ascii());
        if (mail.smtputf8 || !all_ascii) && !self.smtputf8 {
            return Some(reasons::NEEDS_SMTPUTF8);
        }
        if mail.body == Body::EightBitMime && !self.eight_bit_mime {
            return Some(reasons::NEEDS_8BITMIME);
        }
        match (self.size, mail.size) {
            (Size::Limited(limit), Some(size)) if size > limit => Some(reasons::TOO_BIG),
            _ => None,
        }
    }

    /// The MAIL command, with the parameters that the next hop understands.
    pub(super) fn mail_command(&self, mail: &MailFrom) -> String {
        let mut command =
            format!("MAIL FROM:<{}>", mail.path.as_ref().map_or("", |address| address.as_str()));
        if let (Size::Limited(_) | Size::Unlimited, Some(size)) = (self.size, mail.size) {
            command.push_str(&format!(" SIZE={size}"));
        }
        if self.eight_bit_mime && mail.body == Body::EightBitMime {
            command.push_str(" BODY=8BITMIME");
        }
        if self.smtputf8 && mail.smtputf8 {
            command.push_str(" SMTPUTF8");
        }
        if self.dsn {
            if let Some(ret) = mail.ret {
                command.push_str(&format!(" RET={}", ret.keyword()));
            }
            if let Some(envid) = &mail.envid {
                command.push_str(&format!(" ENVID={envid}"));
            }
        }
        command.push_str("\r\n");
        command
    }

    /// The RCPT command, with the parameters that the next hop understands.
    pub(super) fn rcpt_command(&self, rcpt: &RcptTo) -> String {
        let mut command = format!("RCPT TO:<{}>", rcpt.address);
        if self.dsn {
            if let Some(notify) = rcpt.notify {
                command.push_str(&format!(" NOTIFY={}", notify.value()));
            }
            if let Some(orcpt) = &rcpt.orcpt {
                command.push_str(&format!(" ORCPT={}", orcpt.as_encoded()));
            }
        }
        command.push_str("\r\n");
        command
    }
}
