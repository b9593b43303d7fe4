//! Names and types of attachments as header fields and links: hostile input, made harmless.

use lighter_message::name::{percent_encode, sanitize_media_type, sanitize_name};

/// The value of Content-Disposition (RFC 6266): a download, under a clean name. ASCII, in every case.
pub fn content_disposition(name: &str) -> String {
    let name = sanitize_name(name);
    let plain: String = name.chars().map(|c| if is_quotable(c) { c } else { '_' }).collect();
    let encoded = percent_encode(&name);
    if plain == name {
        format!("attachment; filename=\"{plain}\"")
    } else {
        // RFC 6266 appendix D: first for those that do not know the second.
        format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
    }
}

/// Printable ASCII that needs no escaping in a quoted string, and that no browser decodes (`%`).
fn is_quotable(c: char) -> bool {
    matches!(c, ' '..='~') && !matches!(c, '"' | '\\' | '%')
}

/// The media type to send. Types that a browser would run are sent as bytes, should it forget that it is a download.
pub fn content_type(declared: &str) -> String {
    let media_type = sanitize_media_type(declared);
    let is_active = media_type.contains("html")
        || media_type.contains("xml")
        || media_type.contains("script")
        || media_type.contains("svg")
        || media_type.starts_with("multipart/")
        || media_type.starts_with("message/")
        || media_type == "application/pdf"
        || media_type == "application/x-shockwave-flash";
    if is_active { "application/octet-stream".to_owned() } else { media_type }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_name_is_sent_plainly() {
        assert_eq!(content_disposition("report 1.pdf"), "attachment; filename=\"report 1.pdf\"");
    }

    #[test]
    fn a_name_in_another_script_is_sent_in_both_forms() {
        assert_eq!(
            content_disposition("Bär.txt"),
            "attachment; filename=\"B_r.txt\"; filename*=UTF-8''B%C3%A4r.txt"
        );
    }

    #[test]
    fn bad_input_20_no_name_breaks_out_of_the_header() {
        let hostile = [
            "a\r\nSet-Cookie: x=1",
            "a\"; filename=\"b.exe",
            "..\\..\\evil.exe",
            "../../etc/passwd",
            "\u{202e}fdp.exe",
            "",
            "...",
            "CON",
            "a\0b",
            "x\u{85}y",
            "100%41.txt",
            "a;b",
            &"ü".repeat(4096),
        ];
        for name in hostile {
            let value = content_disposition(name);
            assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{value}");
            assert!(axum::http::HeaderValue::from_str(&value).is_ok());
            let quoted = value.strip_prefix("attachment; filename=\"").unwrap();
            let (inside, rest) = quoted.split_once('"').unwrap();
            assert!(!inside.contains(['/', '\\', '%']) && !inside.is_empty(), "{value}");
            assert!(rest.is_empty() || rest.starts_with("; filename*=UTF-8''"), "{value}");
            assert!(!rest.contains("%0D") && !rest.contains("%0A") && !rest.contains("%E2%80%AE"), "{value}");
        }
    }

    #[test]
    fn bad_input_21_what_a_browser_would_run_is_sent_as_bytes() {
        for declared in [
            "text/html",
            "TEXT/HTML",
            "image/svg+xml",
            "application/xhtml+xml",
            "text/javascript",
            "message/rfc822",
            "text/html; charset=x",
            "a\r\nb: c",
            "",
            "x",
            "multipart/mixed",
            "application/pdf",
        ] {
            assert_eq!(content_type(declared), "application/octet-stream", "{declared}");
        }
        assert_eq!(content_type("image/jpeg"), "image/jpeg");
        assert_eq!(content_type("Text/Plain"), "text/plain");
    }

    #[test]
    fn links_hold_nothing_but_unreserved_characters() {
        assert_eq!(percent_encode("a b/ü\"<.txt"), "a%20b%2F%C3%BC%22%3C.txt");
    }
}
