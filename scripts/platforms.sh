#!/usr/bin/env bash
# Type-checks the library, with all features, for systems that are not at hand: with Debian's newest package of Rust and
# of its standard library's source, unpacked below the target directory and not installed. It runs nothing there.
# Prints a line for each platform; fails if one is not clean, skips with the reason where the packages are not to be had.
#
# usage: scripts/platforms.sh [TARGET...]
set -u
cd "$(dirname "$0")/.." || exit 1

platforms=("$@")
if [ $# -eq 0 ]; then
    platforms=(x86_64-pc-windows-msvc aarch64-apple-darwin x86_64-unknown-freebsd i686-unknown-linux-gnu)
fi

give_up() {
    printf 'SKIP  %-28s %s\n' "other platforms" "$1"
    exit 0
}
. scripts/debian_rust.sh

failures=0
mkdir -p "$place/out"
for platform in "${platforms[@]}"; do
    out=$place/out/$platform
    # Building the standard library is for nightly; the variable says that we know.
    if RUSTC=$rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS="-D warnings" timeout 300 cargo check --lib --all-features \
        -Zbuild-std=std,panic_abort --target "$platform" --target-dir "$place/check" >"$out" 2>&1; then
        printf 'PASS  %-28s %s\n' "$platform" "library, all features, no warnings ($version)"
    elif grep -q -E 'failed to (download|get|fetch)|could not (find specification|resolve host)' "$out"; then
        printf 'SKIP  %-28s %s\n' "$platform" "$(grep -m 1 -E '^error' "$out")"
    else
        printf 'FAIL  %-28s %s errors, %s warnings\n' "$platform" "$(grep -c '^error' "$out")" "$(grep -c '^warning' "$out")"
        grep -v -E '^ *(Compiling|Checking|Downloading|Downloaded|Updating) ' "$out" | head -n 60
        failures=$((failures + 1))
    fi
done
[ "$failures" -eq 0 ] || exit 1
