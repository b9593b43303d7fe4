//! What stands beside a file in the outbox, in words: what became of it, and what is to be done where something is.
//!
//! A note is a view: it can be removed at any time. One is written under another name and renamed, so nobody reads half
//! of it; a file of the user's own that has a note's name is left alone.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use time::OffsetDateTime;

use lighter_protocol::UnixTime;

use super::names::{note_of, shown};
use super::record::{Fate, Record};
use crate::limits::OUTBOX_NOTE_LEN_MAX;
use crate::views::harmless;

/// How every note begins: what does not is not the agent's.
const MARK: &str = "Lighter: ";

/// A day, as it stands in names and texts.
pub(crate) fn day(time: UnixTime) -> String {
    let time = i64::try_from(time.0).ok().and_then(|time| OffsetDateTime::from_unix_timestamp(time).ok());
    let date = time.unwrap_or(OffsetDateTime::UNIX_EPOCH).date();
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

/// It cannot be sent as it is.
pub(crate) fn wrong(name: &OsStr, why: &str) -> String {
    text(name, "NOT SENT.", why)
}

/// It is being sent.
pub(crate) fn sending(record: &Record) -> String {
    let mut lines = format!("To {}.", list(record));
    lines.push_str(&fates(record));
    text(&record.key.name, "being sent.", &lines)
}

/// It waits for others to be sent.
pub(crate) fn waiting(record: &Record) -> String {
    text(&record.key.name, "waiting for its turn.", &format!("To {}.", list(record)))
}

/// It did not go yet.
pub(crate) fn retrying(record: &Record, why: &str) -> String {
    let lines = format!(
        "To {}.\nIt could not be sent yet, because {why}.\nIt is tried again by itself: nothing needs to be done.{}",
        list(record),
        fates(record)
    );
    text(&record.key.name, "not sent yet.", &lines)
}

/// Nobody can get it.
pub(crate) fn failed(record: &Record) -> String {
    let lines = format!(
        "{}\n\nIt is not tried again as it is. When what is wrong has been mended, save the file again or give it another \
         name: then it is sent as a new message. Or put it into the right folder, or remove it.",
        fates(record).trim_start()
    );
    text(&record.key.name, "NOT SENT.", &lines)
}

/// It was sent; `is_here`: it lies beside the note.
pub(crate) fn sent(record: &Record, is_here: bool) -> String {
    let all = record.fates.values().all(|fate| !matches!(fate, Fate::Refused { .. } | Fate::NotTaken { .. }));
    let mut lines = fates(record).trim_start().to_owned();
    if !is_here {
        lines.push_str(
            "\n\nIt was changed, moved or removed after it was sent: what was sent is not kept here.",
        );
    }
    if !all {
        lines.push_str(
            "\n\nTo send it again to somebody, put it into a folder with their mailbox as its name.",
        );
    }
    let how = if all { "sent." } else { "sent, BUT NOT TO EVERYBODY." };
    text(&record.key.name, &format!("{how} {}", day(record.identity.date)), &lines)
}

fn list(record: &Record) -> String {
    record.to.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn fates(record: &Record) -> String {
    let mut lines = String::new();
    for (recipient, fate) in &record.fates {
        let said = match fate {
            Fate::ToStore => {
                "the message went by mail; the attachments go from this computer to their store as soon \
                              as it takes them: leave lighter-agent running"
                    .to_owned()
            }
            Fate::InStore => "the message went by mail, and the attachments are in their store".to_owned(),
            Fate::Whole { why } => format!("all of it went by mail, because {why}"),
            Fate::NotTaken { why } => {
                format!(
                    "THE ATTACHMENTS DID NOT ARRIVE: the message went by mail, and then their store did not take \
                         them: {why}"
                )
            }
            Fate::Refused { why } => format!("NOT SENT: {why}"),
        };
        let _ = write!(lines, "\n{recipient}: {said}.");
    }
    lines
}

fn text(name: &OsStr, how: &str, lines: &str) -> String {
    let mut text = harmless(&format!("{MARK}{how}\n\n{}\n{lines}\n", shown(name)));
    text.truncate(text.floor_char_boundary(OUTBOX_NOTE_LEN_MAX));
    text
}

/// Writes the note of `name` in `folder`, unless it says the same already. Blocks on the disk.
///
/// # Errors
/// What the system says.
pub(crate) fn put(folder: &Path, name: &OsStr, text: &str) -> io::Result<()> {
    let path = folder.join(note_of(name));
    match read(&path)? {
        Some(there) if there == text.as_bytes() => return Ok(()),
        Some(there) if !there.starts_with(MARK.as_bytes()) => return Ok(()),
        _ => {}
    }
    let temporary = folder.join(format!(".lighter-{:032x}.part", rand::random::<u128>()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| std::fs::rename(&temporary, &path));
    written.inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}

/// Removes a note that says nothing any more, by its own name.
pub(crate) fn remove(folder: &Path, note: &OsString) {
    let path = folder.join(note);
    if read(&path).is_ok_and(|there| there.is_some_and(|there| there.starts_with(MARK.as_bytes()))) {
        let _ = std::fs::remove_file(&path);
    }
}

/// The beginning of a note; none where there is none. A link, a folder and the like are the user's own.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_file() => return Ok(Some(Vec::new())),
        Ok(_) => {}
    }
    let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let mut bytes = Vec::new();
    file.take(OUTBOX_NOTE_LEN_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_20_a_note_is_harmless_and_replaces_only_notes() {
        let folder = tempfile::tempdir().unwrap();
        let name = OsString::from("a\u{1b}[2J\u{202e}\n.pdf");
        put(folder.path(), &name, &wrong(&name, "Why.")).unwrap();
        let text = std::fs::read_to_string(folder.path().join(note_of(&name))).unwrap();
        assert_eq!(text, "Lighter: NOT SENT.\n\na[2J.pdf\nWhy.\n");
        for own in ["mine", ""] {
            std::fs::write(folder.path().join("b.status.txt"), own).unwrap();
            put(folder.path(), OsStr::new("b"), "Lighter: x").unwrap();
            remove(folder.path(), &"b.status.txt".into());
            assert_eq!(std::fs::read(folder.path().join("b.status.txt")).unwrap(), own.as_bytes());
        }
        let victim = folder.path().join("victim");
        std::os::unix::fs::symlink(&victim, folder.path().join("c.status.txt")).unwrap();
        put(folder.path(), OsStr::new("c"), "Lighter: x").unwrap();
        assert!(!victim.exists());
        remove(folder.path(), &note_of(&name));
        assert!(!folder.path().join(note_of(&name)).exists());
        assert_eq!(day(UnixTime(1_795_219_200)), "2026-11-21");
    }
}
