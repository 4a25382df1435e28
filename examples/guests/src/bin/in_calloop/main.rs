//! The reactor inside of calloop, another event loop with callbacks: an echo server beside a timer of calloop's. guest.rs joins
//! the two.

#[path = "../../../../common/mod.rs"]
mod common;
mod guest;

use calloop::{
    EventLoop,
    timer::{TimeoutAction, Timer},
};
use common::{Failure, announce, arguments, drain_on_interrupt, exit, listening, say};
use guest::Guest;
use mainspring::{Context, Outcome, Protocol, Reactor};
use std::{
    io,
    process::ExitCode,
    time::{Duration, Instant},
};

const HELP: &str = "\
An echo server in a program whose loop is calloop's, beside a timer of calloop.

usage: in_calloop [--tick MS] [ADDR]

ADDR is IP:PORT (port 0: any free one) or unix:/path; the default is
127.0.0.1:7006. Then, in another terminal: nc 127.0.0.1 7006

The timer is due every MS milliseconds, 7 by default; 0 means never. Ctrl-C ends
the program, which then says how late the timer was.";

/// At the end, the time that clients with unfinished business have.
const GRACE: Duration = Duration::from_secs(2);

/// The data that calloop lends to its callbacks.
#[derive(Default)]
struct Host {
    guest: Option<Guest<Served, Host>>,
    ticks: Lateness,
    /// How the guest ended.
    outcome: Option<io::Result<()>>,
}

/// The state that the reactor lends to its callbacks.
#[derive(Default)]
struct Served {
    echoes: u64,
}

struct Echo;

impl Protocol<Served> for Echo {
    fn received(&mut self, ctx: &mut Context<'_, Served>, served: &mut Served, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        served.echoes += 1;
        Ok(())
    }
}

// --------------------------------------------------------------------------------------------------- calloop's timer

/// How often the timer was how late, in steps of a tenth of a millisecond; the last one counts everything beyond.
struct Lateness {
    counts: [u64; 1000],
    worst: Duration,
}

impl Default for Lateness {
    fn default() -> Self {
        Self { counts: [0; 1000], worst: Duration::ZERO }
    }
}

impl Lateness {
    const STEP: Duration = Duration::from_micros(100);

    fn add(&mut self, late: Duration) {
        let step = late.as_micros() / Self::STEP.as_micros();
        self.counts[usize::try_from(step).map_or(self.counts.len() - 1, |step| step.min(self.counts.len() - 1))] += 1;
        self.worst = self.worst.max(late);
    }

    fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn median(&self) -> Duration {
        let (half, mut sum) = (self.total().div_ceil(2), 0);
        let reached = self.counts.iter().position(|count| {
            sum += count;
            sum >= half
        });
        Self::STEP * reached.map_or(0, |step| step as u32 + 1)
    }
}

fn tick(period: Duration) -> impl FnMut(Instant, &mut (), &mut Host) -> TimeoutAction {
    move |due, (), host| {
        host.ticks.add(due.elapsed());
        TimeoutAction::ToInstant(due + period)
    }
}

// ----------------------------------------------------------------------------------------------------- the program

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 1, &["tick"])? else { return Ok(()) };
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:7006".into());
    let period = Duration::from_millis(given.number("tick", 0..=60_000)?.unwrap_or(7));
    let mut reactor = Reactor::new()?;
    let listener = listening(reactor.net().listen(at, || Echo))?;
    drain_on_interrupt(&reactor, GRACE)?;
    announce(&reactor.net(), listener)?;

    let mut calloop = EventLoop::try_new()?;
    let mut host = Host::default();
    if !period.is_zero() {
        let timer = Timer::from_duration(period);
        calloop.handle().insert_source(timer, tick(period)).map_err(|failed| failed.error)?;
    }
    let ended = |host: &mut Host, outcome| host.outcome = Some(outcome);
    let guest = Guest::new(calloop.handle(), reactor, Served::default(), |host: &mut Host| host.guest.as_mut(), ended)?;
    host.guest = Some(guest);
    let mut dispatches: u64 = 0;
    while host.outcome.is_none() {
        calloop.dispatch(None, &mut host)?;
        dispatches += 1;
    }
    let echoes = host.guest.as_mut().map_or(0, |guest| guest.with(|_, served| served.echoes));
    let Host { ticks, outcome, .. } = host;
    say(format_args!("{echoes} pieces echoed; {dispatches} dispatches of calloop's"));
    if ticks.total() > 0 {
        say(format_args!("{} ticks: half of them at most {:?} late, the worst {:?}", ticks.total(), ticks.median(), ticks.worst));
    }
    Ok(outcome.transpose().map(|_| ())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainspring::Net;
    use std::{
        cell::Cell,
        io::{Read, Write},
        net::{SocketAddr, TcpStream},
        rc::Rc,
        thread,
    };

    const PATIENCE: Duration = Duration::from_secs(20);

    struct Inside {
        calloop: EventLoop<'static, Host>,
        host: Host,
        at: SocketAddr,
    }

    fn inside() -> Inside {
        inside_with(|host, outcome| host.outcome = Some(outcome))
    }

    fn inside_with(ended: fn(&mut Host, io::Result<()>)) -> Inside {
        let mut reactor = Reactor::new().expect("a selector");
        let listener = reactor.net().listen("127.0.0.1:0", || Echo).expect("a port");
        let at = reactor.net().local(listener).and_then(|local| local.ip()).expect("it listens");
        let calloop = EventLoop::try_new().expect("a selector");
        let guest = Guest::new(calloop.handle(), reactor, Served::default(), |host: &mut Host| host.guest.as_mut(), ended);
        let host = Host { guest: Some(guest.expect("a source")), ..Host::default() };
        Inside { calloop, host, at }
    }

    impl Inside {
        fn until(&mut self, mut is_so: impl FnMut(&mut Host) -> bool) {
            let began = Instant::now();
            while !is_so(&mut self.host) {
                assert!(began.elapsed() < PATIENCE, "it does not come");
                self.calloop.dispatch(Some(PATIENCE), &mut self.host).expect("it works");
            }
        }

        /// Nothing wakes it.
        #[track_caller]
        fn sleeps(&mut self) {
            let (began, time) = (Instant::now(), Duration::from_millis(50));
            self.calloop.dispatch(Some(time), &mut self.host).expect("it works");
            assert!(began.elapsed() >= time, "it was woken");
        }

        fn turns(&mut self) -> u64 {
            self.host.guest.as_mut().map_or(0, |guest| guest.with(|net, _| net.stats().turns))
        }
    }

    fn client(at: SocketAddr, echoes: usize) -> thread::JoinHandle<()> {
        thread::spawn(move || {
            let mut socket = TcpStream::connect(at).expect("it listens");
            socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
            let mut buf = [0; 16];
            for _ in 0..echoes {
                socket.write_all(&[7; 16]).expect("it is open");
                socket.read_exact(&mut buf).expect("it is answered");
            }
        })
    }

    #[test]
    fn both_go_on_beside_each_other() {
        let mut inside = inside();
        let timer = Timer::from_duration(Duration::from_millis(1));
        inside.calloop.handle().insert_source(timer, tick(Duration::from_millis(1))).expect("a timer");
        let clients = [client(inside.at, 300), client(inside.at, 300)];
        inside.until(|_| clients.iter().all(|client| client.is_finished()));
        clients.into_iter().for_each(|client| client.join().expect("it was answered"));
        inside.until(|host| host.ticks.total() >= 20);
        assert!(inside.host.guest.as_mut().is_some_and(|guest| guest.with(|_, served| served.echoes >= 600)));
    }

    #[test]
    fn timers_of_the_guest_are_in_time_and_what_is_queued_outside_of_a_turn_too() {
        let mut inside = inside();
        let fired = Rc::new(Cell::new(0));
        let set = |guest: &mut Guest<Served, Host>, after| {
            let (fired, due) = (Rc::clone(&fired), Instant::now() + after);
            guest.with(|net, _| {
                net.after(after, move |_, _| {
                    assert!(Instant::now() >= due, "it is early");
                    fired.set(fired.get() + 1);
                })
            })
        };
        let guest = inside.host.guest.as_mut().expect("it is there");
        let never = set(guest, Duration::from_secs(3600));
        set(guest, Duration::from_millis(30)); // sooner than what calloop waits for
        set(guest, Duration::from_millis(10)); // and again
        guest.with(|net, _| assert!(net.cancel(never)));
        inside.until(|_| fired.get() == 2);
        let handle = inside.calloop.handle();
        let again = Rc::clone(&fired);
        let posts = move |_, _: &mut (), host: &mut Host| {
            let fired = Rc::clone(&again);
            let guest = host.guest.as_mut().expect("it is there");
            guest.with(|net, _| net.post(move |_, _| fired.set(fired.get() + 1)));
            TimeoutAction::Drop
        };
        handle.insert_source(Timer::immediate(), posts).expect("a timer");
        inside.until(|_| fired.get() == 3);
    }

    #[test]
    fn nobody_is_woken_while_there_is_nothing_to_do() {
        let mut inside = inside();
        let client = client(inside.at, 10);
        inside.until(|_| client.is_finished());
        // Its end is seen, and what this has left.
        inside.until(|host| host.guest.as_mut().is_some_and(|guest| guest.with(|net, _| net.stats().connections == 0)));
        inside.calloop.dispatch(Some(Duration::ZERO), &mut inside.host).expect("it works");
        let turns = inside.turns();
        inside.calloop.dispatch(Some(Duration::from_millis(300)), &mut inside.host).expect("it works");
        assert_eq!(inside.turns(), turns);
    }

    #[test]
    fn it_leaves_when_it_is_stopped_and_when_nothing_is_left() {
        let all: [fn(&mut Net<'_, Served>); 3] =
            [|net| net.stop(), |net| net.drain(Duration::ZERO), |net| net.remote().stop().expect("it is there")];
        for ends in all {
            let mut inside = inside();
            inside.host.guest.as_mut().expect("it is there").with(|net, _| {
                net.after(Duration::from_millis(20), |_, _| {}); // which has left with it
                ends(net);
            });
            inside.until(|host| matches!(host.outcome.take(), Some(Ok(()))));
            inside.sleeps();
            assert!(inside.host.outcome.is_none(), "it has ended once");
        }
    }

    #[test]
    fn it_may_be_dropped_inside_callbacks_of_calloops() {
        let mut inside_timer = inside();
        let remote = inside_timer.host.guest.as_mut().expect("it is there").with(|net, _| net.remote());
        let posts = remote.clone();
        let drops = move |_, _: &mut (), host: &mut Host| {
            posts.post(|_, _| {}).expect("it is there"); // which would wake whoever still has the descriptor
            host.guest = None;
            TimeoutAction::Drop
        };
        inside_timer.calloop.handle().insert_source(Timer::immediate(), drops).expect("a timer");
        inside_timer.until(|host| host.guest.is_none());
        inside_timer.calloop.dispatch(Some(Duration::ZERO), &mut inside_timer.host).expect("it works");
        inside_timer.sleeps();
        drop(remote);

        // Inside its own.
        let mut inside = inside_with(|host, outcome| {
            host.guest = None;
            host.outcome = Some(outcome);
        });
        let guest = inside.host.guest.as_mut().expect("it is there");
        guest.with(|net, _| net.after(Duration::from_millis(1), |net, _| net.stop()));
        inside.until(|host| host.outcome.is_some());
        assert!(TcpStream::connect(inside.at).is_err(), "its sockets are gone");
        inside.sleeps();
    }
}
