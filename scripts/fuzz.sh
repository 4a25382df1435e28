#!/usr/bin/env bash
# Runs the fuzzers of fuzz/, with AddressSanitizer and every assertion on: scripts/fuzz.sh [SECONDS [TARGET...]]
# Each for SECONDS (10 if not given); a line for each with its executions and findings; fails if there are findings.
# SANITIZER=none leaves AddressSanitizer out: for long campaigns, as there is no unsafe code here that it could find fault with.
# Needs a nightly Rust and a C++ compiler, not cargo-fuzz; says why it skips where something is missing.
# What is found interesting is kept in fuzz/target/corpus, and used again by the next run.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
seconds=${1:-10}
shift || true

skip() {
    echo "skipped: $1"
    exit 0
}

command -v rustup >/dev/null || skip "rustup is not here, which is what finds a nightly Rust"
rustup toolchain list | grep -q '^nightly' || skip "no nightly Rust is installed (rustup toolchain install nightly)"
command -v c++ >/dev/null || skip "no C++ compiler is here, which libFuzzer is built with"
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
case $host in
*-linux-gnu | *-apple-darwin) ;;
*) skip "no AddressSanitizer for $host" ;;
esac

# What cargo-fuzz would do.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
export RUSTFLAGS="$coverage --cfg fuzzing -Ccodegen-units=1"
if [ "${SANITIZER:-address}" != none ]; then RUSTFLAGS+=" -Zsanitizer=${SANITIZER:-address}"; fi
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
cargo +nightly build --release --target "$host" --quiet

if [ $# -eq 0 ]; then
    for file in targets/*.rs; do set -- "$@" "$(basename "$file" .rs)"; done
fi
# Both cost more time than they are worth in a program without unsafe code.
export ASAN_OPTIONS=${ASAN_OPTIONS:-quarantine_size_mb=8:detect_stack_use_after_return=0}
all_runs=0 all_findings=0
for target in "$@"; do
    corpus=$CARGO_TARGET_DIR/corpus/$target findings=$CARGO_TARGET_DIR/findings/$target log=$CARGO_TARGET_DIR/$target.log
    mkdir -p "$corpus" "$findings"
    rm -f "$findings"/*
    # One allocation of more than that is made for a length that somebody declared.
    "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$seconds" -timeout=60 -max_len=600 -malloc_limit_mb=16 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$findings/" "$corpus" "seeds/$target" >"$log" 2>&1 || true
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
    found=$(find "$findings" -type f | wc -l)
    if [ -z "$runs" ] && [ "$found" -eq 0 ]; then
        found=1 # it did not even start
    fi
    printf '%-12s %10d executions  %7d a second  %d finding(s)\n' "$target" "${runs:-0}" "${rate:-0}" "$found"
    all_runs=$((all_runs + ${runs:-0})) all_findings=$((all_findings + found))
    if [ "$found" -ne 0 ]; then
        grep -a -A 6 -m 1 -e 'panicked at' -e 'ERROR: ' "$log" || tail -n 5 "$log"
        for file in "$findings"/*; do
            [ ! -f "$file" ] || echo "again: $CARGO_TARGET_DIR/$host/release/$target $file"
        done
    fi
done
printf '%-12s %10d executions  %26d finding(s)\n' all "$all_runs" "$all_findings"
[ "$all_findings" -eq 0 ]
