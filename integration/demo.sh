#!/usr/bin/env bash
# Shardwire on this machine with one command: installs what is missing, builds, runs the demo.
set -eu
cd "$(dirname "$0")/.."
. integration/prerequisites.sh

require_rust
require_postgresql
exec cargo run --release --locked --bin shardwire -- demo "$@"
