//! CPython's test_asynchat, on our names: `push` is `send`, `push_with_producer` is `produce`, `close_when_done` is `close`,
//! `set_terminator` is itself. As there, a client sends to an echo server before it is connected, and collects what the
//! server sends back in small pieces. Each test has the name of its original; the two selectors of the original are two
//! runs of this file.
//!
//! Two of its checks need no test, because the types make them: `push` of a number does not compile (of a `str` it does: it
//! is bytes), and neither does a negative terminator (test_disallow_negative_terminator).

mod common;

use common::{PATIENCE, read_exactly, read_to_end, settle, until, until_net};
use mainspring::{Config, Context, Key, Outcome, Produced, Protocol, Reactor, Reason, Terminator};
use std::{
    io::Write,
    net::{TcpListener, TcpStream},
    rc::Rc,
};

const QUIT: &[u8] = b"QUIT\n";

/// What the client has collected.
#[derive(Default)]
struct Seen {
    contents: Vec<Vec<u8>>,
    buffer: Vec<u8>,
    /// Bytes of the stream that are accounted for.
    taken: usize,
    ending: Option<Reason>,
}

/// asynchat's two callbacks: `received` is collect_incoming_data, `frame` is found_terminator.
struct EchoClient {
    /// Its length is what `frame` leaves out.
    delimiter: usize,
}

impl Protocol<Seen> for EchoClient {
    fn received(&mut self, _: &mut Context<'_, Seen>, seen: &mut Seen, bytes: &[u8]) -> Outcome {
        assert!(!bytes.is_empty(), "no empty pieces");
        seen.buffer.extend_from_slice(bytes);
        seen.taken += bytes.len();
        Ok(())
    }

    fn frame(&mut self, _: &mut Context<'_, Seen>, seen: &mut Seen, frame: &[u8]) -> Outcome {
        seen.buffer.extend_from_slice(frame);
        seen.taken += frame.len() + self.delimiter;
        seen.contents.push(std::mem::take(&mut seen.buffer));
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Seen>, seen: &mut Seen, why: Reason) {
        assert!(seen.ending.replace(why).is_none(), "closed is called once");
    }
}

struct Chat {
    reactor: Reactor<Seen>,
    seen: Seen,
    client: Key,
    server: TcpStream,
    echoed: usize,
}

impl Chat {
    /// The client is about to connect: no turn has been taken.
    fn open(delimiter: &[u8], terminator: Terminator) -> Self {
        let mut reactor = Reactor::with_config(Config::new().read_bytes(4096)).expect("a selector");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let client = reactor.net().connect(addr, EchoClient { delimiter: delimiter.len() });
        reactor.net().link(client).expect("just made").set_terminator(terminator);
        let (server, _) = listener.accept().expect("the kernel has connected them");
        server.set_write_timeout(Some(PATIENCE)).expect("a socket option");
        server.set_nodelay(true).expect("a socket option");
        Self { reactor, seen: Seen::default(), client, server, echoed: 0 }
    }

    fn push(&mut self, bytes: impl AsRef<[u8]>) {
        assert!(self.reactor.net().send(self.client, bytes), "it is open");
    }

    /// The server reads up to QUIT, which it leaves out.
    fn collect(&mut self, bytes: usize) -> Vec<u8> {
        let mut all = read_exactly(&mut self.reactor, &mut self.seen, &mut self.server, bytes + QUIT.len());
        assert_eq!(all.split_off(bytes), QUIT);
        all
    }

    /// The server sends one piece, and the client reads it before anything else comes.
    #[track_caller]
    fn echo(&mut self, piece: &[u8]) {
        self.server.write_all(piece).expect("connected");
        self.echoed += piece.len();
        let (client, echoed) = (self.client, self.echoed);
        until_net(&mut self.reactor, &mut self.seen, |net, seen| {
            seen.taken + net.link(client).expect("nobody closed it").unread() == echoed
        });
    }

    fn echo_in_chunks(&mut self, bytes: &[u8], chunk: usize) {
        for piece in bytes.chunks(chunk) {
            self.echo(piece);
        }
    }

    fn contents(&mut self) -> Vec<String> {
        let contents = std::mem::take(&mut self.seen.contents);
        contents.iter().map(|frame| String::from_utf8_lossy(frame).into_owned()).collect()
    }
}

/// A frame at a time, or in pieces, as asynchat does; and lines of either kind.
fn ways_to_end_with(delimiter: &[u8]) -> Vec<Terminator> {
    let mut ways = vec![Terminator::delimiter(delimiter.to_vec(), 100), Terminator::stream_until(delimiter.to_vec())];
    if delimiter.ends_with(b"\n") {
        ways.push(Terminator::line(100));
    }
    ways
}

fn check_line_terminator(delimiter: &str) {
    let expected = ["hello world", "I'm not dead yet!"];
    for chunk in [1, 2, 3] {
        for terminator in ways_to_end_with(delimiter.as_bytes()) {
            let mut chat = Chat::open(delimiter.as_bytes(), terminator);
            chat.push("hello ");
            chat.push(format!("world{delimiter}"));
            chat.push(format!("I'm not dead yet!{delimiter}"));
            chat.push(QUIT);
            let all = chat.collect(28 + 2 * delimiter.len());
            chat.echo_in_chunks(&all, chunk);
            assert_eq!(chat.contents(), expected, "in chunks of {chunk}");
        }
    }
    check_every_split(delimiter, &format!("hello world{delimiter}I'm not dead yet!{delimiter}"), &expected);
}

/// In one, two and three pieces, cut anywhere.
fn check_every_split(delimiter: &str, stream: &str, expected: &[&str]) {
    let stream = stream.as_bytes();
    for terminator in ways_to_end_with(delimiter.as_bytes()) {
        let shown = format!("{terminator:?}");
        let mut chat = Chat::open(delimiter.as_bytes(), terminator);
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                for piece in [&stream[..first], &stream[first..second], &stream[second..]] {
                    chat.echo(piece);
                }
                assert_eq!(chat.contents(), expected, "{shown} cut at {first} and {second}");
            }
        }
    }
}

/// A one-byte terminator, echoed in chunks of 1, 2 and 3 bytes.
#[test]
fn test_line_terminator1() {
    check_line_terminator("\n");
}

/// The same with two bytes.
#[test]
fn test_line_terminator2() {
    check_line_terminator("\r\n");
}

/// The same with three.
#[test]
fn test_line_terminator3() {
    check_line_terminator("qqq");
}

fn check_numeric_terminator(bytes: usize) {
    let data = b"hello world, I'm not dead yet!\n";
    let mut chat = Chat::open(b"", Terminator::exactly(bytes));
    chat.push(data);
    chat.push(QUIT);
    let all = chat.collect(data.len());
    assert_eq!(all, data);
    for cut in 0..=all.len() {
        for terminator in [Terminator::exactly(bytes), Terminator::Stream(bytes as u64)] {
            chat.reactor.net().link(chat.client).expect("open").set_terminator(terminator);
            chat.echo(&all[..cut]);
            chat.echo(&all[cut..]);
            assert_eq!(chat.contents(), [String::from_utf8_lossy(&data[..bytes])], "cut at {cut}");
            assert_eq!(std::mem::take(&mut chat.seen.buffer), data[bytes..], "once: then everything is collected");
        }
    }
}

/// A count of one byte: that many first bytes are the one frame.
#[test]
fn test_numeric_terminator1() {
    check_numeric_terminator(1);
}

/// The same with six.
#[test]
fn test_numeric_terminator2() {
    check_numeric_terminator(6);
}

/// No terminator: no frame, all bytes are collected.
#[test]
fn test_none_terminator() {
    let data = b"hello world, I'm not dead yet!\n";
    let mut chat = Chat::open(b"", Terminator::None);
    chat.push(data);
    chat.push(QUIT);
    let all = chat.collect(data.len());
    chat.echo_in_chunks(&all, 1);
    assert_eq!(chat.contents(), Vec::<String>::new());
    assert_eq!(chat.seen.buffer, data);
}

/// A producer that makes eight bytes at a time.
#[test]
fn test_simple_producer() {
    let data = b"hello world\nI'm not dead yet!\n";
    let mut chat = Chat::open(b"\n", Terminator::delimiter(&b"\n"[..], 100));
    let mut rest = [data, QUIT].concat();
    let producer = move |out: &mut Vec<u8>| {
        out.extend(rest.drain(..rest.len().min(8)));
        Ok(if rest.is_empty() { Produced::Done } else { Produced::More })
    };
    assert!(chat.reactor.net().link(chat.client).expect("open").produce(producer));
    let all = chat.collect(data.len());
    chat.echo_in_chunks(&all, 1);
    assert_eq!(chat.contents(), ["hello world", "I'm not dead yet!"]);
}

/// Bytes given as a producer: the whole at once.
#[test]
fn test_string_producer() {
    let data = b"hello world\nI'm not dead yet!\n";
    let mut chat = Chat::open(b"\n", Terminator::delimiter(&b"\n"[..], 100));
    let producer = |out: &mut Vec<u8>| {
        out.extend_from_slice(data);
        out.extend_from_slice(QUIT);
        Ok(Produced::Done)
    };
    assert!(chat.reactor.net().link(chat.client).expect("open").produce(producer));
    let all = chat.collect(data.len());
    chat.echo_in_chunks(&all, 1);
    assert_eq!(chat.contents(), ["hello world", "I'm not dead yet!"]);
}

/// An empty line is an empty frame.
#[test]
fn test_empty_line() {
    let data = b"hello world\n\nI'm not dead yet!\n";
    let mut chat = Chat::open(b"\n", Terminator::delimiter(&b"\n"[..], 100));
    chat.push(data);
    chat.push(QUIT);
    let all = chat.collect(data.len());
    chat.echo_in_chunks(&all, 1);
    assert_eq!(chat.contents(), ["hello world", "", "I'm not dead yet!"]);
    check_every_split("\n", "a\n\nb\n", &["a", "", "b"]);
    check_every_split("\r\n", "\r\n\r\na\r\n", &["", "", "a"]);
}

/// Closed politely before it is connected: the server receives what was sent, the client gets nothing of the reply.
#[test]
fn test_close_when_done() {
    let data = b"hello world\nI'm not dead yet!\n";
    let mut chat = Chat::open(b"\n", Terminator::delimiter(&b"\n"[..], 100));
    chat.push(data);
    chat.push(QUIT);
    assert!(chat.reactor.net().close(chat.client));
    until(&mut chat.reactor, &mut chat.seen, |seen| seen.ending.is_some());
    assert!(matches!(chat.seen.ending, Some(Reason::Finish)), "{:?}", chat.seen.ending);
    let all = read_to_end(&mut chat.reactor, &mut chat.seen, &mut chat.server);
    assert_eq!(all, [data, QUIT].concat());
    for _ in 0..2 {
        chat.server.write_all(data).expect("the client's socket lingers: no reset for late bytes");
        settle(&mut chat.reactor, &mut chat.seen);
    }
    assert_eq!(chat.contents(), Vec::<String>::new());
}

/// Everything that is bytes can be sent.
#[test]
fn test_push() {
    let mut chat = Chat::open(b"\n", Terminator::delimiter(&b"\n"[..], 100));
    chat.push(b"bytes\n");
    chat.push(vec![b'b', b'y', b't', b'e', b's', b'\n']);
    chat.push(&b"bytes\n"[..]);
    chat.push("bytes\n");
    chat.push(String::from("bytes\n"));
    assert!(chat.reactor.net().send_shared(chat.client, &Rc::from(&b"bytes\n"[..])));
    writeln!(chat.reactor.net().link(chat.client).expect("open"), "bytes").expect("open");
    chat.push(QUIT);
    let all = chat.collect(7 * 6);
    chat.echo_in_chunks(&all, 5);
    assert_eq!(chat.contents(), ["bytes"; 7]);
}

/// A read that finds nothing is no error: after a full read the loop looks again, and EAGAIN says that this was all.
#[test]
fn test_blockingioerror() {
    let mut chat = Chat::open(b"", Terminator::None);
    chat.echo(&[b'x'; 4096]);
    chat.echo(b"y");
    assert_eq!(chat.seen.buffer.len(), 4097);
    assert!(chat.seen.ending.is_none(), "{:?}", chat.seen.ending);
}

/// What is held back of a stream is the longest end of it that begins the delimiter, and nothing more.
#[test]
fn test_find_prefix_at_end() {
    let held = [
        ("qwerty\r", "\r\n", 1),
        ("qwertydkjf", "\r\n", 0),
        ("body\r\n.\r", "\r\n.\r\n", 4),
        ("body\r\n.\rx", "\r\n.\r\n", 0),
        ("xaa", "aab", 2),
        ("xaaa", "aab", 2),
        ("xabab", "ababc", 4),
        ("xababab", "ababc", 4),
        ("xqq", "qqq", 2),
        ("\r\r\r", "\r\r\n", 2),
        ("a", "abcabd", 1),
        ("abcab", "abcabd", 5),
        ("abcabcab", "abcabd", 5),
    ];
    for (stream, delimiter, expected) in held {
        let mut chat = Chat::open(delimiter.as_bytes(), Terminator::stream_until(delimiter.as_bytes()));
        chat.echo(stream.as_bytes());
        let unread = chat.reactor.net().link(chat.client).expect("open").unread();
        assert_eq!(unread, expected, "{stream:?} before {delimiter:?}");
        assert_eq!(chat.seen.buffer, stream.as_bytes()[..stream.len() - expected]);
        // The rest of the delimiter makes it one; anything else makes it text.
        chat.echo(&delimiter.as_bytes()[expected..]);
        assert_eq!(chat.contents(), [&stream[..stream.len() - expected]], "{stream:?} and the rest of {delimiter:?}");
        chat.echo(stream.as_bytes());
        chat.echo(b"!");
        assert_eq!(chat.seen.buffer, format!("{stream}!").as_bytes(), "a false alarm");
    }
}
