//! No callback runs inside another.

use crate::common::{
    Call, Ctx, Journal, Nothing, On, PATIENCE, Recorder, closing_of, dial, guest, is_closed, note, quiet, read_to_end, recorder,
    say, settle, start, until,
};
use mainspring::{Listen, Net, Produced, Refusal, Terminator};
use std::{cell::Cell, rc::Rc, time::Duration};

/// Knows when two of those that share it run at once.
#[derive(Clone, Default)]
struct Alone(Rc<Cell<bool>>);

impl Alone {
    fn run<T>(&self, what: impl FnOnce() -> T) -> T {
        assert!(!self.0.replace(true), "inside another");
        let result = what();
        self.0.set(false);
        result
    }
}

#[test]
fn nothing_in_net_link_or_context_calls_your_code() {
    let (mut reactor, mut journal) = start();
    let alone = Alone::default();
    let quiet_alone = alone.clone();
    let calm = move |_: &mut Ctx<'_>, _: &mut Journal, _: &Call| quiet_alone.run(|| Ok(()));
    let (a, peer_of_a) = guest(&mut reactor, &mut journal, calm.clone());
    let (b, _peer_of_b) = guest(&mut reactor, &mut journal, calm.clone());
    let (c, _peer_of_c) = guest(&mut reactor, &mut journal, calm.clone());
    let (d, peer_of_d) = guest(&mut reactor, &mut journal, calm.clone());
    for held in [a, d] {
        reactor.net().link(held).expect("open").pause();
    }
    say(&peer_of_a, "held back\n");
    say(&peer_of_d, "held back\n");
    settle(&mut reactor, &mut journal);
    let busy = alone.clone();
    let (key, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if !matches!(call, Call::Received(_)) {
            return busy.run(|| Ok(()));
        }
        let inner = busy.clone();
        busy.run(|| {
            ctx.net.listen("127.0.0.1:0", || recorder(quiet as On)).expect("a free port");
            let factory_alone = inner.clone();
            let listener = ctx
                .net
                .listen_with("127.0.0.1:0", Listen::new(), move |_, _, _| {
                    factory_alone.run(|| Err::<Recorder<On>, _>(Refusal::silent()))
                })
                .expect("a free port");
            let addr = ctx.net.local(listener).and_then(|local| local.ip()).expect("an address");
            ctx.net.connect(addr, recorder(calm.clone()));
            ctx.net.connect("not an address", recorder(calm.clone()));
            ctx.net.link(a).expect("open").set_terminator(Terminator::line(9));
            ctx.net.link(a).expect("open").resume();
            ctx.net.close(b);
            ctx.net.abort(c);
            ctx.net.fail(d, "failed");
            let (told, posted, fired, made) = (inner.clone(), inner.clone(), inner.clone(), inner.clone());
            let own = ctx.key;
            ctx.net.post(move |_, _| posted.run(|| ()));
            ctx.net.after(Duration::ZERO, move |_, _| fired.run(|| ()));
            let _ = ctx.net.tell(own, move |_: &mut Nothing, _, _| told.run(|| Ok(())));
            ctx.net.drain(PATIENCE);
            ctx.produce(move |_: &mut Vec<u8>| made.run(|| Ok(Produced::Done)));
            ctx.set_output_limits(0, 1, 100);
            ctx.send([b'.'; 50]);
            ctx.send([b'.'; 500]);
            ctx.upgrade(Nothing);
            ctx.close();
            ctx.abort();
            Ok(())
        })
    });
    say(&peer, "go");
    until(&mut reactor, &mut journal, |journal| [b, c, d, key].iter().all(|key| is_closed(journal, *key)));
    settle(&mut reactor, &mut journal);
    for key in [a, b, c, d, key] {
        let why = closing_of(&journal, key).unwrap_or_default();
        assert!(!why.contains("panicked"), "{why}");
    }
}

#[test]
fn closings_tells_and_jobs_wait_their_turn() {
    let (mut reactor, mut journal) = start();
    let (other, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    let (_, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
        if matches!(call, Call::Received(_)) {
            let key = ctx.key;
            ctx.net.tell(other, move |_: &mut Recorder<On>, ctx, journal| {
                note(journal, ctx.key, "told");
                Ok(())
            });
            ctx.net.post(move |_, journal| note(journal, key, "posted"));
            ctx.net.abort(other);
            note(journal, key, "done");
        }
        Ok(())
    });
    say(&peer, "x");
    until(&mut reactor, &mut journal, |journal| is_closed(journal, other));
    assert_eq!(journal.frames(), ["done", "told", "posted"]);
    assert_eq!(journal.calls.last().map(|(key, _)| *key), Some(other), "`closed` came last");
}

#[test]
fn a_factory_runs_between_callbacks_and_may_refuse() {
    let (mut reactor, mut journal) = start();
    let refusal = |_: &mut Net<'_, Journal>, journal: &mut Journal, peer: &mainspring::Address| {
        assert!(peer.ip().is_some());
        assert!(journal.calls.is_empty());
        Err::<Nothing, _>(Refusal::from("no\n"))
    };
    let listener = reactor.net().listen_with("127.0.0.1:0", Listen::new(), refusal).expect("a free port");
    let addr = reactor.net().local(listener).and_then(|local| local.ip()).expect("an address");
    let mut peer = dial(addr);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"no\n");
}
