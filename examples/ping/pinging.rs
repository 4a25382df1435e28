//! Asks, waits, counts.

use crate::{
    common::{Failure, complain, is_misused, misused, print, stop_on_interrupt},
    icmp::{Echo, Version},
    socket::{Kind, open},
};
use mainspring::{Address, Bind, Datagram, Key, Net, Outcome, Reactor, Reason, Scope, Timer};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    time::{Duration, Instant},
};

/// As many bytes as everybody sends: 64 with the head of ICMP.
const DATA_BYTES: usize = 56;

/// What was asked for.
pub(crate) struct Asked {
    pub(crate) host: String,
    /// Nothing: any.
    pub(crate) version: Option<Version>,
    /// Nothing: without end.
    pub(crate) count: Option<u64>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

/// What the program has one of; every callback is lent it.
struct Pinging {
    asked: Asked,
    /// Nothing: its address is still looked for.
    host: Option<Host>,
    /// The questions that may still be answered: when each left, and the end of its time.
    under_way: BTreeMap<u16, (Instant, Timer)>,
    every: Option<Timer>,
    sent: u64,
    trips: Trips,
    ending: Result<(), Failure>,
}

struct Host {
    socket: Key,
    kind: Kind,
    version: Version,
    address: Address,
    id: u16,
    data: Vec<u8>,
}

/// How long the answers took.
#[derive(Default)]
struct Trips {
    count: u64,
    least: Duration,
    most: Duration,
    sum: Duration,
}

impl Trips {
    fn add(&mut self, trip: Duration) {
        self.least = if self.count == 0 { trip } else { self.least.min(trip) };
        self.most = self.most.max(trip);
        self.sum += trip;
        self.count += 1;
    }

    fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.sum.as_secs_f64() / self.count.max(1) as f64)
    }
}

impl Pinging {
    fn find(&mut self, net: &mut Net<'_, Self>) {
        let host = self.asked.host.clone();
        net.resolve(&host, |net, pinging, found| {
            if let Err(why) = pinging.begin(net, found) {
                pinging.end(net, Err(why));
            }
        });
    }

    fn begin(&mut self, net: &mut Net<'_, Self>, found: io::Result<Vec<IpAddr>>) -> Result<(), Failure> {
        let found = found.map_err(|error| if is_misused(&error) { misused(error) } else { error.into() })?;
        self.open_one(net, found)?;
        self.ask(net);
        if self.sent_all() {
            return Ok(());
        }
        let interval = self.asked.interval;
        self.every = Some(net.every(interval, |net, pinging: &mut Self| pinging.ask(net)));
        Ok(())
    }

    /// The first one to which there is a way.
    fn open_one(&mut self, net: &mut Net<'_, Self>, found: Vec<IpAddr>) -> Result<(), Failure> {
        let name = self.asked.host.clone();
        let mut outcome = Err(format!("`{name}` has no address of the version of IP that is asked for").into());
        let wanted = self.asked.version;
        for ip in found.into_iter().filter(|ip| wanted.is_none_or(|wanted| wanted == Version::of(ip.to_canonical()))) {
            outcome = self.open(net, with_zone(&name, ip));
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    fn open(&mut self, net: &mut Net<'_, Self>, at: SocketAddr) -> Result<(), Failure> {
        if matches!(at, SocketAddr::V6(at) if at.ip().is_unicast_link_local() && at.scope_id() == 0) {
            return Err(misused(format!("{} is an address of one link: write which, as in {0}%eth0", at.ip())));
        }
        let (socket, kind) = open(at)?;
        let socket = net.bind_on(socket, Bind::new(), Echoes)?;
        // The beginning is by chance, so that only who has got a question can answer it.
        let mut data: Vec<u8> = (0..DATA_BYTES as u8).collect();
        data[..8].copy_from_slice(&net.random().to_ne_bytes());
        let id = net.random() as u16;
        self.host = Some(Host { socket, kind, version: Version::of(at.ip()), address: at.into(), id, data });
        print(format_args!("asking {} at {}, {DATA_BYTES} bytes of data", self.asked.host, shown(at)))
    }

    fn ask(&mut self, net: &mut Net<'_, Self>) {
        let Some(host) = &self.host else { return };
        self.sent += 1;
        let sequence = self.sent as u16; // comes round, long after its time is over
        let question = Echo { id: host.id, sequence, data: &host.data }.request(host.version);
        let now = net.now();
        net.send_to(host.socket, &host.address, &question);
        let overdue = net.after(self.asked.timeout, move |net, pinging: &mut Self| pinging.overdue(net, sequence));
        self.under_way.insert(sequence, (now, overdue));
        if self.sent_all() {
            self.every.take().map(|timer| net.cancel(timer));
        }
    }

    fn sent_all(&self) -> bool {
        self.asked.count == Some(self.sent)
    }

    fn overdue(&mut self, net: &mut Net<'_, Self>, sequence: u16) {
        self.under_way.remove(&sequence);
        let seconds = self.asked.timeout.as_secs_f64();
        match print(format_args!("no answer to {sequence} in {seconds} seconds")) {
            Ok(()) => self.end_if_done(net),
            Err(why) => self.end(net, Err(why)),
        }
    }

    /// What came may be anything: of a raw socket all that the host sends by ICMP.
    fn answered(&mut self, net: &mut Net<'_, Self>, bytes: &[u8]) -> Result<(), Failure> {
        let Some(host) = &self.host else { return Ok(()) };
        let Some(echo) = Echo::of_reply(host.version, bytes) else { return Ok(()) };
        if echo.data != host.data || (host.kind == Kind::Raw && echo.id != host.id) {
            return Ok(()); // the answer to somebody else's question
        }
        // Who is not waited for any more has been answered before, or is too late.
        let Some((sent, overdue)) = self.under_way.remove(&echo.sequence) else { return Ok(()) };
        net.cancel(overdue);
        let trip = net.now() - sent;
        self.trips.add(trip);
        print(format_args!("{} bytes, answer to {}: {} ms", echo.data.len(), echo.sequence, milliseconds(trip)))?;
        self.end_if_done(net);
        Ok(())
    }

    fn end_if_done(&mut self, net: &mut Net<'_, Self>) {
        if self.sent_all() && self.under_way.is_empty() {
            net.stop();
        }
    }

    fn end(&mut self, net: &mut Net<'_, Self>, ending: Result<(), Failure>) {
        self.ending = ending;
        net.stop();
    }

    /// Also after Ctrl-C.
    fn sum_up(self) -> Result<(), Failure> {
        self.ending?;
        if self.host.is_none() {
            return Ok(()); // interrupted while it was looked for
        }
        let (sent, Trips { count, least, most, .. }) = (self.sent, &self.trips);
        // What is still under way is neither answered nor lost.
        let over = sent - self.under_way.len() as u64;
        let lost = ((over - count) * 100).checked_div(over).unwrap_or(0);
        print(format_args!("{sent} asked, {count} answered, {lost}% lost"))?;
        if over == 0 {
            return Ok(());
        }
        if *count == 0 {
            return Err(format!("{} has not answered", self.asked.host).into());
        }
        let [least, mean, most] = [*least, self.trips.mean(), *most].map(milliseconds);
        print(format_args!("least {least} ms, mean {mean} ms, most {most} ms"))
    }
}

struct Echoes;

impl Datagram<Pinging> for Echoes {
    fn received(&mut self, scope: &mut Scope<'_, Pinging>, pinging: &mut Pinging, bytes: &[u8], _: &Address) -> Outcome {
        pinging.answered(&mut scope.net, bytes)
    }

    /// The question is lost, and the next one may not be.
    fn failed(&mut self, _: &mut Scope<'_, Pinging>, pinging: &mut Pinging, _: &Address, error: io::Error) -> Outcome {
        complain(format_args!("{}: {error}", pinging.asked.host));
        Ok(())
    }

    fn closed(&mut self, scope: &mut Scope<'_, Pinging>, pinging: &mut Pinging, why: Reason) {
        match why {
            Reason::Failed(fault) => pinging.end(&mut scope.net, Err(fault)),
            why if !why.is_clean() => pinging.end(&mut scope.net, Err(why.to_string().into())),
            _ => {}
        }
    }
}

/// A name has no zone, and a literal one (`fe80::1%eth0`) has lost its own; the system, which numbers its interfaces, is asked
/// for that again, and for nothing that the network would know.
fn with_zone(host: &str, ip: IpAddr) -> SocketAddr {
    let zoned = if host.contains('%') { (host, 0).to_socket_addrs().ok().and_then(|mut all| all.next()) } else { None };
    zoned.unwrap_or(SocketAddr::new(ip.to_canonical(), 0))
}

/// Without its port, which is none.
fn shown(at: SocketAddr) -> String {
    match at {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        _ => at.ip().to_string(),
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1000.0)
}

pub(crate) fn ping(asked: Asked) -> Result<(), Failure> {
    let mut reactor = Reactor::new()?;
    stop_on_interrupt(&reactor)?;
    let (under_way, trips) = (BTreeMap::new(), Trips::default());
    let mut pinging = Pinging { asked, host: None, under_way, every: None, sent: 0, trips, ending: Ok(()) };
    pinging.find(&mut reactor.net());
    reactor.run(&mut pinging)?;
    pinging.sum_up()
}
