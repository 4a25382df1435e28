mod common;

use common::{App, BODY_MAX, app, folder, frames::client, get, http, text};
use mainspring::{
    Reason,
    testing::{Scene, Transcript, every_cut},
};
use std::{
    fs,
    time::{Duration, UNIX_EPOCH},
};
use web::{
    Http,
    deflate::{Agreed, Deflate},
    files::Root,
    ws,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_file_and_the_next() {
    let mut t = Transcript::with_state(http(), app("a"));
    t.receives(get("/") + &get("/nope") + &get("/"));
    let heard = text(t.sent());
    let statuses: Vec<&str> = heard.lines().filter(|l| l.starts_with("HTTP")).collect();
    assert_eq!(statuses, ["HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found", "HTTP/1.1 200 OK"]);
    t.passes(15 * SECOND).closes(Reason::is_clean);
}

#[test]
fn a_drip_is_cut_after_ten_seconds() {
    let mut t = Transcript::with_state(http(), app("b"));
    for byte in get("/").bytes().take(9) {
        t.receives([byte]).passes(SECOND).sends("");
    }
    t.receives("x").passes(SECOND);
    assert!(text(t.sent()).starts_with("HTTP/1.1 408"));
    t.closes(Reason::is_clean);
}

#[test]
fn a_body_that_drips_is_cut_after_a_minute() {
    let mut t = Transcript::with_state(http(), app("b2"));
    t.receives("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    for _ in 0..59 {
        t.receives("x").passes(SECOND).sends("");
    }
    t.receives("x").passes(SECOND);
    assert!(text(t.sent()).starts_with("HTTP/1.1 408"));
    t.closes(Reason::is_clean);
}

#[test]
fn every_cutting_gives_the_same_answers() {
    let chunked = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x\r\n\n\r\n0\r\nA: b\r\n\r\n";
    let length = "POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /";
    every_cut(format!("{chunked}{length}{}{chunked}{}", get("/Cargo.toml"), get("/nowhere")), http);
}

fn status(t: &mut Transcript<Http<App>, App>, request: impl AsRef<[u8]>) -> String {
    t.receives(request);
    text(t.sent()).lines().next().unwrap_or_default().trim_start_matches("HTTP/1.1 ").to_owned()
}

#[test]
fn an_upload_is_kept_once_it_is_whole_however_it_is_framed() {
    let mut t = Transcript::with_state(http(), app("up"));
    let root = t.state().folder.clone();
    let upload = |name: &str| fs::read(root.join("upload").join(name)).ok();
    t.receives("PUT /upload/a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    t.sends("HTTP/1.1 100 Continue\r\n\r\n").receives("hel").sends("");
    assert_eq!(upload("a.done"), None);
    assert_eq!(status(&mut t, "lo"), "201 Created");
    assert_eq!((upload("a.done"), upload("a")), (Some(b"hello".to_vec()), None));
    let head = "PUT /upload/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    t.receives_bytewise(format!("{head}3\r\nabc\r\n2;x\r\nde\r\n0\r\nA: b\r\n\r\n{}", get("/")));
    let heard = text(t.sent());
    assert!(heard.starts_with("HTTP/1.1 201") && heard.contains("kept\n") && heard.ends_with("hello\n"), "{heard}");
    assert_eq!(upload("b.done"), Some(b"abcde".to_vec()));
    assert_eq!(status(&mut t, "PUT /upload/c HTTP/1.1\r\nHost: a\r\n\r\n"), "201 Created");
    assert_eq!(upload("c.done"), Some(Vec::new()));
    assert_eq!(status(&mut t, "PUT /upload/../d HTTP/1.1\r\nHost: a\r\n\r\n"), "404 Not Found");
}

#[test]
fn what_is_no_chunk_is_refused_in_words() {
    let (long, many) = (format!("2;{}", "x".repeat(2000)), format!("0\r\n{}", "A: b\r\n".repeat(40)));
    for (body, answer) in [
        ("x\r\n", "400 Bad Request"),
        ("3\r\nabcde", "400 Bad Request"),
        ("3\r\nabcde\r\n", "400 Bad Request"),
        ("3\nabc", ""),
        (&long, "400 Bad Request"),
        ("40000001\r\n", "413 Content Too Large"),
        (&many, "431 Request Header Fields Too Large"),
    ] {
        for path in ["/count", "/upload/x"] {
            let method = if path == "/count" { "POST" } else { "PUT" };
            let mut t = Transcript::with_state(http(), app("chunks"));
            let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
            assert_eq!(status(&mut t, head + body), answer, "{method} {body:?}");
        }
    }
}

#[test]
fn a_part_of_a_file_and_what_was_asked_behind_it_come_in_order() {
    for is_inline in [false, true] {
        let state = inline(is_inline, "parts");
        let letters: String = ('a'..='w').cycle().take(300_000).collect();
        fs::write(state.folder.join("letters"), &letters).unwrap();
        let mut t = Transcript::with_state(http(), state);
        let part = "\r\n\r\nGET /letters HTTP/1.1\r\nHost: a\r\nRange: bytes=1-200000\r\n\r\n".to_owned();
        t.receives(part + &get("/") + &get("/nope"));
        let heard = text(t.sent());
        let (head, rest) = heard.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 206") && head.contains("Content-Range: bytes 1-200000/300000\r\n"), "{head}");
        let rest = rest.strip_prefix(&letters[1..200_001]).expect("these bytes of it");
        assert!(rest.starts_with("HTTP/1.1 200 OK") && rest.contains("hello\nHTTP/1.1 404"), "{rest}");
    }
}

#[test]
fn a_file_is_sent_again_only_when_it_has_changed() {
    let (state, mut deck) = (app("dates"), Vec::new());
    let file = fs::File::options().write(true).open(state.folder.join("index.html")).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_millis(784_111_777_900)).unwrap(); // RFC 9110, 5.6.7
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let mut t = Transcript::with_state(http(), state);
    t.receives(get("/"));
    let heard = text(t.sent());
    assert!(heard.contains(&format!("\r\nLast-Modified: {date}\r\n")), "{heard}");
    let etag = heard.split_once("ETag: ").unwrap().1.split_once("\r\n").unwrap().0.to_owned();
    deck.extend([
        (format!("If-Modified-Since: {date}"), 304),
        ("If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT".into(), 304),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT".into(), 200),
        ("If-Modified-Since: yesterday".into(), 200),
        (format!("If-None-Match: {etag}"), 304),
        (format!("If-None-Match: \"x\", W/{etag}"), 304),
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {date}"), 200),
        (format!("Range: bytes=1-2\r\nIf-Range: {etag}"), 206),
        (format!("Range: bytes=1-2\r\nIf-Range: {date}"), 206),
        ("Range: bytes=1-2\r\nIf-Range: Sun, 06 Nov 1994 08:49:38 GMT".into(), 200),
        ("Range: bytes=1-2\r\nIf-Range: \"x\"".into(), 200),
        (format!("If-Match: \"x\", {etag}"), 200),
        ("If-Match: \"x\"".into(), 412),
        (format!("If-Unmodified-Since: {date}"), 200),
        ("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT".into(), 412),
    ]);
    for (header, status) in deck {
        t.receives(get("/").replacen("\r\n\r\n", &format!("\r\n{header}\r\n\r\n"), 1));
        let heard = text(t.sent());
        assert!(heard.starts_with(&format!("HTTP/1.1 {status} ")), "{header}: {heard}");
    }
}

#[test]
fn several_parts_come_in_one_answer() {
    for is_inline in [false, true] {
        let state = inline(is_inline, "several");
        let letters: String = ('a'..='w').cycle().take(300_000).collect();
        fs::write(state.folder.join("letters.txt"), &letters).unwrap();
        let mut t = Transcript::with_state(http(), state);
        let ask = "GET /letters.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=100000-250000, 0-0,-5\r\n\r\n".to_owned();
        t.receives(ask + &get("/nope"));
        let heard = text(t.sent());
        let (head, rest) = heard.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 206") && !head.contains("Content-Range"), "{head}");
        let value = |name: &str| head.split_once(name).unwrap().1.lines().next().unwrap();
        let boundary = value("Content-Type: multipart/byteranges; boundary=");
        let (body, next) = rest.split_at(value("Content-Length: ").parse().unwrap());
        assert!(next.starts_with("HTTP/1.1 404"), "{}", &next[..20]);
        let mut expected = String::new();
        for (range, part) in [("100000-250000", &letters[100_000..250_001]), ("0-0", "a"), ("299995-299999", &letters[299_995..])]
        {
            expected += &format!("--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n");
            expected += &format!("Content-Range: bytes {range}/300000\r\n\r\n{part}\r\n");
        }
        assert!(body == expected + &format!("--{boundary}--\r\n"));
    }
}

#[test]
fn a_file_says_what_it_is() {
    let state = app("kinds");
    let kinds = [
        ("a.html", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.png", "image/png"),
        ("a.svg", "image/svg+xml"),
        ("a.wasm", "application/wasm"),
        ("a", "application/octet-stream"),
    ];
    kinds.iter().for_each(|(name, _)| fs::write(state.folder.join(name), "x").unwrap());
    let mut t = Transcript::with_state(http(), state);
    for (name, kind) in kinds {
        t.receives(get(&format!("/{name}")));
        let heard = text(t.sent());
        assert!(heard.contains(&format!("\r\nContent-Type: {kind}\r\nX-Content-Type-Options: nosniff\r\n")), "{heard}");
    }
}

/// Files are read by the loop, or by other threads.
fn inline(is_inline: bool, name: &str) -> App {
    let app = app(name);
    App { root: app.root.clone().inline(is_inline), ..app }
}

/// A frame of the server's: not masked.
fn server(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = client(opcode, true, payload);
    let header = out.len() - payload.len() - 4;
    out[1] &= 0x7f;
    out.truncate(header);
    out.extend(payload);
    out
}

fn hello() -> String {
    "GET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .into()
}

#[test]
fn the_handshake_of_the_standard_and_frames_in_the_same_packet() {
    let mut bytes = hello().into_bytes();
    bytes.extend(client(1, false, "hé".as_bytes()));
    bytes.extend(client(9, true, b"ping"));
    bytes.extend(client(0, true, "llo".as_bytes()));
    bytes.extend(client(8, true, &1000u16.to_be_bytes()));
    every_cut(&bytes, http);
    let mut t = Transcript::<_, App>::new(http());
    t.receives(&bytes);
    let heard = t.sent();
    let end = heard.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    assert!(text(heard[..end].to_vec()).contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let mut want = server(10, b"ping");
    want.extend(server(1, "héllo".as_bytes()));
    want.extend(server(8, &1000u16.to_be_bytes()));
    assert_eq!(heard[end..], want);
    t.closes(Reason::is_clean);
}

const RSV1: u8 = 0x40;

/// One that may send and get compressed messages, and has had the answer.
fn compressing() -> Transcript<Http<App>, App> {
    let mut t = Transcript::<_, App>::new(http());
    t.receives(hello().replacen(
        "\r\n\r\n",
        "\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
        1,
    ));
    let heard = text(t.sent());
    let answer =
        "\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n\r\n";
    assert!(heard.ends_with(answer), "{heard}");
    t
}

#[test]
fn messages_are_compressed_both_ways_where_that_was_agreed_on() {
    let (agreed, mut deflate) = (Agreed::on("permessage-deflate").unwrap(), Deflate::default());
    let message = "said again and again, ".repeat(50);
    let small = deflate.compressed(message.as_bytes(), agreed);
    assert!(small.len() < 125);
    let answer = server(RSV1 | 1, &small);
    let mut t = compressing();
    t.receives(client(RSV1 | 1, true, &small)).sends(&answer);
    t.receives(client(1, true, message.as_bytes())).sends(&answer); // it need not be compressed
    let (first, rest) = small.split_at(7);
    t.receives(client(RSV1 | 2, false, first)).receives(client(9, true, b"p")).sends(server(10, b"p"));
    t.receives(client(0, false, &[])).receives(client(0, true, rest)).sends(server(RSV1 | 2, &small));
    t.receives(client(RSV1 | 1, true, &deflate.compressed(b"short", agreed))).sends(server(1, b"short"));
    t.receives(client(RSV1 | 1, true, &[0])).sends(server(1, b"")).stays_open();
}

#[test]
fn what_no_compressed_message_can_be_ends_the_connection() {
    let (agreed, mut deflate) = (Agreed::on("permessage-deflate").unwrap(), Deflate::default());
    let bomb = deflate.compressed(&vec![0; (16 << 20) + 1], agreed);
    let refused: [(u16, Vec<u8>); 8] = [
        (1009, client(RSV1 | 2, true, &bomb)),
        (1007, client(RSV1 | 2, true, b"\xff\xff")),
        (1007, client(RSV1 | 1, true, &deflate.compressed(b"\xff", agreed))),
        (1002, client(RSV1 | 9, true, b"p")),
        (1002, [client(1, false, b"a"), client(RSV1, true, b"b")].concat()),
        (1002, client(0x20 | 1, true, b"a")),
        (1002, vec![0x81, 0xfe, 0, 5, 0, 0, 0, 0]),
        (1002, vec![0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]),
    ];
    for (code, bytes) in refused {
        let mut t = compressing();
        t.receives(bytes).sends(server(8, &code.to_be_bytes())).closes(Reason::is_clean);
    }
    let mut t = Transcript::<_, App>::new(http());
    t.receives(hello()).sent();
    t.receives(client(RSV1 | 1, true, &deflate.compressed(b"never agreed on", agreed)));
    t.sends(server(8, &1002u16.to_be_bytes())).closes(Reason::is_clean);
}

#[test]
fn a_message_for_many_is_compressed_for_those_who_can_read_it() {
    let mut scene = Scene::new(1, App::default());
    scene.net().listen("10.0.0.1:80", http).unwrap();
    let offers = [
        "",
        "Sec-WebSocket-Extensions: permessage-deflate\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n",
    ];
    let members = offers.map(|offer| {
        let member = scene.dials("10.0.0.1:80");
        let hello = hello().replacen("/echo", "/chat", 1).replacen(
            "Upgrade: websocket\r\n",
            &format!("Upgrade: websocket\r\n{offer}"),
            1,
        );
        scene.says(member, hello).takes(member);
        member
    });
    let message = "said again and again, ".repeat(50);
    scene.says(members[0], client(1, true, message.as_bytes()));
    let compressed = |offer| ws::text(Agreed::on(offer), &message);
    scene.hears(members[0], server(1, message.as_bytes()));
    scene.hears(members[1], compressed("permessage-deflate"));
    scene.hears(members[2], compressed("permessage-deflate; server_max_window_bits=9"));
}

/// A page that somebody looks at must not talk in his name elsewhere.
#[test]
fn a_page_of_another_host_is_not_let_into_the_room() {
    let origins = [
        ("", 101),
        ("Origin: http://a\r\n", 101),
        ("Origin: https://A\r\n", 101),
        ("Origin: http://b\r\n", 403),
        ("Origin: http://a.b\r\n", 403),
        ("Origin: http://a:81\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Origin: \r\n", 403),
        ("Origin: http://a\r\nOrigin: http://b\r\n", 400),
    ];
    for (origin, status) in origins {
        let mut t = Transcript::<_, App>::new(http());
        let hello = hello().replacen("/echo", "/chat", 1).replacen("Host: a\r\n", &format!("Host: a\r\n{origin}"), 1);
        t.receives(hello);
        let heard = text(t.sent());
        assert!(heard.starts_with(&format!("HTTP/1.1 {status} ")), "{origin}{heard}");
    }
}

#[test]
fn a_ping_after_silence_and_the_end_after_more() {
    let mut t = Transcript::<_, App>::new(http());
    t.receives(hello());
    t.sent();
    t.passes(20 * SECOND).sends(server(9, b"?")).receives(client(10, true, b"?"));
    t.passes(20 * SECOND).sends(server(9, b"?")).passes(20 * SECOND).closes(|why| matches!(why, Reason::Limit(_)));
}

#[test]
fn a_drain_ends_the_idle_at_once_and_the_busy_after_their_answer() {
    let mut scene = Scene::new(1, app("c"));
    scene.net().listen("10.0.0.1:80", http).unwrap();
    let [idle, busy, socket] = [(); 3].map(|()| scene.dials("10.0.0.1:80"));
    scene.says(socket, hello()).takes(socket);
    scene.says(busy, "POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc").hears(busy, "");
    scene.net().drain(30 * SECOND);
    scene.hears(idle, "").passes(SECOND).hears_end(idle);
    scene.hears(socket, server(8, &1001u16.to_be_bytes())).hears_end(socket);
    scene.says(busy, "de");
    let heard = text(scene.takes(busy));
    assert!(heard.contains("Connection: close") && heard.ends_with("5 bytes\n"), "{heard}");
    scene.hears_end(busy);
    assert_eq!(scene.connections(), 0);
}

#[test]
fn who_does_not_read_a_file_is_ended_after_the_stall_time() {
    fs::write(folder("d").join("huge"), vec![b'x'; 30_000_000]).unwrap();
    for is_inline in [false, true] {
        let mut t = Transcript::with_state(http(), inline(is_inline, "d"));
        t.peer_stops_reading().receives(get("/huge")).passes(29 * SECOND).stays_open();
        let queued = t.scene().net().stats().queued;
        assert!(queued < 300_000, "{queued}");
        t.passes(SECOND);
        t.sent();
        t.closes(|why| matches!(why, Reason::Limit(_)));
    }
}

/// It was sent before the client could know that the server goes down.
#[test]
fn a_request_on_its_way_when_the_server_goes_down_is_answered_and_the_last() {
    let mut scene = Scene::new(1, app("last"));
    scene.net().listen("10.0.0.1:80", http).unwrap();
    let late = scene.dials("10.0.0.1:80");
    scene.says(late, get("/")).takes(late);
    scene.net().drain(30 * SECOND);
    scene.passes(SECOND / 2).says(late, get("/"));
    let heard = text(scene.takes(late));
    assert!(heard.starts_with("HTTP/1.1 200") && heard.contains("\r\nConnection: close\r\n"), "{heard}");
    scene.hears_end(late);
}

#[test]
fn what_is_made_while_it_is_sent_comes_in_chunks() {
    let mut t = Transcript::with_state(http(), app("chunked"));
    t.receives(get("/chunked") + &get("/nope"));
    let heard = text(t.sent());
    let (head, rest) = heard.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nTransfer-Encoding: chunked") && !head.contains("Content-Length"), "{head}");
    assert!(rest.starts_with("3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\nHTTP/1.1 404"), "{rest}");
    t.receives("HEAD /chunked HTTP/1.1\r\nHost: a\r\n\r\n");
    let heard = text(t.sent());
    assert!(heard.ends_with("\r\nTransfer-Encoding: chunked\r\n\r\n"), "{heard}");
    t.receives("GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let heard = text(t.sent());
    assert!(heard.contains("\r\nConnection: close\r\n") && heard.ends_with("\r\n\r\nonetwothree"), "{heard}");
    t.closes(Reason::is_clean);
}

#[test]
fn events_come_at_once_and_each_second_until_the_server_goes_down() {
    let mut scene = Scene::new(1, app("events"));
    scene.net().listen("10.0.0.1:80", http).unwrap();
    let [page, deaf] = [(); 2].map(|()| scene.dials("10.0.0.1:80"));
    scene.says(page, get("/events"));
    let heard = text(scene.takes(page));
    assert!(heard.contains("\r\nConnection: close\r\n") && heard.ends_with("\r\n\r\nevent: count\ndata: 1\n\n"), "{heard}");
    scene.passes(SECOND).hears(page, "event: count\ndata: 2\n\n");
    scene.says(deaf, get("/events")).takes(deaf);
    scene.net().drain(SECOND);
    scene.hears_end(page).hears_end(deaf);
}

/// A body that nobody wants: a short one is read, behind a long one nothing is, and who asks before sending one sends none.
#[test]
fn a_body_that_nobody_wants_is_no_request() {
    let post = |headers: &str, body: &str| format!("POST /length HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n{body}");
    for (request, answers, is_over) in [
        (post("Content-Length: 5", "GET /") + &get("/"), 2, false),
        (post("Transfer-Encoding: chunked", "5\r\nGET /\r\n0\r\n\r\n") + &get("/"), 2, false),
        (post("Content-Length: 100000", "GET /") + &get("/"), 1, true),
        (post("Content-Length: 5\r\nExpect: 100-continue", ""), 1, true),
        (post("Transfer-Encoding: chunked", "20000\r\nGET /"), 1, true),
        (post("Transfer-Encoding: chunked", &format!("8000\r\n{0}\r\n8001\r\n{0}", "x".repeat(0x8000))), 1, true),
    ] {
        let mut t = Transcript::with_state(http(), app("unwanted"));
        t.receives(&request);
        let heard = text(t.sent());
        assert_eq!(heard.matches("HTTP/1.1 ").count(), answers, "{request}{heard}");
        assert!(!heard.contains("100 Continue") && heard.contains("without the body\n"), "{request}{heard}");
        if is_over {
            t.closes(Reason::is_clean);
        } else {
            t.stays_open();
        }
    }
    // And one that is wanted has a bound.
    let mut t = Transcript::with_state(http(), app("unwanted"));
    let length = BODY_MAX + 1;
    let answer = status(&mut t, format!("POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
    assert_eq!(answer, "413 Content Too Large");
}

/// Whoever wants it, and when: once, and what follows it is the next request.
#[test]
fn a_body_is_given_once() {
    for (path, bytes) in [("/count", 5), ("/asked-first", 5), ("/twice", 0)] {
        for body in ["Content-Length: 5\r\n\r\nGET /", "Transfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n"] {
            let mut t = Transcript::with_state(http(), app("once"));
            t.receives(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{body}{}", get("/nope")));
            let heard = text(t.sent());
            assert!(heard.contains(&format!("\r\n\r\n{bytes} bytes\nHTTP/1.1 404")), "{path} {heard}");
            t.stays_open();
        }
    }
    let mut t = Transcript::with_state(http(), app("once"));
    t.receives("POST /asked-first HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    t.sends("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(status(&mut t, "hello"), "200 OK");
    assert_eq!(
        status(&mut t, "POST /asked-first HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n"),
        "413 Content Too Large"
    );
}

#[test]
fn an_answer_has_the_body_that_its_status_lets_it_have_however_long() {
    let mut t = Transcript::with_state(http(), app("bodies"));
    t.receives(get("/large") + &get("/nothing") + &get("/nope"));
    let heard = text(t.sent());
    let (head, rest) = heard.split_once("\r\n\r\n").unwrap();
    assert!(head.ends_with(&format!("Content-Length: {}", 3 << 20)), "{head}");
    let rest = rest.strip_prefix(&"x".repeat(3 << 20)).expect("all of it");
    let (nothing, rest) = rest.split_once("\r\n\r\n").unwrap();
    assert!(nothing.starts_with("HTTP/1.1 204 No Content\r\n") && !nothing.contains("Content-Length"), "{nothing}");
    assert!(rest.starts_with("HTTP/1.1 404"), "{rest}");
}

#[test]
fn headers_come_with_what_is_answered_later_and_with_an_upgrade() {
    let mut t = Transcript::with_state(http(), app("headers"));
    t.receives(get("/marked"));
    let heard = text(t.sent());
    assert!(heard.contains("\r\nX-Mark: 1\r\n") && heard.ends_with("later\n"), "{heard}");
    t.receives(get("/nope"));
    assert!(!text(t.sent()).contains("X-Mark"), "of the one before");
    t.receives("GET http://b:80/host HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(text(t.sent()).ends_with("\r\n\r\nb:80\n"));
    t.receives(hello().replacen("/echo", "/named", 1));
    let heard = text(t.sent());
    assert!(heard.starts_with("HTTP/1.1 101") && heard.contains("\r\nSec-WebSocket-Protocol: chat\r\n"), "{heard}");
}

#[test]
#[cfg(unix)]
fn nothing_outside_of_the_folder_is_served_and_nothing_hidden() {
    use std::os::unix::fs::symlink;
    let app = app("outside");
    let outside = folder("outside-of-it");
    let at = |name: &str| app.folder.join(name);
    fs::create_dir_all(at("inner/.git")).unwrap();
    fs::create_dir_all(at(".well-known")).unwrap();
    for (name, is_link) in [("in", "index.html"), ("up", "../"), ("inner/back", "../index.html")].map(|(a, b)| (at(a), b)) {
        let _ = symlink(is_link, name);
    }
    let _ = symlink(&outside, at("out"));
    let _ = symlink(outside.join("index.html"), at("out.html"));
    let _ = symlink("circle", at("circle"));
    for hidden in [".hidden", "inner/.git/config", ".well-known/acme"] {
        fs::write(at(hidden), "hidden").unwrap();
    }
    for is_inline in [false, true] {
        let state = App { root: Root::open(&app.folder).unwrap().inline(is_inline), ..App::at(app.folder.clone()) };
        let mut t = Transcript::with_state(http(), state);
        for (path, answer) in [
            ("/in", "200"),
            ("/inner/back", "200"),
            ("/.well-known/acme", "200"),
            ("/out/index.html", "404"),
            ("/out.html", "404"),
            ("/up/index.html", "404"),
            ("/circle", "404"),
            ("/.hidden", "404"),
            ("/inner/.git/config", "404"),
            ("/../index.html", "400"),
            ("/%2e%2e/index.html", "400"),
            ("/inner/..%2f..%2findex.html", "400"),
            ("//index.html", "400"),
            ("/index.html/", "404"),
            ("/index.html/x", "404"),
            ("/index.html%00.png", "400"),
            (&format!("/{}", "x".repeat(300)), "404"),
            (&format!("/{}", "x/".repeat(3000)), "404"),
        ] {
            let answered = status(&mut t, get(path));
            assert!(answered.starts_with(answer), "{path}: {answered}");
        }
    }
}

#[test]
fn a_folder_is_listed_and_has_a_slash_behind_its_name() {
    let app = app("list");
    fs::create_dir_all(app.folder.join("inner/<folder>")).unwrap();
    fs::write(app.folder.join("inner/a&b \"c\".txt"), "12345").unwrap();
    fs::write(app.folder.join("inner/.hidden"), "").unwrap();
    let mut t = Transcript::with_state(http(), app);
    t.receives(get("/inner?x"));
    let heard = text(t.sent());
    assert!(heard.starts_with("HTTP/1.1 301") && heard.contains("\r\nLocation: /inner/?x\r\n"), "{heard}");
    t.receives(get("/inner/"));
    let heard = text(t.sent());
    let list = "<li><a href=\"../\">../</a>\n<li><a href=\"./%3Cfolder%3E/\">&lt;folder&gt;/</a>\n\
                <li><a href=\"./a%26b%20%22c%22.txt\">a&amp;b &quot;c&quot;.txt</a> 5\n</ul>\n";
    assert!(heard.contains("\r\nContent-Security-Policy: default-src 'none'\r\n") && heard.ends_with(list), "{heard}");
    assert_eq!(status(&mut t, get("/inner/a%26b%20%22c%22.txt")), "200 OK");
}
