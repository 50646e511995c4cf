//! The 22 queries of TPC-H over four shards, on data like TPC-H's at scale 0.01.

use crate::harness::Cluster;
use crate::harness::compare::Pair;

/// Orders in thousands; 15 is scale 0.01.
const SCALE: &str = "15";

#[test]
fn all_queries_give_what_one_server_gives() {
    let cluster = Cluster::new()
        .shards(4)
        .schema(include_str!("schema.sql"))
        .rows(&include_str!("rows.sql").replace("SCALE", SCALE))
        .sharded("orders", &["o_orderkey"])
        .sharded("lineitem", &["l_orderkey"])
        .sharded("customer", &["c_custkey"])
        .sharded("part", &["p_partkey"])
        .sharded("partsupp", &["ps_partkey"])
        .sharded("supplier", &["s_suppkey"])
        .replicated("nation")
        .replicated("region")
        .start();
    let mut pair = Pair::new(&cluster);
    for sql in include_str!("queries.sql").lines() {
        pair.once(sql);
        assert!(
            !pair.oracle.rows(sql).is_empty(),
            "{sql}\ngives nothing to compare"
        );
    }
}
