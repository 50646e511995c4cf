//! The sample of `shardwire demo` on its servers, without the proxy.

use std::net::TcpListener;
use std::sync::atomic::AtomicBool;

use shardwire::config::Config;
use shardwire::demo::Cluster;

/// proxy.yaml on other ports. They are below those that the system gives to connections and to
/// listeners that take any, so that nobody takes one before its server starts.
fn configuration() -> Config {
    let first = 20_000 + u16::try_from(std::process::id() % 2_500).unwrap() * 4;
    let mut free = (first..).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let mut text = include_str!("../proxy.yaml").to_owned();
    for port in 15432..=15435 {
        text = text.replace(&format!(":{port}"), &format!(":{}", free.next().unwrap()));
    }
    Config::parse(&text, &|_| None).unwrap()
}

/// What a statement prints on each server of the demo, the primary of each shard first.
fn everywhere(cluster: &Cluster, query: &str) -> Vec<String> {
    cluster
        .servers()
        .map(|server| server.psql("shop", query).unwrap().trim_end().to_owned())
        .collect()
}

fn number(text: &str) -> u64 {
    text.parse().unwrap()
}

#[test]
fn rows_are_where_their_keys_say_and_secondaries_have_them() {
    let config = configuration();
    let cluster = Cluster::start(&config.databases["shop"], &AtomicBool::new(false)).unwrap();

    let roles = everywhere(&cluster, "SELECT pg_is_in_recovery()");
    assert_eq!(roles, ["f", "t", "f", "t"]);
    for table in ["users", "orders", "order_items"] {
        let slots =
            "SELECT min(slot), max(slot) FROM (SELECT hashint8extended(user_id, 0) & 16383 FROM";
        let found = everywhere(&cluster, &format!("{slots} {table}) AS s(slot)"));
        for (server, slots) in found.iter().enumerate() {
            let (least, most) = slots.split_once('|').unwrap();
            let shard = u64::try_from(server / 2).unwrap();
            assert_eq!(number(least) / 8192, shard, "{table}: {found:?}");
            assert_eq!(number(most) / 8192, shard, "{table}: {found:?}");
        }
    }
    for (table, rows) in [("users", 3000), ("orders", 9000)] {
        let counts = everywhere(&cluster, &format!("SELECT count(*) FROM {table}"));
        assert_eq!(counts[0], counts[1]);
        assert_eq!(counts[2], counts[3]);
        assert_eq!(number(&counts[0]) + number(&counts[2]), rows, "{table}");
    }
    let products = everywhere(
        &cluster,
        "SELECT md5(string_agg(p::text, ',')) FROM products p",
    );
    assert!(
        products.iter().all(|sum| *sum == products[0]),
        "{products:?}"
    );
    let settings = everywhere(&cluster, "SELECT to_regclass('settings') IS NOT NULL");
    assert_eq!(settings, ["t", "t", "f", "f"]);
    let wrong = everywhere(
        &cluster,
        "SELECT count(*) FROM orders WHERE total <> (SELECT sum(quantity * price) FROM order_items i
          WHERE (i.user_id, i.order_id) = (orders.user_id, orders.order_id))",
    );
    assert_eq!(wrong, ["0"; 4]);
}

#[test]
fn an_interrupted_start_is_an_error() {
    let config = configuration();
    let error = Cluster::start(&config.databases["shop"], &AtomicBool::new(true)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Interrupted);
}
