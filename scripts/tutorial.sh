#!/usr/bin/env bash
# Does word by word what docs/tutorial/ says, in an empty folder: makes the package, takes its files from the pages, types what is
# typed there, on a free port in place of 7000, and compares all that is printed. Ends at the first difference, with status
# 1. What is missing here is skipped, with the reason. Two minutes, and once the time to build what the package depends on.
#
# usage: scripts/tutorial.sh
#
# The folder is outside the repository, or cargo would take it for a part of that; always the same one, so that nothing is built twice.
set -u
cd "$(dirname "$0")/.." || exit 1
. scripts/report.sh
command -v python3 >/dev/null || { skip "the tutorial" "python3 is not installed"; exit 0; }
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
case $CARGO_TARGET_DIR in /*) ;; *) CARGO_TARGET_DIR=$PWD/$CARGO_TARGET_DIR ;; esac
timeout -k 10 900 python3 scripts/tutorial.py "${TMPDIR:-/tmp}/mainspring-tutorial-$(cksum <<<"$PWD" | cut -d' ' -f1)"
