#!/usr/bin/env bash
# The test suite and the examples, cross-compiled for Windows and run under Wine: a line for each with its figures; what is left
# out there, with the reason; then Linux programs that talk with the examples. Fails if one fails; skips with the reason where the
# packages are not to be had. Wine is not Windows: what it says of the system is Wine's.
#
# Needs root (a chroot, and mount namespaces) on an amd64 Debian; takes 5 GB below the target directory and some
# 25 minutes on 2 cores, of which most is for building.
#
# usage: scripts/windows.sh [TEST...]     all tests and the examples, or these tests alone
set -u
cd "$(dirname "$0")/.." || exit 1
. scripts/report.sh
give_up() {
    skip Windows "$1"
    exit 0
}

[ "$(id -u)" = 0 ] || give_up "a chroot is root's to make"
unshare -m true 2>/dev/null || give_up "there are no mount namespaces here"
. scripts/debian_rust.sh
need x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64-win32 || give_up "Debian's mingw could not be installed"

# Wine 10 of Debian 13: Wine 8 has no source of randomness that std takes, and reads each reset as an end.
root=$(realpath -m "${CARGO_TARGET_DIR:-target}")/windows
chroot=$root/trixie
if [ ! -e "$chroot/wine/prefix/system.reg" ]; then
    need debootstrap || give_up "debootstrap could not be installed"
    mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | head -n 1)
    rm -rf --one-file-system "$chroot"
    mkdir -p "$root"
    timeout 600 debootstrap --variant=minbase --include=wine64,wine trixie "$chroot" "${mirror:-http://deb.debian.org/debian}" \
        >"$root/debootstrap.log" 2>&1 || give_up "Debian 13 with Wine could not be fetched: $(tail -n 1 "$root/debootstrap.log")"
    mkdir -p "$chroot/wine"
    cp /etc/hosts "$chroot/etc/" # or nobody is called localhost
fi

# wine FILE.exe [ARG...]: in the chroot, with this folder where it is. Its own words are dropped, those of the program are not.
cat >"$root/wine" <<END
#!/bin/bash
exec unshare -m --propagation private bash -c '
    mkdir -p "$chroot\$PWD" && mount --bind "\$PWD" "$chroot\$PWD" && mount --bind /proc "$chroot/proc" || exit 1
    mount --bind /dev "$chroot/dev" && mount --bind /tmp "$chroot/tmp" || exit 1
    exec chroot "$chroot" env -C "\$PWD" HOME=/wine WINEPREFIX=/wine/prefix WINEARCH=win64 WINEDEBUG=-all \\
        XDG_RUNTIME_DIR=/tmp /usr/lib/wine/wine64 "\$@"' wine "\$@"
END
chmod +x "$root/wine"
[ -e "$chroot/wine/prefix/system.reg" ] || timeout 300 "$root/wine" wineboot --init >/dev/null 2>&1
timeout 60 "$root/wine" cmd /c ver >"$root/ver" 2>&1 || give_up "Wine does not start here: $(tail -n 1 "$root/ver")"
printf '%s for Windows, under %s\n' "$version" "$("$root/wine" --version)"

SECONDS=0
features=sim,names,udp-batch,children,signals,tls
# Building the standard library is for nightly; the variable says that we know. What only Unix tests use is unused here.
build() {
    env CARGO_TARGET_DIR="$root/build" RUSTC="$rustc" RUSTC_BOOTSTRAP=1 RUSTFLAGS="-A unused" CARGO_INCREMENTAL=0 \
        CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc \
        cargo build --quiet --features "$features" -Zbuild-std=std,panic_unwind,test --target x86_64-pc-windows-gnu "$@"
}
build --tests --examples --message-format=json >"$root/built.json" 2>"$root/build.log" || {
    fail "it compiles" "$(grep -m 1 '^error' "$root/build.log")"
    grep -v '^warning' "$root/build.log" | head -n 40
    exit 1
}
report 0 "it compiles" "every test and every example, $SECONDS s"

# tests: name and program of each, as cargo says.
tests() {
    python3 - "$root/built.json" <<'END'
import json, sys
for line in open(sys.argv[1]):
    built = json.loads(line)
    if built.get("executable") and built["profile"]["test"] and "example" not in built["target"]["kind"]:
        print(built["target"]["name"], built["executable"])
END
}

# run NAME PROGRAM: no test waits for ever. Wine loses a race now and then: a test that fails is run once more, alone, and the line says so.
run() {
    local began=$SECONDS out=$root/$1.out status told failed_test failures again=""
    timeout -k 5 "${PATIENCE:-600}" "$root/wine" "$2" >"$out" 2>&1 </dev/null
    status=$?
    told=$(grep -a '^test result' "$out" | sed -E 's/test result: [A-Za-z]+\. //; s/; 0 (measured|filtered out).*//')
    failures=$(grep -a -oP '^test \K\S+(?= .*FAILED\r?$)' "$out")
    if [ $status = 101 ] && [[ $told = *"; $(wc -w <<<"$failures") failed;"* ]]; then
        status=0
        for failed_test in $failures; do
            if timeout -k 5 120 "$root/wine" "$2" --exact "$failed_test" >"$out.again" 2>&1 </dev/null; then
                again="$again, $failed_test at the second try"
            else
                status=101
            fi
        done
    fi
    if [[ $told = "0 passed; 0 failed; 0 ignored"* ]]; then
        skip "$1" "all of it is of Unix"
        return
    fi
    report $status "$1" "${told:-status $status}$again, $((SECONDS - began)) s"
    [ $status = 0 ] || grep -a -E '(\.\.\. FAILED|panicked at)$' "$out" | head -n 20
    grep -a -o 'ignored, .*' "$out" | sed 's/ignored, //' >>"$root/ignored"
}
: >"$root/ignored"
export MAINSPRING_SKIPS=$root/skips
rm -f "$MAINSPRING_SKIPS"
while read -r name program; do
    [ $# = 0 ] || [[ " $* " = *" $name "* ]] || continue
    run "$name" "$program"
done < <(tests)
# What a test leaves out by itself: tests/common/skips.rs.
[ ! -e "$MAINSPRING_SKIPS" ] || sed -E '/^memory /d; s/^[^ ]+ [^ ]+: //' "$MAINSPRING_SKIPS" >>"$root/ignored"
sort "$root/ignored" | uniq -c | while read -r count why; do skip "$count tests" "$why"; done

if [ $# = 0 ]; then
    cargo build --quiet --features tls --example transfer --example timestamp || exit 1
    python3 scripts/windows_clients.py "$root/wine" "$root/build/x86_64-pc-windows-gnu/debug/examples" \
        "${CARGO_TARGET_DIR:-target}/debug/examples" || failed=1
fi
conclude
