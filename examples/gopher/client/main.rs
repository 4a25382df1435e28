//! A client for Gopher (RFC 1436): shows menus and texts, writes binaries to a file.
//!
//! The connection is in `fetch.rs`, and `reply.rs` makes something readable of the answer.

#[path = "../../common/mod.rs"]
mod common;
mod fetch;
#[allow(dead_code)] // a server needs the rest
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
A client for Gopher (RFC 1436): shows menus and texts, and writes to a file what
you want to keep.

usage: gopher_client [OPTIONS] HOST [SELECTOR]

HOST is a name or an IP address. Without a SELECTOR you get the server's first
menu.

  --port P        70 if not given
  --output FILE   where to write it; it is FILE.part until all has come. If not
                  given, or if it is -, standard output: a binary is written
                  there as it is, but never to a terminal
  --search WORDS  what to search for, if SELECTOR is a search
  --type T        the type of the item: 0 text, 1 menu, 7 search, 9 binary, g,
                  I, h (others count as binary); if not given, the end of the
                  SELECTOR tells, or else how the answer begins
  --timeout SECS  how long to wait for a connection, and for the next bytes;
                  30 if not given

exit codes:
    0  fetched
    1  the output could not be written
    2  a wrong command line
    3  no such host, or its name could not be looked up
    4  the host cannot be reached, or refused the connection
    5  a time-out, while connecting or while waiting for bytes
    6  the server closed the connection early
    7  the server answered with an error, mostly because the item does not exist
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
    let host = host.ok_or_else(|| misused("HOST is missing: the server to ask"))?;
    if host.contains('/') {
        return Err(misused(format!("HOST is a name or an IP address alone, not a URL: '{host}'")));
    }
    let is_port = |port: &str| port.parse().is_ok_and(|port: u16| port > 0);
    if let Some((name, port)) = host.split_once(':').filter(|(name, port)| is_host(name) && is_port(port)) {
        return Err(misused(format!("HOST must not have a port in it: write {name} --port {port}")));
    }
    let selector = selector.unwrap_or_default();
    if selector.len() > SELECTOR_MAX {
        return Err(misused(format!("the selector has {} bytes, which is more than {SELECTOR_MAX}", selector.len())));
    }
    for text in [Some(&selector), words.as_ref()].into_iter().flatten() {
        if text.contains(['\t', '\r', '\n', '\0']) {
            return Err(misused("SELECTOR and WORDS must not have a tab, a line end or a zero byte in them"));
        }
    }
    if words.is_some() && matches!(selector.as_str(), "" | "/") {
        return Err(misused("--search needs the SELECTOR of a search, which you find in the server's menu"));
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
