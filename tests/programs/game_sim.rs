//! The game, as it is, on the simulated network: two players, whose datagrams are lost, doubled and overtaken, and whose
//! connections may be refused and broken off.

use super::game::{TICK, World, message, open};
use mainspring::{
    Address, Context, Datagram, Endian, Key, Net, Outcome, Protocol, Reason, Scope, Terminator, Width,
    testing::{Host, Sim, Weather, check},
};
use std::{cell::Cell, collections::BTreeSet, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

/// How long a player stays.
const PLAYS: Duration = Duration::from_secs(3);

#[derive(Default)]
struct Player {
    name: &'static str,
    token: Option<[u8; 8]>,
    udp: Option<Key>,
    seq: u32,
    ticks: Vec<u64>,
    /// Snapshots that came behind a newer one, or again.
    old: u32,
    closed: u32,
    udp_closed: u32,
}

impl Player {
    fn moves(&mut self, net: &mut Net<'_, Self>) {
        let (Some(token), Some(udp)) = (self.token, self.udp) else { return };
        self.seq += 1;
        let speed = [10.0_f32, 20.0].map(f32::to_be_bytes).concat();
        net.send(udp, [&token[..], &self.seq.to_be_bytes(), &speed].concat());
    }

    /// By the way that the server hears of, if it can.
    fn leaves(&mut self, net: &mut Net<'_, Self>, control: Key) {
        net.send(control, message(b'Q', b""));
        net.close(control);
    }
}

struct Client;

impl Protocol<Player> for Client {
    fn connected(&mut self, ctx: &mut Context<'_, Player>, player: &mut Player) -> Outcome {
        ctx.set_terminator(Terminator::prefixed(Width::U16, Endian::Big, 1024));
        ctx.send(message(b'H', player.name.as_bytes()));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Player>, player: &mut Player, frame: &[u8]) -> Outcome {
        if let [b'W', _, _, _, _, token @ ..] = frame {
            player.token = Some(token.try_into()?);
            player.udp = Some(ctx.net.bind_to("10.0.0.1:7777", Snapshots)?);
            ctx.every(TICK, |_: &mut Self, ctx, player| {
                player.moves(&mut ctx.net);
                Ok(())
            });
        }
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Player>, player: &mut Player, _: Reason) {
        player.closed += 1;
        if let Some(udp) = player.udp {
            ctx.net.close(udp);
        }
    }
}

struct Snapshots;

impl Datagram<Player> for Snapshots {
    fn received(&mut self, _: &mut Scope<'_, Player>, player: &mut Player, bytes: &[u8], from: &Address) -> Outcome {
        assert_eq!(from.to_string(), "10.0.0.1:7777", "a connected socket hears nobody else");
        let Some((tick, players)) = bytes.split_first_chunk() else { return Ok(()) }; // "ok"
        assert_eq!(players.len() % 12, 0, "a snapshot is whole");
        match u64::from_be_bytes(*tick) {
            tick if player.ticks.last().is_some_and(|&last| tick <= last) => player.old += 1,
            tick => player.ticks.push(tick),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Scope<'_, Player>, player: &mut Player, why: Reason) {
        assert!(why.is_clean(), "{why}");
        player.udp_closed += 1;
    }
}

/// Two players join, play and leave.
fn play(sim: &mut Sim) -> [Host<Player>; 2] {
    let server = sim.host("10.0.0.1", World::default());
    let udp = open(&mut sim.net(server)).expect("a free port");
    let clock = sim.net(server).every(TICK, move |net, world: &mut World| world.tick(net, udp));
    let players = [("10.0.0.2", "anna"), ("10.0.0.3", "bert")].map(|(ip, name)| {
        let player = sim.host(ip, Player { name, ..Player::default() });
        let control = sim.net(player).connect("10.0.0.1:7777", Client);
        sim.net(player).after(PLAYS, move |net, player: &mut Player| player.leaves(net, control));
        player
    });
    let has_ended = sim.run_until(100 * SECOND, |sim| {
        let have_left = players.iter().all(|&player| sim.state(player).closed == 1);
        have_left && sim.state(server).players.is_empty()
    });
    assert!(has_ended, "somebody never left");
    sim.net(server).cancel(clock);
    sim.run_for(10 * SECOND);
    for player in players {
        let state = sim.state(player);
        assert_eq!((state.closed, state.udp_closed), (1, u32::from(state.udp.is_some())), "one `closed` of each");
        assert!(state.ticks.is_sorted_by(|a, b| a < b), "ticks ascend: {:?}", state.ticks);
        assert_eq!(sim.sockets(player), 0);
    }
    players
}

#[test]
fn two_play_in_fair_weather_and_see_every_tick() {
    let mut sim = Sim::new(1);
    for player in play(&mut sim) {
        let state = sim.state(player);
        assert!(state.ticks.len() > 50 && state.old == 0, "{} ticks, {} old ones", state.ticks.len(), state.old);
        assert!(state.ticks.windows(2).all(|pair| pair[1] == pair[0] + 1), "none is missing: {:?}", state.ticks);
    }
}

#[test]
fn in_rough_weather_ticks_ascend_and_everybody_leaves() {
    let [played, old, missing] = [const { Cell::new(0) }; 3];
    check(0..1000, |sim| {
        sim.set_weather(Weather::rough());
        for player in play(sim) {
            let state = sim.state(player);
            let seen: BTreeSet<_> = state.ticks.iter().copied().collect();
            let span = seen.last().zip(seen.first()).map_or(0, |(last, first)| last - first + 1);
            played.set(played.get() + usize::from(!seen.is_empty()));
            old.set(old.get() + state.old as usize);
            missing.set(missing.get() + span as usize - seen.len());
        }
    });
    let figures = [&played, &old, &missing].map(Cell::get);
    assert!(figures[0] > 1000 && figures[1] > 1000 && figures[2] > 1000, "players, old ones and missing ones: {figures:?}");
}
