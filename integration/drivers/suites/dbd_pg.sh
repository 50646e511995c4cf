#!/usr/bin/env bash
# DBD::Pg's own tests, directly and through the proxy.
set -eu
. "$(dirname "$0")/common.sh"
version=3.18.0

debian libdbi-perl libpq-dev make gcc perl
sources=$work/DBD-Pg-$version
if [ ! -f "$sources/blib/arch/auto/DBD/Pg/Pg.so" ]; then
  debian_source libdbd-pg-perl trixie "libdbd-pg-perl_$version.orig.tar.gz"
  tar -xzf "$work/debian/libdbd-pg-perl_$version.orig.tar.gz" -C "$work"
  (cd "$sources" && perl Makefile.PL && make) >"$work/DBD-Pg.build" 2>&1
fi
cd "$sources"
servers dbd_pg "${SUITE_PORT:-21126}" suite
# Some tests go through hashes.
export PERL_HASH_SEED=0 PERL_PERTURB_KEYS=0 DBDPG_TEST_ALWAYS_ENV=1 DBI_USER=$SUITE_USER DBI_PASS=$SUITE_PASSWORD
for way in direct proxy; do
  export DBI_DSN="dbi:Pg:dbname=suite;host=$SUITE_HOST;port=$(port_of $way)"
  : >$way.txt
  for file in t/*.t; do
    timeout 120 perl -Mblib "$file" >$way.tap 2>>$way.log || true
    # `ok 3 - what # skip why`: a line for each.
    sed -nE "s|^ok ([0-9]+).*# skip.*|skipped $file \1|pI; t; s|^ok ([0-9]+)( - (.*))?|passed $file \1 \3|p; \
      s|^not ok ([0-9]+).*# TODO.*|skipped $file \1|p; t; s|^not ok ([0-9]+)( - (.*))?|failed $file \1 \3|p" $way.tap >>$way.txt
  done
done
"$here/compare.py" dbd_pg "DBD::Pg $version on PostgreSQL $(server_version)" direct.txt proxy.txt
