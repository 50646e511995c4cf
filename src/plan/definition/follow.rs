//! What a definition has done, seen on the first shard: placements to keep, tables to refuse, advice.
//!
//! The catalogue is read in the statement's transaction before and after it. Tables are followed by their
//! OIDs and key columns by their numbers, so that whatever renames, moves or drops them, by whatever
//! statement, keeps the placements that the shards hold right. What holds afterwards:
//! - Every stored placement is that of a table that exists, whose key's columns exist and can be a key.
//! - A table whose rows are placed otherwise than before has none ([`Outcome::empty`] says which must not).
//! - No foreign key was made that a shard can't check.
//! - The file and the shards place no table differently.

use std::collections::HashMap;

use crate::catalog::Catalog;
use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::catalog::Problem;
use crate::catalog::RawCatalog;
use crate::catalog::RawRelation;
use crate::catalog::Relation;
use crate::catalog::StoredPlacement;
use crate::catalog::advice::Advice;
use crate::catalog::advice::AdviceLevel;
use crate::catalog::advice::advice;
use crate::config::Database;
use crate::config::HashKind;
use crate::config::Method;
use crate::config::TableRule;
use crate::error::Error;
use crate::error::Result;
use crate::plan::Define;
use crate::plan::Filling;
use crate::plan::PlacedTable;
use crate::plan::hazards;
use crate::sharding::ColumnType;
use crate::sharding::KeyType;
use crate::sharding::Placement;
use crate::sql::definition::ClauseSpread;
use crate::sql::literal::quote_identifier;
use crate::sql::literal::quote_literal;
use crate::sqlstate::SqlState;

/// A catalogue as a transaction sees it.
#[derive(Clone, Debug)]
pub struct Sight {
    /// What the server said.
    pub raw: RawCatalog,
    /// The same, compiled.
    pub catalog: Catalog,
    problems: Vec<Problem>,
}

impl Sight {
    /// Compiles what the first shard said, under an epoch of its own.
    pub fn new(epoch: u64, raw: RawCatalog, database: &Database) -> Sight {
        let (catalog, problems) = Catalog::build(epoch, &raw, database);
        Sight {
            raw,
            catalog,
            problems,
        }
    }
}

/// What is to be done after a definition.
#[derive(Debug)]
pub struct Outcome {
    /// The catalogue as it is now.
    pub sight: Sight,
    /// Statements that keep `shardwire.tables` right, for every shard.
    pub changes: Vec<String>,
    /// Tables that must have no rows on any shard, or the definition is refused: schema, name and why.
    pub empty: Vec<(String, String, String)>,
    /// What the client is told.
    pub advice: Vec<Advice>,
    /// The table that it has made and that is still to be filled.
    pub made: Option<Relation>,
}

/// Where a definition is followed.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The configuration.
    pub database: &'a Database,
    /// The session's search path.
    pub search_path: &'a [String],
    /// The epoch for what is seen.
    pub epoch: u64,
}

/// Follows a definition from what was seen before it to what is there now.
///
/// # Errors
/// Why it must be undone.
pub fn follow(
    define: &Define,
    before: &Sight,
    mut after: RawCatalog,
    scene: Scene<'_>,
) -> Result<Outcome> {
    after.stored_placements = kept_placements(&before.raw, &after, scene.database)?;
    let found = define
        .placed
        .as_ref()
        .map(|placed| place(placed, before, &mut after, scene))
        .transpose()?
        .flatten();
    let mut changes = changes(&before.raw, &after, scene.database);
    changes.extend(orphans(&before.raw, &after));
    let sight = Sight::new(scene.epoch, after, scene.database);
    if let Some((oid, placed)) = found {
        check_agreement(oid, placed, &sight)?;
    }
    check_problems(before, &sight)?;
    let known = advice(&before.raw, &before.catalog);
    let mut new = advice(&sight.raw, &sight.catalog);
    new.retain(|one| !known.iter().any(|known| known.is_same(one)));
    if let Some(error) = new
        .iter()
        .find(|one| one.code.level() == AdviceLevel::Error)
    {
        return Err(Error::refused(
            error.message.clone(),
            format!("{} [{}]", error.detail, error.code.as_str()),
            error.hint,
        ));
    }
    let mut empty = moved(before, &sight)?;
    empty.extend(evaluated(define, &sight, scene.search_path));
    empty.extend(called_away(before, &sight));
    Ok(Outcome {
        made: made(define, before, (&sight, scene.search_path)).cloned(),
        sight,
        changes,
        empty,
        advice: new,
    })
}

/// The new table that the rows of a query are to be inserted into; none if it was there before (IF NOT EXISTS).
fn made<'a>(
    define: &Define,
    before: &Sight,
    (sight, search_path): (&'a Sight, &[String]),
) -> Option<&'a Relation> {
    let Some(Filling::Inserted { table, .. }) = &define.filling else {
        return None;
    };
    let is_there = |schema: &String| match &table.schema {
        Some(written) => schema == written,
        None => search_path.contains(schema),
    };
    let index = sight.raw.relations.iter().position(|one| {
        one.name == table.name && is_there(&one.schema) && by_oid(&before.raw, one.oid).is_none()
    });
    sight.catalog.relations().get(index?)
}

fn by_oid(raw: &RawCatalog, oid: u32) -> Option<&RawRelation> {
    raw.relations.iter().find(|one| one.oid == oid)
}

fn named<'a>(raw: &'a RawCatalog, schema: &str, name: &str) -> Option<&'a RawRelation> {
    let mut all = raw.relations.iter();
    all.find(|one| one.schema == schema && one.name == name)
}

/// The stored placements with the names that tables and columns have now.
fn kept_placements(
    before: &RawCatalog,
    after: &RawCatalog,
    database: &Database,
) -> Result<Vec<StoredPlacement>> {
    let mut kept = Vec::new();
    for stored in &before.stored_placements {
        let was = named(before, &stored.schema, &stored.table);
        let pair = was.and_then(|was| Some((was, by_oid(after, was.oid)?)));
        // What is gone needs no place, and neither does what was gone before.
        let Some((was, is)) = pair else { continue };
        let mut rule = stored.rule.clone();
        if let TableRule::Sharded { key, .. } = &mut rule {
            *key = renamed(key, (before, was), (after, is))?;
        }
        kept.push(StoredPlacement {
            schema: is.schema.clone(),
            table: is.name.clone(),
            rule,
        });
    }
    // A partition that is taken out keeps its rows, and their places.
    for was in before.relations.iter().filter(|one| one.parent.is_some()) {
        let Some(is) = by_oid(after, was.oid).filter(|is| is.parent.is_none()) else {
            continue;
        };
        let root = root(before, was);
        let mut rules = before.stored_placements.iter();
        let rule = rules.find(|one| one.schema == root.schema && one.table == root.name);
        let rule = rule.map(|one| &one.rule);
        let has_own = database.tables.rule(&is.schema, &is.name).is_some()
            || kept
                .iter()
                .any(|one| one.schema == is.schema && one.table == is.name);
        let rule = rule.or(database.tables.rule(&root.schema, &root.name));
        if let (false, Some(rule)) = (has_own, rule)
            && may_be_stored(rule)
        {
            kept.push(StoredPlacement {
                schema: is.schema.clone(),
                table: is.name.clone(),
                rule: rule.clone(),
            });
        }
    }
    Ok(kept)
}

fn root<'a>(raw: &'a RawCatalog, part: &'a RawRelation) -> &'a RawRelation {
    let mut root = part;
    for _ in 0..64 {
        match root.parent.and_then(|oid| by_oid(raw, oid)) {
            Some(parent) => root = parent,
            None => break,
        }
    }
    root
}

fn may_be_stored(rule: &TableRule) -> bool {
    match rule {
        TableRule::Sharded { method, .. } => matches!(method, Method::Hash(_)),
        TableRule::Replicated | TableRule::Home { .. } => true,
    }
}

/// A key with the names that its columns have now.
fn renamed(
    key: &[String],
    (before, was): (&RawCatalog, &RawRelation),
    (after, is): (&RawCatalog, &RawRelation),
) -> Result<Vec<String>> {
    let rename = |name: &String| {
        let number = number(before, was, name)?;
        let mut columns = is.columns.iter().zip(after.numbers.get(&is.oid)?);
        let column = columns.find(|(_, one)| **one == number);
        column.map(|(column, _)| column.name.clone())
    };
    key.iter()
        .map(|name| rename(name).ok_or_else(|| key_dropped(&is.name, name)))
        .collect()
}

/// The number of a column.
fn number(raw: &RawCatalog, table: &RawRelation, name: &str) -> Option<i16> {
    let at = table.columns.iter().position(|one| one.name == name)?;
    raw.numbers.get(&table.oid)?.get(at).copied()
}

fn key_dropped(table: &str, column: &str) -> Error {
    Error::refused(
        format!(
            "column \"{column}\" of table \"{table}\" can't be dropped: it is in the shard key"
        ),
        "The table's rows are placed by it.",
        "Make a table with another shard key and copy the rows.",
    )
}

/// Adds the placement that a new table's clause gives it. Returns the table.
fn place<'a>(
    placed: &'a PlacedTable,
    before: &Sight,
    after: &mut RawCatalog,
    scene: Scene<'_>,
) -> Result<Option<(u32, &'a PlacedTable)>> {
    let name = &placed.name;
    let found = match &name.schema {
        Some(schema) => named(after, schema, &name.name),
        None => {
            let mut path = scene.search_path.iter();
            path.find_map(|schema| named(after, schema, &name.name))
        }
    };
    let Some(table) = found else { return Ok(None) };
    let oid = table.oid;
    if let ClauseSpread::Sharded(key) = &placed.clause.spread
        && let Some(missing) = key
            .iter()
            .find(|name| !table.columns.iter().any(|one| one.name == **name))
    {
        let message = format!("column \"{missing}\" named in shard key does not exist");
        return Err(Error::new(SqlState::UNDEFINED_COLUMN, message));
    }
    let is_new = by_oid(&before.raw, oid).is_none();
    let is_part = table.parent.is_some();
    let by_file = scene.database.tables.rule(&table.schema, &table.name);
    if is_new && !is_part && by_file.is_none() {
        let rule = match &placed.clause.spread {
            ClauseSpread::Sharded(key) => TableRule::Sharded {
                key: key.clone(),
                method: Method::Hash(HashKind::Postgres),
            },
            ClauseSpread::Replicated => TableRule::Replicated,
        };
        let (schema, table) = (table.schema.clone(), table.name.clone());
        after.stored_placements.push(StoredPlacement {
            schema,
            table,
            rule,
        });
    }
    Ok(Some((oid, placed)))
}

/// Whether a table's place is what its clause says, whoever says so.
fn check_agreement(oid: u32, placed: &PlacedTable, sight: &Sight) -> Result<()> {
    let index = sight.raw.relations.iter().position(|one| one.oid == oid);
    let relation = index.and_then(|index| sight.catalog.relations().get(index));
    let Some(relation) = relation else {
        return Ok(());
    };
    let says = match &placed.clause.spread {
        ClauseSpread::Sharded(key) => format!("SHARD KEY ({})", key.join(", ")),
        ClauseSpread::Replicated => "REPLICATED".to_owned(),
    };
    let is = match &relation.location {
        Location::Sharded(placement) => {
            let names = placement.columns().iter().map(|one| one.name.as_str());
            format!("SHARD KEY ({})", names.collect::<Vec<_>>().join(", "))
        }
        Location::Replicated => "REPLICATED".to_owned(),
        Location::Home(_) => "at home on one shard".to_owned(),
        // Told with its reason.
        Location::Unserved(_) => return Ok(()),
    };
    if says == is {
        return Ok(());
    }
    Err(Error::refused(
        format!("table \"{}\" has another placement already", relation.name),
        format!(
            "The statement says {says}; by the configuration (tables), by the table that it is part of, or \
             because it was made so, it is {is}."
        ),
        "Leave the clause out, or make the two agree.",
    ))
}

/// What does not fit any more that did before.
fn check_problems(before: &Sight, sight: &Sight) -> Result<()> {
    let mut problems = sight.problems.iter();
    let is_new = |problem: &&Problem| {
        // A table that the file names may be made later, or again.
        !before.problems.contains(problem) && named_by(problem, &sight.raw)
    };
    match problems.find(is_new) {
        None => Ok(()),
        Some(Problem { table, message }) => Err(Error::refused(
            format!("the definition does not fit the placement of table \"{table}\""),
            format!("It would be so: {message}."),
            "Change the definition, or the table's placement in the configuration first.",
        )),
    }
}

fn named_by(problem: &Problem, raw: &RawCatalog) -> bool {
    let mut relations = raw.relations.iter();
    relations.any(|one| {
        problem.table == format!("{}.{}", one.schema, one.name) || problem.table == one.name
    })
}

/// Tables whose rows are in other places than they would be from now on.
fn moved(before: &Sight, sight: &Sight) -> Result<Vec<(String, String, String)>> {
    let mut empty = Vec::new();
    let now = sight.raw.relations.iter().zip(sight.catalog.relations());
    for (row, relation) in now.filter(|(row, _)| matches!(row.kind, 'r' | 'p')) {
        let Some(index) = before
            .raw
            .relations
            .iter()
            .position(|one| one.oid == row.oid)
        else {
            continue;
        };
        let was = before.raw.relations.get(index);
        let was = was.zip(before.catalog.relations().get(index));
        let Some((was_row, was)) = was else { continue };
        let is_same = match (&was.location, &relation.location) {
            (Location::Home(one), Location::Home(other)) => one == other,
            (Location::Replicated, Location::Replicated) => true,
            (Location::Sharded(one), Location::Sharded(other)) => {
                one.colocated_with(other)
                    && numbers(one, &before.raw, was_row) == numbers(other, &sight.raw, row)
                    && one
                        .columns()
                        .iter()
                        .zip(other.columns())
                        .all(|(one, other)| keeps_values(one.column_type, other.column_type))
            }
            (Location::Unserved(_), _) | (_, Location::Unserved(_)) => true,
            _ => false,
        };
        if !is_same {
            let why = "The definition changes where its rows are, or what its shard key is.";
            empty.push((row.schema.clone(), row.name.clone(), why.to_owned()));
        }
    }
    Ok(empty)
}

fn numbers(placement: &Placement, raw: &RawCatalog, row: &RawRelation) -> Vec<Option<i16>> {
    let columns = placement.columns().iter();
    columns
        .map(|column| number(raw, row, &column.name))
        .collect()
}

/// Whether every value of the one type that is one of the other is the same there.
fn keeps_values(one: ColumnType, other: ColumnType) -> bool {
    let is_rounded = matches!(
        other.key_type,
        KeyType::Numeric | KeyType::Timestamp | KeyType::Timestamptz
    );
    let is_cut = other.typmod >= 0 && (one.typmod < 0 || other.typmod < one.typmod);
    one.typmod == other.typmod || !(is_rounded || is_cut)
}

/// Tables whose rows get values that each shard would compute anew, or whose key is computed.
fn evaluated(
    define: &Define,
    sight: &Sight,
    search_path: &[String],
) -> Vec<(String, String, String)> {
    let mut empty = Vec::new();
    for name in &define.names {
        let lookup = sight
            .catalog
            .relation(name.schema.as_deref(), &name.name, search_path);
        let Lookup::Relation(relation) = lookup else {
            continue;
        };
        let why = match &relation.location {
            Location::Sharded(placement) if define.recomputes => {
                let mut columns = placement.columns().iter();
                let is_key = |column: &str| define.names.iter().any(|name| name.name == column);
                let is_meant = columns.any(|column| is_key(&column.name));
                is_meant.then_some("The values of its shard key are computed anew.")
            }
            _ => None,
        };
        let why = why.or(match &relation.location {
            Location::Sharded(_) | Location::Replicated if define.differs => Some(
                "Each shard would compute other values for its rows: a clock, a sequence or a random number is \
                 in the definition.",
            ),
            _ => None,
        });
        if let Some(why) = why {
            let (schema, name) = (relation.schema.clone(), relation.name.clone());
            empty.push((schema, name, why.to_owned()));
        }
    }
    empty
}

/// Tables that were there and call something else for their rows than before, some of which reads what is not where
/// they are.
fn called_away(before: &Sight, after: &Sight) -> Vec<(String, String, String)> {
    let known: HashMap<u32, &RawRelation> = (before.raw.relations.iter())
        .map(|row| (row.oid, row))
        .collect();
    let rows = after.raw.relations.iter().zip(after.catalog.relations());
    let found = rows.filter(|(row, relation)| {
        let known = known.get(&row.oid);
        known.is_some_and(|known| known.hazards.code != row.hazards.code)
            && hazards::is_code_away(&after.catalog, relation)
    });
    let why = "What it calls for its rows may read or change rows on other shards.";
    found
        .map(|(row, _)| (row.schema.clone(), row.name.clone(), why.to_owned()))
        .collect()
}

/// The statements that make the stored placements of `before` those of `after`.
fn changes(before: &RawCatalog, after: &RawCatalog, database: &Database) -> Vec<String> {
    let row = |stored: &StoredPlacement| {
        let (schema, table) = (quote_literal(&stored.schema), quote_literal(&stored.table));
        (schema, table)
    };
    let is_in = |stored: &StoredPlacement, all: &[StoredPlacement]| {
        all.iter().any(|one| {
            one.schema == stored.schema && one.table == stored.table && one.rule == stored.rule
        })
    };
    let gone = before.stored_placements.iter();
    let gone = gone.filter(|one| !is_in(one, &after.stored_placements));
    let mut changes: Vec<String> = gone
        .map(|one| {
            let (schema, table) = row(one);
            format!(
                "DELETE FROM shardwire.tables WHERE schema_name = {schema} AND table_name = {table}"
            )
        })
        .collect();
    let new = after.stored_placements.iter();
    for one in new.filter(|one| !is_in(one, &before.stored_placements)) {
        let (schema, table) = row(one);
        let (placement, key, hash, home) = match &one.rule {
            TableRule::Sharded { key, method } => {
                let key: Vec<String> = key.iter().map(|name| quote_literal(name)).collect();
                let key = format!("ARRAY[{}]::pg_catalog.text[]", key.join(", "));
                let hash = match method {
                    Method::Hash(HashKind::Xxh3) => "'xxh3'",
                    _ => "'postgres'",
                };
                ("sharded", key, hash, None)
            }
            TableRule::Replicated => ("replicated", "NULL".to_owned(), "NULL", None),
            TableRule::Home { shard } => {
                let shard = database.shards.get(*shard);
                let home = shard.map(|shard| quote_literal(&shard.name));
                ("home", "NULL".to_owned(), "NULL", home)
            }
        };
        let home = home.unwrap_or_else(|| "NULL".to_owned());
        changes.push(format!(
            "INSERT INTO shardwire.tables (schema_name, table_name, placement, shard_key, hash, home_shard) \
             VALUES ({schema}, {table}, '{placement}', {key}, {hash}, {home})"
        ));
    }
    changes
}

/// The statements that drop the tables which materialised views took their rows from that are gone.
fn orphans(before: &RawCatalog, after: &RawCatalog) -> Vec<String> {
    let is_read = |oid: u32| {
        after
            .relations
            .iter()
            .any(|one| one.depends_on.contains(&oid))
    };
    let tables = after.relations.iter().filter(|one| {
        one.is_rows_table() && by_oid(before, one.oid).is_some() && !is_read(one.oid)
    });
    let drop = |one: &RawRelation| {
        let name = quote_identifier(&one.name);
        format!("DROP TABLE IF EXISTS shardwire.{name}")
    };
    tables.map(drop).collect()
}

/// The error of a table that has rows and must not.
pub fn has_rows(table: &str, why: &str) -> Error {
    Error::refused(
        format!("the definition is not supported while table \"{table}\" has rows"),
        why.to_owned(),
        "Do it in steps that change no rows, UPDATE them with values of your own, or copy them into a table \
         that is made as it is to be.",
    )
}
