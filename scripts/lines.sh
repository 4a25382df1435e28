#!/usr/bin/env bash
# The example `lines` as a user meets it: a child's outputs, its end and signals. Prints a line for each thing that is asserted, with its
# figures; fails if one is not so.
#
# usage: scripts/lines.sh [MEGABYTES]     this many by each output; 100
set -u
cd "$(dirname "$0")/.." || exit 1
. scripts/report.sh
cargo build --quiet --release --features children,signals --example lines || exit 1
lines=$PWD/target/release/examples/lines
bytes=$((${1:-100} * 1000000))
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
SECONDS=0 # without the build

# The most memory that a process has had, in KiB, as it is once its outputs have ended.
cat >"$place/measured" <<'END'
import os, sys
pid = os.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(pid, 0)
open(sys.argv[1], "w").write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
END
measured() { python3 "$place/measured" "$@"; }

# ------------------------------------------------------------------------------------------------------------- outputs
timeout 20 "$lines" -- sh -c 'echo a; echo b >&2; exit 7' >"$place/out"
status=$?
[ $status -eq 7 ] && grep -q 'out  a$' "$place/out" && grep -q 'err  b$' "$place/out"
report $? "both outputs, and the exit status" "$status"

measured "$place/idle" timeout 20 "$lines" -- true
writer='head -c $1 /dev/zero | tr "\0" x | fold -w 99; head -c $1 /dev/zero | tr "\0" y | fold -w 99 >&2; exit 3'
began=$SECONDS
measured "$place/busy" timeout 300 "$lines" -- sh -c "$writer" sh "$bytes" |
    awk '{bytes[$2] += length($3)} END {print bytes["out"] + 0, bytes["err"] + 0}' >"$place/sums"
status=${PIPESTATUS[0]}
grown=$(($(cat "$place/busy") - $(cat "$place/idle")))
[ "$status" -eq 3 ] && [ "$(cat "$place/sums")" = "$bytes $bytes" ] && [ $grown -le 5120 ]
report $? "each byte of both, and the memory" "$(cat "$place/sums") bytes, $grown KiB more, $((SECONDS - began)) s"

(timeout 20 "$lines" -- sh -c 'yes | head -c 300000; printf end' & wait $!) | (sleep 2; wc -c) >"$place/sums"
[ "$(cat "$place/sums")" -eq $((150000 * 20 + 22)) ]
report $? "a reader that is late, after the command has ended" "$(cat "$place/sums") bytes"

began=$(date +%s%N)
timeout 20 "$lines" -- sh -c '(sleep 60) & printf x' >"$place/out"
took=$((($(date +%s%N) - began) / 1000000))
[ $took -lt 2000 ] && grep -q 'out  x$' "$place/out"
report $? "a grandchild holds the outputs" "$took ms"
pkill -x -f 'sleep 60'

timeout 20 "$lines" -- yes | head -n 1 >"$place/out"
status=${PIPESTATUS[0]}
[ "$status" -eq 141 ]
report $? "nobody reads it any more" "$status"

# ------------------------------------------------------------------------------------------------------------- signals
for signal in INT TERM; do
    mkfifo "$place/$signal"
    timeout 20 "$lines" -- sh -c "trap 'echo caught; exit 5' $signal; echo ready; while :; do sleep 0.1; done" \
        </dev/null >"$place/$signal" &
    exec 3<"$place/$signal"
    read -r _ <&3
    pkill -$signal -f -x "$lines -- .*"
    caught=$(cat <&3)
    wait $!
    status=$?
    exec 3<&-
    [ $status -eq 5 ] && [[ $caught == *caught ]]
    report $? "SIG$signal goes to the command" "$status"
done
timeout 20 "$lines" -- sh -c 'kill -9 $$'
status=$?
[ $status -eq 137 ]
report $? "killed, and by which signal" "$status"

# ------------------------------------------------------------------------------------------------------- without pidfd
if command -v strace >/dev/null || apt-get install -y strace >/dev/null 2>&1; then
    for error in ENOSYS EPERM; do
        began=$(date +%s%N)
        timeout 20 strace -f -o "$place/trace" -e trace=pidfd_open -e inject=pidfd_open:error=$error \
            "$lines" -- sh -c 'sleep 0.3; exit 4' >/dev/null
        status=$?
        took=$((($(date +%s%N) - began) / 1000000))
        [ $status -eq 4 ] && grep -q "$error" "$place/trace"
        report $? "pidfd_open fails with $error" "exit status $status after $took ms, of which 300 are the command's"
    done
else
    skip "pidfd_open fails" "strace is not here"
fi
conclude
