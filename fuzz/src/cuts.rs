//! Any cutting of the same bytes gives the same calls: of the terminators alone, and through a whole loop. What a
//! simple-minded reading of the whole text finds is a third opinion.

use super::{
    Tape,
    script::{Answer, Event, Script, Term},
};
use mainspring::{
    Config, Endian, Width,
    inside::{Cutter, Found},
    testing::Weather,
};
use std::{borrow::Cow, fmt};

/// What a protocol is called with. Pieces that touch are one: how they are cut says nothing.
#[derive(Clone, PartialEq, Eq)]
enum Call {
    Received(Vec<u8>),
    Frame(Vec<u8>),
    TooLong,
    TooSlow,
    Eof(Vec<u8>),
    Closed,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Received(bytes) => write!(f, "Received(\"{}\")", bytes.escape_ascii()),
            Self::Frame(bytes) => write!(f, "Frame(\"{}\")", bytes.escape_ascii()),
            Self::TooLong => f.write_str("TooLong"),
            Self::TooSlow => f.write_str("TooSlow"),
            Self::Eof(tail) => write!(f, "Eof(\"{}\")", tail.escape_ascii()),
            Self::Closed => f.write_str("Closed"),
        }
    }
}

#[derive(Debug, Default)]
struct Calls(Vec<Call>);

impl Calls {
    fn received(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match self.0.last_mut() {
            Some(Call::Received(before)) => before.extend_from_slice(bytes),
            _ => self.0.push(Call::Received(bytes.to_vec())),
        }
    }

    fn note(&mut self, call: Call) {
        self.0.push(call);
    }
}

/// The terminators alone.
pub fn cuts(data: &[u8]) {
    let script = Script::made_up(&mut Tape::new(data));
    let whole = play(&script, &[]);
    let cut = play(&script, &script.cuts);
    assert_same(&script, "cut", &cut, "whole", &whole);
    if script.events.is_empty() {
        if let Some(expected) = read(&script) {
            assert_same(&script, "whole", &whole, "read simply", &expected);
        }
    }
}

fn assert_same(script: &Script, got_how: &str, got: &[Call], wanted_how: &str, wanted: &[Call]) {
    assert!(
        got == wanted,
        "{:?}\n\"{}\"\n{got_how}: {got:#?}\n{wanted_how}: {wanted:#?}",
        Script { body: Vec::new(), ..script.clone() },
        script.body.escape_ascii(),
    );
}

/// The body in pieces between the given places and those of the events.
fn pieces<'a>(script: &'a Script, cuts: &[usize]) -> Vec<(&'a [u8], Vec<&'a Event>)> {
    let mut ends: Vec<usize> = script.events.iter().map(|&(at, _)| at).chain(cuts.iter().copied()).collect();
    ends.push(script.body.len());
    ends.sort_unstable();
    ends.dedup();
    let mut from = 0;
    let piece = |end: usize| {
        let events = script.events.iter().filter(|&&(at, _)| at == end).map(|(_, event)| event).collect();
        (&script.body[std::mem::replace(&mut from, end)..end], events)
    };
    ends.into_iter().map(piece).collect()
}

// ------------------------------------------------------------------------------------------------ terminators alone

fn play(script: &Script, cuts: &[usize]) -> Vec<Call> {
    let mut player = Player {
        cutter: Cutter::new(script.first.make(), 0),
        script,
        frames: 0,
        exceeded: 0,
        calls: Calls::default(),
        has_ended: false,
    };
    player.deliver();
    for (n, (piece, events)) in pieces(script, cuts).into_iter().enumerate() {
        if n % 3 == 1 {
            player.change_buffers();
        }
        player.arrives(piece);
        for event in events {
            player.happens(event);
        }
    }
    player.ends();
    player.calls.0
}

/// What the loop does with a terminator, without the loop.
struct Player<'a> {
    cutter: Cutter,
    script: &'a Script,
    frames: usize,
    exceeded: usize,
    calls: Calls,
    has_ended: bool,
}

impl Player<'_> {
    fn arrives(&mut self, bytes: &[u8]) {
        self.cutter.arrives(bytes);
        self.deliver();
    }

    fn change_buffers(&mut self) {
        self.cutter.change_buffers(if self.frames % 2 == 0 { 0 } else { 4096 });
    }

    fn happens(&mut self, event: &Event) {
        match event {
            _ if self.has_ended => {}
            Event::Set(term) => {
                self.cutter.set(term.make());
                self.cutter.search_anew();
            }
            Event::TimeOut if self.cutter.is_amid() => self.exceed(Call::TooSlow),
            Event::TimeOut => {}
        }
        self.deliver();
    }

    fn deliver(&mut self) {
        let mut steps = self.cutter.unread().len() + 10 * (self.script.after_frames.len() + self.script.answers.len()) + 8;
        while !self.has_ended {
            steps = steps.checked_sub(1).expect("each step makes progress");
            match self.cutter.step() {
                Found::Frame(frame) => {
                    let length = frame.len();
                    self.calls.note(Call::Frame(frame.to_vec()));
                    if let Some(Some(term)) = self.script.after_frames.get(self.frames) {
                        self.cutter.set(term.make());
                        match self.script.put_back[self.frames].min(length) {
                            0 => {}
                            bytes => self.cutter.put_back(bytes),
                        }
                    }
                    self.frames += 1;
                }
                Found::Piece(piece) => self.calls.received(piece),
                Found::TooLong => self.exceed(Call::TooLong),
                Found::Broken => self.close(),
                Found::Nothing => return,
            }
        }
    }

    /// The rest is to be skipped before the answer is known: a terminator set in the answer holds after that.
    fn exceed(&mut self, call: Call) {
        let goes_on = self.cutter.skip(call == Call::TooLong);
        self.calls.note(call);
        let answer = self.script.answers.get(self.exceeded);
        self.exceeded += 1;
        match answer {
            Some(Answer::Ok) => {}
            Some(Answer::OkAndSet(term)) => self.cutter.set(term.make()),
            Some(Answer::Err) | None => return self.close(),
        }
        if !goes_on {
            self.close();
        }
    }

    fn close(&mut self) {
        self.calls.note(Call::Closed);
        self.has_ended = true;
    }

    fn ends(&mut self) {
        if !self.has_ended {
            let tail = if self.cutter.has_tail() { self.cutter.unread() } else { &[] };
            self.calls.note(Call::Eof(tail.to_vec()));
            self.close();
        }
    }
}

// --------------------------------------------------------------------------------------------------- read simply

/// The same by looking at the whole text anew for each frame. Nothing for framers that only the script knows.
fn read(script: &Script) -> Option<Vec<Call>> {
    let mut reader = Reader { script, at: 0, term: script.first.clone(), frames: 0, exceeded: 0, calls: Calls::default() };
    while reader.step()? {}
    reader.calls.note(Call::Closed);
    Some(reader.calls.0)
}

/// The digits of 2^64 - 1.
const LENGTH_DIGITS_MAX: usize = 20;

/// What nobody can hold is refused whatever the limit.
const HELD_MAX: u128 = isize::MAX as u128;

struct Reader<'a> {
    script: &'a Script,
    at: usize,
    term: Term,
    frames: usize,
    exceeded: usize,
    calls: Calls,
}

impl Reader<'_> {
    /// Whether it goes on.
    fn step(&mut self) -> Option<bool> {
        let rest = &self.script.body[self.at..];
        Some(match self.term.clone() {
            Term::Delimiter(bytes, _) | Term::Through(bytes, _) | Term::Until(bytes, _) if bytes.is_empty() => self.all(),
            Term::None => self.all(),
            Term::Line(limit) => {
                let end = rest.iter().position(|&byte| byte == b'\n');
                let line = &rest[..end.unwrap_or(rest.len())];
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                match end {
                    _ if line.len() > limit => self.exceed(end.map(|end| end + 1), self.term.clone()),
                    Some(end) => self.frame(line, end + 1, self.term.clone()),
                    None => self.eof(rest),
                }
            }
            Term::Delimiter(bytes, limit) => match find(rest, &bytes) {
                Some(end) if end <= limit => self.frame(&rest[..end], end + bytes.len(), self.term.clone()),
                Some(end) => self.exceed(Some(end + bytes.len()), self.term.clone()),
                None if rest.len() - begun(rest, &bytes) > limit => self.exceed(None, self.term.clone()),
                None => self.eof(rest),
            },
            Term::Through(bytes, limit) => match find(rest, &bytes).map(|at| at + bytes.len()) {
                Some(end) if end <= limit => self.frame(&rest[..end], end, self.term.clone()),
                Some(end) => self.exceed(Some(end), self.term.clone()),
                // The shortest frame that this may still become.
                None if !rest.is_empty() && rest.len() - begun(rest, &bytes) + bytes.len() > limit => {
                    self.exceed(None, self.term.clone())
                }
                None => self.eof(rest),
            },
            Term::Length(bytes, limit) if bytes > limit => self.exceed((bytes <= rest.len()).then_some(bytes), Term::None),
            Term::Length(bytes, _) if bytes <= rest.len() => self.frame(&rest[..bytes], bytes, Term::None),
            Term::Length(..) => self.eof(rest),
            Term::Stream(bytes) => match usize::try_from(bytes).ok().filter(|&bytes| bytes <= rest.len()) {
                Some(bytes) => {
                    self.calls.received(&rest[..bytes]);
                    self.frame(b"", bytes, Term::None)
                }
                None => self.all(),
            },
            Term::Until(bytes, seen) => {
                let seen = seen.min(bytes.len() - 1);
                let hay = if seen > 0 { Cow::Owned([&bytes[..seen], rest].concat()) } else { Cow::Borrowed(rest) };
                match find(&hay, &bytes) {
                    Some(at) => {
                        self.calls.received(&rest[..at.saturating_sub(seen)]);
                        self.frame(b"", at + bytes.len() - seen, Term::Until(bytes, 0))
                    }
                    None => {
                        let tail = begun(&hay, &bytes).min(rest.len());
                        self.calls.received(&rest[..rest.len() - tail]);
                        self.eof(&rest[rest.len() - tail..])
                    }
                }
            }
            Term::Prefixed(width, order, limit) => {
                let width_bytes = width_bytes(width);
                let Some(prefix) = rest.get(..width_bytes) else { return Some(self.eof(rest)) };
                let mut prefix = prefix.to_vec();
                if order == Endian::Little {
                    prefix.reverse();
                }
                let length = prefix.iter().fold(0_u128, |length, &byte| length << 8 | u128::from(byte));
                match length {
                    _ if length > limit as u128 => self.exceed(within(rest, width_bytes as u128 + length), self.term.clone()),
                    _ if width_bytes as u128 + length > HELD_MAX => self.refuse(),
                    _ if width_bytes as u128 + length > rest.len() as u128 => self.eof(rest),
                    _ => {
                        let end = width_bytes + length as usize;
                        self.frame(&rest[width_bytes..end], end, self.term.clone())
                    }
                }
            }
            Term::Netstring(limit) => {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                // Beyond it, all lengths are one.
                let length = rest[..digits]
                    .iter()
                    .fold(0_u128, |length, digit| (length * 10 + u128::from(digit - b'0')).min(usize::MAX as u128));
                match rest.get(digits) {
                    _ if digits > 1 && rest[0] == b'0' => false,
                    _ if digits > LENGTH_DIGITS_MAX => self.refuse(),
                    None => self.eof(rest),
                    Some(b':') if digits > 0 && length > limit as u128 => {
                        self.exceed(within(rest, digits as u128 + length + 2), self.term.clone())
                    }
                    Some(b':') if digits > 0 => {
                        let from = digits + 1;
                        if from as u128 + length + 1 > HELD_MAX {
                            return Some(self.refuse());
                        }
                        match usize::try_from(length).ok().and_then(|length| Some((length, rest.get(length.checked_add(from)?)?)))
                        {
                            None => self.eof(rest),
                            Some((length, b',')) => self.frame(&rest[from..from + length], from + length + 1, self.term.clone()),
                            Some(_) => false,
                        }
                    }
                    Some(_) => false,
                }
            }
            Term::Triples(_) | Term::Chunked(_) => return None,
        })
    }

    fn all(&mut self) -> bool {
        self.calls.received(&self.script.body[self.at..]);
        self.eof(b"")
    }

    fn eof(&mut self, tail: &[u8]) -> bool {
        self.calls.note(Call::Eof(tail.to_vec()));
        false
    }

    fn frame(&mut self, frame: &[u8], consumed: usize, then: Term) -> bool {
        self.calls.note(Call::Frame(frame.to_vec()));
        self.at += consumed;
        if let Some(bytes) = self.script.put_back.get(self.frames).map(|bytes| frame.len().min(*bytes)).filter(|&bytes| bytes > 0)
        {
            let end = frame.as_ptr_range().end as usize - self.script.body.as_ptr() as usize;
            self.at = end - bytes;
        }
        self.term = self.script.after_frames.get(self.frames).cloned().flatten().unwrap_or(then);
        self.frames += 1;
        true
    }

    /// The frame's end, if it comes at all.
    fn exceed(&mut self, end: Option<usize>, then: Term) -> bool {
        self.calls.note(Call::TooLong);
        match self.script.answers.get(self.exceeded) {
            Some(Answer::Ok) => self.term = then,
            Some(Answer::OkAndSet(term)) => self.term = term.clone(),
            Some(Answer::Err) | None => return false,
        }
        self.exceeded += 1;
        match end {
            Some(end) => {
                self.at += end;
                true
            }
            None => self.eof(b""),
        }
    }

    /// Its end is not known, whatever is answered.
    fn refuse(&mut self) -> bool {
        self.calls.note(Call::TooLong);
        false
    }
}

/// Where a frame of so many bytes ends, if it comes.
fn within(rest: &[u8], bytes: u128) -> Option<usize> {
    usize::try_from(bytes).ok().filter(|&bytes| bytes <= rest.len())
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

/// With how much of the needle the hay ends, short of all of it.
fn begun(hay: &[u8], needle: &[u8]) -> usize {
    (0..needle.len()).rev().find(|&n| hay.ends_with(&needle[..n])).unwrap_or(0)
}

fn width_bytes(width: Width) -> usize {
    match width {
        Width::U8 => 1,
        Width::U16 => 2,
        Width::U32 => 4,
        Width::U64 => 8,
    }
}

// ------------------------------------------------------------------------------------------- through a whole loop

/// The same through sockets, buffers and budgets: what a protocol in a loop is called with is what the terminators alone give.
pub fn loop_cuts(data: &[u8]) {
    let mut tape = Tape::new(data);
    let config = Config::new().turn_frames(1 + tape.below(8)).turn_bytes(1 + tape.size() % 10_000);
    let weather = if tape.once_in(2) { Weather::fair() } else { Weather::fair().short(500, 0) };
    let seed = u64::from(tape.byte());
    let script = Script::made_up(&mut tape);
    let calls = in_a_loop::play(&script, config, weather, seed);
    assert_same(&script, "in a loop", &calls, "the terminators alone", &play(&script, &[]));
}

mod in_a_loop {
    use super::{Answer, Call, Calls, Event, Script, pieces};
    use mainspring::{
        Config, Context, Key, Limit, Outcome, Protocol, Reason, Terminator,
        testing::{Scene, Weather},
    };
    use std::time::Duration;

    const AT: &str = "127.0.0.1:7";

    #[derive(Default)]
    struct Journal {
        calls: Calls,
        key: Option<Key>,
    }

    pub(super) fn play(script: &Script, config: Config, weather: Weather, seed: u64) -> Vec<Call> {
        let mut scene = Scene::with_config(seed, Journal::default(), config);
        scene.sim().keep_trace(false);
        let player = Player { script: script.clone(), frames: 0, exceeded: 0 };
        let mut player = Some(player);
        scene.net().listen(AT, move || player.take().expect("one comes")).expect("a free port");
        let peer = scene.dials(AT);
        let key = scene.state().key.expect("it is connected");
        scene.set_weather(weather);
        for (piece, events) in pieces(script, &script.cuts) {
            if scene.net().is_open(key) {
                scene.says(peer, piece);
            }
            for event in events {
                happens(&mut scene, key, event);
            }
        }
        if scene.connections() > 0 {
            scene.ends(peer); // it has not broken off
        }
        scene.settles();
        assert_eq!(scene.connections(), 0);
        std::mem::take(&mut scene.state().calls).0
    }

    fn happens(scene: &mut Scene<Journal>, key: Key, event: &Event) {
        match event {
            Event::Set(term) => {
                if let Some(mut link) = scene.net().link(key) {
                    link.set_terminator(term.make());
                }
                scene.settles();
            }
            Event::TimeOut => {
                let mut set = |after: Option<Duration>| scene.net().link(key).map(|mut link| link.set_frame_timeout(after));
                set(Some(Duration::from_millis(3)));
                scene.passes(Duration::from_millis(5));
                if let Some(mut link) = scene.net().link(key) {
                    link.set_frame_timeout(None);
                }
            }
        }
    }

    struct Player {
        script: Script,
        frames: usize,
        exceeded: usize,
    }

    impl Protocol<Journal> for Player {
        fn connected(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal) -> Outcome {
            journal.key = Some(ctx.key);
            ctx.set_terminator(self.script.first.make());
            Ok(())
        }

        fn received(&mut self, _: &mut Context<'_, Journal>, journal: &mut Journal, bytes: &[u8]) -> Outcome {
            assert!(!bytes.is_empty());
            journal.calls.received(bytes);
            Ok(())
        }

        fn frame(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal, frame: &[u8]) -> Outcome {
            journal.calls.note(Call::Frame(frame.to_vec()));
            if let Some(Some(term)) = self.script.after_frames.get(self.frames) {
                ctx.put_back(self.script.put_back[self.frames].min(frame.len()));
                ctx.set_terminator(term.make());
            }
            self.frames += 1;
            Ok(())
        }

        fn exceeded(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal, limit: Limit) -> Outcome {
            journal.calls.note(if limit == Limit::FrameTime { Call::TooSlow } else { Call::TooLong });
            let answer = self.script.answers.get(self.exceeded);
            self.exceeded += 1;
            match answer {
                Some(Answer::Ok) => {}
                Some(Answer::OkAndSet(term)) => ctx.set_terminator(term.make()),
                Some(Answer::Err) | None => return Err(limit.into()),
            }
            Ok(())
        }

        fn eof(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal, tail: &[u8]) -> Outcome {
            journal.calls.note(Call::Eof(tail.to_vec()));
            ctx.set_terminator(Terminator::exactly(0)); // no frame follows, not even one of nothing
            ctx.close();
            Ok(())
        }

        fn closed(&mut self, _: &mut Context<'_, Journal>, journal: &mut Journal, _: Reason) {
            journal.calls.note(Call::Closed);
        }
    }
}
