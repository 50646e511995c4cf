//! The connection that finishes a query: opened with the session's settings, rolled back at the end.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::error::Error;
use crate::exec::combine::request::{self, Described, Parameter};
use crate::exec::description;
use crate::exec::merge::row;
use crate::plan::{Access, Execution, NOW};
use crate::pool::Lease;
use crate::session::combine::{Asked, failed};
use crate::session::copy_out::describable;
use crate::session::held::Seat;
use crate::session::lease::unless_cancelled;
use crate::session::{Session, Stop};
use crate::sharding::{Format, ShardIndex};
use crate::sql::literal::quote_literal;
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::wire::frame;
use crate::wire::frontend;

/// The connection that finishes a statement.
pub(super) struct Hub {
    pub lease: Lease,
    pub seat: Seat,
    pub shard: ShardIndex,
    /// What state it is in is not known.
    pub is_lost: bool,
    /// What it says of the client's own statement.
    pub described: Described,
    /// Rows and bytes of each intermediate relation, once filled.
    pub filled: Vec<Option<(u64, u64)>>,
    /// What each shard has sent for each intermediate relation, for people.
    pub shares: Vec<Vec<String>>,
}

impl Hub {
    /// Has the transaction only read from now on.
    pub async fn read_only(&mut self) -> Result<(), Stop> {
        let sql = "SET TRANSACTION READ ONLY";
        self.lease.run(sql).await.map_err(failed)
    }
}

impl Session {
    /// Waits until there is a second connection to each server for one more statement.
    ///
    /// # Errors
    /// `53300` if that takes too long, or if a pool has no second connection at all.
    pub(super) async fn take_turn(&self) -> Result<OwnedSemaphorePermit, Error> {
        let pool = &self.database.config.pool;
        if pool.max_size < 2 {
            return Err(no_turn("A pool has one connection for each server only."));
        }
        let turn = async {
            let turns = Arc::clone(&self.database.turns).acquire_owned();
            let turn = tokio::time::timeout(pool.queue_timeout, turns).await;
            let turn = turn.ok().and_then(std::result::Result::ok);
            turn.ok_or_else(|| no_turn("Too many of them run already."))
        };
        unless_cancelled(&self.registered.control, turn).await
    }

    /// Leases a hub, gives it the session's settings and asks it about the client's statement.
    pub(super) async fn open_hub(
        &mut self,
        execution: &mut Execution,
        asked: &Asked<'_>,
    ) -> Result<Hub, Stop> {
        let count = self.database.config.shards.len().max(1);
        let shard = execution
            .hub
            .unwrap_or_else(|| rand::random_range(0..count));
        // Who has the shards must get the hub, whatever operators say meanwhile.
        self.others.is_gathering = true;
        let leased = self.lease(shard, Access::Write).await;
        self.others.is_gathering = false;
        let (lease, node) = leased?;
        self.registered.control.begin(&lease);
        let mut hub = Hub {
            lease,
            seat: Seat::take(node),
            shard,
            is_lost: false,
            described: Described::default(),
            filled: Vec::new(),
            shares: Vec::new(),
        };
        match self.prepare_hub(&mut hub, execution, asked).await {
            Ok(()) => Ok(hub),
            Err(stop) => {
                self.close_hub(hub).await;
                Err(stop)
            }
        }
    }

    async fn prepare_hub(
        &mut self,
        hub: &mut Hub,
        execution: &mut Execution,
        asked: &Asked<'_>,
    ) -> Result<(), Stop> {
        let (settings, opening) = match &self.transaction {
            Transaction::Begun(opening) => {
                (self.settings.server_at_begin(), opening.settings_sql())
            }
            Transaction::Open => (
                self.settings.server_at_begin(),
                self.others.opening.settings_sql(),
            ),
            _ => (self.settings.server(), String::new()),
        };
        hub.lease.apply(settings).await.map_err(failed)?;
        // What it restricts by must be what it reads behind that.
        let level = match execution.locals.is_empty() {
            true => "READ COMMITTED",
            false => "REPEATABLE READ",
        };
        let mut begin = format!("BEGIN ISOLATION LEVEL {level} READ WRITE;\n{opening}");
        if execution.is_unread {
            begin.push_str(";\nSAVEPOINT shardwire_original");
        }
        hub.lease.run(&begin).await.map_err(failed)?;
        let mut described = Described::default();
        let text = self.encoded(describable(asked.plan, asked.text, asked.text))?;
        self.describe_on(hub, (&text, asked.types), &mut described)
            .await?;
        if execution.unfinished.is_some() {
            self.make_table(hub, execution, &described).await?;
        }
        let mut tables = String::new();
        let made = execution.relations.iter();
        for relation in made.filter(|relation| relation.names.is_empty()) {
            tables.push_str(&format!(
                "CREATE TEMP TABLE {} ON COMMIT DROP AS {} WITH NO DATA;\n",
                relation.name, relation.columns
            ));
        }
        if execution.is_unread {
            tables = self.apart(hub, &tables).await?;
        }
        tables.push_str("SAVEPOINT shardwire_copies");
        let tables = self.encoded(&tables)?;
        let mut query = Vec::new();
        frontend::write_query(&mut query, &tables);
        hub.lease.send(&query).await.map_err(failed)?;
        let mut over_copies = Described::default();
        let text = self.encoded(describable(asked.plan, asked.text, &execution.text))?;
        let asked_for = (&*text, described.types.as_slice());
        let over = self.describe_on(hub, asked_for, &mut over_copies).await;
        if execution.is_unread {
            // PostgreSQL understands what the client wrote, so it is the change that is wrong.
            over.map_err(|stop| match stop {
                Stop::Statement(_) => not_understood().into(),
                other => other,
            })?;
            check_reads(hub).await?;
        } else {
            self.mend(
                hub,
                execution,
                (asked, &described),
                (over, &mut over_copies),
            )
            .await?;
        }
        if !is_alike(&described, &over_copies) {
            return Err(other_types().into());
        }
        hub.described = described;
        Ok(())
    }

    /// Makes up for what copies lack, if PostgreSQL finds the statement over them to be wrong or to give other types.
    async fn mend(
        &self,
        hub: &mut Hub,
        execution: &mut Execution,
        (asked, described): (&Asked<'_>, &Described),
        (over, over_copies): (Result<(), Stop>, &mut Described),
    ) -> Result<(), Stop> {
        let error = match over {
            Ok(()) if is_alike(described, over_copies) => return Ok(()),
            Ok(()) => None,
            Err(Stop::Statement(error)) => Some(error),
            Err(stop) => return Err(stop),
        };
        // What GROUP BY leaves out may depend on a primary key, which the copies lack.
        let is_grouping = |error: &Error| error.code() == SqlState::GROUPING_ERROR;
        if error.as_ref().is_some_and(is_grouping) && execution.unfinished.is_none() {
            add_keys(hub, execution).await?;
        } else if let Some(typed) = execution.typed.take() {
            // A row of a copy is of another type.
            execution.text = typed;
            hub.lease.run(UNDO).await.map_err(failed)?;
        } else {
            return error.map_or(Ok(()), |error| Err(error.into()));
        }
        *over_copies = Described::default();
        let text = self.encoded(describable(asked.plan, asked.text, &execution.text))?;
        let asked_for = (&*text, described.types.as_slice());
        self.describe_on(hub, asked_for, over_copies).await
    }

    /// Makes the table of what each shard sends, and the statement over it, on which its types decide.
    async fn make_table(
        &self,
        hub: &mut Hub,
        execution: &mut Execution,
        described: &Described,
    ) -> Result<(), Stop> {
        let Some(relation) = execution.relations.first_mut() else {
            return Ok(());
        };
        if relation.query.contains(NOW) {
            // What all shards take for now is the hub's, which is the answer's.
            let now = hub.lease.value(MICROSECONDS).await.map_err(failed)?;
            let now = format!(
                "('epoch'::pg_catalog.timestamptz + '{} microseconds'::pg_catalog.interval)",
                now.unwrap_or_default()
            );
            relation.query = relation.query.replace(NOW, &now);
        }
        let (name, names) = (&relation.name, relation.names.join(", "));
        let sql = format!(
            "CREATE TEMP TABLE {name} ({names}) ON COMMIT DROP AS {} WITH NO DATA",
            relation.query
        );
        let parameters = relation.parameters.iter().map(|index| {
            let type_oid = described.types.get(*index).copied().unwrap_or(0);
            (type_oid, Format::Text, None)
        });
        let parameters: Vec<Parameter<'_>> = parameters.collect();
        let text = self.encoded(&sql)?;
        let mut messages = Vec::new();
        request::write_fragment(&mut messages, &text, &parameters);
        hub.lease.unnamed = None;
        let mut nothing = |_, _: &[u8]| {};
        hub.lease
            .ask(&messages, &mut nothing)
            .await
            .map_err(failed)?;
        // A domain that is never null may be, behind an outer join.
        let sql = format!("{DOMAINS} AND a.attrelid = 'pg_temp.{name}'::pg_catalog.regclass");
        if hub.lease.value(&sql).await.map_err(failed)?.is_some() {
            return Err(other_types().into());
        }
        let mut table = Described::default();
        let text = self.encoded(&relation.columns)?;
        self.describe_on(hub, (&text, &[]), &mut table).await?;
        let frame = table.rows.pop().unwrap_or_default();
        let (columns, _) = row::described(frame::body(&frame), usize::MAX)?;
        let types: Vec<u32> = columns.iter().map(|one| one.type_oid).collect();
        let unfinished = execution.unfinished.as_ref();
        let text = unfinished
            .map(|unfinished| unfinished.text(&types))
            .transpose()?;
        execution.text = text.flatten().ok_or_else(other_types)?;
        Ok(())
    }

    /// What makes the same tables with none of the relations touched that their columns are from.
    async fn apart(&self, hub: &mut Hub, tables: &str) -> Result<String, Stop> {
        let tables = self.encoded(tables)?;
        let mut query = Vec::new();
        frontend::write_query(&mut query, &tables);
        hub.lease.send(&query).await.map_err(failed)?;
        let made = hub.lease.value(COPIES).await.map_err(failed)?;
        let made = made.unwrap_or_default();
        Ok(format!(
            "ROLLBACK TO SAVEPOINT shardwire_original;\n{made};\n"
        ))
    }

    pub(super) async fn describe_on(
        &self,
        hub: &mut Hub,
        (text, types): (&[u8], &[u32]),
        described: &mut Described,
    ) -> Result<(), Stop> {
        let mut messages = Vec::new();
        request::write_describe(&mut messages, text, types);
        frontend::write_sync(&mut messages);
        let mut note = |tag, body: &[u8]| described.note(tag, body);
        hub.lease.ask(&messages, &mut note).await.map_err(failed)
    }

    /// Has the hub forget everything, and gives it back.
    pub(super) async fn close_hub(&self, mut hub: Hub) {
        if hub.is_lost || hub.lease.run("ROLLBACK").await.is_err() || !hub.seat.is_valid() {
            return;
        }
        hub.lease.last_client = self.registered.control.process_id;
        hub.lease.give_back();
    }
}

/// Whether a statement gives columns of the same types over copies.
fn is_alike(described: &Described, over_copies: &Described) -> bool {
    match (described.rows.as_slice(), over_copies.rows.as_slice()) {
        ([one], [other]) => {
            description::with_origins(frame::body(other), frame::body(one)).is_some()
        }
        _ => true,
    }
}

/// Goes back to where the copies had just been made, still empty.
const UNDO: &str = "ROLLBACK TO SAVEPOINT shardwire_copies";

/// The statements that make the intermediate relations there are, from their columns.
const COPIES: &str = "\
SELECT pg_catalog.string_agg('CREATE TEMP TABLE ' || c.relname || ' (' || (SELECT pg_catalog.string_agg(\
    pg_catalog.quote_ident(a.attname) || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod) || coalesce(\
        (SELECT ' COLLATE ' || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(k.collname) \
        FROM pg_catalog.pg_collation k JOIN pg_catalog.pg_namespace n ON n.oid = k.collnamespace \
        WHERE k.oid = a.attcollation AND k.oid <> t.typcollation), ''), ', ' ORDER BY a.attnum) \
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) || ') ON COMMIT DROP', '; ') \
FROM pg_catalog.pg_class c WHERE c.relnamespace = pg_catalog.pg_my_temp_schema() \
AND pg_catalog.left(c.relname, 10) = 'shardwire_'";

/// When the transaction began, in microseconds.
const MICROSECONDS: &str =
    "SELECT (extract(epoch FROM pg_catalog.now()) * 1000000)::pg_catalog.int8";

/// A column of a relation that is of a domain.
const DOMAINS: &str = "\
SELECT pg_catalog.min(a.attname::text) FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
WHERE t.typtype = 'd' AND a.attnum > 0";

/// A relation of users that the transaction has had to do with, other than temporary ones: whoever parses
/// a statement locks what it names.
const READS: &str = "\
SELECT pg_catalog.min(c.relname::text) FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation \
WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND c.oid >= 16384 \
AND c.relpersistence <> 't' AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())";

/// Fails if the statement that was described last reads anything but copies.
async fn check_reads(hub: &mut Hub) -> Result<(), Stop> {
    match hub.lease.value(READS).await.map_err(failed)? {
        Some(_) => Err(not_understood().into()),
        None => Ok(()),
    }
}

fn not_understood() -> Error {
    Error::refused(
        "statement is not supported on several shards",
        "The proxy does not understand it well enough to find all tables that it reads.",
        "Write it in another way, or choose the shard with SET shardwire.shard = '…'.",
    )
}

fn no_turn(why: &'static str) -> Error {
    Error::new(
        SqlState::TOO_MANY_CONNECTIONS,
        "no connection to finish a query over several shards",
    )
    .detail(format!("It needs two connections to one server. {why}"))
    .hint("Raise pool.max_size.")
}

/// Gives the intermediate relations the primary keys of those whose rows they hold.
async fn add_keys(hub: &mut Hub, execution: &Execution) -> Result<(), Stop> {
    hub.lease.run(UNDO).await.map_err(failed)?;
    for relation in &execution.relations {
        let sql = format!(
            "SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.n) FROM pg_catalog.pg_index i, \
             pg_catalog.unnest(i.indkey) WITH ORDINALITY k(number, n), pg_catalog.pg_attribute a \
             WHERE i.indrelid = {}::pg_catalog.regclass AND i.indisprimary AND i.indimmediate \
             AND a.attrelid = i.indrelid AND a.attnum = k.number HAVING pg_catalog.bool_and(EXISTS \
             (SELECT 1 FROM pg_catalog.pg_attribute c WHERE c.attname = a.attname AND c.attnum > 0 AND \
             c.attrelid = 'pg_temp.{}'::pg_catalog.regclass))",
            quote_literal(&relation.source),
            relation.name
        );
        if let Some(columns) = hub.lease.value(&sql).await.map_err(failed)? {
            let name = &relation.name;
            let sql = format!("ALTER TABLE pg_temp.{name} ADD PRIMARY KEY ({columns})");
            hub.lease.run(&sql).await.map_err(failed)?;
        }
    }
    Ok(())
}

fn other_types() -> Error {
    Error::refused(
        "a query over several shards that returns whole rows is not supported",
        "The rows are copied to the server that finishes the query, and have another type there.",
        "Name the columns, or cast the row to text or json.",
    )
}
