//! The catalog's database: can it be reached, with the rights that are needed, and does a commit in it last.

use std::time::Duration;

use lighter_catalog::{DatabaseState, PostgresCatalog};
use lighter_protocol::UnixTime;
use lighter_transport::Identity;

use super::Finding;
use crate::config::{CatalogTls, Config};
use crate::layout;
use crate::serve::catalog::in_full;

/// Difference of clocks from which on it is told: notices and deadlines are the relay's clock's, leases the database's.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(60);

/// Looks at the database, where there is one. Changes nothing.
pub(super) async fn look(config: &Config, findings: &mut Vec<Finding>) {
    let what = "catalog's database";
    // Whose key it is does not matter for looking.
    let peer =
        Identity::load(&layout::identity(&config.data)).unwrap_or_else(|_| Identity::generate()).peer();
    let database = match config.catalog.database(peer, &config.hostname) {
        Ok(None) => return,
        Ok(Some(database)) => database,
        Err(error) => return findings.push(Finding::bad(what, error.to_string())),
    };
    match PostgresCatalog::look(&database).await {
        Ok(state) => judge(config, &state, findings),
        Err(error) => findings.push(Finding::bad(what, in_full(&error))),
    }
}

fn judge(config: &Config, state: &DatabaseState, findings: &mut Vec<Finding>) {
    let tables = match state.tables {
        0 => "the catalog's tables are made at the first start".to_owned(),
        version => format!("version {version} of the catalog's tables, {} MiB", state.bytes >> 20),
    };
    let encrypted = if config.catalog.tls == CatalogTls::Off { ", not encrypted" } else { "" };
    let say = format!("PostgreSQL {}{encrypted}; {tables}", state.version);
    findings.push(Finding::good("catalog's database", say));
    findings.push(match (state.tables, state.may_create) {
        (0, false) => Finding::bad(
            "database rights",
            "the role may not make the schema `lighter`: GRANT CREATE ON DATABASE … TO …, for the first start",
        ),
        _ => Finding::good("database rights", "enough"),
    });
    findings.push(if state.fsync {
        Finding::good("database sync", format!("fsync on, synchronous_commit {}", state.synchronous_commit))
    } else {
        Finding::bad(
            "database sync",
            "fsync is off: a crash of the database's machine loses mail. Set fsync = on",
        )
    });
    findings.push(standby(state));
    let apart = state.now.since(UnixTime::now()).max(UnixTime::now().since(state.now));
    findings.push(if apart > CLOCKS_APART_MAX {
        let say = format!("{} s apart from this machine's: set one of them right", apart.as_secs());
        Finding::bad("database clock", say)
    } else {
        Finding::good("database clock", "agrees with this machine's")
    });
    // Besides the pool: one that listens, and one that checks.
    let connections = u64::try_from(config.catalog.connections).unwrap_or(u64::MAX).saturating_add(2);
    if state.connections_max < connections {
        let say = format!("it takes {}, this relay may open {connections}", state.connections_max);
        findings.push(Finding::bad("database connections", say));
    }
}

fn standby(state: &DatabaseState) -> Finding {
    let what = "database standby";
    let (all, synchronous) = state.standbys;
    match (state.synchronous_standbys.is_empty(), synchronous) {
        (true, _) => Finding::good(
            what,
            format!(
                "commits wait for no standby ({all} connected): losing this database's disk loses mail that was taken. \
                 For mail, name one (synchronous_standby_names)"
            ),
        ),
        (false, 0) => Finding::bad(
            what,
            format!("{} is waited for and not connected: mail waits", state.synchronous_standbys),
        ),
        (false, count) => Finding::good(what, format!("{count} synchronous")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is to be mended of a database that is well but for what `change` does to it.
    fn mended(change: impl FnOnce(&mut DatabaseState)) -> Vec<String> {
        let mut state = DatabaseState {
            version: "15.9".to_owned(),
            synchronous_commit: "on".to_owned(),
            fsync: true,
            synchronous_standbys: "db2".to_owned(),
            standbys: (1, 1),
            now: UnixTime::now(),
            connections_max: 100,
            bytes: 0,
            tables: 1,
            may_create: false,
        };
        change(&mut state);
        let mut findings = Vec::new();
        judge(&Config::default(), &state, &mut findings);
        findings.into_iter().filter(|finding| !finding.ok).map(|finding| finding.what).collect()
    }

    #[test]
    fn what_would_lose_or_stop_mail_is_to_be_mended() {
        assert_eq!(mended(|_| {}), Vec::<String>::new());
        assert_eq!(mended(|state| state.fsync = false), ["database sync"]);
        assert_eq!(mended(|state| state.standbys = (1, 0)), ["database standby"]);
        assert_eq!(mended(|state| state.tables = 0), ["database rights"]);
        assert_eq!(mended(|state| state.connections_max = 5), ["database connections"]);
        assert_eq!(mended(|state| state.now = UnixTime(state.now.0 + 3600)), ["database clock"]);
    }
}
