#!/usr/bin/env bash
# Sessions of pgjdbc in all of its query modes, directly and through the proxy: PgjdbcCases.java. Its own
# tests are in no package of the registries.
set -eu
. "$(dirname "$0")/common.sh"

debian default-jdk-headless libpostgresql-jdbc-java
jar=/usr/share/java/postgresql.jar
mkdir -p "$work/pgjdbc"
servers pgjdbc "${SUITE_PORT:-21132}"

javac -cp "$jar" -d "$work/pgjdbc" "$here/PgjdbcCases.java"
for way in direct proxy; do
  url="jdbc:postgresql://$SUITE_HOST:$(port_of $way)/$SUITE_DATABASE?user=$SUITE_USER&password=$SUITE_PASSWORD"
  java -cp "$jar:$work/pgjdbc" PgjdbcCases "$url" >"$work/pgjdbc/$way.seen"
done
same_cases "$work/pgjdbc"
"$here/compare.py" pgjdbc "Sessions of pgjdbc $(version_of libpostgresql-jdbc-java) on PostgreSQL $(server_version)" \
  "$work/pgjdbc/direct.txt" "$work/pgjdbc/proxy.txt"
