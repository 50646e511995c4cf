//! What the demo tells the person at the terminal.

use std::fmt::Write;

use super::Cluster;
use crate::config::Config;
use crate::config::ListenAddress;

/// Statements worth trying and what each shows.
const QUERIES: [(&str, &str); 5] = [
    (
        "one user, by the shard key: one shard",
        "SELECT * FROM users WHERE user_id = 1906;",
    ),
    (
        "three co-located tables and a replicated one: one shard",
        "SELECT o.order_id, o.status, i.quantity, p.name\n\
         \x20 FROM orders o\n\
         \x20 JOIN order_items i ON i.user_id = o.user_id AND i.order_id = o.order_id\n\
         \x20 JOIN products p ON p.product_id = i.product_id\n\
         \x20WHERE o.user_id = 1906;",
    ),
    (
        "a new order: the primary of that user's shard",
        "INSERT INTO orders (user_id, order_id, total) VALUES (1906, 100001, 19.99) RETURNING *;",
    ),
    (
        "a replicated table: whichever server is nearest",
        "SELECT * FROM products ORDER BY price DESC LIMIT 5;",
    ),
    (
        "no shard key: both shards, the rows one after the other",
        "SELECT user_id, order_id, total FROM orders WHERE total > 2000;",
    ),
];

/// How to connect, what to try, which servers run.
pub fn text(config: &Config, cluster: &Cluster) -> String {
    let mut text = String::from("\nThe servers, each a PostgreSQL of its own:\n");
    for server in cluster.servers() {
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "  {:<13} 127.0.0.1:{}  pid {:<8} {}",
            server.name(),
            server.port(),
            server.pid().unwrap_or_default(),
            server.data_directory().display(),
        );
    }
    text.push_str("\nWorth trying (also \\d, \\d orders, and EXPLAIN before any of them):\n");
    for (shows, query) in QUERIES {
        let _ = write!(text, "\n  -- {shows}\n  {}\n", query.replace('\n', "\n  "));
    }
    let _ = write!(text, "\nConnect:  {}\n", psql_line(config));
    if let Some(metrics) = config.metrics {
        let _ = writeln!(text, "Metrics:  http://{metrics}/metrics");
    }
    text.push_str("End:      Ctrl-C ends the servers and removes their directories\n\n");
    text
}

fn psql_line(config: &Config) -> String {
    let (host, port) = match config.listen.first() {
        Some(ListenAddress::Tcp(address)) => (address.ip().to_string(), address.port()),
        _ => ("127.0.0.1".to_owned(), 6432),
    };
    let database = config.databases.values().next();
    let (user, name) = database.map_or(("shop", "shop"), |database| {
        (&database.backend.user, &database.name)
    });
    format!("psql -h {host} -p {port} -U {user} {name}")
}
