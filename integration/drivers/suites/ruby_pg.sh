#!/usr/bin/env bash
# Sessions of ruby-pg, directly and through the proxy: ruby_pg_cases.rb. Its own tests start a PostgreSQL of
# their own.
set -eu
. "$(dirname "$0")/common.sh"

debian ruby ruby-pg
mkdir -p "$work/ruby_pg"
servers ruby_pg "${SUITE_PORT:-21134}"

for way in direct proxy; do
  PGPASSWORD=$SUITE_PASSWORD ruby "$here/ruby_pg_cases.rb" "$(port_of $way)" "$SUITE_USER" "$SUITE_DATABASE" \
    >"$work/ruby_pg/$way.seen"
done
same_cases "$work/ruby_pg"
"$here/compare.py" ruby_pg "Sessions of ruby-pg $(version_of ruby-pg) on PostgreSQL $(server_version)" \
  "$work/ruby_pg/direct.txt" "$work/ruby_pg/proxy.txt"
