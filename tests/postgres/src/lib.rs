//! A real PostgreSQL server for tests: Debian's, in a folder of its own, on a Unix socket and no port.
//!
//! Each [`Postgres`] is one cluster: made by `initdb`, started in the foreground, ended when it is dropped. A watcher
//! between the test and the server holds the other end of a pipe: where the test's process ends without dropping
//! anything, killed for one, the server ends and its folder goes. Nothing of the machine's own clusters is touched.
//!
//! PostgreSQL does not run as root: there, it runs as the user `postgres` that the package made.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

/// How long a server may take to come up, recovery on a busy machine included.
const READY_TIME_MAX: Duration = Duration::from_secs(60);
/// Between two looks at whether it has.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What goes between the test and the server: ends the server, and removes what it left, when the pipe closes.
const WATCHER: &str = r#"
folder=$1; shift
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
(while read -r _ <&3; do :; done
 kill -QUIT $server
 while kill -0 $server 2>/dev/null; do sleep 0.1; done
 rm -rf "$folder") >/dev/null 2>&1 &
exec 3<&-
wait $server
"#;

/// A cluster, and its server where that runs.
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    settings: Vec<(String, String)>,
    /// Of the socket, and, with TLS, of TCP.
    port: u16,
    server: Option<Server>,
}

/// A running server and its watcher, a group of processes. Dropped, all of them are killed.
#[derive(Debug)]
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // While the pipe is still open: the watcher must not see it close, and remove the folder.
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// The one that all tests of a process share, each with a database of its own: see [`database`].
static SHARED: OnceLock<Postgres> = OnceLock::new();

/// A new, empty database on a server that all tests of this process share: what to connect with.
pub fn database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let server = SHARED.get_or_init(|| Postgres::start(&[("fsync", "off"), ("max_connections", "200")]));
    server.create_database(&format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

impl Postgres {
    /// Makes a cluster and starts its server with `settings` besides its defaults.
    ///
    /// # Panics
    /// Where PostgreSQL is not installed (`tests/run` installs it) or does not start.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let mut postgres = Self::make(settings);
        postgres.run();
        postgres
    }

    /// As [`Postgres::start`], with TLS on a TCP port of 127.0.0.1: see [`Postgres::tls_url`].
    ///
    /// # Panics
    /// As [`Postgres::start`].
    pub fn start_with_tls(certificate: &str, key: &str) -> Self {
        let mut postgres = Self::make(&[("listen_addresses", "127.0.0.1"), ("ssl", "on"), ("fsync", "off")]);
        for (setting, name, text) in
            [("ssl_cert_file", "tls.crt", certificate), ("ssl_key_file", "tls.key", key)]
        {
            let path = postgres.folder.path().join(name);
            std::fs::write(&path, text).expect("a file");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("permissions");
            if let Some((user, group)) = postgres_user() {
                std::os::unix::fs::chown(&path, Some(user), Some(group)).expect("the file's owner");
            }
            postgres.settings.push((setting.to_owned(), path.display().to_string()));
        }
        // PostgreSQL takes no port 0: one that is free a moment before.
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        postgres.port = free.expect("a free port").port();
        postgres.run();
        postgres
    }

    /// What to connect to a database with over TCP.
    pub fn tls_url(&self, host: &str, database: &str) -> String {
        format!("host={host} port={} user=lighter dbname={database}", self.port)
    }

    fn make(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("lighter-pg-").tempdir().expect("a temporary folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("permissions");
        if let Some((user, group)) = postgres_user() {
            std::os::unix::fs::chown(folder.path(), Some(user), Some(group)).expect("the folder's owner");
        }
        let data = folder.path().join("data");
        let made = as_postgres(&program("initdb"))
            .args(["--no-sync", "--auth=trust", "--username=lighter", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", said(&made));
        let settings =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { folder, settings, port: 5432, server: None }
    }

    /// Makes an empty database: what to connect with.
    ///
    /// # Panics
    /// Where that cannot be done.
    pub fn create_database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(name)
    }

    /// What to connect to a database with.
    pub fn url(&self, database: &str) -> String {
        format!("host={} port={} user=lighter dbname={database}", self.folder.path().display(), self.port)
    }

    /// Runs statements in a database, and gives what they say: a row a line, columns parted by `|`.
    ///
    /// # Panics
    /// Where the server does not take them.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        let output = Command::new(program("psql"))
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"])
            .args(["--username=lighter", "--dbname", database, "--command", statements, "--host"])
            .arg(self.folder.path())
            .args(["--port", &self.port.to_string()])
            .output()
            .expect("psql runs");
        assert!(output.status.success(), "{statements}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Kills every process of the server at once: nothing is flushed, nobody is told.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Ends the server at once, as `pg_ctl stop -m immediate` does: connections are told, nothing is checkpointed.
    pub fn stop_immediately(&mut self) {
        let Some(server) = &mut self.server else { return };
        if let Some(postmaster) = postmaster(self.folder.path()) {
            let _ = kill_process(postmaster, Signal::QUIT);
        }
        while matches!(server.0.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK_INTERVAL);
        }
        self.server = None;
    }

    /// Starts the server again, where it does not run, and waits until it takes connections.
    ///
    /// # Panics
    /// Where it does not come up.
    pub fn run(&mut self) {
        let deadline = Instant::now() + READY_TIME_MAX;
        // After a kill, the last of the old server's processes may have its memory for a moment yet.
        while self.server.is_none() {
            self.server = self.try_run(deadline);
            assert!(
                self.server.is_some() || Instant::now() < deadline,
                "PostgreSQL does not start: {}",
                std::fs::read_to_string(self.log()).unwrap_or_default()
            );
        }
    }

    /// Starts the server; None where it ended instead.
    fn try_run(&self, deadline: Instant) -> Option<Server> {
        let log = std::fs::File::options().create(true).append(true).open(self.log()).expect("a log");
        let mut command = as_postgres(Path::new("/bin/sh"));
        command.args(["-c", WATCHER, "watcher"]).arg(self.folder.path()).arg(program("postgres"));
        command.arg("-D").arg(self.folder.path().join("data"));
        command.arg("-k").arg(self.folder.path()).args(["-c", "listen_addresses="]);
        command.arg("-p").arg(self.port.to_string());
        for (name, value) in &self.settings {
            command.args(["-c", &format!("{name}={value}")]);
        }
        command.stdin(Stdio::piped()).stdout(log.try_clone().expect("a log")).stderr(log).process_group(0);
        let mut server = Server(command.spawn().expect("the server starts"));
        loop {
            if matches!(server.0.try_wait(), Ok(Some(_)) | Err(_)) {
                return None;
            }
            let ready = Command::new(program("pg_isready"))
                .args(["--quiet", "--username=lighter", "--host"])
                .arg(self.folder.path())
                .args(["--port", &self.port.to_string()])
                .status();
            if ready.is_ok_and(|status| status.success()) {
                return Some(server);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

fn postmaster(folder: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(folder.join("data/postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok().and_then(Pid::from_raw)
}

/// A program of the newest PostgreSQL that is installed: Debian keeps the server's out of the path.
fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let versions =
            std::fs::read_dir("/usr/lib/postgresql").map(|found| found.flatten().collect::<Vec<_>>());
        let mut folders: Vec<PathBuf> = versions
            .unwrap_or_default()
            .into_iter()
            .map(|version| version.path().join("bin"))
            .filter(|folder| folder.join("initdb").exists())
            .collect();
        folders.sort();
        folders.pop().expect("PostgreSQL is installed: `tests/run` installs it")
    });
    folder.join(name)
}

/// The user that the server runs as, where this process is root.
fn postgres_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    // The package's own folder belongs to its user.
    let home = std::fs::metadata("/var/lib/postgresql").expect("the folder of Debian's PostgreSQL");
    Some((home.uid(), home.gid()))
}

fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some((user, group)) = postgres_user() {
        command.uid(user).gid(group);
    }
    // The folder that the test runs in may be closed to that user.
    command.current_dir("/");
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_killed_and_comes_back_with_what_was_committed() {
        let mut postgres = Postgres::start(&[]);
        postgres.create_database("one");
        postgres.sql("one", "CREATE TABLE t (n int); INSERT INTO t VALUES (7)");
        postgres.kill();
        postgres.run();
        assert_eq!(postgres.sql("one", "SELECT n FROM t"), "7");
        postgres.stop_immediately();
        postgres.run();
        assert_eq!(postgres.sql("one", "SELECT n FROM t"), "7");
    }

    #[test]
    fn databases_of_the_shared_server_are_apart() {
        assert_ne!(database(), database());
    }
}
