//! What is logged, of whom, and that no peer can forge it.

use crate::common::{
    Bare, Call, Ctx, Journal, Stranger, dial, keep_log, listen, logged, ms, note, recorder, say, settle, start, take_log, until,
    until_net,
};
use mainspring::{Config, Outcome, Protocol, Reactor, Reason};
use std::{io::Write, panic::resume_unwind, time::Instant};

/// Named in the log.
struct Unlucky;

impl Protocol<Journal> for Unlucky {
    fn received(&mut self, _: &mut Ctx<'_>, _: &mut Journal, bytes: &[u8]) -> Outcome {
        if bytes == b"panic" { panic!("seven years") } else { Err("seven months".into()) }
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        journal.note(ctx.key, Call::Closed(why.to_string()));
    }
}

#[test]
fn a_panic_is_logged_once_as_an_error_with_key_peer_and_protocol_type() {
    keep_log();
    for (word, text, level) in [("panic", "seven years", log::Level::Error), ("err", "seven months", log::Level::Warn)] {
        let (mut reactor, mut journal) = start();
        let (_, addr) = listen(&mut reactor, || Unlucky);
        let peer = dial(addr);
        say(&peer, word);
        until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
        settle(&mut reactor, &mut journal);
        let records = logged(|record| record.contains(text));
        assert_eq!(records.len(), 1, "{records:?}");
        assert_eq!(records[0].0, level);
        let who = peer.local_addr().expect("connected").to_string();
        for part in [&journal.calls[0].0.to_string(), &who, std::any::type_name::<Unlucky>()] {
            assert!(records[0].1.contains(part), "{part} is not in {records:?}");
        }
    }
}

#[test]
fn a_tell_for_another_type_is_dropped_and_logged_with_both_names() {
    keep_log();
    let (mut reactor, mut journal) = start();
    let (_, addr) = listen(&mut reactor, || Bare);
    let _peer = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
    let key = journal.calls[0].0;
    reactor.net().tell(key, |_: &mut Stranger, ctx, journal| {
        note(journal, ctx.key, "mistaken");
        Ok(())
    });
    settle(&mut reactor, &mut journal);
    assert!(journal.frames().is_empty());
    let names = [std::any::type_name::<Bare>(), std::any::type_name::<Stranger>()];
    let records = logged(|text| names.iter().all(|name| text.contains(name)));
    assert_eq!(records.len(), 1, "{records:?}");
    assert!(records[0].1.contains(&key.to_string()), "{records:?}");
    assert_eq!(records[0].0, log::Level::Warn);
}

/// A Unix client chooses its own name, and a protocol may quote what it was sent.
#[test]
#[cfg(target_os = "linux")]
fn no_peer_begins_a_line_of_the_log_or_speaks_to_the_terminal() {
    use socket2::{Domain, SockAddr, Socket, Type};
    keep_log();
    let pid = std::process::id();
    let name = |of: &str| SockAddr::unix(format!("\0mainspring-{pid}-{of}")).expect("a short name");
    let (mut reactor, mut journal) = start();
    let quotes = |_: &mut Ctx<'_>, _: &mut Journal, call: &Call| match call {
        Call::Received(bytes) if bytes[0] == b'!' => {
            std::panic::resume_unwind(Box::new(String::from_utf8_lossy(bytes).into_owned()))
        }
        Call::Received(bytes) => Err(String::from_utf8_lossy(bytes).into()),
        _ => Ok(()),
    };
    reactor.net().listen(format!("unix:@mainspring-{pid}-listener"), move || recorder(quotes)).expect("a free name");
    let forged = "\n1.1 forged\r\u{1b}[2J\u{9b}";
    for said in ["said ", "!"] {
        let peer = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a descriptor");
        peer.bind(&name(&format!("{said}{forged}"))).expect("a free name");
        peer.connect(&name("listener")).expect("it listens");
        (&peer).write_all(format!("{said}{forged}").as_bytes()).expect("connected");
        let before = journal.closings();
        until(&mut reactor, &mut journal, |journal| journal.closings() > before);
    }
    let records = logged(|text| text.contains("forged"));
    let ends: Vec<_> = records.iter().filter(|(_, text)| text.matches("forged").count() == 2).collect();
    assert!(records.len() >= 4 && ends.len() == 2, "both were accepted, and both ends were told: {records:?}");
    assert!(records.iter().all(|(_, text)| !text.contains(char::is_control)), "{records:?}");
    let shown = r"\n1.1 forged\r\u{1b}[2J\u{9b}";
    assert!(ends.iter().all(|(_, text)| text.matches(shown).count() == 2), "{ends:?}");
    assert!(journal.calls.iter().all(|(_, call)| !matches!(call, Call::Closed(why) if why.contains(char::is_control))));
}

#[derive(Clone, Copy, PartialEq)]
enum Upset {
    InTheFactory,
    AtOnce,
    InTheEnd,
}

impl Protocol<Journal> for Upset {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Journal) -> Outcome {
        if *self == Self::AtOnce {
            resume_unwind(Box::new("an upset"));
        }
        ctx.close();
        Ok(())
    }

    fn closed(&mut self, _: &mut Ctx<'_>, _: &mut Journal, _: Reason) {
        if *self == Self::InTheEnd {
            resume_unwind(Box::new("an upset"));
        }
    }
}

/// A panic is a bug of the program, and whoever found it out can do it again and again.
#[test]
fn a_panic_that_peers_bring_about_does_not_fill_the_log() {
    keep_log();
    for upset in [Upset::InTheFactory, Upset::AtOnce, Upset::InTheEnd] {
        let (mut reactor, mut journal) = start();
        let (_, at) =
            listen(&mut reactor, move || if upset == Upset::InTheFactory { resume_unwind(Box::new("an upset")) } else { upset });
        take_log();
        let began = Instant::now();
        for number in 1..=100 {
            let _peer = dial(at);
            until_net(&mut reactor, &mut journal, |net, _| net.stats().refused + net.stats().closed.total() == number);
        }
        let records = take_log();
        let told = |level| records.iter().filter(|(it, text)| *it == level && text.contains("an upset")).count() as u64;
        let most = 1 + began.elapsed().as_secs() / 10;
        assert!((1..=most).contains(&told(log::Level::Error)), "{records:?}");
        assert_eq!(told(log::Level::Error) + told(log::Level::Debug), 100, "the others are for those who ask");
    }
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            resume_unwind(Box::new("an upset"));
        }
    }
}

impl Protocol<Journal> for Bomb {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Journal) -> Outcome {
        ctx.close();
        Ok(())
    }
}

/// What belongs to no connection is brought about by connections nevertheless; and what is dropped is the program's.
#[test]
fn what_peers_bring_about_outside_of_their_connections_does_not_fill_the_log() {
    type Does = fn(&mut Ctx<'_>);
    keep_log();
    let cases: [(&str, Option<Does>); 6] = [
        ("a protocol panicked while it was dropped: an upset", None),
        ("a posted job panicked: an upset", Some(|ctx| ctx.net.post(|_, _| resume_unwind(Box::new("an upset"))))),
        ("a timer panicked: an upset", Some(|ctx| _ = ctx.net.after(ms(0), |_, _| resume_unwind(Box::new("an upset"))))),
        (
            "what follows offloaded work panicked: an upset",
            Some(|ctx| ctx.net.offload(|| (), |_, _, _| resume_unwind(Box::new("an upset")))),
        ),
        ("a posted job took", Some(|ctx| ctx.net.post(|_, _| std::thread::sleep(ms(2))))),
        (
            "was dropped",
            Some(|ctx| {
                let key = ctx.key;
                ctx.net.tell(key, |_: &mut Bomb, _, _| Ok(()));
            }),
        ),
    ];
    for (wanted, does) in cases {
        let config = Config::new().watchdog(ms(1));
        let (mut reactor, mut journal) = (Reactor::with_config(config).expect("a selector"), Journal::default());
        let at = match does {
            None => listen(&mut reactor, || Bomb).1,
            Some(does) => {
                let on = move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
                    if *call == Call::Connected {
                        does(ctx);
                        ctx.close();
                    }
                    Ok(())
                };
                listen(&mut reactor, move || recorder(on)).1
            }
        };
        take_log();
        let began = Instant::now();
        for number in 1..=30 {
            let _peer = dial(at);
            until_net(&mut reactor, &mut journal, |net, _| net.stats().closed.total() == number && net.stats().offloads == 0);
            settle(&mut reactor, &mut journal);
        }
        let records = take_log();
        let of = |level| records.iter().filter(|(it, text)| *it == level && text.contains(wanted)).count() as u64;
        let told = of(log::Level::Error) + of(log::Level::Warn);
        assert!((1..=1 + began.elapsed().as_secs() / 10).contains(&told), "{wanted}: {records:?}");
        assert!(told + of(log::Level::Debug) >= 20, "{wanted}: the others are for those who ask: {records:?}");
    }
}

/// Peers that make something happen, over and over: one record in ten seconds tells of it.
#[cfg(feature = "sim")]
mod floods {
    use crate::common::{keep_log, take_log};
    use mainspring::{
        Address, Config, Context, Listen, Net, Outcome, Protocol, Refusal,
        testing::{Errno, Host, Sim},
    };
    use std::time::Duration;

    #[derive(Clone, Copy, PartialEq)]
    enum Harm {
        None,
        Fails,
        Overflows,
    }

    impl Protocol for Harm {
        fn connected(&mut self, ctx: &mut Context<'_, ()>, _: &mut ()) -> Outcome {
            match self {
                Self::Fails => return Err("nonsense".into()),
                Self::Overflows => ["four", "more"].into_iter().for_each(|text| ctx.send(text)),
                Self::None => {}
            }
            Ok(())
        }
    }

    struct Comes;

    impl Protocol for Comes {
        fn connected(&mut self, ctx: &mut Context<'_, ()>, _: &mut ()) -> Outcome {
            ctx.close();
            Ok(())
        }
    }

    fn server(sim: &mut Sim, options: Listen, config: Config, harm: Harm) -> Host<()> {
        let server = sim.host_with("10.0.0.1", (), config);
        let factory = move |_: &mut Net<'_, ()>, _: &mut (), _: &Address| Ok::<_, Refusal>(harm);
        sim.net(server).listen_with("10.0.0.1:7", options, factory).expect("a free port");
        server
    }

    /// What stands in a record of those that were left out.
    fn left_out(text: &str) -> usize {
        let number = |rest: &str| rest.split(' ').next().and_then(|number| number.parse().ok());
        text.split_once(" (and ").and_then(|(_, rest)| number(rest)).unwrap_or(0)
    }

    /// The records of this many that come, and of one more after a while, which are to contain this; and how long it took.
    fn records_of(sim: &mut Sim, many: usize, wanted: &str) -> (Vec<String>, Duration) {
        let home = sim.host("10.0.0.2", ());
        take_log();
        let began = sim.now();
        for number in 0..=many {
            if number == many {
                sim.run_for(Duration::from_secs(11));
            }
            sim.net(home).connect("10.0.0.1:7", Comes);
            sim.run_for(Duration::from_millis(5));
        }
        let took = sim.now() - began;
        let records = take_log().into_iter().filter(|(level, _)| *level <= log::Level::Warn).map(|(_, text)| text);
        let records: Vec<_> = records.collect();
        assert!(records.iter().all(|text| text.contains(wanted)), "{wanted}: {records:?}");
        (records, took)
    }

    fn assert_few(records: &[String], took: Duration, wanted: &str) {
        let most = 1 + took.as_secs() / 10;
        assert!((2..=most).contains(&(records.len() as u64)), "{wanted}: {} records in {took:?}: {records:?}", records.len());
    }

    #[test]
    fn whatever_peers_do_they_do_not_fill_the_log() {
        keep_log();
        let plain = Config::new;
        let cases = [
            ("is full", Listen::new().connections_max(0, "full"), plain(), Harm::None),
            ("is full", Listen::new().connections_max(0, ""), plain(), Harm::None),
            ("is full for its address", Listen::new().per_peer_max(0, "full"), plain(), Harm::None),
            ("nonsense", Listen::new(), plain(), Harm::Fails),
            ("closed: ", Listen::new().output_limits(1, 2, 3), plain(), Harm::Overflows),
        ];
        for (wanted, options, config, harm) in cases {
            let mut sim = Sim::new(1);
            server(&mut sim, options, config, harm);
            let (records, took) = records_of(&mut sim, 300, wanted);
            assert_few(&records, took, wanted);
            let told = records.len() + records.iter().map(|text| left_out(text)).sum::<usize>();
            assert_eq!(told, 301, "each is in a record, or counted: {records:?}");
        }
    }

    #[test]
    fn a_listener_without_descriptors_or_memory_does_not_fill_the_log() {
        keep_log();
        let mut sim = Sim::new(1);
        let host = server(&mut sim, Listen::new(), Config::new(), Harm::None);
        sim.set_sockets_max(host, 1);
        let (records, took) = records_of(&mut sim, 300, "until there are descriptors again");
        assert_few(&records, took, "no descriptor");
        assert!(left_out(records.last().expect("some")) > 0, "{records:?}");

        let mut sim = Sim::new(1);
        let host = server(&mut sim, Listen::new(), Config::new().accept_back_off(Duration::ZERO), Harm::None);
        let next = sim.operations(host) + 1;
        sim.fail_operation(host, next, Errno::NoBuffers, true);
        let (records, took) = records_of(&mut sim, 300, "cannot accept");
        assert_few(&records, took, "no memory");
        assert!(left_out(records.last().expect("some")) > 0, "{records:?}");
    }

    /// What concerns one listener does not keep another's from being told.
    #[test]
    fn listeners_and_causes_are_told_apart() {
        keep_log();
        let mut sim = Sim::new(1);
        let host = server(&mut sim, Listen::new(), Config::new(), Harm::Fails);
        let other = |_: &mut Net<'_, ()>, _: &mut (), _: &Address| Ok::<_, Refusal>(Harm::Fails);
        sim.net(host).listen_with("10.0.0.1:8", Listen::new(), other).expect("a free port");
        let full = |_: &mut Net<'_, ()>, _: &mut (), _: &Address| Ok::<_, Refusal>(Harm::None);
        sim.net(host).listen_with("10.0.0.1:9", Listen::new().connections_max(0, "full"), full).expect("a free port");
        let home = sim.host("10.0.0.2", ());
        take_log();
        for _ in 0..10 {
            for port in 7..=9 {
                sim.net(home).connect(format!("10.0.0.1:{port}").as_str(), Comes);
            }
        }
        sim.run_for(Duration::from_secs(1));
        let records = take_log();
        let told = |text: &str| records.iter().filter(|(level, it)| *level <= log::Level::Warn && it.contains(text)).count();
        assert_eq!((told("nonsense"), told("is full")), (2, 1), "{records:?}");
        let all = records.iter().filter(|(_, text)| text.contains("nonsense")).count();
        assert_eq!(all, 20, "the others are for those who ask");
    }
}
