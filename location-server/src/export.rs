//! `export`: everything but secrets, as JSON lines, one object each, `kind` first.

use std::io::{self, Write};

use lighter_location::{AdminAnswer, AdminCommand};
use lighter_shell::Exit;
use serde::Serialize;

use crate::cli::{Admin, Failure};

/// One line.
#[derive(Serialize)]
struct Line<T: Serialize> {
    kind: &'static str,
    #[serde(flatten)]
    value: T,
}

/// Prints stores, invitations, tokens (without the tokens themselves, which nobody has) and relays.
pub(crate) async fn print(admin: &Admin) -> Result<(), Failure> {
    let mut from = 0;
    loop {
        let AdminAnswer::Users { stores, next } = admin.ask(AdminCommand::UserList { from }).await? else {
            break;
        };
        lines("store", stores)?;
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    if let AdminAnswer::Invitations { invitations } = admin.ask(AdminCommand::InvitationList).await? {
        lines("invitation", invitations)?;
    }
    if let AdminAnswer::Tokens { tokens } = admin.ask(AdminCommand::TokenList).await? {
        lines("token", tokens)?;
    }
    if let AdminAnswer::Relays { relays } = admin.ask(AdminCommand::RelayList).await? {
        lines("relay", relays)?;
    }
    Ok(())
}

fn lines<T: Serialize>(kind: &'static str, values: Vec<T>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for value in values {
        let line = serde_json::to_string(&Line { kind, value }).map_err(io::Error::from);
        line.and_then(|line| writeln!(out, "{line}"))
            .map_err(|error| Failure { exit: Exit::Failed, error: error.into() })?;
    }
    Ok(())
}
