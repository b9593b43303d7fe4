//! One command line, read: RFC 5321 §4.1, RFC 2033, and the extensions that the server announces.
//!
//! Tolerant where every server is (a blank behind the colon, any case), strict where a doubt could be used: what is
//! not understood is refused with the reply that says why, and nothing of it is acted on.

use crate::Protocol;
use crate::address::{AddressError, read_path};
use crate::auth::{self, AuthText};
use crate::envelope::{Body, MailFrom, Notify, OriginalRecipient, RcptTo, Return};
use crate::limits::{ENVID_LEN_MAX, HELLO_LEN_MAX};
use crate::reply::Reply;
use crate::server::replies;
use crate::xtext::Xtext;

/// A command that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// EHLO or LHLO.
    Hello(String),
    /// HELO: without extensions.
    PlainHello(String),
    Mail(MailFrom),
    Rcpt(RcptTo),
    Data,
    Bdat {
        len: u64,
        last: bool,
    },
    StartTls,
    Auth {
        mechanism: String,
        initial: Option<AuthText>,
    },
    Reset,
    Noop,
    Verify,
    Help,
    Quit,
}

/// A line that is not acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Answer, and go on.
    GoOn(Reply),
    /// Answer, and end the session: where the next command begins is not known, or the peer does not speak SMTP.
    End(Reply),
}

impl From<Reply> for Refused {
    fn from(reply: Reply) -> Self {
        Self::GoOn(reply)
    }
}

/// Verbs of other protocols, and of proxies that are not trusted: Postfix' `smtpd_forbidden_commands`, and PROXY.
const FOREIGN_VERBS: [&str; 8] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PROXY", "PUT"];

/// Reads one line, its CR LF taken off. AUTH, and the parameter of that name, are understood where `has_auth`.
pub(crate) fn parse(protocol: Protocol, has_auth: bool, line: &[u8]) -> Result<Command, Refused> {
    if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(replies::CONTROL_CHARACTER.into());
    }
    let line = std::str::from_utf8(line).map_err(|_| replies::NOT_UTF8)?;
    let line = line.trim_ascii_end();
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let verb_upper = verb.to_ascii_uppercase();
    let rest = rest.trim_ascii();
    match (verb_upper.as_str(), protocol) {
        ("EHLO", Protocol::Smtp) | ("LHLO", Protocol::Lmtp) => hello_name(rest).map(Command::Hello),
        ("HELO", Protocol::Smtp) => hello_name(rest).map(Command::PlainHello),
        ("EHLO" | "HELO", Protocol::Lmtp) => Err(replies::LHLO_HERE.into()), // RFC 2033 §4.1
        ("MAIL", _) => mail(rest, has_auth).map_err(Refused::GoOn),
        ("RCPT", _) => rcpt(rest).map_err(Refused::GoOn),
        ("DATA", _) => alone(rest, Command::Data),
        ("BDAT", _) => bdat(rest),
        ("STARTTLS", _) => alone(rest, Command::StartTls),
        ("AUTH", _) if has_auth => auth(rest).map_err(Refused::GoOn),
        ("RSET", _) => alone(rest, Command::Reset),
        ("NOOP", _) => Ok(Command::Noop),
        ("VRFY", _) => Ok(Command::Verify),
        ("HELP", _) => Ok(Command::Help),
        ("QUIT", _) => Ok(Command::Quit),
        ("AUTH" | "BURL" | "EXPN" | "ETRN" | "TURN" | "ATRN" | "XCLIENT" | "XFORWARD", _) => {
            Err(replies::NOT_OFFERED.into())
        }
        (foreign, _) if FOREIGN_VERBS.contains(&foreign) => Err(Refused::End(replies::NOT_SMTP)),
        _ => Err(replies::UNKNOWN_COMMAND.into()),
    }
}

fn alone(rest: &str, command: Command) -> Result<Command, Refused> {
    if rest.is_empty() { Ok(command) } else { Err(replies::NO_PARAMETERS.into()) }
}

/// The name that the peer gives itself: written into a trace field, so only what is safe there.
fn hello_name(rest: &str) -> Result<String, Refused> {
    let allowed =
        |c: char| c.is_ascii_graphic() && !"<>()\\\",;".contains(c) || !c.is_ascii() && !c.is_whitespace();
    if rest.is_empty() || rest.len() > HELLO_LEN_MAX || !rest.chars().all(allowed) {
        return Err(replies::HELLO_NAME.into());
    }
    Ok(rest.to_owned())
}

/// `FROM:<path>` or `TO:<path>`, the keyword in any case, a blank behind the colon forgiven.
fn after_keyword<'a>(rest: &'a str, keyword: &str) -> Option<&'a str> {
    let head = rest.get(..keyword.len())?;
    if head.eq_ignore_ascii_case(keyword) { Some(rest[keyword.len()..].trim_ascii_start()) } else { None }
}

/// The parameters behind a path, as `KEYWORD` and value.
fn parameters(rest: &str) -> Result<impl Iterator<Item = (String, Option<&str>)>, Reply> {
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(replies::PATH_SYNTAX);
    }
    Ok(rest.split_ascii_whitespace().map(|word| match word.split_once('=') {
        Some((keyword, value)) => (keyword.to_ascii_uppercase(), Some(value)),
        None => (word.to_ascii_uppercase(), None),
    }))
}

/// Takes a parameter that may be given once.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Reply> {
    if place.replace(value).is_some() { Err(replies::PARAMETER_TWICE) } else { Ok(()) }
}

/// RFC 4954 §4.
fn auth(rest: &str) -> Result<Command, Reply> {
    let (name, initial) = match rest.split_once(' ') {
        Some((name, initial)) => (name, Some(initial.trim_ascii_start())),
        None => (rest, None),
    };
    let mechanism = auth::mechanism(name).ok_or(replies::AUTH_SYNTAX)?;
    let initial = match initial {
        Some(text) => {
            let text = AuthText::read(text.as_bytes()).filter(|text| !text.is_cancel());
            Some(text.ok_or(replies::AUTH_NOT_BASE64)?)
        }
        None => None,
    };
    Ok(Command::Auth { mechanism, initial })
}

fn mail(rest: &str, has_auth: bool) -> Result<Command, Reply> {
    let path = after_keyword(rest, "FROM:").ok_or(replies::MAIL_SYNTAX)?;
    let (path, rest) = read_path(path).map_err(|error| match error {
        AddressError::TooLong => replies::PATH_TOO_LONG,
        AddressError::Shape | AddressError::Character => replies::SENDER_SYNTAX,
    })?;
    let (mut size, mut body, mut smtputf8, mut ret, mut envid) = (None, None, None, None, None);
    let mut identity = None;
    for (keyword, value) in parameters(rest)? {
        match (keyword.as_str(), value) {
            ("SIZE", Some(value)) => once(&mut size, parse_size(value)?)?,
            ("BODY", Some(value)) => once(&mut body, parse_body(value)?)?,
            ("SMTPUTF8", None) => once(&mut smtputf8, ())?,
            ("RET", Some(value)) => once(&mut ret, parse_ret(value)?)?,
            ("ENVID", Some(value)) => once(&mut envid, parse_envid(value)?)?,
            // RFC 4954 §5: taken, and not believed: who submits it is who has authenticated.
            ("AUTH", Some(value)) if has_auth => once(&mut identity, parse_identity(value)?)?,
            ("SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID", _) => return Err(replies::PARAMETER_SYNTAX),
            _ => return Err(replies::UNKNOWN_PARAMETER),
        }
    }
    let smtputf8 = smtputf8.is_some();
    if !smtputf8 && path.as_ref().is_some_and(|address| !address.is_ascii()) {
        return Err(replies::NEEDS_SMTPUTF8);
    }
    Ok(Command::Mail(MailFrom { path, size, body: body.unwrap_or_default(), smtputf8, ret, envid }))
}

/// `1*20DIGIT` (RFC 1870 §6). What does not fit 64 bits is a size, too: more than any server takes.
fn parse_size(value: &str) -> Result<u64, Reply> {
    if value.is_empty() || value.len() > 20 || !value.bytes().all(|b| b.is_ascii_digit()) {
        return Err(replies::PARAMETER_SYNTAX);
    }
    Ok(value.parse().unwrap_or(u64::MAX))
}

fn parse_body(value: &str) -> Result<Body, Reply> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Ok(Body::SevenBit),
        "8BITMIME" => Ok(Body::EightBitMime),
        _ => Err(replies::PARAMETER_SYNTAX), // BINARYMIME is not announced.
    }
}

fn parse_ret(value: &str) -> Result<Return, Reply> {
    match value.to_ascii_uppercase().as_str() {
        "FULL" => Ok(Return::Full),
        "HDRS" => Ok(Return::Headers),
        _ => Err(replies::PARAMETER_SYNTAX),
    }
}

fn parse_identity(value: &str) -> Result<(), Reply> {
    if value == "<>" || !value.is_empty() && Xtext::from_encoded(value).is_ok() {
        Ok(())
    } else {
        Err(replies::PARAMETER_SYNTAX)
    }
}

fn parse_envid(value: &str) -> Result<Xtext, Reply> {
    if value.is_empty() || value.len() > ENVID_LEN_MAX {
        return Err(replies::PARAMETER_SYNTAX);
    }
    Xtext::from_encoded(value).map_err(|_| replies::PARAMETER_SYNTAX)
}

fn rcpt(rest: &str) -> Result<Command, Reply> {
    let path = after_keyword(rest, "TO:").ok_or(replies::RCPT_SYNTAX)?;
    let (address, rest) = read_path(path).map_err(|error| match error {
        AddressError::TooLong => replies::PATH_TOO_LONG,
        AddressError::Shape | AddressError::Character => replies::RECIPIENT_SYNTAX,
    })?;
    let address = address.ok_or(replies::RECIPIENT_SYNTAX)?;
    let (mut notify, mut orcpt) = (None, None);
    for (keyword, value) in parameters(rest)? {
        match (keyword.as_str(), value) {
            ("NOTIFY", Some(value)) => {
                once(&mut notify, Notify::parse(value).ok_or(replies::PARAMETER_SYNTAX)?)?;
            }
            ("ORCPT", Some(value)) => {
                let value = OriginalRecipient::parse(value).map_err(|_| replies::PARAMETER_SYNTAX)?;
                once(&mut orcpt, value)?;
            }
            ("NOTIFY" | "ORCPT", None) => return Err(replies::PARAMETER_SYNTAX),
            _ => return Err(replies::UNKNOWN_PARAMETER),
        }
    }
    Ok(Command::Rcpt(RcptTo { address, notify, orcpt }))
}

/// `BDAT size [LAST]` (RFC 3030 §2). Without a size that can be read, the octets that follow cannot be told from
/// commands: the session ends.
fn bdat(rest: &str) -> Result<Command, Refused> {
    let (len, last) = match rest.split_once(' ') {
        None => (rest, false),
        Some((len, word)) if word.trim_ascii().eq_ignore_ascii_case("LAST") => (len, true),
        Some(_) => return Err(Refused::End(replies::BDAT_SYNTAX)),
    };
    let digits = (1..=20).contains(&len.len()) && len.bytes().all(|b| b.is_ascii_digit());
    match len.parse() {
        Ok(len) if digits => Ok(Command::Bdat { len, last }),
        _ => Err(Refused::End(replies::BDAT_SYNTAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> Reply {
        match parse(Protocol::Smtp, false, line.as_bytes()) {
            Err(Refused::GoOn(reply) | Refused::End(reply)) => reply,
            Ok(command) => panic!("{line:?} was taken as {command:?}"),
        }
    }

    fn mail_from(line: &str) -> MailFrom {
        match parse(Protocol::Smtp, false, line.as_bytes()) {
            Ok(Command::Mail(mail)) => mail,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn mail_and_rcpt_take_every_parameter_that_is_announced() {
        let line = "mail from: <a@b.example> SIZE=1000 BODY=8BITMIME SMTPUTF8 RET=hdrs ENVID=QQ+3D1";
        let mail = mail_from(line);
        assert_eq!(mail.path.unwrap().as_str(), "a@b.example");
        assert_eq!((mail.size, mail.body, mail.smtputf8), (Some(1000), Body::EightBitMime, true));
        assert_eq!(mail.ret, Some(Return::Headers));
        assert_eq!(mail.envid.unwrap().decode(), "QQ=1");
        let line = b"RCPT TO:<b@c.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;b+2B@c.example";
        let Ok(Command::Rcpt(rcpt)) = parse(Protocol::Smtp, false, line) else { panic!() };
        assert_eq!(rcpt.notify.unwrap().value(), "FAILURE,DELAY");
        assert_eq!(rcpt.orcpt.unwrap().address(), "b+@c.example");
    }

    #[test]
    fn bad_input_08_a_size_is_a_number_or_refused() {
        assert_eq!(mail_from("MAIL FROM:<> SIZE=18446744073709551616").size, Some(u64::MAX));
        for size in ["-1", "", "1e9", "+5", "0x10", "99999999999999999999999"] {
            assert_eq!(refused(&format!("MAIL FROM:<> SIZE={size}")), replies::PARAMETER_SYNTAX, "{size}");
        }
    }

    #[test]
    fn bad_input_12_utf8_needs_smtputf8_and_paths_must_be_whole() {
        assert_eq!(refused("MAIL FROM:<jörg@example.org>"), replies::NEEDS_SMTPUTF8);
        assert!(mail_from("MAIL FROM:<jörg@example.org> SMTPUTF8").smtputf8);
        assert_eq!(refused("MAIL FROM:<a@b>SIZE=1"), replies::PATH_SYNTAX);
        assert_eq!(refused("RCPT TO:<>"), replies::RECIPIENT_SYNTAX);
        assert_eq!(refused("RCPT TO:<a\rb@c>"), replies::CONTROL_CHARACTER);
        assert_eq!(refused(&format!("RCPT TO:<{}@c>", "a".repeat(300))), replies::PATH_TOO_LONG);
    }

    #[test]
    fn bad_input_13_envid_and_orcpt_must_be_xtext_within_their_lengths() {
        for envid in ["", "a=b", "+0D+0A", "+", &"a".repeat(101), &"a".repeat(10_240)] {
            assert_eq!(refused(&format!("MAIL FROM:<> ENVID={envid}")), replies::PARAMETER_SYNTAX, "{envid}");
        }
        for orcpt in ["", "rfc822", "rfc822;+0A", "rfc822;a=b"] {
            let line = format!("RCPT TO:<a@b> ORCPT={orcpt}");
            assert_eq!(refused(&line), replies::PARAMETER_SYNTAX, "{orcpt}");
        }
        assert_eq!(refused("MAIL FROM:<> ENVID=a ENVID=b"), replies::PARAMETER_TWICE);
        assert_eq!(refused("MAIL FROM:<> SOLICIT=x"), replies::UNKNOWN_PARAMETER);
        assert_eq!(refused("MAIL FROM:<> BODY=BINARYMIME"), replies::PARAMETER_SYNTAX);
    }

    #[test]
    fn bad_input_14_what_only_trusted_proxies_say_is_refused() {
        for line in ["XFORWARD NAME=x", "XCLIENT ADDR=127.0.0.1 LOGIN=root", "AUTH PLAIN AAAA"] {
            assert_eq!(refused(line), replies::NOT_OFFERED);
        }
        for line in ["PROXY TCP4 192.0.2.1 192.0.2.2 1 25", "GET / HTTP/1.1", "CONNECT mx:25 HTTP/1.1"] {
            assert!(matches!(parse(Protocol::Smtp, false, line.as_bytes()), Err(Refused::End(_))), "{line}");
        }
    }

    #[test]
    fn the_two_protocols_greet_with_different_verbs() {
        assert!(matches!(parse(Protocol::Lmtp, false, b"LHLO x"), Ok(Command::Hello(_))));
        assert!(parse(Protocol::Lmtp, false, b"EHLO x").is_err());
        assert!(parse(Protocol::Smtp, false, b"LHLO x").is_err());
        assert_eq!(refused("EHLO"), replies::HELLO_NAME);
        assert_eq!(refused("EHLO a<b>"), replies::HELLO_NAME);
    }
}
