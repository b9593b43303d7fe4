//! The pages: plain HTML without scripts, light and dark. Everything out of mail is escaped, and so is the rest.

use std::fmt::Write;

use lighter_message::name::{is_invisible, percent_encode, sanitize_name};
use lighter_protocol::{Day, PeerId};

use super::attachments::{Attachment, DeliveryView};

/// The stylesheet, served beside the pages: they need no inline style, and their policy allows none.
pub(super) const STYLE: &str = include_str!("style.css");
/// Where it is served. The number goes up with every change: it may be cached.
pub(super) const STYLE_PATH: &str = "/style-1.css";
/// What of a subject or sender is shown.
const TEXT_CHARS_MAX: usize = 200;

/// What there is behind a ticket.
pub(super) fn landing<B>(ticket: &str, view: &DeliveryView<B>) -> String {
    let count = view.attachments.len();
    let title = lighter_shell::count(count, "attachment", "attachments");
    let mut body = String::new();
    heading(&mut body, &title, view);
    body.push_str("<ul class=\"files\">\n");
    for (number, attachment) in view.attachments.iter().enumerate() {
        file(&mut body, ticket, number, attachment);
    }
    body.push_str("</ul>\n");
    let _ = writeln!(
        body,
        "<p class=\"note\">Available here until <time datetime=\"{}\">{}</time>. Looking at this page uses nothing up. \
         Whoever has this link can download these files: do not pass it on.</p>",
        iso_date(view.expires),
        long_date(view.expires)
    );
    document(&title, &body)
}

/// The relay has let go of the files: this store has them.
pub(super) fn gone<B>(view: &DeliveryView<B>, store: &PeerId) -> String {
    let mut body = String::new();
    heading(&mut body, "These files have moved", view);
    body.push_str("<ul class=\"files\">\n");
    for attachment in &view.attachments {
        let _ = writeln!(
            body,
            "<li><div class=\"file\"><span class=\"name\">{}</span><span class=\"size\">{}</span></div></li>",
            escape(&sanitize_name(&attachment.name)),
            human_size(attachment.size)
        );
    }
    body.push_str("</ul>\n");
    let _ = writeln!(
        body,
        "<p>Your own attachment store fetched and confirmed them, so the mail server no longer keeps a copy. \
         Open them in Lighter on the device that has this store:</p>\n<p class=\"hash\">{}</p>",
        escape(&store.to_string())
    );
    document("These files have moved", &body)
}

/// One page for tickets that are unknown and revoked.
pub(super) fn not_found() -> String {
    let body = "<h1>This link opens nothing</h1>\n<p>It may have been withdrawn, have expired long ago, or not have been \
                copied whole. If the files matter, ask the sender to send them again.</p>\n";
    document("This link opens nothing", body)
}

/// Their day is over.
pub(super) fn expired(day: Day) -> String {
    let body = format!(
        "<h1>These files have expired</h1>\n<p>They could be had here until <time datetime=\"{}\">{}</time>, and have \
         been deleted since. If they matter, ask the sender to send them again.</p>\n",
        iso_date(day),
        long_date(day)
    );
    document("These files have expired", &body)
}

/// Every copy was reached, and none is right.
pub(super) fn damaged() -> String {
    let body = "<h1>This file is damaged</h1>\n<p>None of the copies that the mail server keeps is whole, and a wrong one \
                is not given out. Those who run the server have been told. If the file matters, ask the sender to send \
                it again.</p>\n";
    document("This file is damaged", body)
}

/// The message was withdrawn.
pub(super) fn withdrawn() -> String {
    let body = "<h1>These files were withdrawn</h1>\n<p>The message that they belong to was not delivered, and its \
                sender has been told.</p>\n";
    document("These files were withdrawn", body)
}

/// The catalog or the array does not answer, or too many ask.
pub(super) fn later() -> String {
    let body = "<h1>Not just now</h1>\n<p>The files are safe, but cannot be read at the moment. Please try again in a \
                minute.</p>\n";
    document("Not just now", body)
}

fn heading<B>(body: &mut String, title: &str, view: &DeliveryView<B>) {
    let _ = writeln!(body, "<h1>{}</h1>", escape(title));
    let (subject, from) = (shown(&view.subject), shown(&view.from));
    if !subject.is_empty() {
        let _ = writeln!(body, "<p class=\"subject\"><bdi>{}</bdi></p>", escape(&subject));
    }
    if !from.is_empty() {
        let _ = writeln!(body, "<p class=\"from\">from <bdi>{}</bdi></p>", escape(&from));
    }
}

fn file<B>(body: &mut String, ticket: &str, number: usize, attachment: &Attachment<B>) {
    let name = sanitize_name(&attachment.name);
    let _ = writeln!(
        body,
        "<li><a class=\"file\" href=\"/t/{ticket}/{number}/{}\" download><span class=\"name\">{}</span>\
         <span class=\"size\">{}</span></a><details><summary>Check it</summary><p>After downloading, \
         <code>b3sum</code> of the file gives:</p><p class=\"hash\">{}</p></details></li>",
        percent_encode(&name),
        escape(&name),
        human_size(attachment.size),
        attachment.id
    );
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex, nofollow\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{}</title>\n<link rel=\"stylesheet\" href=\"{STYLE_PATH}\">\n</head>\n<body>\n<main>\n{body}</main>\n\
         </body>\n</html>\n",
        escape(title)
    )
}

/// A header's text in one line: no control or formatting characters, not too long.
fn shown(text: &str) -> String {
    let visible: String =
        text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|c| !is_invisible(*c)).collect();
    let visible = visible.trim();
    match visible.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &visible[..end]),
        None => visible.to_owned(),
    }
}

/// For text and for quoted attribute values alike.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// In the units that people's file managers use: powers of 1000, one decimal below 10.
fn human_size(size: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if size < 1_000 {
        return if size == 1 { "1 byte".to_owned() } else { format!("{size} bytes") };
    }
    let mut tenths = size / 100;
    let mut unit = 0;
    while tenths >= 9_995 && unit + 1 < UNITS.len() {
        tenths = (tenths + 500) / 1_000;
        unit += 1;
    }
    match tenths {
        0..100 => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
        _ => format!("{} {}", (tenths + 5) / 10, UNITS[unit]),
    }
}

/// Julian day number of 1970-01-01.
const EPOCH_JULIAN_DAY: i64 = 2_440_588;

fn date(day: Day) -> Option<time::Date> {
    let julian_day = i32::try_from(EPOCH_JULIAN_DAY + i64::from(day.0)).ok()?;
    time::Date::from_julian_day(julian_day).ok()
}

/// As 2026-11-21.
pub(super) fn iso_date(day: Day) -> String {
    date(day).map_or_else(String::new, |date| date.to_string())
}

fn long_date(day: Day) -> String {
    match date(day) {
        Some(date) => format!("{} {} {}", date.day(), date.month(), date.year()),
        None => "the end of time".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_say_them() {
        for (size, expected) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (999, "999 bytes"),
            (1_000, "1.0 kB"),
            (262_144, "262 kB"),
            (999_499, "999 kB"),
            (999_600, "1.0 MB"),
            (25_000_000, "25 MB"),
            (1_500_000_000, "1.5 GB"),
            (u64::MAX, "18447 PB"),
        ] {
            assert_eq!(human_size(size), expected, "{size}");
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar_in_2106_as_well() {
        assert_eq!(
            (iso_date(Day(0)), long_date(Day(20_778))),
            ("1970-01-01".into(), "21 November 2026".into())
        );
        assert_eq!(long_date(Day(49_710)), "7 February 2106");
        assert!(!long_date(Day(u32::MAX)).is_empty());
    }

    #[test]
    fn bad_input_21_text_from_mail_shows_as_text() {
        assert_eq!(escape("<script>\"&'</script>"), "&lt;script&gt;&quot;&amp;&#39;&lt;/script&gt;");
        assert_eq!(shown("a\r\n\u{202e}b\0c\td"), "a  bc d");
        assert_eq!(shown(&"x".repeat(5_000)).chars().count(), TEXT_CHARS_MAX + 1);
    }
}
