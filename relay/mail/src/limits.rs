//! Every bound of the mail sessions, with its unit and where it comes from; relations are asserted at compile time.

use std::time::Duration;

/// Octets in a local part. RFC 5321 §4.5.3.1.1 asks for at least 64; VERP and SRS addresses are longer.
pub const LOCAL_PART_LEN_MAX: usize = 255;
/// Octets in a domain (RFC 5321 §4.5.3.1.2).
pub const DOMAIN_LEN_MAX: usize = 255;
/// Octets in a name given with EHLO, HELO or LHLO: a domain, or an address literal.
pub const HELLO_LEN_MAX: usize = DOMAIN_LEN_MAX;
/// Characters in ENVID (RFC 3461 §4.4).
pub const ENVID_LEN_MAX: usize = 100;
/// Characters in ORCPT (RFC 3461 §4.2).
pub const ORCPT_LEN_MAX: usize = 500;

/// Octets in a command line, CR LF included: RFC 5321 §4.5.3.1.4 (512) with what SIZE, 8BITMIME, SMTPUTF8 and DSN add.
pub const COMMAND_LINE_LEN_MAX: usize = 2_048;
/// Octets in a line of an authentication exchange, CR LF included, either way (RFC 4954 §4).
pub const AUTH_LINE_LEN_MAX: usize = 12_288;
/// Authentications that may fail in one session before it is ended: passwords are not to be guessed through it.
pub const AUTH_FAILURES_MAX: usize = 5;
/// Octets of one over-long command line that are read and thrown away before the connection is closed.
pub const LINE_DISCARD_MAX: usize = 64 * 1024;
/// Recipients of one transaction (RFC 5321 §4.5.3.1.8 asks for at least 100): the rest are told `452`.
pub const RECIPIENTS_MAX: usize = 1_000;
/// Recipients answered `452` in one transaction before each further one counts as an error.
pub const RECIPIENTS_OVERSHOOT_MAX: usize = 1_000;
/// Recipients that the shell may refuse in one session before it is ended: a directory is not to be guessed through.
pub const RECIPIENTS_REFUSED_MAX: usize = 100;
/// Protocol errors in one session before it is ended.
pub const ERRORS_MAX: usize = 20;
/// Commands that bring no message on (NOOP, RSET, EHLO, ...) between two messages before the session is ended.
pub const JUNK_COMMANDS_MAX: usize = 100;
/// Transactions of one session; then the peer is asked to connect again.
pub const TRANSACTIONS_MAX: u64 = 100_000;
/// Octets in one message where the configuration says nothing: a 1 GiB file in base64, with room.
pub const SIZE_MAX_DEFAULT: u64 = 2 * 1024 * 1024 * 1024;
/// Octets of content that must arrive within each content time-out: below that, the peer is too slow.
pub const CONTENT_PROGRESS_MIN: u64 = 16 * 1024;
/// `Received` fields in a message, beyond which it is going round in circles (RFC 5321 §6.3: at least 100).
pub const HOPS_MAX: usize = 100;

/// How long a server waits for a command (RFC 5321 §4.5.3.2.7).
pub const COMMAND_TIMEOUT: Duration = Duration::from_mins(5);
/// How long a server waits for the next part of the content (RFC 5321 §4.5.3.2.7).
pub const CONTENT_TIMEOUT: Duration = Duration::from_mins(5);
/// How long a TLS handshake may take.
pub const TLS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a server waits where it is short of connections (as Postfix does under stress).
pub const STRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// Octets in one line of a peer's reply: four times RFC 5321 §4.5.3.1.5.
pub const REPLY_LINE_LEN_MAX: usize = 2_048;
/// Lines in one reply of a peer.
pub const REPLY_LINES_MAX: usize = 128;
/// Octets of a reply's text that are kept, shown and sent on.
pub const REPLY_TEXT_LEN_MAX: usize = 500;

/// Lines of a reply's text that are sent on where it is passed on as it came.
pub const REPLY_TEXT_LINES_MAX: usize = 16;

/// How long a client waits for the greeting, and for the reply to EHLO, MAIL and RCPT (RFC 5321 §4.5.3.2.1 to .3).
pub const CLIENT_COMMAND_TIMEOUT: Duration = Duration::from_mins(5);
/// How long a client waits for `354` (RFC 5321 §4.5.3.2.4).
pub const CLIENT_DATA_TIMEOUT: Duration = Duration::from_mins(2);
/// How long a client waits for room to write the next part of the content (RFC 5321 §4.5.3.2.5).
pub const CLIENT_CONTENT_TIMEOUT: Duration = Duration::from_mins(3);
/// How long a client waits for the final reply (RFC 5321 §4.5.3.2.6).
pub const CLIENT_END_TIMEOUT: Duration = Duration::from_mins(10);
/// How long a client waits for the reply to QUIT: nothing depends on it.
pub const CLIENT_QUIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Commands that a client sends ahead of their replies (RFC 2920 §3.1: both sides' buffers must not fill up at once).
pub const PIPELINE_MAX: usize = 100;

/// Octets of the original's header that a delivery report carries.
pub const REPORT_HEADER_LEN_MAX: usize = 64 * 1024;
/// Recipients that one delivery report names.
pub const REPORT_RECIPIENTS_MAX: usize = RECIPIENTS_MAX;
/// Characters of a stranger's text (subject, file name) in a message that the relay writes.
pub const NOTICE_TEXT_LEN_MAX: usize = 200;
/// Attachments that an expiry notice names one by one.
pub const NOTICE_ITEMS_MAX: usize = 50;

const _: () = assert!(
    COMMAND_LINE_LEN_MAX
        > "RCPT TO:<@> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=\r\n".len()
            + LOCAL_PART_LEN_MAX
            + DOMAIN_LEN_MAX
            + ORCPT_LEN_MAX
);
const _: () = assert!(LINE_DISCARD_MAX > COMMAND_LINE_LEN_MAX && LINE_DISCARD_MAX > AUTH_LINE_LEN_MAX);
const _: () = assert!(AUTH_LINE_LEN_MAX > COMMAND_LINE_LEN_MAX && AUTH_LINE_LEN_MAX > REPLY_LINE_LEN_MAX);
const _: () = assert!(REPLY_TEXT_LINES_MAX <= REPLY_LINES_MAX);
const _: () = assert!(LOCAL_PART_LEN_MAX >= 64 && RECIPIENTS_MAX >= 100);
