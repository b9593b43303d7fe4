//! Replies as they come from a peer (RFC 5321 §4.2): cut into lines, bounded, made safe.

use crate::limits::{
    AUTH_LINE_LEN_MAX, REPLY_LINE_LEN_MAX, REPLY_LINES_MAX, REPLY_TEXT_LEN_MAX, REPLY_TEXT_LINES_MAX,
};
use crate::reply::{EnhancedStatus, Reply};

/// A complete reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerReply {
    /// 200 to 599.
    pub code: u16,
    /// The text of each line, with no control characters in it.
    pub lines: Vec<String>,
}

/// What a peer sent is not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line does not begin with three digits and a blank or a hyphen, or its code differs from that of the line before.
    #[error("not a reply of three digits")]
    Malformed,
    /// A line without end, or lines without end.
    #[error("reply too long")]
    TooLong,
}

/// Puts replies together from pieces of any length.
///
/// Invariant: `line.len() ≤ REPLY_LINE_LEN_MAX` (during an authentication: `AUTH_LINE_LEN_MAX`),
/// `lines.len() < REPLY_LINES_MAX`.
#[derive(Debug, Default)]
pub struct ReplyReader {
    line: Vec<u8>,
    code: Option<u16>,
    lines: Vec<String>,
    /// Whether a challenge may come.
    has_auth: bool,
}

impl ReplyReader {
    /// A reader that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says whether a challenge may come, whose line may be longer than any reply's (RFC 4954 §4).
    pub(super) fn expect_challenges(&mut self, expected: bool) {
        self.has_auth = expected;
    }

    /// Whether no reply has begun.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty() && self.lines.is_empty()
    }

    /// Takes from `input` up to the end of the next reply. Without one, `input` is used up.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<PeerReply>, ReplyError> {
        while let Some(end) = memchr::memchr(b'\n', input) {
            let (head, tail) = input.split_at(end + 1);
            *input = tail;
            self.extend(head)?;
            let line = std::mem::take(&mut self.line);
            if let Some(reply) = self.take_line(&line)? {
                return Ok(Some(reply));
            }
        }
        let rest = std::mem::take(input);
        self.extend(rest)?;
        Ok(None)
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), ReplyError> {
        let line_len_max = if self.has_auth { AUTH_LINE_LEN_MAX } else { REPLY_LINE_LEN_MAX };
        if self.line.len() + bytes.len() > line_len_max {
            return Err(ReplyError::TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// One line with its line feed. Replies, unlike content, are taken with either line end: nothing hangs on it.
    fn take_line(&mut self, line: &[u8]) -> Result<Option<PeerReply>, ReplyError> {
        let line = line.trim_ascii_end();
        let digits = line.get(..3).ok_or(ReplyError::Malformed)?;
        if !matches!(digits[0], b'2'..=b'5') || !digits.iter().all(u8::is_ascii_digit) {
            return Err(ReplyError::Malformed);
        }
        let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        if self.code.is_some_and(|before| before != code) {
            return Err(ReplyError::Malformed);
        }
        let last = match line.get(3) {
            None | Some(b' ') => true,
            Some(b'-') => false,
            Some(_) => return Err(ReplyError::Malformed),
        };
        self.lines.push(printable(line.get(4..).unwrap_or_default()));
        if last {
            self.code = None;
            return Ok(Some(PeerReply { code, lines: std::mem::take(&mut self.lines) }));
        }
        self.code = Some(code);
        if self.lines.len() >= REPLY_LINES_MAX { Err(ReplyError::TooLong) } else { Ok(None) }
    }
}

/// The text without what could end a line, a header field or a terminal's patience.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl PeerReply {
    /// Its lines kept, for somebody who is told the peer's own words. The enhanced status is taken out where every line
    /// has the same one, so that it is written again as it was.
    pub fn into_verbatim(self) -> Reply {
        let read = |line: &String| EnhancedStatus::read(self.code, line).map(|(status, _)| status);
        let first = self.lines.first().and_then(read);
        let status = first.filter(|_| self.lines.iter().all(|line| read(line) == first));
        let words = self.lines.iter().map(|line| match EnhancedStatus::read(self.code, line) {
            Some((_, words)) if status.is_some() => words,
            _ => line.as_str(),
        });
        let cut = words.map(|line| &line[..line.floor_char_boundary(REPLY_TEXT_LEN_MAX)]);
        let text: Vec<&str> = cut.take(REPLY_TEXT_LINES_MAX).collect();
        Reply { code: self.code, status, text: text.join("\n").into() }
    }

    /// On one line, the enhanced status taken out, the text cut at its limit.
    pub fn into_reply(self) -> Reply {
        let mut status = None;
        let mut text = String::new();
        for line in &self.lines {
            let (found, words) = match EnhancedStatus::read(self.code, line) {
                Some((found, words)) => (Some(found), words),
                None => (None, line.as_str()),
            };
            status = status.or(found);
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(words);
        }
        text.truncate(text.floor_char_boundary(REPLY_TEXT_LEN_MAX));
        Reply { code: self.code, status, text: text.into() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_by(input: &[u8], by: usize) -> Result<Vec<PeerReply>, ReplyError> {
        let mut reader = ReplyReader::new();
        let mut replies = Vec::new();
        for mut piece in input.chunks(by) {
            while !piece.is_empty() {
                replies.extend(reader.read(&mut piece)?);
            }
        }
        Ok(replies)
    }

    #[test]
    fn a_reply_of_several_lines_becomes_one() {
        let input = b"250-mx\r\n250 OK\r\n550-5.1.1 no\r\n550 5.1.1 such user\r\n";
        for by in 1..=input.len() {
            let replies = read_by(input, by).unwrap();
            assert_eq!(replies.len(), 2);
            let reply = replies[1].clone().into_reply();
            assert_eq!(reply.to_string(), "550 5.1.1 no such user");
        }
        assert_eq!(read_by(b"250\n", 1).unwrap()[0].lines, [""]);
    }

    #[test]
    fn a_reply_is_told_word_for_word() {
        for text in
            ["550-5.1.1 no\r\n550 5.1.1 such user\r\n", "535 5.7.8 Bad\r\n", "554-5.7.1 a\r\n554 b\r\n"]
        {
            let reply = read_by(text.as_bytes(), 3).unwrap().remove(0).into_verbatim();
            let mut written = bytes::BytesMut::new();
            reply.write_to(&mut written);
            assert_eq!(written, text);
        }
    }

    #[test]
    fn what_is_not_a_reply_is_told_from_one() {
        for bad in [
            "hello\r\n",
            "25\r\n",
            "99 x\r\n",
            "150 x\r\n",
            "600 x\r\n",
            "2500 x\r\n",
            "250-a\r\n251 b\r\n",
            "\r\n",
        ] {
            assert_eq!(read_by(bad.as_bytes(), 100), Err(ReplyError::Malformed), "{bad:?}");
        }
        assert_eq!(read_by(&[b'2'; 10_000], 100), Err(ReplyError::TooLong));
        assert_eq!(read_by("250-x\r\n".repeat(200).as_bytes(), 100), Err(ReplyError::TooLong));
    }

    #[test]
    fn a_hostile_text_is_bounded_and_harmless() {
        let input = format!("550 \u{1b}[2J\u{7f}{}\r\n", "é".repeat(900));
        let reply = read_by(input.as_bytes(), 7).unwrap().remove(0).into_reply();
        assert!(reply.text.len() <= REPLY_TEXT_LEN_MAX);
        assert!(!reply.text.contains(|c: char| c.is_control()));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_replies(input in "(250[- ][a-z]{0,5}\r\n){0,10}", by in 1usize..9) {
            prop_assert_eq!(read_by(input.as_bytes(), by), read_by(input.as_bytes(), 1_000));
        }
    }
}
