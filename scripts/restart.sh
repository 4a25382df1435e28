#!/usr/bin/env bash
# The example `restart` as an operator meets it: clients without a pause, each with a connection for each line, and restarts meanwhile. Prints
# a line for each thing that is asserted, with its figures; fails if one is not so.
#
# usage: scripts/restart.sh [CONNECTIONS [RESTARTS]]     10000 and 3; by 8 clients
set -u
cd "$(dirname "$0")/.." || exit 1
. scripts/report.sh
cargo build --quiet --release --features children,signals --example restart || exit 1
program=$PWD/target/release/examples/restart
connections=${1:-10000} restarts=${2:-3}
place=$(mktemp -d)
# Whoever is left.
finish() {
    { jobs -p; sed -n 's/.* process \([0-9]*\) is to take over$/\1/p' "$place/log"; } | xargs -r kill -KILL 2>/dev/null
    rm -rf "$place"
}
trap finish EXIT
SECONDS=0 # without the build

# The clients. What they met goes to a file, a line each: how many, and what; a restart waits until a number of them have
# been answered.
cat >"$place/clients" <<'END_OF_CLIENTS'
import collections, socket, subprocess, sys, threading, time

port, connections, restarts, place = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
first = int(sys.argv[5])
met, answered_by, ports = collections.Counter(), collections.Counter(), set()
lock, gone = threading.Lock(), []


def client(count):
    for nth in range(count):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                if nth % 16 == 0:
                    time.sleep(0.005)  # its line is on its way for this long
                connection.sendall(b"hello\n")
                said = b""
                while more := connection.recv(100):
                    said += more
            number, _, rest = said.partition(b" ")
            outcome = "answered" if rest == b"hello\n" else "closed unanswered"
        except ConnectionRefusedError:
            outcome = "refused"
        except (ConnectionResetError, BrokenPipeError):
            outcome = "reset"
        except OSError as error:
            outcome = type(error).__name__
        with lock:
            met[outcome] += 1
            if outcome == "answered":
                answered_by[int(number)] += 1


def is_alive(number):
    try:
        return open(f"/proc/{number}/stat").read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def restart():
    serving = first
    for nth in range(1, restarts + 1):
        while sum(met.values()) < nth * connections // (restarts + 1):
            time.sleep(0.001)
        known = set(answered_by)
        subprocess.run(["kill", "-HUP", str(serving)])
        while not (newer := set(answered_by) - known):
            time.sleep(0.001)
        old, serving = serving, newer.pop()
        gone.append(old)


clients = [threading.Thread(target=client, args=(connections // 8,)) for _ in range(8)]
began = time.monotonic()
operator = threading.Thread(target=restart, daemon=True)
operator.start()
for one in clients:
    one.start()
for one in clients:
    one.join()
took = time.monotonic() - began
operator.join(20)
last = [number for number in answered_by if number not in gone]
until = time.monotonic() + 20
while any(map(is_alive, gone)) and time.monotonic() < until:
    time.sleep(0.01)
with open(place + "/met", "w") as figures:
    for outcome in ["answered", "refused", "reset", "closed unanswered"]:
        print(met.pop(outcome, 0), outcome, file=figures)
    print(sum(met.values()), "anything else", *met, file=figures)
    print(len(answered_by), "processes", file=figures)
    print(sum(map(is_alive, gone)), "old ones alive", file=figures)
    print(" ".join(map(str, last)), "serving", file=figures)
    print(f"{took:.1f}", "seconds", file=figures)
END_OF_CLIENTS

"$program" 127.0.0.1:0 >"$place/out" 2>"$place/log" &
first=$!
while ! grep -qs '^listening on ' "$place/out"; do
    kill -0 $first 2>/dev/null || exit 1
    sleep 0.05
done
address=$(sed -n 's/^listening on //p' "$place/out")
timeout 300 python3 "$place/clients" "${address##*:}" "$connections" "$restarts" "$place" $first
figure() { awk -v what="$1" '{count = $1; $1 = ""; if (substr($0, 2, length(what)) == what) print count}' "$place/met"; }

[ "$(figure answered)" -eq "$connections" ]
report $? "answers" "$(figure answered) of $connections in $(figure seconds) s"
for what in refused reset "closed unanswered" "anything else"; do
    [ "$(figure "$what")" -eq 0 ]
    report $? "$what" "$(figure "$what")"
done
[ "$(figure processes)" -eq $((restarts + 1)) ]
report $? "processes that have answered" "$(figure processes)"
[ "$(figure old)" -eq 0 ] && [ "$(grep -c ': ended$' "$place/log")" -eq "$restarts" ]
report $? "the old ones have ended by themselves" "$(grep -c ': ended$' "$place/log") of $restarts"
wait $first
status=$?
[ $status -eq 0 ]
report $? "exit status of the first" "$status"
last=$(figure serving)
connects() { python3 -c "import socket; socket.create_connection(('127.0.0.1', ${address##*:}))" 2>/dev/null; }
connects
report $? "the port is the same" "$address"
kill -TERM "$last"
for _ in $(seq 200); do
    kill -0 "$last" 2>/dev/null || break
    sleep 0.05
done
! kill -0 "$last" 2>/dev/null && ! connects
report $? "SIGTERM ends the last one, and nobody listens" "$last"
[ $failed -eq 0 ] || cat "$place/log"
conclude
