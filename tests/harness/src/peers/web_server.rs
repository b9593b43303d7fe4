//! nginx: a web server that speaks HTTPS for several hosts, each with a certificate and an answer of its own.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};

use super::{As, Certificate, Foreground};

/// What one host answers.
#[derive(Clone, Debug)]
pub enum Site {
    /// This text, at this path; nothing elsewhere.
    Text(&'static str, String),
    /// Whatever the server at this address answers to the same request.
    Proxy(SocketAddr),
}

/// One host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What it shows.
    pub certificate: Certificate,
    /// What it answers.
    pub site: Site,
}

/// An nginx that runs until it is dropped.
#[derive(Debug)]
pub struct WebServer {
    _process: Foreground,
}

impl WebServer {
    /// Starts one for `hosts`.
    ///
    /// # Errors
    /// Where it is not installed (tests/run installs it) or does not start: with its log.
    pub async fn start(folder: &Path, hosts: &[Host]) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        // As root it would give its workers to a user who may not read here.
        let mut config = format!(
            "user root;\nworker_processes 1;\ndaemon off;\npid {0}/nginx.pid;\nerror_log stderr warn;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off;\n\
             client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/fastcgi;\n\
             uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;\n",
            folder.display()
        );
        for Host { listen, certificate, site } in hosts {
            let site = match site {
                Site::Text(path, text) => {
                    format!(
                        "location = {path} {{ default_type application/json; return 200 '{text}'; }} location / {{ return 404; }}"
                    )
                }
                Site::Proxy(address) => format!("location / {{ proxy_pass http://{address}; }}"),
            };
            config += &format!(
                "server {{ listen {listen} ssl; ssl_certificate {}; ssl_certificate_key {};\n{site} }}\n",
                certificate.certificate.display(),
                certificate.key.display()
            );
        }
        config += "}\n";
        let file = folder.join("nginx.conf");
        std::fs::write(&file, config)?;
        let text =
            |path: &Path| path.to_str().map(ToOwned::to_owned).context("a folder whose name is no UTF-8");
        let (prefix, file) = (text(folder)?, text(&file)?);
        let command = ["nginx", "-p", &prefix, "-c", &file, "-e", "stderr"];
        let port = hosts.first().context("a host")?.listen;
        let process =
            Foreground::start(As::Caller, &command, "kill -QUIT $child", &folder.join("log"), port).await?;
        Ok(Self { _process: process })
    }
}
