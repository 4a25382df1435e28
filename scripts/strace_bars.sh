#!/usr/bin/env bash
# What the loop asks of the kernel, counted with strace: that it sleeps when nothing can be done, that no send can raise
# SIGPIPE, and what one echoed request or datagram costs. The servers are roles of the test binary `memory`.
# Prints a line for each bar; fails if one is not held. Skips where there is no strace.
set -u
cd "$(dirname "$0")/.." || exit 1

if ! command -v strace >/dev/null; then
    echo "SKIP  strace is not installed"
    exit 0
fi
if ! strace -o /dev/null true 2>/dev/null; then
    echo "SKIP  strace may not trace here (ptrace(2))"
    exit 0
fi

program=$(cargo test --test memory --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\/memory-[^"]*\)".*/\1/p' | tail -n 1)
if [ ! -x "$program" ]; then
    echo "FAIL  the test binary \`memory\` does not build"
    exit 1
fi

traces=$(mktemp -d)
trap 'rm -rf "$traces"' EXIT
failures=0

# bar WHAT FIGURES CONDITION...: the condition is a command.
bar() {
    local what=$1 figures=$2
    shift 2
    if "$@"; then
        printf 'PASS  %-60s %s\n' "$what" "$figures"
    else
        printf 'FAIL  %-60s %s\n' "$what" "$figures"
        failures=$((failures + 1))
    fi
}

# The part of a trace between the two marks, which are written by the traced server itself, and only what it called.
between() {
    sed -n '/write(1, "MARK begin/,/write(1, "MARK end/p' "$1" | sed -e '1d' -e '$d' | grep -v -e '^---' -e '^+++'
}

# count PATTERN FILE: how many lines begin with one of these calls.
count() {
    grep -c -E "^($1)\(" "$2"
}

waits='epoll_wait|epoll_pwait|epoll_pwait2|poll|ppoll'

# ------------------------------------------------------------------------------------------- the loop sleeps
seconds=3
most=$((2 * seconds))
kinds='paused congested throttled lingering'
for kind in $kinds; do
    strace -o "$traces/$kind" "$program" as-held "$kind" $seconds >"$traces/$kind.out" 2>&1 &
done
wait
for kind in $kinds; do
    if ! grep -q 'MARK end' "$traces/$kind.out"; then
        bar "100 $kind connections: the loop sleeps" "the server did not come to its end" false
        cat "$traces/$kind.out"
        continue
    fi
    between "$traces/$kind" >"$traces/part"
    slept=$(count "$waits" "$traces/part")
    calls=$(grep -c . "$traces/part")
    bar "100 $kind connections: the loop sleeps" "$slept waits and $((calls - slept)) other calls in $seconds s (at most $most waits)" \
        test "$slept" -ge 1 -a "$slept" -le "$most"
done

# ------------------------------------------------------------------------------------------- never SIGPIPE
strace -yy -o "$traces/sends" -e trace=write,writev,pwrite64,pwritev,sendto,sendmsg,sendmmsg,sendfile,splice \
    "$program" as-every-send >"$traces/sends.out" 2>&1 || cat "$traces/sends.out"
on_socket='^[a-z0-9]+\([0-9]+<(TCP|TCPv6|UNIX|UNIX-STREAM|socket)[:>]'
grep -E "$on_socket" "$traces/sends" >"$traces/part"
sends=$(grep -c -E '^(sendto|sendmsg|sendmmsg)\(' "$traces/part")
single=$(grep -c -E '^sendto\(' "$traces/part")
vectored=$(grep -c -E '^sendmsg\(' "$traces/part")
unix=$(grep -c -E '<UNIX' "$traces/part")
failed=$(grep -c -E '= -1 E(PIPE|CONNRESET)' "$traces/part")
unsafe=$(grep -E '^(sendto|sendmsg|sendmmsg)\(' "$traces/part" | grep -v -c MSG_NOSIGNAL)
plain=$(grep -v -c -E '^(sendto|sendmsg|sendmmsg)\(' "$traces/part")
signals=$(grep -c -e '--- SIGPIPE' "$traces/sends")
bar "every send on a socket carries MSG_NOSIGNAL" \
    "$sends sends ($single single, $vectored vectored, $unix on Unix sockets, $failed refused), $unsafe without" \
    test "$single" -gt 0 -a "$vectored" -gt 0 -a "$unix" -gt 0 -a "$unsafe" -eq 0
bar "no plain write or writev on a socket, no SIGPIPE" "$plain writes, $signals signals" test "$plain" -eq 0 -a "$signals" -eq 0

# ------------------------------------------------------------------------------------------- one echoed request
# echoes CONNECTIONS ROUNDS
echoes() {
    local connections=$1 rounds=$2 requests=$(($1 * $2)) what recvs sends waited others
    what="$requests echoed requests on $connections warm connection(s)"
    strace -o "$traces/echo" "$program" as-echo "$connections" "$rounds" >"$traces/echo.out" 2>&1 || cat "$traces/echo.out"
    between "$traces/echo" >"$traces/part"
    recvs=$(count 'recvfrom|recvmsg|read' "$traces/part")
    sends=$(count 'sendto|sendmsg' "$traces/part")
    waited=$(count "$waits" "$traces/part")
    others=$(($(grep -c . "$traces/part") - recvs - sends - waited))
    bar "$what" "$recvs recv, $sends send, $waited waits, $others others" \
        test "$recvs" -eq "$requests" -a "$sends" -eq "$requests" -a "$waited" -le "$requests" -a "$others" -eq 0
    if [ "$others" -ne 0 ]; then
        grep -v -E "^(recvfrom|recvmsg|read|sendto|sendmsg|$waits)\(" "$traces/part" | head -n 5
    fi
}
echoes 1 1000
echoes 64 100

# ------------------------------------------------------------------------------------------- one echoed datagram
# datagrams COUNT
datagrams() {
    strace -o "$traces/datagrams" "$program" as-datagrams "$1" >"$traces/datagrams.out" 2>&1 || cat "$traces/datagrams.out"
    between "$traces/datagrams" >"$traces/part"
}
datagrams 1
names=$(sed -E 's/^([a-z0-9_]+)\(.*/\1/' "$traces/part" | tr '\n' ' ')
bar "an idle server's echo of one datagram" "$names" \
    grep -q -E "^($waits) recvfrom sendto recvfrom \$" <<<"$names"
bar "its last call says that nothing is left" "$(tail -n 1 "$traces/part" | grep -o '= .*')" \
    grep -q -E '^recvfrom\(.*= -1 EAGAIN' <(tail -n 1 "$traces/part")
datagrams 1000
recvs=$(count recvfrom "$traces/part")
sends=$(count sendto "$traces/part")
waited=$(count "$waits" "$traces/part")
others=$(($(grep -c . "$traces/part") - recvs - sends - waited))
bar "1000 echoed datagrams, one after the other" "$recvs recv, $sends send, $waited waits, $others others (at most 1010 waits)" \
    test "$recvs" -le 2010 -a "$sends" -eq 1000 -a "$waited" -ge 1 -a "$waited" -le 1010 -a "$others" -eq 0

if [ "$failures" -ne 0 ]; then
    echo "$failures bar(s) not held"
    exit 1
fi
