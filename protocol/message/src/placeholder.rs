//! The small readable part that stands where an attachment was.
//!
//! `text/html` in plain ASCII, 7bit, lines of at most 76 characters: nothing that a server on the way would encode
//! anew. Names and types come from strangers: whatever is not a letter, a digit or harmless punctuation is written as a
//! character reference, and a line never begins with what came from outside.

use lighter_protocol::{DeliveryId, UnixTime};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::line_end::LineEnd;
use crate::manifest::PartEntry;
use crate::name::{percent_encode, sanitize_media_type, sanitize_name};
use crate::stub::StubContext;

/// Characters of a line, its line end left out.
const LINE_LEN: usize = 76;

/// A placeholder for one part.
pub(crate) struct Placeholder<'a> {
    pub(crate) part: &'a PartEntry,
    /// Its number in the delivery, from 0.
    pub(crate) number: u32,
    pub(crate) context: &'a StubContext,
    /// Whether it is the whole message's body.
    pub(crate) is_root: bool,
}

/// The last line of the placeholders of a delivery.
pub(crate) fn end_mark(delivery: DeliveryId) -> String {
    format!("<!-- Lighter-End: {delivery} -->")
}

impl Placeholder<'_> {
    /// Appends the placeholder: fields, a blank line, the card, the end mark.
    pub(crate) fn write(&self, line_end: LineEnd, out: &mut Vec<u8>) {
        let mut text = Lines { out, line_end };
        let name = sanitize_name(&self.part.name);
        if self.is_root {
            text.line("MIME-Version: 1.0");
        }
        text.line("Content-Type: text/html; charset=us-ascii");
        text.line("Content-Transfer-Encoding: 7bit");
        text.parameters("Content-Disposition: inline", "filename", &format!("{name}.html"));
        if let Some(link) = self.link(&name) {
            text.line("X-Mozilla-Cloud-Part: cloudFile;");
            text.line(&format!(" url={link};"));
            text.line(&format!(" name=\"{}\"", ascii_name(&name)));
        }
        text.line("");
        self.card(&name, &mut text);
        text.line(&end_mark(self.context.delivery));
    }

    fn card(&self, name: &str, text: &mut Lines<'_>) {
        let media_type = sanitize_media_type(&self.part.media_type);
        let head = include_str!("placeholder/head.html");
        head.lines().for_each(|line| text.line(line));
        text.line("<td style=\"padding:16px 0 16px 16px;vertical-align:top;width:48px\">");
        text.line("<div class=\"k\" style=\"width:48px;height:48px;line-height:48px;");
        text.line("border-radius:10px;background:#0f5fd7;color:#ffffff;text-align:center;");
        text.line(&format!("font-size:13px;font-weight:700\">{}</div></td>", badge(name)));
        text.line("<td style=\"padding:16px;vertical-align:top\">");
        text.line("<div class=\"n\" style=\"font-size:16px;font-weight:600;color:#16181d;");
        text.line("word-break:break-word\"><b");
        text.prose(name);
        text.line("</div>");
        text.line("<div class=\"t\" style=\"font-size:13px;color:#5b6270;padding-top:2px\"><b");
        text.prose(&format!("{media_type} · {}", size_text(self.part.size)));
        text.line("</div>");
        match self.link(name) {
            Some(_) => self.landing(text),
            None => {
                text.line("<div class=\"t\" style=\"font-size:14px;color:#16181d;padding-top:10px\">");
                text.line("This attachment was sent straight to your attachment store.");
                text.line("Your Lighter agent shows it in this place.</div>");
            }
        }
        text.line("<div class=\"t\" style=\"font-size:11px;color:#5b6270;padding-top:12px;");
        text.line("font-family:ui-monospace,Menlo,Consolas,monospace;word-break:break-all\">");
        text.line("BLAKE3<br>");
        text.line(&format!("{}</div>", self.part.blob));
        text.line("</td></tr></table>");
        text.line("</body></html>");
    }

    /// Button and expiry.
    fn landing(&self, text: &mut Lines<'_>) {
        let Some(landing) = &self.context.landing else { return };
        text.line("<div style=\"padding-top:12px\"><a class=\"b\" href=");
        text.line(&format!("\"{}\"", escape(landing)));
        text.line("style=\"display:inline-block;padding:8px 18px;border-radius:8px;");
        text.line("background:#0f5fd7;color:#ffffff;font-size:14px;font-weight:600;");
        text.line("text-decoration:none\">Open attachment</a></div>");
        if let Some(day) = self.context.expires.and_then(day) {
            text.line("<div class=\"t\" style=\"font-size:13px;color:#5b6270;padding-top:8px\">");
            text.line(&format!("Kept for you until {day}.</div>"));
        }
    }

    /// The address of this very attachment.
    fn link(&self, name: &str) -> Option<String> {
        let landing = self.context.landing.as_ref()?;
        Some(format!("{landing}{}/{}", self.number, percent_encode(name)))
    }
}

/// Writes lines, and text that has to be broken into some.
struct Lines<'a> {
    out: &'a mut Vec<u8>,
    line_end: LineEnd,
}

impl Lines<'_> {
    fn line(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(self.line_end.as_bytes());
    }

    /// Text from outside, behind a line that ends in `<b`. Its lines are broken within that tag of an empty element,
    /// which shows nothing, not even a blank; and none begins with what came from outside.
    fn prose(&mut self, text: &str) {
        let mut line = String::from("></b>");
        for c in text.chars() {
            let character = escape_char(c);
            if line.len() + character.len() + "<b".len() > LINE_LEN {
                line.push_str("<b");
                self.line(&line);
                line = String::from("></b>");
            }
            line.push_str(&character);
        }
        self.line(&line);
    }

    /// A field with one parameter: quoted where it is ASCII and short, otherwise in the pieces of RFC 2231.
    fn parameters(&mut self, field: &str, name: &str, value: &str) {
        self.line(&format!("{field};"));
        if value.len() < LINE_LEN - name.len() - 5 && value.is_ascii() {
            self.line(&format!(" {name}=\"{}\"", ascii_name(value)));
            return;
        }
        let encoded = format!("utf-8''{}", percent_encode(value));
        let mut rest = encoded.as_str();
        let mut number = 0;
        while !rest.is_empty() {
            let mut len = rest.len().min(50);
            // A percent sign and its digits stay together.
            while len < rest.len() && rest.as_bytes()[..len].iter().rev().take(2).any(|byte| *byte == b'%') {
                len -= 1;
            }
            let (piece, later) = rest.split_at(len);
            let more = if later.is_empty() { "" } else { ";" };
            self.line(&format!(" {name}*{number}*={piece}{more}"));
            rest = later;
            number += 1;
        }
    }
}

/// Three or four letters that say what kind of file it is.
fn badge(name: &str) -> String {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let is_plain =
        (1..=4).contains(&extension.len()) && extension.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_plain { extension.to_ascii_uppercase() } else { "FILE".to_owned() }
}

/// A size that people read, in decimal units: `25.0 MB`.
fn human(size: u64) -> String {
    let mut unit = 1_u128;
    for name in ["kB", "MB", "GB", "TB", "PB"] {
        unit *= 1_000;
        let tenths = (u128::from(size) * 10 + unit / 2) / unit;
        if tenths < 10_000 {
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
    }
    format!("{} EB", u128::from(size) / (unit * 1_000))
}

/// A size for people, and the exact one where that says more: `25.0 MB (25,000,000 bytes)`.
fn size_text(size: u64) -> String {
    match size {
        1 => "1 byte".to_owned(),
        0..1_000 => format!("{size} bytes"),
        _ => format!("{} ({} bytes)", human(size), grouped(size)),
    }
}

/// A number with commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `21 December 2026`, in UTC.
fn day(time: UnixTime) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(i64::try_from(time.0).ok()?).ok()?;
    time.format(format_description!("[day padding:none] [month repr:long] [year]")).ok()
}

fn escape(text: &str) -> String {
    text.chars().map(escape_char).collect()
}

/// A character as it stands in HTML, in text and in attributes.
fn escape_char(c: char) -> String {
    match c {
        'a'..='z'
        | 'A'..='Z'
        | '0'..='9'
        | ' '
        | '.'
        | ','
        | '-'
        | '_'
        | '('
        | ')'
        | '/'
        | ':'
        | '+'
        | '~'
        | '='
        | '?'
        | '%'
        | '#'
        | '@'
        | '!'
        | '$'
        | '*'
        | '['
        | ']' => c.to_string(),
        c => format!("&#{};", u32::from(c)),
    }
}

/// A name for a quoted string: ASCII, no quotes, no backslashes, short enough for a line.
fn ascii_name(name: &str) -> String {
    name.chars()
        .take(60)
        .map(|c| if c.is_ascii_graphic() && !"\"\\".contains(c) || c == ' ' { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests;
