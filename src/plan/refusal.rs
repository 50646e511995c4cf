//! The errors of statements that are not served: what, why, and what to write instead.

use crate::catalog::Reason;
use crate::error::Error;
use crate::sql::parse::StopReason;
use crate::sql::parse::Stopped;
use crate::sqlstate::SqlState;

/// The hint of whatever must run on one shard that only the user can name.
const CHOOSE_SHARD: &str = "Choose the shard with SET shardwire.shard = '…'.";

/// The hint of whatever lacks a shard key.
const ADD_KEY: &str = "Add a condition that equates the shard key with a constant or parameter.";

/// Rows of several shards would have to be combined.
pub(super) fn combine(what: &str) -> Error {
    Error::refused(
        format!("a query over several shards with {what} is not supported"),
        "Its answer is not the concatenation of the shards' answers.".to_owned(),
        ADD_KEY,
    )
}

/// A view over shards in a statement that SQL prepares, which would not see it change.
pub(super) fn prepared_view() -> Error {
    Error::refused(
        "PREPARE of a query of a view on tables of several shards is not supported",
        "The query of the view would stand in it, and stay there when the view is defined anew.",
        "Prepare it by the extended protocol, or name the tables.",
    )
}

/// A mention of `shard_id` in a text that nobody has replaced it in.
pub(super) fn pseudo() -> Error {
    Error::refused(
        "the column \"shard_id\" is not supported here",
        "It is no column of a table: the proxy puts the shard's name in its place.",
        "Use it in a SELECT, INSERT, UPDATE or DELETE.",
    )
}

/// A function or the like that differs between shards.
pub(super) fn differs(what: &str) -> Error {
    Error::refused(
        format!("a query over several shards with {what} is not supported"),
        "Each shard would give it another value.",
        ADD_KEY,
    )
}

/// Sharded tables that are not all on one shard for certain.
pub(super) fn unproven(table: &str, key: &str) -> Error {
    Error::refused(
        "a query that joins or nests rows of several shards is not supported",
        format!(
            "Nothing in its own query block restricts table \"{table}\" to one value of {key}."
        ),
        ADD_KEY,
    )
}

/// Rows of an `INSERT … SELECT`, if there are any, whose key no shard takes.
pub(super) fn nowhere(table: &str, column: &str) -> Error {
    Error::refused(
        format!("INSERT into \"{table}\" of a query whose rows no shard takes is not supported"),
        format!(
            "No shard takes the value of column \"{column}\", and whether the query gives rows at all \
             is not known."
        ),
        "Give the column a value that has a shard.",
    )
}

/// Executions whose keys are on different shards.
pub(super) fn several_shards() -> Error {
    Error::refused(
        "statement needs rows of several shards",
        "Its shard keys are on different shards, or not on the shard of a home table it uses.",
        "Split it into one statement for each shard key.",
    )
}

/// A value of the shard key that can't be known.
pub(super) fn unprovable(table: &str, why: &str) -> Error {
    Error::refused(
        format!("the shard of the rows of \"{table}\" cannot be determined"),
        format!("The value that the shard key is compared with can't be known: {why}."),
        "Write it as a constant or parameter of the column's own type.",
    )
}

/// `'now'` and the like on several shards.
pub(super) fn relative_time() -> Error {
    differs("a string like 'now' or 'today'")
}

/// An `UPDATE` or `DELETE` of several shards.
pub(super) fn write_several(verb: &str, table: &str, key: &str) -> Error {
    Error::refused(
        format!("{verb} on several shards is not supported"),
        format!("Nothing restricts table \"{table}\" to one value of {key}."),
        ADD_KEY,
    )
}

/// An `INSERT` whose rows are on several shards.
pub(super) fn insert_several(table: &str) -> Error {
    Error::refused(
        "INSERT on several shards is not supported",
        format!("The rows for table \"{table}\" are on different shards."),
        "Insert the rows of each shard key with a statement of their own.",
    )
}

/// An assignment to a shard key.
pub(super) fn assigns_key(table: &str, column: &str) -> Error {
    Error::refused(
        format!("updating the shard key column \"{column}\" of \"{table}\" is not supported"),
        "The row might have to move to another shard.",
        "Delete the row and insert it again with its new key.",
    )
}

/// An assignment to a shard key of rows that can't move.
pub(super) fn moves(table: &str, column: &str, why: &str) -> Error {
    Error::refused(
        format!("updating the shard key column \"{column}\" of \"{table}\" is not supported here"),
        format!("The row might have to move to another shard, and {why}."),
        "Delete the row and insert it again with its new key.",
    )
}

/// An `INSERT` without its shard key.
pub(super) fn missing_key(table: &str, column: &str) -> Error {
    Error::refused(
        format!("INSERT into \"{table}\" without its shard key is not supported"),
        format!("Column \"{column}\" decides on which shard the row is stored."),
        format!("List \"{column}\" and give it a constant or parameter."),
    )
}

/// An `INSERT` with a computed shard key.
pub(super) fn computed_key(table: &str, column: &str) -> Error {
    Error::refused(
        format!("INSERT into \"{table}\" with a computed shard key is not supported"),
        format!(
            "Column \"{column}\" decides on which shard the row is stored, and its value is not a constant or parameter."
        ),
        "Compute the value first and send it as a parameter.",
    )
}

/// A default that draws from a sequence.
pub(super) fn sequence_default(table: &str, column: &str) -> Error {
    Error::refused(
        format!("a default from a sequence is not supported in \"{table}\""),
        format!(
            "Column \"{column}\" takes its default from a sequence, and each shard has its own."
        ),
        format!("List \"{column}\" and give it a value."),
    )
}

/// An assignment of DEFAULT that draws from a sequence, or calls functions of users.
pub(super) fn assigned_default(table: &str, column: &str) -> Error {
    Error::refused(
        format!("assigning its default to column \"{column}\" of \"{table}\" is not supported"),
        "It draws from a sequence, of which each shard has its own, or calls a function that may do anything.",
        "Assign a value.",
    )
}

/// `OVERRIDING USER VALUE` on a sharded table.
pub(super) fn overriding(table: &str) -> Error {
    Error::refused(
        format!("OVERRIDING USER VALUE is not supported in \"{table}\""),
        "The values of identity columns would come from a sequence, and each shard has its own.",
        "Leave it out.",
    )
}

/// A write to a replicated table.
pub(super) fn writes_replicated(table: &str) -> Error {
    Error::refused(
        format!("writing to the replicated table \"{table}\" in this way is not supported"),
        "Its rows would have to change on every shard as on the first.",
        "Use an INSERT, UPDATE or DELETE of this table alone.",
    )
}

/// A write to a replicated table beside another one.
pub(super) fn writes_with(table: &str) -> Error {
    Error::refused(
        format!(
            "writing to the replicated table \"{table}\" together with others is not supported"
        ),
        "The statement changes several tables, which are not on the same shards.",
        "Use a statement for each table, in one transaction.",
    )
}

/// A write to a replicated table of what a sharded one has.
pub(super) fn reads_sharded(table: &str) -> Error {
    Error::refused(
        format!("writing to a replicated table what table \"{table}\" has is not supported"),
        "Its rows are on several shards.",
        "Read the rows first, and write them as constants or parameters.",
    )
}

/// A call that the proxy answers, in a write to a replicated table.
pub(super) fn own_call(name: &str) -> Error {
    Error::refused(
        format!("function \"{name}\" cannot be called in a write to a replicated table"),
        "The proxy answers it for each server.",
        "Call it first, and send its value.",
    )
}

/// A row lock on a replicated table.
pub(super) fn locks_replicated() -> Error {
    Error::refused(
        "locking rows of a replicated table is not supported",
        "The lock would hold on one shard only.",
        "Leave out FOR UPDATE or FOR SHARE, or lock the rows of a sharded or home table: FOR UPDATE OF its name.",
    )
}

/// A row lock on rows that a hub would have a copy of.
pub(super) fn locks_combined() -> Error {
    Error::refused(
        "locking rows in a query over several shards is not supported",
        "The query is finished over copies of the rows.",
        "Leave out FOR UPDATE or FOR SHARE, or lock the rows in a query with their shard key.",
    )
}

/// A function with effects, or none known, in a query that a hub finishes.
pub(super) fn hub_calls(name: &str) -> Error {
    Error::refused(
        format!("function \"{name}\" cannot be called in a query over several shards"),
        "It may write or keep state, on a server that is not the one where the rows are.",
        "Call it in a statement of its own.",
    )
}

/// Rules, triggers, policies.
pub(super) fn hazard(table: &str, what: &str) -> Error {
    Error::refused(
        format!("table \"{table}\" cannot be used here because of its {what}"),
        format!("Its {what} may read or change rows on other shards."),
        CHOOSE_SHARD,
    )
}

/// A trigger that assigns to the shard key.
pub(super) fn trigger_moves(table: &str) -> Error {
    Error::refused(
        format!("table \"{table}\" cannot be used here because of its triggers"),
        "One assigns to the shard key, when the row's shard has been found already.",
        CHOOSE_SHARD,
    )
}

/// A trigger that asks for the time, or for what each server has for itself, in a change over several shards.
pub(super) fn trigger_varies(table: &str) -> Error {
    Error::refused(
        format!(
            "changing rows of \"{table}\" on several shards at once is not supported because of its triggers"
        ),
        "One asks for the time or for what belongs to a server, which would be another on each shard.",
        "Change the rows of one shard key at a time, or the shards one by one with SET shardwire.shard = '…'.",
    )
}

/// `MERGE` on tables that are not at home.
pub(super) fn merge(table: &str) -> Error {
    Error::refused(
        format!("MERGE with the sharded or replicated table \"{table}\" is not supported"),
        "Its rows may be on several shards.",
        "Use INSERT … ON CONFLICT, UPDATE or DELETE with the shard key.",
    )
}

/// A relation that is not served.
pub(super) fn unserved(relation: &str, reason: &Reason) -> Error {
    match reason {
        Reason::NoPlace(why) => no_place(relation, why),
        Reason::Differs(how) => Error::refused(
            format!("table \"{relation}\" is not the same on all shards"),
            format!(
                "It can't be used as long as {}.",
                how.rsplit_once("; ").map_or(how.as_str(), |(how, _)| how)
            ),
            "Shards can be reached one by one with SET shardwire.shard = '…'.",
        ),
    }
}

/// A view or table that can't be read.
pub(super) fn no_place(relation: &str, reason: &str) -> Error {
    Error::refused(
        format!("relation \"{relation}\" cannot be used here"),
        format!("On several shards it has no single place: {reason}."),
        "Use the tables themselves.",
    )
}

/// A relation that the configuration places but the catalogue lacks (`42P01`).
pub(super) fn undefined(relation: &str) -> Error {
    Error::new(
        SqlState::UNDEFINED_TABLE,
        format!("relation \"{relation}\" does not exist"),
    )
    .hint("If it was just created, the proxy will know it after its next look at the catalogue.")
}

/// Home tables of several shards.
pub(super) fn several_homes() -> Error {
    Error::refused(
        "statement uses tables of several shards",
        "It uses home tables that live on different shards, or one that does not live on the first shard together with something that does.",
        "Use one statement for each table.",
    )
}

/// A user's function.
pub(super) fn arguments_spread(name: &str) -> Error {
    Error::refused(
        format!("function \"{name}\" cannot be called with these arguments"),
        "They, and the conditions of the statement, are shard keys of different shards.",
        CHOOSE_SHARD,
    )
}

pub(super) fn user_code(name: &str) -> Error {
    Error::refused(
        format!("function \"{name}\" cannot be called here"),
        "It is not known to do nothing but compute, and may read tables, whose rows are on several shards.",
        CHOOSE_SHARD,
    )
}

/// A function that reads tables named in strings.
pub(super) fn reads_tables(name: &str) -> Error {
    Error::refused(
        format!("function \"{name}\" cannot be called here"),
        "It reads tables that are named in its arguments, whose rows may be on several shards.",
        CHOOSE_SHARD,
    )
}

/// A function whose state is the whole database's, next to tables that are not on its shard.
pub(super) fn global_state(name: &str) -> Error {
    Error::refused(
        format!("function \"{name}\" cannot be called here"),
        "Its state belongs to the whole database and is kept on the first shard, where the tables of the statement are not.",
        "Call it in a statement of its own.",
    )
}

/// DDL and the like.
pub(super) fn everywhere(what: &str) -> Error {
    Error::refused(
        format!("{what} is not supported on several shards"),
        "It would have to run on every shard in one transaction.",
        "Run it on each shard, choosing it with SET shardwire.shard = '…'.",
    )
}

/// A new table or materialised view with the rows of a query that can't be stored there.
pub(super) fn filled(what: &str) -> Error {
    Error::refused(
        format!("{what} with the rows of such a query is not supported on several shards"),
        "Its rows can't be found in a way that lets every shard store its own.",
        "Create a table WITH NO DATA, and INSERT … SELECT into it.",
    )
}

/// What concerns whole servers.
pub(super) fn of_servers(what: &str) -> Error {
    Error::refused(
        format!("{what} is not supported through the proxy"),
        "It concerns the servers as a whole, not the sharded database, and can't be undone on all of them.",
        "Run it on the servers themselves.",
    )
}

/// What only one shard can do, nobody knows which.
pub(super) fn choose_shard(what: &str) -> Error {
    Error::refused(
        format!("{what} is not supported on several shards"),
        "It is not known which shard it concerns.",
        CHOOSE_SHARD,
    )
}

/// What the parser does not know, on tables whose place depends on their rows.
pub(super) fn not_understood(stopped: Stopped, text: &str, why: &str) -> Error {
    let detail = match stopped.reason {
        StopReason::Unknown => match near(stopped, text) {
            Some(word) => format!("Parsing stopped at or near \"{word}\"; {why}."),
            None => format!("Parsing stopped at the end of the statement; {why}."),
        },
        StopReason::TooDeep => format!("It is nested too deeply to be analysed; {why}."),
        StopReason::TooLong => format!("It is too long to be analysed; {why}."),
        StopReason::NotAnalysed(what) => format!("It has {what} that is not analysed; {why}."),
    };
    let error = Error::refused(
        "statement is not supported on several shards",
        detail,
        "Write it in another way, or choose the shard with SET shardwire.shard = '…'.",
    );
    match stopped.offset {
        Some(offset) => error.position(position(text, offset)),
        None => error,
    }
}

/// A statement that PostgreSQL does not have (`42601`).
pub(super) fn syntax(text: &str, offset: u32, word: &str) -> Error {
    Error::new(
        SqlState::SYNTAX_ERROR,
        format!("syntax error at or near \"{word}\""),
    )
    .position(position(text, offset))
}

/// The word at which parsing stopped, unless it is a constant.
fn near(stopped: Stopped, text: &str) -> Option<&str> {
    let rest = text.get(stopped.offset? as usize..)?;
    let end = rest
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(rest.len());
    let first = rest.chars().next()?;
    if first == '\'' || first.is_ascii_digit() {
        return Some("a constant");
    }
    rest.get(..end.max(first.len_utf8()))
}

/// The 1-based character position of a byte.
fn position(text: &str, offset: u32) -> u32 {
    let before = text.get(..offset as usize).unwrap_or(text);
    u32::try_from(before.chars().count() + 1).unwrap_or(u32::MAX)
}
