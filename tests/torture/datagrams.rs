//! Datagrams on a stage. What fails may cost one of them, or the socket; but each that comes was sent, in fair weather they
//! come in order, and `closed` comes once and last.

use super::{Alive, Book, CLIENT, Call, GUARD, Page, Phase, SERVER, Stage};
use mainspring::{Address, Bind, Datagram, Full, Key, Net, Outcome, Reason, Scope};
use std::io;

type Role = Box<dyn FnMut(&mut Scope<'_, Book>, &Call) -> Outcome>;

/// The one datagram of all scenarios.
struct Ear {
    label: &'static str,
    role: Role,
    _alive: Alive,
}

fn ear(label: &'static str, role: impl FnMut(&mut Scope<'_, Book>, &Call) -> Outcome + 'static) -> Ear {
    Ear { label, role: Box::new(role), _alive: Alive::one_more() }
}

impl Ear {
    fn call(&mut self, scope: &mut Scope<'_, Book>, book: &mut Book, call: Call) -> Outcome {
        book.pages.entry(scope.key).or_default().note(&call);
        let outcome = (self.role)(scope, &call);
        let has_ended = outcome.is_err() || !scope.net.is_open(scope.key);
        book.pages.entry(scope.key).or_default().has_ended |= has_ended;
        outcome
    }
}

impl Datagram<Book> for Ear {
    fn received(&mut self, scope: &mut Scope<'_, Book>, book: &mut Book, bytes: &[u8], _: &Address) -> Outcome {
        self.call(scope, book, Call::Datagram(bytes.to_vec()))
    }

    fn oversized(&mut self, scope: &mut Scope<'_, Book>, book: &mut Book, bytes: &[u8], _: &Address) -> Outcome {
        self.call(scope, book, Call::Oversized(bytes.to_vec()))
    }

    fn failed(&mut self, scope: &mut Scope<'_, Book>, book: &mut Book, _: &Address, error: io::Error) -> Outcome {
        self.call(scope, book, Call::Failed(error.kind()))
    }

    fn writable(&mut self, scope: &mut Scope<'_, Book>, book: &mut Book) -> Outcome {
        let page = book.pages.entry(scope.key).or_default();
        page.was_congested = true; // nobody is asked before
        self.call(scope, book, Call::Writable)
    }

    fn closed(&mut self, scope: &mut Scope<'_, Book>, book: &mut Book, why: Reason) {
        book.closed += 1;
        let _ = self.call(scope, book, Call::Closed(why.to_string()));
    }
}

/// Where somebody takes datagrams, and under which key if that could be.
struct Place {
    key: Option<Key>,
    address: Address,
}

impl Stage {
    /// Whatever becomes of it, it does not stay for ever.
    fn bind(&mut self, host: usize, port: u16, options: Bind, ear: Ear) -> Place {
        let at = if self.is_real() { "127.0.0.1:0".to_owned() } else { format!("10.0.0.{}:{port}", host + 1) };
        let label = ear.label;
        let bound = self.with(host, |net, book| {
            let key = net.bind_with(at.as_str(), options, ear).ok()?;
            book.begun += 1;
            book.pages.insert(key, Page { label, phase: Phase::Connected, ..Page::default() });
            net.after(2 * GUARD, move |net, book: &mut Book| book.close(net, key));
            Some((key, net.local(key).expect("it is bound").clone()))
        });
        match bound {
            Some((key, address)) => Place { key: Some(key), address },
            None => Place { key: None, address: Address::Ip(at.parse().expect("a literal address")) },
        }
    }
}

fn send(net: &mut Net<'_, Book>, key: Key, to: &Address, bytes: &[u8]) -> bool {
    net.send_to(key, to, bytes)
}

/// Says a word, and the next one when it has come back.
fn asker(to: Address, words: Vec<Vec<u8>>) -> Ear {
    let mut words = words.into_iter();
    ear("asker", move |scope, call| {
        if let Call::Datagram(_) = call {
            match words.next() {
                Some(word) => _ = send(&mut scope.net, scope.key, &to, &word),
                None => scope.close(),
            }
        }
        Ok(())
    })
}

pub(crate) fn datagrams_there_and_back(stage: &mut Stage) {
    let words: Vec<Vec<u8>> = vec![b"one".to_vec(), Vec::new(), vec![7; 1400], vec![8; 30_000], vec![9; 65_507]];
    let mut left = words.len();
    let echoes = ear("echo", move |scope, call| {
        if let Call::Datagram(bytes) = call {
            scope.reply(bytes);
            left -= 1;
        }
        if left == 0 {
            scope.close();
        }
        Ok(())
    });
    let server = stage.bind(SERVER, 7, Bind::new(), echoes);
    let client = stage.bind(CLIENT, 9, Bind::new(), asker(server.address.clone(), words[1..].to_vec()));
    if let Some(key) = client.key {
        stage.with(CLIENT, |net, _| send(net, key, &server.address, &words[0]));
    }
}

/// Where somebody was: ICMP says so, each time.
pub(crate) fn datagrams_to_nobody(stage: &mut Stage) {
    let gone = stage.bind(SERVER, 7, Bind::new(), ear("gone", |_, _| Ok(())));
    if let Some(key) = gone.key {
        stage.with(SERVER, |net, book| book.close(net, key));
        stage.until_book(SERVER, |book| book.count("gone", |call| matches!(call, Call::Closed(_))) == 1);
    }
    let mut left = 3;
    let asks = ear("client", move |scope, call| {
        if let Call::Failed(_) = call {
            left -= 1;
            match left {
                0 => scope.close(),
                _ => _ = scope.net.send(scope.key, "anybody?"),
            }
        }
        Ok(())
    });
    let peer = gone.address.ip().expect("an IP address");
    let client = stage.bind(CLIENT, 9, Bind::new().peer(peer), asks);
    if let Some(key) = client.key {
        stage.with(CLIENT, |net, _| net.send(key, "anybody?"));
    }
}

/// Of those that come too fast for the queue some are refused; the others come in order.
pub(crate) fn a_burst_of_datagrams(stage: &mut Stage) {
    const BURST: u8 = 100;
    let mut last = None;
    let counts = ear("server", move |scope, call| {
        if let Call::Datagram(bytes) = call {
            assert!(last < Some(bytes[0]), "{bytes:?} behind {last:?}");
            last = Some(bytes[0]);
        }
        if last == Some(BURST - 1) {
            scope.close();
        }
        Ok(())
    });
    let server = stage.bind(SERVER, 7, Bind::new(), counts);
    let client = stage.bind(CLIENT, 9, Bind::new().queue(640, Full::DropNewest), ear("client", |_, _| Ok(())));
    let Some(key) = client.key else { return };
    stage.with(CLIENT, |net, _| (0..BURST - 1).for_each(|number| _ = send(net, key, &server.address, &[number])));
    stage.pass(super::SHORT);
    stage.with(CLIENT, |net, book| {
        send(net, key, &server.address, &[BURST - 1]);
        book.close(net, key);
    });
}
