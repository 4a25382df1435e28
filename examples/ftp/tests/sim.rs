//! The three servers on the simulated network.
use mainspring::{
    Context, Outcome, Protocol, Reason,
    testing::{Fate, Scene, Transcript, Weather, check},
};
use servers::{balancer, ftp, smtp};
use std::{fs, path::PathBuf, time::Duration};

const S: Duration = Duration::from_secs(1);

fn folder(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("ftp-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a folder");
    dir.canonicalize().expect("it is there")
}
fn mail_server(name: &str) -> smtp::Server {
    smtp::Server { host: "mx.test".into(), spool: folder(name), bytes_max: 1000, serial: 0, stored: 0, idle: 300 * S }
}

#[test]
fn a_mail() {
    let mut t = Transcript::with_state(smtp::Session::default(), mail_server("mail"));
    t.sends("220 mx.test ESMTP\r\n");
    t.receives("HELO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n")
        .sends("250 mx.test\r\n250 Ok.\r\n250 Ok.\r\n354 End with a dot on a line of its own.\r\n");
    t.receives("..\r\n.\r").sends("").receives("\nQUIT\r\n").sends("250 Stored.\r\n221 Bye.\r\n").closes(Reason::is_clean);
    let dir = &t.state().spool;
    let [file] = &fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>()[..] else { panic!() };
    assert!(fs::read_to_string(file).unwrap().ends_with("\r\n.\r\n"));
}
#[test]
fn a_mail_byte_by_byte_is_the_same() {
    let all = "HELO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n.\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\nx\r\n..y\r\n.\r\nQUIT\r\n";
    let mut whole = Transcript::with_state(smtp::Session::default(), mail_server("whole"));
    let a = whole.receives(all).sent();
    let mut bytes = Transcript::with_state(smtp::Session::default(), mail_server("bytes"));
    let b = bytes.receives_bytewise(all).sent();
    assert_eq!(a, b);
    assert_eq!(bytes.state().stored, 2);
}
#[test]
fn a_lazy_mailer_is_let_go() {
    let mut t = Transcript::with_state(smtp::Session::default(), mail_server("lazy"));
    t.sends("220 mx.test ESMTP\r\n").passes(300 * S).sends("421 Too slow.\r\n").closes(Reason::is_clean);
}

/// As far as the first bytes of a mail.
fn begun(name: &str) -> Transcript<smtp::Session, smtp::Server> {
    let mut t = Transcript::with_state(smtp::Session::default(), mail_server(name));
    t.sends("220 mx.test ESMTP\r\n").receives("HELO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\nhel");
    t.sends("250 mx.test\r\n250 Ok.\r\n250 Ok.\r\n354 End with a dot on a line of its own.\r\n");
    assert_eq!(spooled(&mut t), 1);
    t
}
fn spooled(t: &mut Transcript<smtp::Session, smtp::Server>) -> usize {
    fs::read_dir(&t.state().spool).unwrap().count()
}
#[test]
fn a_mail_that_is_broken_off_leaves_nothing() {
    let mut t = begun("off");
    t.peer_ends().closes(Reason::is_clean);
    assert_eq!(spooled(&mut t), 0);
    let mut t = begun("reset");
    t.peer_resets();
    assert_eq!(spooled(&mut t), 0);
    let mut t = begun("slow");
    t.passes(300 * S).sends("421 Too slow.\r\n").closes(Reason::is_clean);
    assert_eq!(spooled(&mut t), 0);
}
#[test]
fn a_mail_that_is_too_large_is_refused_at_its_end_and_the_next_is_taken() {
    let mut t = begun("large");
    t.receives("x".repeat(1000)).sends("").receives("\r\n.\r\n").sends("552 Too large.\r\n");
    assert_eq!(spooled(&mut t), 0);
    t.receives("MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\nx\r\n.\r\n");
    assert!(t.sent().ends_with(b"250 Stored.\r\n"));
}
#[test]
fn a_drain_waits_for_the_mail_that_is_coming() {
    let mut t = begun("drain");
    t.scene().net().drain(60 * S);
    t.passes(S).stays_open().receives("lo\r\n.\r\n").sends("250 Stored.\r\n").closes(Reason::is_clean);
}

// ------------------------------------------------------------ FTP: two connections a session
fn ftp_scene(name: &str) -> (Scene<ftp::Ftp>, mainspring::testing::Actor) {
    let root = folder(name);
    fs::write(root.join("hello"), "hello\n").unwrap();
    fs::write(root.join("big"), vec![7; 3_000_000]).unwrap();
    let mut scene = Scene::new(1, ftp::Ftp::new(ftp::Settings { root, ..Default::default() }));
    scene.net().listen("10.0.0.1:21", ftp::Control::default).unwrap();
    let c = scene.dials("10.0.0.1:21");
    scene
        .hears(c, "220 ready.\r\n")
        .says(c, "USER user\r\nPASS 12345\r\nTYPE I\r\n")
        .hears(c, "331 Now the password.\r\n230 Welcome.\r\n200 Binary.\r\n");
    (scene, c)
}
fn passive(scene: &mut Scene<ftp::Ftp>, c: mainspring::testing::Actor) -> String {
    let reply = {
        scene.says(c, "EPSV\r\n");
        String::from_utf8(scene.takes(c)).unwrap()
    };
    format!("10.0.0.1:{}", reply.split('|').nth(3).expect("a port"))
}
#[test]
fn a_download() {
    let (mut scene, c) = ftp_scene("down");
    let at = passive(&mut scene, c);
    let d = scene.dials(&at);
    scene.says(c, "RETR hello\r\n").hears(d, "hello\n").hears_end(d).hears(c, "125 Here it goes.\r\n226 Done.\r\n");
}
#[test]
fn a_download_whose_client_does_not_read_is_given_up() {
    let (mut scene, c) = ftp_scene("stall");
    let at = passive(&mut scene, c);
    let d = scene.dials(&at);
    scene.reads(d, false).says(c, "RETR big\r\n").passes(299 * S).hears(c, "125 Here it goes.\r\n");
    assert!(scene.net().stats().queued < 700_000);
    scene.passes(2 * S).hears(c, "421 The data connection was silent for too long.\r\n").hears_end(c);
    assert_eq!(scene.connections(), 0);
}
#[test]
fn an_upload_that_ends_before_stor_is_said() {
    let (mut scene, c) = ftp_scene("early");
    let at = passive(&mut scene, c);
    let d = scene.dials(&at);
    scene.says(d, "what").ends(d).says(c, "STOR new\r\n").hears(c, "125 Here it goes.\r\n226 Done.\r\n");
    assert_eq!(fs::read(scene.state().set.root.join("new")).unwrap(), b"what");
}
#[test]
fn stat_tells_of_the_session_and_lists_a_folder() {
    let (mut scene, c) = ftp_scene("stat");
    scene.says(c, "STAT\r\n");
    let status = String::from_utf8(scene.takes(c)).unwrap();
    let connected = format!(" Connected from {}\r\n Logged in\r\n No data connection\r\n", scene.address(c));
    assert!(
        status.starts_with("211-") && status.contains(&connected) && status.ends_with("\r\n211 End of status.\r\n"),
        "{status}"
    );
    scene.says(c, "STAT hello\r\nSTAT .\r\nNOOP\r\n");
    let heard = String::from_utf8(scene.takes(c)).unwrap();
    let begins: Vec<&str> = heard.lines().map(|line| &line[..3]).collect();
    assert_eq!(begins, ["213", " -r", "213", "213", " -r", " -r", "213", "200"], "{heard}");
}
#[test]
fn abor_in_the_midst() {
    let (mut scene, c) = ftp_scene("abor");
    let at = passive(&mut scene, c);
    let d = scene.dials(&at);
    scene.reads(d, false).says(c, "RETR big\r\n").says(c, "ABOR\r\nEPSV\r\nNOOP\r\n");
    let heard = String::from_utf8(scene.takes(c)).unwrap();
    let codes: Vec<&str> = heard.lines().map(|l| &l[..3]).collect();
    assert_eq!(codes, ["125", "426", "226", "229", "200"]);
}
#[test]
fn abor_overtakes_what_waits_for_the_transfer() {
    let (mut scene, c) = ftp_scene("overtakes");
    let at = passive(&mut scene, c);
    let d = scene.dials(&at);
    scene.reads(d, false).says(c, "RETR big\r\nEPSV\r\nNOOP\r\n").hears(c, "125 Here it goes.\r\n").says(c, "ABOR\r\n");
    let heard = String::from_utf8(scene.takes(c)).unwrap();
    let codes: Vec<&str> = heard.lines().map(|l| &l[..3]).collect();
    assert_eq!(codes, ["426", "226", "229", "200"]);
}
#[test]
fn what_waits_for_a_transfer_that_is_aborted_before_it_begins_goes_on() {
    let (mut scene, c) = ftp_scene("unbegun");
    passive(&mut scene, c);
    scene.says(c, "RETR hello\r\nEPSV\r\n").hears(c, "150 Here it goes.\r\n").says(c, "ABOR\r\n");
    let heard = String::from_utf8(scene.takes(c)).unwrap();
    let codes: Vec<&str> = heard.lines().map(|l| &l[..3]).collect();
    assert_eq!(codes, ["426", "226", "229"]);
}
#[test]
fn a_session_that_ends_leaves_neither_port_nor_data_connection() {
    let (mut scene, c) = ftp_scene("leaves");
    let at = passive(&mut scene, c);
    let d = scene.dials(&at);
    scene.reads(d, false).says(c, "RETR big\r\n").hears(c, "125 Here it goes.\r\n").resets(c).reads(d, true).takes(d);
    scene.hears_reset(d);
    assert_eq!(scene.connections(), 0);
    let (mut scene, c) = ftp_scene("leaves too");
    let at = passive(&mut scene, c);
    scene.says(c, "QUIT\r\n").hears(c, "221 Goodbye.\r\n").hears_end(c).passes(S);
    assert!(scene.net().listen(at.as_str(), ftp::Control::default).is_ok(), "the port is free again");
}
#[test]
fn a_drain_waits_for_the_transfer() {
    let (mut scene, c) = ftp_scene("drains");
    let at = passive(&mut scene, c);
    let d = scene.dials(&at);
    scene.reads(d, false).says(c, "RETR big\r\n").hears(c, "125 Here it goes.\r\n");
    scene.net().drain(100 * S);
    scene.passes(10 * S).hears(c, "").reads(d, true).passes(S).hears(c, "226 Done.\r\n").hears_end(c);
    assert_eq!(scene.takes(d).len(), 3_000_000);
}
#[test]
fn text_is_translated_both_ways() {
    let (mut scene, c) = ftp_scene("text");
    scene.says(c, "TYPE A\r\n").hears(c, "200 ASCII.\r\n");
    let at = passive(&mut scene, c);
    let d = scene.dials(&at);
    scene.says(c, "STOR text\r\n").says(d, "a\r").says(d, "\nb\n\rc\r").ends(d).hears(c, "125 Here it goes.\r\n226 Done.\r\n");
    assert_eq!(fs::read(scene.state().set.root.join("text")).unwrap(), b"a\nb\n\rc\r");
    let at = passive(&mut scene, c);
    let d = scene.dials(&at);
    scene.says(c, "RETR text\r\n").hears(d, "a\r\nb\r\n\rc\r").hears_end(d).hears(c, "125 Here it goes.\r\n226 Done.\r\n");
}
#[test]
fn nobody_comes_to_the_data_port() {
    let (mut scene, c) = ftp_scene("nobody");
    passive(&mut scene, c);
    scene
        .says(c, "RETR hello\r\n")
        .hears(c, "150 Here it goes.\r\n")
        .passes(30 * S)
        .hears(c, "421 Nobody came to the data port.\r\n");
    scene.says(c, "NOOP\r\n").hears(c, "200 Yes.\r\n");
}
#[test]
fn active_to_nowhere() {
    let (mut scene, c) = ftp_scene("active");
    let ip = scene.address(c).ip().expect("an address").ip();
    scene.set_fate(&format!("{ip}:2000"), Fate::Silent);
    scene.says(c, format!("EPRT |1|{ip}|2000|\r\nNOOP\r\n")).passes(29 * S).hears(c, "").passes(2 * S);
    assert!(String::from_utf8(scene.takes(c)).unwrap().starts_with("425 Not reached"));
    let server = scene.serves(&format!("{ip}:2001"));
    scene.says(c, format!("EPRT |1|{ip}|2001|\r\nNLST hello\r\n")).hears(server, "hello\r\n").hears_end(server);
    let heard = String::from_utf8(scene.takes(c)).unwrap();
    assert!(heard.ends_with("200 Connected.\r\n125 Here it goes.\r\n226 Done.\r\n"), "{heard}");
}

// ------------------------------------------------------------ the balancer in storms
struct Echo;
impl<S> Protocol<S> for Echo {
    fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }
    fn eof(&mut self, ctx: &mut Context<'_, S>, _: &mut S, _: &[u8]) -> Outcome {
        ctx.half_close();
        Ok(())
    }
}
#[derive(Default)]
struct Tally {
    whole: u32,
    short: u32,
}
/// Says a lot, ends, and wants the same back.
struct Caller {
    got: usize,
    wrong: bool,
}
const MUCH: usize = 90_000;
impl Protocol<Tally> for Caller {
    fn connected(&mut self, ctx: &mut Context<'_, Tally>, _: &mut Tally) -> Outcome {
        ctx.set_deadline(60 * S);
        ctx.send((0..MUCH).map(|n| (n % 251) as u8).collect::<Vec<_>>());
        ctx.half_close();
        Ok(())
    }
    fn received(&mut self, _: &mut Context<'_, Tally>, _: &mut Tally, bytes: &[u8]) -> Outcome {
        for &b in bytes {
            self.wrong |= b != (self.got % 251) as u8;
            self.got += 1
        }
        assert!(!self.wrong, "a prefix of what was said, always");
        Ok(())
    }
    fn closed(&mut self, ctx: &mut Context<'_, Tally>, tally: &mut Tally, why: Reason) {
        if self.got == MUCH {
            tally.whole += 1
        } else {
            tally.short += 1;
            assert!(!why.is_clean(), "{} of {MUCH} and clean", self.got)
        }
        if !ctx.net.is_draining() {
            ctx.net.after(Duration::from_millis(700), |net, _| {
                net.connect("10.0.0.9:80", Caller { got: 0, wrong: false });
            });
        }
    }
}
#[test]
fn what_comes_through_is_a_prefix_and_a_clean_end_is_whole() {
    check(0..seeds(), |sim| {
        let backs = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|ip| {
            let h = sim.host(ip, ());
            sim.net(h).listen(&*format!("{ip}:9000"), || Echo).unwrap();
            h
        });
        let mut app =
            balancer::App::new(["10.0.0.1:9000", "10.0.0.2:9000", "10.0.0.3:9000"].map(|a| a.parse().unwrap()).to_vec());
        app.header = false;
        let proxy = sim.host("10.0.0.9", app);
        sim.net(proxy).listen("10.0.0.9:80", balancer::Front::default).unwrap();
        sim.net(proxy).every(Duration::from_millis(500), balancer::probe);
        let home = sim.host("10.0.1.1", Tally::default());
        for _ in 0..5 {
            sim.net(home).connect("10.0.0.9:80", Caller { got: 0, wrong: false });
        }
        sim.set_weather(Weather::rough());
        sim.run_for(20 * S);
        sim.kill(backs[0]);
        sim.run_for(20 * S);
        sim.set_weather(Weather::fair());
        sim.run_for(40 * S);
        assert!(sim.state(home).whole > 0);
        sim.net(home).drain(S);
        sim.run_for(100 * S);
        let active: Vec<usize> = sim.state(proxy).backends.iter().map(|b| b.active).collect();
        assert_eq!(active, [0, 0, 0], "nobody is forgotten");
    });
}
fn seeds() -> u64 {
    std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10)
}

// ------------------------------------------------------------ FTP in storms: what was acknowledged is on the disk
#[derive(Default)]
struct Uploads {
    stop: bool,
    next: u64,
    acknowledged: Vec<u64>,
    failed: u32,
}
struct Caller21 {
    file: u64,
    data: Option<mainspring::Key>,
    step: u32,
}
struct Upload {
    control: mainspring::Key,
    file: u64,
}
fn contents(file: u64) -> Vec<u8> {
    (0..150_000 + file * 1000).map(|n| (n * 7 + file) as u8).collect()
}
impl Protocol<Uploads> for Caller21 {
    fn connected(&mut self, ctx: &mut Context<'_, Uploads>, _: &mut Uploads) -> Outcome {
        ctx.set_terminator(mainspring::Terminator::crlf(500));
        ctx.set_idle_timeout(100 * S);
        ctx.send("USER user\r\nPASS 12345\r\nTYPE I\r\nEPSV\r\n");
        Ok(())
    }
    fn frame(&mut self, ctx: &mut Context<'_, Uploads>, all: &mut Uploads, line: &[u8]) -> Outcome {
        let line = std::str::from_utf8(line)?;
        self.step += 1;
        match (self.step, &line[..3]) {
            (1, "220") | (2, "331") | (3, "230") | (4, "200") | (6, "150" | "125") => {}
            (5, "229") => {
                let port: u16 = line.split('|').nth(3).ok_or("no port")?.parse()?;
                let control = ctx.key;
                self.data = Some(ctx.net.connect(("10.0.0.1", port), Upload { control, file: self.file }));
                writeln!(ctx, "STOR f{}\r", self.file);
            }
            (7, "226") => {
                all.acknowledged.push(self.file);
                ctx.close()
            }
            _ => return Err(format!("step {}: {line}", self.step).into()),
        }
        Ok(())
    }
    fn closed(&mut self, ctx: &mut Context<'_, Uploads>, all: &mut Uploads, why: Reason) {
        if !why.is_clean() {
            all.failed += 1
        }
        if let Some(data) = self.data {
            ctx.net.abort(data);
        }
        all.next += 1;
        let file = all.next;
        if !all.stop {
            ctx.net.after(Duration::from_millis(300), move |net, all: &mut Uploads| {
                if !all.stop {
                    net.connect("10.0.0.1:21", Caller21 { file, data: None, step: 0 });
                }
            });
        }
    }
}
impl Protocol<Uploads> for Upload {
    fn connected(&mut self, ctx: &mut Context<'_, Uploads>, _: &mut Uploads) -> Outcome {
        ctx.send(contents(self.file));
        ctx.close();
        Ok(())
    }
    fn closed(&mut self, ctx: &mut Context<'_, Uploads>, _: &mut Uploads, why: Reason) {
        if !why.is_clean() {
            ctx.net.fail(self.control, "the data connection broke");
        }
    }
}
#[test]
fn what_was_acknowledged_is_on_the_disk() {
    check(0..seeds(), |sim| {
        let root = folder(&format!("storm-{}", sim.seed()));
        let server = sim.host(
            "10.0.0.1",
            ftp::Ftp::new(ftp::Settings { root: root.clone(), login_delay: Duration::ZERO, ..Default::default() }),
        );
        sim.net(server).listen("10.0.0.1:21", ftp::Control::default).unwrap();
        let home = sim.host("10.0.0.2", Uploads { next: 3, ..Default::default() });
        for file in 1..4 {
            sim.net(home).connect("10.0.0.1:21", Caller21 { file, data: None, step: 0 });
        }
        sim.set_weather(Weather::rough().work(Duration::from_millis(20)));
        sim.run_for(40 * S);
        sim.set_weather(Weather::fair());
        sim.run_for(5 * S);
        sim.with(home, |_, all| all.stop = true);
        sim.run_for(700 * S);
        assert_eq!(sim.state(server).sessions, 0, "no session is forgotten");
        assert_eq!(sim.sockets(server), 1, "only the listener is left");
        let all = sim.state(home);
        assert!(all.acknowledged.len() > 5, "{} and {} failed", all.acknowledged.len(), all.failed);
        for file in &all.acknowledged {
            assert!(fs::read(root.join(format!("f{file}"))).unwrap() == contents(*file), "f{file}")
        }
        fs::remove_dir_all(root).unwrap();
    });
}
