//! nginx (Debian: `nginx-light`), as a static file server is set up to be fast: sendfile, no log.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// Where the program is, if neither on the PATH nor where Debian puts it.
const PROGRAM: &str = "LIGHTER_NGINX";
/// Debian's place, which is on no user's PATH.
const DEBIANS: &str = "/usr/sbin/nginx";
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// An nginx that runs until it is dropped.
#[derive(Debug)]
pub(super) struct Nginx {
    pub(super) address: SocketAddr,
    child: Child,
    folder: PathBuf,
}

impl Nginx {
    /// Starts it; none where there is no nginx, and that is said.
    pub(super) fn start(folder: &Path) -> Result<Option<Self>> {
        let named = std::env::var_os(PROGRAM);
        let there = named.into_iter().chain(["nginx".into(), DEBIANS.into()]).find(|program: &OsString| {
            let asked = Command::new(program).arg("-v").stderr(Stdio::null()).status();
            asked.is_ok_and(|status| status.success())
        });
        let Some(program) = there else {
            eprintln!("nginx is not there and is left out: `apt-get install nginx-light`, or {PROGRAM}=FILE");
            return Ok(None);
        };
        let folder = folder.join("nginx");
        std::fs::create_dir_all(folder.join("files"))?;
        let address = free_address()?;
        // As root it would give its workers to a user who may not read here.
        let config = format!(
            "user root;\nworker_processes auto;\ndaemon off;\npid {0}/nginx.pid;\nerror_log stderr crit;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;\n\
             client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/fastcgi;\n\
             uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;\n\
             server {{ listen {address}; root {0}/files; }} }}\n",
            folder.display()
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, config)?;
        let mut command = Command::new(program);
        command.arg("-p").arg(&folder).arg("-c").arg(&file).args(["-e", "stderr"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut nginx = Self { address, child, folder };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = nginx.child.try_wait()?;
            ensure!(ended.is_none(), "nginx ended at once: {ended:?}");
            ensure!(began.elapsed() < START_TIME_MAX, "nginx does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(nginx))
    }

    /// Gives it a file to send; gives the request for it.
    pub(super) fn put(&self, name: &str, file: &[u8]) -> Result<Vec<u8>> {
        std::fs::write(self.folder.join("files").join(name), file)?;
        Ok(format!("GET /{name} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address).into_bytes())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its master ends its workers: told to quit it does, killed it would leave them.
        let quit = Command::new("kill").arg("-QUIT").arg(self.child.id().to_string()).status();
        if !quit.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// nginx cannot be asked which port it took: one that was free a moment ago.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
