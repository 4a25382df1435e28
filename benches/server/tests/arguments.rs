//! What the server says when it is asked for what it cannot do.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Command, Stdio},
};

fn server(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    let output = command.args(arguments).stdin(Stdio::null()).output().expect("it starts");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_it_cannot_do_is_one_clear_line_and_another_exit_code() {
    let cases = [
        (&["gopher", "0"][..], 2, "there is no mode \"gopher\""),
        (&["echo", "70000"], 2, "\"70000\" is not a port"),
        (&["echo", "seven"], 2, "\"seven\" is not a port"),
        (&["echo"], 2, "MODE and PORT are needed"),
        (&["echo", "0", "1", "2"], 2, "MODE and PORT are needed"),
        (&["echo", "0", "soon"], 2, "\"soon\" is not a number of microseconds"),
        (&[], 2, "MODE and PORT are needed"),
    ];
    for (arguments, code, said) in cases {
        let (status, complaint) = server(arguments);
        assert_eq!(status, Some(code), "{arguments:?}: {complaint}");
        assert!(complaint.contains(said), "{arguments:?}: {complaint}");
        assert_eq!(complaint.lines().count(), 1, "{arguments:?}: {complaint}");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let (status, complaint) = server(&["echo", &port]);
    assert_eq!(status, Some(1), "{complaint}");
    assert!(complaint.contains(&format!("127.0.0.1:{port}")), "{complaint}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
}

#[test]
fn the_first_line_says_where_it_listens() {
    for mode in ["echo", "line", "sink", "source", "udp"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        let mut child = command.args([mode, "0"]).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        let _ = BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line);
        child.kill().expect("it runs");
        child.wait().expect("it was started");
        let port = line.trim().strip_prefix("listening on 127.0.0.1:").and_then(|port| port.parse::<u16>().ok());
        assert!(port.is_some_and(|port| port > 0), "{mode}: {line}");
    }
}
