//! What the tools say when they are asked for what they cannot do, and that the gate's loads over TLS get their replies.

use std::process::{Command, Stdio};

fn run(program: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn what_they_cannot_do_is_said_and_another_exit_code() {
    let (bars, loads, server) =
        (env!("CARGO_BIN_EXE_tls_bars"), env!("CARGO_BIN_EXE_tls_loads"), env!("CARGO_BIN_EXE_tls_server"));
    for (program, arguments, said) in [
        (bars, &["0"][..], "usage: tls_bars"),
        (bars, &["often"], "usage: tls_bars"),
        (loads, &["gopher"], "there is no such load"),
        (loads, &["tls-1", "0"], "usage: tls_loads"),
        (server, &["sink", "0"], "it only echoes"),
        (server, &["echo", "70000"], "a number up to 65535"),
        (server, &[], "usage: tls_server"),
    ] {
        let (status, _, complaint) = run(program, arguments);
        assert!(status.is_some_and(|code| code != 0), "{arguments:?} was taken");
        assert!(complaint.contains(said), "{arguments:?}: {complaint}");
    }
}

#[test]
fn every_load_of_the_gate_over_tls_gets_its_replies() {
    for name in ["tls-1", "tls-64"] {
        let (status, numbers, complaint) = run(env!("CARGO_BIN_EXE_tls_loads"), &[name]);
        assert_eq!(status, Some(0), "{name}: {complaint}");
        let requests = numbers.split(' ').next().and_then(|number| number.parse::<u64>().ok());
        assert!(requests.is_some_and(|requests| requests > 0), "{name}: {numbers}");
    }
}
