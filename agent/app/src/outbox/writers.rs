//! Whether somebody has a file open for writing: a slow writer leaves a file as it is for longer than it takes to settle.
//!
//! The kernel lists what each process has open, as far as they are the user's own. Writers that are not seen (other
//! users', other machines') are told by the file changing, and by nothing else.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Whether one of these files is open for writing. Blocks on the kernel, for some milliseconds.
pub(crate) fn are_open(paths: &[PathBuf]) -> bool {
    // As the kernel names them: links in front of the outbox resolved.
    let wanted: HashSet<PathBuf> = paths.iter().filter_map(|path| std::fs::canonicalize(path).ok()).collect();
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    let is_process = |path: &Path| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
    };
    processes
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| is_process(path))
        // Another user's, or gone: nothing to be seen.
        .filter_map(|path| std::fs::read_dir(path.join("fd")).ok())
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .any(|descriptor| is_for_writing(&descriptor) && leads_to(&descriptor, &wanted))
}

/// The link's own mode says what the descriptor is for (proc(5)).
fn is_for_writing(descriptor: &Path) -> bool {
    std::fs::symlink_metadata(descriptor).is_ok_and(|link| link.mode() & 0o200 != 0)
}

fn leads_to(descriptor: &Path, wanted: &HashSet<PathBuf>) -> bool {
    std::fs::read_link(descriptor).is_ok_and(|path| wanted.contains(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_open_for_writing_is_told_from_one_that_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b\n");
        let file = std::fs::File::create(&path).unwrap();
        assert!(are_open(std::slice::from_ref(&path)));
        drop(file);
        let _reader = std::fs::File::open(&path).unwrap();
        assert!(!are_open(&[path, folder.path().join("none")]));
    }
}
