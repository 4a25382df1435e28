#!/usr/bin/env bash
# Type-checks the library with the oldest Rust that we promise. Where rustup has it, with that; on Debian with its package
# of it, unpacked into target/msrv and not installed. Says why it skips where neither is to be had.
set -euo pipefail
cd "$(dirname "$0")/.."
msrv=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

skip() {
    echo "skipped: $1"
    exit 0
}

if command -v rustup >/dev/null && rustup toolchain list | grep -q "^$msrv"; then
    exec cargo "+$msrv" check --lib --all-features --target-dir target/msrv
fi
command -v apt-get >/dev/null || skip "neither rustup with Rust $msrv nor apt-get is here"

tree=$PWD/target/msrv/tree
if [ ! -x "$tree/usr/bin/rustc" ]; then
    mkdir -p "$tree/.."
    cd "$tree/.."
    as_root=$([ "$(id -u)" = 0 ] || echo sudo)
    $as_root apt-get update >/dev/null 2>&1 || true
    version=$(apt-cache madison rustc-web | awk -v want="$msrv" '$3 ~ "^" want {print $3; exit}')
    [ -n "$version" ] || skip "Debian's archive has no package of Rust $msrv"
    apt-get download "rustc-web=$version" "libstd-rust-web-$msrv=$version" "libstd-rust-web-dev=$version" >/dev/null 2>&1 ||
        skip "the package of Rust $msrv could not be fetched"
    for package in *.deb; do dpkg -x "$package" tree; done
    # What rustc needs besides itself.
    if ! LD_LIBRARY_PATH="$tree/usr/lib/x86_64-linux-gnu" "$tree/usr/bin/rustc" -V >/dev/null 2>&1; then
        $as_root apt-get install -y libllvm19 >/dev/null 2>&1 || skip "libllvm19 could not be installed"
    fi
    cd - >/dev/null
fi

wrapper=$PWD/target/msrv/rustc
printf '#!/bin/sh\nLD_LIBRARY_PATH=%s/usr/lib/x86_64-linux-gnu exec %s/usr/bin/rustc "$@"\n' "$tree" "$tree" >"$wrapper"
chmod +x "$wrapper"
"$wrapper" -V || skip "the unpacked Rust $msrv does not start here"
RUSTC=$wrapper cargo check --lib --all-features --target-dir target/msrv
