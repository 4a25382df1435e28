//! Errors that the system gives at the worst moment, each in virtual time and at every operation at which it can come.

use crate::common::SECOND;
use mainspring::{
    Config, Context, Outcome, Protocol, Reason,
    testing::{Errno, Host, Sim, Weather},
};
const PIECE: usize = 2_000;
const PIECES: usize = 5;

/// What a side has seen.
#[derive(Default)]
struct Log {
    received: usize,
    ends: Vec<String>,
}

/// Sends back what it gets.
struct Mirror;

impl Protocol<Log> for Mirror {
    fn received(&mut self, ctx: &mut Context<'_, Log>, log: &mut Log, bytes: &[u8]) -> Outcome {
        log.received += bytes.len();
        ctx.send(bytes);
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Log>, log: &mut Log, why: Reason) {
        log.ends.push(why.to_string());
    }
}

/// Says its pieces one after the other, and ends when it has had all of them back.
struct Caller {
    left: usize,
}

impl Caller {
    fn say(&mut self, ctx: &mut Context<'_, Log>) {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                ctx.send([b'x'; PIECE]);
            }
            None => ctx.close(),
        }
    }
}

impl Protocol<Log> for Caller {
    fn connected(&mut self, ctx: &mut Context<'_, Log>, _: &mut Log) -> Outcome {
        self.say(ctx);
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, Log>, log: &mut Log, bytes: &[u8]) -> Outcome {
        log.received += bytes.len();
        if log.received % PIECE == 0 {
            self.say(ctx);
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Log>, log: &mut Log, why: Reason) {
        log.ends.push(why.to_string());
    }
}

fn stage(config: Config) -> (Sim, Host<Log>, Host<Log>) {
    let mut sim = Sim::new(1);
    sim.set_weather(Weather::fair().window(1_000));
    let server = sim.host_with("10.0.0.1", Log::default(), config);
    let client = sim.host("10.0.0.2", Log::default());
    (sim, server, client)
}

/// Runs it with each operation of either host failing, until there are no more; how often this one was among them.
fn with_each_failing(
    what: &str,
    errno: Errno,
    mut run: impl FnMut(&mut dyn FnMut(&mut Sim, Host<Log>, Host<Log>)) -> Sim,
) -> usize {
    let mut strikes = 0;
    for of_server in [true, false] {
        for number in 0.. {
            let mut is_there = true;
            let sim = run(&mut |sim, server, client| {
                let host = if of_server { server } else { client };
                let at = sim.operations(host) + number;
                sim.fail_operation(host, at, errno, false);
                sim.run_for(60 * SECOND);
                is_there = at < sim.operations(host);
            });
            strikes += usize::from(sim.trace().contains(&format!("{what} fails on purpose")));
            if !is_there {
                break;
            }
        }
    }
    strikes
}

#[test]
fn a_read_or_a_write_that_is_interrupted_is_tried_again_and_nothing_is_lost() {
    for what in ["recv", "send"] {
        let strikes = with_each_failing(what, Errno::Interrupted, |play| {
            let (mut sim, server, client) = stage(Config::new());
            sim.net(server).listen("10.0.0.1:80", || Mirror).expect("a free port");
            sim.net(client).connect("10.0.0.1:80", Caller { left: PIECES });
            play(&mut sim, server, client);
            if sim.trace().contains(&format!("{what} fails on purpose")) {
                assert_eq!(sim.state(client).received, PIECE * PIECES);
                assert_eq!(sim.state(client).ends, ["finished"]);
                assert_eq!(sim.state(server).ends, ["the peer finished"]);
            }
            sim
        });
        assert!(strikes > PIECES, "{what} was interrupted in {strikes} runs");
    }
}

/// Says something, and resets behind it.
struct Rude;

impl Protocol<Log> for Rude {
    fn connected(&mut self, ctx: &mut Context<'_, Log>, _: &mut Log) -> Outcome {
        ctx.send([b'x'; 500]);
        let key = ctx.key;
        ctx.net.post(move |net, _| _ = net.abort(key));
        Ok(())
    }
}

/// Its answer cannot be written. What came before the reset is read first, a little in each turn, and then the reset.
#[test]
fn of_a_failed_write_and_a_later_reset_the_write_is_the_reason() {
    let mut both = 0;
    let strikes = with_each_failing("send", Errno::BrokenPipe, |play| {
        let (mut sim, server, client) = stage(Config::new().turn_bytes(1).read_bytes(64));
        sim.net(server).listen("10.0.0.1:80", || Mirror).expect("a free port");
        sim.net(client).connect("10.0.0.1:80", Rude);
        play(&mut sim, server, client);
        let trace = sim.trace();
        if trace.contains("send fails on purpose") && trace.contains("reset") {
            let broken = Reason::Io(Errno::BrokenPipe.to_error()).to_string();
            if sim.state(server).ends == [broken] {
                both += 1;
            } else {
                assert!(sim.state(server).received == 0, "{:?} {trace}", sim.state(server).ends);
            }
        }
        sim
    });
    assert!(strikes > 0 && both > 0, "{strikes} and {both}");
}
