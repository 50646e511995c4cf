#!/usr/bin/env bash
# The tests of pgx 4 and its pgconn, as Debian ships them, directly and through the proxy.
set -eu
. "$(dirname "$0")/common.sh"

debian golang-go golang-github-jackc-pgx-v4-dev golang-github-jackc-pgmock-dev golang-github-masterminds-semver-dev
mkdir -p "$work/go/src/github.com/Masterminds/semver" && cd "$work/go"
# Debian leaves the version out of this path.
ln -sfn /usr/share/gocode/src/github.com/Masterminds/semver src/github.com/Masterminds/semver/v3
export GO111MODULE=off GOPATH=$PWD:/usr/share/gocode GOCACHE=$PWD/cache
for package in pgconn pgx/v4 pgx/v4/stdlib pgx/v4/pgxpool; do
  go test -c -o "$(tr / _ <<<"$package").test" "github.com/jackc/$package"
done

servers pgx "${SUITE_PORT:-21122}" pgx_test
everywhere "CREATE EXTENSION hstore; CREATE EXTENSION ltree; CREATE DOMAIN uint64 AS numeric(20,0)"
for way in direct proxy; do
  url="host=$SUITE_HOST port=$(port_of $way) user=$SUITE_USER password=$SUITE_PASSWORD dbname=pgx_test"
  PGX_TEST_DATABASE=$url PGX_TEST_CONN_STRING=$url PGX_TEST_TCP_CONN_STRING=$url \
    "$here/go_tests.py" pgconn.test pgx_v4.test pgx_v4_stdlib.test pgx_v4_pgxpool.test >pgx.$way 2>pgx.$way.log
done
version=$(version_of golang-github-jackc-pgx-v4-dev)
"$here/compare.py" pgx "pgx $version with pgconn, stdlib and pgxpool on PostgreSQL $(server_version)" pgx.direct pgx.proxy
