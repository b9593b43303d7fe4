//! Real mail servers beside Lighter: Debian's Postfix before the relay, Debian's Dovecot behind it, each in the
//! foreground with a configuration folder of its own, on loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How long a mail server may take until it answers on its port.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two tries to connect to a port that is not open yet: these programs do not say when they are ready.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// A port that was free a moment ago, for programs that cannot take one from the kernel themselves.
///
/// # Errors
/// Where the kernel has none.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A Postfix that takes mail by SMTP and hands everything on by LMTP.
#[derive(Debug)]
pub struct Postfix {
    /// Where it takes mail.
    pub smtp: SocketAddr,
    _process: Foreground,
}

impl Postfix {
    /// Starts Postfix in `folder`, with `lmtp` as the next hop of every domain.
    ///
    /// # Errors
    /// Where it is not installed (tests/run installs it) or does not start: with its log.
    pub async fn start(folder: &Path, lmtp: SocketAddr) -> Result<Self> {
        let smtp = free_address()?;
        let etc = folder.join("etc");
        for name in ["etc", "queue", "data"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        std::fs::write(etc.join("main.cf"), postfix_main(folder, lmtp))?;
        std::fs::write(etc.join("master.cf"), postfix_master(smtp))?;
        run(Command::new("chown").arg("postfix").arg(folder.join("data"))).await?;
        // Postfix's own daemons run as `postfix` and must reach the queue through a private temporary folder.
        run(Command::new("chmod").arg("755").arg(folder)).await?;
        let mut command = Command::new("postfix");
        command.arg("-c").arg(&etc).arg("start-fg");
        let process = Foreground::start(command, folder.join("postfix.log"), smtp).await?;
        Ok(Self { smtp, _process: process })
    }
}

/// LMTP with line folding and re-coding off is byte-transparent: what Postfix took in is what the relay gets.
fn postfix_main(folder: &Path, lmtp: SocketAddr) -> String {
    let (folder, port) = (folder.display(), lmtp.port());
    format!(
        "compatibility_level = 3.6\n\
         queue_directory = {folder}/queue\n\
         data_directory = {folder}/data\n\
         command_directory = /usr/sbin\n\
         daemon_directory = /usr/lib/postfix/sbin\n\
         mail_owner = postfix\n\
         setgid_group = postdrop\n\
         maillog_file = /dev/stdout\n\
         myhostname = mx.lighter.test\n\
         mydestination =\n\
         inet_interfaces = 127.0.0.1\n\
         inet_protocols = ipv4\n\
         mynetworks = 127.0.0.0/8\n\
         smtpd_relay_restrictions = permit_mynetworks, reject\n\
         default_transport = lmtp:inet:127.0.0.1:{port}\n\
         relay_transport = lmtp:inet:127.0.0.1:{port}\n\
         message_size_limit = 0\n\
         mailbox_size_limit = 0\n\
         alias_maps =\n\
         alias_database =\n\
         lmtp_line_length_limit = 0\n\
         disable_mime_output_conversion = yes\n"
    )
}

/// The services that taking mail and handing it on by LMTP need, none of them in a chroot.
fn postfix_master(smtp: SocketAddr) -> String {
    let mut text = format!("{smtp} inet n - n - - smtpd\n");
    for service in [
        "pickup unix n - n 60 1 pickup",
        "cleanup unix n - n - 0 cleanup",
        "qmgr unix n - n 300 1 qmgr",
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
        "lmtp unix - - n - - lmtp",
        "anvil unix - - n - 1 anvil",
        "scache unix - - n - 1 scache",
        "postlog unix-dgram n - n - 1 postlogd",
    ] {
        text.push_str(service);
        text.push('\n');
    }
    text
}

/// A Dovecot that takes mail by LMTP and gives it back by IMAP; every user's password is [`Dovecot::PASSWORD`].
#[derive(Debug)]
pub struct Dovecot {
    /// Where it takes mail.
    pub lmtp: SocketAddr,
    /// Where it gives mail back.
    pub imap: SocketAddr,
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
        let imap = free_address()?;
        for name in ["run", "mail"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        run(Command::new("chown").arg("mail:mail").arg(folder.join("mail"))).await?;
        run(Command::new("chmod").arg("755").arg(folder)).await?;
        let config = folder.join("dovecot.conf");
        std::fs::write(&config, dovecot_conf(folder, lmtp, imap))?;
        let mut command = Command::new("dovecot");
        command.arg("-F").arg("-c").arg(&config);
        let process = Foreground::start(command, folder.join("dovecot.log"), lmtp).await?;
        wait_for_port(imap).await?;
        Ok(Self { lmtp, imap, _process: process })
    }
}

fn dovecot_conf(folder: &Path, lmtp: SocketAddr, imap: SocketAddr) -> String {
    let (folder, password) = (folder.display(), Dovecot::PASSWORD);
    let (lmtp, imap) = (lmtp.port(), imap.port());
    format!(
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
         userdb {{\n driver = static\n args = uid=mail gid=mail home={folder}/mail/%u allow_all_users=yes\n}}\n\
         service imap-login {{\n chroot =\n inet_listener imap {{\n address = 127.0.0.1\n port = {imap}\n }}\n \
         inet_listener imaps {{\n port = 0\n }}\n}}\n\
         service lmtp {{\n inet_listener lmtp {{\n address = 127.0.0.1\n port = {lmtp}\n }}\n}}\n\
         service anvil {{\n chroot =\n}}\n"
    )
}

/// A program that stays in the foreground and ends with its handle.
#[derive(Debug)]
struct Foreground {
    child: Child,
}

impl Foreground {
    async fn start(mut command: Command, log: PathBuf, port: SocketAddr) -> Result<Self> {
        let output = std::fs::File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!("start {:?}: is it installed? tests/run installs it", command.as_std().get_program())
            })?;
        let foreground = Self { child };
        wait_for_port(port).await.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        Ok(foreground)
    }
}

impl Drop for Foreground {
    /// SIGTERM, not SIGKILL: both programs have children that they end themselves.
    fn drop(&mut self) {
        let pid =
            self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            while matches!(self.child.try_wait(), Ok(None)) {
                std::thread::yield_now();
            }
        }
    }
}

async fn wait_for_port(port: SocketAddr) -> Result<()> {
    let connected = async {
        while TcpStream::connect(port).await.is_err() {
            tokio::time::sleep(CONNECT_PAUSE).await;
        }
    };
    tokio::time::timeout(START_TIMEOUT, connected).await.with_context(|| format!("nothing answers on {port}"))
}

async fn run(command: &mut Command) -> Result<()> {
    let status = command.status().await?;
    if !status.success() {
        bail!("{:?} ended with {status}", command.as_std());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{MailClient, TestMessage};

    #[tokio::test]
    async fn mail_goes_through_postfix_to_dovecot() {
        let folder = tempfile::tempdir().unwrap();
        let dovecot = Dovecot::start(&folder.path().join("dovecot")).await.unwrap();
        let postfix = Postfix::start(&folder.path().join("postfix"), dovecot.lmtp).await.unwrap();
        let message = TestMessage::new("alice@lighter.test", 1000, 1);
        crate::mail::send(postfix.smtp, &message, &["alice@lighter.test"]).await.unwrap();
        let mut imap =
            crate::imap::Imap::login(dovecot.imap, "alice@lighter.test", Dovecot::PASSWORD).await.unwrap();
        let received = imap.wait_for_message(1).await.unwrap();
        let attachment = message.to_bytes();
        let end = &attachment[attachment.len() - 200..];
        assert!(received.windows(end.len()).any(|window| window == end));
        MailClient::connect(dovecot.lmtp, "LHLO").await.unwrap();
    }
}
