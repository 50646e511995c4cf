#!/usr/bin/env bash
# Sessions of psycopg 3, directly and through the proxy: psycopg_cases.py. Arguments name cases.
set -eu
. "$(dirname "$0")/common.sh"

python psycopg 'psycopg[binary]==3.3.5' 'psycopg-pool==3.3.3'
servers psycopg "${SUITE_PORT:-21040}"

"$python" "$here/psycopg_cases.py" "$DIRECT_URL" "$PROXY_URL" \
  "$work/psycopg/direct.txt" "$work/psycopg/proxy.txt" "$@"
version=$("$python" -c 'import psycopg; print(psycopg.__version__)')
"$here/compare.py" psycopg "Sessions of psycopg $version on PostgreSQL $(server_version)" \
  "$work/psycopg/direct.txt" "$work/psycopg/proxy.txt"
