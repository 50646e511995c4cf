#!/usr/bin/env bash
# Compares Shardwire with PgBouncer, haproxy and no proxy on this machine; see README.md here.
set -eu
cd "$(dirname "$0")/../.."
. integration/prerequisites.sh

require_rust
require_postgresql
command -v python3 >/dev/null || install_packages "Python 3" python3
[ -x "${PGBOUNCER:-$(command -v pgbouncer || echo /usr/sbin/pgbouncer)}" ] || install_packages PgBouncer pgbouncer
[ -x "${HAPROXY:-$(command -v haproxy || echo /usr/sbin/haproxy)}" ] || install_packages haproxy haproxy
# As many descriptors as 10,000 idle clients need.
ulimit -n "$(ulimit -H -n)"
[ -n "${SHARDWIRE:-}" ] || cargo build --release --locked --bin shardwire

PG_BIN=$(postgresql_directory) exec python3 integration/bench/bench.py
