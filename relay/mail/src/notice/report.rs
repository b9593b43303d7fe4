//! A delivery status notification: what became of a message, told to its sender (RFC 3464 in RFC 6522's form).

use lighter_protocol::UnixTime;

use super::fields::{Fields, Line, typed_address};
use super::{Stamp, quoted_printable};
use crate::address::Address;
use crate::envelope::OriginalRecipient;
use crate::limits::{REPORT_HEADER_LEN_MAX, REPORT_RECIPIENTS_MAX};
use crate::reply::Reply;
use crate::trace::date;
use crate::xtext::Xtext;

/// What is to be told about one message.
#[derive(Clone, Debug)]
pub struct DeliveryReport<'a> {
    /// The envelope's sender. Where that is the null path there is nobody to be told, and no report.
    pub to: &'a Address,
    /// The sender's name for the transmission.
    pub envid: Option<&'a Xtext>,
    /// When the relay accepted the message.
    pub arrived: UnixTime,
    /// What became of it for each recipient that the report is about: at least one.
    pub recipients: &'a [ReportedRecipient<'a>],
    /// The message's header as it came, or as much of it as is at hand; what is beyond 64 KiB is left out.
    pub header: &'a [u8],
}

/// What became of a message for one recipient.
#[derive(Clone, Debug)]
pub struct ReportedRecipient<'a> {
    /// The envelope's recipient.
    pub address: &'a Address,
    /// The recipient as the sender wrote it first.
    pub orcpt: Option<&'a OriginalRecipient>,
    /// What happened.
    pub action: Action,
    /// The reply that decided, and the host that gave it; `None`: this relay.
    pub reply: &'a Reply,
    /// The next hop's name, where the reply is its own.
    pub remote: Option<&'a str>,
}

/// The `Action` field (RFC 3464 §2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It will not be delivered.
    Failed,
    /// It was not delivered so far.
    Delayed {
        /// When this relay gives up.
        until: UnixTime,
    },
    /// It was delivered.
    Delivered,
    /// It was handed to a server that reports nothing.
    Relayed,
}

impl Action {
    fn keyword(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed { .. } => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
        }
    }

    /// The subject of a report whose first recipient has it.
    fn subject(self) -> &'static str {
        match self {
            Self::Failed => "Your message could not be delivered",
            Self::Delayed { .. } => "Your message is delayed",
            Self::Delivered => "Your message was delivered",
            Self::Relayed => "Your message was handed on",
        }
    }

    fn sentence(self) -> String {
        match self {
            Self::Failed => "could not be delivered, and will not be tried again:".to_owned(),
            Self::Delayed { until } => {
                format!("has not been delivered yet; it is tried again until {}:", date(until))
            }
            Self::Delivered => "was delivered:".to_owned(),
            Self::Relayed => "was handed on to a server that does not report deliveries:".to_owned(),
        }
    }
}

impl DeliveryReport<'_> {
    /// The report as a message, to be sent in [`super::envelope`].
    pub fn message(&self, stamp: &Stamp<'_>) -> Vec<u8> {
        let boundary = stamp.boundary();
        let subject =
            self.recipients.first().map_or(Action::Failed.subject(), |first| first.action.subject());
        let mut header = stamp.header(self.to, subject, "auto-replied");
        let report = "multipart/report; report-type=delivery-status;";
        let content_type = format!("boundary=\"{boundary}\"");
        header.field("Content-Type", &[Line::Word(report), Line::Word(&content_type)]);
        header.blank();
        let parts = [self.explanation(stamp), self.status(stamp), self.original_header()];
        let mut message = header.into_string();
        for part in parts {
            message.push_str(&format!("--{boundary}\r\n{part}\r\n"));
        }
        message.push_str(&format!("--{boundary}--\r\n"));
        message.into_bytes()
    }

    fn recipients(&self) -> &[ReportedRecipient<'_>] {
        self.recipients.get(..REPORT_RECIPIENTS_MAX).unwrap_or(self.recipients)
    }

    /// The part for people.
    fn explanation(&self, stamp: &Stamp<'_>) -> String {
        let mut text = format!("This is the mail system at {}.\n\n", stamp.host_name);
        text.push_str(&format!("Your message of {}\n", date(self.arrived)));
        for recipient in self.recipients() {
            text.push_str(&format!("\n{}\n", recipient.action.sentence()));
            text.push_str(&format!("    <{}>\n    {}\n", recipient.address, recipient.reply));
        }
        text.push_str("\nThe header of your message follows below.\n");
        part("text/plain; charset=utf-8", "quoted-printable", &quoted_printable::encode(text.as_bytes()))
    }

    /// The part for programs.
    fn status(&self, stamp: &Stamp<'_>) -> String {
        let mut fields = Fields::new();
        fields.field("Reporting-MTA", &[Line::Status("dns;"), Line::Status(stamp.host_name)]);
        if let Some(envid) = self.envid {
            fields.field("Original-Envelope-Id", &[Line::Status(&envid.decode())]);
        }
        fields.field("Arrival-Date", &[Line::Status(&date(self.arrived))]);
        for recipient in self.recipients() {
            fields.blank();
            recipient.status(stamp.now, &mut fields);
        }
        part("message/delivery-status", "7bit", &fields.into_string())
    }

    /// The original's header: of its content nothing is sent back, whoever claimed to be its sender.
    fn original_header(&self) -> String {
        let end = self
            .header
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .map_or(self.header.len(), |at| at + 2);
        let header = &self.header[..end.min(REPORT_HEADER_LEN_MAX)];
        part("text/rfc822-headers", "quoted-printable", &quoted_printable::encode(header))
    }
}

impl ReportedRecipient<'_> {
    fn status(&self, now: UnixTime, fields: &mut Fields) {
        if let Some(orcpt) = self.orcpt {
            let original = format!("{}; {}", orcpt.address_type(), orcpt.address());
            fields.field("Original-Recipient", &[Line::Status(&original)]);
        }
        fields.field("Final-Recipient", &[Line::Status(&typed_address(self.address))]);
        fields.field("Action", &[Line::Status(self.action.keyword())]);
        fields.field("Status", &[Line::Status(&self.status_code())]);
        if let Some(remote) = self.remote {
            fields.field("Remote-MTA", &[Line::Status("dns;"), Line::Status(remote)]);
            fields.field("Diagnostic-Code", &[Line::Status("smtp;"), Line::Status(&self.reply.to_string())]);
        }
        fields.field("Last-Attempt-Date", &[Line::Status(&date(now))]);
        if let Action::Delayed { until } = self.action {
            fields.field("Will-Retry-Until", &[Line::Status(&date(until))]);
        }
    }

    /// The status, of the class that the action has: a reply that was temporary when it came may be final by now.
    fn status_code(&self) -> String {
        let class = match self.action {
            Action::Failed => 5,
            Action::Delayed { .. } => 4,
            Action::Delivered | Action::Relayed => 2,
        };
        let status = self.reply.status_or_class();
        crate::EnhancedStatus { class, ..status }.to_string()
    }
}

fn part(content_type: &str, encoding: &str, body: &str) -> String {
    format!("Content-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{body}")
}

#[cfg(test)]
mod tests {
    use mail_parser::{MessageParser, MimeHeaders, PartType};

    use super::*;

    const STAMP: Stamp<'static> =
        Stamp { host_name: "mx.example.org", now: UnixTime(1_795_260_136), chance: [7; 16] };

    fn failed<'a>(address: &'a Address, reply: &'a Reply) -> ReportedRecipient<'a> {
        ReportedRecipient {
            address,
            orcpt: None,
            action: Action::Failed,
            reply,
            remote: Some("next.example"),
        }
    }

    /// The three parts of a report, as another parser reads them.
    fn parts(message: &[u8]) -> (String, String, String) {
        let parsed = MessageParser::new().parse(message).unwrap();
        assert_eq!(parsed.content_type().unwrap().subtype(), Some("report"));
        let text = |id: usize| match &parsed.parts[id].body {
            PartType::Text(text) | PartType::Html(text) => text.to_string(),
            PartType::Binary(bytes) | PartType::InlineBinary(bytes) => {
                String::from_utf8_lossy(bytes).into_owned()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(parsed.parts.len(), 4);
        (text(1), text(2), text(3))
    }

    #[test]
    fn a_report_says_to_people_and_programs_what_happened() {
        let (to, lost) = ("a@b.example".parse().unwrap(), "c@d.example".parse().unwrap());
        let orcpt = OriginalRecipient::parse("rfc822;info+40d.example").unwrap();
        let reply = Reply::fixed(550, 1, 1, "No such mailbox");
        let recipients = [ReportedRecipient { orcpt: Some(&orcpt), ..failed(&lost, &reply) }];
        let envid = Xtext::encode("my id").unwrap();
        let report = DeliveryReport {
            to: &to,
            envid: Some(&envid),
            arrived: UnixTime(1_795_260_000),
            recipients: &recipients,
            header: b"Subject: hello\r\nTo: c@d.example\r\n\r\nsecret body",
        };
        let message = report.message(&STAMP);
        assert!(message.is_ascii());
        let parsed = MessageParser::new().parse(&message).unwrap();
        assert_eq!(parsed.subject(), Some("Your message could not be delivered"));
        assert_eq!(parsed.message_id(), Some("07070707070707070707070707070707@mx.example.org"));
        assert_eq!(parsed.date().unwrap().to_timestamp(), 1_795_260_136);
        let (explanation, status, header) = parts(&message);
        assert!(explanation.contains("<c@d.example>\r\n    550 5.1.1 No such mailbox"), "{explanation}");
        let expected = "Reporting-MTA: dns; mx.example.org\r\nOriginal-Envelope-Id: my id\r\n\
                        Arrival-Date: Sat, 21 Nov 2026 11:20:00 +0000\r\n\r\n\
                        Original-Recipient: rfc822; info@d.example\r\nFinal-Recipient: rfc822; c@d.example\r\n\
                        Action: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; next.example\r\n\
                        Diagnostic-Code: smtp; 550 5.1.1 No such mailbox\r\n\
                        Last-Attempt-Date: Sat, 21 Nov 2026 11:22:16 +0000\r\n";
        assert_eq!(status.trim_end(), expected.trim_end());
        assert_eq!(header.trim_end(), "Subject: hello\r\nTo: c@d.example");
    }

    #[test]
    fn bad_input_21_a_hostile_reply_header_or_address_stays_in_its_place() {
        let to = "a@b.example".parse().unwrap();
        let lost: Address = "\"x> Action: delivered\"@d.example".parse().unwrap();
        let wide: Address = "jörg@d.example".parse().unwrap();
        let reply = Reply {
            text: "no\r\nAction: delivered\r\n\r\n--=_lighter_".into(),
            ..Reply::fixed(450, 2, 0, "")
        };
        let recipients = [failed(&lost, &reply), failed(&wide, &reply)];
        let header = [
            b"Subject: \xff\0\r\n".repeat(10_000),
            b"--=_lighter_07070707070707070707070707070707--\r\n".to_vec(),
        ];
        let report = DeliveryReport {
            to: &to,
            envid: None,
            arrived: UnixTime(0),
            recipients: &recipients,
            header: &header.concat(),
        };
        let message = report.message(&STAMP);
        assert!(message.is_ascii());
        assert!(message.split(|byte| *byte == b'\n').all(|line| line.len() <= 998));
        assert!(message.len() < 4 * REPORT_HEADER_LEN_MAX);
        let (_, status, _) = parts(&message);
        assert_eq!(status.matches("\r\nAction: ").count(), 2);
        assert!(status.contains("Final-Recipient: utf-8; j\\x{F6}rg@d.example"));
        assert!(status.contains("Status: 5.2.0"), "given up, so permanent: {status}");
    }

    #[test]
    fn a_report_is_from_nobody_and_asks_for_none() {
        let envelope = super::super::envelope(&"a@b.example".parse().unwrap());
        assert_eq!(envelope.mail.path, None);
        assert_eq!(envelope.recipients[0].notify.unwrap().value(), "NEVER");
    }

    #[test]
    fn a_delay_says_until_when() {
        let (to, late) = ("a@b.example".parse().unwrap(), "c@d.example".parse().unwrap());
        let reply = Reply::fixed(451, 4, 1, "The next hop cannot be reached");
        let action = Action::Delayed { until: UnixTime(1_795_300_000) };
        let recipients = [ReportedRecipient { action, remote: None, ..failed(&late, &reply) }];
        let report = DeliveryReport {
            to: &to,
            envid: None,
            arrived: UnixTime(0),
            recipients: &recipients,
            header: b"",
        };
        let (_, status, _) = parts(&report.message(&STAMP));
        assert!(
            status.contains("Action: delayed\r\nStatus: 4.4.1\r\n") && status.contains("Will-Retry-Until:")
        );
        assert!(!status.contains("Diagnostic-Code"));
    }

    #[test]
    fn the_explanation_is_a_text_part() {
        let (to, lost) = ("a@b.example".parse().unwrap(), "c@d.example".parse().unwrap());
        let reply = Reply::fixed(550, 1, 1, "no");
        let recipients = [failed(&lost, &reply)];
        let report = DeliveryReport {
            to: &to,
            envid: None,
            arrived: UnixTime(0),
            recipients: &recipients,
            header: b"",
        };
        let message = report.message(&STAMP);
        let parsed = MessageParser::new().parse(&message).unwrap();
        let kinds: Vec<_> =
            parsed.parts[1..].iter().filter_map(|part| part.content_type()?.subtype()).collect();
        assert_eq!(kinds, ["plain", "delivery-status", "rfc822-headers"]);
    }
}
