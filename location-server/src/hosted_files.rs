//! The files that name a hosted store's mailboxes (SPEC A29): read when the server starts, and again when they change.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lighter_protocol::Mailbox;
use lighter_transport::location::limits::HOSTED_MAILBOXES_MAX;

use crate::config::HostedConfig;
use crate::limits::HOSTED_FILE_LEN_MAX;

/// Why a file does not say whose store it is.
#[derive(Debug, thiserror::Error)]
pub enum HostedFileError {
    /// It cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is larger than any such file is.
    #[error("{} is larger than {HOSTED_FILE_LEN_MAX} bytes", .0.display())]
    TooLong(PathBuf),
    /// A line begins with no mailbox.
    #[error("{}, line {line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// One store has more mailboxes than it can.
    #[error("a hosted store has at most {HOSTED_MAILBOXES_MAX} mailboxes: give the rest to another")]
    TooMany,
}

/// What a file looked like, to see whether it changed.
pub type Looks = Vec<Option<(SystemTime, u64)>>;

/// How the files look now.
pub fn looks(config: &HostedConfig) -> Looks {
    let look = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    config.files.iter().map(look).collect()
}

/// All mailboxes of a hosted store: those of the configuration, and those of its files.
///
/// # Errors
/// [`HostedFileError`] where one of the files is not what it should be: then none of them counts.
pub fn mailboxes(config: &HostedConfig, domains: &[String]) -> Result<BTreeSet<Mailbox>, HostedFileError> {
    let mut mailboxes: BTreeSet<_> = config.mailboxes.iter().cloned().collect();
    for path in &config.files {
        let text = read(path)?;
        for (number, line) in text.lines().enumerate() {
            let named = mailbox_of(line, config.domain.as_deref(), domains);
            let named =
                named.map_err(|why| HostedFileError::Line { path: path.clone(), line: number + 1, why })?;
            mailboxes.extend(named);
            if mailboxes.len() > HOSTED_MAILBOXES_MAX {
                return Err(HostedFileError::TooMany);
            }
        }
    }
    Ok(mailboxes)
}

fn read(path: &Path) -> Result<String, HostedFileError> {
    let failed = |source| HostedFileError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(HOSTED_FILE_LEN_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > HOSTED_FILE_LEN_MAX {
        return Err(HostedFileError::TooLong(path.to_owned()));
    }
    Ok(text)
}

/// The mailbox that a line begins with: up to the first colon or white space. None for a line that is empty, a comment, goes on
/// with the line before (Postfix), or stands for a whole domain.
fn mailbox_of(line: &str, domain: Option<&str>, domains: &[String]) -> Result<Option<Mailbox>, &'static str> {
    if line.starts_with(char::is_whitespace) || line.starts_with('#') {
        return Ok(None);
    }
    let name = line.split(|c: char| c == ':' || c.is_whitespace()).next().unwrap_or_default();
    if name.is_empty() || name.starts_with('@') {
        return Ok(None);
    }
    let mailbox: Result<Mailbox, _> = match (name.contains('@'), domain) {
        (true, _) => name.parse(),
        (false, Some(domain)) => format!("{name}@{domain}").parse(),
        (false, None) => return Err("a name without a domain: set `domain` beside `files`"),
    };
    let mailbox = mailbox.map_err(|_| "not a mailbox")?;
    if domains.is_empty() || domains.iter().any(|known| known == mailbox.domain()) {
        Ok(Some(mailbox))
    } else {
        Err("a mailbox that is in none of this server's domains")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(path: &Path, domain: Option<&str>) -> HostedConfig {
        let peer = lighter_transport::Identity::generate().peer();
        let domain = domain.map(str::to_owned);
        HostedConfig { peer, mailboxes: Vec::new(), files: vec![path.to_owned()], domain }
    }

    fn named(text: &str, domain: Option<&str>) -> Result<Vec<String>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let found = mailboxes(&config(file.path(), domain), &["example.org".to_owned()]);
        let found = found.map_err(|error| error.to_string())?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    // SPEC: A29
    #[test]
    fn lists_passwd_files_and_maps_name_mailboxes() {
        let text = "# users\nann@example.org\n\nBob@Example.org:{PLAIN}x::::::\ncarl@example.org  carl/\n\tmore\n@example.org x\n";
        assert_eq!(named(text, None).unwrap(), ["ann@example.org", "bob@example.org", "carl@example.org"]);
        assert_eq!(named("ann:x:1000:1000::/home/ann\n", Some("example.org")).unwrap(), ["ann@example.org"]);
        assert_eq!(named("", None).unwrap(), [""; 0]);
    }

    // SPEC: A29
    #[test]
    fn a_line_that_names_nobody_here_is_told_and_nothing_of_the_file_counts() {
        for (text, expected) in [
            ("ann@example.org\nbob\n", "line 2"),
            ("ann@example.com\n", "none of this server"),
            ("a@b@example.org\n", "line 1"),
        ] {
            let error = named(text, None).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let many: String = (0..=HOSTED_MAILBOXES_MAX).map(|n| format!("u{n}@example.org\n")).collect();
        assert!(named(&many, None).unwrap_err().contains("at most"));
    }
}
