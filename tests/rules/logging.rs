//! What is logged, of whom, and that no peer can forge it.

use crate::common::{
    Bare, Call, Ctx, Journal, Stranger, dial, keep_log, listen, logged, note, recorder, say, settle, start, until,
};
use mainspring::{Outcome, Protocol, Reason};
use std::io::Write;

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
