#!/usr/bin/env bash
# Faults on real sockets, on the loopback: errors that strace(1) injects, few descriptors, peers that stop, connections that
# are killed and reset, SIGPIPE in a C program, many connections held and many more that come and go. What is asserted of
# each is in tests/faults.rs; this runs those tests, the ignored ones included, one at a time, and bounded in time.
# Prints a line for each with its figures; fails if one failed, skips with the reason what cannot be done here.
#
# usage: scripts/faults.sh [WORD...]    only those with such a word in their names
set -u
cd "$(dirname "$0")/.." || exit 1

# Optimised: the large ones take a minute even so. FAULTS_PROFILE=sim has the debug assertions too.
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
program=$(cargo test --profile "${FAULTS_PROFILE:-release}" --test faults --no-run --message-format=json 2>"$place/out" |
    sed -n 's/.*"executable":"\([^"]*\/faults-[^"]*\)".*/\1/p' | tail -n 1)
if [ ! -x "$program" ]; then
    echo "FAIL  the test binary \`faults\` does not build"
    grep -E '^(error|warning)' "$place/out"
    exit 1
fi

# A C program as the host: SIGPIPE has its default action, and Rust's start-up, which would ignore it, is kept from that.
c_host() {
    cat >"$place/keep.c" <<'C'
#include <signal.h>
#include <string.h>
typedef void (*handler)(int);
handler signal(int number, handler what) {
    struct sigaction now, before;
    if (number == SIGPIPE)
        return SIG_DFL;
    memset(&now, 0, sizeof now);
    now.sa_handler = what;
    return sigaction(number, &now, &before) == 0 ? before.sa_handler : SIG_ERR;
}
C
    cat >"$place/host.c" <<'C'
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
int main(int count, char **words) {
    sigset_t none;
    (void)count;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setenv("LD_PRELOAD", KEEP, 1);
    execv(words[1], words + 1);
    return 127;
}
C
    cc -shared -fPIC -o "$place/keep.so" "$place/keep.c" &&
        cc -DKEEP="\"$place/keep.so\"" -o "$place/host" "$place/host.c"
}
if command -v cc >/dev/null; then
    c_host && export MAINSPRING_C_HOST=$place/host
fi

failures=0
while read -r name; do
    if [ $# -gt 0 ] && ! grep -q -F "$(printf '%s\n' "$@")" <<<"$name"; then
        continue
    fi
    timeout -k 5 590 "$program" --exact "$name" --include-ignored --nocapture --test-threads=1 >"$place/out" 2>&1 </dev/null
    status=$?
    said=$(sed -n 's/^\(figures\|skipped\): //p' "$place/out" | tail -n 1)
    if [ $status -ne 0 ]; then
        printf 'FAIL  %s\n' "$name"
        [ $status -ne 124 ] || echo "      it took longer than 590 s"
        grep -v -E '^(running|test |figures|$)' "$place/out" | head -n 20 | sed 's/^/      /'
        failures=$((failures + 1))
    elif grep -q '^skipped: ' "$place/out"; then
        printf 'SKIP  %s\n      %s\n' "$name" "$said"
    else
        printf 'PASS  %s\n' "$name"
        [ -z "$said" ] || printf '      %s\n' "$said"
    fi
done < <("$program" --list --format terse 2>/dev/null | sed -n 's/: test$//p' | grep -v '^plays_a_role$')

if [ "$failures" -ne 0 ]; then
    echo "$failures failed"
    exit 1
fi
