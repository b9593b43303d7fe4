//! Attachment names, which are hostile input (bad input 20, 21): made fit for a screen, and for a file of the user's.

use crate::limits::NAME_CHARS_MAX;

/// What stands for a name that has nothing usable in it.
const NAMELESS: &str = "attachment";

/// Names that Windows keeps for devices, with any extension: the file may end up on a share.
const DEVICES: [&str; 22] = [
    "con", "prn", "aux", "nul", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8", "com9",
    "lpt1", "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9",
];

/// `name` for a screen: one line, nothing that moves the cursor or turns the reading direction round.
pub fn for_screen(name: &str) -> String {
    let shown: String = name.chars().map(|c| if is_unsafe(c) { '\u{fffd}' } else { c }).collect();
    shorten(if shown.trim().is_empty() { NAMELESS } else { shown.trim() })
}

/// `name` for a file in a folder of the user's: a plain name that stays in that folder.
pub fn for_file(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String =
        base.chars().map(|c| if is_unsafe(c) || ":*?\"<>|".contains(c) { '_' } else { c }).collect();
    // A leading dot hides a file; a trailing dot or blank is cut off by some systems.
    let kept = kept.trim_matches(|c: char| c == '.' || c.is_whitespace());
    if kept.is_empty() || kept.chars().all(|c| c == '_') {
        return NAMELESS.to_owned();
    }
    let stem = kept.split('.').next().unwrap_or(kept).trim_end().to_lowercase();
    if DEVICES.contains(&stem.as_str()) { shorten(&format!("_{kept}")) } else { shorten(kept) }
}

/// Control characters, line and paragraph separators, and the marks that turn text round (Unicode TR 36 §3.6).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{061c}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
}

/// Cuts a long name in its stem, so that the extension stays to be seen.
fn shorten(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    if chars.len() <= NAME_CHARS_MAX {
        return name.to_owned();
    }
    let extension: Vec<char> = match chars.iter().rposition(|c| *c == '.') {
        Some(dot) if chars.len() - dot <= EXTENSION_CHARS_MAX => chars[dot..].to_vec(),
        _ => Vec::new(),
    };
    let stem = NAME_CHARS_MAX - extension.len() - 1;
    chars[..stem].iter().chain(&['…']).chain(&extension).collect()
}

/// Characters of an extension, with its dot, that is kept when a name is cut.
const EXTENSION_CHARS_MAX: usize = 12;

const _: () = assert!(EXTENSION_CHARS_MAX + 1 < NAME_CHARS_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_20_file_names_stay_in_their_folder() {
        let cases = [
            ("../../etc/passwd", "passwd"),
            ("..\\..\\boot.ini", "boot.ini"),
            ("/abs/olute", "olute"),
            ("CON", "_CON"),
            ("con.txt", "_con.txt"),
            ("nul .txt", "_nul .txt"),
            ("a\0b.pdf", "a_b.pdf"),
            ("gpj.\u{202e}exe", "gpj._exe"),
            ("", "attachment"),
            (".", "attachment"),
            ("....", "attachment"),
            ("..", "attachment"),
            (".bashrc", "bashrc"),
            ("x\r\nBcc: y@z", "x__Bcc_ y@z"),
            ("   ", "attachment"),
            ("dir/", "attachment"),
            ("Bericht größer.pdf", "Bericht größer.pdf"),
        ];
        for (name, expected) in cases {
            assert_eq!(for_file(name), expected, "{name:?}");
        }
        let long = for_file(&format!("{}.tar.gz", "x".repeat(4096)));
        assert!(long.chars().count() <= NAME_CHARS_MAX && long.ends_with("….gz"), "{long}");
    }

    #[test]
    fn bad_input_21_names_on_a_screen_move_no_cursor() {
        assert_eq!(for_screen("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(for_screen("\u{202e}fdp.exe"), "\u{fffd}fdp.exe");
        assert_eq!(for_screen("<b>x</b>"), "<b>x</b>");
        assert_eq!(for_screen(" \t"), "\u{fffd}");
    }
}
