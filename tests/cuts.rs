//! Any cutting of the same bytes gives the same frames: every cut in two and in three of the corpora below, single bytes,
//! and random cuts; through the whole loop, from a peer's socket to the callbacks. What asynchat can express is compared
//! with what asynchat makes of the same pieces, where `python3` still has it (it left the library with 3.12).
//!
//! All cuts of a corpus are tried at once, each on a connection of its own: the peers write their first pieces, the
//! reactor turns until it has taken them all, then come the second ones, and so on.

mod common;

use common::until_net;
use mainspring::{
    Address, Config, Context, Endian, Fault, Framer, Key, Limit, Listen, Outcome, Protocol, Reactor, Reason, Step, Target,
    Terminator, Width,
};
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{ErrorKind, Write as _},
    mem::MaybeUninit,
    net::Shutdown,
    process::{Command, Stdio},
    rc::Rc,
    str,
    sync::OnceLock,
};

// --------------------------------------------------------------------------------------------------- what is tried

/// A terminator that can be made again and again, and said to the oracle.
#[derive(Clone, Debug)]
enum Term {
    None,
    Line(usize),
    Delimiter(&'static [u8], usize),
    Through(&'static [u8], usize),
    Exactly(usize),
    Declared(usize, usize),
    Stream(u64),
    Until(&'static [u8], usize),
    Prefixed(Width, Endian, usize),
    Netstring(usize),
    Custom(fn() -> Terminator),
}

impl Term {
    fn make(&self) -> Terminator {
        match *self {
            Self::None => Terminator::None,
            Self::Line(limit) => Terminator::line(limit),
            Self::Delimiter(bytes, limit) => Terminator::delimiter(bytes, limit),
            Self::Through(bytes, limit) => Terminator::through(bytes, limit),
            Self::Exactly(bytes) => Terminator::exactly(bytes),
            Self::Declared(bytes, limit) => Terminator::declared(bytes, limit),
            Self::Stream(bytes) => Terminator::Stream(bytes),
            Self::Until(bytes, seen) => Terminator::StreamUntil { bytes: Cow::Borrowed(bytes), seen },
            Self::Prefixed(width, order, limit) => Terminator::prefixed(width, order, limit),
            Self::Netstring(limit) => Terminator::netstring(limit),
            Self::Custom(make) => make(),
        }
    }

    /// In the oracle's words. Left out are what asynchat does not have, and a count of 0: for asynchat that is no
    /// terminator at all, so that an empty body swallows what follows.
    fn for_asynchat(&self, text: &[u8]) -> Option<String> {
        match *self {
            Self::None => Some("n".into()),
            // Only without CR, of which asynchat would leave one at the end of each line.
            Self::Line(_) if !text.contains(&b'\r') => Some("b0a".into()),
            Self::Delimiter(bytes, _) | Self::Until(bytes, 0) => Some(format!("b{}", hex(bytes))),
            Self::Exactly(bytes) | Self::Declared(bytes, _) if bytes > 0 => Some(format!("i{bytes}")),
            Self::Stream(bytes) if bytes > 0 => Some(format!("i{bytes}")),
            _ => None,
        }
    }
}

/// Which terminator is set when.
#[derive(Clone, Debug)]
enum Script {
    /// The first when connected, the next after each frame; the last one stays.
    Once(Vec<Term>),
    /// The same, round and round.
    Cycle(Vec<Term>),
    /// Lines; after a line `len N` a body of N bytes.
    Header(fn(usize) -> Term),
    /// Lines; after a line `DATA` a mail, of whose CRLF.CRLF the first CRLF may be that of the line.
    Mail,
}

const LINE: Term = Term::Line(99);

/// What `exceeded` answers.
#[derive(Clone, Debug)]
enum Answer {
    Err,
    Ok,
    OkAndSet(Term),
}

#[derive(Clone, Debug)]
struct Corpus {
    name: String,
    bytes: Vec<u8>,
    script: Script,
    answer: Answer,
}

impl Corpus {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    /// For the oracle; nothing if asynchat cannot express it.
    fn for_asynchat(&self) -> Option<String> {
        let (rule, terms) = match &self.script {
            Script::Once(terms) => ("once", terms.clone()),
            Script::Cycle(terms) => ("cycle", terms.clone()),
            Script::Header(_) if self.bytes.windows(6).any(|six| six == b"len 0\n") => return None,
            Script::Header(_) => ("header", vec![LINE]),
            Script::Mail => return None,
        };
        let terms: Option<Vec<String>> = terms.iter().map(|term| term.for_asynchat(&self.bytes)).collect();
        Some(format!("corpus {rule} {} {}", terms?.join(","), hex(&self.bytes)))
    }
}

/// Frames of three bytes.
struct Triples;

impl Framer for Triples {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        Ok(if input.len() < 3 { Step::Need(3) } else { Step::Frame { bytes: 0..3, consumed: 3 } })
    }
}

/// `3\nabc` is a piece of three bytes, handed over as it comes; `0\n` is the end of the frame.
struct Chunked {
    left: usize,
}

impl Framer for Chunked {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        let mut start = 0;
        if self.left == 0 {
            let Some(end) = input.iter().position(|&byte| byte == b'\n') else { return Ok(Step::Need(input.len() + 1)) };
            let size: usize = str::from_utf8(&input[..end])?.parse()?;
            start = end + 1;
            match size {
                0 => return Ok(Step::Frame { bytes: start..start, consumed: start }),
                _ if input.len() == start => return Ok(Step::Need(start + 1)),
                _ => self.left = size,
            }
        }
        let end = input.len().min(start + self.left);
        self.left -= end - start;
        Ok(Step::Piece { bytes: start..end, consumed: end })
    }
}

/// A length, a mask, and that many bytes, each XORed with the mask; then a byte that is ignored.
struct Masked;

impl Framer for Masked {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        let [length, mask, ..] = *input else { return Ok(Step::Need(2)) };
        let end = 2 + usize::from(length);
        if input.len() <= end {
            return Ok(Step::Need(end + 1));
        }
        input[2..end].iter_mut().for_each(|byte| *byte ^= mask);
        Ok(Step::Frame { bytes: 2..end, consumed: end + 1 })
    }
}

const END_OF_MAIL: &[u8] = b"\r\n.\r\n";

/// Each with what is to come of it: `[frame]`, `(pieces, joined)`, `!` for exceeded, `$tail`, and `#reason` if that was not
/// the end that the test makes itself.
fn corpora() -> Vec<(Corpus, &'static str)> {
    use Answer::{Err, Ok, OkAndSet};
    use Endian::{Big, Little};
    use Script::{Cycle, Header, Mail, Once};
    use Term::*;
    use Width::{U8, U16, U32, U64};

    let one = |term: Term| Once(vec![term]);
    let widths = [U8, U16, U32, U64].into_iter().flat_map(|width| [Big, Little].map(|order| Prefixed(width, order, 9)));
    let all_widths = b"\x01a\x01b\x00\x02cd\x01\x00e\x00\x00\x00\x00\x01\x00\x00\x00f\x00\x00\x00\x00\x00\x00\x00\x01g\
        \x01\x00\x00\x00\x00\x00\x00\x00h\x03xy";
    let list: Vec<(&str, &[u8], Script, Answer, &str)> = vec![
        // Nothing that cuts.
        ("no terminator", b"as it comes", one(None), Err, "(as it comes)$"),
        // Lines.
        ("lf and crlf", b"one\r\n\ntwo\nthr\ree\r\n\r\r\nrest\r", one(LINE), Err, r"[one][][two][thr\ree][\r]$rest\r"),
        ("lf alone", b"a\n\n\nbb\nccc\nrest", one(LINE), Err, "[a][][][bb][ccc]$rest"),
        ("crlf alone", b"one\r\n\ntwo\r\r\n\r\nx\r", one(Delimiter(b"\r\n", 99)), Err, r"[one][\ntwo\r][]$x\r"),
        ("a limit met, and exceeded by one", b"abc\r\nabcd\nx\nabcdefg\r\nabc\r\r\ny\n", one(Line(3)), Ok, "[abc]![x]!![y]$"),
        ("a limit exceeded", b"abc\nabcd\nx\n", one(Line(3)), Err, "[abc]!#a frame is longer than its limit"),
        ("a limit exceeded at the end", b"abc\r\nab\rd\r", one(Line(3)), Ok, "[abc]!$"),
        ("a limit met at the end", b"abc\nabc\r", one(Line(3)), Ok, r"[abc]$abc\r"),
        ("another terminator after what is skipped", b"ab\nabcde\nwxyz", one(Line(3)), OkAndSet(Exactly(2)), "[ab]![wx](yz)$"),
        // Delimiters.
        ("one byte", b";a;;bc;tail", one(Delimiter(b";", 99)), Err, "[][a][][bc]$tail"),
        ("many bytes", b"x--END---END--END-z--END---EN", one(Delimiter(b"--END-", 99)), Err, "[x][][-END-z]$--EN"),
        ("overlapping itself: aa", b"aaaxaaaabaxa", one(Delimiter(b"aa", 99)), Err, "[][ax][]$baxa"),
        ("overlapping itself: aab", b"xaaabyaabaaaabaa", one(Delimiter(b"aab", 99)), Err, "[xa][y][aa]$aa"),
        ("overlapping itself: abab", b"abababaaxabab abaababa", one(Delimiter(b"abab", 99)), Err, "[][abaax][ aba]$a"),
        (
            "overlapping itself: abcabcabd",
            b"abcabcabcabdabcabcabxabcabcabdabcabc",
            one(Delimiter(b"abcabcabd", 99)),
            Err,
            "[abc][abcabcabx]$abcabc",
        ),
        ("a delimiter's limit", b"abc--==abcd----==x--==ab--=--==--", one(Delimiter(b"--==", 3)), Ok, "[abc]![x]!$--"),
        (
            "through many bytes",
            b"x--END---END--END-z--END---EN",
            one(Through(b"--END-", 99)),
            Err,
            "[x--END-][--END-][-END-z--END-]$--EN",
        ),
        (
            "through what overlaps itself",
            b"abababaaxabab abaababa",
            one(Through(b"abab", 99)),
            Err,
            "[abab][abaaxabab][ abaabab]$a",
        ),
        (
            "a limit counts the delimiter",
            b"abc--==abcd----==x--==ab--=--==--",
            one(Through(b"--==", 7)),
            Ok,
            "[abc--==]![x--==]!$--",
        ),
        ("a refused frame's rest is no tail", b"ab--=cdef--=", one(Delimiter(b"--==", 3)), Ok, "!$"),
        // Lengths.
        ("a length", b"helloworld", one(Exactly(5)), Err, "[hello](world)$"),
        ("lengths", b"abbcccabbcccabb", Cycle(vec![Exactly(1), Exactly(2), Exactly(3)]), Err, "[a][bb][ccc][a][bb][ccc][a][bb]$"),
        ("an unfinished length", b"abcdef", Cycle(vec![Exactly(4)]), Err, "[abcd]$ef"),
        ("a length of nothing", b"ab\ncd", Once(vec![Exactly(0), LINE]), Err, "[][ab]$cd"),
        ("a declared length at its limit", b"12345ab\nc", Once(vec![Declared(5, 5), LINE]), Err, "[12345][ab]$c"),
        ("a declared length over its limit", b"123456rest", one(Declared(6, 5)), Ok, "!(rest)$"),
        ("a declared length, refused", b"123456rest", one(Declared(6, 5)), Err, "!#a frame is longer than its limit"),
        (
            "headers and bodies",
            b"len 3\nab\nhi\nlen 6\nlen 2\nlen 1\n\nlen 4\nxy",
            Header(Exactly),
            Err,
            r"[len 3][ab\n][hi][len 6][len 2\n][len 1][\n][len 4]$xy",
        ),
        (
            "empty bodies",
            b"len 0\nlen 2\nablen 0\nlen 0\nlast\n",
            Header(Exactly),
            Err,
            "[len 0][][len 2][ab][len 0][][len 0][][last]$",
        ),
        (
            "bodies that are too long",
            b"len 4\nabcdlen 5\nabcd\nlen 0\nbye\n",
            Header(|bytes| Declared(bytes, 4)),
            OkAndSet(LINE),
            "[len 4][abcd][len 5]![len 0][][bye]$",
        ),
        // Streams.
        ("a stream, then lines", b"da\nax\ny", Once(vec![Stream(4), LINE]), Err, r"(da\na)[][x]$y"),
        (
            "streams of headers",
            b"len 3\nab\nlen 1\nxhi\nlen 9\nabc",
            Header(|bytes| Stream(bytes as u64)),
            Err,
            r"[len 3](ab\n)[][len 1](x)[][hi][len 9](abc)$",
        ),
        (
            "empty streams",
            b"len 0\nlen 2\nxylen 0\nhi\n",
            Header(|bytes| Stream(bytes as u64)),
            Err,
            "[len 0][][len 2](xy)[][len 0][][hi]$",
        ),
        (
            "a stream until",
            b"a\r\n.b\r\n\r\n.\r\n\r\n.\r\nrest\r\n.",
            one(Until(END_OF_MAIL, 0)),
            Err,
            r"(a\r\n.b\r\n)[][](rest)$\r\n.",
        ),
        ("a stream until one byte", b"ab;;c;d", one(Until(b";", 0)), Err, "(ab)[][](c)[](d)$"),
        (
            "a stream until, two bytes seen",
            b".\r\n.\r\nNEXT\r\n.\r\n.\r",
            one(Until(END_OF_MAIL, 2)),
            Err,
            r"[](.\r\nNEXT)[](.)$\r",
        ),
        ("a stream until, seen in vain", b"\n.\r\nx\r\n.\r\n", one(Until(END_OF_MAIL, 2)), Err, r"(\n.\r\nx)[]$"),
        ("a stream until, overlapping itself", b"abaaabaabxaa", one(Until(b"aab", 1)), Err, "[](a)[][](x)$aa"),
        (
            "mails",
            b"DATA\r\n.\r\nDATA\r\nhi\r\n..\r\n.\r\nDATA\r\n\r\n.\r\nQUIT\r\n",
            Mail,
            Err,
            r"[DATA][][DATA](hi\r\n..)[][DATA][][QUIT]$",
        ),
        // Custom framers.
        ("netstrings", b"5:hello,0:,12:hello world!,3:ab", one(Netstring(12)), Err, "[hello][][hello world!]$3:ab"),
        (
            "a broken netstring",
            b"2:hi,0:,3:abc;1:x,",
            one(Netstring(12)),
            Err,
            "[hi][]#failed: netstring: `;` where the comma should be",
        ),
        (
            "a netstring over its limit",
            b"4:four,5:fiver,1:x,",
            one(Netstring(4)),
            Err,
            "[four]!#a frame is longer than its limit",
        ),
        ("every width and order", all_widths, Cycle(widths.collect()), Err, r"[a][b][cd][e][][f][g][h]$\x03xy"),
        ("u16, big-endian", b"\x00\x03abc\x00\x00\x00\x01x\x00\x02y", one(Prefixed(U16, Big, 3)), Err, r"[abc][][x]$\x00\x02y"),
        (
            "u32, little-endian",
            b"\x03\x00\x00\x00abc\x00\x00\x00\x00\x01\x00\x00",
            one(Prefixed(U32, Little, 3)),
            Err,
            r"[abc][]$\x01\x00\x00",
        ),
        ("a prefix over its limit", b"\x03abc\x04abcd\x01x", one(Prefixed(U8, Big, 3)), Ok, "[abc]![x]$"),
        ("triples", b"abcdefghij", one(Custom(|| Terminator::custom(Triples, 3))), Err, "[abc][def][ghi]$j"),
        (
            "pieces of a framer",
            b"3\nabc2\n0\n0\n0\n11\nhello",
            one(Custom(|| Terminator::custom(Chunked { left: 0 }, 64))),
            Err,
            r"(abc0\n)[][](hello)$",
        ),
        (
            "masked",
            b"\x03\x20abc.\x00\x20.\x02\x00xy.\x02\x20x",
            one(Custom(|| Terminator::custom(Masked, 99))),
            Err,
            r"[ABC][][xy]$\x02 x",
        ),
        // Now this, now that.
        (
            "every kind in turn",
            b"line\r\nabc--=-2:hi,\x02pqxyzw!zz\r\nend",
            Once(vec![
                LINE,
                Delimiter(b"-=-", 9),
                Netstring(9),
                Prefixed(U8, Big, 9),
                Exactly(3),
                Until(b"!", 0),
                Delimiter(b"\r\n", 9),
                None,
            ]),
            Err,
            "[line][abc-][hi][pq][xyz](w)[][zz](end)$",
        ),
    ];
    let list = list.into_iter().map(|(name, bytes, script, answer, expected)| {
        (Corpus { name: name.into(), bytes: bytes.to_vec(), script, answer }, expected)
    });
    list.collect()
}

// ------------------------------------------------------------------------------------------------ what came of it

#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    Frame(Vec<u8>),
    /// Joined: how they were cut says nothing.
    Pieces(Vec<u8>),
    Exceeded(Limit),
    Eof(Vec<u8>),
    Closed(String),
}

/// As the corpora say what they expect.
fn shown(calls: &[Call]) -> String {
    let mut text = String::new();
    for call in calls {
        let _ = match call {
            Call::Frame(frame) => write!(text, "[{}]", frame.escape_ascii()),
            Call::Pieces(pieces) => write!(text, "({})", pieces.escape_ascii()),
            Call::Exceeded(_) => write!(text, "!"),
            Call::Eof(tail) => write!(text, "${}", tail.escape_ascii()),
            Call::Closed(why) if why == "aborted" => continue,
            Call::Closed(why) => write!(text, "#{why}"),
        };
    }
    text
}

/// As the oracle says it: asynchat collects pieces always, also of what is a whole frame here.
fn as_asynchat(calls: &[Call]) -> String {
    let (mut frames, mut collected) = (Vec::new(), Vec::new());
    for call in calls {
        match call {
            Call::Pieces(pieces) => collected.extend_from_slice(pieces),
            Call::Frame(frame) => {
                collected.extend_from_slice(frame);
                frames.push(hex(&std::mem::take(&mut collected)));
            }
            Call::Eof(tail) => collected.extend_from_slice(tail),
            Call::Exceeded(_) | Call::Closed(_) => {}
        }
    }
    format!("{}|{}", frames.join(","), hex(&collected))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

// ------------------------------------------------------------------------------------------------ through the loop

/// What one connection was called with.
struct Seen {
    key: Key,
    calls: Vec<Call>,
    /// How long what went to `received` was after each call.
    pieces: Vec<usize>,
}

/// What is being tried, and what the connections of this round have seen, in the order in which they came.
struct Trial {
    corpus: Rc<Corpus>,
    seen: Vec<Seen>,
}

/// Follows the script, and writes down what it is called with.
struct Player {
    corpus: Rc<Corpus>,
    index: usize,
    step: usize,
    in_body: bool,
}

impl Player {
    fn note(&self, trial: &mut Trial, call: Call) {
        trial.seen[self.index].calls.push(call);
    }

    fn after(&mut self, frame: &[u8]) -> Option<Term> {
        self.step += 1;
        match &self.corpus.script {
            Script::Once(terms) => terms.get(self.step).cloned(),
            Script::Cycle(terms) => Some(terms[self.step % terms.len()].clone()),
            Script::Header(_) | Script::Mail if std::mem::take(&mut self.in_body) => Some(LINE),
            Script::Header(body) => {
                let length = frame.strip_prefix(b"len ")?;
                self.in_body = true;
                Some(body(str::from_utf8(length).ok()?.parse().ok()?))
            }
            Script::Mail => {
                self.in_body = frame == b"DATA";
                self.in_body.then_some(Term::Until(END_OF_MAIL, 2))
            }
        }
    }
}

impl Protocol<Trial> for Player {
    fn connected(&mut self, ctx: &mut Context<'_, Trial>, trial: &mut Trial) -> Outcome {
        trial.seen.push(Seen { key: ctx.key, calls: Vec::new(), pieces: Vec::new() });
        self.index = trial.seen.len() - 1;
        ctx.set_terminator(match &self.corpus.script {
            Script::Once(terms) | Script::Cycle(terms) => terms[0].make(),
            Script::Header(_) | Script::Mail => LINE.make(),
        });
        Ok(())
    }

    fn received(&mut self, _: &mut Context<'_, Trial>, trial: &mut Trial, bytes: &[u8]) -> Outcome {
        assert!(!bytes.is_empty(), "an empty piece");
        let seen = &mut trial.seen[self.index];
        seen.pieces.push(seen.pieces.last().unwrap_or(&0) + bytes.len());
        match seen.calls.last_mut() {
            Some(Call::Pieces(pieces)) => pieces.extend_from_slice(bytes),
            _ => self.note(trial, Call::Pieces(bytes.to_vec())),
        }
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Trial>, trial: &mut Trial, frame: &[u8]) -> Outcome {
        self.note(trial, Call::Frame(frame.to_vec()));
        if let Some(next) = self.after(frame) {
            ctx.set_terminator(next.make());
        }
        Ok(())
    }

    fn exceeded(&mut self, ctx: &mut Context<'_, Trial>, trial: &mut Trial, limit: Limit) -> Outcome {
        self.note(trial, Call::Exceeded(limit));
        self.in_body = false;
        match &self.corpus.answer {
            Answer::Err => return Err(limit.into()),
            Answer::Ok => {}
            Answer::OkAndSet(term) => ctx.set_terminator(term.make()),
        }
        Ok(())
    }

    /// The reset leaves no port behind in TIME_WAIT, of which thousands of connections would need as many.
    fn eof(&mut self, ctx: &mut Context<'_, Trial>, trial: &mut Trial, tail: &[u8]) -> Outcome {
        self.note(trial, Call::Eof(tail.to_vec()));
        ctx.abort();
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Trial>, trial: &mut Trial, why: Reason) {
        self.note(trial, Call::Closed(why.to_string()));
    }
}

/// This many connections at once: two descriptors each, and every test has its own, in a process that may have 1,024.
const ROUND: usize = 100;

/// A reactor that plays corpora to connections.
struct Bench {
    reactor: Reactor<Trial>,
    at: SockAddr,
}

impl Bench {
    fn tcp(config: Config) -> Self {
        Self::listening("127.0.0.1:0".into(), config)
    }

    /// A Unix socket where there are such: what is written to one is with its reader when `write` returns, so that no two
    /// pieces can ever merge; and it costs a third.
    fn local(config: Config) -> Self {
        #[cfg(unix)]
        return {
            let path = std::env::temp_dir().join(format!("mainspring-cuts-{}.sock", std::process::id()));
            Self::listening(path.into(), config)
        };
        #[cfg(not(unix))]
        Self::tcp(config)
    }

    fn listening(at: Target, config: Config) -> Self {
        let mut reactor = Reactor::with_config(config).expect("a selector");
        let listener = reactor.net().listen_with(at, Listen::new().backlog(ROUND as u32), |_, trial: &mut Trial, _| {
            Ok(Player { corpus: Rc::clone(&trial.corpus), index: 0, step: 0, in_body: false })
        });
        let listener = listener.expect("a free place");
        let at = match reactor.net().local(listener).expect("it listens") {
            Address::Ip(at) => SockAddr::from(*at),
            Address::Unix(Some(path)) => SockAddr::unix(path).expect("a short path"),
            other => panic!("listens on {other}"),
        };
        Self { reactor, at }
    }

    /// What comes of the corpus for each of these cuts: each is a list of offsets, in order.
    fn play(&mut self, corpus: &Corpus, cuts: &[Vec<usize>]) -> Vec<Seen> {
        let corpus = Rc::new(corpus.clone());
        cuts.chunks(ROUND).flat_map(|cuts| self.round(&corpus, cuts)).collect()
    }

    fn round(&mut self, corpus: &Rc<Corpus>, cuts: &[Vec<usize>]) -> Vec<Seen> {
        let mut trial = Trial { corpus: Rc::clone(corpus), seen: Vec::new() };
        let peers: Vec<Socket> = cuts.iter().map(|_| self.connect()).collect();
        until_net(&mut self.reactor, &mut trial, |_, trial| trial.seen.len() == peers.len());
        for piece in 0..=cuts.iter().map(Vec::len).max().unwrap_or(0) {
            for (peer, cuts) in peers.iter().zip(cuts).filter(|(_, cuts)| piece <= cuts.len()) {
                let start = if piece == 0 { 0 } else { cuts[piece - 1] };
                let end = cuts.get(piece).copied().unwrap_or(corpus.len());
                write(peer, &corpus.bytes[start..end]);
            }
            self.take_all(&mut trial);
        }
        for peer in &peers {
            let _ = peer.shutdown(Shutdown::Write); // of one that was reset already
        }
        until_net(&mut self.reactor, &mut trial, |_, trial| {
            trial.seen.iter().all(|seen| matches!(seen.calls.last(), Some(Call::Closed(_))))
        });
        trial.seen
    }

    fn connect(&self) -> Socket {
        let is_ip = self.at.as_socket().is_some();
        let peer = Socket::new(if is_ip { Domain::IPV4 } else { Domain::UNIX }, Type::STREAM, None).expect("a descriptor");
        peer.connect(&self.at).expect("somebody listens");
        if is_ip {
            peer.set_tcp_nodelay(true).expect("a socket option");
        }
        peer
    }

    /// Until there is nothing in the kernel for any of the connections.
    fn take_all(&mut self, trial: &mut Trial) {
        until_net(&mut self.reactor, trial, |net, trial| {
            trial.seen.iter().all(|seen| {
                let Some(link) = net.link(seen.key) else { return true };
                let peeked = link.with_socket(|socket| socket.peek(&mut [MaybeUninit::uninit()]));
                !matches!(peeked, Some(Ok(1..)))
            })
        });
    }
}

/// To one that may have been closed for what came before.
fn write(mut peer: &Socket, bytes: &[u8]) {
    let gone = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted];
    match peer.write_all(bytes) {
        Err(error) if !gone.contains(&error.kind()) => panic!("the peer takes no more: {error}"),
        _ => {}
    }
}

// ------------------------------------------------------------------------------------------------------------ cuts

/// Not at all, in two and in three, and into single bytes.
fn all_cuts(bytes: usize) -> Vec<Vec<usize>> {
    let twos = (1..bytes).map(|a| vec![a]);
    let threes = (1..bytes).flat_map(|a| (a + 1..bytes).map(move |b| vec![a, b]));
    [vec![]].into_iter().chain(twos).chain(threes).chain([(1..bytes).collect()]).collect()
}

/// A corpus with what came of it for each cut.
struct Played {
    corpus: Corpus,
    expected: String,
    cuts: Vec<Vec<usize>>,
    seen: Vec<Seen>,
}

impl Played {
    #[track_caller]
    fn assert_all_as_expected(&self) {
        for (cuts, seen) in self.cuts.iter().zip(&self.seen) {
            let (name, text) = (&self.corpus.name, self.corpus.bytes.escape_ascii());
            assert_eq!(shown(&seen.calls), self.expected, "{name}: \"{text}\" cut at {cuts:?}");
        }
    }

    /// The case for the oracle, and what it should say to it. Nothing if asynchat cannot express it, or a limit was reached,
    /// of which it has none.
    fn for_asynchat(&self) -> Option<(String, Vec<String>)> {
        if self.expected.contains(['!', '#']) {
            return None;
        }
        let mut case = self.corpus.for_asynchat()? + "\n";
        for cuts in &self.cuts {
            let offsets: String = cuts.iter().map(|cut| format!(" {cut}")).collect();
            case += &format!("cut{offsets}\n");
        }
        Some((case, self.seen.iter().map(|seen| as_asynchat(&seen.calls)).collect()))
    }
}

fn count(played: &[Played]) -> usize {
    played.iter().map(|played| played.cuts.len()).sum()
}

/// The corpora in all cuts; played once for all tests.
fn played() -> &'static [Played] {
    static PLAYED: OnceLock<Vec<Played>> = OnceLock::new();
    PLAYED.get_or_init(|| {
        let mut bench = Bench::local(Config::new());
        let played = corpora().into_iter().map(|(corpus, expected)| {
            let cuts = all_cuts(corpus.len());
            let seen = bench.play(&corpus, &cuts);
            Played { corpus, expected: expected.into(), cuts, seen }
        });
        played.collect()
    })
}

#[test]
fn every_cut_in_two_and_in_three_gives_the_same_frames() {
    assert!(played().len() >= 30);
    for played in played() {
        played.assert_all_as_expected();
    }
    println!("{} cuts of {} corpora", count(played()), played().len());
}

/// Or the other tests here would try less than they say.
#[test]
fn pieces_arrive_as_they_were_cut() {
    let played = &played()[0];
    assert_eq!(played.corpus.name, "no terminator");
    let as_cut = |(cuts, seen): &(&Vec<usize>, &Seen)| **cuts == seen.pieces[..seen.pieces.len() - 1];
    let exact = played.cuts.iter().zip(&played.seen).filter(as_cut).count();
    // On a Unix socket all of them. TCP may be late with a piece, which then comes with the next one.
    assert!(exact * 10 >= played.cuts.len() * 9, "{exact} of {}", played.cuts.len());
}

// ---------------------------------------------------------------------------------------------------------- chance

/// xorshift64*: the same numbers for the same seed.
struct Chance(u64);

impl Chance {
    /// Another seed: `CUTS_SEED=0x… cargo test --test cuts`.
    fn new() -> Self {
        let seed = std::env::var("CUTS_SEED").unwrap_or_else(|_| "0x6d61696e73707269".into());
        let seed = u64::from_str_radix(seed.trim_start_matches("0x"), 16).expect("CUTS_SEED is a hexadecimal number");
        Self(seed.max(1))
    }

    /// In 0..bound.
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// At least one, if there is room for it; often few, sometimes everywhere.
    fn cuts(&mut self, bytes: usize) -> Vec<usize> {
        let most = self.one_of(&[3, 6, bytes.max(1)]);
        let mut cuts: Vec<usize> = (0..=self.below(most)).map(|_| self.below(bytes + 1)).collect();
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    }

    /// Few different bytes, so that delimiters and their halves are everywhere.
    fn corpus(&mut self) -> Corpus {
        let name = format!("a random corpus, the first of CUTS_SEED={:#x}", self.0);
        let alphabet = self.one_of(&[&b"ab"[..], b"ab;\n", b"\r\n.", b"a\r\n", b"0123ab;\r\n"]);
        let bytes = (0..self.below(60)).map(|_| self.one_of(alphabet)).collect();
        let terms: Vec<Term> = (0..=self.below(4)).map(|_| self.term()).collect();
        let script = if self.below(2) == 0 { Script::Once(terms) } else { Script::Cycle(terms) };
        Corpus { name: format!("{name}, {script:?}"), bytes, script, answer: Answer::Ok }
    }

    /// Each consumes something, or a script that goes round and round would never end.
    fn term(&mut self) -> Term {
        let delimiter = self.one_of(&[&b"\n"[..], b"\r\n", b"a", b"ab", b"aa", b"aab", b"abab", b";;", b"\n.\n", b"\r\n.\r\n"]);
        let limit = self.one_of(&[3, 8, 99, 99]);
        match self.below(9) {
            0 => Term::Line(limit),
            1..4 => Term::Delimiter(delimiter, limit),
            4 => Term::Exactly(1 + self.below(6)),
            5 => Term::Declared(1 + self.below(6), 5),
            6 => Term::Stream(1 + self.below(6) as u64),
            7 => Term::Until(delimiter, 0),
            _ => Term::Until(delimiter, self.below(delimiter.len())),
        }
    }
}

/// Corpora made by chance, each uncut, which says what is expected, and in random cuts; played once for all tests.
fn played_by_chance() -> &'static [Played] {
    static PLAYED: OnceLock<Vec<Played>> = OnceLock::new();
    PLAYED.get_or_init(|| {
        let (mut chance, mut bench) = (Chance::new(), Bench::tcp(Config::new()));
        let played = (0..400).map(|_| {
            let corpus = chance.corpus();
            let cuts: Vec<_> = [vec![]].into_iter().chain((0..11).map(|_| chance.cuts(corpus.len()))).collect();
            let seen = bench.play(&corpus, &cuts);
            Played { expected: shown(&seen[0].calls), corpus, cuts, seen }
        });
        played.collect()
    })
}

#[test]
fn random_cuts_of_random_bytes_give_the_same_frames() {
    for played in played_by_chance() {
        played.assert_all_as_expected();
    }
    println!("{} cuts of {} corpora", count(played_by_chance()), played_by_chance().len());
}

/// Also where the loop itself cuts: each read and each frame in a turn of its own.
#[test]
fn random_cuts_give_the_same_frames_whatever_the_budgets() {
    let mut chance = Chance::new();
    let seed = chance.0;
    for config in [Config::new(), Config::new().turn_frames(1), Config::new().turn_frames(2).turn_bytes(1)] {
        let mut bench = Bench::tcp(config.clone());
        for (mut corpus, expected) in corpora() {
            corpus.name += &format!(" with {config:?}, CUTS_SEED={seed:#x}");
            let cuts: Vec<_> = (0..20).map(|_| chance.cuts(corpus.len())).collect();
            let seen = bench.play(&corpus, &cuts);
            Played { corpus, expected: expected.into(), cuts, seen }.assert_all_as_expected();
        }
    }
}

// ---------------------------------------------------------------------------------------------------------- oracle

/// Left out is what asynchat cannot express (LF or CRLF, limits, prefixes, framers), and where it is known to be wrong: a
/// count of 0, which never fires; a delimiter that is half seen at the end of the stream, which it drops (the oracle adds
/// what it holds).
#[test]
fn asynchat_makes_the_same_frames_of_the_same_pieces() {
    if !has_asynchat() {
        common::skip("there is no `python3` that has asynchat, which left Python's library with 3.12");
        return;
    }
    let played = || played().iter().chain(played_by_chance());
    let cases: Vec<_> = played().filter_map(|played| Some((played, played.for_asynchat()?))).collect();
    assert!(cases.len() >= 100, "{} corpora are not worth the name", cases.len());
    let input: String = cases.iter().map(|(_, (case, _))| case.as_str()).collect();
    let output = ask_asynchat(&input);
    let mut lines = output.lines();
    let mut compared = 0;
    for (played, (_, ours)) in &cases {
        for (cuts, ours) in played.cuts.iter().zip(ours) {
            let (name, text) = (&played.corpus.name, played.corpus.bytes.escape_ascii());
            assert_eq!(Some(ours.as_str()), lines.next(), "{name}: \"{text}\" cut at {cuts:?}");
            compared += 1;
        }
    }
    assert_eq!(lines.next(), None);
    println!("frames identical to asynchat in {compared} cases of {} corpora", cases.len());
}

fn has_asynchat() -> bool {
    let python = Command::new("python3").args(["-W", "ignore", "-c", "import asynchat"]).stderr(Stdio::null()).status();
    python.is_ok_and(|status| status.success())
}

/// It reads everything before it says anything, so neither pipe can fill up while the other waits.
fn ask_asynchat(input: &str) -> String {
    let mut python = Command::new("python3")
        .args(["-W", "ignore", "-c", include_str!("oracle.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was there just now");
    let mut stdin = python.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = python.wait_with_output().expect("it ends");
    assert!(output.status.success(), "the oracle failed, see above");
    String::from_utf8(output.stdout).expect("hex")
}
