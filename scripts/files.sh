#!/usr/bin/env bash
# A gibibyte out by `send_from` and one in by `save`, at the same time, over disks of 10 MB/s (tests/files.rs): each byte exact, at most
# 3 MiB more memory; and how long another session waits for its answer, which is printed. Two minutes.
# usage: scripts/files.sh [BYTES [BYTES_PER_SECOND]]
set -euo pipefail
cd "$(dirname "$0")/.."
export FILES_BYTES=${1:-1073741824} FILES_RATE=${2:-10000000}
exec cargo test --quiet --release --test files -- --nocapture
