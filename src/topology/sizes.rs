//! Bytes on disk of what is spread over shards, asked of their primaries.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::catalog::{Catalog, Location};
use crate::error::{Error, Result};
use crate::plan::sizes::{Bytes, Sizes};
use crate::sqlstate::SqlState;

use super::control::{ControlError, Dialer};
use super::replica_set::ReplicaSet;

/// For the sizes of one shard.
const LIMIT: Duration = Duration::from_secs(10);

/// The parts of tables: themselves, their indexes, what is stored beside them and its index. OIDs and
/// names of the last differ between shards.
const RELATIONS: &str = "
WITH mine AS (
    SELECT pg_catalog.concat(n.nspname, '.', c.relname) AS name, c.oid, c.reltoastrelid
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE pg_catalog.concat(n.nspname, '.', c.relname) = ANY ($1)
), parts AS (
    SELECT name, ''::pg_catalog.text AS part, oid FROM mine
    UNION ALL SELECT name, 'beside', reltoastrelid FROM mine WHERE reltoastrelid <> 0
    UNION ALL SELECT name, 'index beside', i.indexrelid
        FROM mine JOIN pg_catalog.pg_index i ON i.indrelid = reltoastrelid
    UNION ALL SELECT name, pg_catalog.concat('index ', x.relname), i.indexrelid
        FROM mine JOIN pg_catalog.pg_index i ON i.indrelid = mine.oid
        JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
)
SELECT name, part, oid,
       pg_catalog.pg_relation_size(oid, 'main'), pg_catalog.pg_relation_size(oid, 'fsm'),
       pg_catalog.pg_relation_size(oid, 'vm'), pg_catalog.pg_relation_size(oid, 'init'),
       pg_catalog.pg_table_size(oid), pg_catalog.pg_indexes_size(oid),
       pg_catalog.pg_total_relation_size(oid)
FROM parts";

const DATABASE: &str = "
SELECT datname::pg_catalog.text, oid, pg_catalog.pg_database_size(oid)
FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()";

/// What one shard has.
struct OfShard {
    /// OID and size by table and part.
    relations: HashMap<(String, String), (u32, Bytes)>,
    database: (String, u32, i64),
}

/// The sizes of what has rows on shards other than the first.
///
/// # Errors
/// `58000` when a shard's primary can't be asked.
pub(super) async fn gather(
    catalog: &Catalog,
    sets: &[Arc<ReplicaSet>],
    dialer: &Dialer,
) -> Result<Sizes> {
    let shards = (0..sets.len()).map(|shard| {
        let tables = tables(catalog, shard);
        async move {
            let set = sets
                .get(shard)
                .ok_or_else(|| ControlError::answer("no such shard"));
            match timeout(LIMIT, of_shard(set?, dialer, &tables)).await {
                Ok(answer) => answer,
                Err(_) => Err(ControlError::timed_out("measuring tables", LIMIT)),
            }
        }
    });
    let answers = futures_util::future::join_all(shards).await;
    let mut all = Vec::with_capacity(sets.len());
    for (set, answer) in sets.iter().zip(answers) {
        all.push(answer.map_err(|error| {
            Error::new(
                SqlState::SYSTEM_ERROR,
                format!("the sizes of tables on shard {} can't be read", set.name),
            )
            .detail(format!("Reason: {error}."))
        })?);
    }
    Ok(sum(&all))
}

/// The tables with rows on a shard, by `schema.name`; of the first shard all that are spread.
fn tables(catalog: &Catalog, shard: usize) -> Vec<String> {
    let is_here = |location: &Location| match location {
        Location::Sharded(placement) => shard == 0 || placement.shards().contains(shard),
        Location::Home(home) => *home != 0 && (shard == 0 || shard == *home),
        Location::Replicated | Location::Unserved(_) => false,
    };
    let relations = catalog.relations().iter();
    relations
        .filter(|relation| is_here(&relation.location))
        .map(|relation| format!("{}.{}", relation.schema, relation.name))
        .collect()
}

async fn of_shard(
    set: &ReplicaSet,
    dialer: &Dialer,
    tables: &Vec<String>,
) -> Result<OfShard, ControlError> {
    let server = set
        .primary()
        .ok_or_else(|| ControlError::answer("the shard has no primary"))?;
    let control = dialer.connect(&server.address).await?;
    let mut relations = HashMap::new();
    for row in control.client().query(RELATIONS, &[tables]).await? {
        // A relation that is being dropped has no size.
        let size = |column: usize| -> Result<i64, ControlError> {
            Ok(row.try_get::<_, Option<i64>>(column)?.unwrap_or(0))
        };
        let bytes = Bytes {
            forks: [size(3)?, size(4)?, size(5)?, size(6)?],
            table: size(7)?,
            indexes: size(8)?,
            total: size(9)?,
        };
        relations.insert((row.try_get(0)?, row.try_get(1)?), (row.try_get(2)?, bytes));
    }
    let row = control.client().query_one(DATABASE, &[]).await?;
    let database = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    Ok(OfShard {
        relations,
        database,
    })
}

/// What all but the first have, by the first's OIDs.
fn sum(shards: &[OfShard]) -> Sizes {
    let Some((first, others)) = shards.split_first() else {
        return Sizes::default();
    };
    let mut relations: BTreeMap<u32, Bytes> = BTreeMap::new();
    let mut database_bytes = 0;
    for other in others {
        for (part, (_, bytes)) in &other.relations {
            if let Some((oid, _)) = first.relations.get(part) {
                relations.entry(*oid).or_default().add(bytes);
            }
        }
        database_bytes += other.database.2;
    }
    let (name, oid, _) = &first.database;
    Sizes {
        relations,
        database: (name.clone(), *oid),
        database_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(parts: &[(&str, u32, i64)], bytes: i64) -> OfShard {
        let part = |(name, oid, table): &(&str, u32, i64)| {
            let bytes = Bytes {
                table: *table,
                ..Bytes::default()
            };
            (("public.t".to_owned(), (*name).to_owned()), (*oid, bytes))
        };
        OfShard {
            relations: parts.iter().map(part).collect(),
            database: ("app".to_owned(), 5, bytes),
        }
    }

    #[test]
    fn what_others_have_is_summed_by_the_first_shards_oids() {
        let all = [
            shard(&[("", 10, 1), ("index a", 11, 2)], 100),
            shard(&[("", 20, 4), ("index b", 21, 8)], 200),
            shard(&[("", 30, 16), ("index a", 11, 32)], 400),
        ];
        let sizes = sum(&all);
        let tables: Vec<_> = sizes
            .relations
            .iter()
            .map(|(oid, b)| (*oid, b.table))
            .collect();
        assert_eq!(tables, [(10, 20), (11, 32)]);
        assert_eq!(sizes.database, ("app".to_owned(), 5));
        assert_eq!(sizes.database_bytes, 600);
        assert_eq!(sum(&[]), Sizes::default());
    }
}
