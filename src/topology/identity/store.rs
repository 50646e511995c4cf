//! The schema `shardwire` in a shard: made, read, kept up to date.

use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};

use super::Record;
use crate::sql::literal::quote_literal;
use crate::topology::control::ControlError;

/// The tables of the schema.
pub(in crate::topology) const TABLES: usize = 3;

/// One proxy at a time makes the schema. The key is "shardwir" in ASCII.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8316003855879334258)";

const CREATE: &str = "
CREATE SCHEMA IF NOT EXISTS shardwire;
COMMENT ON SCHEMA shardwire IS 'Shardwire: which shard this is, where tables live, decisions of two-phase commits';
CREATE TABLE IF NOT EXISTS shardwire.shard (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    cluster_id  text NOT NULL,
    shard_name  text NOT NULL,
    shard_count integer NOT NULL,
    slots       text NOT NULL,
    epoch       bigint NOT NULL,
    complete    boolean NOT NULL,
    timeline    bigint NOT NULL
);
GRANT USAGE ON SCHEMA shardwire TO PUBLIC;
GRANT SELECT ON shardwire.shard TO PUBLIC;
CREATE TABLE IF NOT EXISTS shardwire.tables (
    schema_name text NOT NULL,
    table_name  text NOT NULL,
    placement   text NOT NULL CHECK (placement IN ('sharded', 'replicated', 'home')),
    shard_key   text[] CHECK ((shard_key IS NOT NULL) = (placement = 'sharded')),
    hash        text CHECK (hash IN ('postgres', 'xxh3')),
    home_shard  text CHECK ((home_shard IS NOT NULL) = (placement = 'home')),
    PRIMARY KEY (schema_name, table_name)
);
GRANT SELECT, INSERT, DELETE ON shardwire.tables TO PUBLIC;
ALTER TABLE shardwire.tables ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS reads ON shardwire.tables;
CREATE POLICY reads ON shardwire.tables FOR SELECT USING (true);
DROP POLICY IF EXISTS owners ON shardwire.tables;
CREATE POLICY owners ON shardwire.tables FOR INSERT WITH CHECK (coalesce(
    (SELECT pg_has_role(current_user, relowner, 'MEMBER') FROM pg_class
     WHERE relname = table_name
       AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = schema_name)), false));
DROP POLICY IF EXISTS removals ON shardwire.tables;
CREATE POLICY removals ON shardwire.tables FOR DELETE USING (coalesce(
    (SELECT pg_has_role(current_user, relowner, 'MEMBER') FROM pg_class
     WHERE relname = table_name
       AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = schema_name)), true));
CREATE TABLE IF NOT EXISTS shardwire.decisions (
    gid        text PRIMARY KEY,
    decision   text NOT NULL CHECK (decision IN ('commit', 'abort')),
    decided_at timestamptz NOT NULL DEFAULT now()
);
GRANT INSERT ON shardwire.decisions TO PUBLIC;
ALTER TABLE shardwire.decisions ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS decides ON shardwire.decisions;
CREATE POLICY decides ON shardwire.decisions FOR INSERT
    WITH CHECK (decision = 'abort' OR substr(split_part(gid, '_', 3), 1, 8) = left(md5(session_user), 8));
DROP POLICY IF EXISTS reads ON shardwire.decisions;
CREATE POLICY reads ON shardwire.decisions FOR SELECT USING (true);
DROP POLICY IF EXISTS removals ON shardwire.decisions;
CREATE POLICY removals ON shardwire.decisions FOR DELETE USING (true);";

/// A role keeps the placements of the tables that it owns, and decides about its own transactions; an abort needs no
/// role, it only takes what is not committed yet.
///
/// Starts a transaction that writes although writes are off by default, and that does not wait for
/// synchronous secondaries: a missing one must not stop the probes.
const BEGIN: &str = "BEGIN READ WRITE; SET LOCAL synchronous_commit = local";

/// Makes what is missing of the schema, and the row unless there is one.
///
/// # Errors
/// As the server says; nothing was changed then.
pub(in crate::topology) async fn create(
    client: &Client,
    record: &Record,
) -> Result<(), ControlError> {
    client.batch_execute(BEGIN).await?;
    let made = create_in_transaction(client, record).await;
    let end = if made.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = client.batch_execute(end).await;
    made?;
    Ok(ended?)
}

async fn create_in_transaction(client: &Client, record: &Record) -> Result<(), ControlError> {
    client.batch_execute(LOCK).await?;
    client.batch_execute(CREATE).await?;
    let function = format!(
        "CREATE OR REPLACE FUNCTION shardwire.shard_id() RETURNS text \
         LANGUAGE sql IMMUTABLE PARALLEL SAFE AS {}",
        quote_literal(&format!(
            "SELECT {}::pg_catalog.text",
            quote_literal(&record.shard)
        ))
    );
    client.batch_execute(&function).await?;
    let count = i32::try_from(record.shard_count).unwrap_or(i32::MAX);
    let insert = "INSERT INTO shardwire.shard \
        (cluster_id, shard_name, shard_count, slots, epoch, complete, timeline) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
    client
        .execute(
            insert,
            &[
                &record.cluster,
                &record.shard,
                &count,
                &record.slots,
                &record.epoch,
                &record.complete,
                &i64::from(record.timeline),
            ],
        )
        .await?;
    Ok(())
}

/// Reads the row, if there is one. The table must exist.
///
/// # Errors
/// As the server says: `42501` if the role may not read it.
pub(in crate::topology) async fn read(client: &Client) -> Result<Option<Record>, ControlError> {
    let messages = client
        .simple_query(
            "SELECT cluster_id, shard_name, shard_count, slots, epoch, complete, timeline \
             FROM shardwire.shard",
        )
        .await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let Some(row) = row else { return Ok(None) };
    let text = |column: usize| row.get(column).unwrap_or_default().to_owned();
    let malformed =
        |column: &str| ControlError::answer(format!("shardwire.shard.{column} is malformed"));
    Ok(Some(Record {
        cluster: text(0),
        shard: text(1),
        shard_count: text(2).parse().map_err(|_| malformed("shard_count"))?,
        slots: text(3),
        epoch: text(4).parse().map_err(|_| malformed("epoch"))?,
        complete: text(5) == "t",
        timeline: text(6).parse().map_err(|_| malformed("timeline"))?,
    }))
}

/// Writes the primary's timeline, which secondaries show once they have replayed it.
///
/// # Errors
/// As the server says.
pub(in crate::topology) async fn set_timeline(
    client: &Client,
    timeline: u32,
) -> Result<(), ControlError> {
    let set = format!(
        "{BEGIN}; UPDATE shardwire.shard SET timeline = {timeline} WHERE timeline < {timeline}; COMMIT"
    );
    write(client, &set).await
}

/// Notes that every shard has its row.
///
/// # Errors
/// As the server says.
pub(in crate::topology) async fn set_complete(client: &Client) -> Result<(), ControlError> {
    let set = format!("{BEGIN}; UPDATE shardwire.shard SET complete = true; COMMIT");
    write(client, &set).await
}

async fn write(client: &Client, statements: &str) -> Result<(), ControlError> {
    match client.batch_execute(statements).await {
        Ok(()) => Ok(()),
        Err(error) => {
            // The error aborted the transaction; only a dead connection can fail this.
            let _ = client.batch_execute("ROLLBACK").await;
            Err(error.into())
        }
    }
}

/// A new cluster's name: a random UUID.
pub(in crate::topology) fn new_cluster() -> String {
    let bits: u128 = rand::random();
    let hex = format!("{bits:032x}");
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{a}-{b}-{c}-{d}-{e}")
}

/// How long identity statements may wait for locks.
pub(in crate::topology) const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
