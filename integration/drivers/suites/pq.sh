#!/usr/bin/env bash
# lib/pq's own tests, as Debian ships them, directly and through the proxy.
set -eu
. "$(dirname "$0")/common.sh"

debian golang-go golang-github-lib-pq-dev
mkdir -p "$work/go" && cd "$work/go"
export GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$PWD/cache
go test -c -o lib_pq.test github.com/lib/pq
servers pq "${SUITE_PORT:-21120}" pqgotest "$(id -un)" postgres template1

export PGHOST=$SUITE_HOST PGUSER=$SUITE_USER PGPASSWORD=$SUITE_PASSWORD PGSSLMODE=disable
for way in direct proxy; do
  PGPORT=$(port_of $way)
  export PGPORT
  "$here/go_tests.py" lib_pq.test >pq.$way 2>pq.$way.log
done
"$here/compare.py" pq "lib/pq $(version_of golang-github-lib-pq-dev) on PostgreSQL $(server_version)" pq.direct pq.proxy
