#!/usr/bin/env bash
# Puts the client drivers that integration/drivers/ tries into target/drivers.
set -eu
cd "$(dirname "$0")/../.."
directory=target/drivers
mkdir -p "$directory"

# The versions the tests were written with; newer ones are expected to work.
if [ ! -x "$directory/venv/bin/python" ]; then
  python3 -m venv "$directory/venv" || {
    echo "python3 can't make a virtual environment: apt-get install python3-venv" >&2
    exit 1
  }
fi
"$directory/venv/bin/python" -c 'import psycopg, asyncpg' 2>/dev/null ||
  "$directory/venv/bin/pip" install --quiet --disable-pip-version-check \
    'psycopg[binary]>=3.2,<4' 'asyncpg>=0.30,<1'

command -v npm >/dev/null || {
  echo "npm is missing: apt-get install nodejs npm" >&2
  exit 1
}
[ -d "$directory/node_modules/pg" ] ||
  npm install --prefix "$directory" --silent --no-fund --no-audit 'pg@^8'
