#!/usr/bin/env bash
# Whether mail_sink (examples/mail_sink) keeps its word: each mail that it said is stored is there, once, though it is killed
# in the middle of it (kill -9), and though it hands mails on to another one. With the clients of Python's smtplib.
#
# usage: scripts/mail_bars.sh [MAILS]     10000; SEED=N has the kills where they were
set -u
cd "$(dirname "$0")/.." || exit 1
source scripts/report.sh
mails=${1:-10000}
need python3 || { skip "the bars of mail_sink" "there is no python3"; exit 0; }
target=${CARGO_TARGET_DIR:-$PWD/target/mail-bars}
cargo build --quiet --release --manifest-path examples/mail_sink/Cargo.toml --target-dir "$target" || exit 1

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
# bar NAME MAILS CLIENTS KILLS [forward]
bar() {
    local name=$1 figures
    shift
    mkdir "$place/$name"
    figures=$(python3 scripts/mail_bars.py "$target/release/mail_sink" "$place/$name" "$@" 2>&1)
    report $? "$name" "$(tail -1 <<<"$figures")"
}
bar undisturbed "$mails" 50 0
bar killed "$mails" 50 10
bar handed-on "$((mails / 5))" 20 0 forward
bar handed-on-and-killed "$((mails / 5))" 20 5 forward
conclude
