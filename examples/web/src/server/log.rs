//! The access log, in the common format of web servers: what is answered is noted on the loop, and written by another thread,
//! once a second.

use crate::App;
use mainspring::{Context, Lane, Net};
use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs::File,
    io::{self, Write},
    time::{Duration, SystemTime},
};
use web::Done;

const PERIOD: Duration = Duration::from_secs(1);

/// What waits to be written. A disk that is slower than all who ask loses lines, not memory.
const WAITING_MAX: usize = 4 << 20;

pub(crate) struct AccessLog {
    lane: Lane<Box<dyn Write + Send>>,
    /// The same file, for what remains at the end.
    last: Box<dyn Write>,
    lines: String,
    lost: u64,
    is_broken: bool,
}

impl AccessLog {
    /// `-` is standard error: standard output is not ours any more after a restart.
    pub(crate) fn open(net: &mut Net<'_, App>, path: &OsStr) -> io::Result<Self> {
        let (file, last): (Box<dyn Write + Send>, Box<dyn Write>) = if path == "-" {
            (Box::new(io::stderr()), Box::new(io::stderr()))
        } else {
            let file = File::options().append(true).create(true).open(path)?;
            (Box::new(file.try_clone()?), Box::new(file))
        };
        net.every(PERIOD, |net, app: &mut App| {
            if let Some(log) = &mut app.log {
                log.write(net);
            }
        });
        Ok(Self { lane: net.lane(file), last, lines: String::new(), lost: 0, is_broken: false })
    }

    pub(crate) fn note(ctx: &mut Context<'_, App>, app: &mut App, done: &Done<'_>) {
        let Some(log) = &mut app.log else { return };
        if log.lines.len() > WAITING_MAX {
            log.lost += 1;
            return;
        }
        let host = ctx.peer().ip().map_or_else(|| "-".into(), |peer| peer.ip().to_string());
        let request = done
            .request
            .map_or_else(String::new, |request| format!("{} {} HTTP/{}", request.method(), request.target(), request.version()));
        let (date, request) = (date(SystemTime::now()), escaped(&request));
        let bytes = done.bytes.filter(|&bytes| bytes > 0).map_or_else(|| "-".into(), |bytes| bytes.to_string());
        let _ = writeln!(log.lines, "{host} - - [{date}] \"{request}\" {} {bytes}", done.status); // a String takes all
    }

    fn write(&mut self, net: &mut Net<'_, App>) {
        if self.lines.is_empty() || self.lane.pending() > 0 {
            return;
        }
        let lines = std::mem::take(&mut self.lines);
        let count = lines.lines().count() as u64;
        let write = move |file: &mut Box<dyn Write + Send>| file.write_all(lines.as_bytes()).and_then(|()| file.flush());
        self.lane.offload_net(net, write, move |_, app: &mut App, written| {
            let Some(log) = &mut app.log else { return };
            let error = match written {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            // Once for each time that it breaks.
            if let Some(error) = error.as_ref().filter(|_| !log.is_broken) {
                log::warn!("the access log cannot be written: {error}");
            }
            log.lost += if error.is_some() { count } else { 0 };
            if error.is_none() && log.lost > 0 {
                log::warn!("{} lines of the access log were lost", std::mem::take(&mut log.lost));
            }
            log.is_broken = error.is_some();
        });
    }

    /// What remains, when everything else has ended.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.last.write_all(self.lines.as_bytes())
    }
}

/// As `30/Nov/2026:20:15:00 +0000`, made of how HTTP has it: `Mon, 30 Nov 2026 20:15:00 GMT`.
fn date(at: SystemTime) -> String {
    let date = httpdate::fmt_http_date(at);
    let mut parts = date.split(' ').skip(1);
    let mut next = || parts.next().unwrap_or_default();
    format!("{}/{}/{}:{} +0000", next(), next(), next(), next())
}

/// What would end the field, or is no ASCII, as `\xHH`.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte {
            b'"' | b'\\' => out.extend(['\\', byte.into()]),
            b' '..=b'~' => out.push(byte.into()),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_line_has_one_date_and_one_request_whatever_was_asked() {
        assert_eq!(date(UNIX_EPOCH + Duration::from_secs(784_111_777)), "06/Nov/1994:08:49:37 +0000");
        assert_eq!(escaped("GET /\"a\\é HTTP/1.1"), "GET /\\\"a\\\\\\xc3\\xa9 HTTP/1.1");
    }
}
