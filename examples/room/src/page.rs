//! The site: the page, which is one file, and its WebSocket.

use crate::{App, lines::per_peer_max, talk};
use mainspring::{Context, Listen};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::LazyLock,
};
use web::{Answer, Request};

const PAGE: &str = include_str!("page.html");

/// What the page may do, and its version, so that no browser gets it twice.
static CSP: LazyLock<String> = LazyLock::new(|| web::page::csp(PAGE));
static TAG: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    PAGE.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
});

/// The bounds for browsers. Each opens one WebSocket, and a connection or two for the page besides.
pub fn bounds(members_max: usize) -> Listen {
    const REFUSAL: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 36\r\n\
                           Retry-After: 60\r\nConnection: close\r\n\r\nThe room is full, try again later.\r\n";
    Listen::new().connections_max(members_max, REFUSAL).per_peer_max(per_peer_max(members_max), REFUSAL)
}

pub fn site(_: &mut Context<'_, App>, app: &mut App, request: &Request) -> Answer<App> {
    let answer = match (request.method(), request.path()) {
        ("GET", "/chat") => talk::answer(request),
        ("GET" | "HEAD", "/") => page(request),
        ("GET" | "HEAD", "/healthz") => {
            Answer::text(200, format!("ok, {} here\n", app.room.len())).header("Cache-Control", "no-store")
        }
        (_, "/" | "/chat" | "/healthz") => Answer::status(405).header("Allow", "GET, HEAD"),
        _ => Answer::status(404),
    };
    answer.header("X-Content-Type-Options", "nosniff")
}

fn page(request: &Request) -> Answer<App> {
    let answer = if request.has_version(&TAG) { Answer::not_modified() } else { Answer::html(PAGE) };
    answer
        .header("ETag", &*TAG)
        .header("Cache-Control", "no-cache")
        .header("Content-Security-Policy", &*CSP)
        .header("Referrer-Policy", "no-referrer")
        .header("Cross-Origin-Opener-Policy", "same-origin")
        .header("Cross-Origin-Resource-Policy", "same-origin")
}
