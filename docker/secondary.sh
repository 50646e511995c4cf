#!/bin/bash
# Runs a streaming secondary of the server $PRIMARY, whose replication password is PGPASSWORD. The
# first start copies the primary; the copy gets its place when it is whole.
set -eu

volume=${VOLUME:-/var/lib/postgresql/data}
export PGDATA=$volume/secondary
if [ ! -d "$PGDATA" ]; then
  rm -rf "$volume/copy"
  until pg_basebackup --pgdata="$volume/copy" --write-recovery-conf --wal-method=stream \
    --checkpoint=fast --dbname="host=$PRIMARY port=${PRIMARY_PORT:-5432} user=replicator"; do
    rm -rf "$volume/copy"
    sleep 1
  done
  chmod 0700 "$volume/copy"
  mv "$volume/copy" "$PGDATA"
fi
exec "$@"
