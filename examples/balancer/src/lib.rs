//! A load balancer for TCP: [`Front`] is a client's connection, and there is another one to the backend that was chosen for it.
//! When that is connected the two are a pair, and the loop passes on what either says, its end and its reset.

use mainspring::{Address, Connect, Context, Key, Net, Outcome, Protocol, Reason, Target, TlsServer};
use proxy_header::{Error, ParseConfig, ProxiedAddress, ProxyHeader};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

type Ctx<'a> = Context<'a, Balancer>;
type Encode = fn(&ProxyHeader<'static>, &mut Vec<u8>) -> Result<(), Error>;

/// Those that were tried are bits of a number.
pub const BACKENDS_MAX: usize = u64::BITS as usize;

/// Of the PROXY protocol. Addresses take 232 bytes at most; what else stands in front is not read.
const HEADER_BYTES_MAX: usize = 4096;

/// So many checks or connects well, one after the other, and a backend is up.
const RISE: u32 = 2;

/// So many failed, and it is down.
const FALL: u32 = 3;

/// No descriptor is left to this process, or to the whole system (there Winsock has no number of its own).
const NO_DESCRIPTOR: [i32; 2] = if cfg!(windows) { [10024, 10024] } else { [24, 23] };

/// That we lack something is said so often at most.
const LACK_PERIOD: Duration = Duration::from_secs(60);

/// A server that connections are given to.
pub struct Backend {
    pub target: Target,
    pub is_up: bool,
    /// Checks and connects, one after the other, that went otherwise than `is_up` says.
    contrary: u32,
    /// Connections that it has, and that are on their way.
    pub active: usize,
    pub served: u64,
}

/// What the program has one of.
#[derive(Default)]
pub struct Balancer {
    pub backends: Vec<Backend>,
    /// A backend is told who comes, by one version of the PROXY protocol or the other.
    pub proxy: Option<Encode>,
    /// Of clients that come by a proxy: it speaks in clear first.
    pub tls: Option<TlsServer>,
    pub per_backend_max: usize,
    /// For one backend. How long a client may be without any is its listener's deadline.
    pub connect_max: Duration,
    /// How long a backend may take nothing. For both ends it is the idle time-out of the listener.
    pub idle: Duration,
    /// Where the search among equals begins.
    turn: usize,
    /// Clients without a backend, the next one first, and a bit for each backend that could not be connected to.
    queue: VecDeque<(Key, u64)>,
    /// When it was said last that we lack something.
    lack_said: Option<Instant>,
}

impl Balancer {
    pub fn new(backends: impl IntoIterator<Item = Target>) -> Self {
        let backend = |target| Backend { target, is_up: true, contrary: 0, active: 0, served: 0 };
        Self {
            backends: backends.into_iter().take(BACKENDS_MAX).map(backend).collect(),
            per_backend_max: usize::MAX,
            connect_max: Duration::from_secs(2),
            idle: Duration::from_secs(300),
            ..Self::default()
        }
    }

    /// Asks each backend whether it can be reached: to be called now and then.
    pub fn check(net: &mut Net<'_, Self>, balancer: &mut Self) {
        let n = if net.is_draining() { 0 } else { balancer.backends.len() };
        (0..n).for_each(|i| _ = balancer.connect(net, i, None));
    }

    fn connect(&mut self, net: &mut Net<'_, Self>, i: usize, client: Option<(Key, u64)>) -> Key {
        let options = Connect::new().timeout(self.connect_max);
        let options = client.map_or(options.clone(), |(client, _)| options.owner(client));
        net.connect_with(&self.backends[i].target, options, Back { i, client })
    }

    fn judge(&mut self, net: &mut Net<'_, Self>, i: usize, is_good: bool) {
        let backend = &mut self.backends[i];
        backend.contrary = if is_good == backend.is_up { 0 } else { backend.contrary + 1 };
        if backend.contrary >= if is_good { RISE } else { FALL } {
            (backend.is_up, backend.contrary) = (is_good, 0);
            log::warn!("{} is {}", backend.target, if is_good { "up" } else { "down" });
        }
        self.serve(net);
    }

    fn say_lack(&mut self, now: Instant, why: &Reason) {
        if self.lack_said.is_none_or(|said| now - said >= LACK_PERIOD) {
            self.lack_said = Some(now);
            log::warn!("no backend is to blame for this: {why}");
        }
    }

    /// Gives those who wait to backends, as far as there is room: each to the least busy one of those that are up and were not
    /// tried; if there is none, to one that is said to be down.
    fn serve(&mut self, net: &mut Net<'_, Self>) {
        let mut next = 0;
        while let Some(&(client, tried)) = self.queue.get(next) {
            next += 1;
            let (n, turn, backends) = (self.backends.len(), self.turn, &self.backends);
            let untried = (0..n).map(|i| (i + turn) % n).filter(|i| tried & 1 << i == 0);
            match untried.min_by_key(|&i| (!backends[i].is_up, backends[i].active)) {
                Some(i) if backends[i].active >= self.per_backend_max && tried == 0 => return, // nor do those behind it find room
                Some(i) if backends[i].active >= self.per_backend_max => {}
                Some(i) => {
                    next -= 1;
                    self.queue.remove(next);
                    self.turn = i + 1;
                    self.backends[i].active += 1;
                    let back = self.connect(net, i, Some((client, tried | 1 << i)));
                    if let Some(encode) = self.proxy {
                        net.send(back, header(encode, net.peer(client), net.local(client)));
                    }
                }
                None => _ = net.abort(client), // it leaves the queue when it is closed
            }
        }
    }
}

/// What a backend is told in front: who comes, unless that is no address.
fn header(encode: Encode, peer: Option<&Address>, local: Option<&Address>) -> Vec<u8> {
    let ends = peer.and_then(Address::ip).zip(local.and_then(Address::ip));
    let ends = ends.filter(|(peer, local)| peer.is_ipv4() == local.is_ipv4());
    let stream = ends.map(|(peer, local)| ProxyHeader::with_address(ProxiedAddress::stream(peer, local)));
    let mut bytes = Vec::new();
    encode(&stream.unwrap_or_else(ProxyHeader::with_local), &mut bytes).expect("addresses of one family, and no more");
    bytes
}

/// A client.
pub struct Front;

impl Protocol<Balancer> for Front {
    fn connected(&mut self, ctx: &mut Ctx<'_>, balancer: &mut Balancer) -> Outcome {
        ctx.pause(); // what it says must not be lost with a backend that is not there
        balancer.queue.push_back((ctx.key, 0));
        balancer.serve(&mut ctx.net);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, balancer: &mut Balancer, _: Reason) {
        balancer.queue.retain(|&(client, _)| client != ctx.key);
    }
}

/// A connection to a backend: for a client, or to see whether it can be reached.
struct Back {
    i: usize,
    client: Option<(Key, u64)>,
}

impl Protocol<Balancer> for Back {
    fn connected(&mut self, ctx: &mut Ctx<'_>, balancer: &mut Balancer) -> Outcome {
        if let Some((client, _)) = self.client {
            ctx.set_stall_timeout(balancer.idle);
            ctx.net.pair(client, ctx.key);
            if let Some(mut client) = ctx.net.link(client) {
                client.set_deadline(None);
                client.resume();
            }
            balancer.backends[self.i].served += 1;
        } else {
            ctx.abort();
        }
        balancer.judge(&mut ctx.net, self.i, true);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, balancer: &mut Balancer, why: Reason) {
        balancer.backends[self.i].active -= usize::from(self.client.is_some());
        if why.is_connect() {
            let no_descriptor = is_all(&why, |error| error.raw_os_error().is_some_and(|errno| NO_DESCRIPTOR.contains(&errno)));
            match self.client {
                Some((client, _)) if no_descriptor => _ = ctx.net.abort(client),
                Some(client) => balancer.queue.push_front(client), // to another backend a port may be free
                None => {}
            }
            if no_descriptor || is_all(&why, |error| error.kind() == ErrorKind::AddrNotAvailable) {
                balancer.say_lack(ctx.net.now(), &why); // it is we who lack something, and no backend is to blame
            } else {
                balancer.judge(&mut ctx.net, self.i, false);
            }
        }
        balancer.serve(&mut ctx.net);
    }
}

/// Whether a connect failed by this alone.
fn is_all(why: &Reason, is: impl Fn(&io::Error) -> bool) -> bool {
    match why {
        Reason::Resolve(error) => is(error),
        Reason::Connect(error) => !error.tried().is_empty() && error.tried().iter().all(|(_, error)| is(error)),
        _ => false,
    }
}

/// A proxy, which says first for whom it comes, in either version of the PROXY protocol, and is a [`Front`] then.
#[derive(Default)]
pub struct Proxied(Vec<u8>);

impl Protocol<Balancer> for Proxied {
    fn received(&mut self, ctx: &mut Ctx<'_>, balancer: &mut Balancer, bytes: &[u8]) -> Outcome {
        self.0.extend_from_slice(bytes);
        match ProxyHeader::parse(&self.0, ParseConfig::default()) {
            Err(error) if error != Error::BufferTooShort || self.0.len() >= HEADER_BYTES_MAX => ctx.abort(),
            Ok((header, length)) if header.proxied_address().is_none_or(|ends| ctx.link().set_peer(ends.source)) => {
                ctx.put_back(self.0.len() - length);
                match balancer.tls.clone() {
                    Some(tls) => ctx.start_tls(tls, Front),
                    None => ctx.upgrade(Front),
                }
            }
            _ => {} // more is to come, or there are too many of this address
        }
        Ok(())
    }
}
