use mainspring::{
    Reason,
    testing::{Scene, Transcript, every_cut},
};
use std::{
    fs,
    path::PathBuf,
    time::{Duration, UNIX_EPOCH},
};
use web::{
    App,
    deflate::{Agreed, Deflate},
    http::Http,
    ws,
};

const SECOND: Duration = Duration::from_secs(1);

fn root(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("web-{name}-{}", std::process::id()));
    fs::create_dir_all(dir.join("upload")).unwrap();
    fs::write(dir.join("index.html"), "hello\n").unwrap();
    fs::write(dir.join("big"), vec![b'x'; 300_000]).unwrap();
    dir
}

fn app(name: &str) -> App {
    App { root: root(name), ..App::default() }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_file_and_the_next() {
    let mut t = Transcript::with_state(Http::default(), app("a"));
    t.receives(get("/") + &get("/nope") + &get("/"));
    let heard = text(t.sent());
    let statuses: Vec<&str> = heard.lines().filter(|l| l.starts_with("HTTP")).collect();
    assert_eq!(statuses, ["HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found", "HTTP/1.1 200 OK"]);
    t.passes(15 * SECOND).closes(Reason::is_clean);
}

#[test]
fn a_drip_is_cut_after_ten_seconds() {
    let mut t = Transcript::with_state(Http::default(), app("b"));
    for byte in get("/").bytes().take(9) {
        t.receives([byte]).passes(SECOND).sends("");
    }
    t.receives("x").passes(SECOND);
    assert!(text(t.sent()).starts_with("HTTP/1.1 408"));
    t.closes(Reason::is_clean);
}

#[test]
fn a_body_that_drips_is_cut_after_a_minute() {
    let mut t = Transcript::with_state(Http::default(), app("b2"));
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
    // (no Range of a file here: `every_cut` wants `App: Default`, so the root is the current directory)
    every_cut(format!("{chunked}{length}{}{chunked}{}", get("/Cargo.toml"), get("/nowhere")), Http::default);
}

fn status(t: &mut Transcript<Http, App>, request: impl AsRef<[u8]>) -> String {
    t.receives(request);
    text(t.sent()).lines().next().unwrap_or_default().trim_start_matches("HTTP/1.1 ").to_owned()
}

#[test]
fn an_upload_is_kept_once_it_is_whole_however_it_is_framed() {
    let mut t = Transcript::with_state(Http::default(), app("up"));
    let root = t.state().root.clone();
    let upload = |name: &str| fs::read(root.join("upload").join(name)).ok();
    t.receives("PUT /upload/a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    t.sends("HTTP/1.1 100 Continue\r\n\r\n").receives("hel").sends("");
    assert_eq!(upload("a.done"), None);
    assert_eq!(status(&mut t, "lo"), "201 Created");
    assert_eq!((upload("a.done"), upload("a")), (Some(b"hello".to_vec()), None));
    let head = "PUT /upload/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    t.receives_bytewise(format!("{head}3\r\nabc\r\n2;x\r\nde\r\n0\r\nA: b\r\n\r\n{}", get("/")));
    let heard = text(t.sent());
    assert!(heard.starts_with("HTTP/1.1 201") && heard.contains("5 bytes\n") && heard.ends_with("hello\n"), "{heard}");
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
            let mut t = Transcript::with_state(Http::default(), app("chunks"));
            let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
            assert_eq!(status(&mut t, head + body), answer, "{method} {body:?}");
        }
    }
}

#[test]
fn a_part_of_a_file_and_what_was_asked_behind_it_come_in_order() {
    for is_inline in [false, true] {
        let state = App { is_inline, ..app("parts") };
        let letters: String = ('a'..='w').cycle().take(300_000).collect();
        fs::write(state.root.join("letters"), &letters).unwrap();
        let mut t = Transcript::with_state(Http::default(), state);
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
    let file = fs::File::options().write(true).open(state.root.join("index.html")).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_millis(784_111_777_900)).unwrap(); // RFC 9110, 5.6.7
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let mut t = Transcript::with_state(Http::default(), state);
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
        let state = App { is_inline, ..app("several") };
        let letters: String = ('a'..='w').cycle().take(300_000).collect();
        fs::write(state.root.join("letters.txt"), &letters).unwrap();
        let mut t = Transcript::with_state(Http::default(), state);
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
    kinds.iter().for_each(|(name, _)| fs::write(state.root.join(name), "x").unwrap());
    let mut t = Transcript::with_state(Http::default(), state);
    for (name, kind) in kinds {
        t.receives(get(&format!("/{name}")));
        let heard = text(t.sent());
        assert!(heard.contains(&format!("\r\nContent-Type: {kind}\r\nX-Content-Type-Options: nosniff\r\n")), "{heard}");
    }
}

fn client(opcode: u8, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut out = vec![opcode | if is_final { 0x80 } else { 0 }];
    match payload.len() {
        n @ 0..=125 => out.push(0x80 | n as u8),
        n => {
            out.push(0x80 | 126);
            out.extend((n as u16).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
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
    every_cut(&bytes, Http::default);
    let mut t = Transcript::<_, App>::new(Http::default());
    t.receives(&bytes);
    let heard = t.sent();
    let end = heard.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    assert!(text(heard[..end].to_vec()).contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let mut want = ws::frame(10, b"ping");
    want.extend(ws::frame(1, "héllo".as_bytes()));
    want.extend(ws::frame(8, &1000u16.to_be_bytes()));
    assert_eq!(heard[end..], want);
    t.closes(Reason::is_clean);
}

const RSV1: u8 = 0x40;

/// One that may send and get compressed messages, and has had the answer.
fn compressing() -> Transcript<Http, App> {
    let mut t = Transcript::<_, App>::new(Http::default());
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
    let answer = ws::frame(RSV1 | 1, &small);
    let mut t = compressing();
    t.receives(client(RSV1 | 1, true, &small)).sends(&answer);
    t.receives(client(1, true, message.as_bytes())).sends(&answer); // it need not be compressed
    let (first, rest) = small.split_at(7);
    t.receives(client(RSV1 | 2, false, first)).receives(client(9, true, b"p")).sends(ws::frame(10, b"p"));
    t.receives(client(0, false, &[])).receives(client(0, true, rest)).sends(ws::frame(RSV1 | 2, &small));
    t.receives(client(RSV1 | 1, true, &deflate.compressed(b"short", agreed))).sends(ws::frame(1, b"short"));
    t.receives(client(RSV1 | 1, true, &[0])).sends(ws::frame(1, b"")).stays_open();
}

#[test]
fn what_no_compressed_message_can_be_ends_the_connection() {
    let (agreed, mut deflate) = (Agreed::on("permessage-deflate").unwrap(), Deflate::default());
    let bomb = deflate.compressed(&vec![0; ws::MESSAGE_MAX + 1], agreed);
    let refused: [(u16, Vec<u8>); 6] = [
        (1009, client(RSV1 | 2, true, &bomb)),
        (1007, client(RSV1 | 2, true, b"\xff\xff")),
        (1007, client(RSV1 | 1, true, &deflate.compressed(b"\xff", agreed))),
        (1002, client(RSV1 | 9, true, b"p")),
        (1002, [client(1, false, b"a"), client(RSV1, true, b"b")].concat()),
        (1002, client(0x20 | 1, true, b"a")),
    ];
    for (code, bytes) in refused {
        let mut t = compressing();
        t.receives(bytes).sends(ws::frame(8, &code.to_be_bytes())).closes(Reason::is_clean);
    }
    let mut t = Transcript::<_, App>::new(Http::default());
    t.receives(hello()).sent();
    t.receives(client(RSV1 | 1, true, &deflate.compressed(b"never agreed on", agreed)));
    t.sends(ws::frame(8, &1002u16.to_be_bytes())).closes(Reason::is_clean);
}

#[test]
fn a_message_for_many_is_compressed_for_those_who_can_read_it() {
    let mut scene = Scene::new(1, App::default());
    scene.net().listen("10.0.0.1:80", Http::default).unwrap();
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
    let mut deflate = Deflate::default();
    let compressed = |deflate: &mut Deflate, offer| ws::message(ws::Kind::Text, message.as_bytes(), Agreed::on(offer), deflate);
    scene.hears(members[0], ws::frame(1, message.as_bytes()));
    scene.hears(members[1], compressed(&mut deflate, "permessage-deflate"));
    scene.hears(members[2], compressed(&mut deflate, "permessage-deflate; server_max_window_bits=9"));
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
        let mut t = Transcript::<_, App>::new(Http::default());
        let hello = hello().replacen("/echo", "/chat", 1).replacen("Host: a\r\n", &format!("Host: a\r\n{origin}"), 1);
        t.receives(hello);
        let heard = text(t.sent());
        assert!(heard.starts_with(&format!("HTTP/1.1 {status} ")), "{origin}{heard}");
    }
}

#[test]
fn a_ping_after_silence_and_the_end_after_more() {
    let mut t = Transcript::<_, App>::new(Http::default());
    t.receives(hello());
    t.sent();
    t.passes(20 * SECOND).sends(ws::frame(9, b"?")).receives(client(10, true, b"?"));
    t.passes(20 * SECOND).sends(ws::frame(9, b"?")).passes(20 * SECOND).closes(|why| matches!(why, Reason::Limit(_)));
}

#[test]
fn a_drain_ends_the_idle_at_once_and_the_busy_after_their_answer() {
    let mut scene = Scene::new(1, app("c"));
    scene.net().listen("10.0.0.1:80", Http::default).unwrap();
    let [idle, busy, socket] = [(); 3].map(|()| scene.dials("10.0.0.1:80"));
    scene.says(socket, hello()).takes(socket);
    scene.says(busy, "POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc").hears(busy, "");
    scene.net().drain(30 * SECOND);
    scene.passes(SECOND).hears_end(idle);
    scene.hears(socket, ws::frame(8, &1001u16.to_be_bytes())).hears_end(socket);
    scene.says(busy, "de");
    let heard = text(scene.takes(busy));
    assert!(heard.contains("Connection: close") && heard.ends_with("5 bytes\n"), "{heard}");
    scene.hears_end(busy);
    assert_eq!(scene.connections(), 0);
}

#[test]
fn who_does_not_read_a_file_is_ended_after_the_stall_time() {
    let mut app = app("d");
    fs::write(app.root.join("huge"), vec![b'x'; 30_000_000]).unwrap();
    for is_inline in [false, true] {
        app.is_inline = is_inline;
        let state = App { root: app.root.clone(), is_inline, ..App::default() };
        let mut t = Transcript::with_state(Http::default(), state);
        t.peer_stops_reading().receives(get("/huge")).passes(29 * SECOND).stays_open();
        let queued = t.scene().net().stats().queued;
        assert!(queued < 300_000, "{queued}");
        t.passes(SECOND);
        t.sent();
        t.closes(|why| matches!(why, Reason::Limit(_)));
    }
}
