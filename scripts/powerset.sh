#!/usr/bin/env bash
# Every way to build the crate: each set of its features (check and clippy, no warnings), the second selector, panic=abort.
# Prints a line for each build; fails if one is not clean.
#
# usage: scripts/powerset.sh [features] [selector] [abort]    all three if none is named
set -u
cd "$(dirname "$0")/.." || exit 1
parts=${*:-features selector abort}
place=${CARGO_TARGET_DIR:-$PWD/target}
out=$(mktemp)
trap 'rm -f "$out"' EXIT
failures=0

# report NAME FIGURES STATUS
report() {
    if [ "$3" -eq 0 ]; then
        printf 'PASS  %-36s %s\n' "$1" "$2"
    else
        printf 'FAIL  %-36s %s (exit status %d)\n' "$1" "$2" "$3"
        grep -E -A 12 '^(error|warning)|panicked at| FAILED$|result: FAILED|SIG[A-Z]+' "$out" | head -n 60
        failures=$((failures + 1))
    fi
}

# How many tests passed, failed and were ignored, over all binaries.
tests_counted() {
    awk '/^test result:/ {passed += $4; failed += $6; ignored += $8}
        END {printf "%d tests passed, %d failed, %d ignored", passed, failed, ignored}' "$out"
}

# ------------------------------------------------------------------------------------------------------------ features
powerset() {
    local all set names n bit status
    mapfile -t all < <(sed -n '/^\[features\]/,/^\[[^f]/s/^\([a-z][a-z0-9_-]*\) *=.*/\1/p' Cargo.toml | grep -v '^default$')
    if [ "${#all[@]}" -gt 6 ]; then
        report "features" "2^${#all[@]} sets are too many: choose" 1
        return
    fi
    for ((set = 0; set < 1 << ${#all[@]}; set++)); do
        names=
        for ((n = 0, bit = 1; n < ${#all[@]}; n++, bit *= 2)); do
            if ((set & bit)); then names+="${names:+,}${all[n]}"; fi
        done
        RUSTFLAGS="-D warnings" timeout 300 cargo check --lib --no-default-features --features "$names" >"$out" 2>&1
        status=$?
        report "check, features: ${names:-none}" "library, no warnings" $status
        timeout 500 cargo clippy --all-targets --no-default-features --features "$names" -- -D warnings >"$out" 2>&1
        status=$?
        report "clippy, features: ${names:-none}" "all targets, no warnings" $status
    done
    timeout 500 cargo clippy --all-targets --all-features -- -D warnings >"$out" 2>&1
    report "clippy, all features at once" "all targets, no warnings" $?
}

# ------------------------------------------------------------------------------------------------------ second selector
second_selector() {
    local status
    # The examples first: their test starts them.
    (
        export RUSTFLAGS="--cfg mio_unsupported_force_poll_poll" CARGO_TARGET_DIR="$place/poll2"
        timeout 300 cargo build --examples && timeout 550 cargo test --tests --no-fail-fast
    ) >"$out" 2>&1
    status=$?
    report "tests on poll(2)" "$(tests_counted)" $status
}

# --------------------------------------------------------------------------------------------------------- panic=abort
# Without unwinding a panic ends the process, so tests that isolate or catch one cannot run; `matrix` is full of them.
# All others must. `memory` has a harness of its own, which knows no --skip.
abort() {
    local status test tests=() abort=(--config 'profile.dev.panic="abort"' --target-dir "$place/abort")
    RUSTFLAGS="-D warnings" timeout 300 cargo build --lib --examples --all-features "${abort[@]}" >"$out" 2>&1
    status=$?
    report "panic=abort, build" "library and examples, all features, no warnings" $status
    if ! cargo +nightly -V >/dev/null 2>&1; then
        printf 'SKIP  %-36s %s\n' "panic=abort, tests" "building tests so is for nightly, which is not here"
        return
    fi
    for test in tests/*.rs tests/*/main.rs; do
        test=$(basename "${test%/main.rs}" .rs)
        case $test in matrix | memory) ;; *) tests+=(--test "$test") ;; esac
    done
    abort+=(-Zpanic-abort-tests)
    (
        timeout 300 cargo +nightly build --examples "${abort[@]}" &&
            timeout 590 cargo +nightly test --lib "${tests[@]}" --no-fail-fast "${abort[@]}" -- "${needs_unwinding[@]}" &&
            timeout 300 cargo +nightly test --test memory "${abort[@]}"
    ) >"$out" 2>&1
    status=$?
    report "panic=abort, tests" "$(tests_counted); left out: what catches panics" $status
}
needs_unwinding=(--skip panic --skip test_handle_error --skip test_log_info --skip test_readwriteexc
    --skip flaw_06_ --skip the_check_of_stamps_knows_a_good_one --skip no_peer_begins_a_line_of_the_log
    --skip an_error_of_done_ends_the_connection --skip a_factory_cannot_reach_its_guest
    --skip is_not_dropped_inside_the_callback_that_ends_it --skip everybody_who_came_is_counted_once
    --skip nothing_is_allocated_for_a_length --skip of_500_clients) # the last two start themselves once more, which this way to
    # run tests does not allow

case " $parts " in *" features "*) powerset ;; esac
case " $parts " in *" selector "*) second_selector ;; esac
case " $parts " in *" abort "*) abort ;; esac
[ "$failures" -eq 0 ] || exit 1
