//! Definitions (DDL) and what maintains tables: everywhere, but for what is temporary.
//!
//! Every schema object exists on every shard, whatever place the rows have: home tables too. So names,
//! foreign keys, views and types mean the same on each, and any shard can answer questions about the
//! catalogue. What a definition does to placements is not read from its text but seen on the first shard
//! once it has run there ([`follow`]); the text only says whether it may run in a transaction, whether it is
//! temporary, and where its own clause (`SHARD KEY`, `REPLICATED`) and its query stand.

mod filling;
pub mod follow;
mod stored;

use std::sync::Arc;

use crate::error::Error;
use crate::error::Result;
use crate::plan::Access;
use crate::plan::Replacement;
use crate::plan::Route;
use crate::plan::SessionUse;
use crate::plan::effects::Effects;
use crate::plan::names;
use crate::plan::own::stored::mentions;
use crate::plan::query::FIRST_SHARD;
use crate::plan::query::Planned;
use crate::plan::refusal;
use crate::plan::statement::Part;
use crate::plan::statement::finish;
use crate::sharding::ShardIndex;
use crate::sharding::ShardSet;
use crate::sql::definition::Clause;
use crate::sql::definition::ClauseSpread;
use crate::sql::definition::blanked;
use crate::sql::definition::creation;
use crate::sql::relations::relations;
use crate::sql::statement::Ddl;
use crate::sql::statement::DdlObject;
use crate::sql::statement::DdlVerb;
use crate::sql::statement::TokenRelation;
use crate::sql::token::Token;

use filling::filling;
use filling::replacements;
use filling::reworded;

pub(super) use filling::into;

pub use filling::Filling;
pub use stored::ROWS_SETTING;
pub use stored::RefreshedRows;
pub use stored::TemporaryRows;
pub use stored::ViewRows;

/// A statement for every shard.
#[derive(Clone, Debug)]
pub struct Define {
    /// Where it runs: on the first of them first, then on the others.
    pub shards: ShardSet,
    /// It can't run in a transaction: each shard runs it by itself.
    pub is_apart: bool,
    /// It may change what tables, columns, functions and the like there are.
    pub is_tracked: bool,
    /// The table it makes, if it says where its rows are to be.
    pub placed: Option<PlacedTable>,
    /// How its table gets the rows of its query.
    pub filling: Option<Filling>,
    /// It gives rows values that each shard would compute anew: clocks, sequences, random numbers.
    pub differs: bool,
    /// It gives columns values that are computed (`ALTER COLUMN … TYPE … USING`).
    pub recomputes: bool,
    /// Names that may be those of temporary tables, which only the first shard has.
    pub names: Vec<TokenRelation>,
    /// It makes a table that is not temporary.
    pub is_new: bool,
}

/// A table that is made with a clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedTable {
    /// Its name as written.
    pub name: TokenRelation,
    /// The clause.
    pub clause: Clause,
}

impl Define {
    fn new(part: Part<'_>, is_apart: bool) -> Define {
        Define {
            shards: ShardSet::all(part.request.catalog.shards().len()),
            is_apart,
            is_tracked: false,
            placed: None,
            filling: None,
            differs: false,
            recomputes: false,
            names: Vec::new(),
            is_new: false,
        }
    }

    /// The statement as shards get it, without the clause that is not PostgreSQL's.
    pub fn text(&self, text: &str, shard: ShardIndex) -> String {
        let filling = self.filling.as_ref();
        let text = filling
            .and_then(|filling| filling.text(shard))
            .unwrap_or(text);
        match &self.placed {
            Some(placed) => blanked(text, &placed.clause.range),
            None => text.to_owned(),
        }
    }

    /// The columns of the key in the clause.
    pub fn key(&self) -> Option<&[String]> {
        match &self.placed.as_ref()?.clause.spread {
            ClauseSpread::Sharded(key) => Some(key),
            ClauseSpread::Replicated => None,
        }
    }
}

/// What comes with a temporary table.
fn temporary() -> SessionUse {
    SessionUse::PINS | SessionUse::TEMPORARY_TABLES | SessionUse::NOT_PREPARABLE
}

/// Plans a definition.
pub(super) fn plan(part: Part<'_>, ddl: Ddl) -> Planned {
    let mut planned = if ddl.temporary {
        match shard(part, ddl) {
            Err(why) if ddl.object == DdlObject::TableAs && part.is_sharded() => {
                let planned = everywhere(part, stored::temporary(part, why));
                let session = planned.session | temporary();
                Planned { session, ..planned }
            }
            shard => finish(part, shard.map(|shard| (shard, temporary()))),
        }
    } else if part.is_sharded() && !is_about_large_objects(part) {
        everywhere(part, define(part, ddl))
    } else {
        let planned = finish(part, Ok((FIRST_SHARD, SessionUse::NONE)));
        match without_clause(part, ddl) {
            Some(clause) => reworded(planned, vec![clause]),
            None => planned,
        }
    };
    if matches!(ddl.object, DdlObject::TableAs | DdlObject::MaterializedView) {
        // It would keep what a server shows.
        planned.own = mentions(part.request.text, part.all);
    }
    if ddl.verb == DdlVerb::Refresh && stored::is_unknown(part) {
        planned.session |= SessionUse::UNKNOWN_NAMES;
    }
    let keeps_views = ddl.object == DdlObject::MaterializedView;
    let is_filled = keeps_views || ddl.object == DdlObject::TableAs;
    if is_filled && !ddl.temporary && part.is_sharded() {
        let creation = creation(part.request.text, part.tokens).ok().flatten();
        let found = creation.map(|creation| {
            let mut found = replacements(part, &creation);
            found.retain(|one| !(keeps_views && one.is_view));
            found
        });
        match found.unwrap_or_default() {
            replacements if replacements.is_empty() => {}
            replacements => return reworded(planned, replacements),
        }
    }
    planned
}

/// Whether a definition is about large objects, which the first shard alone has: `ALTER LARGE OBJECT`, and
/// COMMENT, GRANT and REVOKE with `ON LARGE OBJECT`.
fn is_about_large_objects(part: Part<'_>) -> bool {
    let is_word = |token: &Token, word| token.is_word(part.request.text, word);
    part.tokens.windows(3).any(|window| match window {
        [before, large, object] => {
            (is_word(before, "alter") || is_word(before, "on"))
                && is_word(large, "large")
                && is_word(object, "object")
        }
        _ => false,
    })
}

/// On one shard all tables are alike, and the clause of a new one is only left out.
fn without_clause(part: Part<'_>, ddl: Ddl) -> Option<Replacement> {
    let is_table = matches!(ddl.object, DdlObject::Table | DdlObject::TableAs);
    if !is_table || ddl.verb != DdlVerb::Create {
        return None;
    }
    let creation = creation(part.request.text, part.tokens).ok()??;
    let clause = creation.clause?.range;
    let before = |at: u32| part.all.partition_point(|token| token.start < at);
    Some(Replacement {
        tokens: before(clause.start)..before(clause.end),
        text: "".into(),
        is_view: false,
    })
}

/// Plans a statement that locks or maintains tables that are not all at home on one shard.
pub(super) fn maintenance(part: Part<'_>, is_apart: bool) -> Planned {
    let mut define = Define::new(part, is_apart);
    define.names = relations(part.request.text, part.tokens);
    everywhere(part, Ok(define))
}

/// The definition on the shards it is for, or why not.
pub(super) fn everywhere(part: Part<'_>, define: Result<Define>) -> Planned {
    let refused = finish(part, Ok((FIRST_SHARD, SessionUse::NONE)));
    Planned {
        route: match define {
            Ok(define) => Route::Define(Arc::new(define)),
            Err(error) => Route::Refused(error),
        },
        access: Access::Write,
        ..refused
    }
}

/// The first shard, for something temporary.
fn shard(part: Part<'_>, ddl: Ddl) -> Result<ShardIndex> {
    if let (_, Some(name)) = names::calls(part, Effects::READS_TABLES) {
        return Err(refusal::reads_tables(&name));
    }
    // A trigger names its function, but runs it only later.
    if ddl.object != DdlObject::Trigger
        && let (_, Some(name)) = names::calls(part, Effects::USER_CODE)
    {
        return Err(refusal::user_code(&name));
    }
    match names::home(part, &names::command(part))? {
        None | Some(FIRST_SHARD) => Ok(FIRST_SHARD),
        Some(_) => Err(refusal::several_homes()),
    }
}

fn define(part: Part<'_>, ddl: Ddl) -> Result<Define> {
    let text = part.request.text;
    let makes = |verb| matches!(verb, DdlVerb::Create | DdlVerb::Drop);
    let is_of_server = match ddl.object {
        DdlObject::Database => makes(ddl.verb),
        DdlObject::Tablespace => ddl.verb != DdlVerb::Comment,
        DdlObject::System => true,
        DdlObject::Replication => {
            let mut words = part.tokens.iter().take(3);
            words.any(|token| token.is_word(text, "subscription"))
        }
        _ => false,
    };
    if is_of_server {
        return Err(refusal::of_servers(&names::command(part)));
    }
    let mut define = Define::new(part, ddl.outside_transaction);
    define.is_tracked = is_tracked(ddl);
    // The columns of an index are no tables.
    let is_index = ddl.verb == DdlVerb::Create && ddl.object == DdlObject::Index;
    let mut pieces = part
        .tokens
        .split(|token| is_index && token.is_symbol(text, "("));
    let named = pieces.next().unwrap_or_default();
    define.names = relations(text, named.get(1..).unwrap_or_default());
    if ddl.verb == DdlVerb::Alter && ddl.object == DdlObject::Table {
        define.recomputes = has(part, "using") && has(part, "type");
        define.differs = actions(part).any(|action| {
            let computes = has(action, "using") && has(action, "type");
            (computes || adds_column(action)) && differs(action)
        });
    }
    if ddl.verb == DdlVerb::Refresh {
        stored::refreshed(part, &mut define)?;
        return Ok(define);
    }
    let is_table = matches!(ddl.object, DdlObject::Table | DdlObject::TableAs);
    if ddl.verb != DdlVerb::Create || !(is_table || ddl.object == DdlObject::MaterializedView) {
        return Ok(define);
    }
    let Some(creation) = creation(text, part.tokens)? else {
        return Ok(define);
    };
    // A new table may have the name of a temporary one.
    define.names.retain(|name| *name != creation.name);
    define.is_new = true;
    define.filling = match ddl.object {
        DdlObject::MaterializedView => stored::view(part, &creation)?,
        DdlObject::TableAs => filling(part, &creation)?,
        _ => None,
    };
    define.placed = creation.clause.map(|clause| PlacedTable {
        name: creation.name,
        clause,
    });
    Ok(define)
}

fn has(part: Part<'_>, word: &str) -> bool {
    let text = part.request.text;
    part.tokens.iter().any(|token| token.is_word(text, word))
}

/// Whether a definition may change what statements mean: not rights, comments and rows.
fn is_tracked(ddl: Ddl) -> bool {
    match ddl.verb {
        DdlVerb::Create | DdlVerb::Alter => ddl.object != DdlObject::Role,
        DdlVerb::Drop | DdlVerb::Import => true,
        _ => false,
    }
}

/// The definitions in a block of code that does nothing else.
pub(super) fn of_block(part: Part<'_>, names: Vec<TokenRelation>) -> Define {
    Define {
        is_tracked: true,
        names,
        ..Define::new(part, false)
    }
}

/// Whether a definition in a block computes values for rows that are there, or may make what is in it anew for
/// each shard.
pub(super) fn changes_rows(part: Part<'_>) -> bool {
    (adds_columns(part) || has(part, "using") && has(part, "type")) && differs(part)
}

/// Whether an ALTER TABLE adds columns.
pub(super) fn adds_columns(part: Part<'_>) -> bool {
    actions(part).any(adds_column)
}

/// What stands between the commas of an ALTER TABLE.
fn actions(part: Part<'_>) -> impl Iterator<Item = Part<'_>> {
    let text = part.request.text;
    let mut depth = 0_usize;
    let split = part.tokens.split(move |token| {
        if token.is_symbol(text, "(") || token.is_symbol(text, "[") {
            depth += 1;
        } else if token.is_symbol(text, ")") || token.is_symbol(text, "]") {
            depth = depth.saturating_sub(1);
        }
        depth == 0 && token.is_symbol(text, ",")
    });
    split.map(move |tokens| Part { tokens, ..part })
}

/// Whether an ALTER TABLE adds a column, rather than a constraint.
fn adds_column(part: Part<'_>) -> bool {
    const CONSTRAINTS: [&str; 9] = [
        "constraint",
        "check",
        "unique",
        "primary",
        "foreign",
        "exclude",
        "generated",
        "value",
        "table",
    ];
    let text = part.request.text;
    part.tokens.windows(2).any(|pair| {
        let [add, behind] = pair else { return false };
        let is_other = CONSTRAINTS.iter().any(|word| behind.is_word(text, word));
        add.is_word(text, "add") && !is_other
    })
}

/// Whether each shard would compute other values.
fn differs(part: Part<'_>) -> bool {
    const WORDS: [&str; 14] = [
        "serial",
        "serial2",
        "serial4",
        "serial8",
        "bigserial",
        "smallserial",
        "identity",
        "current_timestamp",
        "current_date",
        "current_time",
        "localtime",
        "localtimestamp",
        "current_user",
        "session_user",
    ];
    let effects = Effects::CLOCK
        | Effects::RANDOM
        | Effects::SERVER
        | Effects::WRITES
        | Effects::HOME
        | Effects::USER_CODE;
    let (found, _) = names::calls(part, effects);
    found.any(effects) || WORDS.iter().any(|word| has(part, word))
}

/// `EXPLAIN` of a definition, which no one shard can answer.
pub(super) fn explained() -> Error {
    Error::refused(
        "EXPLAIN of a definition is not supported on several shards",
        "It would show one shard's part.",
        "Explain the query in it.",
    )
}
