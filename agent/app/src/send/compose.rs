//! A message with files, as MIME, read from the beginning to the end: attachments are encoded while they are read, so
//! memory does not grow with them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, Encoding};
use lighter_message::name::sanitize_name;
use lighter_protocol::{Mailbox, UnixTime};
use time::OffsetDateTime;
use time::macros::format_description;

use super::identity::FileFacts;
use super::made::{Made, MadeReader};
use super::words::{encoded_words, parameter, quoted_printable};
use crate::limits::COPY_LEN;
use crate::sharing;

/// What a message says; the same value always makes the same bytes.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) from: Mailbox,
    pub(super) to: Vec<Mailbox>,
    pub(super) cc: Vec<Mailbox>,
    pub(super) subject: String,
    pub(super) body: String,
    pub(super) files: Vec<PathBuf>,
    /// The whole message, where somebody else has made it: nothing else is said then.
    pub(super) made: Option<Made>,
    /// What the files were when it was decided to send them; empty: whatever they are now.
    pub(super) expected: Vec<FileFacts>,
    pub(super) date: UnixTime,
    /// 128 random bits: the Message-ID's and the boundary's.
    pub(super) unique: u128,
}

/// Bytes of a file that become one whole base64 line (RFC 2045 §6.8: 76 characters).
const LINE_BYTES: usize = 57;
/// Bytes of a file that are read and encoded at a time.
const BLOCK_LEN: usize = COPY_LEN / LINE_BYTES * LINE_BYTES;

const _: () = assert!(BLOCK_LEN > 0);

impl Draft {
    /// A message that somebody else made.
    pub(super) fn made(from: Mailbox, made: Made) -> Self {
        Self {
            from,
            to: Vec::new(),
            cc: Vec::new(),
            subject: String::new(),
            body: String::new(),
            files: Vec::new(),
            made: Some(made),
            expected: Vec::new(),
            date: UnixTime(0),
            unique: 0,
        }
    }

    /// Whether there may be something to take out of it.
    pub(super) fn has_attachments(&self) -> bool {
        self.made.is_some() || !self.files.is_empty()
    }

    /// Whom its header shows: every recipient sees these. Blocks on the disk.
    pub(super) fn shown(&self) -> BTreeSet<Mailbox> {
        match &self.made {
            Some(made) => made.beginning().map(|it| sharing::shown::of_header(&it)).unwrap_or_default(),
            None => self.to.iter().chain(&self.cc).cloned().collect(),
        }
    }

    /// The message's bytes.
    pub(super) fn reader(&self) -> DraftReader {
        if let Some(made) = &self.made {
            return DraftReader { segments: [Segment::Made(made.reader())].into(), encoding: base64_lines() };
        }
        let mut segments = vec![Segment::text(self.header())];
        let boundary = self.boundary();
        if !self.files.is_empty() {
            segments.push(Segment::text(format!("--{boundary}\r\n")));
        }
        segments.push(Segment::text(self.text_part()));
        for (at, path) in self.files.iter().enumerate() {
            segments.push(Segment::text(format!("--{boundary}\r\n{}", attachment_header(path))));
            let expected = self.expected.get(at).copied();
            segments.push(Segment::File { path: path.clone(), expected, open: None });
        }
        if !self.files.is_empty() {
            segments.push(Segment::text(format!("--{boundary}--\r\n")));
        }
        DraftReader { segments: segments.into(), encoding: base64_lines() }
    }

    fn header(&self) -> String {
        let list = |mailboxes: &[Mailbox]| {
            let texts: Vec<&str> = mailboxes.iter().map(Mailbox::as_str).collect();
            texts.join(",\r\n ")
        };
        let mut header = format!("Date: {}\r\nFrom: {}\r\n", date(self.date), self.from);
        if !self.to.is_empty() {
            header.push_str(&format!("To: {}\r\n", list(&self.to)));
        }
        if !self.cc.is_empty() {
            header.push_str(&format!("Cc: {}\r\n", list(&self.cc)));
        }
        header.push_str(&format!("Subject: {}\r\n", encoded_words(&self.subject)));
        header.push_str(&format!(
            "Message-ID: <{:032x}@{}>\r\nMIME-Version: 1.0\r\n",
            self.unique,
            self.from.domain()
        ));
        if !self.files.is_empty() {
            header.push_str(&format!(
                "Content-Type: multipart/mixed; boundary=\"{}\"\r\n\r\n",
                self.boundary()
            ));
        }
        header
    }

    fn text_part(&self) -> String {
        format!(
            "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n{}",
            quoted_printable(&self.body)
        )
    }

    /// No text holds it: 128 random bits, drawn after the text was written; base64 has no underscore.
    fn boundary(&self) -> String {
        format!("_{:032x}_", self.unique.rotate_left(64) ^ 0x6c69_6768_7465_7200)
    }
}

fn attachment_header(path: &Path) -> String {
    let given = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = sanitize_name(&given);
    format!(
        "Content-Type: {};\r\n {}\r\nContent-Disposition: attachment;\r\n {}\r\nContent-Transfer-Encoding: base64\r\n\r\n",
        media_type(&name),
        parameter("name", &name),
        parameter("filename", &name)
    )
}

/// The media type that a file's extension stands for; what is not known is bytes. Messages are bytes, too: base64 is
/// not allowed on `message/rfc822` (RFC 2046 §5.2.1).
fn media_type(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    match extension.as_str() {
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        "json" => "application/json",
        "doc" => "application/msword",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "odt" => "application/vnd.oasis.opendocument.text",
        "ods" => "application/vnd.oasis.opendocument.spreadsheet",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "flac" => "audio/flac",
        "mp4" => "video/mp4",
        "mov" => "video/quicktime",
        "mkv" => "video/x-matroska",
        "webm" => "video/webm",
        "txt" | "log" | "md" => "text/plain",
        "csv" => "text/csv",
        "html" | "htm" => "text/html",
        _ => "application/octet-stream",
    }
}

/// A date as messages have it (RFC 5322 §3.3).
fn date(time: UnixTime) -> String {
    let format = format_description!(
        "[weekday repr:short], [day padding:none] [month repr:short] [year] [hour]:[minute]:[second] +0000"
    );
    let time =
        i64::try_from(time.0).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.unwrap_or(OffsetDateTime::UNIX_EPOCH).format(format).unwrap_or_default()
}

fn base64_lines() -> Encoding {
    let mut lines = BASE64.specification();
    lines.wrap.width = 76;
    lines.wrap.separator.push_str("\r\n");
    lines.encoding().expect("base64 in lines of 76 characters is an encoding")
}

/// The message, from its beginning to its end.
#[derive(Debug)]
pub(super) struct DraftReader {
    segments: std::collections::VecDeque<Segment>,
    encoding: Encoding,
}

#[derive(Debug)]
enum Segment {
    Text(Cursor<Vec<u8>>),
    Made(MadeReader),
    File { path: PathBuf, expected: Option<FileFacts>, open: Option<OpenFile> },
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    /// What it was when it was opened: a file that is changed while it is read is not sent as a mixture.
    facts: FileFacts,
    block: Vec<u8>,
    encoded: Cursor<Vec<u8>>,
    ended: bool,
}

impl Segment {
    fn text(text: String) -> Self {
        Self::Text(Cursor::new(text.into_bytes()))
    }

    fn read(&mut self, buffer: &mut [u8], encoding: &Encoding) -> io::Result<usize> {
        match self {
            Self::Text(text) => text.read(buffer),
            Self::Made(made) => made.read(buffer),
            Self::File { path, expected, open } => {
                let open = match open {
                    Some(open) => open,
                    None => open.insert(OpenFile::open(path, *expected)?),
                };
                open.read(buffer, encoding)
            }
        }
    }
}

fn changed() -> io::Error {
    io::Error::other("the file was changed while it was read")
}

impl OpenFile {
    fn open(path: &Path, expected: Option<FileFacts>) -> io::Result<Self> {
        let file = File::open(path)?;
        let facts = FileFacts::of(&file.metadata()?);
        if expected.is_some_and(|expected| !expected.is_same(&facts)) {
            return Err(changed());
        }
        Ok(Self {
            file,
            facts,
            block: Vec::with_capacity(BLOCK_LEN),
            encoded: Cursor::default(),
            ended: false,
        })
    }

    fn read(&mut self, buffer: &mut [u8], encoding: &Encoding) -> io::Result<usize> {
        let read = self.encoded.read(buffer)?;
        if read > 0 || self.ended || buffer.is_empty() {
            return Ok(read);
        }
        // A whole block, but for the file's last one: only the last line is short.
        self.block.clear();
        self.file.by_ref().take(BLOCK_LEN as u64).read_to_end(&mut self.block)?;
        self.ended = self.block.len() < BLOCK_LEN;
        if self.ended && FileFacts::of(&self.file.metadata()?) != self.facts {
            return Err(changed());
        }
        let mut text = std::mem::take(&mut self.encoded).into_inner();
        text.resize(encoding.encode_len(self.block.len()), 0);
        encoding.encode_mut(&self.block, &mut text);
        self.encoded = Cursor::new(text);
        self.encoded.read(buffer)
    }
}

impl Read for DraftReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(segment) = self.segments.front_mut() {
            let read = segment.read(buffer, &self.encoding)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.segments.pop_front();
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use lighter_message::Policy;
    use lighter_message::drive::{self, MemoryBlobs};
    use lighter_protocol::BlobId;

    use super::*;

    fn draft(files: Vec<PathBuf>) -> Draft {
        Draft {
            from: "bob@example.org".parse().unwrap(),
            to: vec!["alice@example.org".parse().unwrap(), "eve@example.org".parse().unwrap()],
            cc: vec!["carl@example.org".parse().unwrap()],
            subject: "Grüße".to_owned(),
            body: "Hällo\n.\nFrom here\n".to_owned(),
            files,
            made: None,
            expected: Vec::new(),
            date: UnixTime(1_800_000_000),
            unique: 7,
        }
    }

    fn text_of(draft: &Draft) -> String {
        let mut text = String::new();
        draft.reader().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_message_without_files_is_a_plain_one() {
        let text = text_of(&draft(Vec::new()));
        let (header, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            header.starts_with("Date: Fri, 15 Jan 2027 08:00:00 +0000\r\nFrom: bob@example.org\r\n"),
            "{header}"
        );
        assert!(
            header.contains("\r\nTo: alice@example.org,\r\n eve@example.org\r\nCc: carl@example.org\r\n")
        );
        assert!(!header.contains("multipart"));
        assert_eq!(body, "H=C3=A4llo\r\n.\r\nFrom here\r\n");
        assert!(text.is_ascii() && text.lines().all(|line| line.len() <= 78));
    }

    #[test]
    fn files_are_detached_to_the_very_bytes_that_they_have() {
        let folder = tempfile::tempdir().unwrap();
        for len in [0, 1, 56, 57, 58, BLOCK_LEN - 1, BLOCK_LEN, BLOCK_LEN + 1, 3 * BLOCK_LEN + 20] {
            let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
            let paths = [folder.path().join("a größe.pdf"), folder.path().join("b")];
            std::fs::write(&paths[0], &bytes).unwrap();
            std::fs::write(&paths[1], b"second").unwrap();
            let draft = draft(paths.to_vec());
            let policy = Policy { min_size: 1, ..Policy::default() };
            let (mut manifest, mut blobs) = (Vec::new(), MemoryBlobs::new());
            let summary = drive::detach(policy, &mut draft.reader(), &mut manifest, &mut blobs).unwrap();
            let names: Vec<&str> = summary.parts.iter().map(|part| part.facts.name.as_str()).collect();
            assert_eq!(names, if len == 0 { vec!["b"] } else { vec!["a größe.pdf", "b"] }, "{len}");
            if len > 0 {
                assert_eq!(summary.parts[0].facts.media_type, "application/pdf");
                assert_eq!(blobs.get(BlobId::of(&bytes)), Some(&bytes[..]), "{len}");
            }
        }
    }

    #[test]
    fn a_file_that_changes_is_not_sent_as_a_mixture() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, vec![1; 3 * BLOCK_LEN]).unwrap();
        let facts = FileFacts::of(&path.metadata().unwrap());
        let mut as_it_was = draft(vec![path.clone()]);
        as_it_was.expected = vec![facts];
        // While it is read.
        let mut reader = as_it_was.reader();
        let mut text = vec![0; BLOCK_LEN];
        reader.read_exact(&mut text).unwrap();
        let mut file = File::options().append(true).open(&path).unwrap();
        io::Write::write_all(&mut file, b"more").unwrap();
        assert!(reader.read_to_end(&mut text).unwrap_err().to_string().contains("changed"));
        // Before.
        assert!(as_it_was.reader().read_to_end(&mut text).is_err());
        // The same bytes, put there by another file, are the same.
        let other = folder.path().join("b");
        std::fs::write(&other, vec![1; 3 * BLOCK_LEN]).unwrap();
        let modified = std::time::SystemTime::UNIX_EPOCH
            + std::time::Duration::new(u64::try_from(facts.modified_s).unwrap(), facts.modified_ns);
        File::options().append(true).open(&other).unwrap().set_modified(modified).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(as_it_was.reader().read_to_end(&mut text).is_ok());
    }

    #[test]
    fn bad_input_20_a_file_name_breaks_no_header() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x\"\r\nBcc: eve@example.org\r\n\\;.txt");
        std::fs::write(&path, b"x").unwrap();
        let text = text_of(&draft(vec![path]));
        assert!(!text.contains("\nBcc:"), "{text}");
    }
}
