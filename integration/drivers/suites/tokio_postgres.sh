#!/usr/bin/env bash
# tokio-postgres' own tests, directly and through the proxy.
set -eu
. "$(dirname "$0")/common.sh"
version=0.7.18

sources=$work/tokio-postgres
if [ ! -d "$sources" ]; then
  # The crate is a dependency of Shardwire's own.
  (cd "$root" && cargo fetch --quiet)
  cp -r "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/tokio-postgres-$version "$sources"
  cd "$sources"
  rm -f Cargo.lock
  echo '[workspace]' >>Cargo.toml
  # The tests are written for port 5433.
  sed -i 's/TcpStream::connect("127.0.0.1:5433")/TcpStream::connect(format!("127.0.0.1:{}", port()))/' tests/test/main.rs
  sed -i 's/tokio_postgres::connect(/crate::connect_to(/' tests/test/runtime.rs
  cat >>tests/test/main.rs <<'RUST'

fn port() -> String {
    std::env::var("PGPORT").unwrap()
}

async fn connect_to(
    s: &str,
    tls: NoTls,
) -> Result<(Client, Connection<tokio_postgres::Socket, NoTlsStream>), Error> {
    tokio_postgres::connect(&s.replace("5433", &port()), tls).await
}
RUST
fi
cd "$sources"
features=array-impls,with-bit-vec-0_8,with-chrono-0_4,with-eui48-1,with-geo-types-0_7,with-jiff-0_2
features=$features,with-serde_json-1,with-smol_str-01,with-time-0_3,with-uuid-1
build="cargo test --target-dir $work/cargo --test test --features $features --"
servers tokio_postgres "${SUITE_PORT:-21124}" postgres
everywhere "CREATE ROLE postgres SUPERUSER LOGIN; CREATE ROLE ssl_user LOGIN PASSWORD 'password'" postgres
everywhere "CREATE ROLE pass_user LOGIN PASSWORD 'password'; CREATE ROLE scram_user LOGIN PASSWORD 'password'" postgres
everywhere "SET password_encryption = md5; CREATE ROLE md5_user LOGIN PASSWORD 'password'" postgres
everywhere "CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree" postgres
# The suite's user comes in without a password, the others with theirs.
sed -i '1i host all postgres 127.0.0.1/32 trust\nhost all pass_user 127.0.0.1/32 password\nhost all md5_user 127.0.0.1/32 md5' \
  "$servers"/data*/pg_hba.conf
everywhere "SELECT pg_reload_conf()" postgres >reloaded
python3 - "$servers/proxy.yaml" <<'PYTHON'
import re, sys
text = open(sys.argv[1]).read()
users = "{ suite: { password: suite-secret }, postgres: {}"
for name in ("pass_user", "md5_user", "scram_user", "ssl_user"):
    users += f", {name}: {{ password: password }}"
rules = "  rules:\n    - { user: postgres, method: trust }\n    - { user: pass_user, method: password }\n"
rules += "    - { method: scram-sha-256 }\n"
text = re.sub(r"  users: .*\n", f"  users: {users} }}\n{rules}", text, count=1)
open(sys.argv[1], "w").write(text)
PYTHON
"$here/start.py" restart "$servers"
for way in direct proxy; do
  PGPORT=$(port_of $way) $build --test-threads 4 >$way.log 2>&1 || true
  sed -nE 's/^test (\S+).* \.\.\. (ok|FAILED|ignored).*/\2 \1/p' $way.log |
    sed -E 's/^ok/passed/; s/^FAILED/failed/; s/^ignored/skipped/' >$way.txt
done
"$here/compare.py" tokio_postgres "tokio-postgres $version on PostgreSQL $(server_version)" direct.txt proxy.txt
