#!/usr/bin/env bash
# Plants one bug at a time in a copy of the sources, and sees to it that the tests find it. Prints a table: the bug, how many
# tests failed, and one of them. Fails if one survives, or cannot be planted any more. A minute or two for each.
#
# usage: scripts/mutations.sh [WORD...]    only those with such a word in their names
#        scripts/mutations.sh --planted    whether each can still be planted, and no test: a second for all
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
planted=
if [ "${1:-}" = --planted ]; then
    planted=0
    shift
fi
words=("$@")
place=${CARGO_TARGET_DIR:-$PWD/target}/mutations
copy=$place/tree
mkdir -p "$place"
survived=0
tests=(--features sim,tls --lib --test asynchat --test rules --test sim --test matrix --test model --test tls)

# How long the tests may take: they need a fraction of it, but a bug may make them wait for what never comes.
seconds_max=240

# mutation NAME FILE FROM TO: replaces one text, which must be there.
mutation() {
    local name=$1 file=$2 from=$3 to=$4 log=$place/log status failed
    if [ "${#words[@]}" -gt 0 ] && ! grep -q -F "$(printf '%s\n' "${words[@]}")" <<<"$name"; then
        return
    fi
    if [ -n "$planted" ]; then
        planted=$((planted + 1))
        if ! FROM=$from perl -0ne 'exit(index($_, $ENV{FROM}) < 0)' "$file"; then
            printf '| %s | NOT PLANTED: the text is no more in %s |\n' "$name" "$file"
            survived=1
        fi
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
mutation 'keys are not compared: a stale one finds the successor' src/endpoint/slots.rs \
    'fn conn(&self, key: Key) -> Option<&Conn> {
        match self.entries.get(key.index()) {
            Some(Entry::Conn(conn)) if conn.key == key => Some(conn)' 'fn conn(&self, key: Key) -> Option<&Conn> {
        match self.entries.get(key.index()) {
            Some(Entry::Conn(conn)) => Some(conn)'
mutation 'events of the dead reach the successor' src/hub/mod.rs \
    'Some(Entry::Conn(conn)) if conn.key.token() == token => {' 'Some(Entry::Conn(conn)) => {'
mutation 'a connection that is not done after its budget is not queued again' src/endpoint/conn/mod.rs \
    '        self.requeue(cx);
        if self.phase == Phase::Flushing {' '        if self.phase == Phase::Flushing {'
mutation 'closings are not put off to the end of the turn' src/reactor.rs \
    '            serve(&mut self.core, key, state, &mut self.buffers);' '            serve(&mut self.core, key, state, &mut self.buffers);
            self.reap(state);'
mutation 'what has ended may end again' src/endpoint/conn/ending.rs \
    'if matches!(self.phase, Phase::Guest | Phase::Ended | Phase::Lingering) {' 'if false {'
mutation 'closings do not wait for accepted tells' src/reactor.rs \
    'is_some_and(|conn| conn.tells > 0)' 'is_some_and(|_| false)'
mutation 'the search goes on behind what was read before' src/framing/needle.rs \
    'input.searched().saturating_sub(self.bytes().len() - 1)' 'input.searched()'
mutation 'the search starts over with each read' src/framing/needle.rs \
    '                input.mark_searched();
                None' '                None'
mutation 'nobody is told that the output fell to the low mark' src/endpoint/conn/writing.rs \
    'self.put(OWES_WRITABLE, self.takes_output());' 'self.clear(OWES_WRITABLE);'
mutation 'congestion ends below the high mark, not at the low one' src/endpoint/conn/writing.rs \
    'self.is(CONGESTED) && queued <= marks.low' 'self.is(CONGESTED) && queued <= marks.high'
mutation 'congestion begins at the low mark, not above the high one' src/endpoint/conn/writing.rs \
    '(queued > marks.high || has_pile)' '(queued > marks.low || has_pile)'
mutation 'throttled readers are not looked at again' src/hub/throttles.rs \
    '        self.put_throttled(reader);
        self.mark_dirty(reader);' '        self.put_throttled(reader);'
mutation 'a reader is not told that its target is congested' src/hub/throttles.rs \
    '        self.put_throttled(reader);
        self.mark_dirty(reader);' '        self.mark_dirty(reader);'
mutation 'own output does not hold reading back' src/endpoint/conn/state.rs \
    'self.flags.has_just(CONGESTED | HOLDS_BACK, CONGESTED | HOLDS_BACK)' 'false'
mutation 'writable is told to one that is not connected yet' src/endpoint/conn/state.rs \
    'self.is(OWES_WRITABLE) && self.is_settled() && !self.is(OWES_CONNECTED)' 'self.is(OWES_WRITABLE)'
mutation 'frames go on after a pause inside one' src/contract/protocol.rs \
    'if ctx.hub().cx.lent.interrupt || input.is_empty() {' 'if input.is_empty() {'
mutation 'the linger deadline counts from the close' src/stopwatch.rs \
    'others.linger.restart(now);' 'let _ = &others.linger;'
mutation 'a polite end closes at once, without waiting for the peer' src/endpoint/conn/ending.rs \
    'if !is_clean || !self.is(ESTABLISHED)' 'if is_clean || !self.is(ESTABLISHED)'
mutation 'what was cut off ends like what is whole' src/endpoint/conn/ending.rs \
    'let is_cut = self.is(CUT);' 'let is_cut = false;'
mutation 'a timer set by a timer fires in the same turn' src/reactor.rs \
    'self.core.hub.cx.timers.due(now, mark)' \
    'self.core.hub.cx.timers.due(now.max(self.core.hub.cx.world.now()), u64::MAX.max(mark))'
mutation 'a successor is told the tells of its predecessor' src/contract/deferred.rs \
    'if conn.upgrades == upgrades {' 'if true {'
# What is done to others when a loan ends.
mutation 'notes are not worked off after a loan' src/hub/mod.rs \
    '        let result = run(conn, cx);
        self.work_off_notes();' '        let result = run(conn, cx);'
mutation 'a connection that was touched from outside is not looked at' src/endpoint/conn/mod.rs \
    'match self.is_current(cx) {' 'match true {'
mutation 'a share that is not used is not returned' src/endpoint/conn/rates.rs \
    'if !self.could_move(way) {' 'if false && !self.could_move(way) {'
# The straight way: each question that it asks.
mutation 'the straight way reads also what is paused' src/endpoint/conn/state.rs \
    'self.is_plain(READABLE)' 'self.flags.has_just(ESTABLISHED | READABLE, (ESTABLISHED | READABLE | UNUSUAL).without(PAUSED))'
mutation 'the straight way reads on in spite of its own output' src/endpoint/conn/state.rs \
    'self.is_plain(READABLE)' \
    'self.flags.has_just(ESTABLISHED | READABLE, (ESTABLISHED | READABLE | UNUSUAL).without(CONGESTED))'
mutation 'the straight way reads before what is owed is told' src/endpoint/conn/state.rs \
    'self.is_plain(READABLE)' \
    'self.flags.has_just(ESTABLISHED | READABLE, (ESTABLISHED | READABLE | UNUSUAL).without(OWES_CONNECTED | OWES_DRAINING))'
mutation 'the straight way reads on while an answer is owed' src/endpoint/conn/state.rs \
    'self.is_plain(READABLE)' \
    'self.flags.has_just(ESTABLISHED | READABLE, (ESTABLISHED | READABLE | UNUSUAL).without(OWES_ANSWER))'
mutation 'a resume lets a request in before the answer that is owed' src/endpoint/conn/state.rs \
    '!self.is(PAUSED | HELD | SHAKING) &&' '!self.is(PAUSED | SHAKING) &&'
mutation 'the straight way loses what is left of a frame' src/endpoint/conn/reading.rs \
    '        if !is_used_up {
            self.held = Some(buffers.hold());' '        if false {
            self.held = Some(buffers.hold());'
mutation 'the straight way forgets the FIN' src/endpoint/conn/state.rs \
    'self.is_plain(ESTABLISHED) && self.output.is_none()' \
    'self.flags.has_just(ESTABLISHED, (ESTABLISHED | UNUSUAL).without(FIN_ASKED)) && self.output.is_none()'
mutation 'a turn is over though something is owed' src/endpoint/conn/state.rs \
    'self.is_plainly_sent() && !self.is(READABLE)' \
    'self.flags.has_just(ESTABLISHED, (ESTABLISHED | READABLE | UNUSUAL).without(OWES_DRAINING | OWES_WRITABLE)) && self.output.is_none()'
mutation 'the straight way does not start the idle clock anew' src/endpoint/conn/reading.rs \
    'self.restart_idle_clock(cx);' ''
mutation 'the straight way lets the idle clock run while paused' src/endpoint/conn/state.rs \
    'self.is_plainly_sent() && !self.is(READABLE)' \
    'self.flags.has_just(ESTABLISHED, (ESTABLISHED | READABLE | UNUSUAL).without(PAUSED)) && self.output.is_none()'
mutation 'others may send to a connection that is half-closed' src/endpoint/conn/state.rs \
    'self.is_plain(ESTABLISHED) && self.queued()' \
    'self.flags.has_just(ESTABLISHED, (ESTABLISHED | UNUSUAL).without(FIN_ASKED)) && self.queued()'
mutation 'the straight way is taken by a connection that has half-closed' src/flags.rs \
    '        | UNANSWERED.0' '        | UNANSWERED.0 | FIN_ASKED.0'
mutation 'the straight way is taken by a connection that is lost' src/flags.rs \
    '        | UNANSWERED.0' '        | UNANSWERED.0 | LOST.0'
# What a stranger planted, and nothing noticed at first.
mutation 'an upgrade fills the bucket of a rate again' src/endpoint/conn/rates.rs \
    'Some(bucket) => bucket.at_rate(rate, now)' 'Some(_) => Bucket::new(rate, now)'
mutation 'a frame that ends where the next begins does not restart the frame clock' src/endpoint/conn/reading.rs \
    'if cx.lent.frame_ended && self.extra.is_some() {' 'if false && cx.lent.frame_ended {'
mutation 'a lingering socket drops input without a budget' src/endpoint/conn/ending.rs \
    'Filled::Bytes(bytes) => budget = budget.saturating_sub(bytes)' 'Filled::Bytes(_) => {}'
mutation 'the list of those who linger is never tidied' src/hub/lingering.rs \
    'if self.lingering.len() > 64 + 2 * self.cx.lingering_now {' 'if false {'
mutation 'a second drain keeps the timer of the first grace' src/hub/draining.rs \
    'if let Some(previous) = self.grace.replace(self.cx.timers.set(deadline, TimerKind::Grace)) {
            self.cx.timers.cancel(previous);
        }' '_ = self.grace.replace(self.cx.timers.set(deadline, TimerKind::Grace));'
mutation 'a connection that loses a race with something to send is closed, not reset' src/endpoint/conn/connecting.rs \
    '        if self.output.is_some() {
            race.each_but(Some(number)' '        if false {
            race.each_but(Some(number)'
mutation 'the error of a read wins over that of an earlier write' src/endpoint/conn/reading.rs \
    '        self.end_if_lost(cx);
        self.end(Reason::Io(error), cx);' '        self.end(Reason::Io(error), cx);'
mutation 'those who have gone again are counted over good accepts' src/endpoint/listening.rs \
    '        self.passed = 0;
        self.accepted += 1;' '        self.accepted += 1;'
mutation 'the loop looks at its inbox before the remotes' src/contract/remote.rs \
    '[Self::has_remotes, Self::has_more]' '[Self::has_more, Self::has_remotes]'
mutation 'an interrupted read ends the connection' src/endpoint/conn/reading.rs \
    'error.kind() == io::ErrorKind::Interrupted => Filled::Interrupted' 'false => Filled::Interrupted'
mutation 'an interrupted write ends the connection' src/endpoint/conn/writing.rs \
    'error.kind() == io::ErrorKind::Interrupted => Ok(0)' 'false => Ok(0)'
mutation 'work of the predecessor is told to its successor' src/endpoint/conn/mod.rs \
    '        self.stop_timers(cx);
        cx.stop_work_of(self.key);
        discard("a framer"' '        self.stop_timers(cx);
        discard("a framer"'
mutation 'refused work of the predecessor is told to its successor' src/contract/offload.rs \
    'Some(Done::Tell(key, done)) if self.hub.cx.threads.owned.remove(ticket).is_some() => {' \
    'Some(Done::Tell(key, done)) => {
                self.hub.cx.threads.owned.remove(ticket);'
mutation 'every counts from when it was called, not from when it was due' src/contract/timing.rs \
    'set_again(timer, deadline + period.saturating_mul(periods))' 'set_again(timer, now + period.saturating_mul(periods.min(1)))'
mutation 'a timer that cancels itself leaves its job behind' src/contract/timing.rs \
    '        if self.hub.cx.timers.is_set(timer) {' '        if true {'
# What a callback may write into, and what lives on beside what has gone.
mutation 'the loop goes on with a context that the program had' src/contract/context.rs \
    'run(&mut self.lent())' 'run(self)'
mutation 'commands go to the key that stands in a context' src/contract/context.rs \
    'self.conn().map_or(Key::NOBODY, |conn| conn.key)' 'self.key'
mutation 'keys of two reactors are the same' src/key.rs \
    'NonZeroU32::MIN | u32::from(self.0) << COUNT_BITS' 'NonZeroU32::MIN | u32::from(self.0 & 0) << COUNT_BITS'
mutation 'timers of two reactors are the same' src/key.rs \
    'u64::from(self.0) << TIMER_BITS' 'u64::from(self.0 & 0) << TIMER_BITS'
mutation 'a timer that was moved is not found by its name' src/timers.rs \
    'Some(self.moved[at].1).filter(' 'Some(self.moved[at].1).filter(|_| false).filter('
mutation 'the chain of an owner is lost by a move' src/hub/mod.rs \
    '                extra.timers = head;' '                let _ = (extra, head);'
mutation 'one that lingers is reset before it is known whether anybody waits' src/endpoint/listening.rs \
    '        match socket.accept_on_spare(next.token()) {' '        if can_make_room {
            return Arrived::NoRoom;
        }
        match socket.accept_on_spare(next.token()) {'
mutation 'a connection that is lost is answered until nothing is left to read' src/endpoint/conn/writing.rs \
    'if odds.unheard > most {' 'if odds.unheard > usize::MAX - most {'
mutation 'a connection that is lost has a whole turn' src/endpoint/conn/reading.rs \
    'frames: frames.min(LOST_FRAMES)' 'frames: frames.max(LOST_FRAMES)'
mutation 'a turn goes on however much is said in it' src/reactor.rs \
    'const SERVED_MAX: u64 = 4096' 'const SERVED_MAX: u64 = 1 << 60'
mutation 'a timer fires before what had come before it, and who is put off is idle' src/reactor.rs \
    'hub.cx.world.now().min(self.due_by)' 'hub.cx.world.now()'
mutation 'a failed write lets the loop go on with what it knew' src/endpoint/conn/writing.rs \
    'cx.served_at_most = 0;' 'let _ = cx.served_at_most;'
mutation 'a listener that pauses lets in one too many' src/endpoint/listening.rs \
    'self.guests >= most.max(1)' 'self.guests > most.max(1)'
mutation 'a listener that pauses is not woken by who ends' src/hub/opening.rs \
    '        if was_paused {' '        if false && was_paused {'
mutation 'a drain leaves those who wait at a listener that pauses' src/endpoint/listening.rs \
    'most.max(1)) && !self.is_draining()' 'most.max(1))'
# What is worked on elsewhere, and pairs.
mutation 'the last of a lane is not done when it is dropped' src/contract/lanes.rs \
    'impl Drop for Last {
    fn drop(&mut self) {
        self.run();' 'impl Drop for Last {
    fn drop(&mut self) {'
mutation 'a lane has two pieces at work' src/contract/lanes.rs \
    'self.queue(id).filter(|queue| queue.at_work.is_none())' 'self.queue(id)'
mutation 'pieces of a lane are given out from the wrong end' src/contract/lanes.rs \
    'queue.waiting.pop_front()' 'queue.waiting.pop_back()'
mutation 'a lane stops when a piece was refused' src/contract/lanes.rs \
    '                (Err(refused), Some(done)) => {
                    self.piece_ended(ticket);
                    self.refuse_work(ticket, refused, done);
                }' '                (Err(refused), Some(done)) => {
                    self.piece_ended(ticket);
                    self.refuse_work(ticket, refused, done);
                    return;
                }'
mutation 'a lane is not gone on with when the piece at work is forgotten' src/contract/lanes.rs \
    'id.into_iter().for_each(|id| self.go_on(id));' 'let _ = id;'
mutation 'what a lane was asked at a shutdown is forgotten' src/contract/lanes.rs \
    '    fn drop_all_pieces(&mut self) {
        self.do_asks();' '    fn drop_all_pieces(&mut self) {'
mutation 'a save loses what was gathered when it begins to hold' src/contract/streams.rs \
    '        this.hold = Some(ctx.hold());' '        if !is_last {
            this.gathered.clear();
        }
        this.hold = Some(ctx.hold());'
mutation 'a save that holds never goes on' src/contract/streams.rs \
    'let hold = if this.end.is_none() { this.hold.take() } else { None };' 'let hold: Option<Hold> = None;'
mutation 'a save writes a piece again' src/contract/streams.rs \
    '            piece.clear();
' ''
mutation 'a save goes on behind the end of its frame' src/contract/streams.rs \
    'self.gather(input.given(), true);' 'self.gather(input.given(), false);'
mutation 'the end behind what is saved is not told' src/contract/streams.rs \
    'conn.owe_eof(&tail, cx);' 'let _ = (&tail, cx);'
mutation 'a connection that was closed in `exceeded` saves on' src/contract/streams.rs \
    '    if ctx.pair_if_open().is_none() {
        return; // nobody waits for it any more' '    if false {
        return; // nobody waits for it any more'
mutation 'an error of `send_from` of which nobody hears is passed over' src/contract/streams.rs \
    'Err(error) if self.bytes == 0 && is_heard => {' 'Err(error) if self.bytes == 0 => {'
mutation 'an error in the midst of `send_from` is taken for the end' src/contract/streams.rs \
    '                self.error = Some(error);
                None' '                self.has_ended = true;
                drop(error);
                None'
mutation 'a pair forgets the half-close' src/hub/ties.rs \
    'mate() {
            self.half_close(mate);' 'mate() {
            let _ = mate;'
mutation 'a pair loses what its mate has no room for' src/hub/ties.rs \
    'Some(some.len())' 'Some(all.len())'
mutation 'something is passed on behind what was lost' src/hub/ties.rs \
    'if taken.is_none() {' 'if false {'
mutation 'an unclean end closes the partner politely' src/hub/ties.rs \
    '        if is_clean {
            self.lend_if_open(key, Conn::close);' '        if is_clean || true {
            self.lend_if_open(key, Conn::close);'
mutation 'an end before the pair is not passed on' src/hub/ties.rs \
    '            if self.slots.conn_at(key.index()).is(EOF_TOLD) {
                self.half_close(mate);' '            if self.slots.conn_at(key.index()).is(EOF_TOLD) {
                let _ = mate;'
mutation 'a pair is not throttled' src/hub/ties.rs \
    '        self.throttle(key, mate);
' '        let _ = mate;
'
mutation 'what comes behind a refused frame goes to the protocol of a pair' src/framing/skip.rs \
    '                if let Self::None = self {' '                if false {'
mutation 'a datagram overtakes those that wait' src/endpoint/datagrams/mod.rs \
    '        if !self.queue.is_empty() {
            return self.enqueue(to, bytes, cx);' '        if false {
            return self.enqueue(to, bytes, cx);'
mutation 'nobody asks for room for datagrams that wait' src/endpoint/datagrams/mod.rs \
    'match self.socket.want_writable(true) {' 'match Ok::<(), io::Error>(()) {'
mutation 'a datagram is lost when the kernel is full again' src/endpoint/datagrams/mod.rs \
    '                self.flags.remove(WRITABLE);
                return self.queue.push_front(first);' '                self.flags.remove(WRITABLE);'
mutation 'a datagram that waits goes to the peer of now and not to whom it was sent' src/endpoint/datagrams/mod.rs \
    '        self.queue.push_back(Waiting {
            to: to.cloned(),' '        self.queue.push_back(Waiting {
            to: self.peer.as_deref().or(to).cloned(),'
mutation 'all that waits is dropped for the newest datagram' src/endpoint/datagrams/mod.rs \
    '            drop(self.queue.pop_front());' '            while self.queue.pop_front().is_some() {}'
mutation 'writable is told while datagrams wait again' src/endpoint/datagrams/mod.rs \
    'self.flags.remove(WRITABLE | OWES_WRITABLE);' 'self.flags.remove(WRITABLE);'
mutation 'no writable when all datagrams have left' src/endpoint/datagrams/mod.rs \
    'self.flags.insert(OWES_WRITABLE);' ''
mutation 'datagrams are not read to the last one' src/endpoint/datagrams/mod.rs \
    '            Ok(bytes) if bytes <= self.largest() => {' '            Ok(bytes) if bytes <= self.largest() => {
                self.flags.put(READABLE, bytes > 20);'
mutation 'a datagram that is too long is told whole' src/endpoint/datagrams/mod.rs \
    '        cx.stats.datagrams_oversized += 1;
        Arrival::Oversized(self.largest())' '        cx.stats.datagrams_oversized += 1;
        Arrival::Packet(self.largest())'
mutation 'who hears of a refusal loses what it sends' src/endpoint/datagrams/mod.rs \
    '        let sent = self.socket.send_to(bytes, to);
        let is_again' '        let sent: io::Result<()> = Ok(());
        let is_again'
mutation 'a failed datagram is told as one to the peer' src/endpoint/datagrams/mod.rs \
    'let to = to.filter(|_| !is_of_peer).or(self.peer.as_deref())' 'let to = self.peer.as_deref().or(to)'
mutation 'a datagram socket that ends while sends are interrupted never does' src/endpoint/datagrams/mod.rs \
    'for _ in 0..2 * self.queue.len() {' 'while !self.queue.is_empty() {'
mutation 'a writer that breaks ends its reader' src/endpoint/conn/writing.rs \
    '        if self.is_open() && self.writes_apart() {
            return' '        if false {
            return'
mutation 'what a broken writer has lost is no reason' src/endpoint/conn/writing.rs \
    'if lost.is_some() {' 'if false {'
mutation 'what a pair passes on to a broken writer is lost without a word' src/endpoint/conn/writing.rs \
    '} else if self.has_lost_writer()' '} else if false'
mutation 'descriptors linger' src/endpoint/conn/ending.rs \
    'self.stream.as_ref().is_some_and(Stream::lingers)' 'self.stream.is_some()'
mutation 'what was not delivered is not given back' src/endpoint/conn/ending.rs \
    'detached.unread = self.held' 'let _ = self.held'
mutation 'what was not sent is not given back' src/endpoint/conn/ending.rs \
    'detached.unsent = self.output' 'let _ = self.output'
mutation 'a duplicate keeps what was adopted registered' src/hub/adopting.rs \
    '|world, stream| drop(world.detach(stream))' '|_, stream| drop(stream)'
mutation 'a thread reads on before what it has read is consumed' src/world/os/blocking.rs \
    'received.taken < received.bytes.len() && !received.is_over' 'false && received.is_over'
mutation 'a byte counts as sent when a thread has it' src/world/os/blocking.rs \
    '            self.0.changed.notify_one();
        }
        Err(ErrorKind::WouldBlock.into())' '            self.0.changed.notify_one();
            return Ok(Moved { bytes: bytes.len().min(BYTES_MAX), drained: false });
        }
        Err(ErrorKind::WouldBlock.into())'
mutation 'TLS: a byte counts as sent when it is encrypted' src/tls/mod.rs \
    'let left = in_proportion(bytes.len(), gone, all.len());' 'let left = bytes.len();'
mutation 'TLS: a polite end says no close_notify' src/tls/mod.rs \
    'self.engine.close_notify(&mut self.unfinished, records);' ''
mutation 'TLS: a cut is an end' src/tls/mod.rs \
    'if self.tolerates_cut && self.unfinished.is_empty()' 'if self.unfinished.is_empty()'
mutation 'TLS: what rustls has joined in place is read again as it was' src/tls/mod.rs \
    'self.unfinished.extend_from_slice(&input[used..all]);' 'self.unfinished = [&self.unfinished[..], &input[before..all]].concat();'
mutation 'TLS: what came in clear behind STARTTLS is forgotten' src/endpoint/conn/shaking.rs \
    'false => Err(TlsError::clear_bytes()),' 'false => Ok(Vec::new()),'
mutation 'TLS: a full listener answers in clear' src/hub/opening.rs \
    'if is_in_clear { &last_words } else { b"" }' '&last_words'
mutation 'TLS: handshakes have no budget' src/cx.rs \
    'let may = steps < self.config.turn_handshakes;' 'let may = steps <= usize::MAX - self.config.turn_handshakes;'
mutation 'TLS: handshakes go before all others' src/hub/shaking.rs \
    '&& !cx.shakes_now;' '&& !cx.shakes_now && cx.is_shut;'
mutation 'Windows: the kernel is given all that waits' src/endpoint/conn/writing.rs \
    'most.min(stream.send_max())' 'most'
mutation 'Windows: a reset that is no error is no failure' src/world/readiness.rs \
    'self.error || is_winsock && self.write_closed' 'self.error'
mutation 'Windows: a reset that only a read shows is not looked for' src/world/transport.rs \
    'error.or_else(|| self.hidden_reset())' 'error'
mutation 'Windows: who is reset while it connects is connected' src/world/transport.rs \
    'match self.hidden_reset() {' 'match None {'
exit $survived
