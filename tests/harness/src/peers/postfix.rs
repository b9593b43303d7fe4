//! Postfix: takes mail by SMTP and hands it on, set up as docs/OPERATING.md says.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{As, Foreground, example, folders, free_address, is_root, run};
use crate::world::DOMAIN;

/// Where a Postfix hands its mail on to.
#[derive(Clone, Debug)]
pub enum Route {
    /// Everything to an LMTP server: a relay, or a mailbox server.
    Lmtp(SocketAddr),
    /// Everything to an SMTP server.
    Smtp(SocketAddr),
    /// Everything through a relay, and back, to a mailbox server.
    Filter {
        /// Where the relay takes SMTP.
        relay: SocketAddr,
        /// Where Postfix takes mail back: the relay's next hop.
        back: SocketAddr,
        /// Where the mailbox server takes LMTP.
        mailboxes: SocketAddr,
    },
    /// Its users' mail through an outgoing agent, and back; all mail then to an LMTP server.
    Outgoing {
        /// Where the agent takes mail.
        agent: SocketAddr,
        /// Where Postfix takes mail back.
        back: SocketAddr,
        /// Where everything goes in the end.
        onward: SocketAddr,
    },
}

/// A Postfix that takes mail from this machine for every domain.
#[derive(Debug)]
pub struct Postfix {
    /// Where it takes mail.
    pub smtp: SocketAddr,
    log: PathBuf,
    _process: Foreground,
}

impl Postfix {
    /// Starts Postfix in `folder`.
    ///
    /// # Errors
    /// Where it is not installed (tests/run installs it) or does not start: with its log.
    pub async fn start(folder: &Path, route: &Route) -> Result<Self> {
        Self::start_at(folder, free_address()?, route, "").await
    }

    /// Starts Postfix in `folder`, taking mail at `smtp`, with `more` lines in its `main.cf`.
    ///
    /// # Errors
    /// As [`Postfix::start`].
    pub async fn start_at(folder: &Path, smtp: SocketAddr, route: &Route, more: &str) -> Result<Self> {
        folders(folder, &["etc", "queue", "data"])?;
        let etc = folder.join("etc");
        std::fs::write(etc.join("main.cf"), main(folder, route)? + more)?;
        std::fs::write(etc.join("master.cf"), master(smtp, route)?)?;
        // Postfix's daemons run as `postfix`, in the queue folder, and reach what is theirs below a private one.
        run(As::Root, "chown postfix \"$1/data\" && chmod 755 \"$1\"", &[folder]).await?;
        let text =
            |path: &Path| path.to_str().map(ToOwned::to_owned).context("a folder whose name is no UTF-8");
        let mut stop = format!("postfix -c '{}' stop", text(&etc)?);
        if !is_root() {
            // What root made in it, an ordinary user cannot remove.
            let folder = text(folder)?;
            stop.push_str(&format!("; rm -rf '{folder}/queue' '{folder}/data'"));
        }
        let log = folder.join("postfix.log");
        let command = ["postfix", "-c", &text(&etc)?, "start-fg"];
        let mut process = Foreground::start(As::Root, &command, &stop, &log, smtp).await?;
        if let Route::Filter { back, .. } | Route::Outgoing { back, .. } = route {
            process.wait_until(*back).await?;
        }
        Ok(Self { smtp, log, _process: process })
    }

    /// Whether its queue is empty: what was begun with is removed, by its log.
    pub fn is_idle(&self) -> bool {
        let log = self.log();
        let ids = |what: &str| -> BTreeSet<&str> {
            let said = |line| queue_manager_said(line).filter(|(_, said)| said.starts_with(what));
            log.lines().filter_map(said).map(|(id, _)| id).collect()
        };
        ids("from=<").is_subset(&ids("removed"))
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Of which message a line of the log is, and what the queue manager said of it.
fn queue_manager_said(line: &str) -> Option<(&str, &str)> {
    line.split_once("/qmgr[")?.1.split_once("]: ")?.1.split_once(": ")
}

/// What every test's Postfix has, then the lines of docs/OPERATING.md for its route.
fn main(folder: &Path, route: &Route) -> Result<String> {
    let common = format!(
        "compatibility_level = 3.6\n\
         queue_directory = {folder}/queue\n\
         data_directory = {folder}/data\n\
         command_directory = /usr/sbin\n\
         daemon_directory = /usr/lib/postfix/sbin\n\
         mail_owner = postfix\n\
         setgid_group = postdrop\n\
         maillog_file = /dev/stdout\n\
         myhostname = mx.{DOMAIN}\n\
         mydestination =\n\
         inet_interfaces = 127.0.0.1\n\
         inet_protocols = ipv4\n\
         mynetworks = 127.0.0.0/8\n\
         smtpd_relay_restrictions = permit_mynetworks, reject\n\
         message_size_limit = 0\n\
         mailbox_size_limit = 0\n\
         alias_maps =\n\
         alias_database =\n",
        folder = folder.display()
    );
    let own = match route {
        Route::Lmtp(to) => {
            // The example is for one's own domains; here everything goes the same way.
            example(
                "postfix-lmtp-main",
                &[("relay_transport", "default_transport"), ("127.0.0.1:2424", &to.to_string())],
            )?
        }
        Route::Smtp(to) => {
            let to = format!("[127.0.0.1]:{}", to.port());
            example(
                "postfix-smtp-main",
                &[("relay_transport", "default_transport"), ("[127.0.0.1]:2525", &to)],
            )?
        }
        Route::Filter { relay, mailboxes, .. } => {
            let relay = format!("[127.0.0.1]:{}", relay.port());
            let filter = example("postfix-filter-main", &[("[127.0.0.1]:2525", &relay)])?;
            format!("default_transport = lmtp:inet:{mailboxes}\n{filter}")
        }
        Route::Outgoing { onward, .. } => {
            let transparent = example("postfix-outgoing-main", &[])?;
            format!("default_transport = lmtp:inet:{onward}\n{transparent}")
        }
    };
    Ok(common + &own)
}

/// The services that taking mail and handing it on need, none of them in a chroot.
fn master(smtp: SocketAddr, route: &Route) -> Result<String> {
    let mut text = format!("{smtp} inet n - n - - smtpd\n");
    if let Route::Outgoing { agent, .. } = route {
        // The example is for Postfix's submission service; here its users send at this one.
        let agent = format!("[127.0.0.1]:{}", agent.port());
        text.push_str(&example("postfix-outgoing-submission", &[("[127.0.0.1]:10025", &agent)])?);
    }
    // The queue manager is woken each second, not every five minutes: a message that is to be tried again while the one who has
    // just failed to deliver it still has it open is put where only that finds it ("skipped, still being delivered").
    for service in [
        "pickup unix n - n 60 1 pickup",
        "cleanup unix n - n - 0 cleanup",
        "qmgr unix n - n 1 1 qmgr",
        "tlsmgr unix - - n 1000? 1 tlsmgr",
        "rewrite unix - - n - - trivial-rewrite",
        "bounce unix - - n - 0 bounce",
        "defer unix - - n - 0 bounce",
        "trace unix - - n - 0 bounce",
        "verify unix - - n - 1 verify",
        "flush unix n - n 1000? 0 flush",
        "proxymap unix - - n - - proxymap",
        "proxywrite unix - - n - 1 proxymap",
        "error unix - - n - - error",
        "retry unix - - n - - error",
        "discard unix - - n - - discard",
        "smtp unix - - n - - smtp",
        "lmtp unix - - n - - lmtp",
        "anvil unix - - n - 1 anvil",
        "scache unix - - n - 1 scache",
        "postlog unix-dgram n - n - 1 postlogd",
    ] {
        text.push_str(service);
        text.push('\n');
    }
    if let Route::Filter { back, .. } = route {
        text.push_str(&example("postfix-filter-master", &[("127.0.0.1:10026", &back.to_string())])?);
    }
    if let Route::Outgoing { back, .. } = route {
        text.push_str(&example("postfix-outgoing-master", &[("127.0.0.1:10027", &back.to_string())])?);
    }
    Ok(text)
}
