#!/usr/bin/env bash
# What a release must pass beyond .ci/run: the package as a registry would take it, its licences and sources, and, once there is a
# release to compare with, whether the version says what has changed of the interface. Its tools take minutes to be built, once.
#
# usage: scripts/release.sh [BASELINE]     a revision of git, such as v0.1.0; without it the interface is compared with nothing
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/target/tools
export PATH=$tools/bin:$PATH

# tool NAME: is there, or is built.
tool() {
    command -v "$1" >/dev/null || cargo install --quiet --locked --root "$tools" "$1"
}

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
if [ -n "$(git status --porcelain)" ]; then
    printf 'commit your changes first: a release is a commit\n' >&2
    exit 1
fi

cargo publish --dry-run
tool cargo-deny
cargo deny check licenses bans sources
if cargo deny fetch db >/dev/null 2>&1; then
    cargo deny check advisories
else
    printf 'skipped: the advisories, because their database cannot be fetched\n' >&2
fi
if [ -n "${1:-}" ]; then
    tool cargo-semver-checks
    cargo semver-checks --all-features --baseline-rev "$1"
else
    printf 'skipped: the comparison of the interface, because no BASELINE was given\n' >&2
fi

missing=0
if ! grep -qE "^## \[$version\] - [0-9]{4}-[0-9]{2}-[0-9]{2}$" CHANGELOG.md; then
    printf 'CHANGELOG.md has no section "## [%s] - DATE"\n' "$version" >&2
    missing=1
fi
if git grep -nE 'not published yet|URL-OF-THE-REPOSITORY|owner is a placeholder' -- '*.md' Cargo.toml; then
    printf 'these lines are for the time before the first release: write what is true after it\n' >&2
    missing=1
fi
[ "$missing" = 0 ] || exit 1
printf '%s can be released: CONTRIBUTING.md has the rest of the checklist\n' "$version"
