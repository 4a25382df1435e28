//! Records, where a socket has bytes: a write is several of them, and a part of one is nothing to read yet.

use crate::configs::sides;
use mainspring::{
    Connect, Context, Listen, Outcome, Protocol, Reason, TlsClient,
    rustls::pki_types::ServerName,
    testing::{Errno, Host, Sim, Weather},
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_millis(5);

/// How much came, and how it ended.
#[derive(Default)]
struct Heard {
    bytes: usize,
    end: Option<String>,
}

/// One of those who talk; asked by a first byte, it answers with this many bytes, and fails if that is more than one.
struct Talker {
    answers: usize,
}

impl Protocol<Vec<Heard>> for Talker {
    fn connected(&mut self, ctx: &mut Context<'_, Vec<Heard>>, heard: &mut Vec<Heard>) -> Outcome {
        heard.push(Heard::default());
        if self.answers == 0 {
            ctx.send("?");
        }
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, Vec<Heard>>, heard: &mut Vec<Heard>, bytes: &[u8]) -> Outcome {
        heard[0].bytes += bytes.len();
        if self.answers == 0 {
            return Ok(());
        }
        ctx.send(vec![7; self.answers]);
        if self.answers == 1 {
            return Ok(());
        }
        Err("it has said all".into())
    }

    fn closed(&mut self, _: &mut Context<'_, Vec<Heard>>, heard: &mut Vec<Heard>, why: Reason) {
        heard[0].end = Some(why.to_string());
    }
}

/// A client and a server that answers, each on its host, and connected.
fn two(sim: &mut Sim, answers: usize) -> (Host<Vec<Heard>>, Host<Vec<Heard>>) {
    let (server, client) = sides();
    let (there, here) = (sim.host("10.0.0.1", Vec::new()), sim.host("10.0.0.2", Vec::new()));
    let client = TlsClient::new(client).server_name(ServerName::try_from("localhost").expect("a name"));
    sim.net(there).listen_with("10.0.0.1:7", Listen::new().tls(server), move |_, _, _| Ok(Talker { answers })).expect("free");
    sim.net(here).connect_with("10.0.0.1:7", Connect::new().tls(client), Talker { answers: 0 });
    (here, there)
}

#[test]
fn the_last_words_of_who_fails_are_more_than_a_record() {
    for answers in [10_000, 200_000] {
        let mut sim = Sim::new(1);
        sim.set_weather(Weather::fair().window(1 << 20));
        let (here, there) = two(&mut sim, answers);
        sim.run_for(SECOND);
        assert_eq!(sim.state(there)[0].end.as_deref(), Some("failed: it has said all"));
        let heard = &sim.state(here)[0];
        assert_eq!((heard.bytes, heard.end.as_deref()), (answers, Some("the peer finished")));
    }
}

#[test]
fn who_has_received_half_a_record_is_not_quiet() {
    let mut sim = Sim::new(1);
    sim.set_weather(Weather::fair().window(400).latency(MOMENT, Duration::ZERO));
    let (here, there) = two(&mut sim, 1);
    sim.run_for(SECOND);
    assert_eq!((sim.state(there)[0].bytes, sim.state(here)[0].bytes), (1, 1));
    let key = |sim: &mut Sim, host| sim.net(host).connections().iter().find(|one| one.is_connected).expect("they talk").key;
    let (guest, client) = (key(&mut sim, there), key(&mut sim, here));
    assert!(sim.net(here).send(client, [7; 1_000]));
    sim.run_for(MOMENT + MOMENT / 2);
    assert_eq!(sim.state(there)[0].bytes, 1, "the record is longer than the window");
    sim.net(there).link(guest).expect("it talks").close_when_quiet();
    sim.run_for(SECOND);
    let heard = &sim.state(there)[0];
    assert_eq!((heard.bytes, heard.end.as_deref()), (1_001, Some("drained")));
}

#[test]
fn a_system_that_interrupts_every_write_is_asked_again_and_others_are_served() {
    let mut sim = Sim::new(1);
    sim.set_weather(Weather::fair().latency(MOMENT, Duration::ZERO));
    let (here, there) = two(&mut sim, 1);
    sim.fail_operation(there, sim.operations(there) + 2, Errno::Interrupted, true);
    assert!(!sim.run_until(SECOND, |sim| !sim.state(here).is_empty()), "nothing leaves");
    sim.fail_operation(there, u64::MAX, Errno::Again, false);
    sim.run_for(SECOND);
    assert_eq!((sim.state(there)[0].bytes, sim.state(here)[0].bytes), (1, 1));
}

#[test]
fn an_end_that_could_not_be_said_is_a_write_that_failed() {
    let mut sim = Sim::new(1);
    let (here, there) = two(&mut sim, 1);
    sim.run_for(SECOND);
    let key = sim.net(here).connections().iter().find(|one| one.is_connected).expect("they talk").key;
    sim.fail_operation(here, sim.operations(here), Errno::NoBuffers, true);
    sim.net(here).half_close(key);
    sim.run_for(MOMENT);
    sim.fail_operation(here, u64::MAX, Errno::Again, false);
    sim.run_for(SECOND);
    let end = sim.state(here)[0].end.take().expect("it has ended");
    assert!(end.starts_with("connection lost: "), "{end}");
    let end = sim.state(there)[0].end.take().expect("it has ended");
    assert!(end.starts_with("connection lost: "), "{end}");
}

#[test]
fn a_handshake_goes_on_byte_by_byte() {
    let mut sim = Sim::new(1);
    sim.set_weather(Weather::fair().window(1).latency(Duration::from_millis(1), Duration::ZERO));
    let (here, there) = two(&mut sim, 1);
    sim.run_for(9 * SECOND);
    assert_eq!((sim.state(there).len(), sim.state(here).len()), (1, 1));
}
