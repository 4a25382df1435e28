//! What people write to name a place, and what is printed of one.

use super::Tape;
use mainspring::{
    Address, Target,
    inside::{address, is_odd, name, place, there_and_back},
};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// Text is understood or refused, never a panic; what an address prints is one line, and read back as the same unless
/// something in it was escaped.
pub fn addresses(data: &[u8]) {
    let mut tape = Tape::new(data);
    match tape.below(4) {
        0 => {
            let port = u16::from_be_bytes([tape.byte(), tape.byte()]);
            let host = String::from_utf8_lossy(tape.rest()).into_owned();
            read(&Target::from((host, port)));
        }
        1 => comes_back(&made_up(&mut tape)),
        _ => {
            let text = String::from_utf8_lossy(tape.rest()).into_owned();
            read(&Target::from(text.as_str()));
            read(&Target::from(("unix:".to_owned() + &text).as_str()));
        }
    }
}

fn read(target: &Target) {
    assert!(!target.to_string().contains(is_odd));
    match place(target) {
        Err(error) => assert!(!error.to_string().is_empty() && address(target).is_err()),
        Ok(Err((host, port))) => {
            // What a resolver is asked is a name, and no name is two.
            assert!((1..=254).contains(&host.len()) && !host.contains('\0'), "`{host}`");
            assert!(host.parse::<IpAddr>().is_err(), "`{host}` is an address");
            assert_eq!(place(&Target::from((host.as_str(), port))).ok(), Some(Err((host.clone(), port))));
            assert!(address(target).is_err());
            by_name(target, &host);
        }
        Ok(Ok(at)) => {
            let text = at.to_string();
            let again = address(&Target::from(text.as_str())).unwrap_or_else(|_| panic!("`{text}` is not read back"));
            assert!(again == at || name(target).contains(is_odd), "`{text}`");
            assert!(!text.contains(is_odd));
            comes_back(&at);
            in_the_network(target);
        }
    }
}

/// By way of a target, and of the system's own form where that takes it.
fn comes_back(at: &Address) {
    let again = address(&Target::from(at)).unwrap_or_else(|_| panic!("{at:?} is no target"));
    assert_eq!(&again, at);
    assert!(there_and_back(at).is_none_or(|again| again == *at));
}

/// An address that a socket may have.
fn made_up(tape: &mut Tape<'_>) -> Address {
    match tape.below(3) {
        0 => {
            let port = u16::from_be_bytes([tape.byte(), tape.byte()]);
            let (is_v4, mut octets) = (tape.once_in(2), [0; 16]);
            for octet in &mut octets {
                *octet = tape.byte();
            }
            let [a, b, c, d, ..] = octets;
            let ip = if is_v4 { IpAddr::from([a, b, c, d]) } else { IpAddr::from(octets) };
            Address::Ip(SocketAddr::new(ip, port))
        }
        1 => {
            let bytes = tape.rest();
            let name: Vec<u8> = if bytes.is_empty() { b"-".to_vec() } else { bytes.to_vec() };
            Address::Abstract(name)
        }
        _ => Address::Unix(Some(path(tape.rest()))),
    }
}

/// A path that a file can have: not empty, without a zero byte.
fn path(bytes: &[u8]) -> PathBuf {
    let mut bytes: Vec<u8> = bytes.iter().copied().filter(|&byte| byte != 0).collect();
    if bytes.is_empty() {
        bytes.push(b'/');
    }
    #[cfg(unix)]
    return PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes));
    #[cfg(not(unix))]
    return PathBuf::from(String::from_utf8_lossy(&bytes).into_owned());
}

/// Listening there and connecting there end in what they promise: an address or an error, and one `closed`.
fn in_the_network(target: &Target) {
    use mainspring::{Context, Outcome, Protocol, Reason, testing::Sim};
    use std::time::Duration;

    struct Caller;
    impl Protocol<usize> for Caller {
        fn connected(&mut self, ctx: &mut Context<'_, usize>, _: &mut usize) -> Outcome {
            ctx.close();
            Ok(())
        }

        fn closed(&mut self, ctx: &mut Context<'_, usize>, closed: &mut usize, why: Reason) {
            let _ = (ctx.peer().to_string(), ctx.local().to_string(), why.to_string());
            *closed += 1;
        }
    }

    let mut sim = Sim::new(0);
    sim.keep_trace(false);
    let host = sim.host("127.0.0.1", 0);
    let mut expected = 1;
    if let Ok(listener) = sim.net(host).listen(target, || Caller) {
        let local = sim.net(host).local(listener).expect("a listener has an address").clone();
        assert_eq!(address(&Target::from(local.to_string())).ok().as_ref(), Some(&local));
        sim.net(host).connect(&local, Caller);
        expected += 2;
        if address(target).ok().as_ref() == Some(&local) {
            expected += 1; // it is called twice
        }
    }
    sim.net(host).connect(target, Caller);
    sim.run_for(Duration::from_secs(60));
    assert_eq!(*sim.state(host), expected, "`closed` comes once for each");
}

/// The name is found, and its addresses race: one ends it, or nobody listens there.
fn by_name(target: &Target, host: &str) {
    use mainspring::{Context, Protocol, Reason, testing::Sim};
    use std::time::Duration;

    struct Caller;
    impl Protocol<Vec<bool>> for Caller {
        fn closed(&mut self, _: &mut Context<'_, Vec<bool>>, ends: &mut Vec<bool>, why: Reason) {
            ends.push(matches!(why, Reason::Connect(error) if error.tried().len() == 2));
        }
    }

    let mut sim = Sim::new(0);
    sim.keep_trace(false).name(host, &["127.0.0.1", "::2"]);
    let caller = sim.host("127.0.0.1", Vec::new());
    sim.net(caller).connect(target, Caller);
    sim.net(caller).resolve(host, |_, ends: &mut Vec<bool>, found| ends.push(found.is_ok_and(|all| all.len() == 2)));
    sim.run_for(Duration::from_secs(60));
    assert_eq!(*sim.state(caller), [true, true], "`{host}`");
}
