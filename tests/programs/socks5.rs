//! SOCKS5 proxy (RFC 1928, 1929): connect by name, back-pressure both ways, half-close both ways, error replies by stage.
use mainspring::*;
use std::str;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

#[derive(Default)]
pub struct Proxy {
    pub users: BTreeMap<String, String>,
    pub relayed: u64,
    pub open: usize,
    pub refused: u64,
}

pub struct Client {
    step: Step,
    upstream: Option<Key>,
}
enum Step {
    Greeting,
    Methods,
    AuthName,
    AuthSecretLen,
    Login { name: Vec<u8> },
    Head,
    Atyp(u8),
    NameLen,
    Name,
    Opening,
}
impl Default for Client {
    fn default() -> Self {
        Self { step: Step::Greeting, upstream: None }
    }
}

#[derive(Clone, Copy)]
#[repr(u8)]
enum Rep {
    Ok = 0,
    General = 1,
    NotAllowed = 2,
    NetUnreachable = 3,
    HostUnreachable = 4,
    Refused = 5,
    TtlExpired = 6,
    Command = 7,
    Atyp = 8,
}

fn reply(rep: Rep, bound: Option<SocketAddr>) -> Vec<u8> {
    let mut out = vec![5, rep as u8, 0];
    match bound.unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into()) {
        SocketAddr::V4(a) => {
            out.push(1);
            out.extend(a.ip().octets());
            out.extend(a.port().to_be_bytes())
        }
        SocketAddr::V6(a) => {
            out.push(4);
            out.extend(a.ip().octets());
            out.extend(a.port().to_be_bytes())
        }
    }
    out
}
fn blame(why: &Reason) -> Rep {
    match why {
        Reason::Resolve(_) => Rep::HostUnreachable,
        Reason::Connect(e) => match e.kind() {
            io::ErrorKind::ConnectionRefused => Rep::Refused,
            io::ErrorKind::NetworkUnreachable => Rep::NetUnreachable,
            io::ErrorKind::HostUnreachable => Rep::HostUnreachable,
            io::ErrorKind::TimedOut => Rep::TtlExpired,
            io::ErrorKind::PermissionDenied => Rep::NotAllowed,
            _ => Rep::General,
        },
        _ => Rep::General,
    }
}

impl Client {
    fn expect(&mut self, ctx: &mut Context<'_, Proxy>, step: Step, bytes: usize) -> Outcome {
        self.step = step;
        ctx.set_terminator(Terminator::exactly(bytes));
        Ok(())
    }
    fn refuse(&mut self, ctx: &mut Context<'_, Proxy>, proxy: &mut Proxy, rep: Rep) -> Outcome {
        proxy.refused += 1;
        ctx.send(reply(rep, None));
        ctx.close();
        Ok(())
    }
    fn open(&mut self, ctx: &mut Context<'_, Proxy>, to: impl Into<Target>) -> Outcome {
        self.step = Step::Opening;
        ctx.pause(); // what the client sends early stays where it is
        ctx.set_deadline(None);
        self.upstream =
            Some(ctx.net.connect_with(to, Connect::new().timeout(Duration::from_secs(20)), Upstream { client: ctx.key }));
        Ok(())
    }
}
impl Protocol<Proxy> for Client {
    fn connected(&mut self, ctx: &mut Context<'_, Proxy>, proxy: &mut Proxy) -> Outcome {
        proxy.open += 1;
        ctx.set_deadline(Duration::from_secs(10));
        self.expect(ctx, Step::Greeting, 2)
    }
    fn frame(&mut self, ctx: &mut Context<'_, Proxy>, proxy: &mut Proxy, b: &[u8]) -> Outcome {
        match std::mem::replace(&mut self.step, Step::Opening) {
            Step::Greeting if b[0] == 5 => self.expect(ctx, Step::Methods, b[1].into()),
            Step::Greeting => Err("not SOCKS5".into()),
            Step::Methods => {
                let wanted = if proxy.users.is_empty() { 0 } else { 2 };
                if !b.contains(&wanted) {
                    ctx.send([5, 0xff]);
                    ctx.close();
                    return Ok(());
                }
                ctx.send([5, wanted]);
                if wanted == 2 { self.expect(ctx, Step::AuthName, 2) } else { self.expect(ctx, Step::Head, 4) }
            }
            Step::AuthName => self.expect(ctx, Step::AuthSecretLen, usize::from(b[1]) + 1),
            Step::AuthSecretLen => {
                let (len, name) = b.split_last().ok_or("empty")?;
                self.expect(ctx, Step::Login { name: name.to_vec() }, (*len).into())
            }
            Step::Login { name } => {
                let good = str::from_utf8(&name).ok().and_then(|n| proxy.users.get(n)).is_some_and(|s| s.as_bytes() == b);
                ctx.send([1, u8::from(!good)]);
                if good {
                    self.expect(ctx, Step::Head, 4)
                } else {
                    ctx.close();
                    Ok(())
                }
            }
            Step::Head if b[1] != 1 => self.refuse(ctx, proxy, Rep::Command),
            Step::Head => match b[3] {
                1 => self.expect(ctx, Step::Atyp(1), 6),
                4 => self.expect(ctx, Step::Atyp(4), 18),
                3 => self.expect(ctx, Step::NameLen, 1),
                _ => self.refuse(ctx, proxy, Rep::Atyp),
            },
            Step::Atyp(kind) => {
                let (ip, port) = b.split_at(b.len() - 2);
                let ip: IpAddr = if kind == 1 { <[u8; 4]>::try_from(ip)?.into() } else { <[u8; 16]>::try_from(ip)?.into() };
                self.open(ctx, (ip, u16::from_be_bytes(port.try_into()?)))
            }
            Step::NameLen => self.expect(ctx, Step::Name, usize::from(b[0]) + 2),
            Step::Name => {
                let (name, port) = b.split_at(b.len() - 2);
                self.open(ctx, (str::from_utf8(name)?, u16::from_be_bytes(port.try_into()?)))
            }
            Step::Opening => unreachable!("paused"),
        }
    }
    fn closed(&mut self, ctx: &mut Context<'_, Proxy>, proxy: &mut Proxy, _: Reason) {
        proxy.open -= 1;
        if let Some(upstream) = self.upstream {
            ctx.net.abort(upstream);
        }
    }
}

/// The far side while it is being opened; then both become a `Relay`.
struct Upstream {
    client: Key,
}
impl Protocol<Proxy> for Upstream {
    fn connected(&mut self, ctx: &mut Context<'_, Proxy>, _: &mut Proxy) -> Outcome {
        let (me, client, bound) = (ctx.key, self.client, ctx.local().ip());
        // The reply must be in the client's queue before the first byte of the far side is: so `send` here (at once), not in the tell (later).
        ctx.net.send(client, reply(Rep::Ok, bound));
        ctx.net.tell(client, move |_: &mut Client, ctx, _| {
            ctx.upgrade(Relay { other: me, counted: true });
            Ok(())
        });
        ctx.upgrade(Relay { other: client, counted: false });
        Ok(())
    }
    fn closed(&mut self, ctx: &mut Context<'_, Proxy>, proxy: &mut Proxy, why: Reason) {
        proxy.refused += 1;
        ctx.net.send(self.client, reply(blame(&why), None));
        ctx.net.close(self.client);
    }
}

struct Relay {
    other: Key,
    counted: bool,
}
impl Protocol<Proxy> for Relay {
    fn connected(&mut self, ctx: &mut Context<'_, Proxy>, _: &mut Proxy) -> Outcome {
        ctx.set_terminator(Terminator::None);
        ctx.set_idle_timeout(Duration::from_secs(600));
        ctx.throttle(self.other);
        ctx.set_hold_back(false); // each direction waits for the other side's queue only
        ctx.resume();
        Ok(())
    }
    fn received(&mut self, ctx: &mut Context<'_, Proxy>, proxy: &mut Proxy, bytes: &[u8]) -> Outcome {
        proxy.relayed += bytes.len() as u64;
        ctx.net.send(self.other, bytes);
        Ok(())
    }
    /// Half-close travels; a stream whose two directions have ended closes itself.
    fn eof(&mut self, ctx: &mut Context<'_, Proxy>, _: &mut Proxy, _: &[u8]) -> Outcome {
        ctx.net.half_close(self.other);
        Ok(())
    }
    fn closed(&mut self, ctx: &mut Context<'_, Proxy>, proxy: &mut Proxy, why: Reason) {
        if self.counted {
            proxy.open -= 1;
        }
        if why.is_clean() {
            ctx.net.close(self.other);
        } else {
            ctx.net.abort(self.other);
        }
    }
}

pub fn serve(net: &mut Net<'_, Proxy>, at: &str) -> io::Result<Key> {
    net.listen_with(at, Listen::new().backlog(1024), |_, _, peer| match peer.ip() {
        Some(a) if a.ip().is_loopback() || private(a.ip()) => Ok(Client::default()),
        _ => Err(Refusal::silent()),
    })
}
fn private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(a) => a.is_private(),
        IpAddr::V6(a) => a == Ipv6Addr::LOCALHOST || a.is_unique_local(),
    }
}

#[allow(dead_code)]
fn main() -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    serve(&mut reactor.net(), "127.0.0.1:1080")?;
    reactor.run(&mut Proxy::default())
}
