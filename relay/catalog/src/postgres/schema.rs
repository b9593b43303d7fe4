//! The tables' versions: each is a script that makes it out of the one before.

use super::PostgresOpenError;
use super::error::DbError;
use super::pool::Connection;

/// The scripts, the first makes version 1. One that was released never changes.
const VERSIONS: [&str; 1] = [include_str!("schema_1.sql")];

/// The lock that relays which start at the same moment wait for: "lighter" in ASCII.
const START_LOCK: i64 = 0x6c_69_67_68_74_65_72;

/// Makes the tables, or what is missing of them, in one transaction.
pub(super) async fn bring_up_to_date(connection: &mut Connection) -> Result<(), PostgresOpenError> {
    let known = i32::try_from(VERSIONS.len()).unwrap_or(i32::MAX);
    connection.run("BEGIN").await?;
    connection.query("SELECT pg_advisory_xact_lock($1)", &[&START_LOCK]).await?;
    let found = version(connection).await?;
    if found > known {
        return Err(PostgresOpenError::TooNew { found, known });
    }
    if found == 0 {
        connection
            .run(
                "CREATE SCHEMA IF NOT EXISTS lighter;
                 CREATE TABLE lighter.versions (
                     version integer PRIMARY KEY, made timestamptz NOT NULL DEFAULT now()
                 )",
            )
            .await?;
    }
    for (script, version) in VERSIONS.iter().zip(1_i32..).skip(usize::try_from(found).unwrap_or(0)) {
        connection.run(script).await?;
        connection.execute("INSERT INTO lighter.versions (version) VALUES ($1)", &[&version]).await?;
        tracing::info!(version, "the catalog's tables were made");
    }
    connection.commit().await?;
    Ok(())
}

/// Which version is there; 0: none.
pub(super) async fn version(connection: &mut Connection) -> Result<i32, DbError> {
    let there = connection.query("SELECT to_regclass('lighter.versions') IS NOT NULL", &[]).await?;
    if !there.first().is_some_and(|row| row.get(0)) {
        return Ok(0);
    }
    let rows = connection.query("SELECT coalesce(max(version), 0) FROM lighter.versions", &[]).await?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}
