#!/usr/bin/env bash
# A file by `send_file`, and with `Config::sendfile`: memory, rate and processor time beside a plain loop of read and write; each byte
# compared (benches/src/bin/send_file.rs). Prints a line for each bar; fails if one is missed. Three minutes.
#
# usage: scripts/send_file.sh [BYTES [BYTES_PER_SECOND]]     1073741824, to a reader of 50000000
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo run --quiet --release --manifest-path benches/Cargo.toml --bin send_file -- "$@"
