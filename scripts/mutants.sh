#!/usr/bin/env bash
# Runs cargo-mutants over what is decided without a socket: scripts/mutants.sh [NAME...], of src/NAME.rs; all those below if
# none is named.
# First every mutant against the unit tests, about a second each; then those that survived against more of the suite as well.
# Prints a table, and each survivor; fails if there is one that docs/reliability.md does not explain. About a quarter of an hour
# on an idle machine.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! cargo mutants --version >/dev/null 2>&1; then
    echo "cargo-mutants is missing: cargo install --locked cargo-mutants" >&2
    exit 1
fi
if [ $# -eq 0 ]; then
    set -- framing/mod framing/terminator framing/framers framing/needle framing/input timers endpoint/slots output
fi

out=target/mutants
rm -rf "$out"
mkdir -p "$out/unit" "$out/suite"
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0 MODEL_SEEDS=300
ulimit -v 8000000 2>/dev/null || true # some mutants allocate for ever

# mutants DIRECTORY OPTION...: which tests are built and run is said with -C, because what comes after `--` is not passed to
# the build.
mutants() {
    local to=$1 code=0
    shift
    nice -n 10 cargo mutants --jobs 1 --output "$out/$to" --no-times --exclude-re 'impl fmt::(Debug|Display)' "$@" || code=$?
    case $code in 0 | 2 | 3) ;; *) exit "$code" ;; esac # 2: some survived; 3: some never ended
}

files=()
for name in "$@"; do files+=(--file "src/$name.rs"); done
mutants unit "${files[@]}" --timeout 10 -C=--lib

unit=$out/unit/mutants.out suite=$out/suite/mutants.out
if [ -s "$unit/missed.txt" ]; then
    survivors=()
    while read -r name; do survivors+=(--re "^$(sed 's/[][\\.*^$+?(){}|]/\\&/g' <<<"$name")\$"); done <"$unit/missed.txt"
    tests=(-C=--lib)
    for test in rules asynchat cuts model; do tests+=("-C=--test=$test"); done
    mutants suite "${files[@]}" --timeout 300 --features sim "${survivors[@]}" "${tests[@]}"
else
    mkdir -p "$suite"
    touch "$suite/missed.txt"
fi

echo '| file | mutants | do not compile | caught by unit tests | of these never ended | caught by the suite | survive |'
echo '|---|---|---|---|---|---|---|'
for name in "$@"; do
    # of LIST...: how many of this file are on these lists.
    of() { cat "$@" | grep -c "^src/$name.rs:" || true; }
    survive=$(of "$suite/missed.txt")
    printf '| %s.rs | %d | %d | %d | %d | %d | %d |\n' "$name" "$(of "$unit"/{caught,missed,timeout,unviable}.txt)" \
        "$(of "$unit/unviable.txt")" "$(of "$unit"/{caught,timeout}.txt)" "$(of "$unit/timeout.txt")" \
        $(($(of "$unit/missed.txt") - survive)) "$survive"
done

echo
sed 's/^\([^:]*\):[0-9]*:[0-9]*: /\1: /' "$suite/missed.txt" | sort >"$out/survivors"
sed -n 's/^\* `\(src\/[^`]*\)`: .*/\1/p' docs/reliability.md | sort >"$out/explained"
sed 's/^/survives: /' "$suite/missed.txt"
unexplained=$(comm -23 "$out/survivors" "$out/explained")
if [ -n "$unexplained" ]; then
    sed 's/^/not explained in docs\/reliability.md: /' <<<"$unexplained"
    exit 1
fi
