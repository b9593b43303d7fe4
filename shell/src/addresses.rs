//! Where a program listens, written down for whoever started it: ports may come from the kernel.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use sd_notify::NotifyState;
use serde::Serialize;

/// The file in a program's data folder that says where it listens.
pub const FILE: &str = "addresses.json";

/// Writes `addresses` into `DATA/addresses.json`, then says `READY=1` to whoever started the program with a
/// `NOTIFY_SOCKET` (sd_notify(3)). What is read after that is what is listened on.
///
/// # Errors
/// Where the file cannot be written. That nobody listens on the socket is no error.
pub fn ready(data: &Path, addresses: &impl Serialize) -> io::Result<()> {
    let temporary = data.join(format!("{FILE}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(addresses)?)?;
    file.write_all(b"\n")?;
    fs::rename(&temporary, data.join(FILE))?;
    if let Err(error) = sd_notify::notify(false, &[NotifyState::Ready]) {
        tracing::debug!(%error, "nobody was told that this is ready");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_there_when_ready_returns() {
        let folder = tempfile::tempdir().unwrap();
        ready(folder.path(), &[("http", "127.0.0.1:1")]).unwrap();
        let text = fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert!(text.contains("127.0.0.1:1"));
    }
}
