#!/usr/bin/env bash
# The functional tests of pyftpdlib 2.0.1, in clear and in TLS, against ftp_server (examples/ftp_server): how many pass, and what
# becomes of each of the others. Two minutes.
#
# usage: scripts/ftp_suite.sh [PYTEST-ARGUMENT]...
#
# as `-k TestFtpAbort -x`. FTP_SERVER=FILE is another program with such options; TEXTS=yes wants pyftpdlib's words too, not only its
# codes.
set -u
cd "$(dirname "$0")/.." || exit 1
source scripts/report.sh
need python3 || { skip "the tests of pyftpdlib" "there is no python3"; exit 0; }
target=${CARGO_TARGET_DIR:-$PWD/target/ftp-suite}
if [ -z "${FTP_SERVER:-}" ]; then
    cargo build --quiet --release --manifest-path examples/ftp_server/Cargo.toml --target-dir "$target" || exit 1
    FTP_SERVER=$target/release/ftp_server
fi
venv=$PWD/target/ftp-suite/venv
if ! "$venv/bin/python" -c 'import pyftpdlib.test, pytest, OpenSSL, psutil' 2>/dev/null; then
    python3 -m venv "$venv" && "$venv/bin/pip" install --quiet pyftpdlib==2.0.1 pyopenssl psutil pytest || {
        skip "the tests of pyftpdlib" "they cannot be installed"
        exit 0
    }
fi
timeout 1200 "$venv/bin/python" scripts/ftp_suite.py ${TEXTS:+--texts} "$FTP_SERVER" "$@"
