#!/usr/bin/env bash
# Runs every test: style, unit tests, and the integration tests on real PostgreSQL servers.
# Installs what is missing. PG_BIN names the directory of another PostgreSQL.
# With words, runs only the integration tests whose names hold one: integration/test.sh wire
set -eu
cd "$(dirname "$0")/.."
. integration/prerequisites.sh

require_rust
# Small toolchains come without them.
{ cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1 || rustup component add rustfmt clippy
require_postgresql
command -v make >/dev/null || install_packages make make
# pg_query, PostgreSQL's grammar that the planner is compared with, is bound by bindgen.
compgen -G '/usr/lib/*/libclang*.so*' >/dev/null ||
  compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null ||
  [ -n "${LIBCLANG_PATH:-}" ] ||
  install_packages libclang libclang-dev
python3 -c 'import venv, ensurepip' 2>/dev/null ||
  install_packages "Python with virtual environments" python3 python3-venv
command -v node >/dev/null || install_packages Node.js nodejs
# Not together: NodeSource's nodejs has npm in it and conflicts with Debian's.
command -v npm >/dev/null || install_packages npm npm
[ -x "$(postgresql_directory)/pgbench" ] || install_packages pgbench postgresql-contrib
integration/drivers/install.sh

if [ $# -eq 0 ]; then
  cargo fmt --check
  cargo clippy --locked --all-targets -- -D warnings
  # Not among "all": they are not run by plain cargo test.
  cargo clippy --locked --test integration --test allocations -- -D warnings
  cargo test --locked
  cargo test --locked --test allocations
fi
exec cargo test --locked --test integration -- "$@"
