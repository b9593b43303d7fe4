//! Answers on standard output: JSON for programs, lines for people.

use std::io::{self, Write};

use lighter_location::location::admin::StoreRow;
use lighter_location::rows::TokenRow;
use lighter_location::{AdminAnswer, AdminCommand};
use lighter_protocol::UnixTime;
use lighter_shell::{Exit, count};
use lighter_transport::location::keys::KeyChange;
use serde_json::json;

use crate::cli::{Admin, Failure};

/// Prints one answer.
pub(crate) fn answer(answer: &AdminAnswer, as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        return json_answer(&mut out, answer);
    }
    match answer {
        AdminAnswer::Token { id, token, expires } => {
            writeln!(out, "{}", token.expose())?;
            note(&format!("id {id}, {}; it is not shown again", until(*expires)))
        }
        AdminAnswer::Invitation { mailbox, token, expires } => {
            writeln!(out, "{}", token.expose())?;
            note(&format!("for one store of {mailbox}, {}; it is not shown again", until(Some(*expires))))
        }
        AdminAnswer::Tokens { tokens } => tokens.iter().try_for_each(|row| token_line(&mut out, row)),
        AdminAnswer::Users { stores, .. } => stores.iter().try_for_each(|row| store_line(&mut out, row)),
        AdminAnswer::Invitations { invitations } => invitations
            .iter()
            .try_for_each(|row| writeln!(out, "{} {}", row.mailbox, until(Some(row.expires)))),
        AdminAnswer::Relays { relays } => {
            relays.iter().try_for_each(|relay| writeln!(out, "{} {}", relay.peer, relay.retrieval_url))
        }
        AdminAnswer::Removed { stores } => writeln!(out, "{stores} removed"),
        AdminAnswer::Keys { present, changes } => {
            writeln!(out, "{present}")?;
            changes.iter().try_for_each(|change| {
                writeln!(
                    out,
                    "{} takes over from {} ({})",
                    change.next,
                    change.present,
                    takes_over(change.from)
                )
            })
        }
        AdminAnswer::Done => Ok(()),
    }
}

/// Prints all users, page by page.
pub(crate) async fn users(admin: &Admin, as_json: bool) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure { exit: Exit::Failed, error: error.into() };
    let mut from = 0;
    let mut all = Vec::new();
    loop {
        let page = admin.ask(AdminCommand::UserList { from }).await?;
        let AdminAnswer::Users { stores, next } = page else { break };
        if as_json {
            all.extend(stores);
        } else {
            answer(&AdminAnswer::Users { stores, next }, false).map_err(failed)?;
        }
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    if as_json {
        answer(&AdminAnswer::Users { stores: all, next: None }, true).map_err(failed)?;
    }
    Ok(())
}

fn json_answer(out: &mut impl Write, answer: &AdminAnswer) -> io::Result<()> {
    let value = match answer {
        AdminAnswer::Token { id, token, expires } => json!({ "id": id, "token": token, "expires": expires }),
        AdminAnswer::Invitation { mailbox, token, expires } => {
            json!({ "mailbox": mailbox, "token": token, "expires": expires })
        }
        AdminAnswer::Tokens { tokens } => json!(tokens),
        AdminAnswer::Users { stores, .. } => json!(stores),
        AdminAnswer::Invitations { invitations } => json!(invitations),
        AdminAnswer::Relays { relays } => json!(relays),
        AdminAnswer::Removed { stores } => json!({ "removed": stores }),
        AdminAnswer::Keys { present, changes } => {
            let change = |change: &KeyChange| json!({ "present": change.present.to_string(), "next": change.next.to_string(), "from": change.from });
            let changes: Vec<_> = changes.iter().map(change).collect();
            json!({ "present": present.to_string(), "changes": changes })
        }
        AdminAnswer::Done => json!({}),
    };
    writeln!(out, "{value}")
}

/// What goes beside the answer, so that the answer alone can be piped on.
fn note(text: &str) -> io::Result<()> {
    writeln!(io::stderr(), "{text}")
}

fn token_line(out: &mut impl Write, row: &TokenRow) -> io::Result<()> {
    let scopes: Vec<_> = row.scopes.iter().map(ToString::to_string).collect();
    let state = match row.revoked {
        Some(_) => "revoked".to_owned(),
        None => until(row.expires),
    };
    writeln!(out, "{} {} [{}] {state}", row.id, scopes.join(","), row.name)
}

fn store_line(out: &mut impl Write, row: &StoreRow) -> io::Result<()> {
    let rank = if row.primary { "primary" } else { "further" };
    let pending = if row.confirmed > UnixTime::now() { ", pending" } else { "" };
    let presence = serde_json::to_string(&row.presence).unwrap_or_default();
    let hosted = if row.hosted { ", hosted" } else { "" };
    writeln!(out, "{} {} {rank}{hosted}{pending} {}", row.mailbox, row.peer, presence.trim_matches('"'))
}

fn takes_over(from: UnixTime) -> String {
    match from.since(UnixTime::now()).as_secs() {
        0 => "done".to_owned(),
        left => format!("in {}", count(left.div_ceil(3_600), "hour", "hours")),
    }
}

fn until(expires: Option<UnixTime>) -> String {
    match expires {
        None => "does not expire".to_owned(),
        Some(expires) => {
            let left = expires.since(UnixTime::now()).as_secs();
            match left {
                0 => "expired".to_owned(),
                1..7_200 => format!("good for {}", count(left.div_ceil(60), "minute", "minutes")),
                7_200..172_800 => format!("good for {} hours", left.div_ceil(3_600)),
                _ => format!("good for {} days", left.div_ceil(86_400)),
            }
        }
    }
}
