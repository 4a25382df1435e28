//! A line of the access log, in the common format of web servers.

use crate::App;
use mainspring::Context;
use std::{fmt::Write, time::SystemTime};
use web::Done;

pub(crate) fn note(ctx: &mut Context<'_, App>, app: &mut App, done: &Done<'_>) {
    let Some(log) = &mut app.log else { return };
    let host = ctx.peer().ip().map_or_else(|| "-".into(), |peer| peer.ip().to_string());
    let request = done
        .request
        .map_or_else(String::new, |request| format!("{} {} HTTP/{}", request.method(), request.target(), request.version()));
    let (date, request) = (date(SystemTime::now()), escaped(&request));
    let bytes = done.bytes.filter(|&bytes| bytes > 0).map_or_else(|| "-".into(), |bytes| bytes.to_string());
    log.note(format_args!("{host} - - [{date}] \"{request}\" {} {bytes}", done.status));
}

/// As `30/Nov/2026:20:15:00 +0000`, made from the form of HTTP: `Mon, 30 Nov 2026 20:15:00 GMT`.
fn date(at: SystemTime) -> String {
    let date = httpdate::fmt_http_date(at);
    let mut parts = date.split(' ').skip(1);
    let mut next = || parts.next().unwrap_or_default();
    format!("{}/{}/{}:{} +0000", next(), next(), next(), next())
}

/// Escapes what would end the field, and writes what is not ASCII as `\xHH`.
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
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_line_has_one_date_and_one_request_whatever_was_asked() {
        assert_eq!(date(UNIX_EPOCH + Duration::from_secs(784_111_777)), "06/Nov/1994:08:49:37 +0000");
        assert_eq!(escaped("GET /\"a\\é HTTP/1.1"), "GET /\\\"a\\\\\\xc3\\xa9 HTTP/1.1");
    }
}
