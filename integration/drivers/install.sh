#!/usr/bin/env bash
# Puts the client drivers that integration/drivers/ tries into target/drivers.
set -eu
cd "$(dirname "$0")/../.."
directory=target/drivers
mkdir -p "$directory"

# The major versions that the scripts were written for.
[ -x "$directory/venv/bin/pip" ] || python3 -m venv "$directory/venv"
"$directory/venv/bin/python" -c 'import psycopg, asyncpg' 2>/dev/null ||
  "$directory/venv/bin/pip" install --quiet --disable-pip-version-check \
    'psycopg[binary]>=3.2,<4' 'asyncpg>=0.30,<1'
[ -d "$directory/node_modules/pg" ] ||
  npm install --prefix "$directory" --silent --no-fund --no-audit 'pg@^8'
