//! TLS is a byte pipe on a byte pipe: the same program, over TCP, over TLS, and over TLS that begins in mid-stream, is told the
//! same, in fair weather. What is drawn depends on nothing that TLS changes: from outside something is done when all is at rest,
//! and callbacks draw by how many came before them, pieces not counted. How a stream is cut into pieces says nothing: they are
//! joined.

use super::{
    chance::{Dice, words},
    configs::sides,
    framing::Framing,
    plays::DELIMITERS,
};
use mainspring::{
    Config, Connect, Context, Endian, Hold, Key, Limit, Link, Listen, Net, Outcome, Produced, Protocol, Reason, TlsClient, Width,
    rustls::{ClientConfig, ServerConfig, pki_types::ServerName},
    testing::{Host, Sim, Weather},
};
use std::{rc::Rc, sync::Arc, time::Duration};

/// How many programs a plain `cargo test` compares.
const PROGRAMS: u64 = 150;

/// What is done from outside in each, and how long until it has come to rest, whatever the rates and the window.
const STEPS: usize = 40;
const REST: Duration = Duration::from_secs(20);

/// In the middle of a rest, and for each end and each purpose apart from what else may happen there: a few milliseconds decide
/// the order of what crosses on the way, or happens at the same time.
fn some_time(id: usize, purpose: u32, dice: &mut Dice) -> Duration {
    REST * dice.below(4) as u32 + REST / 4 + Duration::from_secs(id as u64) + Duration::from_millis(200) * purpose
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Over {
    Tcp,
    Tls,
    StartTls,
}

#[derive(Clone, Debug, PartialEq)]
enum Told {
    Connected,
    Received(Vec<u8>),
    Frame(Vec<u8>),
    Writable,
    Exceeded(Limit),
    Draining,
    Eof(Vec<u8>),
    Timer,
    Tell,
    Closed(String),
}

/// What an end was told, and what is known of it.
#[derive(Default)]
struct End {
    key: Option<Key>,
    told: Vec<Told>,
    holds: Vec<Hold>,
    is_paused: bool,
    sent: usize,
}

struct World {
    seed: u64,
    /// Small windows keep output queued, and how much of it is not what TLS and TCP agree on.
    is_tight: bool,
    /// The even ones are clients, each followed by its server.
    ends: Vec<End>,
    secured: usize,
}

struct Twin {
    id: usize,
}

impl Twin {
    fn told(&self, ctx: &mut Context<'_, World>, world: &mut World, told: Told) -> Outcome {
        let end = &mut world.ends[self.id];
        end.key = Some(ctx.key);
        end.told.push(told);
        let count = end.told.iter().filter(|told| !matches!(told, Told::Received(_))).count();
        let mut dice = Dice(world.seed ^ (self.id as u64 + 1).rotate_left(40) ^ (count as u64).rotate_left(20));
        // Both are told that they are connected, and which is told first is another matter; so it is where windows are full.
        if matches!(end.told.last(), Some(Told::Connected | Told::Closed(_))) || world.is_tight {
            return Ok(());
        }
        for _ in 0..dice.pick(&[0, 0, 1, 1, 2]) {
            match dice.below(40) {
                0 => ctx.upgrade(Self { id: self.id }),
                1 => ctx.close(),
                2 if dice.one_in(2) => ctx.abort(),
                3 => {
                    _ = ctx
                        .after(some_time(self.id, 0, &mut dice), |twin: &mut Self, ctx, world| twin.told(ctx, world, Told::Timer))
                }
                _ => act(self.id, &mut dice, &mut ctx.net, world),
            }
        }
        match world.ends[self.id].told.last() {
            Some(Told::Exceeded(limit)) if dice.one_in(2) => Err((*limit).into()),
            Some(Told::Eof(_)) if dice.one_in(2) => {
                ctx.close();
                Ok(())
            }
            _ if dice.one_in(60) => Err("of its own".into()),
            _ => Ok(()),
        }
    }
}

impl Protocol<World> for Twin {
    fn connected(&mut self, ctx: &mut Context<'_, World>, world: &mut World) -> Outcome {
        self.told(ctx, world, Told::Connected)
    }

    fn secured(&mut self, _: &mut Context<'_, World>, world: &mut World) -> Outcome {
        world.secured += 1;
        Ok(())
    }

    /// What it does must not depend on how often this is called: some send it back.
    fn received(&mut self, ctx: &mut Context<'_, World>, world: &mut World, bytes: &[u8]) -> Outcome {
        let end = &mut world.ends[self.id];
        match end.told.last_mut() {
            Some(Told::Received(before)) => before.extend_from_slice(bytes),
            _ => end.told.push(Told::Received(bytes.to_vec())),
        }
        if self.id % 4 == 3 {
            ctx.send(bytes);
        }
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, World>, world: &mut World, frame: &[u8]) -> Outcome {
        self.told(ctx, world, Told::Frame(frame.to_vec()))
    }

    fn writable(&mut self, ctx: &mut Context<'_, World>, world: &mut World) -> Outcome {
        if world.is_tight { Ok(()) } else { self.told(ctx, world, Told::Writable) }
    }

    fn exceeded(&mut self, ctx: &mut Context<'_, World>, world: &mut World, limit: Limit) -> Outcome {
        self.told(ctx, world, Told::Exceeded(limit))
    }

    fn draining(&mut self, ctx: &mut Context<'_, World>, world: &mut World) -> Outcome {
        self.told(ctx, world, Told::Draining)
    }

    fn eof(&mut self, ctx: &mut Context<'_, World>, world: &mut World, tail: &[u8]) -> Outcome {
        self.told(ctx, world, Told::Eof(tail.to_vec()))
    }

    fn closed(&mut self, ctx: &mut Context<'_, World>, world: &mut World, why: Reason) {
        let _ = self.told(ctx, world, Told::Closed(why.to_string()));
    }
}

fn some_framing(dice: &mut Dice) -> Framing {
    let limit = dice.pick(&[4, 20, 100, 100_000, 100_000]);
    match dice.below(10) {
        0 | 1 => Framing::Line { limit },
        2 => Framing::Delimiter { bytes: dice.pick(&DELIMITERS), limit },
        3 => Framing::Through { bytes: dice.pick(&DELIMITERS), limit },
        4 => Framing::Length { bytes: 1 + dice.below(3_000), limit: 3_000 },
        5 => Framing::Stream { left: 1 + dice.below(3_000) },
        6 => Framing::Until { bytes: dice.pick(&DELIMITERS), seen: 0 },
        7 => Framing::Prefixed { width: Width::U8, order: Endian::Big, limit: 255 },
        _ => Framing::None,
    }
}

/// One thing that is done to an end, by whomever.
fn act(id: usize, dice: &mut Dice, net: &mut Net<'_, World>, world: &mut World) {
    let Some(key) = world.ends[id].key else { return };
    let other = world.ends[id % 2 + 2 * dice.below(world.ends.len() / 2)].key;
    let (is_tight, end) = (world.is_tight, &mut world.ends[id]);
    let most = dice.pick(&[10, 100, 100, 6_000, 40_000]);
    let bytes = words(id * 7919 + end.sent, 1 + dice.below(if is_tight { most.min(6_000) } else { most }));
    let [idle, deadline, frame_time] = [1, 2, 3].map(|purpose| dice.one_in(2).then(|| some_time(id, purpose, dice)));
    let rate = dice.one_in(2).then_some(5_000);
    let Some(mut link) = net.link(key) else { return };
    let mut sends = |link: &mut Link<'_>, send: &dyn Fn(&mut Link<'_>, Vec<u8>) -> bool| {
        let length = bytes.len();
        end.sent += if send(link, bytes.clone()) { length } else { 0 };
    };
    match dice.below(44) {
        0..14 => sends(&mut link, &|link, bytes| link.send(bytes)),
        14..16 => sends(&mut link, &|link, bytes| link.send_shared(&Rc::from(&bytes[..]))),
        16..18 => sends(&mut link, &|link, bytes| {
            let mut said = 0;
            link.produce(move |out: &mut Vec<u8>| {
                let more = (bytes.len() - said).min(1_000);
                out.extend_from_slice(&bytes[said..said + more]);
                said += more;
                Ok(if said == bytes.len() { Produced::Done } else { Produced::More })
            })
        }),
        18..24 => link.set_terminator(some_framing(dice).terminator()),
        // Less of what is in TLS fits into a window that nobody empties, and what is quiet for a moment depends on the cuts.
        24..30 | 37 | 42 if is_tight => {}
        24..27 => {
            end.is_paused = !end.is_paused;
            if end.is_paused { link.pause() } else { link.resume() }
        }
        27 => end.holds.push(link.hold()),
        28 => {
            if let Some(hold) = end.holds.pop() {
                net.release(hold);
            }
        }
        29 => link.set_hold_back(dice.one_in(2)),
        30 if !is_tight => link.set_output_limits(0, dice.pick(&[10, 1_000, 60_000]), 200_000),
        31 => link.set_idle_timeout(idle),
        32 => link.set_deadline(deadline),
        33 => link.set_frame_timeout(frame_time),
        34 => link.set_read_rate(rate),
        35 => link.set_write_rate(rate),
        36 => link.half_close(),
        37 => link.close_when_quiet(),
        38 => link.close(),
        39 if dice.one_in(2) => link.abort(),
        40 if dice.one_in(2) => link.fail("kicked"),
        41 => _ = net.tell(key, |twin: &mut Twin, ctx, world| twin.told(ctx, world, Told::Tell)),
        42 => _ = other.is_some_and(|other| net.throttle(key, other)),
        43 => {
            if let Some(other) = other {
                net.unthrottle(key, other);
            }
        }
        _ => {}
    }
}

fn client_of(config: &Arc<ClientConfig>) -> TlsClient {
    TlsClient::new(Arc::clone(config)).server_name(ServerName::try_from("localhost").expect("a name"))
}

/// What each was told.
fn play(seed: u64, over: Over) -> Vec<Vec<Told>> {
    let mut dice = Dice(seed);
    let mut sim = Sim::new(seed);
    let window = dice.pick(&[400, 3_000, 1 << 20, 1 << 20]);
    sim.set_weather(Weather::fair().window(window).latency(Duration::from_millis(5), Duration::ZERO));
    let config = Config::new().output_limits(10_000, 50_000, 1 << 20).handshake_max(REST / 2);
    let (server, client) = sides();
    let twos = 1 + dice.below(3);
    let ends = (0..2 * twos).map(|_| End::default()).collect();
    let world = World { seed, is_tight: window < 1 << 20, ends, secured: 0 };
    let host = sim.host_with("10.0.0.1", world, config);
    for two in 0..twos {
        connect(&mut sim, host, two, over, &server, &client);
    }
    sim.run_for(REST);
    if over == Over::StartTls {
        start_tls(&mut sim, host, &server, &client);
    }
    for _ in 0..STEPS {
        let mut step = Dice(dice.roll());
        let id = step.below(2 * twos);
        sim.with(host, |net, world| act(id, &mut step, net, world));
        sim.run_for(REST);
    }
    if dice.one_in(2) {
        sim.with(host, |net, _| net.drain(REST / 2));
        sim.run_for(REST);
    }
    sim.shutdown(host);
    let world = sim.state(host);
    std::mem::take(&mut world.ends).into_iter().map(|end| end.told).collect()
}

fn connect(sim: &mut Sim, host: Host<World>, two: usize, over: Over, server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) {
    let at = format!("10.0.0.1:{}", 100 + two);
    let (listen, connect) = match over {
        Over::Tls => (Listen::new().tls(Arc::clone(server)), Connect::new().tls(client_of(client))),
        _ => (Listen::new(), Connect::new()),
    };
    sim.with(host, |net, world| {
        net.listen_with(&at, listen, move |_, _, _| Ok(Twin { id: 2 * two + 1 })).expect("nobody has it");
        world.ends[2 * two].key = Some(net.connect_with(&at, connect, Twin { id: 2 * two }));
    });
}

/// All at once: nobody has said anything yet.
fn start_tls(sim: &mut Sim, host: Host<World>, server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) {
    sim.with(host, |net, world| {
        for (id, end) in world.ends.iter().enumerate() {
            let mut link = end.key.and_then(|key| net.link(key)).expect("it is connected");
            let begins = if id % 2 == 0 { link.start_tls(client_of(client)) } else { link.start_tls(Arc::clone(server)) };
            assert!(begins, "{id} is at rest");
        }
    });
    sim.run_for(REST);
    let world = sim.state(host);
    assert_eq!(world.secured, world.ends.len(), "all are told that they are secured");
}

#[test]
fn what_is_told_over_tls_is_what_is_told_over_tcp() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (first, seeds) = (number("TWINS_FIRST").unwrap_or(0), number("TWINS_SEEDS").unwrap_or(PROGRAMS));
    let (mut calls, mut bytes) = (0, 0);
    for seed in first..first + seeds {
        let plain = play(seed, Over::Tcp);
        for over in [Over::Tls, Over::StartTls] {
            compare(seed, over, &plain, &play(seed, over));
        }
        let all = plain.iter().flatten();
        calls += all.clone().count();
        bytes +=
            all.map(|told| if let Told::Received(bytes) | Told::Frame(bytes) = told { bytes.len() } else { 0 }).sum::<usize>();
    }
    println!("{seeds} programs from {first} on: {calls} callbacks, {bytes} bytes");
}

/// Two things are said differently, as TLS has a word for the end where TCP has a FIN. In TCP, one that ends with something
/// unread is reset by the kernel; in TLS it has said its word before, and that comes first. And to one that is gone the word
/// is one word too many: it answers with a reset.
fn is_but_for_a_word(plain: &[Told], secured: &[Told], gone: Option<&Told>) -> bool {
    let ([of_plain @ .., Told::Closed(end)], [of_secured @ .., Told::Closed(secured_end)]) = (plain, secured) else {
        return false;
    };
    let is_lost = |end: &str| end.starts_with("connection lost: ");
    let behind = of_secured.strip_prefix(of_plain).map(|behind| behind.first());
    let is_unread = is_lost(end) && matches!(behind, Some(None | Some(Told::Eof(_))));
    let is_gone = matches!(gone, Some(Told::Closed(end)) if !["finished", "drained", "the peer finished"].contains(&&**end));
    is_unread || (is_gone && is_lost(secured_end) && plain.starts_with(of_secured))
}

fn compare(seed: u64, over: Over, plain: &[Vec<Told>], secured: &[Vec<Told>]) {
    for (id, (one, secured)) in plain.iter().zip(secured).enumerate() {
        let (plain, gone) = (one, plain[id ^ 1].last());
        if plain == secured || is_but_for_a_word(plain, secured, gone) {
            continue;
        }
        let at = plain.iter().zip(secured).take_while(|(one, other)| one == other).count();
        let shown = |told: &[Told]| {
            let shown = told.iter().skip(at.saturating_sub(2)).take(5).map(|told| match told {
                Told::Received(bytes) => format!("received {} bytes", bytes.len()),
                Told::Frame(bytes) => format!("frame of {} bytes", bytes.len()),
                other => format!("{other:?}"),
            });
            shown.collect::<Vec<_>>().join(", ")
        };
        panic!(
            "seed {seed}: {id} was told\n    {}\nand, {over:?},\n    {}\nfrom call {at} on\nto run it again:\n    \
             TWINS_FIRST={seed} TWINS_SEEDS=1 cargo test --features sim,tls --test model -- --nocapture told_over_tls",
            shown(plain),
            shown(secured)
        );
    }
}
