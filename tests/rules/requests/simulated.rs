//! In any weather.

use crate::common::SECOND;
use mainspring::{
    Answer, Config, Context, Fault, Listen, Outcome, Protocol, RequestHandler, Terminator,
    testing::{Host, Sim, Weather, check},
};
use std::time::Duration;

/// Answers each number with the next one, after a while.
struct Successors;

impl RequestHandler<u32> for Successors {
    fn handle(&mut self, _: &mut Context<'_, u32>, handled: &mut u32, line: &[u8]) -> Result<Answer<Self, u32>, Fault> {
        let number: u32 = std::str::from_utf8(line)?.parse()?;
        *handled += 1;
        if number % 3 == 0 {
            return Ok(Answer::now(format!("{}\n", number + 1)));
        }
        Ok(Answer::later(move || number + 1, |_, _, _, next| Ok(Answer::now(format!("{}\n", next?)))))
    }
}

/// Asks for the successors of 0 to 29, all at once, and takes them in order.
struct Asker {
    next: u32,
}

impl Protocol<u32> for Asker {
    fn connected(&mut self, ctx: &mut Context<'_, u32>, _: &mut u32) -> Outcome {
        ctx.set_terminator(Terminator::line(10));
        for number in 0..30 {
            writeln!(ctx, "{number}");
        }
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, u32>, answered: &mut u32, line: &[u8]) -> Outcome {
        self.next += 1;
        *answered += 1;
        assert_eq!(std::str::from_utf8(line)?, self.next.to_string(), "answers come in order");
        if self.next == 30 {
            ctx.close();
        }
        Ok(())
    }
}

/// A server and four clients that ask.
fn ask(sim: &mut Sim, weather: Weather, threads: usize) -> (Host<u32>, Host<u32>) {
    sim.set_weather(weather);
    let server = sim.host_with("10.0.0.1", 0, Config::new().offload_threads(threads));
    let home = sim.host("10.0.0.2", 0);
    sim.net(server).serve("10.0.0.1:7", Listen::new(), || Successors).expect("a free port");
    for _ in 0..4 {
        sim.net(home).connect("10.0.0.1:7", Asker { next: 0 });
    }
    (server, home)
}

#[test]
fn answers_come_in_order_in_any_weather() {
    check(0..100, |sim| {
        let (_, home) = ask(sim, Weather::rough().resets(0).refusals(0, 0), 3);
        assert!(sim.run_until(300 * SECOND, |sim| *sim.state(home) == 120), "every request is answered");
    });
}

#[test]
fn a_drain_under_load_loses_no_request_that_was_handled() {
    let mut unfinished = 0;
    for seed in 0..100 {
        let mut sim = Sim::new(seed);
        let (server, home) = ask(&mut sim, Weather::fair().latency(SECOND / 50, SECOND / 50).work(SECOND / 10), 2);
        sim.run_for(Duration::from_millis(20 * seed));
        let before = *sim.state(server);
        sim.net(server).drain(60 * SECOND);
        sim.run_for(60 * SECOND);
        assert!(sim.has_stopped(server), "seed {seed}: everybody is done before the grace is over");
        let (handled, answered) = (*sim.state(server), *sim.state(home));
        assert_eq!(handled, answered, "seed {seed}: what was handled was answered");
        assert_eq!(handled % 30, 0, "seed {seed}: what had arrived with the first was handled");
        unfinished += u32::from(before > 0 && before < 120);
    }
    assert!(unfinished > 10, "only {unfinished} drains came in the middle");
}
