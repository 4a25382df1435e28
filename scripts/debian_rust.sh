# Debian's newest Rust with the source of its standard library, to be built for systems that are not at hand: unpacked below the
# target directory, and not installed. To be sourced, in the root of the project, after `give_up`, which ends the script with a reason.

place=${CARGO_TARGET_DIR:-$PWD/target}/platforms
tree=$place/tree
rustc=$place/rustc

unpack_rust() {
    command -v apt-get >/dev/null || give_up "apt-get is not here"
    [ "$(dpkg --print-architecture)" = amd64 ] || give_up "the packages are looked for on amd64 only"
    local as_root version short llvm package
    as_root=$([ "$(id -u)" = 0 ] || echo sudo)
    $as_root timeout 120 apt-get update >/dev/null 2>&1 || true
    version=$(apt-cache madison rustc-web | awk 'NR == 1 {print $3}')
    [ -n "$version" ] || give_up "Debian's archive has no rustc-web"
    short=$(cut -d. -f1,2 <<<"$version")
    llvm=$(apt-cache depends "rustc-web=$version" "libstd-rust-web-$short=$version" | grep -o 'libllvm[0-9]*' | head -n 1)
    mkdir -p "$place" && rm -rf "$tree" "$place"/*.deb || exit 1
    (
        cd "$place" || exit 1
        timeout 300 apt-get download "rustc-web=$version" "libstd-rust-web-$short=$version" \
            "libstd-rust-web-dev=$version" "rust-web-src=$version" ${llvm:+"$llvm"} >/dev/null 2>&1 || exit 1
        for package in *.deb; do dpkg -x "$package" tree || exit 1; done
        rm -f ./*.deb
    ) || give_up "Debian's packages of Rust $short could not be fetched"
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s/usr/bin/rustc "$@"\n' "$tree/usr/lib/x86_64-linux-gnu" "$tree" >"$rustc"
    chmod +x "$rustc"
}

"$rustc" -V >/dev/null 2>&1 || unpack_rust
version=$("$rustc" -V 2>/dev/null) || give_up "the unpacked Rust does not start here"
