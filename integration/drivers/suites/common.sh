# shellcheck shell=bash
# What the suites' runners share. Sourced by bash, not run.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
work=$root/target/suites
mkdir -p "$work"

# python NAME PACKAGE...: a virtual environment with these packages; sets $python.
python() {
  local venv=$work/$1/venv
  [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
  python=$venv/bin/python
  "$python" -m pip install --quiet --disable-pip-version-check "${@:2}"
}

# source_of NAME PACKAGE==VERSION: the unpacked source distribution; sets $source. What it needs to tell
# its own name must be in the environment of python().
source_of() {
  local package=${2%%==*} version=${2##*==}
  source=$work/$1/$package-$version
  [ -d "$source" ] && return
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
    --no-build-isolation --dest "$work/$1" "$2"
  tar -xzf "$work/$1/$package-$version.tar.gz" -C "$work/$1"
}

# servers NAME PORT DATABASE...: starts them anew and stops them at the end.
servers() {
  servers=$(mktemp -d "/tmp/suite-$1-XXXXXX")
  trap '"$here/start.py" stop "$servers"; rm -rf "$servers"' EXIT
  local assignments
  assignments=$("$here/start.py" start "$servers" "${@:2}")
  eval "$assignments"
}

# direct SQL [DATABASE]: runs SQL on PostgreSQL.
direct() {
  PGPASSWORD=$SUITE_PASSWORD psql -qX -v ON_ERROR_STOP=1 -h "$SUITE_HOST" -p "$DIRECT_PORT" \
    -U "$SUITE_USER" -c "$1" "${2:-$SUITE_DATABASE}"
}

# everywhere SQL [DATABASE]: runs SQL on every PostgreSQL.
everywhere() {
  local port
  for port in $SERVER_PORTS; do
    DIRECT_PORT=$port direct "$@"
  done
}

# server_version: PostgreSQL's.
server_version() {
  PGPASSWORD=$SUITE_PASSWORD psql -qAtX -h "$SUITE_HOST" -p "$DIRECT_PORT" -U "$SUITE_USER" \
    -c "SHOW server_version" "$SUITE_DATABASE" | cut -d' ' -f1
}

# port_of direct|proxy
port_of() {
  if [ "$1" = direct ]; then echo "$DIRECT_PORT"; else echo "$PROXY_PORT"; fi
}

# debian PACKAGE...: installs what is missing of these.
debian() {
  dpkg-query -W "$@" >/dev/null 2>&1 || apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

# version_of PACKAGE: of an installed Debian package.
version_of() {
  # shellcheck disable=SC2016
  dpkg-query -W -f '${Version}' "$1"
}

# debian_source PACKAGE SUITE FILE: a file of a Debian source package, put into $work/debian. The
# mirror may lack other files of the package.
debian_source() {
  local lists=$work/debian/apt
  [ -f "$work/debian/$3" ] && return
  mkdir -p "$lists/lists/partial" "$lists/archives/partial"
  echo "deb-src http://deb.debian.org/debian $2 main" >"$lists/sources.list"
  local options=(-o "Dir::Etc::sourcelist=$lists/sources.list" -o Dir::Etc::sourceparts=-
    -o "Dir::State::lists=$lists/lists" -o "Dir::Cache=$lists" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" -qq update
  (cd "$work/debian" && apt-get "${options[@]}" -qq source --download-only "$1" 2>"$lists/log") || [ -f "$work/debian/$3" ]
}

# same_cases DIRECTORY: of direct.seen and proxy.seen, with a line `CASE: WHAT IT SAW` each, makes direct.txt
# and proxy.txt for compare.py. A case has passed if it saw the same.
same_cases() {
  sed 's/^\([^:]*\):.*/passed \1/' "$1/direct.seen" >"$1/direct.txt"
  awk -F: 'NR == FNR { seen[$1] = $0; next } { print (seen[$1] == $0 ? "passed" : "failed"), $1 }' \
    "$1/direct.seen" "$1/proxy.seen" >"$1/proxy.txt"
}
