//! Names in the outbox: what is never sent, what says that something is not finished, and what the agent itself writes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use lighter_message::name::{is_invisible, sanitize_name};

use crate::output::numbered;

/// Where a recipient's files go when they were sent.
pub(crate) const SENT: &str = "sent";
/// Subject and text of messages, in the outbox, a recipient's folder or the folder that is the message.
pub(crate) const TEMPLATE: &str = "message.txt";
/// How the name of a note ends: `report.pdf.status.txt`.
const NOTE: &str = ".status.txt";

/// Bytes of a file name on disk.
const FILE_NAME_LEN_MAX: usize = 255;
/// Of those, what is left of a name in a longer one: room for a date, a number and the end of a note's.
const STEM_LEN_MAX: usize = 200;

/// What programs call a file while they write it.
const UNFINISHED: [&str; 8] =
    [".part", ".partial", ".crdownload", ".opdownload", ".download", ".filepart", ".tmp", ".temp"];
/// What systems and programs leave behind in folders.
const LITTER: [&str; 3] = ["thumbs.db", "desktop.ini", "__macosx"];

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is never sent: hidden, a lock, a backup, a note.
    Never,
    /// It is being written; under another name it will be finished.
    Unfinished,
    /// It may be sent.
    Normal,
}

impl Kind {
    /// Judges one name.
    pub(crate) fn of(name: &OsStr) -> Self {
        let text = name.to_string_lossy().to_lowercase();
        if UNFINISHED.iter().any(|end| text.ends_with(end)) {
            return Self::Unfinished;
        }
        let is_never = text.starts_with(['.', '~'])
            || text.ends_with('~')
            || LITTER.contains(&text.as_str())
            || is_note(name);
        if is_never { Self::Never } else { Self::Normal }
    }
}

/// Whether a file is a note, by its name.
pub(crate) fn is_note(name: &OsStr) -> bool {
    name.as_bytes().ends_with(NOTE.as_bytes())
}

/// What the note beside `name` is called. One whose name leaves no room for it is told apart by a hash.
pub(crate) fn note_of(name: &OsStr) -> OsString {
    let mut bytes = name.as_bytes().to_vec();
    if bytes.len() + NOTE.len() > FILE_NAME_LEN_MAX {
        let hash = blake3::hash(&bytes).to_hex();
        bytes.truncate(STEM_LEN_MAX);
        bytes.extend_from_slice(format!("… {}", &hash[..16]).as_bytes());
    }
    bytes.extend_from_slice(NOTE.as_bytes());
    OsString::from_vec(bytes)
}

/// What something that was sent on `day` is called: the `number`th of that name. It is a harmless name, whatever it
/// was.
pub(crate) fn sent_as(day: &str, name: &OsStr, number: u32) -> OsString {
    let name = sanitize_name(&name.to_string_lossy());
    let cut = if name.len() <= STEM_LEN_MAX {
        name
    } else {
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        let extension = if extension.len() <= 16 { format!(".{extension}") } else { String::new() };
        format!("{}{extension}", &name[..name.floor_char_boundary(STEM_LEN_MAX - extension.len())])
    };
    format!("{day} {}", numbered(&cut, number)).into()
}

/// A name for people to read, in a line of text.
pub(crate) fn shown(name: &OsStr) -> String {
    name.to_string_lossy().chars().filter(|c| !is_invisible(*c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_are_never_sent() {
        for name in ["a.part", "A.CRDOWNLOAD", "x.tmp", ".tmp"] {
            assert_eq!(Kind::of(OsStr::new(name)), Kind::Unfinished, "{name}");
        }
        for name in [".hidden", "~$report.docx", "report.txt~", ".~lock.a.odt#", "a.status.txt", "Thumbs.db"]
        {
            assert_eq!(Kind::of(OsStr::new(name)), Kind::Never, "{name}");
        }
        for name in ["report.pdf", "part", "a.part.zip", "~", "größe", "status.txt"] {
            assert_eq!(Kind::of(OsStr::new(name)) == Kind::Normal, name != "~", "{name}");
        }
    }

    #[test]
    fn bad_input_20_names_that_the_agent_makes_fit_and_stay_apart() {
        let long = |end: &str| OsString::from(format!("{}{end}", "ä".repeat(126)));
        let (one, other) = (note_of(&long(".a")), note_of(&long(".b")));
        assert!(one != other && one.len() <= FILE_NAME_LEN_MAX && is_note(&one));
        assert_eq!(note_of(OsStr::new("a")), "a.status.txt");
        assert!(is_note(&note_of(OsStr::from_bytes(b"\xff\n"))));
        assert_eq!(sent_as("2026-11-21", OsStr::new("a.pdf"), 1), "2026-11-21 a.pdf");
        assert_eq!(sent_as("2026-11-21", OsStr::new("a.pdf"), 2), "2026-11-21 a (2).pdf");
        for hostile in
            [&long(".pdf")[..], OsStr::from_bytes(b"\xff\r\n\x1b[2J"), OsStr::new("\u{202e}fdp.exe")]
        {
            let name = sent_as("2026-11-21", hostile, 1_000).into_string().unwrap();
            assert!(note_of(OsStr::new(&name)).len() <= FILE_NAME_LEN_MAX, "{name}");
            assert!(!name.chars().any(is_invisible) && !name.contains('/'), "{name:?}");
        }
    }
}
