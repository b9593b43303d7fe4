//! Every bound of the queue, with its unit and where it comes from; relations are asserted at compile time.

use std::time::Duration;

/// Deliveries of one mailbox that are offered or pulled at once.
pub const WINDOW: usize = 8;
/// Deliveries of one mailbox whose store answered and failed, kept with their backoff. Further ones are let go of, and
/// found again by the next sweep.
pub const PARKED_MAX: usize = 64;
/// Deliveries of one mailbox that its store does not take, remembered so that they are not offered again in the same
/// session.
pub const REFUSED_MAX: usize = 1_000;
/// Mailboxes that the queue has anything in memory for: those with a session, and those whose store is looked for.
pub const LINES_MAX: usize = 100_000;
/// Deliveries asked for in one page: what is known of already comes again in it, and leaves room for a window.
pub const PAGE_LEN: usize = WINDOW + PARKED_MAX + WINDOW;

/// Everything that waits for a mailbox with a session is looked through this often, for what was missed (DESIGN §6).
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(300);
/// Stores whose presence is not known are pinged this often, where nothing else is set (SPEC A18).
pub const PING_INTERVAL: Duration = Duration::from_secs(300);
/// A store that comes online dials its relay in the same moment: its own connection gets this head start before it is
/// pinged.
pub const ONLINE_HEAD_START: Duration = Duration::from_millis(250);
/// Tries to reach a store that is said to be online, before its next presence event is waited for.
pub const PROBES_MAX: u32 = 6;

/// First wait after a next hop did not take a message: one that is being restarted is back within seconds.
pub const RETRY_FIRST: Duration = Duration::from_secs(5);
/// Longest wait between two tries: RFC 5321 §4.5.4.1 asks for at least 30 minutes once a few tries have failed.
pub const RETRY_MAX: Duration = Duration::from_secs(2 * 3600);
/// A message that the next hop does not take goes back after this long, where nothing else is set (RFC 5321
/// §4.5.4.1: 4 to 5 days).
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(5 * 24 * 3600);
/// Messages that are handed over at once.
pub const HAND_OVERS_MAX: usize = 16;
/// Rows asked for in one page of what is due.
pub const DUE_PAGE_LEN: usize = 256;

/// A wall clock that differs by more than this from what the monotonic one says is in doubt (DESIGN §3 rule 9).
pub const CLOCK_DOUBT: Duration = Duration::from_secs(3600);
/// A wall clock that jumped is believed again after it went right for this long.
pub const CLOCK_SETTLES: Duration = Duration::from_secs(24 * 3600);

const _: () = assert!(PAGE_LEN > WINDOW + PARKED_MAX);
const _: () =
    assert!(RETRY_FIRST.as_secs() < RETRY_MAX.as_secs() && RETRY_MAX.as_secs() < GIVE_UP_AFTER.as_secs());
