//! What the kernel says when one binds, sends to or joins what cannot be: the same in both worlds.

use mainspring::{Address, Bind, Datagram, Interface, Key, Net, Outcome, Reactor, Scope, testing::Sim};
use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

/// What each send that failed came to, and how many datagrams came.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    failed: Vec<(Address, Option<i32>)>,
    received: Vec<(usize, bool)>,
}

struct Ear;

impl Datagram<Told> for Ear {
    fn received(&mut self, _: &mut Scope<'_, Told>, told: &mut Told, bytes: &[u8], _: &Address) -> Outcome {
        told.received.push((bytes.len(), true));
        Ok(())
    }

    fn oversized(&mut self, _: &mut Scope<'_, Told>, told: &mut Told, bytes: &[u8], _: &Address) -> Outcome {
        told.received.push((bytes.len(), false));
        Ok(())
    }

    fn failed(&mut self, _: &mut Scope<'_, Told>, told: &mut Told, to: &Address, error: io::Error) -> Outcome {
        told.failed.push((to.clone(), error.raw_os_error()));
        Ok(())
    }
}

/// Everything that is done before the loop, and what it says. The system says where it is bound.
fn ask(net: &mut Net<'_, Told>) -> Vec<String> {
    let mut said = Vec::new();
    let mut note = |what: String, came: io::Result<()>| said.push(format!("{what}: {:?}", came.map_err(|error| error.kind())));
    let local = Ipv4Addr::LOCALHOST;
    let taken = net.bind((local, 0), Ear).expect("a free port");
    let shared = net.bind_with((local, 0), Bind::new().reuse_port(), Ear).expect("a free port");
    let [port, shared_port] = [taken, shared].map(|key| net.local(key).and_then(|at| at.ip()).expect("it is bound").port());
    let mut bind = |net: &mut Net<'_, Told>, what: &str, at: String, options: Bind| {
        let bound = net.bind_with(at.as_str(), options, Ear);
        note(what.to_owned(), bound.as_ref().map(|_| ()).map_err(|error| error.kind().into()));
        if let Ok(key) = bound {
            net.close(key);
        }
    };
    bind(net, "the same address", format!("127.0.0.1:{port}"), Bind::new());
    bind(net, "the same, and it would share", format!("127.0.0.1:{port}"), Bind::new().reuse_port());
    bind(net, "a shared one, and it would not", format!("127.0.0.1:{shared_port}"), Bind::new());
    bind(net, "a shared one", format!("127.0.0.1:{shared_port}"), Bind::new().reuse_port());
    bind(net, "every address", format!("0.0.0.0:{port}"), Bind::new());
    bind(net, "somebody else's address", "192.0.2.1:0".to_owned(), Bind::new());
    bind(net, "a group", "239.1.2.3:0".to_owned(), Bind::new());
    bind(net, "to all", "0.0.0.0:0".to_owned(), Bind::new().peer("255.255.255.255:9"));
    bind(net, "to another family", "127.0.0.1:0".to_owned(), Bind::new().peer("[::1]:9"));
    join(net, &mut note);
    send(net, shared, taken); // of those that share a port the kernel chooses one
    said
}

fn join(net: &mut Net<'_, Told>, note: &mut impl FnMut(String, io::Result<()>)) {
    let key = net.bind("0.0.0.0:0", Ear).expect("a free port");
    let group = IpAddr::from([239, 1, 2, 3]);
    let ours = Interface::Address(Ipv4Addr::LOCALHOST);
    let six = "ff02::1".parse().expect("a group");
    note("leaving before".to_owned(), net.leave(key, group, ours));
    note("joining".to_owned(), net.join(key, group, ours));
    note("joining again".to_owned(), net.join(key, group, ours));
    note("leaving".to_owned(), net.leave(key, group, ours));
    note("no interface of ours".to_owned(), net.join(key, group, Interface::Address([192, 0, 2, 1].into())));
    note("a group of IPv6 by an address".to_owned(), net.join(key, six, ours));
    note("a group of IPv6".to_owned(), net.join(key, six, Interface::Index(1)));
    note("no group".to_owned(), net.join(key, [10, 0, 0, 1].into(), Interface::Any));
    net.close(key);
}

/// What comes of each is told later.
fn send(net: &mut Net<'_, Told>, key: Key, to: Key) {
    let ours = net.local(to).expect("it is bound").clone();
    for (to, bytes) in [("[::1]:9", 1), ("127.0.0.1:0", 1), ("255.255.255.255:9", 1), ("127.0.0.1:9", 65_508)] {
        assert!(net.send_to(key, &Address::Ip(to.parse().expect("a literal address")), vec![0; bytes]), "{to}");
    }
    assert!(net.send_to(key, &Address::Fd, "x"));
    for bytes in [0, 1, 1400, 65_507] {
        assert!(net.send_to(key, &ours, vec![0; bytes]));
    }
}

fn is_over(told: &Told) -> bool {
    told.failed.len() == 5 && told.received.len() == 4
}

fn on_the_loopback() -> (Vec<String>, Told) {
    let (mut reactor, mut told) = (Reactor::new().expect("a selector"), Told::default());
    let (said, began) = (ask(&mut reactor.net()), Instant::now());
    while !is_over(&told) && began.elapsed() < Duration::from_secs(10) {
        reactor.turn(&mut told, Duration::from_millis(10)).expect("the selector works");
    }
    (said, told)
}

fn simulated() -> (Vec<String>, Told) {
    let mut sim = Sim::new(1);
    let host = sim.host("127.0.0.1", Told::default());
    let said = ask(&mut sim.net(host));
    sim.run_for(Duration::from_secs(1));
    (said, std::mem::take(sim.state(host)))
}

#[test]
fn what_cannot_be_bound_joined_or_sent_to_is_told_alike() {
    let (real, simulated) = (on_the_loopback(), simulated());
    assert!(is_over(&real.1), "{:?}", real.1);
    for (real, simulated) in real.0.iter().zip(&simulated.0) {
        assert_eq!(real, simulated);
    }
    assert_eq!(real, simulated);
}
