//! The client of NATS and the real server, over loopback. Without `nats-server` (Debian's package of that name) it is skipped,
//! and says so.
#![cfg(unix)]

#[path = "common/nats_server.rs"]
mod nats_server;

use mainspring::{
    Net, Reactor,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, pem::PemObject},
    },
};
use nats_server::{SECURED, Server};
use room::nats::{Nats, Told};
use std::{sync::Arc, time::Duration};

const CERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/certs");

/// What is not there after so long never comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two clients of one server, which is killed and comes back.
struct App {
    says: Nats<App>,
    hears: Nats<App>,
    options: &'static [&'static str],
    server: Option<Server>,
    log: Vec<String>,
}

const SAYS: Told<App> = Told {
    find: |app| &mut app.says,
    connected: both_connected,
    away: |_, app, why| app.log.push(format!("says: {why}")),
    message: |_, _, _| panic!("it has subscribed to nothing"),
};

const HEARS: Told<App> = Told {
    find: |app| &mut app.hears,
    connected: both_connected,
    away: |_, app, why| app.log.push(format!("hears: {why}")),
    message: |net, app, message| {
        assert_eq!((message.subject, message.reply), ("room.line", Some("back")));
        app.log.push(String::from_utf8_lossy(message.payload).into_owned());
        let is_again = app.log.iter().filter(|line| *line == "hello").count() == 2;
        if is_again {
            return net.stop();
        }
        let server = app.server.take().expect("it runs");
        let port = server.port.to_string();
        drop(server); // killed
        app.server = Server::start(&port, app.options);
    },
};

fn both_connected(net: &mut Net<'_, App>, app: &mut App) {
    app.log.push("connected".into());
    if app.says.is_connected() && app.hears.is_connected() {
        assert!(app.says.publish(net, "room.line", Some("back"), "hello"));
    }
}

fn config(is_tls: bool) -> Option<Arc<ClientConfig>> {
    if !is_tls {
        return None;
    }
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(format!("{CERTS}/ca.pem")).expect("a file")).expect("a certificate");
    Some(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

/// What was told, or nothing if there is no server.
fn run(options: &'static [&'static str], url: impl Fn(u16) -> String) -> Option<Vec<String>> {
    let server = Server::start("-1", options)?;
    let client = |told| Nats::new(&url(server.port), config(options.contains(&"--tls")), "a test", told).expect("a URL");
    let (says, hears) = (client(SAYS), client(HEARS));
    let mut app = App { says, hears, options, server: Some(server), log: Vec::new() };
    let mut reactor = Reactor::new().expect("a reactor");
    let mut net = reactor.net();
    app.hears.subscribe(&mut net, "room.*");
    app.hears.start(&mut net);
    app.says.start(&mut net);
    net.after(PATIENCE, |net, app| {
        app.log.push("too late".into());
        net.stop();
    });
    reactor.run(&mut app).expect("it runs");
    app.log.retain(|line| !line.contains(": ")); // when each of them notices, and how, is the system's to say
    Some(app.log)
}

const TWICE: [&str; 6] = ["connected", "connected", "hello", "connected", "connected", "hello"];

#[test]
fn a_server_that_is_killed_and_comes_back() {
    if let Some(told) = run(&[], |port| format!("localhost:{port}")) {
        assert_eq!(told, TWICE);
    }
}

#[test]
fn with_a_login() {
    if let Some(told) = run(&["--user", "anna", "--pass", "s:cret"], |port| format!("nats://anna:s%3Acret@127.0.0.1:{port}")) {
        assert_eq!(told, TWICE);
    }
}

#[test]
fn in_tls() {
    for scheme in ["nats", "tls"] {
        if let Some(told) = run(&SECURED, |port| format!("{scheme}://anna:secret@localhost:{port}")) {
            assert_eq!(told, TWICE);
        }
    }
}
