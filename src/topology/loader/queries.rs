//! The questions about a server's catalogue, and their answers as the catalog layer wants them.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::Arc;

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::catalog::BuiltIn;
use crate::catalog::RawCatalog;
use crate::catalog::RawColumn;
use crate::catalog::RawDefault;
use crate::catalog::RawHazards;
use crate::catalog::RawIndex;
use crate::catalog::RawRelation;
use crate::catalog::StoredPlacement;
use crate::config::Database;
use crate::config::HashKind;
use crate::config::Method;
use crate::config::TableRule;

use crate::topology::control::ControlError;
use crate::topology::loader::behind;
use crate::topology::loader::functions;

/// One row, with its values in text.
pub type TextRow = Vec<Option<String>>;

/// Whatever can be asked questions, in the simple protocol.
pub trait RowSource {
    /// The rows of one query.
    ///
    /// # Errors
    /// As the server says.
    fn rows(
        &mut self,
        sql: &str,
    ) -> impl Future<Output = Result<Vec<TextRow>, ControlError>> + Send;
}

impl RowSource for &Client {
    async fn rows(&mut self, sql: &str) -> Result<Vec<TextRow>, ControlError> {
        let mut rows = Vec::new();
        for message in self.simple_query(sql).await? {
            if let SimpleQueryMessage::Row(row) = message {
                let values = (0..row.len()).map(|column| row.get(column).map(str::to_owned));
                rows.push(values.collect());
            }
        }
        Ok(rows)
    }
}

/// What stands between the elements of lists.
pub(super) const BETWEEN: char = '\u{1}';

/// All questions of one reading see the same state. The role's own search_path is asked first.
const BEGIN: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '60s'";
const PLAIN_PATH: &str = "SET LOCAL search_path = pg_catalog";
const END: &str = "COMMIT";

/// To compile the questions would take many times as long as to answer them.
const JIT_OFF: &str = "SELECT pg_catalog.set_config('shardwire.jit', pg_catalog.current_setting('jit'), true), \
     pg_catalog.set_config('jit', 'off', true)";
const JIT_AS_BEFORE: &str =
    "SELECT pg_catalog.set_config('jit', pg_catalog.current_setting('shardwire.jit'), true)";

/// Relations that are neither the server's own nor some session's temporary ones.
macro_rules! of_users {
    () => {
        "n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') \
         AND n.nspname NOT LIKE 'pg\\_temp\\_%' AND n.nspname NOT LIKE 'pg\\_toast\\_temp\\_%' \
         AND c.relpersistence <> 't' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')"
    };
}

/// Whether a locale of the C library orders by bytes. C.UTF-8 orders by code points, as do the bytes of
/// clients, which get them in UTF-8, if the server's encoding is one of these.
macro_rules! bytewise {
    ($locale:literal) => {
        concat!(
            "(current_setting('server_encoding') IN ('UTF8', 'LATIN1', 'SQL_ASCII') AND (",
            $locale,
            " IN ('C', 'POSIX') OR lower(",
            $locale,
            ") IN ('c.utf8', 'c.utf-8') AND current_setting('server_encoding') = 'UTF8'))"
        )
    };
}

/// Whether the database's own collation orders by bytes. Servers before 15 have only the C library's.
const BYTEWISE: &str = concat!(
    "SELECT CASE coalesce(to_jsonb(d)->>'datlocprovider', 'c') WHEN 'b' THEN true WHEN 'c' THEN ",
    bytewise!("d.datcollate"),
    " ELSE false END FROM pg_database d WHERE d.datname = current_database()"
);

/// Row versions of everything that the catalogue is made of: any DDL changes one of them.
const DIGEST: &str = concat!(
    "WITH mine AS MATERIALIZED (SELECT c.oid, c.xmin FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ",
    of_users!(),
    "), parts AS (
    SELECT hashint8extended(xmin::text::int8, oid::int8) AS h FROM mine
    UNION ALL SELECT hashint8extended(a.xmin::text::int8, a.attrelid::int8 * 4096 + a.attnum)
        FROM pg_attribute a JOIN mine ON mine.oid = a.attrelid
    UNION ALL SELECT hashint8extended(d.xmin::text::int8, d.oid::int8) FROM pg_attrdef d JOIN mine ON mine.oid = d.adrelid
    UNION ALL SELECT hashint8extended(r.xmin::text::int8, r.oid::int8) FROM pg_rewrite r JOIN mine ON mine.oid = r.ev_class
    UNION ALL SELECT hashint8extended(t.xmin::text::int8, t.oid::int8) FROM pg_trigger t JOIN mine ON mine.oid = t.tgrelid
    UNION ALL SELECT hashint8extended(k.xmin::text::int8, k.indexrelid::int8) FROM pg_index k JOIN mine ON mine.oid = k.indrelid
        WHERE k.indisprimary OR k.indexprs IS NOT NULL OR k.indpred IS NOT NULL
    UNION ALL SELECT hashint8extended(xmin::text::int8, oid::int8) FROM pg_constraint WHERE contypid <> 0
    UNION ALL SELECT hashint8extended(xmin::text::int8, oid::int8) FROM pg_type WHERE oid >= 16384
        AND (typtype IN ('d', 'e', 'r', 'm') OR typtype = 'b' AND typcategory <> 'A')
    UNION ALL SELECT hashint8extended(i.xmin::text::int8, i.inhrelid::int8) FROM pg_inherits i JOIN mine ON mine.oid = i.inhrelid
    UNION ALL SELECT hashint8extended(xmin::text::int8, oid::int8) FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT hashint8extended(xmin::text::int8, oid::int8) FROM pg_operator WHERE oid >= 16384
    UNION ALL SELECT hashint8extended(xmin::text::int8, oid::int8) FROM pg_cast WHERE oid >= 16384
    UNION ALL SELECT hashint8extended(xmin::text::int8, oid::int8) FROM pg_policy
    UNION ALL SELECT hashint8extended(xmin::text::int8, oid::int8) FROM pg_namespace
    UNION ALL SELECT hashint8extended(xmin::text::int8, setdatabase::int8 * 4294967296 + setrole::int8) FROM pg_db_role_setting
) SELECT concat_ws(' ', count(*), sum(h), current_setting('server_version_num')) FROM parts"
);

const RELATIONS: &str = concat!(
    "SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relrowsecurity, \
            EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN'), \
            (SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = c.oid ORDER BY i.inhseqno LIMIT 1), \
            (SELECT string_agg(i.inhparent::text, chr(1)) FROM pg_inherits i WHERE i.inhrelid = c.oid AND i.inhseqno > 1), \
            (SELECT string_agg(a.attname, chr(1) ORDER BY k.n) FROM pg_index i, \
                unnest(i.indkey) WITH ORDINALITY k(number, n), pg_attribute a \
             WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND i.indimmediate \
                AND k.n <= i.indnkeyatts AND a.attrelid = c.oid AND a.attnum = k.number) \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ",
    of_users!()
);

/// A default that is nothing but the next number of a sequence, cast to the column's type: 1574 is nextval,
/// 480 and 714 make integers and smallints of its result.
macro_rules! is_nextval {
    () => {
        "(e.value ~ '^\\{FUNCEXPR :funcid (480|714|1574) ' AND e.value ~ ':funcid 1574 ' \
         AND e.value !~ '\\{(?!FUNCEXPR|CONST)[A-Z]' AND e.value !~ ':funcid (?!480 |714 |1574 )')"
    };
}

/// A default that is made of constants and immutable functions only, as PostgreSQL's grammar tells them.
macro_rules! is_constant {
    () => {
        "(d.adbin::text !~ '\\{(?!CONST|FUNCEXPR|OPEXPR|RELABELTYPE|ARRAYEXPR|BOOLEXPR|NULLTEST)[A-Z]' \
         AND NOT EXISTS (SELECT FROM regexp_matches(d.adbin::text, ':(?:op)?funcid ([0-9]+)', 'g') m \
             LEFT JOIN pg_proc p ON p.oid = m[1]::oid WHERE p.provolatile IS DISTINCT FROM 'i'))"
    };
}

/// A column of a domain counts for one of the type that the domain is made of: so it is compared, hashed and
/// sent; the domain's default is that of a column that has none. 1574 is nextval. Functions that print expressions are not asked: they lock the tables, and would wait
/// for transactions that change them.
const COLUMNS: &str = concat!(
    "SELECT a.attrelid, a.attname, coalesce(base.oid, a.atttypid), coalesce(base.typmod, a.atttypmod), \
            coalesce(k.collisdeterministic, true), a.attnotnull, \
            a.atthasdef AND a.attgenerated = '' OR a.attidentity <> '', \
            a.attidentity <> '' OR coalesce(e.value, '') LIKE '%:funcid 1574 %', \
            a.attgenerated <> '', \
            a.attnum, CASE a.attcollation WHEN 0 THEN true WHEN 100 THEN NULL ELSE k.oid IS NOT NULL AND \
                (to_jsonb(k)->>'collprovider' = 'b' OR (to_jsonb(k)->>'collprovider' = 'c' AND ",
    bytewise!("k.collcollate"),
    ")) END, \
            CASE WHEN d.oid IS NOT NULL THEN a.attgenerated = '' AND NOT ",
    is_constant!(),
    " ELSE a.attidentity <> '' OR t.typdefaultbin IS NOT NULL END, \
            a.attidentity::text, \
            (SELECT q.oid FROM pg_depend s JOIN pg_class q ON q.relkind = 'S' AND q.oid = s.objid \
             WHERE a.attidentity <> '' AND s.classid = 'pg_class'::regclass AND s.deptype = 'i' \
                AND s.refclassid = 'pg_class'::regclass AND s.refobjid = a.attrelid AND s.refobjsubid = a.attnum \
             UNION ALL SELECT q.oid FROM pg_depend s JOIN pg_class q ON q.relkind = 'S' AND q.oid = s.refobjid \
             WHERE a.attidentity = '' AND a.attgenerated = '' AND ",
    is_nextval!(),
    " AND s.classid = CASE WHEN d.oid IS NULL THEN 'pg_type' ELSE 'pg_attrdef' END::regclass \
             AND s.objid = coalesce(d.oid, t.oid) AND s.refclassid = 'pg_class'::regclass LIMIT 1), \
            a.attgenerated = '' AND a.attidentity = '' AND coalesce(NOT ",
    is_constant!(),
    ", t.typdefaultbin IS NOT NULL) AND NOT coalesce(f.changes OR f.of_users, false), \
            a.attgenerated = '' AND coalesce(f.of_users, false), \
            a.attcollation NOT IN (0, 100) \
     FROM pg_attribute a \
     JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
     JOIN pg_type t ON t.oid = a.atttypid \
     LEFT JOIN LATERAL (WITH RECURSIVE inner_type (oid, typmod) AS ( \
            SELECT t.typbasetype, t.typtypmod UNION ALL \
            SELECT b.typbasetype, b.typtypmod FROM inner_type i JOIN pg_type b ON b.oid = i.oid WHERE b.typtype = 'd') \
         SELECT i.oid, i.typmod FROM inner_type i JOIN pg_type b ON b.oid = i.oid WHERE b.typtype <> 'd') base \
         ON t.typtype = 'd' \
     LEFT JOIN pg_collation k ON k.oid = a.attcollation \
     LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
     CROSS JOIN LATERAL (SELECT coalesce(d.adbin, t.typdefaultbin)::text AS value) e \
     CROSS JOIN LATERAL (SELECT bool_or(p.provolatile = 'v') AS changes, \
            bool_or(coalesce(p.provolatile <> 'i' AND l.lanname NOT IN ('c', 'internal') AND p.oid >= 16384, true)) AS of_users \
         FROM regexp_matches(e.value, ':(?:op)?funcid ([0-9]+)', 'g') m \
         LEFT JOIN pg_proc p ON p.oid = m[1]::oid LEFT JOIN pg_language l ON l.oid = p.prolang) f \
     WHERE a.attnum > 0 AND NOT a.attisdropped AND ",
    of_users!(),
    " ORDER BY a.attrelid, a.attnum"
);

/// The columns of indexes on tables of users; an expression has no name.
const INDEXES: &str = concat!(
    "SELECT i.indexrelid, i.indrelid, x.relname, i.indisunique, i.indisprimary, i.indisexclusion, \
            array_to_string(ARRAY(SELECT coalesce(a.attname, '') FROM unnest(i.indkey::int2[]) WITH ORDINALITY k (number, place) \
                LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number \
                WHERE k.place <= i.indnkeyatts ORDER BY k.place), chr(1)) \
     FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid \
     JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE n.nspname <> 'shardwire' AND ",
    of_users!()
);

/// The queries of views. To print them locks what they read, so it must not be asked for long.
const VIEWS: &str = concat!(
    "SELECT c.oid, pg_get_viewdef(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('v', 'm') AND ",
    of_users!()
);

/// What is printed means the same whatever a session has set.
const VIEWS_BEGIN: &str = "SAVEPOINT views; SET LOCAL lock_timeout = '300ms'; SET LOCAL DateStyle = 'ISO'; \
     SET LOCAL IntervalStyle = 'postgres'; SET LOCAL standard_conforming_strings = on; \
     SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = hex; SET LOCAL quote_all_identifiers = off";
const VIEWS_END: &str = "ROLLBACK TO SAVEPOINT views";

const DEPENDENCIES: &str = "
SELECT DISTINCT r.ev_class, d.refobjid
FROM pg_rewrite r
JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
WHERE r.rulename = '_RETURN' AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class";

const PLACEMENTS: &str = "
SELECT schema_name, table_name, placement, array_to_string(shard_key, chr(1)), hash, home_shard FROM shardwire.tables";

const MAY_READ_PLACEMENTS: &str = "
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'shardwire' AND c.relname = 'tables'
                 AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))";

/// The tables of one shard, by `schema.name`, with their columns in words.
const SCHEMA: &str = concat!(
    "SELECT n.nspname || '.' || c.relname, \
            string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod) \
                || coalesce((SELECT ' COLLATE ' || quote_ident(k.collname) FROM pg_collation k \
                    WHERE k.oid = a.attcollation AND k.oid <> t.typcollation), '') \
                || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END, ', ' ORDER BY a.attnum) \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
     LEFT JOIN pg_type t ON t.oid = a.atttypid \
     WHERE c.relkind IN ('r', 'p', 'f') AND n.nspname <> 'shardwire' AND ",
    of_users!(),
    " GROUP BY 1"
);

/// The tables of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::topology) struct SchemaOf {
    /// Its index.
    pub shard: usize,
    /// Columns in words, by `schema.name`.
    pub tables: BTreeMap<String, String>,
}

/// Something that is equal as long as the catalogue is.
pub(super) async fn digest(client: &Client) -> Result<String, ControlError> {
    client.batch_execute(BEGIN).await?;
    let result = digest_in_transaction(client).await;
    finish(client, result).await
}

async fn digest_in_transaction(client: &Client) -> Result<String, ControlError> {
    let mut source = client;
    let path = search_path(&mut source).await?;
    client.batch_execute(PLAIN_PATH).await?;
    let versions = value(&mut source, DIGEST).await?;
    let mut placements = Vec::new();
    if may_read_placements(&mut source).await? {
        for row in source.rows(PLACEMENTS).await? {
            placements.push(format!("{:?}", stored(&row)?));
        }
        placements.sort_unstable();
    }
    Ok(format!("{versions} {path:?} {placements:?}"))
}

/// Reads the catalogue; what is `known` to be built in is not read again.
pub(in crate::topology) async fn load(
    client: &Client,
    database: &Database,
    known: &Arc<BuiltIn>,
) -> Result<RawCatalog, ControlError> {
    client.batch_execute(BEGIN).await?;
    let result = async {
        let default_search_path = search_path(&mut &*client).await?;
        client.batch_execute(PLAIN_PATH).await?;
        let mut raw = read_catalog(&mut &*client, database, known).await?;
        raw.default_search_path = default_search_path;
        client.batch_execute(VIEWS_BEGIN).await?;
        match definitions(&mut &*client, &raw).await {
            Ok(definitions) => raw.definitions = Some(definitions),
            Err(error) => tracing::debug!(%error, "definitions of views can't be read"),
        }
        client.batch_execute(VIEWS_END).await?;
        Ok(raw)
    }
    .await;
    finish(client, result).await
}

/// Reads the catalogue as the transaction at hand sees it, but for the search path of a fresh session. What is
/// `known` to be built in is not read again if the server is of the same version.
///
/// # Errors
/// As the server says, or that `shardwire.tables` makes no sense.
pub async fn read_catalog(
    source: &mut impl RowSource,
    database: &Database,
    known: &Arc<BuiltIn>,
) -> Result<RawCatalog, ControlError> {
    source.rows(JIT_OFF).await?;
    let version = value(source, "SELECT current_setting('server_version_num')").await?;
    let version = version.parse();
    let version = version.map_err(|_| ControlError::answer("the server's version is no number"))?;
    let built_in = functions::built_in(source, version, known).await?;
    let functions = functions::own(source).await?;
    let hidden_calls = functions::hidden_calls(source).await?;
    let mut stored_placements = Vec::new();
    if may_read_placements(source).await? {
        for row in source.rows(PLACEMENTS).await? {
            stored_placements.push(placement(stored(&row)?, database)?);
        }
    }
    let bytewise = value(source, BYTEWISE).await? == "t";
    let indexes = source.rows(INDEXES).await?;
    let foreign_keys = source.rows(behind::FOREIGN_KEYS).await?;
    let (relations, numbers) = relations(source, bytewise).await?;
    source.rows(JIT_AS_BEFORE).await?;
    Ok(RawCatalog {
        definitions: None,
        relations,
        numbers,
        functions,
        hidden_calls,
        built_in,
        default_search_path: Vec::new(),
        server_version: version,
        stored_placements,
        bytewise,
        indexes: indexes.iter().map(index).collect::<Result<_, _>>()?,
        foreign_keys: foreign_keys
            .iter()
            .map(behind::foreign_key)
            .collect::<Result<_, _>>()?,
    })
}

/// The definitions of views.
async fn definitions(
    source: &mut impl RowSource,
    raw: &RawCatalog,
) -> Result<HashMap<u32, String>, ControlError> {
    let mut definitions = HashMap::new();
    let mut kinds = raw.relations.iter().map(|relation| relation.kind);
    if kinds.any(|kind| matches!(kind, 'v' | 'm')) {
        for row in source.rows(VIEWS).await? {
            definitions.insert(number(&row, 0)?, text(&row, 1)?);
        }
    }
    Ok(definitions)
}

/// The tables of the shard that the client is connected to.
pub(in crate::topology) async fn read_schema(
    client: &Client,
) -> Result<BTreeMap<String, String>, ControlError> {
    client.batch_execute(BEGIN).await?;
    let result = async {
        client.batch_execute(PLAIN_PATH).await?;
        let mut tables = BTreeMap::new();
        for row in (&mut &*client).rows(SCHEMA).await? {
            tables.insert(text(&row, 0)?, optional(&row, 1).unwrap_or_default());
        }
        Ok(tables)
    }
    .await;
    finish(client, result).await
}

/// Ends the transaction, whatever came of it.
async fn finish<T>(client: &Client, result: Result<T, ControlError>) -> Result<T, ControlError> {
    let ended = client.batch_execute(END).await;
    let value = result?;
    ended?;
    Ok(value)
}

async fn search_path(source: &mut impl RowSource) -> Result<Vec<String>, ControlError> {
    let sql =
        "SELECT pg_catalog.array_to_string(pg_catalog.current_schemas(false), pg_catalog.chr(1))";
    Ok(list(&value(source, sql).await?))
}

async fn may_read_placements(source: &mut impl RowSource) -> Result<bool, ControlError> {
    Ok(value(source, MAY_READ_PLACEMENTS).await? == "t")
}

/// The first value of the one row that a query returns.
async fn value(source: &mut impl RowSource, sql: &str) -> Result<String, ControlError> {
    let rows = source.rows(sql).await?;
    let row = rows
        .first()
        .ok_or_else(|| ControlError::answer("a row is missing"))?;
    Ok(optional(row, 0).unwrap_or_default())
}

async fn relations(
    source: &mut impl RowSource,
    bytewise: bool,
) -> Result<(Vec<RawRelation>, HashMap<u32, Vec<i16>>), ControlError> {
    let mut relations = Vec::new();
    let mut numbers: HashMap<u32, Vec<i16>> = HashMap::new();
    let mut by_oid = HashMap::new();
    for row in source.rows(RELATIONS).await? {
        let relation = relation(&row)?;
        by_oid.insert(relation.oid, relations.len());
        relations.push(relation);
    }
    for row in source.rows(COLUMNS).await? {
        let of: u32 = number(&row, 0)?;
        if let Some(relation) = by_oid.get(&of).and_then(|&i| relations.get_mut(i)) {
            relation.columns.push(column(&row, bytewise)?);
            numbers.entry(of).or_default().push(number(&row, 9)?);
        }
    }
    for row in source.rows(DEPENDENCIES).await? {
        let of: u32 = number(&row, 0)?;
        if let Some(relation) = by_oid.get(&of).and_then(|&i| relations.get_mut(i)) {
            relation.depends_on.push(number(&row, 1)?);
        }
    }
    for (sql, note) in behind::QUERIES {
        for row in source.rows(sql).await? {
            let of: u32 = number(&row, 0)?;
            if let Some(relation) = by_oid.get(&of).and_then(|&i| relations.get_mut(i)) {
                note(relation, &row)?;
            }
        }
    }
    Ok((relations, numbers))
}

pub(super) fn optional(row: &TextRow, at: usize) -> Option<String> {
    row.get(at).cloned().flatten()
}

pub(super) fn text(row: &TextRow, at: usize) -> Result<String, ControlError> {
    optional(row, at).ok_or_else(|| ControlError::answer("a value is missing"))
}

pub(super) fn number<T: FromStr>(row: &TextRow, at: usize) -> Result<T, ControlError> {
    let text = text(row, at)?;
    text.parse()
        .map_err(|_| ControlError::answer(format!("\"{text}\" is no such number")))
}

pub(super) fn flag(row: &TextRow, at: usize) -> bool {
    row.get(at)
        .is_some_and(|value| value.as_deref() == Some("t"))
}

/// The elements of a list.
pub(super) fn list(text: &str) -> Vec<String> {
    match text {
        "" => Vec::new(),
        text => text.split(BETWEEN).map(str::to_owned).collect(),
    }
}

fn relation(row: &TextRow) -> Result<RawRelation, ControlError> {
    Ok(RawRelation {
        oid: number(row, 0)?,
        schema: text(row, 1)?,
        name: text(row, 2)?,
        kind: letter(row, 3)?,
        temporary: false,
        columns: Vec::new(),
        depends_on: Vec::new(),
        parent: optional(row, 6).and_then(|oid| oid.parse().ok()),
        more_parents: optional(row, 7)
            .map(|oids| list(&oids))
            .unwrap_or_default()
            .iter()
            .filter_map(|oid| oid.parse().ok())
            .collect(),
        hazards: RawHazards {
            has_rules: flag(row, 5),
            row_security: flag(row, 4),
            ..RawHazards::default()
        },
        primary_key: optional(row, 8).map(|key| list(&key)).unwrap_or_default(),
    })
}

/// `bytewise` is that of columns that have the database's collation.
fn column(row: &TextRow, bytewise: bool) -> Result<RawColumn, ControlError> {
    Ok(RawColumn {
        name: text(row, 1)?,
        not_null: flag(row, 5),
        type_oid: number(row, 2)?,
        typmod: number(row, 3)?,
        collation_deterministic: flag(row, 4),
        generated: flag(row, 8),
        bytewise: optional(row, 10).map_or(bytewise, |is| is == "t"),
        own_collation: flag(row, 16),
        identity: optional(row, 12).and_then(|letter| letter.chars().next()),
        default: RawDefault {
            exists: flag(row, 6),
            draws: flag(row, 7),
            varies: flag(row, 11),
            of_statement: flag(row, 14),
            of_users: flag(row, 15),
            sequence: optional(row, 13).and_then(|oid| oid.parse().ok()),
        },
    })
}

fn index(row: &TextRow) -> Result<RawIndex, ControlError> {
    Ok(RawIndex {
        oid: number(row, 0)?,
        table: number(row, 1)?,
        name: text(row, 2)?,
        is_unique: flag(row, 3) || flag(row, 5),
        is_primary: flag(row, 4),
        columns: text(row, 6)?.split(BETWEEN).map(str::to_owned).collect(),
    })
}

/// A column of type `"char"`, cast to text.
pub(super) fn letter(row: &TextRow, at: usize) -> Result<char, ControlError> {
    Ok(text(row, at)?.chars().next().unwrap_or(' '))
}

/// A row of `shardwire.tables`.
#[derive(Debug)]
struct Stored {
    schema: String,
    table: String,
    placement: String,
    key: Option<Vec<String>>,
    hash: Option<String>,
    home: Option<String>,
}

fn stored(row: &TextRow) -> Result<Stored, ControlError> {
    Ok(Stored {
        schema: text(row, 0)?,
        table: text(row, 1)?,
        placement: text(row, 2)?,
        key: optional(row, 3).map(|key| list(&key)),
        hash: optional(row, 4),
        home: optional(row, 5),
    })
}

fn placement(stored: Stored, database: &Database) -> Result<StoredPlacement, ControlError> {
    let Stored { schema, table, .. } = &stored;
    let malformed = |what: &str| {
        ControlError::answer(format!(
            "shardwire.tables says of {schema}.{table} {what}, which this version does not know"
        ))
    };
    let rule = match (stored.placement.as_str(), &stored.key, &stored.home) {
        ("sharded", Some(key), _) => TableRule::Sharded {
            key: key.clone(),
            method: Method::Hash(match stored.hash.as_deref() {
                None | Some("postgres") => HashKind::Postgres,
                Some("xxh3") => HashKind::Xxh3,
                Some(other) => return Err(malformed(&format!("hash {other}"))),
            }),
        },
        ("replicated", ..) => TableRule::Replicated,
        ("home", _, Some(home)) => TableRule::Home {
            shard: database
                .shard_index(home)
                .ok_or_else(|| malformed(&format!("shard {home}")))?,
        },
        (other, ..) => return Err(malformed(other)),
    };
    Ok(StoredPlacement {
        schema: stored.schema,
        table: stored.table,
        rule,
    })
}
