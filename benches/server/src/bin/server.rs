//! The server on mainspring that is measured.

use mainspring::{Config, Reactor, Target};
use server::{Echo, Lines, Sink, Source};
use std::{error::Error, process::ExitCode, rc::Rc, time::Duration};

const HELP: &str = "\
Serves on 127.0.0.1, on mainspring, until it is killed.

usage: server MODE PORT [SPIN]

MODE    echo    sends back whatever it gets
        line    sends back each line, with CRLF
        sink    reads and drops
        source  writes without end
        udp     sends back each datagram
PORT    0 takes any free one; the first line of output says which
SPIN    how many microseconds it looks for events before it sleeps; 0 if not
        given";

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let (mode, port, spin) = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}; --help shows how it is used");
            return ExitCode::from(2);
        }
    };
    if let Err(why) = serve(&mode, port, spin) {
        eprintln!("error: cannot serve on 127.0.0.1:{port}: {why}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Mode, port and how long to spin; nothing if only help was wanted.
fn arguments() -> Result<Option<(String, u16, Duration)>, Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (mode, port, spin) = match &words[..] {
        [word] if word == "--help" || word == "-h" => {
            println!("{HELP}");
            return Ok(None);
        }
        [mode, port] => (mode, port, "0"),
        [mode, port, spin] => (mode, port, spin.as_str()),
        _ => return Err("MODE and PORT are needed, and nothing else but SPIN".into()),
    };
    match mode.as_str() {
        "echo" | "line" | "sink" | "source" | "udp" => {}
        _ => return Err(format!("there is no mode \"{mode}\"").into()),
    }
    let port = port.parse().map_err(|_| format!("\"{port}\" is not a port: a number up to 65535"))?;
    let spin = spin.parse().map_err(|_| format!("\"{spin}\" is not a number of microseconds"))?;
    Ok(Some((mode.clone(), port, Duration::from_micros(spin))))
}

fn serve(mode: &str, port: u16, spin: Duration) -> Result<(), Failure> {
    let mut reactor = Reactor::with_config(Config::new().spin(spin))?;
    let mut net = reactor.net();
    let at: Target = ("127.0.0.1", port).into();
    let socket = match mode {
        "echo" => net.listen(at, || Echo),
        "line" => net.listen(at, || Lines),
        "sink" => net.listen(at, || Sink),
        "udp" => net.bind(at, Echo),
        _ => {
            let piece: Rc<[u8]> = vec![b'Z'; 65_536].into();
            net.listen(at, move || Source::new(&piece))
        }
    }?;
    println!("listening on {}", net.local(socket).expect("a socket that was just opened has an address"));
    Ok(reactor.run(&mut ())?)
}
