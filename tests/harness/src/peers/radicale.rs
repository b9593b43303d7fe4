//! Radicale, a CardDAV server: address books over HTTP, behind a password.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use data_encoding::BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{As, Foreground, free_address};

/// One that knows one user, and no address book yet.
#[derive(Debug)]
pub struct Radicale {
    /// Where it listens.
    pub address: SocketAddr,
    folder: PathBuf,
    _server: Foreground,
}

impl Radicale {
    /// Its user.
    pub const USER: &'static str = "sam";
    /// The user's password.
    pub const PASSWORD: &'static str = "open: sesame";

    /// Starts it with what is in `folder`, made where it is missing.
    ///
    /// # Errors
    /// Where it is not installed (tests/run installs it), or does not start.
    pub async fn start(folder: &Path, address: Option<SocketAddr>) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let address = address.map_or_else(free_address, Ok)?;
        let (users, config) = (folder.join("users"), folder.join("config"));
        std::fs::write(&users, format!("{}:{}\n", Self::USER, Self::PASSWORD))?;
        let text = format!(
            "[server]\nhosts = {address}\n\
             [auth]\ntype = htpasswd\nhtpasswd_filename = {users}\nhtpasswd_encryption = plain\ndelay = 0\n\
             [storage]\nfilesystem_folder = {storage}\n\
             [logging]\nlevel = info\n",
            users = users.display(),
            storage = folder.join("collections").display(),
        );
        std::fs::write(&config, text)?;
        let config = config.to_str().context("a folder with an odd name")?;
        // Debian's own Python, whatever others there are.
        let command = ["/usr/bin/python3", "/usr/bin/radicale", "--config", config];
        let log = folder.join("log");
        let server = Foreground::start(As::Caller, &command, "kill $child", &log, address).await?;
        Ok(Self { address, folder: folder.to_owned(), _server: server })
    }

    /// What it was asked since its first start, a line for each request.
    ///
    /// # Errors
    /// Where its log cannot be read.
    pub fn requests(&self) -> Result<Vec<String>> {
        let log = std::fs::read_to_string(self.folder.join("log"))?;
        Ok(log.lines().filter(|line| line.contains(" request for ")).map(str::to_owned).collect())
    }

    /// Makes an address book of the user's.
    ///
    /// # Errors
    /// What it answers, where that is no success.
    pub async fn make_book(&self, path: &str, name: &str) -> Result<()> {
        let body = format!(
            "<?xml version=\"1.0\"?><mkcol xmlns=\"DAV:\" xmlns:c=\"urn:ietf:params:xml:ns:carddav\"><set><prop>\
             <resourcetype><collection/><c:addressbook/></resourcetype><displayname>{name}</displayname>\
             </prop></set></mkcol>"
        );
        self.ask("MKCOL", path, "application/xml", &body).await
    }

    /// Puts a card there.
    ///
    /// # Errors
    /// What it answers, where that is no success.
    pub async fn put(&self, path: &str, card: &str) -> Result<()> {
        self.ask("PUT", path, "text/vcard; charset=utf-8", card).await
    }

    /// Removes what is there.
    ///
    /// # Errors
    /// What it answers, where that is no success.
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.ask("DELETE", path, "text/plain", "").await
    }

    async fn ask(&self, method: &str, path: &str, kind: &str, body: &str) -> Result<()> {
        let basic = BASE64.encode(format!("{}:{}", Self::USER, Self::PASSWORD).as_bytes());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {basic}\r\nContent-Type: {kind}\r\n\
             Content-Length: {len}\r\nConnection: close\r\n\r\n{body}",
            address = self.address,
            len = body.len(),
        );
        let mut stream = TcpStream::connect(self.address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.lines().next().unwrap_or_default();
        ensure!(
            status.split(' ').nth(1).is_some_and(|code| code.starts_with('2')),
            "{method} {path}: {answer}"
        );
        Ok(())
    }
}
