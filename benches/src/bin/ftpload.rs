//! How many files of 1 KB a second an FTP server moves, each on a data connection of its own. Blocking, and without mainspring's
//! loop: it is what servers are measured by.

use lexopt::prelude::*;
use mainspring_benches::load::Failure;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

const HELP: &str = "\
Measures how many files of 1 KB a second an FTP server moves.

usage: ftpload [OPTION]... ADDR

  --what down|up    down if not given
  --clients N       at the same time; 1
  --files N         of all clients together; 400
  --user NAME       user
  --password WORD   12345

The server has a folder `small` with files f0 to f499 of 1,024 bytes each. What
is uploaded goes there too, as f0-0 and so on.";

/// What each client does.
#[derive(Clone)]
struct Load {
    at: String,
    is_upload: bool,
    files: u64,
    user: String,
    password: String,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {}", why.to_string().trim_end());
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut load = Load { at: String::new(), is_upload: false, files: 400, user: "user".into(), password: "12345".into() };
    let mut clients = 1;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            Long("what") => match parser.value()?.string()?.as_str() {
                "down" => load.is_upload = false,
                "up" => load.is_upload = true,
                other => return Err(format!("--what takes down or up, not '{other}'").into()),
            },
            Long("clients") => clients = parser.value()?.parse()?,
            Long("files") => load.files = parser.value()?.parse()?,
            Long("user") => load.user = parser.value()?.string()?,
            Long("password") => load.password = parser.value()?.string()?,
            Value(value) if load.at.is_empty() => load.at = value.string()?,
            other => return Err(format!("{}; --help shows how it is used", other.unexpected()).into()),
        }
    }
    if load.at.is_empty() || !(1..=1000).contains(&clients) || load.files < clients {
        return Err("ADDR is needed, 1 to 1000 clients, and a file for each; --help shows how it is used".into());
    }
    load.files /= clients;
    let began = Instant::now();
    let start = |n| {
        let load = load.clone();
        thread::spawn(move || client(n, &load))
    };
    let threads: Vec<_> = (0..clients).map(start).collect();
    for thread in threads {
        thread.join().map_err(|_| "a client panicked")??;
    }
    println!("{:.0}", (load.files * clients) as f64 / began.elapsed().as_secs_f64());
    Ok(())
}

fn client(n: u64, load: &Load) -> Result<(), Failure> {
    let socket = TcpStream::connect(&load.at)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut control = BufReader::new(socket);
    for line in ["", &format!("USER {}", load.user), &format!("PASS {}", load.password), "TYPE I"] {
        ask(&mut control, line)?;
    }
    for file in 0..load.files {
        let reply = ask(&mut control, "EPSV")?;
        let port: u16 = reply.split('|').nth(3).ok_or("EPSV brought no port")?.parse()?;
        let mut data = TcpStream::connect((control.get_ref().peer_addr()?.ip(), port))?;
        let name = format!("small/f{}", (file * 7 + n * 50) % 500);
        if load.is_upload {
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

/// Nothing to ask: the next reply, of one line or of several. The password is not told when it was wrong.
fn ask(control: &mut BufReader<TcpStream>, line: &str) -> Result<String, Failure> {
    if !line.is_empty() {
        write!(control.get_mut(), "{line}\r\n")?;
    }
    let mut reply = String::new();
    loop {
        reply.clear();
        control.read_line(&mut reply)?;
        if reply.as_bytes().get(3) != Some(&b'-') && reply.starts_with(|c: char| c.is_ascii_digit()) || reply.is_empty() {
            break;
        }
    }
    let verb = line.split(' ').next().unwrap_or_default();
    if reply.is_empty() || reply.starts_with(['4', '5']) { Err(format!("{verb}: {reply}").into()) } else { Ok(reply) }
}
