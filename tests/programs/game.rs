//! (e) A game server: 20 Hz tick, positions over UDP, control over TCP, one world.
use mainspring::*;
use std::str;
use std::{
    collections::{BTreeMap, HashMap},
    io,
    rc::Rc,
    time::{Duration, Instant},
};

pub const TICK: Duration = Duration::from_millis(50);
const WORLD_MAX: f32 = 1000.0;

#[derive(Default)]
pub struct World {
    pub players: BTreeMap<u32, Player>,
    by_token: HashMap<u64, u32>,
    by_key: BTreeMap<Key, u32>,
    next_id: u32,
    tick: u64,
    snapshot: Vec<u8>,
    late_max: Duration,
}
pub struct Player {
    name: String,
    control: Key,
    token: u64,
    at: [f32; 2],
    speed: [f32; 2],
    seq: u32,
    udp: Option<Address>,
    heard: Instant,
}

impl World {
    pub fn tick(&mut self, net: &mut Net<'_, World>, udp: Key) {
        self.tick += 1;
        let now = net.now();
        self.snapshot.clear();
        self.snapshot.extend(self.tick.to_be_bytes());
        for (id, p) in &mut self.players {
            for (at, speed) in p.at.iter_mut().zip(p.speed) {
                *at = (*at + speed * TICK.as_secs_f32()).clamp(0.0, WORLD_MAX);
            }
            self.snapshot.extend(id.to_be_bytes());
            for at in p.at {
                self.snapshot.extend(at.to_be_bytes())
            }
        }
        for p in self.players.values() {
            if let Some(to) = &p.udp {
                net.send_to(udp, to, &self.snapshot);
            } // lost if the queue is full: the next one is newer
            if p.udp.is_some() && now.duration_since(p.heard) > Duration::from_secs(10) {
                net.fail(p.control, "silent for 10 s");
            }
        }
    }
    /// One buffer for all: framed once, queued by reference.
    fn announce(&self, net: &mut Net<'_, World>, text: &str) {
        let framed: Rc<[u8]> = message(b'A', text.as_bytes()).into();
        for &key in self.by_key.keys() {
            let Some(mut link) = net.link(key) else { continue };
            if link.queued() > 32 << 10 {
                link.abort()
            } else {
                link.send_shared(&framed);
            } // a slow reader is put out
        }
    }
}
/// `Terminator::prefixed` reads this; there is nothing that writes it.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len() + 1).expect("messages are short");
    let mut out = Vec::with_capacity(body.len() + 3);
    out.extend(len.to_be_bytes());
    out.push(kind);
    out.extend(body);
    out
}

/// TCP: u16 length, a kind, a body. H name → W id token; T text → A text to all; Q.
struct Control;
impl Protocol<World> for Control {
    fn connected(&mut self, ctx: &mut Context<'_, World>, _: &mut World) -> Outcome {
        ctx.set_terminator(Terminator::prefixed(Width::U16, Endian::Big, 1024));
        ctx.set_deadline(Duration::from_secs(5)); // to say who you are
        Ok(())
    }
    fn frame(&mut self, ctx: &mut Context<'_, World>, world: &mut World, frame: &[u8]) -> Outcome {
        let (kind, body) = frame.split_first().ok_or("empty message")?;
        let me = world.by_key.get(&ctx.key).copied();
        match (kind, me) {
            (b'H', None) => {
                let name = str::from_utf8(body)?;
                world.next_id += 1;
                let (id, token) = (world.next_id, token());
                world.players.insert(
                    id,
                    Player {
                        name: name.into(),
                        control: ctx.key,
                        token,
                        at: [0.0; 2],
                        speed: [0.0; 2],
                        seq: 0,
                        udp: None,
                        heard: ctx.net.now(),
                    },
                );
                world.by_token.insert(token, id);
                world.by_key.insert(ctx.key, id);
                ctx.send(message(b'W', &[&id.to_be_bytes()[..], &token.to_be_bytes()].concat()));
                ctx.set_deadline(None);
                world.announce(&mut ctx.net, &format!("{name} is here"));
            }
            (b'T', Some(id)) => world.announce(&mut ctx.net, &format!("{}: {}", world.players[&id].name, str::from_utf8(body)?)),
            (b'Q', _) => ctx.close(),
            _ => return Err("not now".into()),
        }
        Ok(())
    }
    fn closed(&mut self, ctx: &mut Context<'_, World>, world: &mut World, why: Reason) {
        let Some(id) = world.by_key.remove(&ctx.key) else { return };
        let Some(player) = world.players.remove(&id) else { return };
        world.by_token.remove(&player.token);
        world.announce(&mut ctx.net, &format!("{} left: {why}", player.name));
    }
}
fn token() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

/// UDP: token u64, sequence u32, speed 2 × f32.
struct Positions;
impl Datagram<World> for Positions {
    fn received(&mut self, ctx: &mut Scope<'_, World>, world: &mut World, b: &[u8], from: &Address) -> Outcome {
        let Ok(b) = <&[u8; 20]>::try_from(b) else { return Ok(()) }; // an Err would be logged for each stray packet
        let (token, seq) = (u64::from_be_bytes(b[..8].try_into()?), u32::from_be_bytes(b[8..12].try_into()?));
        let Some(player) = world.by_token.get(&token).and_then(|id| world.players.get_mut(id)) else { return Ok(()) };
        if seq <= player.seq {
            return Ok(());
        }
        player.seq = seq;
        player.speed = [f32::from_be_bytes(b[12..16].try_into()?), f32::from_be_bytes(b[16..].try_into()?)]
            .map(|v| if v.is_finite() { v.clamp(-50.0, 50.0) } else { 0.0 });
        player.heard = ctx.net.now();
        if player.udp.as_ref() != Some(from) {
            player.udp = Some(from.clone());
            ctx.net.send_to(ctx.key, from, b"ok");
        }
        Ok(())
    }
}

pub fn open(net: &mut Net<'_, World>) -> io::Result<Key> {
    net.listen("0.0.0.0:7777", || Control)?;
    net.bind("0.0.0.0:7777", Positions)
}
/// The loop owns the time …
fn main_by_timer() -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    let udp = open(&mut reactor.net())?;
    reactor.net().every(TICK, move |net, world: &mut World| world.tick(net, udp));
    reactor.run(&mut World::default())
}
/// … or the game does.
fn main() -> io::Result<()> {
    let (mut reactor, mut world) = (Reactor::new()?, World::default());
    let udp = open(&mut reactor.net())?;
    let mut next = Instant::now();
    loop {
        let now = Instant::now();
        if now < next {
            reactor.turn(&mut world, next - now)?;
            continue;
        }
        world.late_max = world.late_max.max(now - next);
        world.tick(&mut reactor.net(), udp); // queued here; must go out before the next turn sleeps
        next += TICK;
    }
}
