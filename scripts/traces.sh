#!/usr/bin/env bash
# The same seed gives the same trace in every build: 200 seeds of the model test (tests/model/), unoptimised, optimised
# with assertions, and optimised without. Prints the digest of each; fails if they differ.
set -euo pipefail
cd "$(dirname "$0")/.."

digests=()
for profile in dev sim release; do
    digest=$(cargo test --quiet --profile "$profile" --features sim --test model -- --exact --nocapture the_traces_have_a_digest |
        sed -n 's/.*the traces of 200 seeds: //p')
    printf '%-8s %s\n' "$profile" "${digest:-did not run}"
    digests+=("$digest")
done
[ -n "${digests[0]}" ] && [ "${digests[0]}" = "${digests[1]}" ] && [ "${digests[0]}" = "${digests[2]}" ]
