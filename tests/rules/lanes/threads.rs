//! By real threads.

use crate::common::{
    Call, Ctx, Journal, On, PATIENCE, Recorder, guest, has_room_for, note, quiet, reset, start, start_with, until, until_net,
};
use mainspring::{Config, Context, Lane, Outcome, Protocol, Reactor, Terminator};
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

/// Says on which thread it is dropped.
struct Witness(Sender<thread::ThreadId>);

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.0.send(thread::current().id());
    }
}

fn witness() -> (Witness, Receiver<thread::ThreadId>) {
    let (drops, dropped) = channel();
    (Witness(drops), dropped)
}

/// Gives this connection a lane of numbers, and pieces that each add one and say what there is then.
fn count_up(
    reactor: &mut Reactor<Journal>,
    journal: &mut Journal,
    key: mainspring::Key,
    pieces: u32,
    with: impl FnOnce(Lane<u32>) + 'static,
) {
    reactor.net().tell(key, move |_: &mut Recorder<On>, ctx, _| {
        let mut lane = ctx.net.lane(0);
        for _ in 0..pieces {
            lane.offload(
                ctx,
                |number| {
                    *number += 1;
                    (*number, thread::current().name().map(str::to_owned))
                },
                |_: &mut Recorder<On>, ctx, journal, result| {
                    let (number, name) = result?;
                    note(journal, ctx.key, format!("{number} {}", name.expect("it has one")));
                    Ok(())
                },
            );
        }
        assert_eq!(lane.pending(), pieces as usize);
        with(lane);
        Ok(())
    });
    reactor.turn(journal, std::time::Duration::ZERO).expect("the selector works");
}

#[test]
fn pieces_are_done_one_after_the_other_and_told_in_order() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    count_up(&mut reactor, &mut journal, key, 20, drop);
    until(&mut reactor, &mut journal, |journal| journal.frames().len() == 20);
    let expected: Vec<String> = (1..=20).map(|number| format!("{number} mainspring-lane")).collect();
    assert_eq!(journal.frames(), expected);
}

/// What belongs to no connection is done and told though nobody is there any more, in its turn among the pieces of those who are.
#[test]
fn pieces_of_nobody_are_done_and_told_whoever_has_ended() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    let (begun, begins) = channel();
    let (let_go, wait) = channel::<()>();
    reactor.net().tell(key, move |_: &mut Recorder<On>, ctx, _| {
        let mut lane = ctx.net.lane(0);
        lane.offload(
            ctx,
            move |number| {
                begun.send(()).expect("the test listens");
                let _ = wait.recv();
                *number += 1;
            },
            |_: &mut Recorder<On>, _: &mut Ctx<'_>, _: &mut Journal, _| unreachable!("it has ended"),
        );
        let own = ctx.key;
        for _ in 0..2 {
            lane.offload_net(
                &mut ctx.net,
                |number| {
                    *number += 1;
                    *number
                },
                move |_, journal: &mut Journal, number| note(journal, own, format!("{}", number.expect("no panic"))),
            );
        }
        lane.offload_net(
            &mut ctx.net,
            |_| panic!("on purpose"),
            move |_, journal: &mut Journal, result: Result<(), _>| note(journal, own, result.expect_err("a panic").to_string()),
        );
        assert_eq!(lane.pending(), 4);
        Ok(())
    });
    until(&mut reactor, &mut journal, |_| begins.try_recv().is_ok());
    reactor.net().abort(key);
    until_net(&mut reactor, &mut journal, |net, _| !net.is_open(key));
    let_go.send(()).expect("it waits");
    until_net(&mut reactor, &mut journal, |net, _| net.stats().offloads == 0);
    let [first, second, third] = &journal.frames()[..] else { panic!("{:?}", journal.frames()) };
    assert_eq!((first.as_str(), second.as_str()), ("2", "3"));
    assert!(third.contains("on purpose"), "{third}");
}

/// However many wait: a lane is one, and no piece of it finds the pool full.
#[test]
fn two_thousand_lanes_with_one_thread_are_never_full() {
    let (mut reactor, mut journal) = start_with(Config::new().lane_threads(1).offload_threads(1).offload_queue(0));
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    for _ in 0..2_000 {
        count_up(&mut reactor, &mut journal, key, 3, drop);
    }
    until(&mut reactor, &mut journal, |journal| journal.calls.len() >= 6_000);
    until_net(&mut reactor, &mut journal, |net, _| net.stats().offloads == 0);
}

/// What was begun is done, what waits is not; then the last comes, on another thread, and what the lane has goes there too.
#[test]
fn the_last_of_a_lane_is_done_whatever_becomes_of_its_connection() {
    for by_shutdown in [false, true] {
        let (mut reactor, mut journal) = start();
        let (key, peer) = guest(&mut reactor, &mut journal, quiet as On);
        let (witness, dropped) = witness();
        let ((begun, begins), (let_go, wait), (says, said)) = (channel(), channel::<()>(), channel());
        let also = says.clone();
        reactor.net().tell(key, move |_: &mut Recorder<On>, ctx, _| {
            let mut lane = ctx.net.lane(witness);
            let untold = |_: &mut Recorder<On>, _: &mut Ctx<'_>, _: &mut Journal, _| unreachable!("it has ended");
            lane.offload(
                ctx,
                move |_| {
                    begun.send(()).expect("the test listens");
                    let _ = wait.recv();
                    says.send("first").expect("the test listens");
                },
                untold,
            );
            lane.offload(ctx, |_| unreachable!("it had not begun"), untold);
            lane.finish(move |witness| {
                also.send("last").expect("the test listens");
                drop(witness);
            });
            Ok(())
        });
        until(&mut reactor, &mut journal, |_| begins.try_recv().is_ok());
        if by_shutdown {
            reactor.shutdown(&mut journal);
        } else {
            reset(peer);
            until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
        }
        drop(let_go);
        let mut both = [(); 2].map(|()| match by_shutdown {
            true => said.recv_timeout(PATIENCE).expect("it is done"),
            false => {
                let mut text = None;
                until(&mut reactor, &mut journal, |_| {
                    text = said.try_recv().ok();
                    text.is_some()
                });
                text.expect("it is done")
            }
        });
        assert_eq!(both, ["first", "last"], "by a shutdown: {by_shutdown}");
        both.sort_unstable();
        assert_ne!(dropped.recv_timeout(PATIENCE).expect("it is dropped"), thread::current().id());
    }
}

#[test]
fn what_a_lane_has_is_dropped_elsewhere_also_if_nothing_was_done_with_it() {
    let mut reactor = Reactor::<()>::new().expect("a selector");
    let (witness, dropped) = witness();
    drop(reactor.net().lane(witness));
    reactor.run(&mut ()).expect("the selector works");
    assert_ne!(dropped.recv_timeout(PATIENCE).expect("it is dropped"), thread::current().id());
}

#[test]
fn run_waits_for_the_last_of_a_lane() {
    let mut reactor = Reactor::<()>::new().expect("a selector");
    let (says, said) = channel();
    reactor.net().lane(5).finish(move |number| says.send(number).expect("the test listens"));
    reactor.run(&mut ()).expect("the selector works");
    assert_eq!(said.try_recv(), Ok(5));
}

#[test]
fn a_lane_that_outlives_its_reactor_is_finished_where_it_is_dropped() {
    let mut reactor = Reactor::<()>::new().expect("a selector");
    let (witness, dropped) = witness();
    let lane = reactor.net().lane(witness);
    drop(reactor);
    assert!(dropped.try_recv().is_err());
    drop(lane);
    assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
}

#[test]
fn a_panic_is_told_and_the_lane_goes_on() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    reactor.net().tell(key, move |_: &mut Recorder<On>, ctx, _| {
        let mut lane = ctx.net.lane(1);
        let told =
            |_: &mut Recorder<On>, ctx: &mut Ctx<'_>, journal: &mut Journal, result: Result<i32, mainspring::OffloadError>| {
                note(journal, ctx.key, result.map_or_else(|error| error.to_string(), |number| number.to_string()));
                Ok(())
            };
        lane.offload(
            ctx,
            |number| {
                *number = 2;
                std::panic::resume_unwind(Box::new("on purpose"))
            },
            told,
        );
        lane.offload(ctx, |number| *number, told);
        Ok(())
    });
    until(&mut reactor, &mut journal, |journal| journal.frames().len() == 2);
    assert_eq!(journal.frames(), ["offloaded work panicked: on purpose", "2"]);
}

/// Neither kind of work stops the other.
#[test]
fn offloaded_work_that_never_returns_stops_no_lane_and_no_lane_stops_it() {
    let (mut reactor, mut journal) = start_with(Config::new().offload_threads(1).lane_threads(1));
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    let (let_go, wait) = channel::<()>();
    reactor.net().offload(move || _ = wait.recv(), |_, _, _| ());
    count_up(&mut reactor, &mut journal, key, 2, drop);
    until(&mut reactor, &mut journal, |journal| journal.frames().len() == 2);
    drop(let_go);
    let (let_go, wait) = channel::<()>();
    reactor.net().lane(()).finish(move |()| _ = wait.recv());
    reactor.net().offload(
        || (),
        move |_, journal, _| {
            note(journal, key, "done");
        },
    );
    until(&mut reactor, &mut journal, |journal| journal.frames().len() == 3);
    drop(let_go);
}

/// A lane is of one reactor: what is given to it by another's context is not done.
#[test]
fn a_lane_does_nothing_for_another_reactor() {
    struct Holder(Lane<u32>);
    impl Protocol<Journal> for Holder {
        fn connected(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal) -> Outcome {
            self.0.offload(ctx, |_| unreachable!("it is another's"), |_: &mut Self, _, _, _| Ok(()));
            note(journal, ctx.key, "given");
            Ok(())
        }
    }
    let mut other = Reactor::<Journal>::new().expect("a selector");
    let mut lane = Some(other.net().lane(0));
    let (mut reactor, mut journal) = start();
    let (_, addr) = crate::common::listen(&mut reactor, move || Holder(lane.take().expect("one comes")));
    let _peer = crate::common::dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.frames() == ["given"]);
    assert_eq!(reactor.stats().offloads, 0);
}

/// It waited for the thing behind it, and everybody else's last piece behind that.
#[test]
fn a_piece_that_never_returns_keeps_only_its_own_lane_from_its_last() {
    let (mut reactor, mut journal) = start_with(Config::new().lane_threads(1));
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    let ((begun, begins), (let_go, wait), (says, said)) = (channel(), channel::<()>(), channel());
    let also = says.clone();
    reactor.net().tell(key, move |_: &mut Recorder<On>, ctx, _| {
        let (mut stuck, other) = (ctx.net.lane(()), ctx.net.lane(()));
        stuck.offload(
            ctx,
            move |()| {
                begun.send(()).expect("the test listens");
                let _ = wait.recv();
            },
            |_: &mut Recorder<On>, _, _, _| unreachable!("it has ended"),
        );
        stuck.finish(move |()| also.send("stuck").expect("the test listens"));
        other.finish(move |()| says.send("other").expect("the test listens"));
        Ok(())
    });
    until(&mut reactor, &mut journal, |_| begins.try_recv().is_ok());
    reactor.shutdown(&mut journal);
    assert_eq!(said.recv_timeout(PATIENCE), Ok("other"));
    drop(let_go);
    assert_eq!(said.recv_timeout(PATIENCE), Ok("stuck"));
}

#[test]
fn a_last_piece_that_panics_after_its_reactor_has_gone_panics_nobody() {
    let mut reactor = Reactor::<()>::new().expect("a selector");
    let lane = reactor.net().lane(0);
    drop(reactor);
    lane.finish(|_| std::panic::resume_unwind(Box::new("on purpose")));
}

/// It stood behind another lane's, in the pool.
#[test]
fn a_piece_that_waits_for_a_thread_dies_with_its_connection() {
    let (mut reactor, mut journal) = start_with(Config::new().lane_threads(1));
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    let ((begun, begins), (let_go, wait)) = (channel(), channel::<()>());
    let mut stuck = Some(reactor.net().lane(()));
    reactor.net().tell(key, move |_: &mut Recorder<On>, ctx, _| {
        let mut other = ctx.net.lane(());
        let untold = |_: &mut Recorder<On>, _: &mut Ctx<'_>, _: &mut Journal, _| unreachable!("it has ended");
        let mut stuck = stuck.take().expect("once");
        stuck.offload(
            ctx,
            move |()| {
                begun.send(()).expect("the test listens");
                let _ = wait.recv();
            },
            untold,
        );
        other.offload(ctx, |()| unreachable!("its connection has ended"), untold);
        ctx.abort();
        Ok(())
    });
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    let _ = begins;
    drop(let_go);
    until_net(&mut reactor, &mut journal, |net, _| net.stats().offloads == 0);
}

/// Says on which threads it is used.
struct Traced(Sender<(&'static str, thread::ThreadId)>, u64);

impl Traced {
    fn says(&self, what: &'static str) {
        let _ = self.0.send((what, thread::current().id()));
    }
}

impl Write for Traced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.says("written");
        self.1 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.says("flushed");
        Ok(())
    }
}

impl Read for Traced {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.says("read");
        into.fill(b'x');
        Ok(into.len())
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.says("dropped");
    }
}

/// In the midst of an upload, of a download, and of a lane's work: each thing is dropped, the last is done, and none of it by the
/// loop's thread.
#[test]
fn a_reset_in_the_midst_leaves_nothing_behind_and_the_loop_touches_nothing() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet as On);
    peer.set_nonblocking(true).expect("it is a socket");
    let (says, said) = channel();
    reactor.net().tell(key, move |_: &mut Recorder<On>, ctx, _| {
        ctx.save(Traced(says.clone(), 0), |_: &mut Recorder<On>, _, _, _| unreachable!("it has ended"));
        ctx.send_from(Traced(says.clone(), 0), |_: &mut Recorder<On>, _, _, _| unreachable!("it has ended"));
        let mut lane = ctx.net.lane(Traced(says, 0));
        lane.offload(ctx, |traced| traced.says("worked"), |_: &mut Recorder<On>, _, _, worked| Ok(worked?));
        lane.finish(|traced| traced.says("last"));
        Ok(())
    });
    let mut all = Vec::new();
    let has_come = |all: &mut Vec<(&'static str, thread::ThreadId)>, what: &str, times: usize| {
        all.extend(said.try_iter());
        all.iter().filter(|(said, _)| *said == what).count() >= times
    };
    until(&mut reactor, &mut journal, |_| {
        let _ = peer.write(&[b'y'; 10_000]); // perhaps there is no room just now
        ["written", "read", "worked", "last"].into_iter().all(|what| has_come(&mut all, what, 1))
    });
    reset(peer);
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    until(&mut reactor, &mut journal, |_| has_come(&mut all, "dropped", 3));
    until_net(&mut reactor, &mut journal, |net, _| net.stats().offloads == 0);
    assert!(all.iter().all(|(_, by)| *by != thread::current().id()), "{all:?}");
    let times = |what: &str| all.iter().filter(|(said, _)| *said == what).count();
    assert_eq!((times("last"), times("dropped"), times("flushed")), (1, 3, 0));
}

/// Each saves what is its own, and all of them wait for the one thread.
#[test]
fn two_thousand_uploads_with_one_thread_are_all_exact() {
    const BYTES: usize = 3_000;
    let uploads = if has_room_for(5_000) { 2_000 } else { 200_usize };
    let config = Config::new().lane_threads(1).offload_threads(1).offload_queue(0);
    let (mut reactor, mut journal) = start_with(config);
    let saves: On = |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_terminator(Terminator::Stream(BYTES as u64));
            ctx.save(Vec::new(), |_: &mut Recorder<On>, ctx, journal, saved| {
                let saved = saved?;
                let first = saved[0];
                assert!(saved.len() == BYTES && saved.iter().all(|&byte| byte == first), "its own, and all of it");
                note(journal, ctx.key, first.to_string());
                Ok(())
            });
        }
        Ok(())
    };
    let (_, addr) = crate::common::listen(&mut reactor, move || crate::common::recorder(saves));
    let mut peers: Vec<TcpStream> = Vec::new();
    for batch in 1..=uploads.div_ceil(50) {
        peers.extend((peers.len()..uploads.min(batch * 50)).map(|_| crate::common::dial(addr)));
        until_net(&mut reactor, &mut journal, |net, _| net.stats().accepted as usize == batch.saturating_mul(50).min(uploads));
    }
    for half in [BYTES / 3, BYTES - BYTES / 3] {
        for (number, peer) in (0_usize..).zip(&peers) {
            crate::common::say(peer, vec![number as u8; half]);
        }
    }
    until(&mut reactor, &mut journal, |journal| journal.frames().len() == uploads);
    let mut first: Vec<u8> = journal.frames().iter().map(|text| text.parse().expect("a number")).collect();
    first.sort_unstable();
    let mut expected: Vec<u8> = (0..uploads).map(|number| number as u8).collect();
    expected.sort_unstable();
    assert_eq!(first, expected);
}

/// Neither where work is given out, nor where things are worked on.
#[test]
fn four_pieces_that_never_return_stop_no_file_of_others() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet as On);
    let lets_go: Vec<Sender<()>> = (0..4)
        .flat_map(|_| {
            let ((one, waits), (other, also)) = (channel::<()>(), channel::<()>());
            reactor.net().offload(move || _ = waits.recv(), |_, _, _| ());
            reactor.net().lane(()).finish(move |()| _ = also.recv());
            [one, other]
        })
        .collect();
    reactor.net().tell(key, |_: &mut Recorder<On>, ctx, _| {
        ctx.set_terminator(Terminator::Stream(5));
        ctx.save(Vec::new(), |_: &mut Recorder<On>, ctx, _, saved| {
            ctx.send_from(io::Cursor::new(saved?), |_: &mut Recorder<On>, _, _, sent| Ok(_ = sent?));
            Ok(())
        });
        Ok(())
    });
    crate::common::say(&peer, "hello");
    assert_eq!(crate::common::read_exactly(&mut reactor, &mut journal, &mut peer, 5), b"hello");
    drop(lets_go);
}
