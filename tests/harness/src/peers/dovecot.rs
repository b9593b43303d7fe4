//! Dovecot: takes mail by LMTP and gives it back by IMAP; knows whose password is right, for Postfix.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use tokio::process::Command;

use super::{As, Foreground, folders, free_address, is_root, run};

/// A Dovecot that takes mail for every address by LMTP and gives it back by IMAP.
#[derive(Debug)]
pub struct Dovecot {
    /// Where it takes mail.
    pub lmtp: SocketAddr,
    /// Where it gives mail back.
    pub imap: SocketAddr,
    /// Where Postfix asks whose password is right (`smtpd_sasl_path = inet:…`).
    pub sasl: SocketAddr,
    _process: Foreground,
}

impl Dovecot {
    /// Every user's password.
    pub const PASSWORD: &str = "secret";

    /// Starts Dovecot in `folder`.
    ///
    /// # Errors
    /// Where it is not installed (tests/run installs it) or does not start: with its log.
    pub async fn start(folder: &Path) -> Result<Self> {
        Self::start_at(folder, free_address()?).await
    }

    /// Starts Dovecot in `folder`, taking mail at `lmtp`.
    ///
    /// # Errors
    /// As [`Dovecot::start`].
    pub async fn start_at(folder: &Path, lmtp: SocketAddr) -> Result<Self> {
        let (imap, sasl) = (free_address()?, free_address()?);
        folders(folder, &["run", "mail"])?;
        let user = if is_root() {
            // Dovecot keeps no mail as root, and reaches its sockets below a private folder of root's.
            run(As::Caller, "chown mail:mail \"$1/mail\" && chmod 755 \"$1\"", &[folder]).await?;
            User { name: "mail".to_owned(), group: "mail".to_owned() }
        } else {
            User { name: id("-un").await?, group: id("-gn").await? }
        };
        let config = folder.join("dovecot.conf");
        std::fs::write(&config, conf(folder, lmtp, imap, sasl, &user))?;
        let config = config.to_str().context("a folder whose name is no UTF-8")?;
        let command = ["dovecot", "-F", "-c", config];
        let log = folder.join("dovecot.log");
        let mut process = Foreground::start(As::Caller, &command, "kill $child", &log, lmtp).await?;
        process.wait_until(imap).await?;
        process.wait_until(sasl).await?;
        Ok(Self { lmtp, imap, sasl, _process: process })
    }
}

/// Who keeps the mail.
struct User {
    name: String,
    group: String,
}

async fn id(what: &str) -> Result<String> {
    let output = Command::new("id").arg(what).output().await?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn conf(folder: &Path, lmtp: SocketAddr, imap: SocketAddr, sasl: SocketAddr, user: &User) -> String {
    let (folder, password) = (folder.display(), Dovecot::PASSWORD);
    let (lmtp, imap, sasl) = (lmtp.port(), imap.port(), sasl.port());
    let User { name, group } = user;
    let mut conf = format!(
        "base_dir = {folder}/run\n\
         state_dir = {folder}/run\n\
         instance_name = lighter-test-{imap}\n\
         log_path = /dev/stderr\n\
         protocols = imap lmtp\n\
         listen = 127.0.0.1\n\
         ssl = no\n\
         disable_plaintext_auth = no\n\
         mail_location = maildir:{folder}/mail/%u\n\
         first_valid_uid = 1\n\
         first_valid_gid = 1\n\
         passdb {{\n driver = static\n args = password={password}\n}}\n\
         userdb {{\n driver = static\n args = uid={name} gid={group} home={folder}/mail/%u \
         allow_all_users=yes\n}}\n\
         service imap-login {{\n chroot =\n inet_listener imap {{\n address = 127.0.0.1\n port = {imap}\n }}\n \
         inet_listener imaps {{\n port = 0\n }}\n}}\n\
         service lmtp {{\n inet_listener lmtp {{\n address = 127.0.0.1\n port = {lmtp}\n }}\n}}\n\
         auth_mechanisms = plain login\n\
         service auth {{\n inet_listener {{\n address = 127.0.0.1\n port = {sasl}\n }}\n}}\n\
         service anvil {{\n chroot =\n}}\n"
    );
    if !is_root() {
        conf.push_str(&format!(
            "default_internal_user = {name}\ndefault_internal_group = {group}\ndefault_login_user = {name}\n"
        ));
    }
    conf
}
