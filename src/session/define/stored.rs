//! Temporary tables and materialised views with the rows of a query over several shards
//! (`plan/definition/stored.rs` has what holds): made empty, and then given the rows, which pass through the proxy.

use crate::error::{Error, Result};
use crate::exec::array::{Array, TEXT, array_of};
use crate::exec::combine::request::{self, FIRST_USER_OID, Parameter};
use crate::exec::scatter::Scatter;
use crate::plan::{Define, Plan, ROWS_SETTING, RefreshedRows, TemporaryRows, ViewRows};
use crate::pool::Lease;
use crate::session::define::rows::parameters_of;
use crate::session::define::{FIRST_SHARD, Given, only};
use crate::session::effect::Effect;
use crate::session::scatter::{Answered, Joins};
use crate::session::select::{Selected, Use};
use crate::session::{Session, Stop};
use crate::sharding::{Format, ShardSet};
use crate::sql::literal::{quote_identifier, quote_literal};

/// How many bytes of rows one statement stores.
const PART_BYTES: usize = 8 * 1024 * 1024;

/// Notes the role of the client, and is the login role from then on, which may make tables in `shardwire`.
const AS_LOGIN: &str = "SELECT pg_catalog.set_config('shardwire.role', pg_catalog.current_setting('role'), true), \
     pg_catalog.set_config('role', 'none', true)";
const AS_CLIENT: &str =
    "SELECT pg_catalog.set_config('role', pg_catalog.current_setting('shardwire.role'), true)";

impl Session {
    /// Makes a temporary table with the rows of a query.
    pub(super) async fn define_temporary(
        &mut self,
        plan: &Plan,
        rows: &TemporaryRows,
        given: Option<Given<'_>>,
    ) -> Result<String, Stop> {
        let here = only(FIRST_SHARD);
        let all = ShardSet::all(self.database.config.shards.len());
        self.check_several(plan, &all).await?;
        let mut is_there = false;
        if rows.if_not_exists {
            let sql = format!(
                "SELECT 1 FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema() \
                 AND relname = {}",
                quote_literal(&rows.name)
            );
            is_there = !self.ask(&here, &sql).await?.is_empty();
        }
        let selected = match is_there {
            true => Selected::default(),
            false => self.rows_to_store(&rows.query, given).await?,
        };
        let told = (rows.empty.as_str(), given);
        let answered = self.run_on(&here, Joins::Writing, told, true).await?;
        // The connection has it from now on.
        self.hold_here(FIRST_SHARD, true).await?;
        self.pin();
        self.note_temporary(plan);
        self.note_definitions(&Effect::Pin);
        if is_there {
            return Ok(answered.tag);
        }
        let table = format!("pg_temp.{}", quote_identifier(&rows.name));
        let count = self.store_at_first(&table, &selected).await?;
        Ok(format!("SELECT {count}"))
    }

    /// Makes a materialised view over several shards.
    pub(super) async fn define_view(
        &mut self,
        plan: &Plan,
        (define, view): (&Define, &ViewRows),
        (text, given): (&str, Option<Given<'_>>),
    ) -> Result<String, Stop> {
        let here = only(FIRST_SHARD);
        self.check_several(plan, &define.shards).await?;
        self.database.metrics.scatter.inc();
        if view.if_not_exists {
            let sql = format!(
                "SELECT 1 WHERE pg_catalog.to_regclass({}) IS NOT NULL",
                quote_literal(&view.name)
            );
            if !self.ask(&here, &sql).await?.is_empty() {
                // PostgreSQL says that it is there.
                let told = (text, given);
                let answered = self.run_on(&here, Joins::Writing, told, true).await?;
                return Ok(answered.tag);
            }
        }
        let before = self.sight().await?;
        let table = format!(
            "{}{:016x}",
            crate::catalog::ROWS_TABLE,
            rand::random::<u64>()
        );
        let mut tag = String::new();
        for shard in define.shards.iter() {
            let is_first = shard == FIRST_SHARD;
            let given = given.filter(|_| is_first);
            tag = self
                .make_view(&only(shard), (view, &table), given, is_first)
                .await?;
        }
        let outcome = self.followed(define, &before).await?;
        self.keep_placements(define, &outcome).await?;
        self.advise(&outcome.advice);
        self.memory
            .definitions
            .note_sight(std::sync::Arc::new(outcome.sight));
        self.note_definitions(&Effect::Schema);
        self.note_schema();
        let Some(query) = &view.query else {
            return Ok(tag);
        };
        let selected = self.rows_to_store(query, None).await?;
        let refresh = format!("REFRESH MATERIALIZED VIEW {}", view.name);
        let stored = self.refresh_from((&table, &selected), (&refresh, None), false);
        let (count, _) = stored.await?;
        Ok(format!("SELECT {count}"))
    }

    /// Makes a view on a shard: first of its query alone, so that PostgreSQL says what is wrong with it and which
    /// columns it has, and then with a table that it takes its rows from.
    async fn make_view(
        &mut self,
        shard: &ShardSet,
        (view, table): (&ViewRows, &str),
        given: Option<Given<'_>>,
        is_told: bool,
    ) -> Result<String, Stop> {
        let told = (view.empty.as_str(), given);
        let answered = self.run_on(shard, Joins::Writing, told, is_told).await?;
        let sql = format!(
            "SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.oid = {}::pg_catalog.regclass",
            quote_literal(&view.name)
        );
        let full = self.ask(shard, &sql).await?.pop().flatten();
        let full = full.unwrap_or_else(|| view.name.clone());
        let table_name = quote_identifier(table);
        for sql in [
            AS_LOGIN.to_owned(),
            format!("CREATE TABLE shardwire.{table_name} AS SELECT * FROM {full} WITH NO DATA"),
            format!("GRANT SELECT, INSERT, TRUNCATE ON shardwire.{table_name} TO PUBLIC"),
            AS_CLIENT.to_owned(),
            format!("DROP MATERIALIZED VIEW {full}"),
            view.definition(table),
        ] {
            let told = (sql.as_str(), None);
            self.run_on(shard, Joins::Writing, told, false).await?;
        }
        Ok(answered.tag)
    }

    /// Gives a materialised view over several shards new rows.
    pub(super) async fn define_refresh(
        &mut self,
        plan: &Plan,
        rows: &RefreshedRows,
        (text, given): (&str, Option<Given<'_>>),
    ) -> Result<String, Stop> {
        let all = ShardSet::all(self.database.config.shards.len());
        self.check_several(plan, &all).await?;
        let query = match &rows.query {
            Some(query) => query.clone(),
            None => {
                // It is read as it is printed, with the same search path.
                let name = quote_literal(&rows.name);
                let sql = format!("SELECT pg_catalog.pg_get_viewdef({name}::pg_catalog.regclass)");
                let definition = self.ask(&only(FIRST_SHARD), &sql).await?.pop().flatten();
                rows.query_in(&definition.unwrap_or_default())?
            }
        };
        // Whoever else refreshes it waits here, and reads what is there then.
        self.empty(&rows.table).await?;
        let selected = self.rows_to_store(&query, None).await?;
        let stored = self.refresh_from((&rows.table, &selected), (text, given), true);
        let (_, answered) = stored.await?;
        Ok(answered.tag)
    }

    /// Has the first shard refresh a view from these rows; how many there are, and its answer.
    async fn refresh_from(
        &mut self,
        (table, selected): (&str, &Selected),
        (text, given): (&str, Option<Given<'_>>),
        is_told: bool,
    ) -> Result<(u64, Answered), Stop> {
        let here = only(FIRST_SHARD);
        let setting = |value: &str| {
            let (name, value) = (quote_literal(ROWS_SETTING), quote_literal(value));
            format!("SELECT pg_catalog.set_config({name}, {value}, true)")
        };
        let (set, reset) = (setting(table), setting(""));
        let full = format!("shardwire.{}", quote_identifier(table));
        let count = self.store_at_first(&full, selected).await?;
        let told = (set.as_str(), None);
        self.run_on(&here, Joins::Writing, told, false).await?;
        let told = (text, given);
        let answered = self.run_on(&here, Joins::Writing, told, is_told).await?;
        let told = (reset.as_str(), None);
        self.run_on(&here, Joins::Writing, told, false).await?;
        self.empty(table).await?;
        Ok((count, answered))
    }

    /// Takes all rows from a table that a view takes them from.
    async fn empty(&mut self, table: &str) -> Result<(), Stop> {
        let empty = format!("TRUNCATE shardwire.{}", quote_identifier(table));
        let here = only(FIRST_SHARD);
        let told = (empty.as_str(), None);
        self.run_on(&here, Joins::Writing, told, false).await?;
        Ok(())
    }

    /// The rows of a query, to be stored.
    async fn rows_to_store(
        &mut self,
        query: &str,
        given: Option<Given<'_>>,
    ) -> Result<Selected, Stop> {
        let parameters: Vec<Parameter<'_>> = parameters_of(given)
            .into_iter()
            // Types that users made have other numbers on other servers.
            .map(|(oid, format, value)| (if oid < FIRST_USER_OID { oid } else { 0 }, format, value))
            .collect();
        let selected = self.select_for(Use::Elements, query, &parameters).await?;
        match selected.columns.is_empty() {
            true => Err(without_columns().into()),
            false => Ok(selected),
        }
    }

    /// Stores rows in a table of the first shard that has their columns; how many there are.
    async fn store_at_first(&mut self, table: &str, selected: &Selected) -> Result<u64, Stop> {
        let here = only(FIRST_SHARD);
        let insert = self.encoded(&insert_of(table, selected))?.into_owned();
        let mut count = 0;
        let mut at = 0;
        loop {
            let mut arrays = vec![Array::default(); selected.columns.len()];
            let mut rows = 0_u64;
            at = selected.part(at, PART_BYTES, |values| {
                rows += 1;
                for (array, value) in arrays.iter_mut().zip(values) {
                    array.push(*value);
                }
                Ok(())
            })?;
            if rows == 0 {
                return Ok(count);
            }
            count += rows;
            let element = |(oid, format): &(u32, Format)| match format {
                Format::Binary => *oid,
                Format::Text => TEXT,
            };
            let elements = selected.columns.iter().map(element);
            let arrays: Vec<(u32, Vec<u8>)> = arrays
                .iter()
                .zip(elements)
                .map(|(array, element)| (array_of(element).unwrap_or(0), array.bytes(element)))
                .collect();
            let parameters: Vec<Parameter<'_>> = arrays
                .iter()
                .map(|(oid, bytes)| -> Parameter<'_> { (*oid, Format::Binary, Some(bytes)) })
                .collect();
            let mut request = Vec::new();
            request::write_select(&mut request, &insert, &parameters, &[]);
            let gathered = self.gather(&here, Joins::Writing, &[]).await?;
            let send = |lease: &mut Lease| {
                lease.unnamed = None;
                request.clone()
            };
            let scatter = Scatter::start(gathered, send, false, usize::MAX);
            self.drive(scatter.silent()).await?;
        }
    }
}

/// The statement that stores rows in a table that has their columns, an array of each column.
fn insert_of(table: &str, selected: &Selected) -> String {
    let names = selected.text_types();
    let numbers = 1..=selected.columns.len();
    let items: Vec<String> = numbers
        .clone()
        .map(|number| match names.get(number - 1) {
            Some(Some(name)) => format!("r.c{number}::{name}"),
            _ => format!("r.c{number}"),
        })
        .collect();
    let arrays: Vec<String> = numbers
        .clone()
        .map(|number| format!("pg_catalog.unnest(${number})"))
        .collect();
    let columns: Vec<String> = numbers.map(|number| format!("c{number}")).collect();
    format!(
        "INSERT INTO {table} SELECT {} FROM ROWS FROM ({}) AS r({})",
        items.join(", "),
        arrays.join(", "),
        columns.join(", ")
    )
}

fn without_columns() -> Error {
    Error::refused(
        "rows without columns can't be stored from a query over several shards",
        "They can't be told apart.",
        "Give the query a column.",
    )
}
