//! The echo on mainspring over TLS that is measured: the same protocol as in clear.

use mainspring::{Listen, Reactor};
use server::Echo;
use std::{error::Error, process::ExitCode};
use tls::tls as side;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [mode, port] = &words[..] else {
        eprintln!("usage: tls_server echo PORT");
        return ExitCode::from(2);
    };
    match (mode.as_str(), port.parse()) {
        ("echo", Ok(port)) => match serve(port) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("error: cannot serve on 127.0.0.1:{port}: {why}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("error: it only echoes, and the port is a number up to 65535");
            ExitCode::from(2)
        }
    }
}

fn serve(port: u16) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut reactor: Reactor = Reactor::new()?;
    let options = Listen::new().tls(side::server()?);
    let socket = reactor.net().listen_with(("127.0.0.1", port), options, |_, _, _| Ok(Echo))?;
    println!("listening on {}", reactor.net().local(socket).expect("a socket that was just opened has an address"));
    Ok(reactor.run(&mut ())?)
}
