//! Uploads and downloads in bad weather, in clear and in TLS: what was confirmed is on the disk, what has its name is whole, and
//! nobody is forgotten.

mod common;
#[path = "../../../tests/common/tls.rs"]
mod tls;

use common::{Folder, settings};
use ftp_server::{Control, Ftp};
use mainspring::{
    Connect, Context, Key, Outcome, Protocol, Reason, Terminator, TlsClient,
    rustls::ServerConfig,
    testing::{Weather, check},
};
use std::{fs, time::Duration};

const S: Duration = Duration::from_secs(1);

/// Who calls.
struct Home {
    tls: Option<TlsClient>,
    stop: bool,
    next: u64,
    stored: Vec<u64>,
    fetched: u32,
    failed: u32,
}

/// A session: a file is stored, from where a session before was cut; and if it was stored before, fetched.
struct Caller {
    file: u64,
    /// What is said next, and which replies are good ones.
    steps: Vec<(String, &'static str)>,
    data: Option<Key>,
    fetches: bool,
    from: usize,
}

struct Carrier {
    control: Key,
    file: u64,
    fetches: bool,
    from: usize,
    got: Vec<u8>,
}

fn contents(file: u64) -> Vec<u8> {
    (0..150_000 + file % 50 * 1000).map(|n| (n * 7 + file) as u8).collect()
}

fn call(net: &mut mainspring::Net<'_, Home>, home: &Home, file: u64) {
    let fetches = home.stored.contains(&file);
    let mut steps = vec![(String::new(), "220")];
    if home.tls.is_some() {
        steps.extend([("AUTH TLS".into(), "234"), ("PBSZ 0".into(), "200"), ("PROT P".into(), "200")]);
    }
    steps.extend([("USER user".into(), "331"), ("PASS 12345".into(), "230"), ("TYPE I".into(), "200")]);
    steps.extend([(format!("SIZE f{file}"), "213 550"), ("EPSV".into(), "229")]);
    steps.reverse();
    net.connect("10.0.0.1:21", Caller { file, steps, data: None, fetches, from: 0 });
}

impl Caller {
    fn next(&mut self, ctx: &mut Context<'_, Home>) {
        if let Some((line, _)) = self.steps.last().filter(|(line, _)| !line.is_empty()) {
            write!(ctx, "{line}\r\n");
        }
    }
}

impl Protocol<Home> for Caller {
    fn connected(&mut self, ctx: &mut Context<'_, Home>, _: &mut Home) -> Outcome {
        ctx.set_terminator(Terminator::crlf(500));
        ctx.set_idle_timeout(100 * S);
        Ok(())
    }

    fn secured(&mut self, ctx: &mut Context<'_, Home>, _: &mut Home) -> Outcome {
        self.next(ctx);
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Home>, home: &mut Home, line: &[u8]) -> Outcome {
        let line = std::str::from_utf8(line)?;
        let code = line.get(..3).ok_or("a short line")?;
        let (said, good) = self.steps.pop().ok_or_else(|| format!("nothing was asked: {line}"))?;
        if !good.contains(code) {
            return Err(format!("{said}: {line}").into());
        }
        match (said.split(' ').next().unwrap_or_default(), code) {
            ("AUTH", _) => {
                ctx.link().start_tls(home.tls.clone().expect("a config"));
                return Ok(());
            }
            ("SIZE", "213") if !self.fetches => {
                self.from = line[4..].parse()?;
                self.from = self.from.min(contents(self.file).len());
            }
            ("EPSV", _) => {
                let port: u16 = line.split('|').nth(3).ok_or("no port")?.parse()?;
                let carrier =
                    Carrier { control: ctx.key, file: self.file, fetches: self.fetches, from: self.from, got: Vec::new() };
                let options = home.tls.clone().map_or(Connect::new(), |tls| Connect::new().tls(tls));
                self.data = Some(ctx.net.connect_with(("10.0.0.1", port), options, carrier));
                let verb = if self.fetches { "RETR" } else { "STOR" };
                self.steps = vec![(String::new(), "226"), (format!("{verb} f{}", self.file), "150 125")];
                if self.from > 0 {
                    self.steps.push((format!("REST {}", self.from), "350"));
                }
            }
            (_, "226") => {
                if self.fetches {
                    let carried = self.data.and_then(|data| ctx.net.peek::<Carrier>(data)).map(|carrier| carrier.got.clone());
                    assert!(carried.is_none_or(|got| contents(self.file).starts_with(&got)));
                    home.fetched += 1;
                } else {
                    home.stored.push(self.file);
                }
                ctx.close();
            }
            _ => {}
        }
        self.next(ctx);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Home>, home: &mut Home, why: Reason) {
        home.failed += u32::from(!why.is_clean());
        if let Some(data) = self.data {
            ctx.net.abort(data);
        }
        // Who has failed tries again.
        let again = why.is_clean() && self.fetches;
        home.next += u64::from(again);
        let file = if again { home.next } else { self.file };
        if !home.stop {
            ctx.net.after(Duration::from_millis(300), move |net, home: &mut Home| {
                if !home.stop {
                    call(net, home, file);
                }
            });
        }
    }
}

impl Protocol<Home> for Carrier {
    fn connected(&mut self, ctx: &mut Context<'_, Home>, _: &mut Home) -> Outcome {
        if !self.fetches {
            ctx.send(&contents(self.file)[self.from..]);
            ctx.close();
        }
        Ok(())
    }

    fn received(&mut self, _: &mut Context<'_, Home>, _: &mut Home, bytes: &[u8]) -> Outcome {
        self.got.extend_from_slice(bytes);
        assert!(contents(self.file).starts_with(&self.got), "it is a part of what was stored");
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Home>, _: &mut Home, why: Reason) {
        let is_whole = !self.fetches || self.got.len() == contents(self.file).len();
        if !why.is_clean() || !is_whole {
            ctx.net.fail(self.control, "the data connection broke");
        }
    }
}

fn storm(seeds: u64, is_private: bool) {
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(seeds);
    check(0..seeds, |sim| {
        let root = Folder::new("storm");
        let (server_side, client_side) = tls::sides_of_localhost(); // anew: what they have agreed on before is remembered
        let mut set = settings(&root.0);
        set.login_delay = Duration::ZERO;
        if is_private {
            (set.tls, set.requires_tls) = (Some(ServerConfig::clone(&server_side).into()), true);
        }
        let server = sim.host("10.0.0.1", Ftp::new(set));
        sim.net(server).listen("10.0.0.1:21", Control::default).unwrap();
        let tls = is_private.then_some(client_side);
        let home = Home { tls, stop: false, next: 3, stored: Vec::new(), fetched: 0, failed: 0 };
        let home = sim.host("10.0.0.2", home);
        for file in 1..4 {
            sim.with(home, |net, home| call(net, home, file));
        }
        sim.set_weather(Weather::rough().work(Duration::from_millis(20)));
        for _ in 0..10 {
            sim.run_for(4 * S);
            for entry in fs::read_dir(&root.0).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let Some(file) = name.strip_prefix('f') else { continue };
                assert!(fs::read(root.path(&name)).unwrap() == contents(file.parse().unwrap()), "{name} is whole");
            }
        }
        sim.set_weather(Weather::fair());
        sim.run_for(5 * S);
        sim.with(home, |_, home| home.stop = true);
        sim.run_for(700 * S);
        assert_eq!(sim.state(server).sessions, 0, "no session is forgotten");
        assert_eq!(sim.sockets(server), 1, "only the listener is left");
        let home = sim.state(home);
        let (stored, fetched, failed) = (home.stored.len(), home.fetched, home.failed);
        assert!(stored > 3 && fetched > 3, "{stored} were stored, {fetched} fetched, {failed} failed");
        for file in &home.stored {
            assert!(fs::read(root.path(&format!("f{file}"))).unwrap() == contents(*file), "f{file}");
        }
    });
}

#[test]
fn what_was_confirmed_is_on_the_disk() {
    storm(200, false);
}

#[test]
fn and_so_in_tls() {
    storm(40, true);
}
