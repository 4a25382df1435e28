//! The server on mainspring that is measured.

use mainspring::{Reactor, Target};
use server::{Echo, Lines, Sink, Source};
use std::{error::Error, process::ExitCode, rc::Rc};

const HELP: &str = "\
Serves on 127.0.0.1, on mainspring, until it is killed.

usage: server MODE PORT

MODE    echo    sends back whatever it gets
        line    sends back each line, with CRLF
        sink    reads and drops
        source  writes without end
PORT    0 takes any free one; the first line of output says which";

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let (mode, port) = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}; --help shows how it is used");
            return ExitCode::from(2);
        }
    };
    if let Err(why) = serve(&mode, port) {
        eprintln!("error: cannot serve on 127.0.0.1:{port}: {why}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Mode and port; nothing if only help was wanted.
fn arguments() -> Result<Option<(String, u16)>, Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [mode, port] = match &words[..] {
        [word] if word == "--help" || word == "-h" => {
            println!("{HELP}");
            return Ok(None);
        }
        [mode, port] => [mode, port],
        _ => return Err("MODE and PORT are needed, and nothing else".into()),
    };
    match mode.as_str() {
        "echo" | "line" | "sink" | "source" => {}
        "udp" => return Err("not yet: this crate has no datagrams".into()),
        _ => return Err(format!("there is no mode \"{mode}\"").into()),
    }
    let port = port.parse().map_err(|_| format!("\"{port}\" is no port: a number up to 65535"))?;
    Ok(Some((mode.clone(), port)))
}

fn serve(mode: &str, port: u16) -> Result<(), Failure> {
    let mut reactor = Reactor::new()?;
    let mut net = reactor.net();
    let at: Target = ("127.0.0.1", port).into();
    let listener = match mode {
        "echo" => net.listen(at, || Echo),
        "line" => net.listen(at, || Lines),
        "sink" => net.listen(at, || Sink),
        _ => {
            let piece: Rc<[u8]> = vec![b'Z'; 65_536].into();
            net.listen(at, move || Source::new(&piece))
        }
    }?;
    println!("listening on {}", net.local(listener).expect("a listener that was just opened has an address"));
    Ok(reactor.run(&mut ())?)
}
