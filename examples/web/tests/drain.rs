//! A request that had arrived before the drain was asked for.
use mainspring::{Answer, Context, Fault, Listen, Reactor, RequestHandler};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

struct Echo;
impl RequestHandler for Echo {
    fn handle(&mut self, _: &mut Context<'_>, _: &mut (), line: &[u8]) -> Result<Answer<Self>, Fault> {
        Ok(Answer::now([line, b"\n"].concat()))
    }
}

/// A server, and a client that has sent a request, which nobody has seen yet.
fn asked() -> (Reactor, TcpStream) {
    let mut reactor = Reactor::new().unwrap();
    let key = reactor.net().serve("127.0.0.1:0", Listen::new(), || Echo).unwrap();
    let at = reactor.net().local(key).unwrap().to_string();
    let mut client = TcpStream::connect(at).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    client.write_all(b"one\n").unwrap();
    (reactor, client)
}

/// What the client gets until its end.
fn drained(reactor: &mut Reactor, client: &mut TcpStream) -> String {
    reactor.net().drain(Duration::from_secs(5));
    while reactor.turn(&mut (), Duration::from_millis(20)).unwrap() {}
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    rest
}

#[test]
fn a_request_that_came_before_the_drain_is_answered() {
    let (mut reactor, mut client) = asked();
    for _ in 0..5 {
        reactor.turn(&mut (), Duration::from_millis(20)).unwrap();
    }
    let mut buf = [0; 4];
    client.read_exact(&mut buf).unwrap();
    client.write_all(b"two\n").unwrap(); // it is in our kernel
    let rest = drained(&mut reactor, &mut client);
    assert_eq!(rest, "two\n");
}

/// A client that stood in the backlog, its request sent, when the drain was asked for.
#[test]
fn who_stood_in_the_backlog() {
    let (mut reactor, mut client) = asked();
    let rest = drained(&mut reactor, &mut client);
    assert_eq!(rest, "one\n");
}
