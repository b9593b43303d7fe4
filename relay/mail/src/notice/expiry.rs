//! The notice that attachments wait for a store that has not come for them (DESIGN §3 rule 3).

use lighter_protocol::UnixTime;

use super::fields::{Line, shown};
use super::{Stamp, quoted_printable};
use crate::address::Address;
use crate::limits::NOTICE_ITEMS_MAX;
use crate::trace::date;

/// What is to be told about one delivery that waits. Every text in it may be a stranger's.
#[derive(Clone, Debug)]
pub struct ExpiryNotice<'a> {
    /// For whom it waits.
    pub to: &'a Address,
    /// The message's subject, decoded.
    pub subject: &'a str,
    /// Who the message is from.
    pub sender: &'a str,
    /// When the message came.
    pub arrived: UnixTime,
    /// What waits.
    pub items: &'a [WaitingItem<'a>],
    /// When the message will be delivered whole, attachments included, to the mailbox.
    pub whole_at: UnixTime,
    /// Where the attachments can be had until then; the relay's own, not a stranger's.
    pub link: Option<&'a str>,
}

/// One attachment that waits.
#[derive(Clone, Copy, Debug)]
pub struct WaitingItem<'a> {
    /// Its file name.
    pub name: &'a str,
    /// Its octets.
    pub size: u64,
}

impl ExpiryNotice<'_> {
    /// The notice as a message, to be sent in [`super::envelope`].
    pub fn message(&self, stamp: &Stamp<'_>) -> Vec<u8> {
        let mut header = stamp.header(self.to, "Attachments are waiting for you", "auto-generated");
        header.field("Content-Type", &[Line::Word("text/plain; charset=utf-8")]);
        header.field("Content-Transfer-Encoding", &[Line::Word("quoted-printable")]);
        header.blank();
        let mut message = header.into_string();
        message.push_str(&quoted_printable::encode(self.text().as_bytes()));
        message.into_bytes()
    }

    fn text(&self) -> String {
        let mut text = format!(
            "Your computer has not fetched the attachments of this message yet:\n\n    Subject: {}\n    From: {}\n    \
             Received: {}\n\n",
            shown(self.subject),
            shown(self.sender),
            date(self.arrived)
        );
        for item in self.items.iter().take(NOTICE_ITEMS_MAX) {
            text.push_str(&format!("    - {} ({})\n", shown(item.name), size(item.size)));
        }
        if let Some(more) = self.items.len().checked_sub(NOTICE_ITEMS_MAX).filter(|more| *more > 0) {
            text.push_str(&format!("    - and {more} more\n"));
        }
        text.push_str(&format!(
            "\nStart Lighter on your computer, and they are fetched by themselves.\n\nOtherwise the whole message, \
             attachments included, is delivered to your mailbox on\n{}. Nothing is lost either way.\n",
            date(self.whole_at)
        ));
        if let Some(link) = self.link {
            text.push_str(&format!("\nUntil then they can be had here as well:\n{link}\n"));
        }
        text
    }
}

/// A size for people.
fn size(octets: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if octets < 1024 {
        return format!("{octets} bytes");
    }
    let mut tenths = octets.saturating_mul(10) / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use mail_parser::MessageParser;

    use super::*;

    const STAMP: Stamp<'static> =
        Stamp { host_name: "mx.example.org", now: UnixTime(1_795_260_136), chance: [7; 16] };

    #[test]
    fn a_notice_names_what_waits_and_until_when() {
        let to = "alice@example.org".parse().unwrap();
        let items =
            [WaitingItem { name: "Übersicht.pdf", size: 26_214_400 }, WaitingItem { name: "b.txt", size: 7 }];
        let notice = ExpiryNotice {
            to: &to,
            subject: "Ürlaub",
            sender: "Bob <bob@example.net>",
            arrived: UnixTime(1_795_000_000),
            items: &items,
            whole_at: UnixTime(1_797_500_000),
            link: Some("https://files.example.org/t/abc"),
        };
        let message = notice.message(&STAMP);
        assert!(message.is_ascii());
        let parsed = MessageParser::new().parse(&message).unwrap();
        let text = parsed.body_text(0).unwrap();
        for expected in [
            "Subject: Ürlaub",
            "- Übersicht.pdf (25.0 MiB)",
            "- b.txt (7 bytes)",
            "Thu, 17 Dec 2026 09:33:20 +0000",
            "https://files.example.org/t/abc",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert_eq!(parsed.header_raw("Auto-Submitted").unwrap().trim(), "auto-generated");
    }

    #[test]
    fn bad_input_20_and_21_hostile_names_and_subjects_are_harmless_and_bounded() {
        let to = "alice@example.org".parse().unwrap();
        let name = "x\r\n.\r\n\0\u{202e}fdp.exe".to_owned() + &"n".repeat(4096);
        let items = vec![WaitingItem { name: &name, size: u64::MAX }; 1_000];
        let notice = ExpiryNotice {
            to: &to,
            subject: "s\r\n\r\nBcc: v@example.org",
            sender: "\u{200f}\u{feff}",
            arrived: UnixTime(u64::MAX),
            items: &items,
            whole_at: UnixTime(0),
            link: None,
        };
        let message = notice.message(&STAMP);
        assert!(message.len() < 40_000);
        let text = MessageParser::new().parse(&message).unwrap().body_text(0).unwrap().into_owned();
        assert!(!text.contains(['\0', '\u{202e}', '\u{200f}', '\u{feff}']));
        assert!(!text.lines().any(|line| line.starts_with("Bcc:") || line == "."));
        assert!(text.contains("and 950 more"));
    }

    #[test]
    fn sizes_are_for_people() {
        for (octets, shown) in
            [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (1_572_864, "1.5 MiB")]
        {
            assert_eq!(size(octets), shown);
        }
        assert_eq!(size(1 << 40), "1.0 TiB");
    }
}
