//! nginx in front of the relay's web server and the location server, as docs/OPERATING.md says: it does TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{As, Certificate, Foreground, example, folders};

/// An nginx that is stopped with its handle.
#[derive(Debug)]
pub struct Nginx {
    log: PathBuf,
    _process: Foreground,
}

impl Nginx {
    /// Starts it in `folder`, at `listen` with `certificate`, in front of a relay's web server and a location server.
    ///
    /// # Errors
    /// Where it is not installed (tests/run installs it) or does not start: with its log.
    pub async fn start(
        folder: &Path,
        listen: SocketAddr,
        certificate: &Certificate,
        relay: SocketAddr,
        location: SocketAddr,
    ) -> Result<Self> {
        folders(folder, &["temporary"])?;
        let text = |path: &Path| path.to_str().map(ToOwned::to_owned).context("a path that is no UTF-8");
        let (log, temporary) = (folder.join("access.log"), text(&folder.join("temporary"))?);
        let server = example(
            "nginx-in-front",
            &[
                ("listen 443 ssl;", &format!("listen {listen} ssl;")),
                ("/etc/ssl/mail.example.org.pem", &text(&certificate.certificate)?),
                ("/etc/ssl/private/mail.example.org.key", &text(&certificate.key)?),
                ("127.0.0.1:7081", &relay.to_string()),
                ("127.0.0.1:7080", &location.to_string()),
            ],
        )?;
        let temporaries: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {temporary}/{name};\n"))
            .concat();
        let user = if super::is_root() { "user root;\n" } else { "" };
        let config = folder.join("nginx.conf");
        let conf = format!(
            "{user}pid {temporary}/pid;\ndaemon off;\nevents {{}}\nhttp {{\n{temporaries}access_log {};\n{server}\n}}\n",
            text(&log)?
        );
        std::fs::write(&config, conf)?;
        let (config, errors) = (text(&config)?, folder.join("nginx.log"));
        let command = ["nginx", "-e", "stderr", "-c", &config];
        let process = Foreground::start(As::Caller, &command, "kill $child", &errors, listen).await?;
        Ok(Self { log, _process: process })
    }

    /// What it was asked, a line each.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn asked(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }
}
