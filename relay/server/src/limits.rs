//! Every bound of the relay's shells, with its unit and where it comes from; the crates below keep their own.

use std::time::Duration;

/// How long a clean stop waits for what is under way: systemd's default `TimeoutStopSec` is 90 s.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes in a configuration file: far more than any real one, far less than a mistaken path to a mail spool.
pub const CONFIG_LEN_MAX: u64 = 1024 * 1024;

/// Connections to the control socket at a time: people and scripts of one machine.
pub const CONTROL_CONNECTIONS_MAX: usize = 16;
/// Bytes of a question on the control socket: the longest has one delivery id.
pub const CONTROL_LINE_LEN_MAX: u64 = 4096;
/// How long a conversation on the control socket may take; the longest answer counts a large catalog.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(30);
