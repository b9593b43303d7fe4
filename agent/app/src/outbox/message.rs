//! Subject and text of what is sent from the outbox: a `message.txt` in the folder that is the message, in the
//! recipient's folder or in the outbox, the nearest one; else the name, and a line.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::decide::{Content, Key};
use super::names::{TEMPLATE, shown};
use crate::limits::{BODY_LEN_MAX, SUBJECT_CHARS_MAX};

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) subject: String,
    pub(crate) body: String,
}

/// Finds the words for what lies at `key`. Blocks on the disk.
///
/// # Errors
/// Where a `message.txt` is none; in words for the user.
pub(crate) fn words(root: &Path, key: &Key, content: &Content) -> Result<Words, String> {
    let recipient = root.join(&key.folder);
    let own = content.is_folder.then(|| recipient.join(&key.name));
    let text = own.as_deref().into_iter().chain([recipient.as_path(), root]).find_map(|folder| {
        let path = folder.join(TEMPLATE);
        read(&path).map_err(|why| format!("{} cannot be used: {why}.", path.display())).transpose()
    });
    let default = default(&key.name, content);
    let Some(text) = text.transpose()? else { return Ok(default) };
    let (subject, body) = split(&text);
    Ok(Words {
        subject: subject.map_or(default.subject, one_line),
        body: if body.is_empty() { default.body } else { body.to_owned() },
    })
}

/// The text of a template; none where there is none.
fn read(path: &Path) -> io::Result<Option<String>> {
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits() | rustix::fs::OFlags::NONBLOCK.bits());
    let flags = no_follow.map_err(io::Error::other)?;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(BODY_LEN_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BODY_LEN_MAX {
        return Err(io::Error::other(format!("it has more than {BODY_LEN_MAX} bytes")));
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(Some(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned()))
}

/// `Subject: …` in the first line, and what stands below; a blank line between them belongs to neither.
fn split(text: &str) -> (Option<&str>, &str) {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    match first.split_at_checked(8) {
        Some((field, subject)) if field.eq_ignore_ascii_case("subject:") => {
            let rest = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n')).unwrap_or(rest);
            (Some(subject.trim()).filter(|subject| !subject.is_empty()), rest)
        }
        _ => (None, text),
    }
}

fn default(name: &OsStr, content: &Content) -> Words {
    let subject = one_line(&name.to_string_lossy());
    let body = match (content.is_folder, content.files.len()) {
        (false, _) => format!("{subject} is attached.\n"),
        (true, 1) => "1 file is attached.\n".to_owned(),
        (true, count) => format!("{count} files are attached.\n"),
    };
    Words { subject, body }
}

fn one_line(text: &str) -> String {
    let line: String = shown(OsStr::new(text)).chars().take(SUBJECT_CHARS_MAX).collect();
    if line.trim().is_empty() { "Files".to_owned() } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_template_counts_and_without_one_the_name_does() {
        let root = tempfile::tempdir().unwrap();
        let key = Key { folder: "bob@example.org".into(), name: "Holiday photos".into() };
        let item = root.path().join(&key.folder).join(&key.name);
        std::fs::create_dir_all(&item).unwrap();
        let files = vec![("a".into(), crate::send::FileFacts::example(1, 1)); 3];
        let content = Content { is_folder: true, files };
        let said = || words(root.path(), &key, &content).unwrap();
        let words = |subject: &str, body: &str| Words { subject: subject.to_owned(), body: body.to_owned() };
        assert_eq!(said(), words("Holiday photos", "3 files are attached.\n"));
        std::fs::write(root.path().join(TEMPLATE), "Hello,\nhere it is.\n").unwrap();
        assert_eq!(said(), words("Holiday photos", "Hello,\nhere it is.\n"));
        std::fs::write(root.path().join(&key.folder).join(TEMPLATE), "Subject: For Bob\r\n").unwrap();
        assert_eq!(said(), words("For Bob", "3 files are attached.\n"));
        std::fs::write(item.join(TEMPLATE), "\u{feff}subject:  Sea\u{7}side \n\nHello\n").unwrap();
        assert_eq!(said(), words("Seaside", "Hello\n"));
        std::fs::remove_file(item.join(TEMPLATE)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", item.join(TEMPLATE)).unwrap();
        assert!(super::words(root.path(), &key, &content).unwrap_err().contains("cannot be used"));
    }

    #[test]
    fn bad_input_20_21_a_name_makes_one_line_of_subject() {
        let content = Content { is_folder: false, files: Vec::new() };
        let said = default(OsStr::new("a\r\nBcc: eve@example.org\u{202e}\u{1b}[2J"), &content);
        assert_eq!(said.subject, "aBcc: eve@example.org[2J");
        assert_eq!(default(OsStr::new("\n"), &content).subject, "Files");
    }
}
