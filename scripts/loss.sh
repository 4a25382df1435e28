#!/usr/bin/env bash
# Datagrams over a network that loses every fifth of those to the server: as many answers as have come, byte for byte, no
# `failed`, and the socket stays. Its packets have 1,500 bytes, and what is longer comes in pieces, but not to a socket
# that asks for many at once. The network is a namespace of its own (unshare(1)) whose input hook drops (nft(8)): in the
# output hook the sender would be told. What is asserted is in tests/loss.rs.
# And a network that is slow (tc(8)), so that what is sent has to wait: tests/rules/datagrams/slow.rs.
# Prints a line with the figures; fails if it is not so, skips with the reason where there can be no such network.
set -u
cd "$(dirname "$0")/.." || exit 1

name="a network that loses a fifth"
at=127.0.0.1:7007

skip() {
    printf 'SKIP  %-40s %s\n' "$name" "$1"
    exit 0
}

fail() {
    printf 'FAIL  %-40s %s\n' "$name" "$1"
    exit 1
}

# Both within the namespace.
loses() {
    ip link set lo up mtu 1500 &&
        nft add table inet loss &&
        nft add chain inet loss input '{ type filter hook input priority 0; }' &&
        nft add rule inet loss input udp dport "${at##*:}" numgen random mod 100 '<' 20 drop
}
run() {
    LOSS_AT=$at timeout -k 5 120 "$1" --ignored --nocapture --test-threads=1
}
is_slow() {
    ip link set lo up &&
        tc qdisc add dev lo root tbf rate 4mbit burst 3000 latency 20s &&
        nft add table inet loss &&
        nft add chain inet loss input '{ type filter hook input priority 0; }' &&
        nft add rule inet loss input udp dport 7777 reject with icmp type admin-prohibited
}
case ${1:-} in
try-slow) is_slow && exit ;;
run-slow) is_slow && exec timeout -k 5 120 "$2" --ignored datagrams::slow --test-threads=1 ;;
try) loses && exit ;;
run) loses && run "$2" && exit ;;
esac
[ $# -eq 0 ] || exit 1

[ "$(id -u)" = 0 ] || skip "it takes root: a network of its own, and a rule in it"
command -v unshare >/dev/null || skip "unshare(1) is not installed"
for tool in nft:nftables ip:iproute2; do
    command -v "${tool%:*}" >/dev/null || apt-get install -y "${tool#*:}" >/dev/null 2>&1 ||
        skip "${tool%:*} is not installed, and apt-get does not install it"
done
unshare -n true 2>/dev/null || skip "no network of its own is allowed here (unshare(2))"
said=$(unshare -n scripts/loss.sh try 2>&1) || skip "this kernel takes no such rule: $(head -n 1 <<<"$said")"

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
# built NAME OPTIONS: where the test binary is.
built() {
    local name=$1 program
    shift
    program=$(cargo test --test "$name" "$@" --no-run --message-format=json 2>"$place/out" |
        sed -n "s/.*\"executable\":\"\([^\"]*\/$name-[^\"]*\)\".*/\1/p" | tail -n 1)
    if [ ! -x "$program" ]; then
        grep -E '^(error|warning)' "$place/out" >&2
        return 1
    fi
    printf '%s\n' "$program"
}

program=$(built loss --features udp-batch) || fail "the test binary \`loss\` does not build"
if ! unshare -n scripts/loss.sh run "$program" >"$place/out" 2>&1 </dev/null || grep -q '^skipped: ' "$place/out"; then
    grep -v -E '^(running|test |figures|$)' "$place/out" | head -n 20
    fail "$(sed -n 's/^figures: //p' "$place/out")"
fi
printf 'PASS  %-40s %s\n' "$name" "$(sed -n 's/^figures: //p' "$place/out" | paste -sd ';' | sed 's/;/; /g')"

name="a network that is slow"
said=$(unshare -n scripts/loss.sh try-slow 2>&1) || skip "there can be none: $(head -n 1 <<<"$said")"
program=$(built rules --features sim) || fail "the test binary \`rules\` does not build"
if ! unshare -n scripts/loss.sh run-slow "$program" >"$place/out" 2>&1 </dev/null; then
    grep -E 'FAILED|panicked' -A 3 "$place/out" | head -n 20
    fail "what waits does not leave as it should"
fi
printf 'PASS  %-40s %s\n' "$name" "$(sed -n 's/^test result: ok. //p' "$place/out")"
