#!/usr/bin/env bash
# The tests under nightly's sanitizers: address and leak over the unit and integration tests, thread over those that post
# into the loop from other threads. Prints a line for each; fails on a finding or a failed test, skips where there is no nightly.
#
# usage: scripts/sanitizers.sh [address] [thread]    both if none is named
set -u
cd "$(dirname "$0")/.." || exit 1
parts=${*:-address thread}
target=$(rustc -vV | sed -n 's/^host: //p')
place=${CARGO_TARGET_DIR:-$PWD/target}
out=$(mktemp)
suppressions=$(mktemp)
trap 'rm -f "$out" "$suppressions"' EXIT
failures=0

if ! cargo +nightly -V >/dev/null 2>&1; then
    echo "SKIP  sanitizers are for nightly, which is not here"
    exit 0
fi

# report NAME STATUS
report() {
    local tests findings
    tests=$(awk '/^test result:/ {passed += $4; failed += $6} END {printf "%d tests passed, %d failed", passed, failed}' "$out")
    findings=$(grep -c -E '^(==[0-9]+==ERROR: |WARNING: ThreadSanitizer)' "$out")
    if [ "$2" -eq 0 ] && [ "$findings" -eq 0 ] && ! grep -q '^0 tests' <<<"$tests"; then
        printf 'PASS  %-18s %s, 0 findings\n' "$1" "$tests"
    else
        printf 'FAIL  %-18s %s, %d findings\n' "$1" "$tests" "$findings"
        grep -E -A 25 '^(==[0-9]+==ERROR: |WARNING: ThreadSanitizer|error|---- )|panicked| FAILED$' "$out" | cut -c1-200 | head -n 80
        failures=$((failures + 1))
    fi
}

# Not what counts the pages that a process takes, `memory` and a test each of proxy, tail, uplink and gopher: here it is another
# allocator's. `matrix` has a harness of its own, which knows no --skip. What panics each time it is dropped is left where it
# is, on purpose.
address() {
    local tests=() test
    echo 'leak:mainspring::panics::' >"$suppressions"
    for test in tests/*.rs tests/*/main.rs; do
        test=$(basename "${test%/main.rs}" .rs)
        case $test in matrix | memory) ;; *) tests+=(--test "$test") ;; esac
    done
    (
        export RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR="$place/sanitized-address" ASAN_OPTIONS="detect_leaks=1"
        export LSAN_OPTIONS="suppressions=$suppressions"
        # The examples first: their test starts them.
        timeout 580 cargo +nightly build --target "$target" --all-features --examples &&
            timeout 1100 cargo +nightly test --target "$target" --all-features --no-fail-fast --lib "${tests[@]}" -- \
                --skip proxy_holds_back_whoever_is_faster --skip who_does_not_keep_up_is_told --skip uplink_holds_its_input_up \
                --skip who_takes_nothing_is_let_go &&
            timeout 300 cargo +nightly test --target "$target" --all-features --test matrix
    ) >"$out" 2>&1
    report "address and leak" $?
}

# What crosses threads: posts, remotes, and what runs them. std is built with the sanitizer too, which otherwise does not see
# how its locks order what is between them.
thread() {
    local words=(post remote thread jobs) tests=(--test rules --test stress)
    if ! rustup component add rust-src --toolchain nightly >/dev/null 2>&1; then
        echo "SKIP  thread: rust-src, to build std with, is not here"
        return
    fi
    (
        export RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" CARGO_TARGET_DIR="$place/sanitized-thread"
        export TSAN_OPTIONS="exitcode=66"
        timeout 590 cargo +nightly test -Zbuild-std --target "$target" --no-fail-fast "${tests[@]}" -- "${words[@]}"
    ) >"$out" 2>&1
    report "thread" $?
}

case " $parts " in *" address "*) address ;; esac
case " $parts " in *" thread "*) thread ;; esac
[ "$failures" -eq 0 ] || exit 1
