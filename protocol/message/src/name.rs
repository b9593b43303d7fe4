//! File names and media types from messages, made harmless: they stand in stubs, pages, offers and on disks.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::limits::NAME_LEN_MAX;

/// What is not unreserved in RFC 3986 §2.3: in parameters (RFC 8187) those characters stand for themselves, too.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a file without a usable name is called.
const FALLBACK: &str = "attachment";
/// Bytes of a file name extension that is kept when a name is cut.
const EXTENSION_LEN_MAX: usize = 16;

/// A file name that is one: the last component of what was given, without control and formatting characters, without
/// characters that a file system, shell or header field takes for something else, never a device's name, never hidden,
/// at most [`NAME_LEN_MAX`] bytes, never empty.
pub fn sanitize_name(given: &str) -> String {
    let last = given.rsplit(['/', '\\']).find(|part| !part.trim_matches([' ', '.']).is_empty()).unwrap_or("");
    let visible: String = last.chars().filter(|c| !is_invisible(*c)).map(harmless).collect();
    let trimmed = visible.trim_matches([' ', '.', '_']);
    let trimmed = if trimmed.is_empty() {
        FALLBACK
    } else {
        visible.trim_start_matches([' ', '.']).trim_end_matches([' ', '.'])
    };
    let mut name = shorten(trimmed);
    if is_device(&name) {
        name.insert(0, '_');
    }
    name
}

/// A text for a path of a URL (RFC 3986 §2.1) or an extended parameter (RFC 8187 §3.2.1), from its UTF-8.
pub fn percent_encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A media type that is one: `type/subtype` of RFC 6838's characters, in lower case, `application/octet-stream`
/// otherwise.
pub fn sanitize_media_type(given: &str) -> String {
    let is_token = |text: &str| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
    };
    match given.split_once('/') {
        Some((kind, subtype)) if is_token(kind) && is_token(subtype) => given.to_ascii_lowercase(),
        _ => "application/octet-stream".to_owned(),
    }
}

/// Control characters, and those that change the order or the look of others (bidi, zero width, tags, separators).
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// `_` for what a file system refuses; a plain blank for every kind of blank.
fn harmless(c: char) -> char {
    match c {
        '<' | '>' | ':' | '"' | '|' | '?' | '*' | '\u{fffd}' => '_',
        c if c.is_whitespace() => ' ',
        c => c,
    }
}

/// Cuts a name to its bound; the extension stays.
fn shorten(name: &str) -> String {
    // A device's name gets one byte more.
    let len_max = NAME_LEN_MAX - 1;
    if name.len() <= len_max {
        return name.to_owned();
    }
    let extension = name.rfind('.').map_or("", |dot| &name[dot..]);
    let extension = if extension.len() <= EXTENSION_LEN_MAX { extension } else { "" };
    let stem = &name[..name.floor_char_boundary(len_max - extension.len())];
    format!("{}{extension}", stem.trim_end_matches([' ', '.']))
}

/// Names that Windows takes for devices, with any extension.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |prefix: &str| {
        stem.strip_prefix(prefix).is_some_and(|rest| {
            matches!(rest, "¹" | "²" | "³") || (rest.len() == 1 && rest.as_bytes()[0].is_ascii_digit())
        })
    };
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$")
        || numbered("COM")
        || numbered("LPT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: &str, expected: &str) {
        assert_eq!(sanitize_name(given), expected, "{given:?}");
    }

    #[test]
    fn an_ordinary_name_stays_as_it_is() {
        for name in [
            "report.pdf",
            "Jahresbericht 2026 – Entwurf.docx",
            "名前.txt",
            "a.tar.gz",
            "x_",
            "_init.py",
            "(1) & 'two'.jpg",
        ] {
            check(name, name);
        }
    }

    #[test]
    fn bad_input_20_a_hostile_name_becomes_harmless() {
        check("../../x", "x");
        check("..\\..\\x", "x");
        check("/etc/passwd", "passwd");
        check("C:\\Windows\\system.ini", "system.ini");
        check("folder/", "folder");
        check("CON", "_CON");
        check("con.txt", "_con.txt");
        check("LPT1.tar.gz", "_LPT1.tar.gz");
        check("COM10", "COM10");
        check("a\0b", "ab");
        check("photo\u{202e}gpj.exe", "photogpj.exe");
        check("a\r\nBcc: x", "aBcc_ x");
        check("", "attachment");
        check("....", "attachment");
        check("/", "attachment");
        check("../..", "attachment");
        check(" . . ", "attachment");
        check("\u{202e}\u{200b}", "attachment");
        check(".htaccess", "htaccess");
        check("name. . ", "name");
        check("a<b>c:d\"e|f?g*h", "a_b_c_d_e_f_g_h");
        check("???", "attachment");
        check("a\u{a0}b\u{3000}c", "a b c");
    }

    #[test]
    fn bad_input_20_a_name_of_4_kib_is_cut_and_keeps_its_extension() {
        let name = sanitize_name(&format!("{}.pdf", "ü".repeat(2_048)));
        assert!(name.len() <= NAME_LEN_MAX && name.ends_with(".pdf"), "{name}");
        let name = sanitize_name(&format!("{}.{}", "a".repeat(4_096), "b".repeat(4_096)));
        assert_eq!(name.len(), NAME_LEN_MAX - 1);
    }

    #[test]
    fn a_media_type_is_one_or_is_replaced() {
        assert_eq!(sanitize_media_type("Application/PDF"), "application/pdf");
        for given in [
            "",
            "text",
            "text/",
            "/x",
            "a/b/c",
            "text/html\r\nX: y",
            "text/<b>",
            &format!("a/{}", "b".repeat(64)),
        ] {
            assert_eq!(sanitize_media_type(given), "application/octet-stream", "{given:?}");
        }
    }
}
