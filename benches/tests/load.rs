//! The load generator checks what comes back: these servers are wrong, and it says how.

use mainspring_benches::load::{self, Load, Run};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
};

/// What it makes of a server whose connections are served so.
fn outcome(load: Load, serve: fn(TcpStream)) -> Result<f64, String> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    let run = Run { port, pid: std::process::id(), warm_secs: 0.02, secs: 0.1 };
    load::run(load, run).map(|figures| figures.requests).map_err(|why| why.to_string())
}

fn echo_changed(mut stream: TcpStream, change: fn(&mut Vec<u8>)) {
    let mut buf = [0; 65_536];
    while let Ok(length @ 1..) = stream.read(&mut buf) {
        let mut reply = buf[..length].to_vec();
        change(&mut reply);
        if stream.write_all(&reply).is_err() {
            return;
        }
    }
}

/// What it makes of a server that answers each datagram so.
fn outcome_of_datagrams(answer: fn(&UdpSocket, &mut [u8], SocketAddr)) -> Result<f64, String> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let port = socket.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        let mut buf = [0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut buf) {
            answer(&socket, &mut buf[..length], from);
        }
    });
    let run = Run { port, pid: std::process::id(), warm_secs: 0.02, secs: 0.1 };
    load::run(DATAGRAMS, run).map(|figures| figures.requests).map_err(|why| why.to_string())
}

fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    let _ = socket.send_to(bytes, to);
}

const DATAGRAMS: Load = Load::Datagrams { size: 100, depth: 4 };
const ECHO: Load = Load::Echo { connections: 2, size: 64, depth: 4 };
const LINES: Load = Load::Lines { connections: 2, depth: 4 };
const CHURN: Load = Load::Churn { connections: 2 };

fn honest(stream: TcpStream) {
    echo_changed(stream, |_| {});
}

fn turns_a_byte(stream: TcpStream) {
    echo_changed(stream, |reply| reply[0] ^= 1);
}

#[test]
fn honest_servers_are_counted() {
    for load in [ECHO, CHURN, Load::Idle { connections: 100 }] {
        let requests = outcome(load, honest);
        assert!(matches!(requests, Ok(1.0..)), "{load:?}: {requests:?}");
    }
    let drops = |mut stream: TcpStream| while let Ok(1..) = stream.read(&mut [0; 65_536]) {};
    assert!(matches!(outcome(Load::Sink, drops), Ok(1.0..)));
    let pours = |mut stream: TcpStream| while stream.write_all(&[b'Z'; 65_536]).is_ok() {};
    assert!(matches!(outcome(Load::Source, pours), Ok(1.0..)));
}

#[test]
fn a_wrong_byte_is_found() {
    for load in [ECHO, LINES, CHURN] {
        assert_eq!(outcome(load, turns_a_byte), Err("a wrong reply".into()), "{load:?}");
    }
    let pours_other = |mut stream: TcpStream| while stream.write_all(&[b'Y'; 65_536]).is_ok() {};
    assert_eq!(outcome(Load::Source, pours_other), Err("a wrong byte".into()));
}

#[test]
fn half_a_line_that_comes_back_is_found() {
    let why = outcome(LINES, honest).expect_err("an echo server answers lines before they are complete");
    assert_eq!(why, "a part of an incomplete line came back");
}

#[test]
fn a_server_that_hangs_up_is_found() {
    for load in [ECHO, LINES, CHURN] {
        let why = outcome(load, |_| {}).expect_err("nobody answers");
        let said =
            ["the server has closed a connection", "cannot receive", "cannot send", "cannot connect", "reset", "Broken pipe"];
        assert!(said.iter().any(|said| why.contains(said)), "{load:?}: {why}");
    }
}

#[test]
fn datagrams_are_counted_and_a_wrong_or_a_missing_one_is_found() {
    let honest = outcome_of_datagrams(|socket, bytes, from| send(socket, bytes, from));
    assert!(matches!(honest, Ok(1.0..)), "{honest:?}");
    let turns_a_byte = outcome_of_datagrams(|socket, bytes, from| {
        bytes[0] ^= 1;
        send(socket, bytes, from);
    });
    assert_eq!(turns_a_byte, Err("a wrong reply, or one was lost before it".into()));
    let cuts = outcome_of_datagrams(|socket, bytes, from| send(socket, &bytes[1..], from));
    assert_eq!(cuts, Err("a wrong reply, or one was lost before it".into()));
    let loses_some = outcome_of_datagrams(|socket, bytes, from| {
        if bytes[0] % 16 != 0 {
            send(socket, bytes, from);
        }
    });
    assert_eq!(loses_some, Err("a wrong reply, or one was lost before it".into()));
    let doubles = outcome_of_datagrams(|socket, bytes, from| {
        send(socket, bytes, from);
        send(socket, bytes, from);
    });
    assert!(doubles.is_err(), "{doubles:?}");
}
