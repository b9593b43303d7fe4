//! `lighter-relay check`: looks at configuration, keys, disks, ports and the servers that the relay needs, and says
//! what to mend. Changes nothing.

mod database;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use lighter_shell::count;
use lighter_storage::{ArrayKeys, Table};
use lighter_transport::Identity;
use lighter_transport::location::LocationClient;
use serde::Serialize;

use crate::commands::keys::were_exported;
use crate::commands::{CommandError, print};
use crate::config::{ArrayServerConfig, Config, ObjectStoreConfig, Role};
use crate::control::{self, Question};
use crate::layout;
use crate::limits::DISK_FREE_BYTES_MIN;

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    /// What was looked at.
    what: String,
    /// Whether it is as it should be.
    ok: bool,
    /// What was seen, or what to do.
    say: String,
}

impl Finding {
    fn good(what: impl Into<String>, say: impl Into<String>) -> Self {
        Self { what: what.into(), ok: true, say: say.into() }
    }

    fn bad(what: impl Into<String>, say: impl Into<String>) -> Self {
        Self { what: what.into(), ok: false, say: say.into() }
    }
}

/// Looks at everything, prints what it found, and fails where something is to be mended.
pub(crate) async fn run(config: &Config, json: bool) -> Result<(), CommandError> {
    let is_running = control::ask(&config.data, &Question::Catalog).await.is_ok();
    let mut findings = Vec::new();
    findings.push(if is_running {
        Finding::good("relay", "runs")
    } else {
        Finding::good("relay", "does not run; its ports were tried instead")
    });
    keys(config, &mut findings);
    disks(config, &mut findings);
    if !is_running {
        ports(config, &mut findings);
    }
    location(config, &mut findings).await;
    array(config, is_running, &mut findings).await;
    database::look(config, &mut findings).await;
    object_stores(config, &mut findings).await;
    let bad = findings.iter().filter(|finding| !finding.ok).count();
    show(&findings, json)?;
    if bad == 0 { Ok(()) } else { Err(CommandError::Relay(format!("{bad} to mend"))) }
}

fn show(findings: &[Finding], json: bool) -> Result<(), CommandError> {
    if json {
        let value =
            serde_json::to_value(findings).map_err(|error| CommandError::failed("printing", error))?;
        print(&value, true);
    } else {
        let lines = findings.iter().map(|finding| {
            let mark = if finding.ok { "ok  " } else { "MEND" };
            (format!("{mark} {}", finding.what), serde_json::Value::from(finding.say.clone()))
        });
        for (name, say) in lines {
            print(&serde_json::json!({ name: say }), false);
        }
    }
    Ok(())
}

fn keys(config: &Config, findings: &mut Vec<Finding>) {
    let path = layout::identity(&config.data);
    findings.push(match Identity::load(&path) {
        Ok(identity) => Finding::good("relay's key", identity.peer().to_string()),
        Err(_) if !path.exists() => Finding::good("relay's key", "not there yet: made at the first start"),
        Err(error) => Finding::bad("relay's key", error.to_string()),
    });
    let path = layout::array_key(&config.data);
    if !path.exists() {
        findings.push(Finding::good("array key", "not there yet: made at the first start"));
        return;
    }
    let export = "`lighter-relay keys export`, and keep it somewhere safe";
    findings.push(match ArrayKeys::load(&path) {
        Err(error) => Finding::bad("array key", error.to_string()),
        Ok(keys) if were_exported(&config.data, &keys) => Finding::good("array key", "exported"),
        Ok(_) if layout::array_key_exported(&config.data).exists() => {
            Finding::bad("array key", format!("changed since it was exported: {export}"))
        }
        Ok(_) => Finding::bad("array key", format!("never exported: {export}")),
    });
}

fn disks(config: &Config, findings: &mut Vec<Finding>) {
    let mut folders: Vec<PathBuf> = vec![config.data.clone()];
    if config.roles.contains(&Role::Storage) {
        folders.extend(layout::storage_servers(config).iter().flat_map(layout::units));
    }
    for folder in folders {
        let what = format!("disk of {}", folder.display());
        findings.push(match free_bytes(&folder) {
            Err(error) => Finding::bad(what, error.to_string()),
            Ok(free) if free < DISK_FREE_BYTES_MIN => {
                Finding::bad(what, format!("{} MiB free: make room, or mail will wait", free >> 20))
            }
            Ok(free) => Finding::good(what, format!("{} MiB free", free >> 20)),
        });
    }
}

/// Bytes free for this user on the disk of the nearest folder above `path` that is there.
fn free_bytes(path: &Path) -> std::io::Result<u64> {
    let existing = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    let disk = rustix::fs::statvfs(existing)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn ports(config: &Config, findings: &mut Vec<Finding>) {
    let mut tcp: Vec<(&str, SocketAddr)> = Vec::new();
    let has = |role| config.roles.contains(&role);
    if has(Role::Smtp) {
        tcp.extend(config.smtp.listen.iter().map(|address| ("smtp", *address)));
    }
    if has(Role::Lmtp) {
        tcp.extend(config.lmtp.listen.iter().map(|address| ("lmtp", *address)));
    }
    if has(Role::Web) {
        tcp.push(("web", config.web.listen));
    }
    if has(Role::Storage) {
        tcp.extend(layout::storage_servers(config).iter().map(|server| ("storage", server.listen)));
    }
    for (name, address) in tcp {
        findings.push(port(&format!("{name} on {address}"), TcpListener::bind(address).map(drop)));
    }
    if config.roles.iter().any(|role| role.is_mail()) {
        let address = config.quic.listen;
        findings.push(port(&format!("quic on {address}"), UdpSocket::bind(address).map(drop)));
        if config.tcp.enabled {
            let address = config.tcp.listen.unwrap_or(address);
            findings.push(port(
                &format!("TLS on TCP for agents on {address}"),
                TcpListener::bind(address).map(drop),
            ));
        }
    }
}

fn port(what: &str, bound: std::io::Result<()>) -> Finding {
    match bound {
        Ok(()) => Finding::good(what, "free"),
        Err(error) => Finding::bad(what, format!("cannot be listened on: {error}")),
    }
}

async fn location(config: &Config, findings: &mut Vec<Finding>) {
    let Some(url) = &config.location.url else {
        if !config.roles.contains(&Role::Location) {
            findings.push(Finding::bad(
                "location server",
                "none: name one (location.url), or run one (role location)",
            ));
        }
        return;
    };
    let what = format!("location server {url}");
    let client = match LocationClient::new(url, None) {
        Ok(client) => client,
        Err(error) => return findings.push(Finding::bad(what, error.to_string())),
    };
    findings.push(match client.domain().await {
        Ok(domain) => Finding::good(what, format!("answers as {}", domain.location)),
        Err(error) => Finding::bad(what, format!("{error}: mail goes on whole until it answers")),
    });
}

async fn array(config: &Config, is_running: bool, findings: &mut Vec<Finding>) {
    let path = layout::array_table(&config.data);
    let table = match Table::load(&path) {
        Ok(table) => table,
        Err(error) => {
            let say = format!("{error}: remove it, the storage servers have the same");
            return findings.push(Finding::bad(path.display().to_string(), say));
        }
    };
    let table = table.unwrap_or_else(|| {
        let servers = config.array.servers.iter().map(ArrayServerConfig::entry).collect();
        let copies = u8::try_from(config.array.copies).unwrap_or(u8::MAX);
        Table::first(servers, copies, config.array.allowed_together.clone())
    });
    for named in &config.array.servers {
        if table.server(&named.peer).is_none() {
            let what = format!("storage server {}", named.address);
            let say = format!(
                "named in the configuration, and no server of the array: `lighter-relay array add {} {}`, or leave it out",
                named.peer, named.address
            );
            findings.push(Finding::bad(what, say));
        }
    }
    if table.servers.is_empty() {
        let say = "two servers below the data folder: both copies are on this machine. Right for trying things; for mail, \
                   name servers on other machines (array.servers, or `lighter-relay array add`)";
        return findings.push(Finding::good("storage array", say));
    }
    findings.push(match table.check() {
        Err(error) => Finding::bad("storage array", error.to_string()),
        Ok(()) => Finding::good("storage array", of_table(&table)),
    });
    if let Some(after) = config.array.acknowledge_after.filter(|after| *after < config.array.copies) {
        let copies = config.array.copies;
        let say = format!(
            "after {after} of {copies} copies, the others in the background: one disk that dies may take the last moment's mail with it"
        );
        findings.push(Finding::good("mail is acknowledged", say));
    }
    // Those of this process listen while it runs, perhaps at another port each time.
    let own = layout::storage_servers(config).into_iter().filter_map(|server| {
        Identity::load(&layout::storage_key(&server)).ok().map(|identity| identity.peer())
    });
    let away: Vec<_> = if is_running { Vec::new() } else { own.collect() };
    for server in table.servers.iter().filter(|server| !away.contains(&server.peer)) {
        let what = format!("storage server {}", server.address);
        let connect = tokio::net::TcpStream::connect(server.address);
        findings.push(match tokio::time::timeout(crate::limits::CHECK_CONNECT_TIMEOUT, connect).await {
            Ok(Ok(_)) => Finding::good(what, "answers"),
            Ok(Err(error)) => Finding::bad(what, format!("{error}: {}", without(&table))),
            Err(_) => Finding::bad(what, format!("does not answer: {}", without(&table))),
        });
    }
}

/// Each object store, once: whether it takes and gives.
async fn object_stores(config: &Config, findings: &mut Vec<Finding>) {
    if !config.roles.contains(&Role::Storage) {
        return;
    }
    let servers = layout::storage_servers(config);
    let mut places: BTreeMap<String, (&ObjectStoreConfig, usize)> = BTreeMap::new();
    for server in &servers {
        if let Some(store) = server.object_store.as_ref().or(config.storage.object_store.as_ref()) {
            places.entry(store.place()).or_insert((store, 0)).1 += 1;
        }
    }
    for (place, (store, servers)) in places {
        let what = format!("object store {place}");
        let probed = match store.depot() {
            Ok(depot) => depot.probe().await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        findings.push(match probed {
            Err(say) => Finding::bad(what, format!("{say}; until then segments stay on the units")),
            Ok(()) if servers > 1 => {
                let say = "writes, reads and removes; all copies of a segment may be in this one bucket: losing it loses mail";
                Finding::good(what, say)
            }
            Ok(()) => Finding::good(what, "writes, reads and removes"),
        });
    }
}

fn of_table(table: &Table) -> String {
    let servers = count(table.servers.len(), "server", "servers");
    let mut say = format!("{servers}, {}", count(table.copies, "copy", "copies"));
    for shared in table.all_may_be_on() {
        say.push_str(&format!("; all copies may be on {shared}, which is allowed: losing it loses mail"));
    }
    say
}

/// What a server that is away means.
fn without(table: &Table) -> &'static str {
    if table.servers.len() > usize::from(table.copies) {
        "mail goes to the others meanwhile"
    } else {
        "mail is refused for now while it is away"
    }
}
