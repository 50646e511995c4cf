#!/usr/bin/env bash
# node-postgres' own integration tests, directly and through the proxy.
set -eu
. "$(dirname "$0")/common.sh"
version=8.16.3

sources=$work/node-postgres-pg-$version
if [ ! -d "$sources/node_modules/pg" ]; then
  archive="node-postgres_$version+~cs35.24.27.orig.tar.gz"
  debian_source node-postgres forky "$archive"
  tar -xzf "$work/debian/$archive" -C "$work"
  cd "$sources"
  # The other packages of the repository come from the registry, built.
  rm -f package.json yarn.lock
  npm install --silent --no-fund --no-audit --no-save async@2.6.4 bluebird@3.7.2 co@4.6.0 \
    pg-copy-streams@0.3.0 pg-connection-string@2.9.1 pg-pool@3.10.1 pg-protocol@1.10.3 pg-types@2.2.0 pgpass@1.0.5
  rm -rf node_modules/pg && ln -s ../packages/pg node_modules/pg
fi
cd "$sources/packages/pg"
servers node_pg "${SUITE_PORT:-21128}" suite postgres template1

export PGHOST=$SUITE_HOST PGUSER=$SUITE_USER PGPASSWORD=$SUITE_PASSWORD PGDATABASE=suite
for way in direct proxy; do
  PGPORT=$(port_of $way)
  export PGPORT
  node script/create-test-tables.js postgres:// >$way.log 2>&1
  : >$way.txt
  for mode in text binary; do
    find test/integration -name '*-tests.js' | sort | while read -r file; do
      # A file prints a line for each of its tests, and ends at the first that fails.
      if timeout 60 node "$file" postgres:// $mode >one.log 2>&1; then status=passed; else status=failed; fi
      echo "$status $mode $file" >>$way.txt
      sed -nE "s|^  (.*) ✔\$|passed $mode $file: \1|p; s|^  (.*) \? - SKIPPED\$|skipped $mode $file: \1|p" one.log >>$way.txt
      [ $status = passed ] || { echo "=== $mode $file" && cat one.log; } >>$way.log
    done
  done
done
"$here/compare.py" node_pg "node-postgres $version on PostgreSQL $(server_version)" direct.txt proxy.txt
