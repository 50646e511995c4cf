#!/usr/bin/env bash
# Compares the CPU time per query of Shardwire and PgBouncer on this machine; see README.md here.
set -eu
cd "$(dirname "$0")/../.."
. integration/prerequisites.sh

require_rust
require_postgresql
command -v python3 >/dev/null || install_packages "Python 3" python3
[ -x "${PGBOUNCER:-$(command -v pgbouncer || echo /usr/sbin/pgbouncer)}" ] || install_packages PgBouncer pgbouncer
[ -n "${SHARDWIRE:-}" ] || cargo build --release --locked --bin shardwire

PG_BIN=$(postgresql_directory) exec python3 integration/bench/pgbouncer.py
