//! A WebSocket client that comes back, in storms: each echo is heard once, in order, and a draining server answers what it began.

mod common;

use base64::{Engine, prelude::BASE64_STANDARD};
use common::{App, http};
use mainspring::{
    Context, Outcome, Protocol, Reason, Terminator,
    testing::{Weather, check},
};
use std::time::Duration;

#[derive(Default)]
struct Home {
    ends: u32,
    heard: u32,
    opened: u32,
}
type Ctx<'a> = Context<'a, Home>;

struct Hello;
impl Protocol<Home> for Hello {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Home) -> Outcome {
        let key = BASE64_STANDARD.encode([7; 16]);
        write!(
            ctx,
            "GET /index.html HTTP/1.1\r\nHost: a\r\n\r\nGET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        ctx.set_terminator(Terminator::delimiter(&b"\r\n\r\n"[..], 4000));
        ctx.set_deadline(Duration::from_secs(20));
        Ok(())
    }
    fn frame(&mut self, ctx: &mut Ctx<'_>, home: &mut Home, head: &[u8]) -> Outcome {
        if head.starts_with(b"HTTP/1.1 404") {
            return Ok(()); // its body begins the next frame
        }
        assert!(head.windows(12).any(|w| w == b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(head));
        home.opened += 1;
        ctx.upgrade(Talks { next: 0, due: 0 });
        Ok(())
    }
    fn closed(&mut self, ctx: &mut Ctx<'_>, home: &mut Home, why: Reason) {
        again(ctx, home, why);
    }
}

fn again(ctx: &mut Ctx<'_>, home: &mut Home, why: Reason) {
    assert!(!matches!(why, Reason::Failed(_) | Reason::Panicked(_)), "{why}");
    home.ends += 1;
    ctx.net.after(Duration::from_secs(1), |net, _| {
        net.connect("10.0.0.1:80", Hello);
    });
}

struct Talks {
    next: u32,
    due: u32,
}
impl Protocol<Home> for Talks {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Home) -> Outcome {
        ctx.set_terminator(Terminator::exactly(2));
        ctx.set_idle_timeout(Duration::from_secs(30));
        ctx.every(Duration::from_millis(200), |me: &mut Self, ctx, _| {
            let n = (me.next * 37 % 120) as u8;
            ctx.send([0x82, 0x80 | n, 9, 9, 9, 9]);
            ctx.send(vec![n ^ 9; n as usize]);
            me.next += 1;
            Ok(())
        });
        Ok(())
    }
    fn frame(&mut self, ctx: &mut Ctx<'_>, home: &mut Home, bytes: &[u8]) -> Outcome {
        let n = (self.due * 37 % 120) as u8;
        if bytes.len() == 2 && bytes[0] != n {
            match bytes[0] {
                0x89 => {
                    ctx.set_terminator(Terminator::exactly(3));
                    return Ok(());
                } // a ping: one byte, and the next header
                _ => assert_eq!(bytes, [0x82, n]),
            }
            if n > 0 {
                ctx.set_terminator(Terminator::exactly(n as usize));
                return Ok(());
            }
        }
        if bytes.len() == 3 && bytes[0] == b'?' {
            unreachable!("no silence in this test")
        }
        assert!(n == 0 || bytes.iter().all(|&b| b == n), "{bytes:?}");
        self.due += 1;
        home.heard += 1;
        ctx.set_terminator(Terminator::exactly(2));
        Ok(())
    }
    fn closed(&mut self, ctx: &mut Ctx<'_>, home: &mut Home, why: Reason) {
        again(ctx, home, why);
    }
}

#[test]
fn echoes_in_storms() {
    check(0..300, |sim| {
        let server = sim.host("10.0.0.1", App::default());
        sim.net(server).listen("10.0.0.1:80", http).unwrap();
        let homes = ["10.0.0.2", "10.0.0.3"].map(|ip| sim.host(ip, Home::default()));
        for home in homes {
            sim.net(home).connect("10.0.0.1:80", Hello);
        }
        sim.set_weather(Weather::rough()).run_for(Duration::from_secs(60));
        sim.set_weather(Weather::fair()).run_for(Duration::from_secs(60));
        for home in homes {
            let home = sim.state(home);
            assert!(home.heard > 200, "{} {} {}", home.heard, home.ends, home.opened);
        }
    });
}
