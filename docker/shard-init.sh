#!/bin/bash
# Sets up a shard's primary when its data directory is new: the roles of the proxy and of the
# secondary, and the sample's rows of this shard. Run by the entrypoint of the postgres image.
set -eu

psql -v ON_ERROR_STOP=1 -U "${POSTGRES_USER:-postgres}" -d postgres \
  -v replication_password="$REPLICATION_PASSWORD" \
  -v backend_password="$SHOP_BACKEND_PASSWORD" \
  -v database="$POSTGRES_DB" <<'SQL'
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replication_password';
CREATE ROLE shop LOGIN PASSWORD :'backend_password';
ALTER DATABASE :"database" OWNER TO shop;
SQL

echo "host replication replicator all scram-sha-256" >>"$PGDATA/pg_hba.conf"

# As in README.md: slot = hash & 16383; the proxy checks that the rows are where it looks for them.
{ echo "SET ROLE shop;"; cat "${SAMPLE:-/sample.sql}"; } |
  psql -q -U "${POSTGRES_USER:-postgres}" -d "$POSTGRES_DB" \
    -v here="(hashint8extended(user_id, 0) & 16383 BETWEEN $SLOTS)" \
    -v home="$HOME_SHARD"
