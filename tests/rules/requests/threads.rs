//! On real sockets.

use crate::common::{PATIENCE, dial, read_exactly, read_to_end, reset, say, settle, until};
use mainspring::{
    Address, Answer, Context, Fault, Key, Kind, Limit, Listen, Net, Outcome, Reactor, Reason, Refusal, RequestHandler,
};
use std::{
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        mpsc::{Sender, channel},
    },
    time::Duration,
};

type Log = Vec<String>;

fn start() -> (Reactor<Log>, Log) {
    (Reactor::new().expect("a selector"), Log::new())
}

fn at(net: &Net<'_, Log>, listener: Key) -> SocketAddr {
    net.local(listener).and_then(|address| address.ip()).expect("an IP listener")
}

fn serve<H: RequestHandler<Log>>(reactor: &mut Reactor<Log>, make: impl FnMut() -> H + 'static) -> SocketAddr {
    let mut net = reactor.net();
    let listener = net.serve("127.0.0.1:0", Listen::new(), make).expect("a free port");
    at(&net, listener)
}

type Ctx<'a> = Context<'a, Log>;

/// Whoever is told to wait waits for this.
type Gates = Arc<Mutex<Vec<Sender<()>>>>;

/// Does what each line says.
#[derive(Clone, Default)]
struct Worker {
    /// What lets the requests go that wait, in their order.
    gates: Gates,
    requests: u32,
}

impl RequestHandler<Log> for Worker {
    fn verify(&mut self, net: &mut Net<'_, Log>, log: &mut Log, peer: &Address) -> Result<(), Refusal> {
        log.push(format!("verify {}", peer.ip().is_some_and(|peer| peer.ip().is_loopback())));
        if net.stats().connections > 2 { Err("too many\n".into()) } else { Ok(()) }
    }

    fn setup(&mut self, ctx: &mut Ctx<'_>, log: &mut Log) -> Outcome {
        log.push("setup".into());
        ctx.set_terminator(mainspring::Terminator::line(20));
        ctx.send("welcome\n");
        Ok(())
    }

    fn handle(&mut self, ctx: &mut Ctx<'_>, log: &mut Log, request: &[u8]) -> Result<Answer<Self, Log>, Fault> {
        let request = String::from_utf8(request.to_vec())?;
        self.requests += 1;
        log.push(format!("handle {request}"));
        Ok(match request.as_str() {
            "wait" => {
                let (let_go, wait) = channel::<()>();
                self.gates.lock().expect("no panic").push(let_go);
                let work = move || _ = wait.recv();
                Answer::later(work, |me: &mut Self, _, log: &mut Log, result| {
                    result?;
                    log.push("waited".into());
                    Ok(Answer::now(format!("waited for {}\n", me.requests)))
                })
            }
            "twice" => Answer::later(
                || 20,
                |_, ctx, _, number| {
                    let number = number?;
                    ctx.send("half\n");
                    Ok(Answer::later(move || number + 1, |_, _, _, number| Ok(Answer::now(format!("{}\n", number?)))))
                },
            ),
            "fail" => Answer::later(
                || std::panic::resume_unwind(Box::new("no disk")),
                |_, _, _, result: Result<(), _>| {
                    result?;
                    unreachable!("the work panicked")
                },
            ),
            "quit" => Answer::last("bye\n"),
            "slow quit" => Answer::later(|| (), |_, _, _, _| Ok(Answer::last("bye, slowly\n"))),
            "silence" => Answer::none(),
            "drain" => {
                ctx.net.drain(PATIENCE);
                Answer::now("draining\n")
            }
            "stop" => {
                ctx.net.stop();
                Answer::now("stopping\n")
            }
            "panic" => std::panic::resume_unwind(Box::new("on purpose")),
            other => Answer::now(format!("{other}?\n")),
        })
    }

    fn exceeded(&mut self, ctx: &mut Ctx<'_>, _: &mut Log, limit: Limit) -> Outcome {
        ctx.send(format!("{limit}\n"));
        Ok(())
    }

    fn finish(&mut self, _: &mut Ctx<'_>, log: &mut Log, why: Reason) {
        log.push(format!("finish: {why}"));
    }
}

fn has(log: &Log, wanted: &str) -> bool {
    log.iter().any(|line| line == wanted)
}

#[test]
fn a_connection_is_verified_set_up_handled_and_finished() {
    let (mut reactor, mut log) = start();
    let at = serve(&mut reactor, Worker::default);
    let mut peer = dial(at);
    say(&peer, "one\ntwo\r\nsilence\ntoo long by far, this one\nthree\nunfin");
    peer.shutdown(Shutdown::Write).expect("it is open");
    assert_eq!(
        read_to_end(&mut reactor, &mut log, &mut peer).escape_ascii().to_string(),
        r"welcome\none?\ntwo?\na frame is longer than its limit\nthree?\n"
    );
    until(&mut reactor, &mut log, |log| has(log, "finish: the peer finished"));
    let expected =
        ["verify true", "setup", "handle one", "handle two", "handle silence", "handle three", "finish: the peer finished"];
    assert_eq!(log, expected);
}

#[test]
fn a_peer_that_is_refused_gets_its_last_words_and_nothing_else_is_called() {
    let (mut reactor, mut log) = start();
    let at = serve(&mut reactor, Worker::default);
    let _others = [dial(at), dial(at)];
    until(&mut reactor, &mut log, |log| log.iter().filter(|line| *line == "setup").count() == 2);
    let before = log.len();
    let mut refused = dial(at);
    assert_eq!(read_to_end(&mut reactor, &mut log, &mut refused), b"too many\n");
    assert_eq!(log[before..], ["verify true"]);
}

#[test]
fn answers_come_in_the_order_of_their_requests_also_when_one_takes_long() {
    let (mut reactor, mut log) = start();
    let gates = Gates::default();
    let worker = Worker { gates: Arc::clone(&gates), requests: 0 };
    let at = serve(&mut reactor, move || worker.clone());
    let (mut slow, mut quick) = (dial(at), dial(at));
    say(&slow, "wait\none\nwait\ntwo\n");
    until(&mut reactor, &mut log, |log| has(log, "handle wait"));
    // Others are served meanwhile, and nothing else of this one.
    say(&quick, "hello\n");
    assert_eq!(read_exactly(&mut reactor, &mut log, &mut quick, 15), b"welcome\nhello?\n");
    assert!(!has(&log, "handle one"));
    gates.lock().expect("no panic").remove(0);
    until(&mut reactor, &mut log, |log| log.iter().filter(|line| *line == "handle wait").count() == 2);
    assert!(has(&log, "handle one") && !has(&log, "handle two"));
    gates.lock().expect("no panic").remove(0);
    let expected = b"welcome\nwaited for 1\none?\nwaited for 3\ntwo?\n";
    assert_eq!(read_exactly(&mut reactor, &mut log, &mut slow, expected.len()), expected);
}

#[test]
fn no_resume_from_elsewhere_lets_a_request_in_before_its_turn() {
    let (mut reactor, mut log) = start();
    let gates = Gates::default();
    let worker = Worker { gates: Arc::clone(&gates), requests: 0 };
    let at = serve(&mut reactor, move || worker.clone());
    let mut peer = dial(at);
    say(&peer, "wait\none\nwait\n");
    until(&mut reactor, &mut log, |log| has(log, "handle wait"));
    let key = reactor.net().connections().iter().find(|one| one.kind == Kind::Accepted).expect("it is open").key;
    for _ in 0..3 {
        let mut net = reactor.net();
        let mut link = net.link(key).expect("open");
        link.pause();
        link.resume();
        say(&peer, "two\n"); // what is new, and what is held
        settle(&mut reactor, &mut log);
    }
    assert_eq!(log[2..], ["handle wait"]);
    // Nor does the answer take back a pause that is not its own.
    reactor.net().link(key).expect("open").pause();
    gates.lock().expect("no panic").remove(0);
    let first = b"welcome\nwaited for 1\n";
    assert_eq!(read_exactly(&mut reactor, &mut log, &mut peer, first.len()), first);
    settle(&mut reactor, &mut log);
    assert!(!has(&log, "handle one"));
    reactor.net().link(key).expect("open").resume();
    until(&mut reactor, &mut log, |log| log.iter().filter(|line| *line == "handle wait").count() == 2);
    gates.lock().expect("no panic").remove(0);
    let rest = b"one?\nwaited for 3\ntwo?\ntwo?\ntwo?\n";
    assert_eq!(read_exactly(&mut reactor, &mut log, &mut peer, rest.len()), rest);
}

#[test]
fn a_request_that_comes_while_an_answer_is_made_waits() {
    let (mut reactor, mut log) = start();
    let gates = Gates::default();
    let worker = Worker { gates: Arc::clone(&gates), requests: 0 };
    let at = serve(&mut reactor, move || worker.clone());
    let mut peer = dial(at);
    say(&peer, "wait\n");
    until(&mut reactor, &mut log, |log| has(log, "handle wait"));
    say(&peer, "one\n");
    settle(&mut reactor, &mut log);
    assert!(!has(&log, "handle one"));
    gates.lock().expect("no panic").remove(0);
    let answers = b"welcome\nwaited for 1\none?\n";
    assert_eq!(read_exactly(&mut reactor, &mut log, &mut peer, answers.len()), answers);
}

#[test]
fn a_client_that_resets_while_its_answer_is_made_is_told_at_once() {
    let (mut reactor, mut log) = start();
    let gates = Gates::default();
    let worker = Worker { gates: Arc::clone(&gates), requests: 0 };
    let at = serve(&mut reactor, move || worker.clone());
    let peer = dial(at);
    say(&peer, "wait\none\n");
    until(&mut reactor, &mut log, |log| has(log, "handle wait"));
    reset(peer);
    until(&mut reactor, &mut log, |log| log.iter().any(|line| line.starts_with("finish: connection lost")));
    assert!(!has(&log, "handle one") && !has(&log, "waited"));
}

#[test]
fn an_answer_may_come_in_steps_and_the_client_may_have_ended_meanwhile() {
    let (mut reactor, mut log) = start();
    let at = serve(&mut reactor, Worker::default);
    let mut peer = dial(at);
    say(&peer, "twice\nthen\n");
    peer.shutdown(Shutdown::Write).expect("it is open");
    assert_eq!(read_to_end(&mut reactor, &mut log, &mut peer), b"welcome\nhalf\n21\nthen?\n");
}

#[test]
fn the_last_answer_leaves_and_no_request_after_it_is_handled() {
    let (mut reactor, mut log) = start();
    let at = serve(&mut reactor, Worker::default);
    let mut peer = dial(at);
    say(&peer, "quit\nmore\n");
    assert_eq!(read_to_end(&mut reactor, &mut log, &mut peer), b"welcome\nbye\n");
    let mut peer = dial(at);
    say(&peer, "slow quit\nmore\n");
    assert_eq!(read_to_end(&mut reactor, &mut log, &mut peer), b"welcome\nbye, slowly\n");
    until(&mut reactor, &mut log, |log| log.iter().filter(|line| *line == "finish: finished").count() == 2);
    assert!(!has(&log, "handle more"));
}

#[test]
fn what_panics_ends_its_own_connection() {
    let (mut reactor, mut log) = start();
    let at = serve(&mut reactor, Worker::default);
    let mut other = dial(at);
    for (request, why) in
        [("panic", "finish: panicked: on purpose"), ("fail", "finish: failed: offloaded work panicked: no disk")]
    {
        let mut peer = dial(at);
        say(&peer, format!("{request}\n"));
        read_to_end(&mut reactor, &mut log, &mut peer);
        until(&mut reactor, &mut log, |log| has(log, why));
    }
    say(&other, "hello\n");
    assert_eq!(read_exactly(&mut reactor, &mut log, &mut other, 15), b"welcome\nhello?\n");
}

#[test]
#[cfg_attr(windows, ignore = "Winsock: a reset takes what was not read with it")]
fn a_drain_from_inside_a_handler_answers_what_is_under_way() {
    let (mut reactor, mut log) = start();
    let gates = Gates::default();
    let worker = Worker { gates: Arc::clone(&gates), requests: 0 };
    let at = serve(&mut reactor, move || worker.clone());
    let (mut slow, mut idle, mut last) = (dial(at), dial(at), dial(at));
    // The third is refused, as there are two: let it be the one that asks.
    assert_eq!(read_to_end(&mut reactor, &mut log, &mut last), b"too many\n");
    say(&slow, "wait\n");
    until(&mut reactor, &mut log, |log| has(log, "handle wait"));
    say(&idle, "drain\n");
    assert_eq!(read_to_end(&mut reactor, &mut log, &mut idle), b"welcome\ndraining\n");
    assert!(!log.iter().any(|line| line == "waited"), "the other one waits still");
    gates.lock().expect("no panic").clear();
    reactor.run(&mut log).expect("the selector works");
    assert_eq!(read_to_end(&mut reactor, &mut log, &mut slow), b"welcome\nwaited for 1\n");
    assert_eq!(log.iter().filter(|line| *line == "finish: drained").count(), 2, "{log:#?}");
}

#[test]
fn stopping_from_inside_a_handler_is_safe_and_its_answer_leaves() {
    let (mut reactor, mut log) = start();
    let at = serve(&mut reactor, Worker::default);
    let mut peer = dial(at);
    say(&peer, "stop\n");
    reactor.run(&mut log).expect("the selector works");
    assert!(has(&log, "handle stop"));
    assert_eq!(read_exactly(&mut reactor, &mut log, &mut peer, 17), b"welcome\nstopping\n");
}

#[test]
fn who_is_connected_when_the_reactor_is_stopped_finishes_by_a_shutdown_and_not_by_a_drop() {
    for is_shut_down in [true, false] {
        let (mut reactor, mut log) = start();
        let at = serve(&mut reactor, Worker::default);
        let peer = dial(at);
        say(&peer, "stop\n");
        reactor.run(&mut log).expect("the selector works");
        if is_shut_down {
            reactor.shutdown(&mut log);
        }
        drop(reactor);
        assert_eq!(has(&log, "finish: the reactor was shut down"), is_shut_down, "{log:?}");
    }
}

#[test]
fn serve_lines_lends_the_state_and_knows_the_peer() {
    let (mut reactor, mut log) = start();
    let mut net = reactor.net();
    let listener = net
        .serve_lines("127.0.0.1:0", 10, |net, log: &mut Log, peer, line| {
            log.push(format!("{} {peer}", line.escape_ascii()));
            let listeners = net.connections().iter().filter(|one| one.kind == mainspring::Kind::Listener).count();
            format!("{} {listeners}\n", log.len())
        })
        .expect("a free port");
    let at = at(&net, listener);
    let (mut first, mut second) = (dial(at), dial(at));
    say(&first, "a\nb\n");
    assert_eq!(read_exactly(&mut reactor, &mut log, &mut first, 8), b"1 1\n2 1\n");
    say(&second, "c\nunfinished");
    second.shutdown(Shutdown::Write).expect("it is open");
    assert_eq!(read_to_end(&mut reactor, &mut log, &mut second), b"3 1\n");
    let (one, two) = (first.local_addr().expect("bound"), second.local_addr().expect("bound"));
    assert_eq!(log, [format!("a {one}"), format!("b {one}"), format!("c {two}")]);
    say(&first, "eleven byte\n");
    assert_eq!(read_to_end(&mut reactor, &mut log, &mut first), b"");
    assert_eq!(log.len(), 3);
}

#[test]
fn a_reply_that_panics_costs_its_client_only() {
    let (mut reactor, mut log) = start();
    let mut net = reactor.net();
    let listener = net
        .serve_lines("127.0.0.1:0", 100, |_, _, _, line| {
            if line == b"panic" {
                std::panic::resume_unwind(Box::new("on purpose"));
            }
            [line, b"!\n"].concat()
        })
        .expect("a free port");
    let at = at(&net, listener);
    let (mut careless, mut careful) = (dial(at), dial(at));
    say(&careless, "panic\n");
    assert_eq!(read_to_end(&mut reactor, &mut log, &mut careless), b"");
    say(&careful, "hello\n");
    assert_eq!(read_exactly(&mut reactor, &mut log, &mut careful, 7), b"hello!\n");
}

#[test]
fn a_handler_has_time_outs() {
    struct Impatient;
    impl RequestHandler<Log> for Impatient {
        fn setup(&mut self, ctx: &mut Ctx<'_>, _: &mut Log) -> Outcome {
            ctx.set_idle_timeout(Duration::from_millis(20));
            Ok(())
        }
        fn handle(&mut self, _: &mut Ctx<'_>, _: &mut Log, _: &[u8]) -> Result<Answer<Self, Log>, Fault> {
            Ok(Answer::none())
        }
        fn finish(&mut self, _: &mut Ctx<'_>, log: &mut Log, why: Reason) {
            log.push(why.to_string());
        }
    }
    let (mut reactor, mut log) = start();
    let at = serve(&mut reactor, || Impatient);
    let _peer = dial(at);
    until(&mut reactor, &mut log, |log| !log.is_empty());
    assert_eq!(log, ["nothing was received for the idle time-out"]);
}

/// Notes each request that it takes; the thousandth begins a drain.
struct Busy;

impl RequestHandler<Log> for Busy {
    fn handle(&mut self, ctx: &mut Ctx<'_>, log: &mut Log, request: &[u8]) -> Result<Answer<Self, Log>, Fault> {
        log.push(String::from_utf8(request.to_vec())?);
        if log.len() == 1000 {
            ctx.net.drain(PATIENCE);
        }
        let answer = [request, b"\n"].concat();
        Ok(match log.len() % 3 {
            0 => Answer::later(move || answer, |_, _, _, answer| Ok(Answer::now(answer?))),
            _ => Answer::now(answer),
        })
    }
}

/// Sends ten requests at a time and goes on until nobody listens any more; the answers.
fn keep_asking(addr: SocketAddr, client: usize) -> Log {
    let mut answers = Log::new();
    for visit in 0.. {
        let Ok(peer) = TcpStream::connect(addr) else { break };
        peer.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        let mut lines = BufReader::new(&peer).lines();
        for round in 0..3 {
            let requests: String = (0..10).map(|request| format!("{client} {visit} {round} {request}\n")).collect();
            let _ = (&peer).write_all(requests.as_bytes()); // the server may be gone
            // An end, or a reset because not all was read, ends them.
            answers.extend(lines.by_ref().map_while(Result::ok).take(10));
        }
    }
    answers
}

#[test]
fn a_drain_under_load_loses_no_request_that_was_taken() {
    let (mut reactor, mut log) = start();
    let addr = serve(&mut reactor, || Busy);
    let clients: Vec<_> = (0..10).map(|client| std::thread::spawn(move || keep_asking(addr, client))).collect();
    reactor.run(&mut log).expect("the selector works");
    let stats = reactor.stats();
    assert!(stats.to_drain > 0, "at least the one whose request began it");
    assert_eq!((stats.undrained, stats.connections), (0, 0));
    drop(reactor);
    let mut answers: Vec<String> = clients.into_iter().flat_map(|client| client.join().expect("a client's answers")).collect();
    answers.sort();
    log.sort();
    assert!(log.len() >= 1000, "{}", log.len());
    assert_eq!(answers, log);
}
