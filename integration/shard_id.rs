//! The pseudo-column `shard_id`, beside one PostgreSQL that computes the shard from the key.

use crate::harness::compare::{MODES, Mode, frames, outcome};
use crate::harness::{Cluster, Raw};

const SCHEMA: &str = "CREATE TABLE orders (user_id int, id int, total int, name text);
CREATE TABLE users (user_id int PRIMARY KEY, name text)";

const ROWS: &str =
    "INSERT INTO orders SELECT i % 23, i, i * 7 % 11, 'n' || i % 3 FROM generate_series(1, 90) i;
INSERT INTO users SELECT i, 'u' || i FROM generate_series(0, 22) i";

/// What the shard of a row is, from its key.
const COMPUTED: &str =
    "(CASE WHEN hashint4extended(user_id, 0) & 16383 < 8192 THEN 's0' ELSE 's1' END COLLATE \"C\")";

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .schema(SCHEMA)
        .rows(ROWS)
        .sharded("orders", &["user_id"])
        .sharded("users", &["user_id"])
        .start()
}

/// Each with an order of all rows, or one row.
const QUERIES: [&str; 11] = [
    "SELECT shard_id AS shard_id, COUNT(*) AS row_count FROM orders GROUP BY 1 ORDER BY 1",
    "SELECT shard_id AS s, count(DISTINCT name), string_agg(name, ',' ORDER BY id) FROM orders GROUP BY shard_id ORDER BY shard_id DESC",
    "SELECT DISTINCT shard_id AS s FROM orders ORDER BY 1",
    "SELECT id, shard_id AS s FROM orders WHERE user_id = 7 ORDER BY id",
    "SELECT id FROM orders WHERE shard_id = 's0' ORDER BY id LIMIT 5",
    "SELECT id, total FROM orders ORDER BY shard_id DESC, id LIMIT 40 OFFSET 3",
    "SELECT count(*) FROM orders WHERE shard_id > 's0' AND user_id IN (1, 2, 3, 4, 5)",
    "SELECT 'ü' AS a, id, shard_id || '-' || name AS b FROM orders ORDER BY id",
    "EXECUTE by_user(5)",
    "SELECT name FROM orders WHERE shard_id = 's1' ORDER BY id; SELECT count(*) FROM orders WHERE shard_id <> 's0'",
    "DELETE FROM orders WHERE shard_id = 's1' AND user_id = 4",
];

#[test]
fn every_row_knows_its_shard() {
    let cluster = cluster();
    for mode in MODES {
        let (mut proxy, mut oracle) = (cluster.proxy().raw(), cluster.oracle().raw());
        let prepare = "PREPARE by_user AS SELECT id, shard_id AS s FROM orders WHERE user_id = $1 ORDER BY id";
        proxy.query(prepare);
        oracle.query(&prepare.replace("shard_id", COMPUTED));
        for query in QUERIES {
            let alias = query.replace("AS shard_id", "AS ALIAS");
            let computed = alias
                .replace("shard_id", COMPUTED)
                .replace("ALIAS", "shard_id");
            let got = outcome(&frames(&mut proxy, mode, &alias.replace("ALIAS", "s"), &[]));
            let wanted = computed.replace("AS shard_id", "AS s");
            let wanted = outcome(&frames(&mut oracle, mode, &wanted, &[]));
            assert_eq!(got, wanted, "{mode:?}: {query}");
        }
    }
}

fn names(proxy: &mut Raw, query: &str) -> Vec<String> {
    let frames = proxy.query(query);
    let description = frames.iter().find(|frame| frame.tag == b'T').unwrap();
    let text = String::from_utf8_lossy(&description.body).into_owned();
    let known = ["shard_id", "row_count", "total", "user_id", "name"];
    let mut names: Vec<(usize, &str)> = known
        .iter()
        .filter_map(|name| Some((text.find(name)?, *name)))
        .collect();
    names.sort_unstable();
    names.iter().map(|(_, name)| (*name).to_owned()).collect()
}

#[test]
fn the_column_has_its_name_and_is_no_part_of_all_columns() {
    let cluster = cluster();
    let mut proxy = cluster.proxy().raw();
    let by_shard = "SELECT shard_id, COUNT(*) AS row_count FROM orders GROUP BY shard_id";
    assert_eq!(names(&mut proxy, by_shard), ["shard_id", "row_count"]);
    let mut rows = proxy.rows(by_shard);
    rows.sort();
    let counts: Vec<String> = (0..2)
        .map(|shard| {
            cluster
                .shard(shard)
                .raw()
                .rows("SELECT count(*) FROM orders")[0][0]
                .clone()
        })
        .collect();
    assert_eq!(rows, [["s0", &counts[0]], ["s1", &counts[1]]]);
    let all = "SELECT * FROM orders WHERE user_id = 1";
    assert_eq!(names(&mut proxy, all), ["user_id", "total", "name"]);
    let cursor = "BEGIN; DECLARE c CURSOR FOR SELECT shard_id FROM orders WHERE user_id = 3";
    proxy.query(cursor);
    assert_eq!(proxy.rows("FETCH 1 FROM c").len(), 1);
}

#[test]
fn errors_stand_where_the_client_wrote_them() {
    let cluster = cluster();
    let mut proxy = cluster.proxy().raw();
    for query in [
        "SELECT shard_id, wrong FROM orders WHERE user_id = 1",
        "SELECT shard_id, wrong FROM orders",
        "SELECT shard_id, count(*) AS shard_id FROM orders GROUP BY 1",
        "SELECT shard_id FROM pg_class",
    ] {
        for mode in MODES {
            let frames = frames(&mut proxy, mode, query, &[]);
            let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
            let place = error
                .field(b'P')
                .map(|place| place.parse::<usize>().unwrap());
            match error.field(b'C').unwrap().as_str() {
                "0A000" => assert!(query.contains("AS shard_id"), "{query}"),
                // What several shards refuse at once has its place in the text that they were sent.
                _ if query.ends_with("orders") && mode != Mode::Simple => {}
                _ if query.contains("wrong") => {
                    assert_eq!(
                        place,
                        Some(query.find("wrong").unwrap() + 1),
                        "{mode:?}: {query}"
                    );
                }
                code => assert_eq!(code, "42703", "{query}"),
            }
        }
    }
}
