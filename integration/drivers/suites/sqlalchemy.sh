#!/usr/bin/env bash
# SQLAlchemy's tests of its PostgreSQL dialect and engine, directly and through the proxy, with psycopg 3
# or the driver that DRIVER names (asyncpg, psycopg2). Arguments go to pytest.
set -eu
. "$(dirname "$0")/common.sh"
version=2.0.52
driver=${DRIVER:-psycopg}

python sqlalchemy "sqlalchemy[asyncio]==$version" 'psycopg[binary]>=3.3,<4' 'asyncpg>=0.31,<1' \
  'psycopg2-binary>=2.9,<3' setuptools wheel pytest pytest-timeout
source_of sqlalchemy "sqlalchemy==$version"
# A database for each run: tests that are interrupted leave tables behind.
servers sqlalchemy "${SUITE_PORT:-21020}" direct proxy
for database in direct proxy; do
  everywhere "CREATE SCHEMA test_schema; CREATE SCHEMA test_schema_2" $database
  everywhere "CREATE EXTENSION hstore; CREATE EXTENSION citext" $database
done

cd "$source"
for way in direct proxy; do
  url=$driver://$SUITE_USER:$SUITE_PASSWORD@$SUITE_HOST:$(port_of $way)/$way
  "$python" -m pytest test/dialect/postgresql test/dialect/test_suite.py test/engine \
    -q --timeout 120 -p no:cacheprovider -p no:logging --maxfail=10000 \
    --dburi "postgresql+$url" --junitxml="$work/sqlalchemy/$way.xml" "$@" \
    >"$work/sqlalchemy/$way.log" || true
done
packages=$("$python" -m pip list --disable-pip-version-check 2>/dev/null)
driver_version=$(awk -v name="$driver" '$1 == name || $1 == name "-binary" { print $2; exit }' <<<"$packages")
"$here/compare.py" "sqlalchemy-$driver" \
  "SQLAlchemy $version with $driver $driver_version on PostgreSQL $(server_version)" \
  "$work/sqlalchemy/direct.xml" "$work/sqlalchemy/proxy.xml" "$here/sqlalchemy.expected"
