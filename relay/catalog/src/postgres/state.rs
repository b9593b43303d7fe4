//! How the database is set up, and who uses it: for `check`, and for relays that read what others wrote.

use lighter_protocol::{PeerId, UnixTime};

use super::error::DbError;
use super::pool::Connection;
use super::queries::time;
use super::schema;
use crate::tables::CatalogError;

type Result<T> = std::result::Result<T, DbError>;

/// A relay that uses, or has used, the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownRelay {
    /// Who it is: also the writer of what it stored.
    pub peer: PeerId,
    /// Its name, for people.
    pub name: String,
    /// When it was heard of last, by the database's clock.
    pub seen: UnixTime,
    /// Whether what it holds is its own now.
    pub is_alive: bool,
}

/// How the database is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseState {
    /// Its version, in its own words.
    pub version: String,
    /// What a commit waits for.
    pub synchronous_commit: String,
    /// Whether it syncs its own disk.
    pub fsync: bool,
    /// Standbys that a commit waits for, as configured; empty: none.
    pub synchronous_standbys: String,
    /// Standbys that are connected, and those among them that commits wait for just now.
    pub standbys: (u64, u64),
    /// Its clock.
    pub now: UnixTime,
    /// Connections that it takes.
    pub connections_max: u64,
    /// Bytes of the catalog, indexes included.
    pub bytes: u64,
    /// The version of the catalog's tables; 0: they are not there.
    pub tables: i32,
    /// Whether the role may make them.
    pub may_create: bool,
}

pub(super) async fn relays(connection: &mut Connection) -> Result<Vec<KnownRelay>> {
    const SELECT: &str =
        "SELECT peer, name, extract(epoch FROM seen)::bigint, holds_until > now() FROM lighter.relays
         ORDER BY peer";
    let relay = |row: &tokio_postgres::Row| {
        let peer = PeerId::from_bytes(row.try_get(0)?);
        let peer = peer.map_err(|_| CatalogError::Damaged("a relay's key"))?;
        let (name, seen) = (row.try_get(1)?, time(row.try_get(2)?)?);
        Ok(KnownRelay { peer, name, seen, is_alive: row.try_get(3)? })
    };
    connection.query(SELECT, &[]).await?.iter().map(relay).collect()
}

pub(super) async fn read(connection: &mut Connection) -> Result<DatabaseState> {
    const SELECT: &str = "SELECT current_setting('server_version'), current_setting('synchronous_commit'),
             current_setting('fsync') = 'on', current_setting('synchronous_standby_names'),
             (SELECT count(*) FROM pg_stat_replication),
             (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')),
             extract(epoch FROM clock_timestamp())::bigint, current_setting('max_connections')::bigint,
             (SELECT coalesce(sum(pg_total_relation_size(pg_class.oid)), 0)::bigint
              FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
              WHERE nspname = 'lighter' AND relkind = 'r'),
             has_database_privilege(current_database(), 'CREATE')";
    let tables = schema::version(connection).await?;
    let rows = connection.query(SELECT, &[]).await?;
    let row = rows.first().ok_or_else(|| DbError::late("no answer"))?;
    let number = |column| super::queries::number(row.try_get(column)?);
    Ok(DatabaseState {
        version: row.try_get(0)?,
        synchronous_commit: row.try_get(1)?,
        fsync: row.try_get(2)?,
        synchronous_standbys: row.try_get(3)?,
        standbys: (number(4)?, number(5)?),
        now: time(row.try_get(6)?)?,
        connections_max: number(7)?,
        bytes: number(8)?,
        tables,
        may_create: row.try_get(9)?,
    })
}
