//! The questions about a server's catalogue, and their answers as the catalog layer wants them.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::{Client, Row};

use crate::catalog::RawCatalog;
use crate::catalog::RawColumn;
use crate::catalog::RawFunction;
use crate::catalog::RawRelation;
use crate::catalog::StoredPlacement;
use crate::config::Database;
use crate::config::HashKind;
use crate::config::Method;
use crate::config::TableRule;

use crate::topology::control::ControlError;

/// All questions of one reading see the same state. The role's own search_path is asked first.
const BEGIN: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '60s'";
const PLAIN_PATH: &str = "SET LOCAL search_path = pg_catalog";
const END: &str = "COMMIT";

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
        WHERE k.indisprimary
    UNION ALL SELECT hashint8extended(xmin::text::int8, oid::int8) FROM pg_type WHERE oid >= 16384 AND typtype = 'd'
    UNION ALL SELECT hashint8extended(i.xmin::text::int8, i.inhrelid::int8) FROM pg_inherits i JOIN mine ON mine.oid = i.inhrelid
    UNION ALL SELECT hashint8extended(xmin::text::int8, oid::int8) FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT hashint8extended(xmin::text::int8, oid::int8) FROM pg_namespace
    UNION ALL SELECT hashint8extended(xmin::text::int8, setdatabase::int8 * 4294967296 + setrole::int8) FROM pg_db_role_setting
) SELECT concat_ws(' ', count(*), sum(h), current_setting('server_version_num')) FROM parts"
);

const RELATIONS: &str = concat!(
    "SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relrowsecurity, \
            EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN'), \
            EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal), \
            (SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = c.oid ORDER BY i.inhseqno LIMIT 1), \
            (SELECT array_agg(a.attname::text ORDER BY k.n) FROM pg_index i, \
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
        "(d.adbin::text ~ '^\\{FUNCEXPR :funcid (480|714|1574) ' \
         AND d.adbin::text ~ ':funcid 1574 ' AND d.adbin::text !~ '\\{(?!FUNCEXPR|CONST)[A-Z]' \
         AND d.adbin::text !~ ':funcid (?!480 |714 |1574 )')"
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

/// 1574 is nextval. Functions that print expressions are not asked: they lock the tables, and would wait
/// for transactions that change them.
const COLUMNS: &str = concat!(
    "SELECT a.attrelid, a.attname, a.atttypid, a.atttypmod, coalesce(k.collisdeterministic, true), a.attnotnull, \
            a.atthasdef AND a.attgenerated = '' OR a.attidentity <> '', \
            a.attidentity <> '' OR coalesce(d.adbin::text, '') LIKE '%:funcid 1574 %', \
            a.attgenerated <> '', \
            CASE a.attcollation WHEN 0 THEN true WHEN 100 THEN NULL ELSE k.oid IS NOT NULL AND \
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
             WHERE a.attidentity = '' AND a.attgenerated = '' AND d.oid IS NOT NULL AND ",
    is_nextval!(),
    " AND s.classid = 'pg_attrdef'::regclass AND s.objid = d.oid AND s.refclassid = 'pg_class'::regclass LIMIT 1) \
     FROM pg_attribute a \
     JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
     JOIN pg_type t ON t.oid = a.atttypid \
     LEFT JOIN pg_collation k ON k.oid = a.attcollation \
     LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
     WHERE a.attnum > 0 AND NOT a.attisdropped AND ",
    of_users!(),
    " ORDER BY a.attrelid, a.attnum"
);

const DEPENDENCIES: &str = "
SELECT DISTINCT r.ev_class, d.refobjid
FROM pg_rewrite r
JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
WHERE r.rulename = '_RETURN' AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class";

const FUNCTIONS: &str = "
SELECT n.nspname, p.proname, p.provolatile::text, p.prokind::text, l.lanname, p.proretset
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang";

const PLACEMENTS: &str = "
SELECT schema_name, table_name, placement, shard_key, hash, home_shard FROM shardwire.tables";

const MAY_READ_PLACEMENTS: &str = "
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'shardwire' AND c.relname = 'tables'
                 AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))";

/// The tables of one shard, by `schema.name`, with their columns in words.
const SCHEMA: &str = concat!(
    "SELECT n.nspname || '.' || c.relname, \
            string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod) \
                || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END, ', ' ORDER BY a.attnum) \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
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
    let path = search_path(client).await?;
    client.batch_execute(PLAIN_PATH).await?;
    let row = client.query_one(DIGEST, &[]).await?;
    let versions: String = row.try_get(0)?;
    let mut placements = Vec::new();
    if may_read_placements(client).await? {
        for row in client.query(PLACEMENTS, &[]).await? {
            placements.push(format!("{:?}", stored(&row)?));
        }
        placements.sort_unstable();
    }
    Ok(format!("{versions} {path:?} {placements:?}"))
}

/// Reads the catalogue.
pub(in crate::topology) async fn load(
    client: &Client,
    database: &Database,
) -> Result<RawCatalog, ControlError> {
    client.batch_execute(BEGIN).await?;
    let result = load_in_transaction(client, database).await;
    finish(client, result).await
}

async fn load_in_transaction(
    client: &Client,
    database: &Database,
) -> Result<RawCatalog, ControlError> {
    let default_search_path = search_path(client).await?;
    client.batch_execute(PLAIN_PATH).await?;
    let version = client
        .query_one("SELECT current_setting('server_version_num')::int", &[])
        .await?;
    let version: i32 = version.try_get(0)?;
    let functions = client.query(FUNCTIONS, &[]).await?;
    let functions = functions.iter().map(function).collect::<Result<_, _>>()?;
    let mut stored_placements = Vec::new();
    if may_read_placements(client).await? {
        for row in client.query(PLACEMENTS, &[]).await? {
            stored_placements.push(placement(stored(&row)?, database)?);
        }
    }
    let bytewise: bool = client.query_one(BYTEWISE, &[]).await?.try_get(0)?;
    Ok(RawCatalog {
        relations: relations(client, bytewise).await?,
        functions,
        default_search_path,
        server_version: u32::try_from(version).unwrap_or(0),
        stored_placements,
        bytewise,
    })
}

/// The tables of the shard that the client is connected to.
pub(in crate::topology) async fn read_schema(
    client: &Client,
) -> Result<BTreeMap<String, String>, ControlError> {
    client.batch_execute(BEGIN).await?;
    let result = async {
        client.batch_execute(PLAIN_PATH).await?;
        let mut tables = BTreeMap::new();
        for row in client.query(SCHEMA, &[]).await? {
            let columns: Option<String> = row.try_get(1)?;
            tables.insert(row.try_get(0)?, columns.unwrap_or_default());
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

async fn search_path(client: &Client) -> Result<Vec<String>, ControlError> {
    let row = client
        .query_one(
            "SELECT pg_catalog.current_schemas(false)::pg_catalog.text[]",
            &[],
        )
        .await?;
    Ok(row.try_get(0)?)
}

async fn may_read_placements(client: &Client) -> Result<bool, ControlError> {
    Ok(client
        .query_one(MAY_READ_PLACEMENTS, &[])
        .await?
        .try_get(0)?)
}

async fn relations(client: &Client, bytewise: bool) -> Result<Vec<RawRelation>, ControlError> {
    let mut relations = Vec::new();
    let mut by_oid = HashMap::new();
    for row in client.query(RELATIONS, &[]).await? {
        let relation = relation(&row)?;
        by_oid.insert(relation.oid, relations.len());
        relations.push(relation);
    }
    for row in client.query(COLUMNS, &[]).await? {
        let of: u32 = row.try_get(0)?;
        if let Some(relation) = by_oid.get(&of).and_then(|&i| relations.get_mut(i)) {
            relation.columns.push(column(&row, bytewise)?);
        }
    }
    for row in client.query(DEPENDENCIES, &[]).await? {
        let of: u32 = row.try_get(0)?;
        if let Some(relation) = by_oid.get(&of).and_then(|&i| relations.get_mut(i)) {
            relation.depends_on.push(row.try_get(1)?);
        }
    }
    Ok(relations)
}

fn relation(row: &Row) -> Result<RawRelation, ControlError> {
    Ok(RawRelation {
        oid: row.try_get(0)?,
        schema: row.try_get(1)?,
        name: row.try_get(2)?,
        kind: letter(row, 3)?,
        temporary: false,
        columns: Vec::new(),
        depends_on: Vec::new(),
        parent: row.try_get(7)?,
        has_rules: row.try_get(5)?,
        has_triggers: row.try_get(6)?,
        row_security: row.try_get(4)?,
        primary_key: row
            .try_get::<_, Option<Vec<String>>>(8)?
            .unwrap_or_default(),
    })
}

/// `bytewise` is that of columns that have the database's collation.
fn column(row: &Row, bytewise: bool) -> Result<RawColumn, ControlError> {
    Ok(RawColumn {
        name: row.try_get(1)?,
        type_oid: row.try_get(2)?,
        typmod: row.try_get(3)?,
        collation_deterministic: row.try_get(4)?,
        not_null: row.try_get(5)?,
        has_default: row.try_get(6)?,
        sequence_default: row.try_get(7)?,
        generated: row.try_get(8)?,
        bytewise: row.try_get::<_, Option<bool>>(9)?.unwrap_or(bytewise),
        varying_default: row.try_get(10)?,
        identity: Some(letter(row, 11)?).filter(|letter| *letter != ' '),
        sequence: row.try_get(12)?,
    })
}

fn function(row: &Row) -> Result<RawFunction, ControlError> {
    Ok(RawFunction {
        schema: row.try_get(0)?,
        name: row.try_get(1)?,
        volatility: letter(row, 2)?,
        kind: letter(row, 3)?,
        language: row.try_get(4)?,
        returns_set: row.try_get(5)?,
    })
}

/// A column of type `"char"`, cast to text.
fn letter(row: &Row, index: usize) -> Result<char, ControlError> {
    let text: &str = row.try_get(index)?;
    Ok(text.chars().next().unwrap_or(' '))
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

fn stored(row: &Row) -> Result<Stored, ControlError> {
    Ok(Stored {
        schema: row.try_get(0)?,
        table: row.try_get(1)?,
        placement: row.try_get(2)?,
        key: row.try_get(3)?,
        hash: row.try_get(4)?,
        home: row.try_get(5)?,
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
