//! What the server says of itself: number, enhanced status and text under one name each. The texts are chosen here and
//! never come from an inner error (DESIGN §3 rule 11).

use crate::reply::Reply;

/// To MAIL, RSET and NOOP.
pub(crate) const OK: Reply = Reply::fixed(250, 0, 0, "OK");
pub(crate) const SENDER_OK: Reply = Reply::fixed(250, 1, 0, "Sender OK");
pub(crate) const RECIPIENT_OK: Reply = Reply::fixed(250, 1, 5, "Recipient OK");
pub(crate) const START_DATA: Reply = Reply::plain(354, "Go ahead; end with <CRLF>.<CRLF>");
pub(crate) const CHUNK_OK: Reply = Reply::fixed(250, 0, 0, "Chunk OK");
pub(crate) const BYE: Reply = Reply::fixed(221, 0, 0, "Bye");
pub(crate) const START_TLS: Reply = Reply::fixed(220, 0, 0, "Ready to start TLS");
pub(crate) const HELP: Reply = Reply::fixed(214, 0, 0, "RFC 5321 says it all");
/// RFC 5321 §3.5.3: neither yes nor no.
pub(crate) const VERIFY: Reply = Reply::fixed(252, 1, 5, "Send some mail, I'll try my best");

pub(crate) const LINE_TOO_LONG: Reply = Reply::fixed(500, 5, 2, "Line too long");
pub(crate) const BARE_LINE_END: Reply =
    Reply::fixed(500, 5, 2, "Lines end with CR LF (RFC 5321 section 2.3.8)");
pub(crate) const CONTROL_CHARACTER: Reply = Reply::fixed(500, 5, 2, "Control character in command");
pub(crate) const NOT_UTF8: Reply = Reply::fixed(500, 5, 2, "Command is not UTF-8");
pub(crate) const UNKNOWN_COMMAND: Reply = Reply::fixed(500, 5, 1, "Unknown command");
pub(crate) const NOT_SMTP: Reply = Reply::fixed(500, 5, 1, "This is a mail server");
pub(crate) const NOT_OFFERED: Reply = Reply::fixed(502, 5, 1, "Not offered here");
pub(crate) const LHLO_HERE: Reply = Reply::fixed(500, 5, 1, "This is LMTP: say LHLO");
pub(crate) const NO_PARAMETERS: Reply = Reply::fixed(501, 5, 4, "Takes no parameters");
pub(crate) const HELLO_NAME: Reply = Reply::fixed(501, 5, 4, "Say your domain name");
pub(crate) const MAIL_SYNTAX: Reply = Reply::fixed(501, 5, 4, "Syntax: MAIL FROM:<address> [parameters]");
pub(crate) const RCPT_SYNTAX: Reply = Reply::fixed(501, 5, 4, "Syntax: RCPT TO:<address> [parameters]");
pub(crate) const PATH_SYNTAX: Reply = Reply::fixed(501, 5, 4, "A blank must follow the address");
pub(crate) const SENDER_SYNTAX: Reply = Reply::fixed(501, 1, 7, "Bad sender address syntax");
pub(crate) const RECIPIENT_SYNTAX: Reply = Reply::fixed(501, 1, 3, "Bad recipient address syntax");
pub(crate) const PATH_TOO_LONG: Reply = Reply::fixed(501, 1, 3, "Address too long");
/// RFC 6531 §3.5.
pub(crate) const NEEDS_SMTPUTF8: Reply = Reply::fixed(553, 6, 7, "Address needs SMTPUTF8");
pub(crate) const PARAMETER_SYNTAX: Reply = Reply::fixed(501, 5, 4, "Bad parameter value");
pub(crate) const PARAMETER_TWICE: Reply = Reply::fixed(501, 5, 4, "Parameter given twice");
/// RFC 5321 §4.1.1.11.
pub(crate) const UNKNOWN_PARAMETER: Reply = Reply::fixed(555, 5, 4, "Unknown parameter");
pub(crate) const BDAT_SYNTAX: Reply = Reply::fixed(501, 5, 4, "Syntax: BDAT size [LAST]; closing");

/// RFC 4954 §4.
pub(crate) const AUTH_SYNTAX: Reply = Reply::fixed(501, 5, 4, "Syntax: AUTH mechanism [initial-response]");
pub(crate) const AUTH_NOT_BASE64: Reply = Reply::fixed(501, 5, 2, "Not base64");
/// RFC 4954 §6.
pub(crate) const AUTH_TOO_LONG: Reply = Reply::fixed(500, 5, 6, "Authentication exchange line is too long");
pub(crate) const AUTH_MECHANISM: Reply = Reply::fixed(504, 5, 4, "This mechanism is not offered");
pub(crate) const AUTH_TWICE: Reply = Reply::fixed(503, 5, 1, "Authenticated already");
pub(crate) const AUTH_IN_MAIL: Reply = Reply::fixed(503, 5, 1, "Not during a mail transaction");
pub(crate) const AUTH_UNDECIDED: Reply = Reply::fixed(454, 7, 0, "Temporary authentication failure");

pub(crate) const HELLO_FIRST: Reply = Reply::fixed(503, 5, 1, "Introduce yourself first");
pub(crate) const TLS_FIRST: Reply = Reply::fixed(530, 7, 0, "Must issue a STARTTLS command first");
pub(crate) const MAIL_FIRST: Reply = Reply::fixed(503, 5, 1, "MAIL first");
pub(crate) const MAIL_TWICE: Reply = Reply::fixed(503, 5, 1, "Sender already given");
pub(crate) const RCPT_FIRST: Reply = Reply::fixed(503, 5, 1, "RCPT first");
pub(crate) const NO_RECIPIENTS: Reply = Reply::fixed(554, 5, 1, "No valid recipients");
pub(crate) const BDAT_STARTED: Reply = Reply::fixed(503, 5, 1, "BDAT has begun: go on with it, or RSET");
pub(crate) const BDAT_FAILED: Reply = Reply::fixed(503, 5, 1, "This transaction has failed: RSET first");
pub(crate) const ALREADY_TLS: Reply = Reply::fixed(503, 5, 1, "TLS is on already");
pub(crate) const PLAIN_AFTER_TLS: Reply = Reply::fixed(554, 5, 1, "Nothing may follow STARTTLS in the clear");

pub(crate) const TOO_MANY_RECIPIENTS: Reply = Reply::fixed(452, 5, 3, "Too many recipients");
/// RFC 1870 §6.
pub(crate) const TOO_BIG: Reply = Reply::fixed(552, 3, 4, "Message too big");
pub(crate) const CONTENT_LINE_ENDS: Reply =
    Reply::fixed(554, 6, 0, "Message has a bare CR or LF; lines end with CR LF (RFC 5321 section 2.3.8)");
/// RFC 5321 §6.3.
pub(crate) const MAIL_LOOP: Reply =
    Reply::fixed(554, 4, 6, "Message has come through too many servers: a mail loop");
pub(crate) const NO_VERDICT: Reply = Reply::fixed(451, 3, 0, "Not accepted, try again later");

pub(crate) const TOO_MANY_ERRORS: Reply = Reply::fixed(421, 7, 0, "Too many errors");
pub(crate) const TOO_MANY_COMMANDS: Reply = Reply::fixed(421, 7, 0, "Too many commands without a message");
pub(crate) const TOO_MANY_MESSAGES: Reply = Reply::fixed(421, 3, 2, "Enough for one session, connect again");
pub(crate) const TIMED_OUT: Reply = Reply::fixed(421, 4, 2, "Too slow");
pub(crate) const SHUTTING_DOWN: Reply = Reply::fixed(421, 3, 2, "Shutting down");
