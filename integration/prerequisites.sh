# shellcheck shell=bash
# Finds what the scripts beside it need, and installs what is missing from Debian's packages.
# Sourced by bash, not run.

# Runs a command as root: as it is, or through sudo. Fails when neither is possible.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    sudo "$@"
  else
    return 1
  fi
}

# install_packages WHAT PACKAGE...: installs Debian packages, or ends with the command that would.
install_packages() {
  local what=$1 command="apt-get install -y --no-install-recommends ${*:2}"
  echo "$what is missing; installing: ${*:2}" >&2
  if ! command -v apt-get >/dev/null; then
    echo "error: $what is missing and there is no apt-get here: install it with this system's packages" >&2
    exit 1
  fi
  # shellcheck disable=SC2086 # the command is a list of words
  if ! { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive $command; } >&2; then
    echo "error: $what could not be installed; as root run: apt-get update && $command" >&2
    exit 1
  fi
}

# The Rust toolchain, and the C compiler with which some crates build their C sources.
require_rust() {
  if ! command -v cargo >/dev/null && [ -f "${CARGO_HOME:-$HOME/.cargo}/env" ]; then
    # shellcheck disable=SC1091 # written by rustup
    . "${CARGO_HOME:-$HOME/.cargo}/env"
  fi
  if ! command -v cargo >/dev/null; then
    echo "error: cargo is missing: install a Rust toolchain, for example with https://rustup.rs" >&2
    exit 1
  fi
  command -v cc >/dev/null || install_packages "a C compiler" gcc libc6-dev
}

# Prints the directory of PostgreSQL's server programs, looking where the program looks: PG_BIN, the
# PATH, pg_config, Debian's directories.
postgresql_directory() {
  local candidate
  if [ -n "${PG_BIN:-}" ]; then
    echo "$PG_BIN"
    return
  fi
  for candidate in \
    "$(dirname "$(readlink -f "$(command -v postgres || command -v initdb || echo /none/none)")")" \
    "$(pg_config --bindir 2>/dev/null)" \
    $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV); do
    if [ -x "$candidate/postgres" ] && [ -x "$candidate/initdb" ]; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

# A PostgreSQL server and its client programs.
require_postgresql() {
  local quiet=/etc/postgresql-common/createcluster.d/shardwire-install.conf
  postgresql_directory >/dev/null && return
  # Only the programs are wanted, not the server that the package would set up and start.
  if as_root mkdir -p "${quiet%/*}"; then
    echo "create_main_cluster = false" | as_root tee "$quiet" >/dev/null || true
  fi
  # A subshell, so that the file goes also when the installation ends this script.
  ( install_packages PostgreSQL postgresql ) || { as_root rm -f "$quiet"; exit 1; }
  as_root rm -f "$quiet"
}
