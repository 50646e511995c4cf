//! The 22 queries of TPC-H over four shards, on data like TPC-H's at scale 0.01, in little memory.
//!
//! `TPCH_SCALE` in the environment is another number of orders in thousands: 150 is scale 0.1.

use std::time::{Duration, Instant};
use std::{env, fs};

use crate::harness::Cluster;
use crate::harness::compare::Pair;

/// Orders in thousands; 15 is scale 0.01.
const SCALE: &str = "15";

/// For queries on more rows.
const PATIENCE: Duration = Duration::from_secs(1200);

/// The most memory that the proxy may ever have had.
const MOST_MEMORY_KIB: u64 = 256 * 1024;

#[test]
fn all_queries_give_what_one_server_gives() {
    let scale = env::var("TPCH_SCALE").unwrap_or_else(|_| SCALE.to_owned());
    let mut cluster = Cluster::new()
        .shards(4)
        .schema(include_str!("schema.sql"))
        .rows(&include_str!("rows.sql").replace("SCALE", &scale))
        .sharded("orders", &["o_orderkey"])
        .sharded("lineitem", &["l_orderkey"])
        .sharded("customer", &["c_custkey"])
        .sharded("part", &["p_partkey"])
        .sharded("partsupp", &["ps_partkey"])
        .sharded("supplier", &["s_suppkey"])
        .replicated("nation")
        .replicated("region")
        .start();
    let process = cluster.process().pid();
    let mut pair = Pair::new(&cluster);
    if env::var("TPCH_SCALE").is_ok() {
        pair.proxy.set_patience(PATIENCE);
        pair.oracle.set_patience(PATIENCE);
    }
    for (number, sql) in include_str!("queries.sql").lines().enumerate() {
        let began = Instant::now();
        pair.once(sql);
        println!("query {} on both: {:?}", number + 1, began.elapsed());
        assert!(
            !pair.oracle.rows(sql).is_empty(),
            "{sql}\ngives nothing to compare"
        );
    }
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak: u64 = peak
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    println!("at most {} MiB", peak / 1024);
    assert!(peak < MOST_MEMORY_KIB, "the proxy had {peak} KiB");
}
