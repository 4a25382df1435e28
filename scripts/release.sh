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
if ! grep -q "^## \[$version\]" CHANGELOG.md; then
    printf 'CHANGELOG.md has no section for %s: write one before you release it\n' "$version" >&2
    exit 1
fi
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
printf '%s can be released: CONTRIBUTING.md has the rest of the checklist\n' "$version"
