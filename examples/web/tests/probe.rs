//! What such a server relies on, asked of the crate.
use mainspring::{
    Context, Fault, Framer, Kind, Limit, Outcome, Produced, Protocol, Reason, Step, Terminator,
    testing::{Scene, Transcript},
};
use std::{cell::RefCell, rc::Rc, time::Duration};
type Log = Vec<String>;
type Ctx<'a> = Context<'a, Log>;
const SECOND: Duration = Duration::from_secs(1);

/// What does `unread` say inside `frame`?
struct Unread;
impl Protocol<Log> for Unread {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Log) -> Outcome {
        ctx.set_terminator(Terminator::line(100));
        Ok(())
    }
    fn frame(&mut self, ctx: &mut Ctx<'_>, log: &mut Log, line: &[u8]) -> Outcome {
        log.push(format!("{} {}", String::from_utf8_lossy(line), ctx.unread()));
        Ok(())
    }
}
#[test]
fn unread_inside_frame_is_what_comes_after() {
    let mut t = Transcript::<_, Log>::new(Unread);
    t.receives("ab\ncd\ne");
    assert_eq!(t.state(), &["ab 4", "cd 1"]);
}

/// Does a frame time-out run over a whole `Stream(n)`?
struct Slow(Terminator);
impl Protocol<Log> for Slow {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Log) -> Outcome {
        ctx.set_frame_timeout(10 * SECOND);
        ctx.set_terminator(std::mem::take(&mut self.0));
        Ok(())
    }
    fn received(&mut self, _: &mut Ctx<'_>, _: &mut Log, _: &[u8]) -> Outcome {
        Ok(())
    }
    fn frame(&mut self, _: &mut Ctx<'_>, _: &mut Log, _: &[u8]) -> Outcome {
        Ok(())
    }
    fn exceeded(&mut self, _: &mut Ctx<'_>, log: &mut Log, limit: Limit) -> Outcome {
        log.push(format!("{limit:?}"));
        Err(limit.into())
    }
}
struct Pieces(u32);
impl Framer for Pieces {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        let n = input.len();
        self.0 += n as u32;
        Ok(if self.0 >= 1000 { Step::Frame { bytes: 0..n, consumed: n } } else { Step::Piece { bytes: 0..n, consumed: n } })
    }
}
fn drip(terminator: Terminator) -> Option<u32> {
    let mut t = Transcript::<_, Log>::new(Slow(terminator));
    for second in 1..30 {
        t.receives("x").passes(SECOND);
        if !t.state().is_empty() {
            return Some(second);
        }
    }
    None
}
#[test]
fn frame_time_of_streams() {
    assert_eq!(drip(Terminator::Stream(1000)), Some(10));
    assert_eq!(drip(Terminator::stream_until(&b"\r\n"[..])), Some(10));
    assert_eq!(drip(Terminator::custom(Pieces(0), 100)), Some(10));
    assert_eq!(drip(Terminator::exactly(1000)), Some(10));
    assert_eq!(drip(Terminator::None), None, "there is no frame");
}

/// An upgrade from what follows offloaded work, with bytes unread, paused, and a producer in the queue.
struct First;
struct Second;
impl Protocol<Log> for First {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Log) -> Outcome {
        ctx.set_terminator(Terminator::line(100));
        Ok(())
    }
    fn frame(&mut self, ctx: &mut Ctx<'_>, _: &mut Log, _: &[u8]) -> Outcome {
        ctx.pause();
        let slot: Rc<RefCell<Option<Vec<u8>>>> = Rc::default();
        let place = slot.clone();
        ctx.produce(move |out: &mut Vec<u8>| -> std::io::Result<Produced> {
            Ok(match place.borrow_mut().take() {
                None => Produced::NotYet,
                Some(bytes) => {
                    out.extend(bytes);
                    Produced::Done
                }
            })
        });
        ctx.send("after\n");
        ctx.offload(
            || b"made\n".to_vec(),
            move |_: &mut Self, ctx, _, made| {
                *slot.borrow_mut() = Some(made?);
                ctx.upgrade(Second);
                Ok(())
            },
        );
        Ok(())
    }
}
impl Protocol<Log> for Second {
    fn connected(&mut self, ctx: &mut Ctx<'_>, log: &mut Log) -> Outcome {
        log.push(format!("second, {} unread", ctx.unread()));
        ctx.wake();
        Ok(())
    }
    fn received(&mut self, ctx: &mut Ctx<'_>, _: &mut Log, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }
}
#[test]
fn an_upgrade_from_done() {
    let mut t = Transcript::<_, Log>::new(First);
    t.receives("go\nrest").sends("made\nafter\nrest");
    assert_eq!(t.state(), &["second, 4 unread"]);
}

/// A polite end of the client while we are paused is not told, and can be asked for; a reset is told.
struct LongPoll;
impl Protocol<Log> for LongPoll {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Log) -> Outcome {
        ctx.set_terminator(Terminator::line(100));
        ctx.set_idle_timeout(15 * SECOND);
        ctx.set_stall_timeout(15 * SECOND);
        Ok(())
    }
    fn frame(&mut self, ctx: &mut Ctx<'_>, _: &mut Log, _: &[u8]) -> Outcome {
        ctx.pause();
        Ok(())
    }
    fn closed(&mut self, _: &mut Ctx<'_>, log: &mut Log, why: Reason) {
        log.push(why.to_string());
    }
}
#[test]
fn a_long_poll_whose_client_leaves() {
    let mut scene = Scene::new(0, Log::new());
    scene.net().listen("10.0.0.1:80", || LongPoll).unwrap();
    let [ends, closes, resets] = [(); 3].map(|()| scene.dials("10.0.0.1:80"));
    for who in [ends, closes, resets] {
        scene.says(who, "poll\n");
    }
    scene.ends(ends).closes(closes).resets(resets).passes(3600 * SECOND);
    assert_eq!(scene.connections(), 2);
    assert!(matches!(&scene.state()[..], [why] if why.starts_with("connection lost")), "{:?}", scene.state());
    let open: Vec<_> = scene.net().connections().iter().filter(|c| c.kind == Kind::Accepted).map(|c| c.key).collect();
    assert!(open.into_iter().all(|key| scene.net().link(key).is_some_and(|link| link.peer_ended())));
}

/// Listen's time-outs and an upgrade.
struct Before;
struct After;
impl Protocol<Log> for Before {
    fn received(&mut self, ctx: &mut Ctx<'_>, _: &mut Log, _: &[u8]) -> Outcome {
        ctx.upgrade(After);
        Ok(())
    }
}
impl Protocol<Log> for After {}
#[test]
fn listen_time_outs_after_an_upgrade() {
    let mut scene = Scene::new(0, Log::new());
    let options = mainspring::Listen::new().idle_timeout(15 * SECOND);
    scene.net().listen_with("10.0.0.1:80", options, |_, _, _| Ok(Before)).unwrap();
    let [a, b] = [(); 2].map(|()| scene.dials("10.0.0.1:80"));
    scene.says(b, "x").passes(3600 * SECOND);
    let _ = a;
    assert_eq!(scene.connections(), 0);
}

/// A framer whose frames end with a piece: does the frame time-out think that one is still going on?
struct HeadThenPieces(usize);
impl Framer for HeadThenPieces {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        if self.0 > 0 {
            let n = self.0.min(input.len());
            self.0 -= n;
            return Ok(Step::Piece { bytes: 0..n, consumed: n });
        }
        self.0 = input[0] as usize;
        Ok(Step::Frame { bytes: 0..1, consumed: 1 })
    }
}
#[test]
fn frame_time_after_a_last_piece() {
    let mut t = Transcript::<_, Log>::new(Slow(Terminator::custom(HeadThenPieces(0), 100)));
    t.receives([3, 1, 1, 1]).passes(60 * SECOND);
    assert_eq!(t.state(), &["FrameTime"], "a piece begins a frame, whose end never came");
    let mut t = Transcript::<_, Log>::new(Slow(Terminator::custom(HeadThenPieces(0), 100)));
    for _ in 0..6 {
        t.receives([1, 1]).passes(3 * SECOND);
    }
    assert!(t.state().is_empty(), "the next frame ends it");
    let mut t = Transcript::<_, Log>::new(Slow(Terminator::custom(HeadThenPieces(0), 100)));
    t.receives([3, 1]).passes(60 * SECOND);
    assert_eq!(t.state(), &["FrameTime"]);
    let mut t = Transcript::<_, Log>::new(Slow(Terminator::custom(HeadThenPieces(0), 100)));
    t.receives([3]).passes(60 * SECOND);
    assert!(t.state().is_empty(), "a header that was a frame is over");
}

/// A piece of nothing: is the header swallowed?
struct Swallow(usize);
impl Framer for Swallow {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        if self.0 == 0 {
            self.0 = input[0] as usize;
            return Ok(Step::Piece { bytes: 0..0, consumed: 1 });
        }
        let n = self.0.min(input.len());
        self.0 -= n;
        Ok(if self.0 == 0 { Step::Frame { bytes: 0..n, consumed: n } } else { Step::Piece { bytes: 0..n, consumed: n } })
    }
}
struct Tell;
impl Protocol<Log> for Tell {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Log) -> Outcome {
        ctx.set_frame_timeout(10 * SECOND);
        ctx.set_terminator(Terminator::custom(Swallow(0), 100));
        Ok(())
    }
    fn received(&mut self, _: &mut Ctx<'_>, log: &mut Log, bytes: &[u8]) -> Outcome {
        log.push(format!("piece {}", bytes.len()));
        Ok(())
    }
    fn frame(&mut self, _: &mut Ctx<'_>, log: &mut Log, bytes: &[u8]) -> Outcome {
        log.push(format!("frame {}", bytes.len()));
        Ok(())
    }
    fn exceeded(&mut self, _: &mut Ctx<'_>, log: &mut Log, limit: Limit) -> Outcome {
        log.push(format!("{limit:?}"));
        Err(limit.into())
    }
}
#[test]
fn a_piece_of_nothing() {
    let mut t = Transcript::<_, Log>::new(Tell);
    t.receives([3]).receives([1, 1]).receives([1, 2]).receives([5, 5]).passes(60 * SECOND);
    assert_eq!(t.state(), &["piece 2", "frame 1", "frame 2"]);
    let mut t = Transcript::<_, Log>::new(Tell);
    t.receives([3]).passes(60 * SECOND);
    assert_eq!(t.state(), &["FrameTime"]);
    let mut t = Transcript::<_, Log>::new(Tell);
    t.receives([3, 1]).peer_ends();
    assert_eq!(t.state(), &["piece 1"]);
}

/// Pipelined: the frame clock of a frame whose first bytes waited while we were paused.
struct Slowly;
impl Protocol<Log> for Slowly {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Log) -> Outcome {
        ctx.set_frame_timeout(10 * SECOND);
        ctx.set_terminator(Terminator::line(100));
        Ok(())
    }
    fn frame(&mut self, ctx: &mut Ctx<'_>, log: &mut Log, bytes: &[u8]) -> Outcome {
        log.push(String::from_utf8_lossy(bytes).into_owned());
        ctx.pause();
        ctx.after(30 * SECOND, |_: &mut Self, ctx, _| {
            ctx.resume();
            Ok(())
        });
        Ok(())
    }
    fn exceeded(&mut self, ctx: &mut Ctx<'_>, log: &mut Log, limit: Limit) -> Outcome {
        log.push(format!("{limit:?} at {} unread", ctx.unread()));
        Err(limit.into())
    }
}
#[test]
fn the_frame_clock_of_what_waits() {
    let mut t = Transcript::<_, Log>::new(Slowly);
    t.receives("one\nhalf").passes(35 * SECOND).stays_open().passes(4 * SECOND).stays_open().passes(2 * SECOND);
    assert_eq!(t.state(), &["one", "FrameTime at 4 unread"]);
}

/// Answers each line with a kilobyte; what is the most that was queued?
struct Answers;
impl Protocol<Log> for Answers {
    fn connected(&mut self, ctx: &mut Ctx<'_>, log: &mut Log) -> Outcome {
        ctx.set_terminator(Terminator::line(100));
        log.push("0".into());
        log.push("0".into());
        Ok(())
    }
    fn frame(&mut self, ctx: &mut Ctx<'_>, log: &mut Log, _: &[u8]) -> Outcome {
        ctx.send([b'x'; 1000]);
        let most = log[0].parse::<usize>()?.max(ctx.queued());
        log[0] = most.to_string();
        log[1] = (log[1].parse::<usize>()? + 1).to_string();
        Ok(())
    }
    fn closed(&mut self, _: &mut Ctx<'_>, log: &mut Log, why: Reason) {
        log.push(why.to_string());
    }
}
#[test]
fn a_reset_while_answers_are_held_back() {
    let mut t = Transcript::<_, Log>::new(Answers);
    t.peer_stops_reading().receives("a\n".repeat(3000));
    let [most, lines] = [0, 1].map(|n| t.state()[n].parse::<usize>().unwrap());
    assert!(most <= (64 << 10) + 1000 && lines < 300, "{most} {lines}");
    t.peer_resets();
    assert_eq!(t.state()[1], lines.to_string(), "who is lost is not answered any more");
    assert!(t.state()[2].starts_with("connection lost"));
}

/// Is hold-back part of what an upgrade makes clean?
struct Loose;
struct Strict;
impl Protocol<Log> for Loose {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Log) -> Outcome {
        ctx.set_hold_back(false);
        ctx.set_terminator(Terminator::line(10));
        Ok(())
    }
    fn frame(&mut self, ctx: &mut Ctx<'_>, _: &mut Log, _: &[u8]) -> Outcome {
        ctx.upgrade(Strict);
        Ok(())
    }
}
impl Protocol<Log> for Strict {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Log) -> Outcome {
        ctx.set_terminator(Terminator::line(10));
        Ok(())
    }
    fn frame(&mut self, ctx: &mut Ctx<'_>, log: &mut Log, _: &[u8]) -> Outcome {
        ctx.send([b'x'; 1000]);
        log.push(String::new());
        Ok(())
    }
}
#[test]
fn hold_back_after_an_upgrade() {
    let mut t = Transcript::<_, Log>::new(Loose);
    t.peer_stops_reading().receives("up\n".repeat(600));
    assert!(t.state().len() < 300, "{}", t.state().len());
}

#[test]
fn every_timer_of_a_pause() {
    // A pause that nobody takes back: which of the four time-outs ends it?
    struct Stuck(Limit);
    impl Protocol<Log> for Stuck {
        fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Log) -> Outcome {
            match self.0 {
                Limit::Idle => ctx.set_idle_timeout(SECOND),
                Limit::Stalled => ctx.set_stall_timeout(SECOND),
                Limit::FrameTime => ctx.set_frame_timeout(SECOND),
                _ => ctx.set_deadline(SECOND),
            }
            ctx.set_terminator(Terminator::line(10));
            Ok(())
        }
        fn frame(&mut self, ctx: &mut Ctx<'_>, _: &mut Log, _: &[u8]) -> Outcome {
            ctx.pause();
            Ok(())
        }
    }
    for limit in [Limit::Idle, Limit::Stalled, Limit::FrameTime, Limit::Deadline] {
        let mut scene = Scene::new(0, Log::new());
        scene.net().listen("10.0.0.1:80", move || Stuck(limit)).unwrap();
        let who = scene.dials("10.0.0.1:80");
        scene.says(who, "a\nhalf").passes(3600 * SECOND);
        assert_eq!(scene.connections(), usize::from(limit != Limit::Deadline), "{limit:?}");
    }
}
