#!/usr/bin/env bash
# What TLS costs, and whether its bars are held (docs/benchmarks.md, "TLS"): beside a bare loop over rustls and beside
# tokio-rustls; and what the feature brings into the tree. tls_bars.sh [ROUNDS]
set -u
cd "$(dirname "$0")/.." || exit 1
source scripts/report.sh

# crates OPTIONS...: how many are in the tree besides this one.
crates() { cargo tree --locked -e normal --prefix none --format '{p}' "$@" | awk '{ print $1 }' | sort -u | grep -vcx mainspring; }

without=$(crates --no-default-features)
with=$(crates --no-default-features --features tls)
report $((without != 6)) "crates in the tree without features" "$without, at most 6"
report $((with != without + 7)) "crates that the feature tls adds" "$((with - without)), at most 7"

need valgrind
cargo run --quiet --release --locked --manifest-path benches/Cargo.toml -p tls --bin tls_bars -- "$@" || failed=1
conclude
