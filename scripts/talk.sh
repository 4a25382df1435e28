#!/usr/bin/env bash
# What examples/talk.rs promises, with real shells, pipes, files, sockets and terminals: every byte arrives (compared by checksum),
# its exit status, its memory (the most that was resident, at most 10 MiB more than of one that has nothing to pass on), and that what it shares with the
# shell is left as it was: no O_NONBLOCK, no terminal setting, no byte that is somebody else's. Its servers are small ones in Python.
# Prints a line for each with its figures, and fails if one fails; what cannot be tried here is skipped, with the reason. A minute.
set -u
cd "$(dirname "$0")/.." || exit 1
. scripts/report.sh

command -v python3 >/dev/null || { skip "talk" "python3 is not installed"; exit 0; }
cargo build --quiet --release --example talk || exit 1
talk=$(realpath "${CARGO_TARGET_DIR:-target}")/release/examples/talk

place=$(mktemp -d)
SECONDS=0 # without the build
server=
cleanup() {
    [ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null
    tmux -S "$place/tmux" kill-server 2>/dev/null
    rm -rf "$place"
}
trap cleanup EXIT

# check NAME FIGURES CONDITION…: the condition is a command.
check() {
    local name=$1 figures=$2
    shift 2
    if "$@"; then pass "$name" "$figures"; else fail "$name" "$figures"; fi
}
sum() { sha256sum "$@" | cut -c1-12; }

# ---------------------------------------------------------------------------------------------------------- servers

cat >"$place/server.py" <<'PY'
"""A server of one behaviour: it takes what it is sent down as `got`, and says how many bytes that were when it has ended."""
import array, fcntl, os, socket, struct, sys, termios, threading, time

how, place = sys.argv[1:3]
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
with open(f"{place}/{how}.new", "w") as at:
    at.write("127.0.0.1:%d" % listener.getsockname()[1])
os.rename(f"{place}/{how}.new", f"{place}/{how}.at")


def read_all(peer, rate=None):
    with open(f"{place}/got.new", "wb") as got:
        while piece := peer.recv(1 << 16 if rate is None else 1 << 14):
            got.write(piece)
            if rate:
                time.sleep(len(piece) / rate)
    os.rename(f"{place}/got.new", f"{place}/got")


def reset(peer):
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def fill(peer):
    """Until nothing more is taken; how much of it has left."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
    peer.setblocking(False)
    sent = waited = 0
    while waited < 25:
        try:
            sent, waited = sent + peer.send(b"x" * 4096), 0
        except BlockingIOError:
            time.sleep(0.02)
            waited += 1
    left = array.array("i", [0])
    fcntl.ioctl(peer, termios.TIOCOUTQ, left)
    return sent - left[0]


def serve(peer):
    if how == "sink":
        read_all(peer)
    elif how == "slow":  # 1 MB/s
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        read_all(peer, 1e6)
    elif how == "late":
        read_all(peer)
        time.sleep(2)
        peer.sendall(b"answer\n")
    elif how == "echo":
        while piece := peer.recv(1 << 16):
            peer.sendall(piece)
    elif how == "source":
        with open(f"{place}/file", "rb") as file:
            peer.sendfile(file)
    elif how == "bye":
        peer.sendall(b"bye\n")
    elif how == "reset":
        with open(f"{place}/said", "w") as said:
            said.write(str(fill(peer)))
        reset(peer)
    elif how == "short":  # the client has all of it, and nobody takes the last of it from a pipe of 64 KiB
        peer.sendall(b"y" * 75_000)
    peer.close()


def served(peer):
    try:
        serve(peer)
    except OSError:
        pass  # it broke off, which some are to do


while True:
    threading.Thread(target=served, args=(listener.accept()[0],), daemon=True).start()
PY

# serve HOW: starts such a server; its address is `at`.
serve() {
    [ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null
    rm -f "$place/$1.at" "$place/got"
    python3 "$place/server.py" "$1" "$place" &
    server=$!
    for _ in $(seq 100); do
        [ -e "$place/$1.at" ] && break
        sleep 0.05
    done
    at=$(cat "$place/$1.at")
}
got() {
    for _ in $(seq 100); do
        [ -e "$place/got" ] && break
        sleep 0.05
    done
    sum <"$place/got"
}

need time || { skip "talk" "time(1) is not installed, and apt-get does not install it"; exit 0; }
# Runs talk, and says in files the peak of its memory in KiB, its exit status, and 0 if the shell's standard input still
# blocks.
cat >"$place/run" <<'SH'
place=$1
shift
env time --quiet -f %M -o "$place/peak" "$@"
echo $? >"$place/status"
python3 -c 'import os, fcntl; print(fcntl.fcntl(0, fcntl.F_GETFL) & os.O_NONBLOCK)' >"$place/blocks"
SH
run() { timeout -k 5 60 bash "$place/run" "$place" "$talk" "$at"; }
status() { cat "$place/status"; }
peak() { printf '%s KiB' "$(cat "$place/peak")"; }
start=0 # the peak of one that has nothing to pass on
is_small() { [ "$(cat "$place/peak")" -le $((start + 10240)) ]; }
blocks() { [ "$(cat "$place/blocks")" = 0 ]; }
# is_well WANTED GOT: the same bytes, exit status 0, little memory, and standard input as it was.
is_well() { [ "$1" = "$2" ] && [ "$(status)" = 0 ] && is_small && blocks; }
figures() { printf '%s, exit %s, %s, O_NONBLOCK %s' "$1" "$(status)" "$(peak)" "$(cat "$place/blocks")"; }

head -c 100000000 /dev/urandom >"$place/file"
head -c 5000000 "$place/file" >"$place/small"
all=$(sum "$place/file")

# ------------------------------------------------------------------------------------------- what arrives, and its memory

serve sink
run </dev/null
start=$(cat "$place/peak")
check "talk < /dev/null" "$(figures "$(got)")" is_well "$(sum </dev/null)" "$(got)"

serve sink
printf 'a\nb\n' | run
check "printf | talk" "$(figures "$(got)")" is_well "$(printf 'a\nb\n' | sum)" "$(got)"

serve sink
run <"$place/file"
check "talk < file, 100 MB" "$(figures "$(got)")" is_well "$all" "$(got)"

serve sink
cat "$place/file" | run
check "cat file | talk, 100 MB" "$(figures "$(got)")" is_well "$all" "$(got)"

serve sink
{ echo first; cat "$place/file"; } >"$place/two"
(read -r x && [ "$x" = first ] && run) <"$place/two"
check "(read x; talk) < file" "$(figures "$(got)")" is_well "$all" "$(got)"
rm "$place/two"

serve source
run </dev/null >"$place/out"
check "talk > file, 100 MB" "$(figures "$(sum "$place/out")")" is_well "$all" "$(sum "$place/out")"

serve source
run </dev/null | cat >"$place/out"
check "talk | cat, 100 MB" "$(figures "$(sum "$place/out")")" is_well "$all" "$(sum "$place/out")"

serve echo
run <"$place/file" | cat >"$place/out"
check "talk < file | cat, 100 MB both ways" "$(figures "$(sum "$place/out")")" is_well "$all" "$(sum "$place/out")"

serve late
run <"$place/small" >"$place/out"
check "an answer after 2 s" "$(figures "$(cat "$place/out")")" is_well "$(sum "$place/small") answer" "$(got) $(cat "$place/out")"

serve slow
before=$(date +%s)
run <"$place/small"
took=$(($(date +%s) - before))
check "a server that reads 1 MB/s, 5 MB" "$(figures "$(got)"), $took s" is_well "$(sum "$place/small")" "$(got)"

serve short
run </dev/null | { sleep 12; cat; } >"$place/out"
check "nobody reads its output for 12 s after the end" "$(figures "$(wc -c <"$place/out") of 75000")" \
    is_well 75000 "$(wc -c <"$place/out")"

serve reset
{ run </dev/null 2>"$place/err"; } | { sleep 2; cat; } >"$place/out"
all_of_it() { [ "$(wc -c <"$place/out")" -ge "$(cat "$place/said")" ] && [ "$(status)" = 1 ] && [ "$(wc -l <"$place/err")" = 1 ]; }
check "a reset while nobody reads its output" "$(wc -c <"$place/out") of $(cat "$place/said"), exit $(status): $(cat "$place/err")" all_of_it

# ------------------------------------------------------------------------------------------------------------- output

serve bye
echo before >"$place/log"
cp "$place/log" "$place/wanted"
run </dev/null >"$place/log"
run </dev/null >>"$place/log"
check "talk > log; talk >> log" "$(tr '\n' ' ' <"$place/log")" [ "$(cat "$place/log")" = "$(printf 'bye\nbye')" ]
(
    echo heading
    run </dev/null
    echo rule
) >"$place/log"
check "(echo; talk; echo) > log" "$(tr '\n' ' ' <"$place/log")" [ "$(cat "$place/log")" = "$(printf 'heading\nbye\nrule')" ]

before=$(date +%s%N)
sleep 5 | { "$talk" "$at" >"$place/out"; printf '%s %s' "$?" $((($(date +%s%N) - before) / 1000000)) >"$place/ended"; }
read -r code took <"$place/ended" || true
ended_soon() { [ "$code" = 0 ] && [ "$took" -lt 4000 ]; }
check "a server that ends before its input" "exit $code after $took ms" ended_soon

# ----------------------------------------------------------------------------------------------- what is shared stays as it is

serve echo
if need socat; then
    printf 'exec bash %q/run %q %q %q' "$place" "$place" "$talk" "$at" >"$place/child" # socat has its own sense of colons
    echo hello | timeout 20 socat -t 10 - "EXEC:bash $place/child" >"$place/out"
    check "standard input a socket (socat EXEC)" "$(figures "$(cat "$place/out")")" is_well hello "$(cat "$place/out")"
else
    skip "standard input a socket (socat EXEC)" "socat is not installed, and apt-get does not install it"
fi
serve bye
if command -v script >/dev/null; then
    timeout 20 script -qec "bash $place/run $place $talk $at" /dev/null >"$place/out" < <(sleep 5)
    check "standard input a terminal (script)" "$(figures "$(tr -d '\r\n' <"$place/out")")" is_well bye "$(tr -d '\r\n' <"$place/out")"
else
    skip "standard input a terminal (script)" "script(1) is not installed"
fi

in_tmux() {
    tmux -S "$place/tmux" -f /dev/null new-session -d -x 100 -y 50 "env PS1='\$ ' bash --norc --noprofile" || return 2
    types() { tmux -S "$place/tmux" send-keys "$@"; }
    # shows TEXT: it is on the screen, within five seconds.
    shows() {
        for _ in $(seq 100); do
            tmux -S "$place/tmux" capture-pane -p >"$place/screen" && grep -qxF -- "$1" "$place/screen" && return
            sleep 0.05
        done
        return 1
    }
    types "stty -a >$place/before; echo ready" Enter
    shows ready || return 1
    types "$talk $at" Enter
    types "hello" Enter
    # Twice: as it was typed, and as it was answered.
    for _ in $(seq 100); do
        tmux -S "$place/tmux" capture-pane -p >"$place/screen"
        [ "$(grep -cxF hello "$place/screen")" = 2 ] && break
        sleep 0.05
    done
    [ "$(grep -cxF hello "$place/screen")" = 2 ] || return 1
    types C-c
    types "echo \$?; stty -a >$place/after; echo li''ne" Enter
    shows line && shows 130 && cmp -s "$place/before" "$place/after" || return 1
    types "python3 -c 'import os,fcntl;print(\"flag\",fcntl.fcntl(0,3)&os.O_NONBLOCK)'" Enter
    shows "flag 0"
}
serve echo
if need tmux; then
    name="a terminal (tmux), ended by Ctrl-C"
    if in_tmux; then
        pass "$name" "exit 130, stty -a is the same, the next line reaches the shell, O_NONBLOCK 0"
    else
        fail "$name" "$(grep -v '^$' "$place/screen" | tail -n 5 | tr '\n' '|')"
    fi
else
    skip "a terminal (tmux), ended by Ctrl-C" "tmux is not installed, and apt-get does not install it"
fi

# ------------------------------------------------------------------------------------------------------------- errors

serve bye
# complains NAME STATUS TEXT ENDED: the status with which it has ended, and the one line of errors in `err`; or none.
complains() {
    local name=$1 code=$2 text=$3 ended=$4
    said() {
        [ "$ended" = "$code" ] || return
        if [ -z "$text" ]; then [ ! -s "$place/err" ]; else [ "$(wc -l <"$place/err")" = 1 ] && grep -q -- "$text" "$place/err"; fi
    }
    check "$name" "exit $ended: $(cat "$place/err")" said
}
"$talk" "$at" <&- >"$place/out" 2>"$place/err"
complains "talk <&- is talk < /dev/null" 0 "" $?
sleep 1 | "$talk" "$at" 0> >(cat >/dev/null) >"$place/out" 2>"$place/err"
complains "standard input the write end of a pipe" 1 "standard input is not open for reading" "${PIPESTATUS[1]}"
"$talk" "$at" </ >"$place/out" 2>"$place/err"
complains "standard input a directory" 1 "standard input: a directory is not a stream" $?
sleep 5 | "$talk" "$at" 2>"$place/err" >/dev/full
complains "standard output full" 1 "cannot write to standard output: No space left" "${PIPESTATUS[1]}"
serve source
sleep 5 | "$talk" "$at" 2>"$place/err" | head -c 10 >/dev/null
complains "talk | head -c 10" 141 "" "${PIPESTATUS[1]}"
"$talk" 127.0.0.1:1 </dev/null 2>"$place/err"
complains "nobody listens" 1 "could not connect to 127.0.0.1:1: Connection refused" $?

conclude
