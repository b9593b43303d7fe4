//! A header block, read as far as detaching needs it: which fields, what they say, and whether every reader would
//! agree. Parsing is tolerant, and everything that other readers may take differently is noted as [`Header::odd`].

mod parameters;
mod words;

pub(crate) use parameters::Structured;
pub(crate) use words::decode_words;

use crate::limits::FACT_LEN_MAX;
use crate::line_end::LineEnd;

/// What one header block says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Header {
    /// `Content-Type`: the first one.
    pub(crate) content_type: Option<Structured>,
    /// `Content-Disposition`: the first one.
    pub(crate) disposition: Option<Structured>,
    /// `Content-Transfer-Encoding`, in lower case: the first one.
    pub(crate) transfer_encoding: Option<String>,
    /// `Content-ID`.
    pub(crate) content_id: Option<String>,
    /// Whether there is a `Content-Location`.
    pub(crate) has_location: bool,
    /// Whether there is a field of Lighter's own.
    pub(crate) has_lighter_field: bool,
    /// Whether it begins with a continuation line: in front of a whole message, whatever field is put above it would
    /// swallow that line.
    pub(crate) begins_folded: bool,
    /// Readers may take this block differently: a field that counts is there twice, a line is no field, line ends
    /// are mixed, a value does not parse.
    pub(crate) odd: bool,
    /// How its lines end, where all end alike.
    pub(crate) line_end: Option<LineEnd>,
    /// `Subject`, decoded, bounded.
    pub(crate) subject: Option<String>,
    /// `From`, decoded, bounded.
    pub(crate) from: Option<String>,
    /// `Message-ID`, bounded.
    pub(crate) message_id: Option<String>,
}

impl Header {
    /// Reads a block: fields, and the blank line if there is one.
    pub(crate) fn parse(block: &[u8]) -> Self {
        let begins_folded = matches!(block.first(), Some(b' ' | b'\t'));
        let mut header = Self { begins_folded, ..Self::default() };
        header.note_line_ends(block);
        let mut field: Vec<u8> = Vec::new();
        for (number, line) in block.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let text = strip_line_end(line);
            if text.is_empty() {
                break;
            }
            if matches!(text.first(), Some(b' ' | b'\t')) {
                // RFC 5322 §3.2.2: a continuation. One before any field, or of blanks alone, is read differently.
                header.odd |= field.is_empty() || text.iter().all(|byte| matches!(byte, b' ' | b'\t'));
                field.extend_from_slice(text);
                continue;
            }
            header.take_field(&field);
            field.clear();
            // The line that mailbox files put before a message, and some transports leave there.
            if number == 0 && text.starts_with(b"From ") {
                continue;
            }
            field.extend_from_slice(text);
        }
        header.take_field(&field);
        header
    }

    /// The media type in lower case, `text/plain` where none is given (RFC 2045 §5.2).
    pub(crate) fn media_type(&self) -> &str {
        self.content_type.as_ref().map_or("text/plain", |content_type| &content_type.value)
    }

    /// The file name as the message gives it, decoded but not sanitised.
    pub(crate) fn file_name(&self) -> Option<String> {
        let from_disposition =
            self.disposition.as_ref().and_then(|disposition| disposition.parameter("filename"));
        from_disposition
            .or_else(|| self.content_type.as_ref().and_then(|content_type| content_type.parameter("name")))
    }

    /// Whether the sender calls it an attachment.
    pub(crate) fn is_attachment(&self) -> bool {
        self.disposition.as_ref().is_some_and(|disposition| disposition.value == "attachment")
    }

    fn note_line_ends(&mut self, block: &[u8]) {
        let mut lines = block.split_inclusive(|byte| *byte == b'\n');
        let first = lines.next().and_then(LineEnd::of);
        let alike = lines.all(|line| LineEnd::of(line).is_none() || LineEnd::of(line) == first);
        self.line_end = first.filter(|_| alike);
        let bare_cr = memchr::memchr_iter(b'\r', block).any(|at| block.get(at + 1) != Some(&b'\n'));
        self.odd |= !alike || bare_cr || memchr::memchr(0, block).is_some();
    }

    fn take_field(&mut self, field: &[u8]) {
        if field.is_empty() {
            return;
        }
        let Some((name, value)) = split_field(field) else {
            self.odd = true;
            return;
        };
        if name.len() > 32 || !name.is_ascii() {
            return;
        }
        let first_of = |seen: bool, odd: &mut bool| {
            *odd |= seen;
            !seen
        };
        match String::from_utf8_lossy(name).to_ascii_lowercase().as_str() {
            "content-type" if first_of(self.content_type.is_some(), &mut self.odd) => {
                let content_type = Structured::parse(value);
                // RFC 2045 §5.1: type "/" subtype. Anything else is text/plain to some and unknown to others.
                self.odd |= content_type.odd || content_type.value.matches('/').count() != 1;
                self.content_type = Some(content_type);
            }
            "content-disposition" if first_of(self.disposition.is_some(), &mut self.odd) => {
                let disposition = Structured::parse(value);
                self.odd |= disposition.odd;
                self.disposition = Some(disposition);
            }
            "content-transfer-encoding" if first_of(self.transfer_encoding.is_some(), &mut self.odd) => {
                let encoding = Structured::parse(value);
                self.odd |= encoding.odd;
                self.transfer_encoding = Some(encoding.value);
            }
            "content-id" => self.content_id = Some(bounded(value)),
            "content-location" => self.has_location = true,
            "subject" => self.subject = Some(decode_words(value, FACT_LEN_MAX)),
            "from" => self.from = Some(decode_words(value, FACT_LEN_MAX)),
            "message-id" => self.message_id = Some(bounded(value)),
            name if name.starts_with("lighter-") => self.has_lighter_field = true,
            _ => {}
        }
    }
}

/// A field's name and value. A name has no blanks (RFC 5322 §2.2), also none before the colon: readers differ there.
pub(crate) fn split_field(field: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', field)?;
    let (name, value) = (field.get(..colon)?, field.get(colon + 1..)?);
    let valid = !name.is_empty() && name.iter().all(|byte| byte.is_ascii_graphic() || !byte.is_ascii());
    valid.then_some((name, value))
}

/// `line` without its CR LF or LF.
pub(crate) fn strip_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// `value` as text of one line, trimmed, within the bound.
fn bounded(value: &[u8]) -> String {
    let value = value.get(..FACT_LEN_MAX).unwrap_or(value);
    String::from_utf8_lossy(value).trim().chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn odd(block: &str) {
        assert!(Header::parse(block.as_bytes()).odd, "{block:?} is read in one way only");
    }

    fn even(block: &str) -> Header {
        let header = Header::parse(block.as_bytes());
        assert!(!header.odd, "{block:?} is called odd");
        header
    }

    #[test]
    fn the_fields_that_count_are_read() {
        let header = even(concat!(
            "Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n",
            "From: Alice <alice@example.org>\r\n",
            "Message-ID: <1@example.org>\r\n",
            "Content-Type: Application/PDF;\r\n name=\"a b.pdf\"\r\n",
            "Content-Transfer-Encoding: BASE64\r\n",
            "Content-Disposition: ATTACHMENT; filename=report.pdf\r\n",
            "Content-ID: <part1@x>\r\n\r\n",
        ));
        assert_eq!(header.media_type(), "application/pdf");
        assert_eq!(header.transfer_encoding.as_deref(), Some("base64"));
        assert_eq!(header.file_name().as_deref(), Some("report.pdf"));
        assert!(header.is_attachment());
        assert_eq!(header.subject.as_deref(), Some("Grüße"));
        assert_eq!(header.from.as_deref(), Some("Alice <alice@example.org>"));
        assert_eq!(header.message_id.as_deref(), Some("<1@example.org>"));
        assert_eq!(header.content_id.as_deref(), Some("<part1@x>"));
        assert_eq!(header.line_end, Some(LineEnd::CrLf));
        assert!(!header.has_lighter_field);
    }

    #[test]
    fn nothing_given_is_plain_text() {
        assert_eq!(even("\r\n").media_type(), "text/plain");
        assert_eq!(even("From a@b Sat Jan 1 00:00:00 2000\nSubject: x\n\n").subject.as_deref(), Some("x"));
    }

    #[test]
    fn bad_input_17_a_line_without_a_colon_is_odd() {
        odd("Subject: x\r\nno colon here\r\n\r\n");
        odd(": no name\r\n\r\n");
        odd("blank in name: x\r\n\r\n");
        odd(" continuation of nothing\r\n\r\n");
        odd("Subject: x\r\n  \r\nContent-Type: text/html\r\n\r\n");
        odd("Subject: x\nContent-Type: text/html\r\n\r\n");
        odd("Subject: x\rContent-Type: text/html\r\n\r\n");
        odd("Subject: \0\r\n\r\n");
    }

    #[test]
    fn bad_input_17_a_block_that_begins_with_a_continuation_is_told() {
        assert!(Header::parse(b" at all\r\nContent-Type: application/pdf\r\n\r\n").begins_folded);
        assert!(Header::parse(b"\t\r\n").begins_folded);
        assert!(!even("Subject: x\r\n y\r\n\r\n").begins_folded);
    }

    #[test]
    fn bad_input_18_a_field_that_counts_twice_is_odd() {
        odd("Content-Type: text/html\r\nContent-Type: application/pdf\r\n\r\n");
        odd("Content-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: 7bit\r\n\r\n");
        odd("Content-Disposition: inline\r\nContent-Disposition: attachment\r\n\r\n");
        even("MIME-Version: 1.0\r\nMIME-Version: 1.0\r\nFrom: a\r\nFrom: b\r\n\r\n");
    }

    #[test]
    fn bad_input_22_a_field_of_our_own_is_seen_in_any_case() {
        assert!(even("LIGHTER-message: v=1\r\n\r\n").has_lighter_field);
        assert!(even("Lighter-Anything: x\r\n\r\n").has_lighter_field);
        assert!(!even("X-Lighter: x\r\n\r\n").has_lighter_field);
    }
}
