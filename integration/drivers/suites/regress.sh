#!/usr/bin/env bash
# PostgreSQL's own regression tests, directly and through a one-shard proxy with transaction pooling.
#
#   integration/drivers/suites/regress.sh tests [TEST...]   both runs of pg_regress, compared file by file
#   integration/drivers/suites/regress.sh statements [OPTION...]
#                                     every statement of the tests, one at a time (see statements.py)
#   integration/drivers/suites/regress.sh isolation         both runs of the isolation tests, compared
#
# The source package comes from Debian into target/suites/regress, with the server of that version where
# the installed one is another. PORT is the first of ten ports to use (21200), SHARDWIRE another binary
# than target/debug/shardwire. Results by hand: integration/drivers/results/postgresql-regress.md
set -eu
cd "$(dirname "$0")/../../.."
root=$PWD
place=$root/target/suites/regress
binary=${SHARDWIRE:-$root/target/debug/shardwire}
port=${PORT:-21200}
work=$(mktemp -d /tmp/shardwire-regress.XXXXXX)
chmod 755 "$work"
database=regression
major=15

# apt-get with source packages in lists of its own; the system's stay as they are.
apt() {
  mkdir -p "$place/apt/lists/partial" "$place/apt/cache/archives/partial"
  local options=(-o Dir::Etc::SourceList="$place/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists="$place/apt/lists" -o Dir::Cache="$place/apt/cache" -o APT::Sandbox::User=root)
  "$1" "${options[@]}" "${@:2}"
}

# The newest source package that can be had, and the server of its version.
download() {
  [ -e "$place/done" ] && return
  rm -rf "$place" && mkdir -p "$place/apt" "$place/server"
  local suite version package
  # shellcheck disable=SC1091 # the system's
  . /etc/os-release
  for suite in "debian $VERSION_CODENAME" "debian $VERSION_CODENAME-updates" \
    "debian-security $VERSION_CODENAME-security"; do
    echo "deb-src http://deb.debian.org/${suite% *} ${suite#* } main"
    echo "deb http://deb.debian.org/${suite% *} ${suite#* } main"
  done >"$place/apt/sources.list"
  apt apt-get update -qq
  cd "$place"
  for version in $(apt apt-cache showsrc postgresql-$major | sed -n 's/^Version: //p' | sort -rV | uniq); do
    apt apt-get source -qq --download-only "postgresql-$major=$version" && break
  done
  for package in postgresql-$major postgresql-client-$major postgresql-server-dev-$major libpq5; do
    apt apt-get download -qq "$package=$version"
  done
  tar xjf postgresql-$major*.orig.tar.bz2 --one-top-level=source --strip-components=1
  for package in *.deb; do dpkg-deb -x "$package" server; done
  cd "$root"
  # The functions in C that the tests load.
  cc -O1 -fPIC -shared -I "$place/server/usr/include/postgresql/$major/server" \
    -o "$place/server/usr/lib/postgresql/$major/lib/regress.so" "$place/source/src/test/regress/regress.c"
  chmod -R a+rX "$place"
  touch "$place/done"
}

download
bin=$place/server/usr/lib/postgresql/$major/bin
tools=$place/server/usr/lib/postgresql/$major/lib/pgxs/src/test
libraries=$place/server/usr/lib/$(uname -m)-linux-gnu
as_postgres() {
  if [ "$(id -u)" = 0 ]; then
    runuser -u postgres -- env LC_ALL=C LD_LIBRARY_PATH="$libraries" "$@"
  else
    env LC_ALL=C LD_LIBRARY_PATH="$libraries" "$@"
  fi
}
sql() { # PORT DATABASE
  as_postgres "$bin/psql" -X -q -h 127.0.0.1 -p "$1" -U postgres -d "$2" "${@:3}"
}

# server NAME PORT [SETTING...]: a fresh PostgreSQL with the database, as pg_regress would make it.
server() {
  if [ ! -d "$work/template" ]; then
    install -d -o "$(as_postgres id -u)" "$work/template" "$work/sockets"
    as_postgres "$bin/initdb" -D "$work/template" -U postgres -A trust -N --no-locale -E UTF8 >"$work/initdb.log"
  fi
  cp -a "$work/template" "$work/$1"
  printf '%s\n' "port = $2" "listen_addresses = '127.0.0.1'" "unix_socket_directories = '$work/sockets'" \
    "fsync = off" "max_connections = 150" "max_prepared_transactions = 20" "${@:3}" >>"$work/$1/postgresql.conf"
  as_postgres "$bin/pg_ctl" -D "$work/$1" -l "$work/sockets/$1.log" -w start >/dev/null
  sql "$2" postgres -c "CREATE DATABASE $database TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'" \
    -c "ALTER DATABASE $database SET lc_messages TO 'C'" -c "ALTER DATABASE $database SET lc_monetary TO 'C'" \
    -c "ALTER DATABASE $database SET lc_numeric TO 'C'" -c "ALTER DATABASE $database SET lc_time TO 'C'" \
    -c "ALTER DATABASE $database SET bytea_output TO 'hex'" \
    -c "ALTER DATABASE $database SET timezone_abbreviations TO 'Default'"
}

# proxy PORT POOL_SIZE SERVER_PORT [SERVER_PORT]: a shard for each server.
proxy() {
  {
    printf '%s\n' "listen: 127.0.0.1:$1" "auth: { method: trust }" "tls: off" "databases:" "  $database:" \
      "    backend: { user: postgres, tls: off }" "    pool: { mode: transaction, max_size: $2 }" "    shards:"
    local shard=0 of
    for of in "${@:3}"; do
      echo "      - { name: s$shard, primary: 127.0.0.1:$of }"
      shard=$((shard + 1))
    done
  } >"$work/proxy.yaml"
  "$binary" --config "$work/proxy.yaml" >"$work/proxy.log" 2>&1 &
  echo $! >"$work/proxy.pid"
  for _ in $(seq 100); do
    sql "$1" $database -c 'SELECT 1' >/dev/null 2>&1 && return
    sleep 0.1
  done
  cat "$work/proxy.log" >&2
  return 1
}

end() {
  local directory
  if [ -e "$work/proxy.pid" ]; then kill "$(cat "$work/proxy.pid")" 2>/dev/null || true; fi
  for directory in "$work"/*/postmaster.pid; do
    [ -e "$directory" ] && as_postgres "$bin/pg_ctl" -D "${directory%/*}" -m immediate stop >/dev/null
  done
  rm -rf "$work"
}
trap end EXIT

# run NAME PORT PROGRAM SOURCES [ARGUMENT...]: one run of a schedule; its results are kept in
# target/suites/regress/NAME.
run() {
  local output=$place/$1
  rm -rf "$output"
  install -d -o "$(as_postgres id -u)" "$output" "$output/results" "$output/testtablespace"
  as_postgres "$3" --bindir="$bin" --dlpath="$bin/../lib" --inputdir="$4" --outputdir="$output" --use-existing \
    --host=127.0.0.1 --port="$2" --user=postgres --dbname=$database "${@:5}" >"$output.log" 2>&1 || true
  grep -E 'FAILED|tests (passed|failed)' "$output.log" | sed "s/^/$1: /" || true
}

# Which result files of two runs differ.
differing() {
  local file
  for file in "$place/$1"/results/*.out; do
    cmp -s "$file" "$place/$2/results/${file##*/}" || echo "differs: ${file##*/}"
  done
}

both() { # NAME PROGRAM SOURCES [ARGUMENT...]
  server direct "$port"
  run "$1-direct" "$port" "${@:2}"
  server behind $((port + 1))
  proxy $((port + 2)) 60 $((port + 1))
  run "$1-proxy" $((port + 2)) "${@:2}"
  differing "$1-direct" "$1-proxy"
}

what=${1:-tests}
[ $# -eq 0 ] || shift
sources=$place/source/src/test
case $what in
tests)
  if [ $# -gt 0 ]; then set -- test_setup "$@"; else
    set -- --max-concurrent-tests=20 --schedule="$sources/regress/parallel_schedule"
  fi
  both tests "$tools/regress/pg_regress" "$sources/regress" "$@"
  ;;
statements)
  if [ ! -e "$place/corpus.json" ]; then
    server log "$port" "log_destination = 'jsonlog'" "logging_collector = on" "log_statement = 'all'" \
      "log_filename = 'corpus.log'" "log_rotation_size = 0"
    run corpus "$port" "$tools/regress/pg_regress" "$sources/regress" --schedule="$sources/regress/parallel_schedule"
    python3 integration/drivers/suites/statements.py corpus "$work/log/log/corpus.json" "$place/corpus.json"
    as_postgres "$bin/pg_ctl" -D "$work/log" -m immediate stop >/dev/null
  fi
  for number in 1 2 3 4; do server "server$number" $((port + number)); done
  if [[ " $* " == *" --hint "* ]]; then
    proxy $((port + 5)) 4 $((port + 3)) $((port + 4))
  else
    proxy $((port + 5)) 2 $((port + 3))
  fi
  python3 integration/drivers/suites/statements.py compare "$place/corpus.json" $((port + 1)) $((port + 2)) \
    $((port + 5)) --report "$place/statements.report" "$@"
  ;;
isolation)
  both isolation "$tools/isolation/pg_isolation_regress" "$sources/isolation" \
    --schedule="$sources/isolation/isolation_schedule"
  ;;
*)
  sed -n '2,12s/^# \{0,1\}//p' "$0"
  exit 1
  ;;
esac
