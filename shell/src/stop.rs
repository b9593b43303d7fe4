//! When to stop: SIGTERM (systemd, `kill`) or SIGINT (Ctrl-C).

use std::io;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

/// Returns when the program is told to stop; the service manager is told that it does.
///
/// # Errors
/// Where the signals cannot be listened for.
pub async fn requested() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _ = sd_notify::notify(false, &[NotifyState::Stopping]);
    Ok(())
}
