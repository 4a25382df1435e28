//! Programs as their authors would write them: first of all they compile, without a clone, an `Rc` or a look-up that they
//! do not need. Those that can run over the loopback alone do so here.
// They are programs, not a library, and two of them bring the same module.
#![allow(dead_code, unreachable_pub, missing_debug_implementations, clippy::duplicate_mod)]

#[path = "programs/borrowed_state.rs"]
mod borrowed_state;
#[path = "programs/chat.rs"]
mod chat;
#[path = "programs/cli.rs"]
mod cli;
mod common;
#[path = "programs/dashboard.rs"]
mod dashboard;
#[path = "programs/game.rs"]
mod game;
#[cfg(feature = "sim")]
#[path = "programs/game_sim.rs"]
mod game_sim;
#[cfg(unix)]
#[path = "programs/netcat.rs"]
mod netcat;
#[path = "programs/redis.rs"]
mod redis;
#[path = "programs/socks5.rs"]
mod socks5;

use common::{dial, listen, read_exactly, read_to_end, say, until};
use mainspring::{Context, Outcome, Protocol, Reactor, Terminator};
use std::net::{Shutdown, SocketAddr};

struct Echo;

impl<S> Protocol<S> for Echo {
    fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }
}

/// A SOCKS5 request for an IPv4 address, after the greeting.
fn ask(to: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(to) = to else { panic!("the loopback is IPv4 here") };
    [&[5, 1, 0, 5, 1, 0, 1], &to.ip().octets()[..], &to.port().to_be_bytes()].concat()
}

#[test]
fn the_socks5_proxy_relays_and_passes_the_end_on() {
    let (mut reactor, mut proxy) = (Reactor::new().expect("a selector"), socks5::Proxy::default());
    let (_, target) = listen(&mut reactor, || Echo);
    let server = socks5::serve(&mut reactor.net(), "127.0.0.1:0").expect("a free port");
    let addr = reactor.net().local(server).and_then(|local| local.ip()).expect("an IP listener");

    let mut client = dial(addr);
    say(&client, [&ask(target)[..], b"early bytes"].concat());
    let reply = read_exactly(&mut reactor, &mut proxy, &mut client, 2 + 10 + 11);
    assert_eq!((&reply[..4], &reply[12..]), (&[5, 0, 5, 0][..], &b"early bytes"[..]));
    client.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(read_to_end(&mut reactor, &mut proxy, &mut client), b"");
    until(&mut reactor, &mut proxy, |proxy| proxy.open == 0);
}

/// The same by name (RFC 1928, 4: an octet with its length first).
fn ask_by_name(host: &str, port: u16) -> Vec<u8> {
    let length = u8::try_from(host.len()).expect("a short name");
    [&[5, 1, 0, 5, 1, 0, 3, length], host.as_bytes(), &port.to_be_bytes()].concat()
}

#[test]
fn the_socks5_proxy_connects_by_name_and_says_at_which_stage_it_could_not() {
    let resolve = |host: &str| match host {
        "here.test" => Ok(vec!["127.0.0.1".parse().expect("literal")]),
        _ => Err(std::io::Error::new(std::io::ErrorKind::NotFound, format!("`{host}`: there is no such name"))),
    };
    let mut reactor = Reactor::with_config(mainspring::Config::new().resolver(resolve)).expect("a selector");
    let mut proxy = socks5::Proxy::default();
    let (_, target) = listen(&mut reactor, || Echo);
    let server = socks5::serve(&mut reactor.net(), "127.0.0.1:0").expect("a free port");
    let addr = reactor.net().local(server).and_then(|local| local.ip()).expect("an IP listener");

    let mut client = dial(addr);
    say(&client, [&ask_by_name("here.test", target.port())[..], b"by name"].concat());
    let reply = read_exactly(&mut reactor, &mut proxy, &mut client, 2 + 10 + 7);
    assert_eq!((&reply[..4], &reply[12..]), (&[5, 0, 5, 0][..], &b"by name"[..]));

    let mut client = dial(addr);
    say(&client, ask_by_name("gone.test", target.port()));
    let reply = read_to_end(&mut reactor, &mut proxy, &mut client);
    assert_eq!(&reply[..4], &[5, 0, 5, 4], "4: host unreachable (RFC 1928)");
}

#[test]
fn the_socks5_proxy_says_that_the_target_refused() {
    let (mut reactor, mut proxy) = (Reactor::new().expect("a selector"), socks5::Proxy::default());
    let server = socks5::serve(&mut reactor.net(), "127.0.0.1:0").expect("a free port");
    let addr = reactor.net().local(server).and_then(|local| local.ip()).expect("an IP listener");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");

    let mut client = dial(addr);
    say(&client, ask(nobody));
    let reply = read_to_end(&mut reactor, &mut proxy, &mut client);
    assert_eq!(&reply[..4], &[5, 0, 5, 5], "5: connection refused (RFC 1928)");
    assert_eq!(proxy.refused, 1);
}

#[test]
fn a_state_that_borrows_from_the_stack_is_lent_to_callbacks() {
    let mut lines = Vec::new();
    let mut reactor = Reactor::new().expect("a selector");
    let key = reactor.net().listen("127.0.0.1:0", || borrowed_state::P).expect("a free port");
    let addr = reactor.net().local(key).and_then(|local| local.ip()).expect("an IP listener");
    let client = dial(addr);
    say(&client, "hello");
    let mut log = borrowed_state::Log { lines: &mut lines };
    until(&mut reactor, &mut log, |log| log.lines.len() == 2);
    drop(reactor);
    assert_eq!(lines, ["hello", "told"]);
}

/// One end of the line client's talk.
struct Answering;

impl<S> Protocol<S> for Answering {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.set_terminator(Terminator::line(100));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, S>, _: &mut S, line: &[u8]) -> Outcome {
        ctx.send([b"!news\nre: ", line, b"\n"].concat());
        Ok(())
    }
}

#[test]
fn the_line_client_matches_answers_to_questions() {
    #[derive(Default)]
    struct Heard(Vec<String>);
    let (mut reactor, mut heard) = (Reactor::new().expect("a selector"), Heard::default());
    let (_, addr) = listen(&mut reactor, || Answering);
    let client = cli::line_client::LineClient::new(|me, ctx, _: &mut Heard| {
        me.ask(ctx, "one", |me, ctx, heard, answer| {
            heard.0.push(answer.expect("answered").to_owned());
            me.ask(ctx, "two", |_, ctx, heard, answer| {
                heard.0.push(answer.expect("answered").to_owned());
                ctx.close();
                Ok(())
            });
            Ok(())
        });
        Ok(())
    })
    .on_unasked(|_, heard, news| {
        heard.0.push(news.to_owned());
        Ok(())
    })
    .on_closed(|ctx, heard, why| {
        heard.0.push(why.to_string());
        ctx.net.stop();
    });
    reactor.net().connect(addr, client);
    until(&mut reactor, &mut heard, |heard| heard.0.len() == 5);
    assert_eq!(heard.0, ["news", "re: one", "news", "re: two", "finished"]);
}

#[cfg(unix)]
#[test]
fn the_terminal_program_sends_its_input_and_prints_what_comes_back() {
    use std::{
        io::{Read, Write},
        os::{fd::OwnedFd, unix::net::UnixStream},
    };
    let (mut keyboard, input) = UnixStream::pair().expect("a pair");
    let (mut screen, output) = UnixStream::pair().expect("a pair");
    input.set_nonblocking(true).expect("a socket option");
    keyboard.write_all(b"one\nthree\r\n\n").expect("room for it");
    drop(keyboard);
    let mut reactor = Reactor::new().expect("a selector");
    netcat::talk(&mut reactor, OwnedFd::from(input), output).expect("the selector works");
    drop(reactor);
    let mut shown = String::new();
    screen.read_to_string(&mut shown).expect("the end of the program");
    assert_eq!(shown, "1 3\n2 5\n3 0\n");
}
