//! A live page about the reactor itself, and its figures for Prometheus: a site on a listener of its own, for any application.
//!
//! ```no_run
//! use mainspring::{Listen, Reactor};
//! use web::{Http, inspect};
//!
//! # let mut reactor = Reactor::<()>::new()?;
//! # let mut net = reactor.net();
//! let at = Listen::new().connections_max(16, "");
//! net.listen_with("127.0.0.1:8081", at, |_, _, _| Ok(Http::new(inspect::site)))?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Everybody who can connect to it sees who is connected, but nobody can change anything. It costs nothing while nobody looks.

use crate::{Answer, Request, metrics, page, sse};
use mainspring::{Connection, Context, Key, Kind, Net};
use serde_json::{Map, Value, json};
use std::{
    cmp::Reverse,
    net::{IpAddr, Ipv6Addr},
    sync::LazyLock,
    time::Duration,
};

/// How many connections are listed: nobody reads a longer page, and each row costs time every second.
const ROWS_MAX: usize = 500;

const PERIOD: Duration = Duration::from_secs(1);

const PAGE: &str = include_str!("inspect.html");

static CSP: LazyLock<String> = LazyLock::new(|| page::csp(PAGE));

/// The site, for clients that use an address or `localhost`. This protects against DNS rebinding, where somebody else's page
/// has a name that suddenly means this address: such a page asks by its own name, and gets nothing.
pub fn site<S: 'static>(ctx: &mut Context<'_, S>, state: &mut S, request: &Request) -> Answer<S> {
    if is_nobodys_name(request.host()) {
        return any_host(ctx, state, request);
    }
    Answer::text(403, "Use an address or localhost: any other name could be somebody else's.\n")
}

/// The site without this check, for a listener behind a proxy that knows who may ask.
pub fn any_host<S: 'static>(ctx: &mut Context<'_, S>, _: &mut S, request: &Request) -> Answer<S> {
    if !matches!(request.method(), "GET" | "HEAD") {
        return Answer::status(405).header("Allow", "GET, HEAD");
    }
    let answer = match request.path() {
        _ if is_of_another_site(request) => return Answer::status(403),
        "/" => return Answer::redirect(302, "/inspect"),
        "/inspect" => Answer::html(PAGE).header("Content-Security-Policy", &*CSP),
        "/inspect/events" => return events(), // never cached anyway
        "/metrics" => Answer::new(200, metrics::KIND, metrics::text(&ctx.net.stats()).into_bytes()),
        _ => return Answer::status(404),
    };
    answer.header("Cache-Control", "no-store").header("X-Content-Type-Options", "nosniff")
}

/// Whether this `Host` cannot be the name of somebody else's page: there is none (no browser does that), or it is a literal
/// address or `localhost` (RFC 6761, 6.3).
fn is_nobodys_name(host: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(literal) => literal.parse::<Ipv6Addr>().is_ok(),
        None => host.is_empty() || name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_ipv4()),
    }
}

/// Whether another site's page loads this by itself, rather than by a link that somebody follows (Fetch Metadata).
fn is_of_another_site(request: &Request) -> bool {
    let from = request.header("sec-fetch-site").unwrap_or("none");
    !matches!(from, "none" | "same-origin") && request.header("sec-fetch-mode") != Some("navigate")
}

fn events<S: 'static>() -> Answer<S> {
    let mut began = None;
    Answer::events(PERIOD, move |ctx, _| {
        let now = ctx.net.now();
        let at = now - *began.get_or_insert(now);
        sse::event("reactor", &event(&ctx.net, ctx.key, at).to_string())
    })
}

/// Everything the page shows at one moment. `viewer` is the connection that asks: its own protocol is at work, and has no
/// name now.
fn event<S>(net: &Net<'_, S>, viewer: Key, at: Duration) -> Value {
    let stats = net.stats();
    let number = |value: f64| if value.fract() == 0.0 { (value as u64).into() } else { value.into() };
    let figures: Map<_, _> =
        metrics::figures(&stats).into_iter().map(|figure| (figure.name.to_owned(), number(figure.value))).collect();
    let closed: Map<_, _> =
        metrics::reasons(&stats.closed).into_iter().map(|(reason, count)| (reason.to_owned(), count.into())).collect();
    let all = net.connections();
    let mut listed: Vec<_> = all.iter().collect();
    if listed.len() > ROWS_MAX {
        listed.select_nth_unstable_by_key(ROWS_MAX, |conn| rank(conn));
        listed.truncate(ROWS_MAX);
    }
    let mut event = json!({
        "at": at.as_secs_f64(),
        "figures": figures,
        "closed": closed,
        "longest": [stats.longest_callback_of, stats.longest_callback_name],
        "held": all.len(),
    });
    event["rows"] = listed.into_iter().map(|conn| row(conn, viewer)).collect(); // not in `json!`, which copies what it is given
    event
}

/// The order of the rows: first what is not a connection (there are few), then connections that are held, that have most to
/// send or read, that have sent or received most.
fn rank(conn: &Connection) -> Reverse<(bool, usize, u64)> {
    let is_conn = matches!(conn.kind, Kind::Accepted | Kind::Opened | Kind::Lingering);
    Reverse((!is_conn || !conn.holds.is_empty(), conn.queued + conn.unread, conn.bytes_in + conn.bytes_out))
}

/// Leaves out what is zero, which would be most of an event.
fn row(conn: &Connection, viewer: Key) -> Value {
    let mut row = json!({
        "key": conn.key.to_string(),
        "kind": format!("{:?}", conn.kind),
        "protocol": if conn.key == viewer { "this page's feed" } else { conn.protocol },
        "peer": conn.peer.to_string(),
        "age": conn.age.as_secs(),
        "in": conn.bytes_in,
        "out": conn.bytes_out,
    });
    if conn.queued + conn.unread > 0 {
        (row["queued"], row["unread"]) = (conn.queued.into(), conn.unread.into());
    }
    if conn.terminator != "None" {
        row["terminator"] = conn.terminator.into();
    }
    let is_conn = matches!(conn.kind, Kind::Accepted | Kind::Opened);
    let states = [
        (is_conn && !conn.is_connected, "connecting"),
        (conn.is_paused, "paused"),
        (!conn.holds.is_empty(), "held"),
        (conn.is_congested, "congested"),
        (conn.is_ending, "ending"),
    ];
    if states.iter().any(|(is_so, _)| *is_so) {
        row["state"] = states.iter().filter(|(is_so, _)| *is_so).map(|(_, state)| *state).collect();
    }
    if !conn.holds.is_empty() {
        row["holds"] = conn.holds.iter().map(|(place, since)| json!([place.to_string(), since.as_secs()])).collect();
    }
    row
}
