//! What the tools say when they are asked for what they cannot do. What they measure is not tested here: they check it
//! themselves.

use std::process::{Command, Stdio};

fn run(program: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn refuses(program: &str, arguments: &[&str], said: &str) {
    let (status, _, complaint) = run(program, arguments);
    assert!(status.is_some_and(|code| code != 0), "{arguments:?} was taken");
    assert!(complaint.contains(said), "{arguments:?}: {complaint}");
}

#[test]
fn compare_names_what_it_does_not_know() {
    let compare = env!("CARGO_BIN_EXE_compare");
    for (arguments, said) in [
        (&["--cells", "echo-1,gopher"][..], "there is no cell \"gopher\": one of echo-1, "),
        (&["--peers", "gopher"], "there is no peer \"gopher\": one of mainspring, "),
        (&["--rounds", "0"], "not a number from 1 to 100"),
        (&["--secs", "ever"], "not a number from 0.05 to 60"),
        (&["--profile", "debug"], "there is no profile \"debug\""),
        (&["--without", "echo-1"], "cannot be left out"),
        (&["--gopher"], "--gopher"),
        (&["gopher"], "gopher"),
    ] {
        refuses(compare, arguments, said);
    }
}

#[test]
fn compare_lists_cells_and_peers() {
    let (status, list, _) = run(env!("CARGO_BIN_EXE_compare"), &["--list"]);
    assert_eq!(status, Some(0));
    for name in ["echo-1 ", "line-16x256 ", "idle ", "mainspring ", "epoll ", "asyncore "] {
        assert!(list.lines().any(|line| line.starts_with(name)), "{name} in {list}");
    }
}

#[test]
fn load_says_that_nobody_listens() {
    let own = std::process::id().to_string();
    refuses(env!("CARGO_BIN_EXE_load"), &["echo-1", "1", &own], "cannot connect");
    refuses(env!("CARGO_BIN_EXE_load"), &["gopher", "1", &own], "there is no cell \"gopher\"");
    refuses(env!("CARGO_BIN_EXE_load"), &["echo-1"], "CELL, PORT and PID are needed");
}

#[test]
fn ftpload_says_what_it_needs() {
    let ftpload = env!("CARGO_BIN_EXE_ftpload");
    refuses(ftpload, &[], "ADDR is needed");
    refuses(ftpload, &["--clients", "0", "127.0.0.1:1"], "1 to 1000 clients");
    refuses(ftpload, &["--what", "sideways", "127.0.0.1:1"], "--what takes down or up");
}

#[test]
fn gate_and_its_loads_show_how_they_are_used() {
    refuses(env!("CARGO_BIN_EXE_gate"), &[], "usage: gate check");
    refuses(env!("CARGO_BIN_EXE_gate"), &["guess"], "usage: gate check");
    refuses(env!("CARGO_BIN_EXE_loads"), &["gopher"], "there is no such load");
    refuses(env!("CARGO_BIN_EXE_loads"), &["echo-1", "0"], "usage: loads NAME");
}

#[test]
fn every_load_of_the_gate_gets_its_replies() {
    let gate = include_str!("../gate.toml");
    let (_, counts) = gate.split_once("[calls]\n").expect("gate.toml has that section");
    let names: Vec<&str> = counts.lines().filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
    assert_eq!(names.len(), 14, "{names:?}");
    // Those over TLS are another program's, tested beside it.
    for name in names.into_iter().filter(|name| !name.starts_with("tls-")) {
        let (status, numbers, complaint) = run(env!("CARGO_BIN_EXE_loads"), &[name]);
        assert_eq!(status, Some(0), "{name}: {complaint}");
        let requests = numbers.split(' ').next().and_then(|number| number.parse::<u64>().ok());
        assert!(requests.is_some_and(|requests| requests > 0), "{name}: {numbers}");
    }
}
