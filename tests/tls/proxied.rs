//! TLS behind the header of a proxy.

use crate::configs::sides;
use mainspring::{Address, Connect, Context, Key, Listen, Outcome, Protocol, Reactor, Reason, Terminator, TlsServer};
use std::time::Duration;

type Log = Vec<String>;

/// What a proxy says first, in clear.
struct Header(TlsServer);

impl Protocol<Log> for Header {
    fn connected(&mut self, ctx: &mut Context<'_, Log>, _: &mut Log) -> Outcome {
        ctx.set_terminator(Terminator::line(105));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Log>, _: &mut Log, _: &[u8]) -> Outcome {
        ctx.start_tls(&self.0, Greeter);
        Ok(())
    }
}

struct Greeter;

impl Protocol<Log> for Greeter {
    fn connected(&mut self, ctx: &mut Context<'_, Log>, _: &mut Log) -> Outcome {
        ctx.send("hello");
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Log>, log: &mut Log, why: Reason) {
        log.push(format!("the server: {why}"));
        ctx.net.stop();
    }
}

/// A proxy's way to the server; what comes back goes to the client.
struct Back(Key);

impl Protocol<Log> for Back {
    fn received(&mut self, ctx: &mut Context<'_, Log>, _: &mut Log, bytes: &[u8]) -> Outcome {
        ctx.net.send(self.0, bytes);
        Ok(())
    }
}

struct Client;

impl Protocol<Log> for Client {
    fn received(&mut self, ctx: &mut Context<'_, Log>, log: &mut Log, bytes: &[u8]) -> Outcome {
        log.push(format!("the client heard {}", String::from_utf8_lossy(bytes)));
        ctx.net.stop();
        Ok(())
    }
}

/// The proxy: its header, and what the client says first, are one write.
struct Proxy {
    server: Address,
    there: Option<Key>,
}

impl Protocol<Log> for Proxy {
    fn received(&mut self, ctx: &mut Context<'_, Log>, _: &mut Log, bytes: &[u8]) -> Outcome {
        match self.there {
            Some(there) => _ = ctx.net.send(there, bytes),
            None => {
                let there = ctx.net.connect(&self.server, Back(ctx.key));
                ctx.net.send(there, [b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n", bytes].concat());
                self.there = Some(there);
            }
        }
        Ok(())
    }
}

#[test]
fn a_hello_in_one_packet_with_the_header_is_answered() {
    let (server, client) = sides();
    let mut reactor = Reactor::new().expect("a reactor");
    let mut net = reactor.net();
    let options = Listen::new().behind_proxy();
    let behind = net.listen_with("127.0.0.1:0", options, move |_, _, _| Ok(Header(server.clone().into()))).expect("a port");
    let server = net.local(behind).expect("it listens").clone();
    let proxy = net.listen("127.0.0.1:0", move || Proxy { server: server.clone(), there: None }).expect("a port");
    let at = net.local(proxy).expect("it listens").clone();
    net.connect_with(&at, Connect::new().tls(client), Client);
    net.after(Duration::from_secs(20), |net, _| net.stop());
    let mut log = Log::new();
    reactor.run(&mut log).expect("it runs");
    assert_eq!(log, ["the client heard hello"]);
}
