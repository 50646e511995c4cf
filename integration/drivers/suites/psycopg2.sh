#!/usr/bin/env bash
# psycopg2's own tests, directly and through the proxy. Arguments go to pytest.
set -eu
. "$(dirname "$0")/common.sh"
version=2.9.13

python psycopg2 "psycopg2-binary==$version" setuptools wheel pytest pytest-timeout
source_of psycopg2 "psycopg2==$version"
# Beside the sources, where `import psycopg2` finds the built package.
rm -rf "$work/psycopg2/tests" && cp -r "$source/tests" "$work/psycopg2/"
servers psycopg2 "${SUITE_PORT:-21010}" psycopg2_test
everywhere "CREATE EXTENSION hstore"

cd "$work/psycopg2"
export PGHOST=$SUITE_HOST PGUSER=$SUITE_USER PGPASSWORD=$SUITE_PASSWORD PSYCOPG2_TEST_REPL_DSN=
for way in direct proxy; do
  PGPORT=$(port_of $way)
  export PGPORT
  "$python" -m pytest tests -q --timeout 120 -p no:cacheprovider --junitxml=$way.xml "$@" >$way.log || true
done
"$here/compare.py" psycopg2 "psycopg2 $version on PostgreSQL $(server_version)" direct.xml proxy.xml
