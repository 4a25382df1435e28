#!/usr/bin/env bash
# Plants one bug at a time in a copy of the sources, and sees to it that the tests find it. Prints a table: the bug, how many
# tests failed, and one of them. Fails if one survives, or cannot be planted any more. A minute or two for each.
#
# usage: scripts/mutations.sh [WORD...]    only those with such a word in their names
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
words=("$@")
place=${CARGO_TARGET_DIR:-$PWD/target}/mutations
copy=$place/tree
mkdir -p "$place"
survived=0
tests=(--features sim --lib --test asynchat --test rules --test sim --test matrix)

# How long the tests may take: they need a fraction of it, but a bug may make them wait for what never comes.
seconds_max=240

# mutation NAME FILE FROM TO: replaces one text, which must be there.
mutation() {
    local name=$1 file=$2 from=$3 to=$4 log=$place/log status failed
    if [ "${#words[@]}" -gt 0 ] && ! grep -q -F "$(printf '%s\n' "${words[@]}")" <<<"$name"; then
        return
    fi
    rm -rf "$copy"
    mkdir -p "$copy"
    git ls-files -z | xargs -0 tar -cf - --ignore-failed-read 2>/dev/null | tar -xf - -C "$copy"
    if ! FROM=$from TO=$to perl -0pi -e 'BEGIN { $n = 0 } $n += s/\Q$ENV{FROM}\E/$ENV{TO}/; END { exit($n ? 0 : 1) }' "$copy/$file"; then
        printf '| %s | NOT PLANTED: the text is no more in %s |\n' "$name" "$file"
        survived=1
        return
    fi
    if ! (cd "$copy" && CARGO_TARGET_DIR=$place/build timeout 900 cargo test "${tests[@]}" --no-run) >"$log" 2>&1; then
        printf '| %s | DOES NOT COMPILE |\n' "$name"
        survived=1
        return
    fi
    (cd "$copy" && CARGO_TARGET_DIR=$place/build timeout -k 5 "$seconds_max" cargo test "${tests[@]}" --no-fail-fast) >"$log" 2>&1
    status=$?
    failed=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log" | sort -u)
    if [ -n "$failed" ]; then
        printf '| %s | %s, `%s` |\n' "$name" "$(wc -l <<<"$failed")$([ $status -ne 124 ] || echo ' and more')" "$(head -n 1 <<<"$failed")"
    elif [ $status -eq 124 ]; then
        printf '| %s | hangs: `%s` |\n' "$name" "$(sed -n 's/^test \(.*\) has been running for over.*/\1/p' "$log" | head -n 1)"
    elif [ $status -ne 0 ]; then
        printf '| %s | the tests are killed: %s |\n' "$name" "$(grep -m 1 -o 'signal: .*' "$log")"
    else
        printf '| %s | SURVIVED |\n' "$name"
        survived=1
    fi
}

printf '| planted bug | tests that fail, one of them |\n|---|---|\n'
mutation 'keys are not compared: a stale one finds the successor' src/slots.rs \
    'Some(Entry::Stream(conn)) if conn.key == key => Some(conn)' 'Some(Entry::Stream(conn)) => Some(conn)'
mutation 'events of the dead reach the successor' src/hub/mod.rs \
    'if conn.key.token() == token {' 'if true {'
mutation 'who is not done after his budget is not queued again' src/hub/mod.rs \
    '        self.requeue(key);
        if is_flushing {' '        if is_flushing {'
mutation 'closings are not put off to the end of the turn' src/reactor.rs \
    '            serve(&mut self.core, key, state, &mut self.buffers);' '            serve(&mut self.core, key, state, &mut self.buffers);
            self.reap(state);'
mutation 'what has ended may end again' src/hub/ending.rs \
    'if matches!(conn.phase, Phase::Guest | Phase::Ended | Phase::Lingering) {' 'if false {'
mutation 'closings do not wait for accepted tells' src/reactor.rs \
    'is_some_and(|conn| conn.tells > 0)' 'is_some_and(|_| false)'
mutation 'the search goes on behind what was read before' src/terminator.rs \
    'input.searched().saturating_sub(self.bytes().len() - 1)' 'input.searched()'
mutation 'the search starts over with each read' src/terminator.rs \
    '                input.mark_searched();
                None' '                None'
mutation 'nobody is told that the output fell to the low mark' src/hub/sending.rs \
    'conn.put(OWES_WRITABLE, conn.takes_output());' 'conn.clear(OWES_WRITABLE);'
mutation 'congestion ends below the high mark, not at the low one' src/hub/sending.rs \
    'conn.is(CONGESTED) && queued <= marks.low' 'conn.is(CONGESTED) && queued <= marks.high'
mutation 'congestion begins at the low mark, not above the high one' src/hub/sending.rs \
    '(queued > marks.high || has_pile)' '(queued > marks.low || has_pile)'
mutation 'throttled readers are not looked at again' src/hub/sending.rs \
    '            self.mark_dirty(reader);' '            let _ = reader;'
mutation 'own output does not hold reading back' src/conn.rs \
    '!(self.is(CONGESTED) && self.is(HOLDS_BACK))' 'true'
mutation 'writable is told to one that is not connected yet' src/conn.rs \
    'self.is(OWES_WRITABLE) && self.is(ESTABLISHED) && !self.is(OWES_CONNECTED)' 'self.is(OWES_WRITABLE)'
mutation 'frames go on after a pause inside one' src/contract/protocol.rs \
    'if ctx.hub().interrupt || input.is_empty() {' 'if input.is_empty() {'
mutation 'the linger deadline counts from the close' src/hub/timing.rs \
    'limits.linger.restart(now);' 'let _ = &limits.linger;'
mutation 'a polite end closes at once, without waiting for the peer' src/hub/ending.rs \
    'let lingers = is_clean && conn.is(ESTABLISHED)' 'let lingers = false && is_clean && conn.is(ESTABLISHED)'
mutation 'what was cut off ends like what is whole' src/hub/ending.rs \
    'let is_cut = conn.is(CUT);' 'let is_cut = false;'
mutation 'a timer set by a timer fires in the same turn' src/reactor.rs \
    'self.core.hub.timers.due(now, mark)' 'self.core.hub.timers.due(now.max(self.core.hub.world.now()), u64::MAX.max(mark))'
mutation 'a successor is told the tells of its predecessor' src/contract/core.rs \
    'if conn.life == life {' 'if true {'
# The straight way: each question that it asks.
mutation 'the straight way reads also what is paused' src/conn.rs \
    'FAILED | BACKLOG | PAUSED | OWES_ANSWER | CONGESTED' 'FAILED | BACKLOG | OWES_ANSWER | CONGESTED'
mutation 'the straight way reads on in spite of its own output' src/conn.rs \
    'FAILED | BACKLOG | PAUSED | OWES_ANSWER | CONGESTED' 'FAILED | BACKLOG | PAUSED | OWES_ANSWER'
mutation 'the straight way reads before what is owed is told' src/conn.rs \
    'let unusual = OWES_CONNECTED | OWES_DRAINING |' 'let unusual ='
mutation 'the straight way reads on while an answer is owed' src/conn.rs \
    'FAILED | BACKLOG | PAUSED | OWES_ANSWER | CONGESTED' 'FAILED | BACKLOG | PAUSED | CONGESTED'
mutation 'a resume lets a request in before the answer that is owed' src/conn.rs \
    '!self.is(PAUSED | OWES_ANSWER) &&' '!self.is(PAUSED) &&'
mutation 'the straight way loses what is left of a frame' src/hub/receiving.rs \
    '        if !is_used_up {
            conn.held = Some(buffers.hold());' '        if false {
            conn.held = Some(buffers.hold());'
mutation 'the straight way forgets the FIN' src/conn.rs \
    '!self.is(CONGESTED | FIN_ASKED | SPECIAL) && self.is_open() && self.output' '!self.is(CONGESTED | SPECIAL) && self.is_open() && self.output'
mutation 'a turn is over though something is owed' src/conn.rs \
    'let owed = OWES_CONNECTED | OWES_DRAINING | OWES_WRITABLE;' 'let owed = OWES_CONNECTED;'
mutation 'the straight way does not start the idle clock anew' src/hub/receiving.rs \
    'self.has_spoken(key.index());' ''
mutation 'the straight way lets the idle clock run while paused' src/conn.rs \
    'let unusual = PAUSED | OWES_ANSWER | SPECIAL;' 'let unusual = OWES_ANSWER | SPECIAL;'
mutation 'others may send to who is half-closed' src/conn.rs \
    'let is_plain = !self.is(CONGESTED | FIN_ASKED | SPECIAL)' 'let is_plain = !self.is(CONGESTED | SPECIAL)'
exit $survived
