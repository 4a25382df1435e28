//! Asks, waits, and counts.

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

/// As many bytes as other pings send: 64 with the head of ICMP.
const DATA_BYTES: usize = 56;

/// What the user asked for.
pub(crate) struct Asked {
    pub(crate) host: String,
    /// `None`: either.
    pub(crate) version: Option<Version>,
    /// `None`: without end.
    pub(crate) count: Option<u64>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

/// The state of the program; each callback borrows it.
struct Pinging {
    asked: Asked,
    /// `None` while its address is being looked up.
    host: Option<Host>,
    /// The questions that may still be answered: when each was sent, and when its time ends.
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

    /// The first address that can be reached.
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
        // The beginning is random, so that only a host that got the question can answer it.
        let mut data: Vec<u8> = (0..DATA_BYTES as u8).collect();
        data[..8].copy_from_slice(&net.random().to_ne_bytes());
        let id = net.random() as u16;
        self.host = Some(Host { socket, kind, version: Version::of(at.ip()), address: at.into(), id, data });
        print(format_args!("asking {} at {}, {DATA_BYTES} bytes of data", self.asked.host, shown(at)))
    }

    fn ask(&mut self, net: &mut Net<'_, Self>) {
        let Some(host) = &self.host else { return };
        self.sent += 1;
        let sequence = self.sent as u16; // it wraps around, long after the time of the first is over
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

    /// Anything may come: a raw socket gets everything that the host sends by ICMP.
    fn answered(&mut self, net: &mut Net<'_, Self>, bytes: &[u8]) -> Result<(), Failure> {
        let Some(host) = &self.host else { return Ok(()) };
        let Some(echo) = Echo::of_reply(host.version, bytes) else { return Ok(()) };
        if echo.data != host.data || (host.kind == Kind::Raw && echo.id != host.id) {
            return Ok(()); // the answer to another program's question
        }
        // If we do not wait for this answer, it comes twice or too late.
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

    /// Prints the counts, after Ctrl-C too.
    fn sum_up(self) -> Result<(), Failure> {
        self.ending?;
        if self.host.is_none() {
            return Ok(()); // interrupted during the lookup
        }
        let (sent, Trips { count, least, most, .. }) = (self.sent, &self.trips);
        // Questions that are still under way are neither answered nor lost.
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

    /// This question is lost, but the next one may not be.
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

/// A name has no zone, and a literal address (`fe80::1%eth0`) has lost its own: ask the system for the number of that interface
/// again, and nothing that needs the network.
fn with_zone(host: &str, ip: IpAddr) -> SocketAddr {
    let zoned = if host.contains('%') { (host, 0).to_socket_addrs().ok().and_then(|mut all| all.next()) } else { None };
    zoned.unwrap_or(SocketAddr::new(ip.to_canonical(), 0))
}

/// Without the port, which means nothing here.
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
