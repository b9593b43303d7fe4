//! When to stop: SIGTERM (systemd, `kill`) or SIGINT (Ctrl-C).

use std::io;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

/// Listens from now on; the future ends when the program is told to stop, and the service manager is told that it does.
///
/// Called before [`ready`](crate::ready): who has read that a program is ready may stop it at once. Before that, a
/// signal ends the program where it stands, as a crash would.
///
/// # Errors
/// Where the signals cannot be listened for.
pub fn requested() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = sd_notify::notify(false, &[NotifyState::Stopping]);
    })
}
