#!/usr/bin/env bash
# Type-checks the library, with all features, for systems that are not at hand: with Debian's newest package of Rust and
# of its standard library's source, unpacked below the target directory and not installed. It runs nothing there.
# Prints a line a platform; fails if one is not clean, skips with the reason where the packages are not to be had.
#
# usage: scripts/platforms.sh [TARGET...]
set -u
cd "$(dirname "$0")/.." || exit 1

platforms=("$@")
if [ $# -eq 0 ]; then
    platforms=(x86_64-pc-windows-msvc aarch64-apple-darwin x86_64-unknown-freebsd i686-unknown-linux-gnu)
fi
place=${CARGO_TARGET_DIR:-$PWD/target}/platforms
tree=$place/tree
rustc=$place/rustc
libraries=$tree/usr/lib/x86_64-linux-gnu

skip() {
    printf 'SKIP  %-28s %s\n' "other platforms" "$1"
    exit 0
}

unpack() {
    command -v apt-get >/dev/null || skip "apt-get is not here"
    [ "$(dpkg --print-architecture)" = amd64 ] || skip "the packages are looked for on amd64 only"
    local as_root version short llvm package
    as_root=$([ "$(id -u)" = 0 ] || echo sudo)
    $as_root timeout 120 apt-get update >/dev/null 2>&1 || true
    version=$(apt-cache madison rustc-web | awk 'NR == 1 {print $3}')
    [ -n "$version" ] || skip "Debian's archive has no rustc-web"
    short=$(cut -d. -f1,2 <<<"$version")
    llvm=$(apt-cache depends "rustc-web=$version" "libstd-rust-web-$short=$version" | grep -o 'libllvm[0-9]*' | head -n 1)
    mkdir -p "$place" && rm -rf "$tree" "$place"/*.deb || exit 1
    (
        cd "$place" || exit 1
        timeout 300 apt-get download "rustc-web=$version" "libstd-rust-web-$short=$version" \
            "libstd-rust-web-dev=$version" "rust-web-src=$version" ${llvm:+"$llvm"} >/dev/null 2>&1 || exit 1
        for package in *.deb; do dpkg -x "$package" tree || exit 1; done
        rm -f ./*.deb
    ) || skip "Debian's packages of Rust $short could not be fetched"
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s/usr/bin/rustc "$@"\n' "$libraries" "$tree" >"$rustc"
    chmod +x "$rustc"
}

"$rustc" -V >/dev/null 2>&1 || unpack
version=$("$rustc" -V 2>/dev/null) || skip "the unpacked Rust does not start here"

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
