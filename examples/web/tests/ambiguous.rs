//! Requests that could mean two things, or nothing (RFC 9112): each is refused, or answered as the RFC wants, and nothing that
//! somebody in front of us could take for a body is ever taken for a request.

mod common;

use common::{app, http, text};
use mainspring::{Reason, testing::Transcript};

/// What stands behind each: if it is answered, it was taken for a request.
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

/// What comes, and the status that it is answered with.
fn requests() -> Vec<(&'static str, u16)> {
    vec![
        // Two lengths, or one that is none.
        ("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nabcde", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nabcde", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nabcde", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nabcde", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 5 6\r\n\r\nabcde", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nabcde", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nabcde", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: \u{666}\r\n\r\nabcde", 400),
        // A length and chunks, and codings that are not ours.
        ("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST /c HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        // Chunks.
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;\nx\r\na\r\n0\r\n\r\n", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\naXX0\r\n\r\n", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\n0\r\n\r\n", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nGET /x HTTP/1.1\r\n\r\n", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA : b\r\n\r\n", 400),
        // Blanks that are none.
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\u{a0}\r\n\r\n0\r\n\r\n", 501),
        ("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 5\u{85}\r\n\r\nabcde", 400),
        ("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: \u{3000}5\r\n\r\nabcde", 400),
        // Lines and names.
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n", 400),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n", 400),
        ("G\u{e9}T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        // The first line.
        ("GET /\r\n\r\n", 400),
        ("GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("GET index.html HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET x?a=://b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 400),
        // Whom it asks.
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        // What is expected of us.
        ("POST /c HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 5\r\n\r\nabcde", 417),
    ]
}

#[test]
fn what_could_mean_two_things_is_refused_once_and_nothing_follows() {
    for (request, status) in requests() {
        let mut t = Transcript::with_state(http(), app("ambiguous"));
        t.receives(format!("{request}{NEXT}"));
        let heard = text(t.sent());
        assert!(heard.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {heard}");
        assert_eq!(heard.matches("HTTP/1.1 ").count(), 1, "{request:?}: {heard}");
        assert!(heard.contains("\r\nConnection: close\r\n"), "{request:?}: {heard}");
        t.closes(Reason::is_clean);
    }
}

/// What looks odd and means one thing.
#[test]
fn what_means_one_thing_is_answered_and_the_next_too() {
    for (request, status) in [
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 200), // the target counts (RFC 9112, 3.2.2)
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nhOST: a\r\nX:\r\nY: \t b \t\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /", 200),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{e9}\r\n\r\n", 200),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n1 ;x=\"y\"\r\na\r\n00\r\nT: u\r\n\r\n", 200),
        ("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\n\r\nabcde", 200),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200),
        ("FOO / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ] {
        let mut t = Transcript::with_state(http(), app("odd"));
        t.receives(format!("{request}{NEXT}"));
        let heard = text(t.sent());
        assert!(heard.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {heard}");
        assert_eq!(heard.matches("HTTP/1.1 404 ").count(), 1, "{request:?}: {heard}");
        t.stays_open();
    }
}

/// More than is taken of anything.
#[test]
fn what_is_too_much_is_refused() {
    let many = "X: y\r\n".repeat(10_000);
    for (request, status) in [
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(20_000)), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(20_000)), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", &many[..6 * 100]), 431),
    ] {
        let mut t = Transcript::with_state(http(), app("much"));
        t.receives(&request);
        let heard = text(t.sent());
        assert!(heard.starts_with(&format!("HTTP/1.1 {status} ")), "{}: {heard}", &request[..60]);
        t.closes(Reason::is_clean);
    }
}
