//! One run: the hosts, what is done step by step, and how it ends.

use super::{SECOND, adopting::Ends, shadow::Model};
use mainspring::testing::{Errno, Fate, Host, NameFate, Sim, Weather};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

/// One seed, and what came of it.
pub(super) struct Run {
    pub(super) broken: Option<String>,
    pub(super) journal: Vec<String>,
    pub(super) trace: String,
    pub(super) digest: u64,
    pub(super) figures: Figures,
}

impl Run {
    pub(super) fn of(seed: u64, is_traced: bool) -> Self {
        Self::with(seed, is_traced, std::env::var_os("MODEL_BEFORE").is_some())
    }

    /// Without what was thought of since.
    pub(super) fn as_before(seed: u64) -> Self {
        Self::with(seed, false, true)
    }

    fn with(seed: u64, is_traced: bool, as_before: bool) -> Self {
        let mut sim = Sim::new(seed);
        sim.keep_trace(is_traced);
        let shared = Rc::new(RefCell::new(Model::new(seed, is_traced, as_before, sim.losses())));
        let played = catch_unwind(AssertUnwindSafe(|| play(&mut sim, &shared)));
        let panicked = played.err().map(|payload| {
            let text = payload.downcast_ref::<String>().cloned();
            text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        });
        let mut model = shared.borrow_mut();
        let broken = model.story.broken.take().or(panicked.map(|text| format!("panicked: {text}")));
        Self {
            broken,
            journal: std::mem::take(&mut model.story.lines),
            trace: sim.trace(),
            digest: sim.digest(),
            figures: std::mem::take(&mut model.figures),
        }
    }

    pub(super) fn story(&self, lines: usize) -> String {
        let tail = |all: &[&str]| all[all.len().saturating_sub(lines)..].join("\n");
        let journal: Vec<&str> = self.journal.iter().map(String::as_str).collect();
        let trace: Vec<&str> = self.trace.lines().collect();
        format!("the network, at the end:\n{}\nthe model, at the end:\n{}", tail(&trace), tail(&journal))
    }
}

/// What a campaign is counted in.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) operations: u64,
    pub(super) callbacks: u64,
    pub(super) connections: u64,
    pub(super) bytes: u64,
    pub(super) frames: u64,
    pub(super) works: u64,
    pub(super) pieces: u64,
    pub(super) saves: u64,
    /// Bytes.
    pub(super) saved: u64,
    pub(super) sources: u64,
    pub(super) pairs: u64,
    /// Bytes.
    pub(super) passed_on: u64,
    /// Twos that were made to be adopted, and connections that were given back.
    pub(super) ends_made: u64,
    pub(super) detached: u64,
    /// Datagrams that were sent, that came, that came to nobody, and of which it was told.
    pub(super) packets: u64,
    pub(super) arrived: u64,
    pub(super) lost: u64,
    pub(super) failed: u64,
    /// Starts of TLS in mid-stream, and those that were agreed on.
    pub(super) starts: u64,
    pub(super) secured: u64,
    pub(super) ends: BTreeMap<&'static str, u64>,
}

impl Figures {
    pub(super) fn add(&mut self, more: &Self) {
        self.operations += more.operations;
        self.callbacks += more.callbacks;
        self.connections += more.connections;
        self.bytes += more.bytes;
        self.frames += more.frames;
        self.works += more.works;
        self.pieces += more.pieces;
        self.saves += more.saves;
        self.saved += more.saved;
        self.sources += more.sources;
        self.pairs += more.pairs;
        self.passed_on += more.passed_on;
        self.ends_made += more.ends_made;
        self.detached += more.detached;
        self.packets += more.packets;
        self.arrived += more.arrived;
        self.lost += more.lost;
        self.failed += more.failed;
        self.starts += more.starts;
        self.secured += more.secured;
        for (&name, count) in &more.ends {
            *self.ends.entry(name).or_default() += count;
        }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { operations, callbacks, connections, bytes, frames, works, .. } = self;
        let Self {
            pieces,
            saves,
            saved,
            sources,
            pairs,
            passed_on,
            ends_made,
            detached,
            packets,
            arrived,
            lost,
            failed,
            ends,
            ..
        } = self;
        write!(
            f,
            "{operations} operations, {callbacks} callbacks, {connections} connections, {bytes} bytes, {frames} frames, {works} offloads, {pieces} pieces, {saves} saves, {saved} saved, {sources} sources, {pairs} pairs, {passed_on} passed, {ends_made} pairs and pipes adopted, {detached} detached, {packets} datagrams, {arrived} came, {lost} lost, {failed} failed;"
        )?;
        if self.starts > 0 {
            write!(f, " {} starts of TLS, {} agreed on;", self.starts, self.secured)?;
        }
        ends.iter().try_for_each(|(name, count)| write!(f, " {name} {count}"))
    }
}

pub(super) type Shared = Rc<RefCell<Model>>;

/// The state of a host.
pub(super) struct Site {
    pub(super) host: usize,
    pub(super) model: Shared,
}

/// Kinds of names, each for every host: the dead addresses before the host's own, and what looking it up comes to.
pub(super) const NAMES: &[(&str, &[&str], Option<NameFate>)] = &[
    ("plain", &[], None),
    ("late", &["10.0.9.1"], None),
    ("third", &["10.0.9.2", "fd00::9", "10.0.9.3"], None),
    ("slow", &["10.0.9.1"], Some(NameFate::Slow(Duration::from_millis(700)))),
    ("silent", &[], Some(NameFate::Silent)),
    ("gone", &[], Some(NameFate::NotFound)),
    ("later", &[], Some(NameFate::TryAgain)),
];

/// Of an address in [`NAMES`], none of which is any host's.
pub(super) fn is_nobodys(address: IpAddr) -> bool {
    NAMES.iter().any(|(_, silent, _)| silent.contains(&&*address.to_string()))
}

/// Random things, then peace, then the end.
pub(super) fn play(sim: &mut Sim, shared: &Shared) {
    let hosts = seat(sim, shared);
    while shared.borrow().ops_left > 0 && !is_broken(shared) {
        step(sim, &hosts, shared);
    }
    if !is_broken(shared) {
        make_peace(sim, &hosts, shared);
    }
    if !is_broken(shared) {
        end(sim, &hosts, shared);
    }
}

pub(super) fn is_broken(shared: &Shared) -> bool {
    let story = &shared.borrow().story;
    story.broken.is_some() || story.gives_up
}

/// Two or three hosts, each with something to listen on, and a timer that keeps it running.
pub(super) fn seat(sim: &mut Sim, shared: &Shared) -> Vec<Host<Site>> {
    for (address, fate) in [("10.0.9.1:1", Fate::Silent), ("10.0.9.2:1", Fate::Refused), ("10.0.9.3:1", Fate::Unreachable)] {
        sim.set_fate(address, fate);
    }
    let mut hosts = Vec::new();
    let count = 2 + shared.borrow_mut().dice.below(2);
    for there in 1..=count {
        for (kind, before, fate) in NAMES {
            let own = format!("10.0.0.{there}");
            let addresses: Vec<&str> = before.iter().copied().chain([own.as_str()]).collect();
            sim.name(&format!("{kind}{there}.test"), &addresses).set_name_fate(&format!("{kind}{there}.test"), *fate);
        }
    }
    for id in 0..count {
        let config = shared.borrow_mut().add_host();
        let host = sim.host_with(&format!("10.0.0.{}", id + 1), Site { host: id, model: Rc::clone(shared) }, config);
        hosts.push(host);
        sim.with(host, |net, _| {
            let mut model = shared.borrow_mut();
            model.anchor(id, net);
            model.listen_at(id, net, 1);
            model.listen_at(id, net, 2);
            model.bind_some(id, net);
        });
    }
    let weather = shared.borrow_mut().weather();
    sim.set_weather(weather);
    hosts
}

pub(super) fn step(sim: &mut Sim, hosts: &[Host<Site>], shared: &Shared) {
    let (choice, id) = {
        let mut model = shared.borrow_mut();
        (model.dice.below(100), model.dice.below(hosts.len()))
    };
    match choice {
        0..60 => sim.with(hosts[id], |net, site| {
            let mut model = shared.borrow_mut();
            model.look_at_pairs(site.host, net);
            model.act(site.host, net);
        }),
        60..94 => {
            let time = shared.borrow_mut().pause();
            sim.run_for(time);
        }
        94..99 => fault(sim, hosts, shared),
        _ if shared.borrow_mut().dice.one_in(5) => shut_down(sim, hosts[id], id, shared),
        _ => {}
    }
    if shared.borrow_mut().is_to_be_blocked() {
        block(sim, hosts[id], shared);
    }
    let kind = shared.borrow_mut().some_ends(id);
    if let Some(kind) = kind {
        make_ends(sim, hosts[id], kind, shared);
    }
    let mut model = shared.borrow_mut();
    model.story.note(|| format!("-- {:?}", sim.now()));
}

/// What nobody has connected, for this host to adopt.
fn make_ends(sim: &mut Sim, host: Host<Site>, kind: Ends, shared: &Shared) {
    let ends = match kind {
        Ends::Pair => sim.pair(host),
        Ends::Pipe => sim.pipe(host),
        Ends::Pipes => sim.pipes(host),
    };
    sim.with(host, |net, site| {
        let mut model = shared.borrow_mut();
        model.look_at_pairs(site.host, net);
        model.take_ends(site.host, kind, ends, net);
    });
}

/// The kernel takes nothing of a host, and gives nothing, for a while.
fn block(sim: &mut Sim, host: Host<Site>, shared: &Shared) {
    {
        let mut model = shared.borrow_mut();
        model.had_faults = true;
        model.story.note(|| "nothing leaves for a while".to_owned());
    }
    sim.fail_operation(host, sim.operations(host), Errno::Again, true);
    sim.with(host, |net, site| {
        let mut model = shared.borrow_mut();
        model.look_at_pairs(site.host, net);
        for _ in 0..4 {
            model.act_with_datagrams(site.host, net);
        }
    });
    let time = shared.borrow_mut().pause_of_datagrams();
    sim.run_for(time);
    sim.fail_operation(host, u64::MAX, Errno::Again, false);
}

/// What happens to hosts and to the network between them.
pub(super) fn fault(sim: &mut Sim, hosts: &[Host<Site>], shared: &Shared) {
    let mut model = shared.borrow_mut();
    let id = model.dice.below(hosts.len());
    let (host, other) = (hosts[id], hosts[(id + 1) % hosts.len()]);
    match model.dice.below(10) {
        0 | 1 => {
            let weather = model.weather();
            sim.set_weather(weather);
        }
        2 => _ = sim.part(host, other),
        3 | 4 => _ = sim.join(host, other),
        5 => _ = sim.set_sockets_max(host, sim.sockets(host) + model.dice.below(3)),
        6 => _ = sim.set_sockets_max(host, usize::MAX),
        _ => {
            let number = sim.operations(host) + model.dice.below(20) as u64;
            let (errno, is_persistent) = (model.dice.pick(&ERRNOS), model.dice.one_in(20));
            sim.fail_operation(host, number, errno, is_persistent);
            (model.had_faults, model.datagrams.had_errors) = (true, true);
        }
    }
}

pub(super) const ERRNOS: [Errno; 10] = [
    Errno::Again,
    Errno::Interrupted,
    Errno::ConnectionReset,
    Errno::ConnectionAborted,
    Errno::BrokenPipe,
    Errno::NoBuffers,
    Errno::NoMemory,
    Errno::TimedOut,
    Errno::TooManyFiles,
    Errno::NotPermitted,
];

/// Everything of one host ends at once, and it goes on as an empty one.
pub(super) fn shut_down(sim: &mut Sim, host: Host<Site>, id: usize, shared: &Shared) {
    {
        let mut model = shared.borrow_mut();
        model.finish_lanes(id, false);
        model.begin_shutdown(id);
    }
    sim.shutdown(host);
    let sockets = sim.sockets(host);
    sim.with(host, |net, _| {
        let mut model = shared.borrow_mut();
        model.finish_shutdown(id, sockets);
        model.anchor(id, net);
        model.listen_at(id, net, 1);
        model.bind_some(id, net);
    });
}

/// The weather clears, nobody does anything more, everybody reads: what is owed must come.
pub(super) fn make_peace(sim: &mut Sim, hosts: &[Host<Site>], shared: &Shared) {
    let kernel = {
        let mut model = shared.borrow_mut();
        model.quiet.set(true);
        model.story.note(|| "peace".to_owned());
        model.kernel
    };
    sim.set_weather(Weather::fair().kernel(kernel));
    for (at, &host) in hosts.iter().enumerate() {
        sim.fail_operation(host, u64::MAX, Errno::Again, false).set_sockets_max(host, usize::MAX);
        for &other in &hosts[at + 1..] {
            sim.join(host, other);
        }
        sim.with(host, |net, site| shared.borrow_mut().pacify(site.host, net));
    }
    sim.run_for(100 * SECOND);
    if shared.borrow().datagrams.often > 0 {
        for &host in hosts {
            sim.with(host, |net, site| shared.borrow_mut().greet_all(site.host, net)); // what was under way has arrived
        }
        sim.run_for(SECOND);
    }
    for &host in hosts {
        sim.with(host, |net, site| shared.borrow_mut().look_at_pairs(site.host, net));
    }
    for &host in hosts {
        let has_stopped = sim.has_stopped(host);
        sim.with(host, |net, site| shared.borrow_mut().look_at_rest(site.host, net, has_stopped));
    }
}

/// All end, in one of three ways, and nothing is left.
pub(super) fn end(sim: &mut Sim, hosts: &[Host<Site>], shared: &Shared) {
    let way = shared.borrow_mut().dice.below(3);
    for &host in hosts {
        sim.with(host, |net, site| {
            let mut model = shared.borrow_mut();
            model.look_at_pairs(site.host, net);
            model.finish_lanes(site.host, way == 0);
            match way {
                0 => model.close_all(site.host, net),
                1 => model.drain(site.host, net, SECOND),
                _ => {}
            }
        });
    }
    sim.run_for(60 * SECOND);
    for (id, &host) in hosts.iter().enumerate() {
        if way < 2 {
            let (sockets, has_stopped) = (sim.sockets(host), sim.has_stopped(host));
            shared.borrow_mut().look_at_end(id, sockets, has_stopped);
        }
    }
    for (id, &host) in hosts.iter().enumerate() {
        shared.borrow_mut().finish_lanes(id, true);
        shared.borrow_mut().begin_shutdown(id);
        sim.shutdown(host);
        let sockets = sim.sockets(host);
        shared.borrow_mut().finish_shutdown(id, sockets);
    }
    // What had begun elsewhere comes to its end.
    for &host in hosts {
        sim.with(host, |net, site| shared.borrow_mut().anchor(site.host, net));
    }
    sim.run_for(SECOND);
    for &host in hosts {
        sim.shutdown(host);
    }
    shared.borrow_mut().look_back();
}
