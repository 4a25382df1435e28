//! The client and `ftp_server` in bad weather: what was not said to have failed is there, whole.

mod common;
#[path = "../../../tests/common/tls.rs"]
mod tls;

use common::{Folder, app, failed};
use ftp_client::{Control, Task};
use ftp_server::{Ftp, Settings, Tls, User};
use mainspring::testing::{Sim, Weather, check};
use std::{fs, path::Path, time::Duration};

const S: Duration = Duration::from_secs(1);

fn is_same(one: &Path, other: &Path) -> bool {
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    names(one) == names(other)
        && names(one).iter().all(|name| match one.join(name) {
            folder if folder.is_dir() => is_same(&folder, &other.join(name)),
            file => fs::read(file).unwrap() == fs::read(other.join(name)).unwrap(),
        })
}

#[test]
fn a_mirror_that_has_not_failed_is_the_same_on_both_sides() {
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    let whole = std::cell::Cell::new(0);
    check(0..seeds, |sim| {
        let here = Folder::new("storm");
        let (tree, root, back) = (here.path("tree"), here.path("root"), here.path("back"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir_all(&root).unwrap();
        for (n, name) in ["one", "a/two", "a/b/three", "a/b/empty"].iter().enumerate() {
            fs::write(tree.join(name), vec![n as u8; (3 - n) * 70_000]).unwrap();
        }
        let user = User::parse("user:12345:rw").unwrap();
        let server = sim.host("10.0.0.1", Ftp::new(Settings { users: vec![user.into()], ..Settings::new(&root).unwrap() }));
        sim.net(server).listen("10.0.0.1:21", ftp_server::Control::default).unwrap();
        let up = |continues| {
            let mut app = app([Task::StoreAll { local: tree.clone(), remote: "there".into() }]);
            app.continues = continues;
            app
        };
        let home = sim.host("10.0.0.2", up(false));
        sim.set_weather(Weather::rough().work(Duration::from_millis(20)));
        for n in 0..20 {
            sim.net(home).connect("10.0.0.1:21", Control::default());
            sim.run_for(90 * S);
            let app = sim.state(home);
            let has_failed = app.failures > 0 || app.broken.is_some();
            failed();
            if !has_failed {
                break;
            }
            if n > 10 {
                sim.set_weather(Weather::fair());
            }
            *sim.state(home) = up(true);
        }
        assert_eq!(sim.state(home).broken, None);
        assert!(is_same(&tree, &root.join("there")), "what is there is what was stored");
        *sim.state(home) = app([Task::FetchAll { remote: "there".into(), local: back.clone() }]);
        sim.net(home).connect("10.0.0.1:21", Control::default());
        sim.run_for(90 * S);
        let app = sim.state(home);
        if app.failures == 0 && app.broken.is_none() {
            whole.set(whole.get() + 1);
            assert!(is_same(&tree, &back), "and so is what was fetched");
        }
        failed();
    });
    assert!(whole.get() > 0, "some came through");
}

/// As a server insists on that asks for the session of the control connection.
#[test]
fn each_upload_goes_on_with_an_earlier_session_of_tls() {
    let (here, root) = (Folder::new("sessions"), Folder::new("sessions-root"));
    for n in 0..30 {
        fs::write(here.path(&n.to_string()), vec![n; usize::from(n) * 1000]).unwrap();
    }
    let mut sim = Sim::new(1);
    sim.set_weather(Weather::fair().latency(Duration::from_millis(20), Duration::ZERO)); // the sessions come when all was sent
    let (server_side, client_side) = tls::sides_of_localhost();
    let tls = Some(Tls { control: server_side.clone().into(), data: server_side.into() });
    let user = User::parse("user:12345:rw").unwrap();
    let settings = Settings { users: vec![user.into()], tls, requires_tls: true, ..Settings::new(&root.0).unwrap() };
    let server = sim.host("10.0.0.1", Ftp::new(settings));
    sim.net(server).listen("10.0.0.1:21", ftp_server::Control::default).unwrap();
    let mut app = app([Task::StoreAll { local: here.0.clone(), remote: "there".into() }]);
    app.tls = Some(client_side);
    let home = sim.host("10.0.0.2", app);
    sim.net(home).connect("10.0.0.1:21", Control::default());
    sim.run_for(90 * S);
    assert_eq!((failed(), sim.state(home).broken.take()), (vec![], None));
    assert!(is_same(&here.0, &root.path("there")));
    let stats = sim.with(server, |net, _| net.stats());
    // The control connection is the first, and then there is a list.
    assert_eq!((stats.handshakes, stats.handshakes_resumed), (32, 31));
}
