//! How many files of 1 KB a second an FTP server moves, each on a data connection of its own. Blocking, and without
//! mainspring's loop: it is what the server is measured by.

#[path = "../../../common/mod.rs"]
mod common;

use common::{Failure, arguments, exit, misused, print};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

const HELP: &str = "\
Measures how many files of 1 KB a second an FTP server moves.

usage: ftpload [--what down|up] [--clients N] [--files N] ADDR

The server has a folder `small` with files f0 to f499 of 1,024 bytes each.";

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 1, &["what", "clients", "files"])? else { return Ok(()) };
    let at = given.text()?.ok_or_else(|| misused("ADDR is missing"))?;
    let is_upload = given.option("what").is_some_and(|what| what == "up");
    let clients = given.number("clients", 1..=1000)?.unwrap_or(1);
    let files = given.number("files", 1..=u64::MAX)?.unwrap_or(400) / clients;
    let began = Instant::now();
    let start = |n| {
        let at = at.clone();
        thread::spawn(move || client(n, &at, is_upload, files))
    };
    let threads: Vec<_> = (0..clients).map(start).collect();
    for thread in threads {
        thread.join().map_err(|_| "a client panicked")??;
    }
    print(format_args!("{:.0}", (files * clients) as f64 / began.elapsed().as_secs_f64()))
}

fn client(n: u64, at: &str, is_upload: bool, files: u64) -> Result<(), Failure> {
    let socket = TcpStream::connect(at)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut control = BufReader::new(socket);
    for line in ["", "USER user", "PASS 12345", "TYPE I"] {
        ask(&mut control, line)?;
    }
    for file in 0..files {
        let reply = ask(&mut control, "EPSV")?;
        let port: u16 = reply.split('|').nth(3).ok_or("EPSV brought no port")?.parse()?;
        let mut data = TcpStream::connect((control.get_ref().peer_addr()?.ip(), port))?;
        let name = format!("small/f{}", (file * 7 + n * 50) % 500);
        if is_upload {
            ask(&mut control, &format!("STOR {name}-{n}"))?;
            data.write_all(&[b'x'; 1024])?;
        } else {
            ask(&mut control, &format!("RETR {name}"))?;
            let length = data.read_to_end(&mut Vec::new())?;
            if length != 1024 {
                return Err(format!("{name} has {length} bytes").into());
            }
        }
        drop(data);
        ask(&mut control, "")?;
    }
    Ok(())
}

/// Nothing to ask: the next reply.
fn ask(control: &mut BufReader<TcpStream>, line: &str) -> Result<String, Failure> {
    if !line.is_empty() {
        write!(control.get_mut(), "{line}\r\n")?;
    }
    let mut reply = String::new();
    control.read_line(&mut reply)?;
    if reply.is_empty() || reply.starts_with(['4', '5']) { Err(format!("{line}: {reply}").into()) } else { Ok(reply) }
}
