#!/usr/bin/env bash
# The long campaign of the model test (tests/model/): many seeds, dealt out over the cores.
# usage: scripts/campaign.sh [SEEDS [FIRST]]    1,000,000 from 0 on, if nothing else is asked for
# Prints figures. Ends at the first seed that fails, with what happened and the command that runs it again.
set -euo pipefail
cd "$(dirname "$0")/.."

seeds=${1:-1000000}
first=${2:-0}
cores=$(nproc 2>/dev/null || sysctl -n hw.ncpu)
chunk=10000 # few enough that the cores end together, many enough that starting costs nothing

program=$(cargo test --profile sim --features sim --test model --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\/model-[^"]*\)".*/\1/p' | tail -n 1)
if [ ! -x "$program" ]; then
    echo "the test binary \`model\` does not build" >&2
    exit 1
fi

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
export program results chunk last=$((first + seeds))
export RUST_BACKTRACE=0 # what happened is in the story, not on the stack

# run FIRST: one chunk. A failure ends xargs, and so the campaign.
run() {
    local from=$1 count=$chunk
    if [ $((from + count)) -gt "$last" ]; then count=$((last - from)); fi
    if ! MODEL_FIRST=$from MODEL_SEEDS=$count "$program" --nocapture --exact \
        what_is_promised_holds_whatever_is_done_in_whatever_weather >"$results/$from.out" 2>&1; then
        mv "$results/$from.out" "$results/$from.failed"
        return 255
    fi
}
export -f run

began=$SECONDS
seq "$first" "$chunk" $((last - 1)) | xargs -P "$cores" -I{} bash -c 'run {}' || true
took=$((SECONDS - began))

failed=$(find "$results" -name '*.failed' | sort)
if [ -n "$failed" ]; then
    grep -hv '^note: ' $failed
    exit 1
fi

# "20000 seeds from 0 on: 10 operations, 20 callbacks, …; abort 1 connect 2 …"
sed -n 's/^[0-9]* seeds from [0-9]* on: //p' "$results"/*.out | awk -F'; ' -v seeds="$seeds" -v first="$first" -v took="$took" -v cores="$cores" '
    {
        split($1, what, ", ")
        for (n in what) { split(what[n], pair, " "); sums[pair[2]] += pair[1] }
        count = split($2, ends, " ")
        for (n = 1; n < count; n += 2) { reasons[ends[n]] += ends[n + 1] }
    }
    END {
        printf "seeds        %d (from %d on), all passed\ntime         %d s on %d cores\n", seeds, first, took, cores
        count = split("operations callbacks connections bytes frames offloads pieces saves sources pairs", order, " ")
        for (n = 1; n <= count; n++) printf "%-12s %.0f\n", order[n], sums[order[n]]
        printf "closed      "
        split("finish eof drained abort shutdown resolve connect io limit overflow failed", names, " ")
        for (n = 1; n <= 11; n++) printf " %s %.0f", names[n], reasons[names[n]]
        printf "\n"
    }'
