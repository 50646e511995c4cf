//! Clients and their server connections that move between cores while they work.

use std::sync::Arc;
use std::time::Duration;

use shardwire::config::Config;
use shardwire::net::cores::Cores;
use shardwire::proxy::{Signals, serve_on};
use tokio_postgres::Client;

use crate::harness::{Cluster, Endpoint, eventually};

const SCHEMA: &str = "
    CREATE TABLE users (user_id bigint PRIMARY KEY, name text, hits int NOT NULL DEFAULT 0);
";
const ROWS: &str = "INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 64) i;";

const CLIENTS: i64 = 12;
const ROUNDS: i64 = 60;

/// Works on its own rows, on both shards: `client`, `client + CLIENTS` and so on.
async fn work(endpoint: Endpoint, client: i64) {
    let mut connection = endpoint.connect().await;
    let name = format!("client {client}");
    connection
        .batch_execute(&format!("SET application_name = '{name}'"))
        .await
        .unwrap();
    let read =
        "SELECT name, hits, current_setting('application_name') FROM users WHERE user_id = $1";
    let read = connection.prepare(read).await.unwrap();
    for round in 0..ROUNDS {
        let user = 1 + client + CLIENTS * (round % 5);
        let row = connection.query_one(&read, &[&user]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), format!("user {user}"));
        assert_eq!(i64::from(row.get::<_, i32>(1)), round / 5);
        assert_eq!(row.get::<_, &str>(2), name);
        hit(&mut connection, user, round).await;
        let all = connection
            .query_one("SELECT count(*) FROM users", &[])
            .await;
        assert_eq!(all.unwrap().get::<_, i64>(0), 64);
    }
}

/// Counts a hit: in a transaction that is kept, after one that is not.
async fn hit(connection: &mut Client, user: i64, round: i64) {
    let update = "UPDATE users SET hits = hits + 1 WHERE user_id = $1";
    let transaction = connection.transaction().await.unwrap();
    assert_eq!(transaction.execute(update, &[&user]).await.unwrap(), 1);
    transaction.rollback().await.unwrap();
    if round % 2 == 0 {
        assert_eq!(connection.execute(update, &[&user]).await.unwrap(), 1);
        return;
    }
    let transaction = connection.transaction().await.unwrap();
    assert_eq!(transaction.execute(update, &[&user]).await.unwrap(), 1);
    transaction.commit().await.unwrap();
}

#[test]
fn clients_that_move_between_cores_lose_nothing() {
    let cluster = Cluster::new()
        .shards(2)
        .sharded("users", &["user_id"])
        .schema(SCHEMA)
        .rows(ROWS)
        .trust()
        .database("pool", "{ max_size: 4, queue_timeout: 60s }")
        .without_proxy()
        .start();
    let config = Config::parse(&cluster.yaml(), &|_| None).unwrap();
    let cores = Arc::new(Cores::with(2).unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = serve_on(Arc::clone(&cores), (config, None), Signals::none());
    let proxy = runtime.spawn(proxy);
    let port = cluster.proxy().port;
    eventually("the proxy listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port))
    });
    let unsettled = Arc::clone(&cores);
    let shifts = runtime.spawn(async move {
        for turn in 0.. {
            unsettled.shift(turn % 2, (turn + 1) % 2, 5);
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    });
    runtime.block_on(async {
        let work = |client| tokio::spawn(work(cluster.proxy(), client));
        for client in (0..CLIENTS).map(work).collect::<Vec<_>>() {
            client.await.unwrap();
        }
    });
    shifts.abort();
    proxy.abort();
    assert!(cores.moved() > 20, "only {} moved", cores.moved());
}
