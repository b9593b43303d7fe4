//! `strace` around a program: system calls that fail as asked, and a record of what it does to files.
//!
//! The tracer runs beside the program, not as its parent (`-D`), so that starting, signals and the end are as without.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::watch::wait_for;

/// How strace is to trace one start of a program.
#[derive(Clone, Debug)]
pub struct Strace {
    /// Where the record goes.
    pub record: PathBuf,
    /// What fails, and when, in strace's words: `fdatasync:error=EIO:when=7` (the seventh of each thread).
    pub inject: Vec<String>,
    /// How many bytes of what is written are recorded. 0: that it was written, and where.
    pub data_len_max: usize,
}

/// A system call on files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `openat`: the result is the descriptor.
    Open {
        /// The file.
        path: PathBuf,
        /// Whether it is made, if it is not there.
        creates: bool,
    },
    /// `pwrite64`, `pwritev`: the result says how many bytes were written.
    Write {
        /// The descriptor.
        fd: i64,
        /// Where.
        offset: u64,
        /// The bytes, as far as they were recorded.
        bytes: Vec<u8>,
    },
    /// `ftruncate`.
    Truncate {
        /// The descriptor.
        fd: i64,
        /// The new length.
        len: u64,
    },
    /// `fdatasync`, `fsync`.
    Sync {
        /// The descriptor: a file's or a folder's.
        fd: i64,
    },
    /// `rename` and the like.
    Rename {
        /// The name before.
        from: PathBuf,
        /// The name after.
        to: PathBuf,
    },
    /// `unlink` and the like.
    Remove {
        /// The name.
        path: PathBuf,
    },
}

/// An operation in the record.
#[derive(Clone, Debug)]
pub struct Traced {
    /// What.
    pub operation: Operation,
    /// When it began: a count through the whole record.
    pub begun: u64,
    /// When it ended; `None` where the program ended before.
    pub ended: Option<u64>,
    /// What it gave: -1 for a failure, also where it did not end.
    pub result: i64,
    /// Whether strace made it fail.
    pub is_injected: bool,
}

/// What is traced. A program that uses others for its storage would have to be looked at anew.
const CALLS: &str = "openat,pwrite64,pwritev,write,ftruncate,fallocate,fdatasync,fsync,sync_file_range,rename,renameat,\
                     renameat2,unlink,unlinkat,link,linkat";

impl Strace {
    /// What a command begins with that is to be traced (see [`Member::through`](crate::world::Member::through)).
    pub fn through(&self) -> Vec<String> {
        let mut words = vec!["strace".to_owned(), "-D".into(), "-f".into(), "-qq".into(), "-xx".into()];
        words.extend(["-e".into(), format!("trace={CALLS}"), "-s".into(), self.data_len_max.to_string()]);
        words.extend(self.inject.iter().flat_map(|what| ["-e".into(), format!("inject={what}")]));
        words.extend(["-o".into(), self.record.to_string_lossy().into_owned()]);
        words
    }

    /// The record of a program that has ended, whole.
    ///
    /// # Errors
    /// Where it does not end in time, or says what is not understood.
    pub async fn read(&self) -> Result<Vec<Traced>> {
        // The tracer ends a moment after the program, and holds the file until then.
        wait_for("strace to end", async || Ok(is_open_nowhere(&self.record)?.then_some(()))).await?;
        read(&self.record)
    }
}

/// Whether no process has the file open.
fn is_open_nowhere(file: &Path) -> Result<bool> {
    for process in std::fs::read_dir("/proc")?.flatten() {
        // Processes come and go, and some are not ours to look at.
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let is_it = |path: PathBuf| std::fs::read_link(path).is_ok_and(|target| target == file);
        if descriptors.flatten().any(|descriptor| is_it(descriptor.path())) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads a record that is complete.
fn read(file: &Path) -> Result<Vec<Traced>> {
    let mut lines = BufReader::new(std::fs::File::open(file)?).split(b'\n');
    let (mut traced, mut unfinished): (Vec<Traced>, BTreeMap<u64, Option<usize>>) = Default::default();
    let mut count = 0;
    while let Some(line) = lines.next().transpose()? {
        let line = String::from_utf8(line).context("strace writes text")?;
        count += 1;
        let (thread, rest) = line.trim_start().split_once(' ').context("no thread")?;
        let (thread, rest) = (thread.parse::<u64>()?, rest.trim_start());
        // The end of a thread, a signal, or a call that began as the program was killed and of which nothing is known.
        if ["+++", "---", "???(", "<... ???"].iter().any(|other| rest.starts_with(other)) {
            continue;
        }
        if rest.starts_with("<... ") {
            if let Some(at) = unfinished.remove(&thread).context("the end of what did not begin")? {
                let (result, is_injected) =
                    result(rest).with_context(|| format!("no result: {}", head(rest)))?;
                let ended = result.is_some().then_some(count);
                let result = result.unwrap_or(-1);
                traced[at] = Traced { ended, result, is_injected, ..traced[at].clone() };
            }
            continue;
        }
        let operation = operation(rest).with_context(|| format!("not understood: {}", head(rest)))?;
        let at = traced.len();
        let is_whole = !rest.ends_with("<unfinished ...>");
        if !is_whole {
            unfinished.insert(thread, operation.is_some().then_some(at));
        }
        let Some(operation) = operation else { continue };
        let (result, is_injected) = if is_whole {
            result(rest).with_context(|| format!("no result: {}", head(rest)))?
        } else {
            (None, false)
        };
        let ended = result.is_some().then_some(count);
        traced.push(Traced { operation, begun: count, ended, result: result.unwrap_or(-1), is_injected });
    }
    Ok(traced)
}

fn head(line: &str) -> &str {
    line.get(..200).unwrap_or(line)
}

/// Behind the last ` = `; `?` where the program ended within the call.
fn result(line: &str) -> Result<(Option<i64>, bool)> {
    let (_, result) = line.rsplit_once(" = ").context("no =")?;
    let number = result.split(' ').next().unwrap_or_default();
    let is_injected = result.ends_with("(INJECTED)");
    Ok((if number == "?" { None } else { Some(number.parse()?) }, is_injected))
}

/// The call of a line; `None` for one that changes no file with a place on disk.
fn operation(line: &str) -> Result<Option<Operation>> {
    let (name, rest) = line.split_once('(').context("no call")?;
    let arguments = Arguments::of(rest)?;
    Ok(Some(match name {
        "openat" => Operation::Open {
            path: arguments.path(0)?,
            creates: arguments.words.iter().any(|word| word.contains("O_CREAT")),
        },
        "pwrite64" | "pwritev" => Operation::Write {
            fd: arguments.number(0)?,
            offset: arguments.number(arguments.words.len() - 1)?.try_into()?,
            bytes: arguments.strings.concat(),
        },
        "ftruncate" => {
            Operation::Truncate { fd: arguments.number(0)?, len: arguments.number(1)?.try_into()? }
        }
        "fdatasync" | "fsync" => Operation::Sync { fd: arguments.number(0)? },
        "rename" | "renameat" | "renameat2" => {
            Operation::Rename { from: arguments.path(0)?, to: arguments.path(1)? }
        }
        "unlink" | "unlinkat" => Operation::Remove { path: arguments.path(0)? },
        // To a log, a socket, a pipe; a key file that is made before the first unit.
        "write" | "link" | "linkat" => return Ok(None),
        other => bail!("{other} is none of the calls that a unit is known to use"),
    }))
}

/// Arguments of a call: the quoted ones apart.
struct Arguments {
    strings: Vec<Vec<u8>>,
    words: Vec<String>,
}

impl Arguments {
    fn of(text: &str) -> Result<Self> {
        let (mut strings, mut words) = (Vec::new(), Vec::new());
        let mut rest = text;
        while let Some((before, quoted)) = rest.split_once('"') {
            words.push(before);
            let (string, behind) = quoted.split_once('"').context("a quote that does not end")?;
            strings.push(decode(string)?);
            rest = behind;
        }
        let end = rest.find([')', '<']).unwrap_or(rest.len());
        words.push(&rest[..end]);
        let words = words.iter().flat_map(|part| part.split(',')).map(str::trim);
        let words = words.filter(|word| !word.is_empty() && *word != "...").map(ToOwned::to_owned).collect();
        Ok(Self { strings, words })
    }

    fn path(&self, index: usize) -> Result<PathBuf> {
        let bytes = self.strings.get(index).context("no path")?.clone();
        Ok(String::from_utf8(bytes)?.into())
    }

    fn number(&self, index: usize) -> Result<i64> {
        Ok(self.words.get(index).context("no number")?.parse()?)
    }
}

/// `\x68\x69`: `hi`.
fn decode(string: &str) -> Result<Vec<u8>> {
    let digits = string.as_bytes().chunks(4);
    digits
        .map(|escape| {
            ensure!(escape.len() == 4 && escape.starts_with(b"\\x"), "not in hexadecimal digits");
            let digit = |at: usize| char::from(escape[at]).to_digit(16).context("no digit");
            Ok(u8::try_from(digit(2)? * 16 + digit(3)?)?)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_several_threads_are_put_together() {
        let record = r#"7 openat(AT_FDCWD, "\x2f\x61", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 3
8 pwrite64(3, "\x68\x69"..., 500, 4096 <unfinished ...>
7 fdatasync(5)                      = -1 EIO (Input/output error) (INJECTED)
8 <... pwrite64 resumed>) = 500
7 write(1, ""..., 12 <unfinished ...>
8 rename("\x2f\x61", "\x2f\x62") = 0
7 <... write resumed>) = 12
8 ftruncate(3, 10)                      = 0
8 pwritev(3, [{iov_base="\x61"..., iov_len=9}, {iov_base="\x62", iov_len=1}], 2, 77) = 10
7 fsync(4 <unfinished ...>
7 <... fsync resumed>) = ?
8 +++ killed by SIGKILL +++
"#;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("record");
        std::fs::write(&file, record).unwrap();
        let traced = read(&file).unwrap();
        let seen: Vec<_> = traced
            .iter()
            .map(|one| (one.operation.clone(), one.begun, one.ended, one.result, one.is_injected))
            .collect();
        let write = Operation::Write { fd: 3, offset: 4096, bytes: b"hi".to_vec() };
        assert_eq!(
            seen,
            [
                (Operation::Open { path: "/a".into(), creates: true }, 1, Some(1), 3, false),
                (write, 2, Some(4), 500, false),
                (Operation::Sync { fd: 5 }, 3, Some(3), -1, true),
                (Operation::Rename { from: "/a".into(), to: "/b".into() }, 6, Some(6), 0, false),
                (Operation::Truncate { fd: 3, len: 10 }, 8, Some(8), 0, false),
                (Operation::Write { fd: 3, offset: 77, bytes: b"ab".to_vec() }, 9, Some(9), 10, false),
                (Operation::Sync { fd: 4 }, 10, None, -1, false),
            ]
        );
    }
}
