#!/usr/bin/env bash
# How ftp_server (examples/ftp_server) compares with pyftpdlib, which sends files by sendfile(2), in one run, by turns: a large file
# down and up, files of 1 KB with one client and with eight, and the most memory that each took. Three minutes.
#
# usage: scripts/ftp_bars.sh [ROUNDS [MEGABYTES]]     5 and 1000; FTP_SERVER=FILE is a program that is built already;
# PIN=yes gives the servers one processor, and the clients the other
set -u
cd "$(dirname "$0")/.." || exit 1
source scripts/report.sh
rounds=${1:-5} megabytes=${2:-1000}
for program in python3 curl taskset; do
    need $program || { skip "the bars of ftp_server" "there is no $program"; exit 0; }
done
target=${CARGO_TARGET_DIR:-$PWD/target/ftp-bars}
on() { if [ "${PIN:-no}" = yes ]; then taskset -c "$@"; else "${@:2}"; fi; }
if [ -z "${FTP_SERVER:-}" ]; then
    cargo build --quiet --release --manifest-path examples/ftp_server/Cargo.toml --target-dir "$target" || exit 1
    FTP_SERVER=$target/release/ftp_server
fi
cargo build --quiet --release --manifest-path benches/Cargo.toml --target-dir "$target" --bin ftpload || exit 1
venv=$PWD/target/ftp-bars/venv
if ! "$venv/bin/python" -c 'import pyftpdlib' 2>/dev/null; then
    python3 -m venv "$venv" && "$venv/bin/pip" install --quiet pyftpdlib==2.2.0 || {
        skip "the bars of ftp_server" "pyftpdlib cannot be installed"
        exit 0
    }
fi

place=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null; rm -rf "$place"' EXIT
mkdir -p "$place/served/small"
head -c "${megabytes}000000" /dev/urandom >"$place/served/large"
for n in $(seq 0 499); do head -c 1024 /dev/urandom >"$place/served/small/f$n"; done

# start NAME COMMAND...: a server on the first processor.
declare -A ports pid_of
start() {
    local name=$1
    shift
    local pin=()
    if [ "${PIN:-no}" = yes ]; then pin=(taskset -c 0); fi
    "${pin[@]}" "$@" >"$place/$name.out" 2>"$place/$name.err" &
    pid_of[$name]=$!
    pids+=($!)
    until (exec 3<>"/dev/tcp/127.0.0.1/${ports[$name]}") 2>/dev/null; do
        kill -0 "${pid_of[$name]}" 2>/dev/null || { cat "$place/$name.err" >&2; exit 1; }
    done
}
for name in ours theirs; do
    ports[$name]=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
done
start ours "$FTP_SERVER" --user user:12345:rw "$place/served" "127.0.0.1:${ports[ours]}"
start theirs "$venv/bin/python" scripts/ftp_bars.py "$place/served" "${ports[theirs]}"

# measure KIND NAME: bytes or files a second.
measure() {
    local at=127.0.0.1:${ports[$2]} url=ftp://user:12345@127.0.0.1:${ports[$2]}
    case $1 in
        down) on 1 curl -sS -o /dev/null -w '%{speed_download}\n' "$url/large" ;;
        up)
            on 1 curl -sS -T "$place/served/large" -w '%{speed_upload}\n' "$url/up" || return 1
            cmp "$place/served/large" "$place/served/up" >&2 || return 1
            rm -f "$place/served/up"
            sync # what is still to be written is nobody else's
            ;;
        small-*) on 1 "$target/release/ftpload" --clients "${1#small-}" --files 2000 "$at" ;;
    esac
}
# Each small file takes a port, and the system keeps that for a minute: of the 28,000 that there are some must be free.
ports_rest() {
    while [ "$(awk '$1 == "TCP:" { print $7 }' /proc/net/sockstat)" -gt 12000 ]; do sleep 1; done
}
kinds="down up small-1 small-8"
for ((round = 0; round <= rounds; round++)); do
    for kind in $kinds; do
        for name in ours theirs; do
            ports_rest
            figure=$(measure "$kind" "$name") || exit 1
            # The first round only warms.
            [ "$round" -eq 0 ] || echo "$figure" >>"$place/$kind.$name"
        done
    done
done

# ratio KIND: the median of the rounds' ratios.
ratio() {
    paste "$place/$1.ours" "$place/$1.theirs" | awk '{ printf "%.3f\n", $1 / $2 }' | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
}
# bar TITLE KIND UNIT DIVISOR LEAST
bar() {
    local is
    is=$(ratio "$2")
    best() { sort -n "$place/$1" | tail -1 | awk -v divisor="$2" '{ printf "%.0f", $1 / divisor }'; }
    report "$(awk -v is="$is" -v least="$5" 'BEGIN { print (is < least) }')" "$1" \
        "$is of pyftpdlib, at least $5 ($(best "$2.ours" "$4") and $(best "$2.theirs" "$4") $3 at best)"
}
bar "a file of $megabytes MB down" down MB/s 1000000 1.0
bar "a file of $megabytes MB up" up MB/s 1000000 1.0
bar "files of 1 KB down, one client" small-1 "a second" 1 1.5
bar "files of 1 KB down, eight clients" small-8 "a second" 1 2.5
memory() { awk '/VmHWM/ { print $2 }' "/proc/${pid_of[$1]}/status"; }
ours=$(memory ours) theirs=$(memory theirs)
report "$([ $((ours * 4)) -le "$theirs" ]; echo $?)" "the most memory" "$ours KB, at most a fourth of pyftpdlib's $theirs KB"
conclude
