#!/usr/bin/env bash
# asyncpg's own tests, directly and through the proxy. Arguments go to pytest.
set -eu
. "$(dirname "$0")/common.sh"
version=0.31.0

python asyncpg "asyncpg==$version" 'setuptools>=77' wheel 'Cython>=3.2.1,<4' pytest pytest-timeout distro
source_of asyncpg "asyncpg==$version"
# Beside the sources, where `import asyncpg` finds the built package.
rm -rf "$work/asyncpg/tests" && cp -r "$source/tests" "$work/asyncpg/"
servers asyncpg "${SUITE_PORT:-21000}" postgres +testdb +asyncpg_intro_test

cd "$work/asyncpg"
export PGHOST=$SUITE_HOST PGUSER=$SUITE_USER PGPASSWORD=$SUITE_PASSWORD PGDATABASE=$SUITE_DATABASE
# The suite makes and drops databases, which PostgreSQL refuses while somebody else is connected to them.
"$here/start.py" alone "$servers"
for way in direct proxy; do
  [ $way = direct ] || "$here/start.py" restart "$servers"
  PGPORT=$(port_of $way)
  export PGPORT
  "$python" -m pytest tests -q --timeout 120 -p no:cacheprovider --junitxml=$way.xml "$@" >$way.log || true
done
"$here/compare.py" asyncpg "asyncpg $version on PostgreSQL $(server_version)" direct.xml proxy.xml
