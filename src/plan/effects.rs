//! What calling a function does beyond returning a value.

use std::ops::BitOr;
use std::ops::BitOrAssign;

use crate::catalog::Catalog;
use crate::catalog::Function;
use crate::catalog::Volatility;
use crate::plan::SessionUse;
use crate::plan::conduct::Conduct;
use crate::plan::pseudo;
use crate::sql::analysis::Name;

/// A set of effects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effects(u32);

impl Effects {
    /// The result depends on the arguments and the session's settings only.
    pub const NONE: Effects = Effects(0);
    /// Each call has another result.
    pub const RANDOM: Effects = Effects(1);
    /// The result depends on when the transaction or statement began.
    pub const CLOCK: Effects = Effects(2);
    /// The result may depend on the server.
    pub const SERVER: Effects = Effects(4);
    /// It writes, locks, or might.
    pub const WRITES: Effects = Effects(8);
    /// Its state belongs to the whole database, so that one shard must hold it: sequences, advisory
    /// locks, notifications, large objects.
    pub const HOME: Effects = Effects(16);
    /// It leaves state on the connection.
    pub const PINS: Effects = Effects(32);
    /// `set_config`.
    pub const SET_CONFIG: Effects = Effects(64);
    /// `nextval`, `setval`.
    pub const DRAWS_SEQUENCE: Effects = Effects(128);
    /// `currval`, `lastval`.
    pub const READS_SEQUENCE: Effects = Effects(256);
    /// It reads tables that are named in strings.
    pub const READS_TABLES: Effects = Effects(512);
    /// It runs code of users that may run queries.
    pub const USER_CODE: Effects = Effects(1024);
    /// It may be an aggregate.
    pub const AGGREGATE: Effects = Effects(2048);
    /// It may be a window function.
    pub const WINDOW: Effects = Effects(4096);
    /// The catalogue does not know it.
    pub const UNKNOWN: Effects = Effects(8192);
    /// It tells other sessions at commit.
    pub const NOTIFIES: Effects = Effects(16384);
    /// `pg_listening_channels`.
    pub const ASKS_CHANNELS: Effects = Effects(32768);
    /// `shardwire.shard_id()`: the same for all rows of a shard, and another for every shard.
    pub const SHARD: Effects = Effects(65536);

    /// Whether any of `effects` is there.
    pub fn any(self, effects: Effects) -> bool {
        self.0 & effects.0 != 0
    }

    /// These and others.
    pub const fn with(self, others: Effects) -> Effects {
        Effects(self.0 | others.0)
    }

    /// Those that are not among `others`.
    pub fn without(self, others: Effects) -> Effects {
        Effects(self.0 & !others.0)
    }

    /// Whether the caller may only run on a primary.
    pub fn write(self) -> bool {
        self.any(Effects::WRITES | Effects::HOME | Effects::SET_CONFIG | Effects::UNKNOWN)
    }

    /// What it does to the connection.
    pub fn session(self) -> SessionUse {
        let mut uses = SessionUse::NONE;
        for (effect, use_) in [
            (Effects::PINS, SessionUse::PINS),
            (Effects::SET_CONFIG, SessionUse::SET_CONFIG),
            (Effects::DRAWS_SEQUENCE, SessionUse::DRAWS_SEQUENCE),
            (Effects::READS_SEQUENCE, SessionUse::READS_SEQUENCE),
            (
                Effects::NOTIFIES,
                SessionUse::NOT_PREPARABLE | SessionUse::NOTIFIES,
            ),
            (Effects::ASKS_CHANNELS, SessionUse::ASKS_CHANNELS),
        ] {
            if self.any(effect) {
                uses |= use_;
            }
        }
        uses
    }
}

impl BitOr for Effects {
    type Output = Effects;

    fn bitor(self, other: Effects) -> Effects {
        Effects(self.0 | other.0)
    }
}

impl BitOrAssign for Effects {
    fn bitor_assign(&mut self, other: Effects) {
        self.0 |= other.0;
    }
}

/// The effects of calling a function by this name: of all the functions it could mean, since which
/// one it is depends on types that only the server knows.
pub(super) fn of_call(
    catalog: &Catalog,
    search_path: &[String],
    name: &Name,
    arguments: usize,
) -> Effects {
    let schema = name.schema.as_deref();
    if is_shard_id(name) {
        return Effects::SHARD;
    }
    let builtin = matches!(schema, None | Some("pg_catalog"));
    let mut effects = Effects::NONE;
    let mut known = false;
    for function in catalog.functions(schema, &name.name, search_path) {
        known = true;
        if function.aggregate {
            effects |= Effects::AGGREGATE;
        }
        if function.window {
            effects |= Effects::WINDOW;
        }
        effects |= of_function(&Conduct::new(catalog), function, &name.name, arguments, 0);
    }
    if known {
        return effects;
    }
    match grammar_effects(&name.name) {
        Some(effects) if builtin => effects,
        // PostgreSQL will say that there is none, unless the catalogue is behind.
        _ => Effects::UNKNOWN | Effects::WRITES | Effects::SERVER,
    }
}

/// The effects of calling a function that the catalogue has.
pub(super) fn of_function(
    conduct: &Conduct<'_>,
    function: &Function,
    name: &str,
    arguments: usize,
    depth: usize,
) -> Effects {
    if function.schema == "pg_catalog" {
        return builtin_effects(name, arguments, function.volatility);
    }
    let told = match function.runs_queries || function.aggregate {
        true => conduct.function(function, depth),
        false => None,
    };
    if function.aggregate && !function.runs_queries {
        // Of what it is made of it matters whether that may read tables.
        let reads = Effects::USER_CODE | Effects::READS_TABLES;
        return match told.is_none_or(|told| told.any(reads)) {
            true => Effects::USER_CODE | Effects::SERVER,
            false => foreign_effects(name, function.volatility, false),
        };
    }
    told.unwrap_or_else(|| foreign_effects(name, function.volatility, function.runs_queries))
}

/// Whether a name is that of the function that says which shard answers.
pub(super) fn is_shard_id(name: &Name) -> bool {
    name.schema.as_deref() == Some("shardwire") && name.name == pseudo::NAME
}

/// What looks like a function, or is one under another name in `pg_proc`.
pub(super) fn grammar_effects(name: &str) -> Option<Effects> {
    Some(match name {
        "coalesce" | "nullif" | "greatest" | "least" | "grouping" | "rollup" | "cube" | "row"
        | "xmlelement" | "xmlforest" | "xmlconcat" | "xmlparse" | "xmlpi" | "xmlroot"
        | "xmlserialize" | "xmlexists" | "json_array" | "json_object" | "json_scalar"
        | "json_serialize" | "json_value" | "json_query" | "json_exists" | "json" | "unnest"
        | "normalize" | "ceil" | "floor" | "position" | "substring" | "trim" | "overlay"
        | "extract" | "merge_action" | "treat" | "timezone" => Effects::NONE,
        "json_arrayagg" | "json_objectagg" => Effects::AGGREGATE,
        "current_timestamp" | "current_date" | "current_time" | "localtime" | "localtimestamp" => {
            Effects::CLOCK
        }
        "current_user" | "session_user" | "user" | "current_role" | "system_user"
        | "current_catalog" | "current_schema" => Effects::SERVER,
        _ => return None,
    })
}

/// Functions of extensions and users.
fn foreign_effects(name: &str, volatility: Volatility, runs_queries: bool) -> Effects {
    // Written in C, they read tables that their arguments name.
    let reads_tables = name.starts_with("crosstab")
        || name.starts_with("dblink")
        || matches!(name, "connectby" | "xpath_table");
    let mut effects = Effects::NONE;
    if reads_tables {
        effects |= Effects::READS_TABLES;
    }
    if runs_queries {
        effects |= Effects::USER_CODE | Effects::SERVER;
    }
    match volatility {
        Volatility::Immutable => effects,
        Volatility::Stable => effects | Effects::SERVER,
        Volatility::Volatile if is_random(name) => effects | Effects::RANDOM,
        Volatility::Volatile => effects | Effects::WRITES | Effects::RANDOM | Effects::SERVER,
    }
}

/// Volatile functions that merely return something new each time.
fn is_random(name: &str) -> bool {
    name.starts_with("uuid_generate_v")
        || name.starts_with("pg_sleep")
        || matches!(
            name,
            "random"
                | "random_normal"
                | "clock_timestamp"
                | "timeofday"
                | "gen_random_uuid"
                | "uuidv4"
                | "uuidv7"
                | "gen_random_bytes"
        )
}

/// Functions of `pg_catalog`.
fn builtin_effects(name: &str, arguments: usize, volatility: Volatility) -> Effects {
    if let Some(effects) = listed_effects(name, arguments) {
        return effects;
    }
    match volatility {
        Volatility::Immutable => Effects::NONE,
        Volatility::Stable if is_plain_stable(name) || is_json_aggregate(name) => Effects::NONE,
        Volatility::Stable => Effects::SERVER,
        Volatility::Volatile => Effects::WRITES | Effects::RANDOM | Effects::SERVER,
    }
}

/// Functions, some of them volatile, that only report on the server.
fn asks_server(name: &str) -> bool {
    let prefixes = [
        "pg_is_",
        "pg_last_",
        "pg_get_",
        "pg_stat_get_",
        "pg_ls_",
        "pg_control_",
    ];
    prefixes.iter().any(|prefix| name.starts_with(prefix))
        || matches!(
            name,
            "pg_backend_pid"
                | "pg_lock_status"
                | "pg_prepared_xact"
                | "pg_prepared_statement"
                | "pg_cursor"
                | "pg_blocking_pids"
                | "pg_safe_snapshot_blocking_pids"
                | "pg_sequence_last_value"
                | "pg_stat_file"
                | "pg_read_file"
                | "pg_read_binary_file"
                | "pg_notification_queue_usage"
                | "pg_xact_status"
                | "txid_status"
                | "pg_current_xact_id_if_assigned"
                | "txid_current_if_assigned"
        )
}

fn listed_effects(name: &str, arguments: usize) -> Option<Effects> {
    let reads_tables = [
        "query_to_",
        "table_to_",
        "schema_to_",
        "database_to_",
        "cursor_to_",
    ];
    Some(match name {
        "nextval" | "setval" => {
            Effects::WRITES | Effects::RANDOM | Effects::HOME | Effects::DRAWS_SEQUENCE
        }
        "currval" | "lastval" => Effects::RANDOM | Effects::HOME | Effects::READS_SEQUENCE,
        "set_config" => Effects::SET_CONFIG | Effects::RANDOM,
        "setseed" => Effects::PINS | Effects::RANDOM,
        "pg_notify" => Effects::WRITES | Effects::RANDOM | Effects::HOME | Effects::NOTIFIES,
        "pg_listening_channels" => Effects::SERVER | Effects::ASKS_CHANNELS,
        "loread" | "lowrite" => Effects::WRITES | Effects::RANDOM | Effects::HOME,
        "txid_current" | "pg_current_xact_id" => Effects::WRITES | Effects::SERVER,
        "now" | "transaction_timestamp" | "statement_timestamp" => Effects::CLOCK,
        "age" if arguments == 1 => Effects::CLOCK,
        "ts_stat" => Effects::READS_TABLES | Effects::SERVER,
        "ts_rewrite" if arguments == 2 => Effects::READS_TABLES | Effects::SERVER,
        _ if is_random(name) => Effects::RANDOM,
        _ if asks_server(name) => Effects::RANDOM | Effects::SERVER,
        _ if reads_tables.iter().any(|prefix| name.starts_with(prefix)) => {
            Effects::READS_TABLES | Effects::SERVER
        }
        _ if name.starts_with("lo_") => Effects::WRITES | Effects::RANDOM | Effects::HOME,
        _ if name.starts_with("pg_advisory_xact_") || name.starts_with("pg_try_advisory_xact_") => {
            Effects::RANDOM | Effects::HOME
        }
        // A session that has state on a connection keeps it; any other has no lock to give up.
        _ if name.starts_with("pg_advisory_unlock") => Effects::RANDOM | Effects::HOME,
        _ if name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_") => {
            Effects::RANDOM | Effects::HOME | Effects::PINS
        }
        _ => return None,
    })
}

fn is_json_aggregate(name: &str) -> bool {
    matches!(
        name,
        "json_agg" | "jsonb_agg" | "json_object_agg" | "jsonb_object_agg"
    )
}

/// Stable functions whose result depends on arguments and on settings that all shards share:
/// `DateStyle`, `TimeZone`, locale and the like.
fn is_plain_stable(name: &str) -> bool {
    matches!(
        name,
        "to_char"
            | "to_date"
            | "to_number"
            | "to_timestamp"
            | "date_trunc"
            | "date_part"
            | "date_bin"
            | "date_add"
            | "date_subtract"
            | "timezone"
            | "make_timestamptz"
            | "format"
            | "concat"
            | "concat_ws"
            | "array_to_string"
            | "string_to_array"
            | "quote_literal"
            | "quote_nullable"
            | "to_json"
            | "to_jsonb"
            | "row_to_json"
            | "array_to_json"
            | "json_build_object"
            | "json_build_array"
            | "jsonb_build_object"
            | "jsonb_build_array"
            | "json_populate_record"
            | "jsonb_populate_record"
            | "json_populate_recordset"
            | "jsonb_populate_recordset"
            | "json_to_record"
            | "jsonb_to_record"
            | "json_to_recordset"
            | "jsonb_to_recordset"
            | "pg_typeof"
            | "jsonb_path_query_tz"
            | "jsonb_path_exists_tz"
            | "jsonb_path_match_tz"
            | "jsonb_path_query_array_tz"
            | "jsonb_path_query_first_tz"
            | "generate_series"
            | "to_tsvector"
            | "to_tsquery"
            | "plainto_tsquery"
            | "phraseto_tsquery"
            | "websearch_to_tsquery"
            | "ts_headline"
            | "timestamptz"
            | "timestamp"
            | "date"
            | "time"
            | "timetz"
            | "text"
            | "varchar"
            | "bpchar"
            | "num_nulls"
            | "num_nonnulls"
            | "overlaps"
            | "age"
            | "convert_from"
            | "convert_to"
            | "encode"
            | "decode"
            | "length"
            | "money"
            | "numeric"
            | "cash_out"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmful_functions_are_known_by_name() {
        let volatile = |name| builtin_effects(name, 1, Volatility::Volatile);
        assert!(!volatile("random").write());
        assert!(!volatile("pg_sleep").write());
        assert!(volatile("nextval").write());
        assert!(volatile("lastval").write());
        assert!(volatile("pg_terminate_backend").write());
        assert!(volatile("lo_create").any(Effects::HOME));
        assert_eq!(volatile("pg_try_advisory_lock").session(), SessionUse::PINS);
        assert_eq!(
            volatile("pg_advisory_xact_lock").session(),
            SessionUse::NONE
        );
        assert!(
            builtin_effects("query_to_xml", 4, Volatility::Volatile).any(Effects::READS_TABLES)
        );
        assert!(builtin_effects("now", 0, Volatility::Stable).any(Effects::CLOCK));
        assert!(builtin_effects("age", 1, Volatility::Stable).any(Effects::CLOCK));
        assert_eq!(
            builtin_effects("to_char", 2, Volatility::Stable),
            Effects::NONE
        );
        assert!(builtin_effects("inet_server_addr", 0, Volatility::Stable).any(Effects::SERVER));
    }

    #[test]
    fn user_code_is_only_trusted_when_immutable() {
        let effects = foreign_effects("f", Volatility::Volatile, true);
        assert!(effects.any(Effects::USER_CODE) && effects.write());
        assert!(!foreign_effects("f", Volatility::Stable, true).write());
        assert_eq!(
            foreign_effects("f", Volatility::Immutable, false),
            Effects::NONE
        );
        assert!(foreign_effects("crosstab", Volatility::Stable, false).any(Effects::READS_TABLES));
    }
}
