//! Fetches what a Gopher server has (RFC 1436): shows menus and texts, writes binaries into a file.
//!
//! The connection is in `fetch.rs`, what is made of the answer in `reply.rs`.

#[path = "../../common/mod.rs"]
mod common;
mod fetch;
#[allow(dead_code)] // what only a server needs
#[path = "../gopher.rs"]
mod gopher;
#[path = "../../common/printable.rs"]
mod printable;
mod reply;

use common::{Failure, arguments, misused, path, status};
use fetch::{Asked, Failed, fetch};
use gopher::{Kind, SELECTOR_MAX, is_host};
use std::{path::Path, process::ExitCode, time::Duration};

const HELP: &str = "\
Fetches what a Gopher server has (RFC 1436): shows menus and texts, writes what
it is told into a file.

usage: gopher_client [OPTIONS] HOST [SELECTOR]

HOST is a name or an IP address. Without a SELECTOR it is the server's first
menu that is fetched.

  --port P        70 if not given
  --output FILE   where to write it; FILE appears when all has come, until then
                  it is FILE.part. If not given, or if it is -, to standard
                  output: a binary goes there as it is, but never to a terminal
  --search WORDS  what to search for, where SELECTOR is a search
  --type T        what it is: 0 text, 1 menu, 7 search, 9 binary, g, I, h
                  (others count as binary); if not given, that is told by the
                  ending of the SELECTOR, or else by how the answer begins
  --timeout SECS  how long to wait for a connection, and for the next bytes;
                  30 if not given

exit codes:
    0  fetched
    1  what came could not be written
    2  a wrong command line
    3  no such host, or its name could not be looked up
    4  the host cannot be reached, or refused the connection
    5  a time-out, while connecting or while waiting for bytes
    6  the server closed the connection early
    7  the server answered with an error: mostly that there is no such thing
  130  interrupted";

fn main() -> ExitCode {
    let outcome = match asked() {
        Ok(Some(asked)) => fetch(asked),
        Ok(None) => Ok(()),
        Err(why) => Err(Failed::Here(why)),
    };
    status(outcome.map_or_else(Failed::own_up, |()| 0))
}

/// Nothing if only help was wanted.
fn asked() -> Result<Option<Asked>, Failure> {
    let Some(mut given) = arguments(HELP, 2, &["port", "output", "search", "type", "timeout"])? else { return Ok(None) };
    let (host, selector, words) = (given.text()?, given.text()?, given.option_text("search")?);
    let output = given.option("output").map(|file| path("--output", file.clone())).transpose()?;
    let output = output.filter(|path| *path != Path::new("-"));
    let port = given.number("port", 1..=u16::MAX)?.unwrap_or(70);
    let kind = given.option_text("type")?.map(|text| kind_of(&text)).transpose()?;
    let timeout = given.seconds("timeout")?.unwrap_or(Duration::from_secs(30));
    let host = host.ok_or_else(|| misused("HOST is missing: whom to ask?"))?;
    if host.contains('/') {
        return Err(misused(format!("HOST is no URL, but a name or an IP address alone, not '{host}'")));
    }
    let is_port = |port: &str| port.parse().is_ok_and(|port: u16| port > 0);
    if let Some((name, port)) = host.split_once(':').filter(|(name, port)| is_host(name) && is_port(port)) {
        return Err(misused(format!("HOST has no port in it: write {name} --port {port}")));
    }
    let selector = selector.unwrap_or_default();
    if selector.len() > SELECTOR_MAX {
        return Err(misused(format!("the selector has {} bytes, which is more than {SELECTOR_MAX}", selector.len())));
    }
    for text in [Some(&selector), words.as_ref()].into_iter().flatten() {
        if text.contains(['\t', '\r', '\n', '\0']) {
            return Err(misused("neither a tab nor a line's end nor a zero byte can be asked for"));
        }
    }
    if words.is_some() && matches!(selector.as_str(), "" | "/") {
        return Err(misused("--search needs the SELECTOR of a search: the server's menu tells it"));
    }
    let kind = kind.or_else(|| words.as_ref().map(|_| Kind::Search)).or_else(|| told_by(&selector));
    Ok(Some(Asked { host, port, selector, words, kind, output, timeout }))
}

fn kind_of(text: &str) -> Result<Kind, Failure> {
    match text.as_bytes() {
        [code] if code.is_ascii_graphic() => Ok(Kind::of(*code)),
        _ => Err(misused(format!("--type takes one character, not '{text}'"))),
    }
}

fn told_by(selector: &str) -> Option<Kind> {
    if selector.is_empty() || selector.ends_with('/') { Some(Kind::Menu) } else { Kind::of_name(selector) }
}
