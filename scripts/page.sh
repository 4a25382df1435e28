#!/usr/bin/env bash
# The room's page in a browser: examples/room/tests/page.mjs drives Debian's Chromium by playwright-core of npm. A line for each
# test, and pictures below the target directory, in page/. Loopback only. Fails if one fails; skips with the reason where the
# packages are not to be had. A minute and a half, without the build.
#
# usage: scripts/page.sh [PROGRAM]     another build of the room than the one that is made here
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/report.sh
give_up() {
    skip "the room's page" "$1"
    exit 0
}

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
place=$(realpath -m "$CARGO_TARGET_DIR")/page
mkdir -p "$place"

need node nodejs || give_up "node is not installed, and apt-get does not install it"
need chromium || give_up "chromium is not installed, and apt-get does not install it"
if [ ! -e "$place/node_modules/playwright-core/package.json" ]; then
    need npm || give_up "npm is not installed, and apt-get does not install it"
    npm install --prefix "$place" --no-save --no-package-lock --no-audit --no-fund --ignore-scripts playwright-core@1 \
        >"$place/npm.log" 2>&1 || give_up "npm does not install playwright-core: $(head -n 1 "$place/npm.log")"
fi

program=${1:-}
if [ -z "$program" ]; then
    cargo build --quiet --release --manifest-path examples/room/Cargo.toml --bin room
    program=$CARGO_TARGET_DIR/release/room
fi
CHROMIUM=$(command -v chromium) PLAYWRIGHT=$place SHOTS=$place timeout 600 node examples/room/tests/page.mjs "$program"
