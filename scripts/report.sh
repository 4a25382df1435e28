# What the scripts that assert one thing after the other share: a line for each, with its figures, and their status. To be
# sourced.

failed=0
pass() { printf 'PASS  %-52s %s\n' "$1" "${2:-}"; }
skip() { printf 'SKIP  %-52s %s\n' "$1" "${2:-}"; }
fail() {
    printf 'FAIL  %-52s %s\n' "$1" "${2:-}"
    failed=1
}
# report STATUS NAME FIGURES
report() {
    if [ "$1" -eq 0 ]; then pass "$2" "$3"; else fail "$2" "$3"; fi
}
# conclude: the last word.
conclude() {
    printf '%d s\n' "$SECONDS"
    exit "$failed"
}
# need PROGRAM [PACKAGE]: whether it is here, or could be installed.
need() { command -v "$1" >/dev/null || apt-get install -y "${2:-$1}" >/dev/null 2>&1; }
