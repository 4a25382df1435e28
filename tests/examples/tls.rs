//! The examples that speak TLS, against rustls as its documentation uses it, on sockets that block.

use super::{Caller, PATIENCE, Program, accept, listener, nobody, path};
use crate::{
    common::{dial, say},
    configs::{self, cert_path, certificates, client, client_of, roots},
};
use mainspring::rustls::{
    ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    version::{TLS12, TLS13},
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Output},
    sync::Arc,
    thread,
};

type Client = StreamOwned<ClientConnection, TcpStream>;

fn file(name: &str) -> String {
    cert_path(name).to_str().expect("UTF-8").to_owned()
}

/// A server with this certificate.
fn serve(name: &str, certificate: &str, more: &[&str]) -> (Program, SocketAddr) {
    let (cert, key) = (file(&format!("{certificate}.pem")), file(&format!("{certificate}.key")));
    Program::serve(name, &[&["127.0.0.1:0", "--cert", &cert, "--key", &key], more].concat())
}

fn secured(socket: TcpStream, config: &Arc<ClientConfig>) -> Client {
    let name = "localhost".try_into().expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).expect("a config that is whole"), socket)
}

fn call(at: SocketAddr, config: &Arc<ClientConfig>) -> Client {
    secured(dial(at), config)
}

#[track_caller]
fn line(stream: &mut impl Read) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a whole line");
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("text").trim_end().to_owned()
}

#[track_caller]
fn asks(stream: &mut Client, question: &str) -> String {
    writeln!(stream, "{question}").expect("it is read");
    line(stream)
}

/// With close_notify: without it rustls says `UnexpectedEof`.
#[track_caller]
fn hears_the_end(stream: &mut Client) {
    assert_eq!(stream.read(&mut [0]).expect("close_notify"), 0);
}

// ------------------------------------------------------------------------------------------------------------ tls_echo

#[test]
fn an_echo_says_what_was_agreed_on_and_ends_politely() {
    let (program, at) = serve("tls_echo", "p256", &[]);
    for (version, told) in [(&TLS13, "version=1.3 suite=TLS13_"), (&TLS12, "version=1.2 suite=TLS_ECDHE_ECDSA_")] {
        let mut config = client_of(&[version]);
        config.alpn_protocols = vec![b"other".to_vec(), b"echo".to_vec()];
        let config = Arc::new(config);
        for is_resumed in ["no", "yes"] {
            let mut stream = call(at, &config);
            assert_eq!(asks(&mut stream, "hello"), "hello");
            let agreed = asks(&mut stream, "INFO");
            assert!(agreed.starts_with(told), "{agreed}");
            assert!(agreed.ends_with(&format!(" alpn=echo name=localhost resumed={is_resumed} client=0")), "{agreed}");
            assert_eq!(asks(&mut stream, "CLOSE\r"), "bye");
            hears_the_end(&mut stream);
        }
    }
    program.ends_drained();
}

#[test]
fn what_has_no_end_of_line_is_sent_back_too_and_answered_by_an_end() {
    let (_program, at) = serve("tls_echo", "rsa", &[]);
    let mut stream = call(at, &Arc::new(client()));
    stream.write_all(b"one\ntwo").expect("it is read");
    stream.conn.send_close_notify();
    stream.flush().expect("it is read");
    let mut all = String::new();
    stream.read_to_string(&mut all).expect("close_notify");
    assert_eq!(all, "one\ntwo");
}

#[test]
fn an_abort_looks_like_a_lost_connection() {
    let (_program, at) = serve("tls_echo", "ed25519", &[]);
    let mut stream = call(at, &Arc::new(client()));
    assert_eq!(asks(&mut stream, "hello"), "hello");
    stream.write_all(b"ABORT\n").expect("it is read");
    let error = stream.read(&mut [0]).expect_err("no close_notify");
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof), "{error}");
}

#[test]
fn who_shows_no_certificate_is_refused_where_one_is_wanted() {
    let (program, at) = serve("tls_echo", "p256", &["--client-ca", &file("ca.pem")]);
    let mut stream = call(at, &Arc::new(client()));
    let refused = stream.write_all(b"INFO\n").and_then(|()| stream.read(&mut [0])).expect_err("it is refused");
    assert!(refused.to_string().to_lowercase().contains("certificaterequired"), "{refused}");

    let shown = certificates("client");
    let length = shown[0].len();
    let config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring has both")
        .with_root_certificates(roots())
        .with_client_auth_cert(shown, configs::key("client"))
        .expect("they belong together");
    let mut stream = call(at, &Arc::new(config));
    let agreed = asks(&mut stream, "INFO");
    assert!(agreed.ends_with(&format!(" alpn=none name=localhost resumed=no client={length}")), "{agreed}");
    drop(stream);
    program.ends_drained();
}

#[test]
fn who_is_connected_is_let_go_when_it_ends() {
    let (program, at) = serve("tls_echo", "p256", &[]);
    let mut stream = call(at, &Arc::new(client()));
    assert_eq!(asks(&mut stream, "hello"), "hello");
    program.ends_drained();
    hears_the_end(&mut stream);
}

#[test]
fn who_does_not_finish_his_handshake_cannot_keep_it_from_ending() {
    let (mut program, at) = serve("tls_echo", "p256", &[]);
    let _silent = dial(at);
    let mut stream = call(at, &Arc::new(client()));
    assert_eq!(asks(&mut stream, "hello"), "hello"); // whoever came before was accepted before
    program.interrupt();
    assert_eq!(program.end().0.code(), Some(0));
}

#[test]
fn files_that_make_no_server_are_told_in_one_line() {
    let place = std::env::temp_dir().join(format!("mainspring-tls-{}", std::process::id()));
    std::fs::create_dir_all(&place).expect("a folder");
    let made = |name: &str, text: &str| {
        let path = place.join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    };
    let key = std::fs::read_to_string(cert_path("p256.key")).expect("it is checked in");
    let cut = made("cut.pem", &std::fs::read_to_string(cert_path("p256.pem")).expect("it is checked in")[..200]);
    let nonsense = made("nonsense.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let nonkey = made("nonsense.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let encrypted = made("encrypted.key", &key.replace(" PRIVATE", " ENCRYPTED PRIVATE"));
    let (cert, key, other) = (file("p256.pem"), file("p256.key"), file("rsa.key"));
    let wrong: [(&[&str], &str); 11] = [
        (&["--cert", "/no/such", "--key", &key], "cannot read '/no/such': No such file"),
        (&["--cert", &cert, "--key", "/no/such"], "cannot read '/no/such': No such file"),
        (&["--cert", "/", "--key", &key], "cannot read '/': "),
        (&["--cert", &key, "--key", &key], "p256.key' has no certificate in PEM"),
        (&["--cert", &cert, "--key", &cert], "p256.pem' has no private key in PEM"),
        (&["--cert", &cert, "--key", &other], "rsa.key' does not belong to the certificate in '"),
        (&["--cert", &cut, "--key", &key], "cut.pem' is damaged: its PEM cannot be read"),
        (&["--cert", &nonsense, "--key", &key], "nonsense.pem' has a certificate that cannot be read"),
        (&["--cert", &cert, "--key", &nonkey], "nonsense.key' cannot be used: "),
        (&["--cert", &cert, "--key", &encrypted], "encrypted.key' is encrypted: it is wanted in clear"),
        (&["--cert", &cert, "--key", &key, "--client-ca", &key], "p256.key' has no certificate in PEM"),
    ];
    for (arguments, told) in wrong {
        for name in ["tls_echo", "starttls", "chat"] {
            let (stdout, complaint) = Program::start(name, &[&["127.0.0.1:0"], arguments].concat()).ends_badly();
            assert_eq!(stdout, [""; 0]);
            assert!(complaint.starts_with("error: ") && complaint.contains(told), "{name} {arguments:?}: {complaint}");
        }
    }
    std::fs::remove_dir_all(place).expect("ours");
}

#[test]
fn a_command_line_of_tls_that_is_not_understood_is_refused_in_one_line() {
    let (cert, key) = (file("p256.pem"), file("p256.key"));
    let wrong: [(&str, &[&str], &str); 18] = [
        ("tls_echo", &[], "TLS needs both --cert and --key"),
        ("tls_echo", &["--cert", &cert], "TLS needs both --cert and --key"),
        ("tls_echo", &["--cert", "", "--key", &key], "--cert '' names nothing"),
        ("tls_echo", &["nonsense", "--cert", &cert, "--key", &key], "nonsense"),
        ("tls_echo", &["127.0.0.1:0", "surplus"], "surplus"),
        ("starttls", &["--key", &key], "TLS needs both --cert and --key"),
        ("starttls", &["--nonsense"], "--nonsense"),
        ("chat", &["--client-ca", &cert], "TLS needs both --cert and --key"),
        ("https_get", &[], "URL is missing"),
        ("https_get", &["localhost"], "URL must begin with https://, not 'localhost'"),
        ("https_get", &["http://localhost/"], "http:// is not supported"),
        ("https_get", &["https://"], "URL has no host: it is https://HOST"),
        ("https_get", &["https:///x"], "URL has no host: it is https://HOST"),
        ("https_get", &["https://:443/"], "URL has no host: it is https://HOST"),
        ("https_get", &["https://me@localhost/"], "user"),
        ("https_get", &["https://unix:/x"], "URL has no host: there are no certificates"),
        ("https_get", &["https://localhost/a b"], "%20"),
        ("https_get", &["https://localhost/", "--timeout", "0"], "--timeout takes a whole number"),
    ];
    for (name, arguments, word) in wrong {
        let complaint = Program::start(name, arguments).ends_misused();
        assert!(complaint.contains(word), "{name} {arguments:?}: {complaint}");
    }
}

#[test]
fn the_secrets_are_written_where_that_is_asked_for() {
    let log = std::env::temp_dir().join(format!("mainspring-keys-{}", std::process::id()));
    let mut command = Command::new(path("tls_echo"));
    command.args(["127.0.0.1:0", "--cert", &file("p256.pem"), "--key", &file("p256.key")]).env("SSLKEYLOGFILE", &log);
    let program = Program::run(std::process::Stdio::piped(), &mut command);
    let at = program.address().parse().expect("an IP address");
    assert_eq!(asks(&mut call(at, &Arc::new(client())), "hello"), "hello");
    let secrets = std::fs::read_to_string(&log).expect("it was written");
    assert!(secrets.contains("CLIENT_TRAFFIC_SECRET_0 "), "{secrets}");
    std::fs::remove_file(log).expect("ours");
}

// ------------------------------------------------------------------------------------------------------------ starttls

#[test]
fn a_line_server_begins_anew_in_tls() {
    let (program, at) = serve("starttls", "p256", &[]);
    let mut caller = Caller::new(at);
    for (said, answers) in [
        ("", &["220 ready\r"][..]),
        ("MAIL FROM:<a@b>\r\n", &["530 STARTTLS comes first\r"]),
        ("ehlo me\r\n", &["250-localhost\r", "250 STARTTLS\r"]),
        ("STARTTLS\r\n", &["220 go ahead\r"]),
    ] {
        caller.says(said);
        answers.iter().for_each(|answer| caller.hears(answer));
    }
    let mut stream = secured(caller.socket, &Arc::new(client()));
    assert_eq!(asks(&mut stream, "MAIL FROM:<a@b>"), "MAIL FROM:<a@b>");
    assert_eq!(asks(&mut stream, "EHLO me"), "250 localhost");
    assert_eq!(asks(&mut stream, "quit"), "221 bye");
    hears_the_end(&mut stream);
    program.ends_drained();
}

/// CVE-2011-0411.
#[test]
fn what_stands_in_clear_behind_starttls_is_not_obeyed() {
    let (_program, at) = serve("starttls", "p256", &[]);
    for behind in ["EHLO x\r\n", "EHL", "\n"] {
        let mut caller = Caller::new(at);
        caller.hears("220 ready\r");
        caller.says(format!("STARTTLS\r\n{behind}"));
        let mut all = Vec::new();
        let _ = caller.lines.get_mut().read_to_end(&mut all); // a reset, or an end
        let all = String::from_utf8_lossy(&all).into_owned();
        assert!(["", "220 go ahead\r\n"].contains(&all.as_str()), "{behind:?}: {all}");
    }
}

// ---------------------------------------------------------------------------------------------------------------- chat

#[test]
fn a_room_can_be_talked_in_by_tls() {
    let (program, at) = serve("chat", "p256", &[]);
    let config = Arc::new(client());
    let [mut ann, mut ben] = [("Ann", &config), ("Ben", &config)].map(|(name, config)| {
        let mut stream = call(at, config);
        assert_eq!(line(&mut stream), "Your name?");
        assert_eq!(asks(&mut stream, name), format!("Welcome, {name}! /who tells who is here, /quit leaves."));
        stream
    });
    assert_eq!(line(&mut ann), "* Ben joined");
    ben.write_all("good morning\n".as_bytes()).expect("it is read");
    assert_eq!(line(&mut ann), "<Ben> good morning");
    ben.write_all(b"/quit\n").expect("it is read");
    hears_the_end(&mut ben);
    assert_eq!(line(&mut ann), "* Ben left");
    program.ends_drained();
    assert_eq!(line(&mut ann), "* the room closes");
    hears_the_end(&mut ann);
}

// ----------------------------------------------------------------------------------------------------------- https_get

type Server = StreamOwned<ServerConnection, TcpStream>;

/// A server of one connection, in a thread of its own, which ends with the connection.
fn web_server(config: ServerConfig, serve: impl FnOnce(&mut Server) + Send + 'static) -> SocketAddr {
    tcp_server(move |socket| {
        let connection = ServerConnection::new(Arc::new(config)).expect("a config that is whole");
        serve(&mut StreamOwned::new(connection, socket));
    })
}

fn tcp_server(serve: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
    let (listener, at) = listener();
    thread::spawn(move || serve(accept(&listener)));
    at
}

fn request(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read_exact(&mut byte) {
            Ok(()) => head.push(byte[0]),
            Err(_) => return String::new(), // the client has found that it does not trust us
        }
    }
    String::from_utf8(head).expect("text")
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    /// close_notify.
    Polite,
    /// Without it.
    Cut,
    /// The client is to end first.
    Never,
}

/// A server that answers with these bytes.
fn answering(answer: impl Into<Vec<u8>>, end: End) -> SocketAddr {
    let answer = answer.into();
    web_server(configs::server("p256"), move |stream| {
        assert!(request(stream).ends_with("\r\nConnection: close\r\n\r\n"));
        let _ = stream.write_all(&answer); // it does not read the rest of what is too long
        match end {
            End::Polite => stream.conn.send_close_notify(),
            End::Cut => {}
            End::Never => _ = stream.read(&mut [0]),
        }
        let _ = stream.flush();
    })
}

fn fetch_with(arguments: &[&str]) -> Output {
    let mut command = Command::new(path("https_get"));
    command.args(arguments).env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    command.output().expect("it was built")
}

/// With a system that trusts those in this file.
fn fetch_trusting(file: &str, url: &str) -> Output {
    let mut command = Command::new(path("https_get"));
    command.arg(url).env("SSL_CERT_FILE", file).env_remove("SSL_CERT_DIR");
    command.output().expect("it was built")
}

fn fetch(at: SocketAddr, timeout: &str) -> Output {
    fetch_with(&[&format!("https://{at}/"), "--ca", &file("ca.pem"), "--timeout", timeout])
}

#[track_caller]
fn fetches(at: SocketAddr, body: &[u8]) {
    let output = fetch(at, "20");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    assert!(output.stdout == body, "{}", output.stdout.escape_ascii());
}

/// With this exit code, this line of standard error, and this much of a body.
#[track_caller]
fn fails(output: &Output, code: i32, told: &str, body: &str) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), complaint.lines().count()), (Some(code), 1), "{complaint}");
    assert!(complaint.starts_with("error: ") && complaint.contains(told), "{complaint}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), body);
}

#[test]
fn a_page_is_fetched_however_its_length_is_told() {
    let much: Vec<u8> = (0..300_000_u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    let counted = |body: &[u8]| [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat();
    let chunks = much.chunks(70_001).map(|chunk| [format!("{:x};x=y\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    let chunks: Vec<u8> = chunks.flatten().collect();
    let chunked =
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunks.as_slice(), b"0\r\nA-Trailer: x\r\n\r\n"].concat();
    // Where the length is known, the end is of no interest.
    for end in [End::Polite, End::Cut, End::Never] {
        fetches(answering(counted(b"hello"), end), b"hello");
        fetches(answering(counted(&much), end), &much);
        fetches(answering(chunked.clone(), end), &much);
        fetches(answering("HTTP/1.1 204 No Content\r\n\r\n", end), b"");
        fetches(answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", end), b"");
    }
    fetches(answering([b"HTTP/1.1 200 OK\r\n\r\n", much.as_slice()].concat(), End::Polite), &much);
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok";
    fetches(answering(interim, End::Cut), b"ok");
}

#[test]
fn what_is_asked_is_the_host_the_path_and_the_query() {
    let (asked, told) = std::sync::mpsc::channel();
    let at = web_server(configs::server("p256"), move |stream| {
        asked.send((request(stream), stream.conn.alpn_protocol().map(<[u8]>::to_vec))).expect("somebody listens");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").and_then(|()| stream.flush());
    });
    let url = format!("HTTPS://localhost:{}?a=b/c#part", at.port());
    assert_eq!(fetch_trusting(&file("ca.pem"), &url).status.code(), Some(0));
    let (head, protocol) = told.recv_timeout(PATIENCE).expect("it was asked");
    let begin = format!("GET /?a=b/c HTTP/1.1\r\nHost: localhost:{}\r\n", at.port());
    assert!(head.starts_with(&begin), "{head}");
    assert_eq!(protocol, None, "it was offered, and is not insisted on");
}

#[test]
fn a_server_that_cannot_be_trusted_is_told_by_what_is_wrong_with_it() {
    for (certificate, told) in [
        ("expired", "could not agree on TLS: the certificate expired 2021-01-01"),
        ("future", "could not agree on TLS: the certificate is not valid before 2100-01-01"),
        ("other", "could not agree on TLS: the certificate is for `other.example`, not for `127.0.0.1`"),
        ("stranger", "could not agree on TLS: the certificate's issuer is not known"),
    ] {
        let at = web_server(configs::server(certificate), |stream| _ = request(stream));
        fails(&fetch(at, "20"), 6, told, "");
    }
    // Only the tests trust this one, and an empty list of issuers nobody.
    let at = web_server(configs::server("p256"), |stream| _ = request(stream));
    let url = format!("https://{at}/");
    fails(&fetch_trusting(&file("stranger.pem"), &url), 6, "the certificate's issuer is not known", "");
    fails(&fetch_trusting("/dev/null", &url), 2, "has no trusted certificates; give some with --ca", "");
    fails(&fetch_trusting("/no/such", &url), 2, "no trusted certificates: ", "");
    fails(&fetch_with(&[&url, "--ca", "/no/such"]), 1, "cannot read '/no/such'", "");
}

#[test]
fn a_server_with_nothing_in_common_is_told_by_what_that_is() {
    let mut config = configs::server("p256");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let at = web_server(config, |stream| _ = request(stream));
    fails(&fetch(at, "20"), 6, "could not agree on TLS: no application protocol in common", "");

    // An alert, protocol_version: from a server that speaks TLS 1.1 at most.
    let at = tcp_server(|mut socket| {
        let _ = socket.read(&mut [0; 4096]);
        socket.write_all(&[21, 3, 1, 0, 2, 2, 70]).expect("it is read");
        let _ = socket.read(&mut [0]);
    });
    fails(&fetch(at, "20"), 6, "could not agree on TLS: no TLS version in common", "");

    let at = tcp_server(|mut socket| {
        say(&socket, "220 mail ready\r\n");
        let _ = socket.read(&mut [0; 4096]);
    });
    fails(&fetch(at, "20"), 6, "the peer does not speak TLS: it began with `220 mail ready`", "");

    // A server that wants a certificate of ours: with TLS 1.3 we hear of that when all was agreed on.
    let (_program, at) = serve("tls_echo", "p256", &["--client-ca", &file("ca.pem")]);
    fails(&fetch(at, "20"), 6, "", "");
}

#[test]
fn a_server_that_does_not_answer_is_told_by_where() {
    let (_silent, at) = listener();
    fails(&fetch(at, "1"), 5, "the handshake took longer than 1 s", "");
    let at = web_server(configs::server("p256"), |stream| {
        request(stream);
        let _ = stream.read(&mut [0]);
    });
    fails(&fetch(at, "1"), 5, "time-out: ", "");
    for answer in ["Content-Length: 100\r\n\r\npart\n", "Transfer-Encoding: chunked\r\n\r\n64\r\npart\n"] {
        let answer = format!("HTTP/1.1 200 OK\r\n{answer}");
        fails(&fetch(answering(answer, End::Never), "1"), 5, "nothing came for 1 s", "part\n");
    }
    let (_socket, at) = nobody();
    fails(&fetch(at, "20"), 4, "Connection refused", "");
    fails(&fetch_with(&["https://no-such-host.invalid/"]), 3, "no-such-host.invalid", ""); // RFC 6761: never resolved
}

#[test]
fn an_answer_that_is_cut_off_is_an_error() {
    let at = tcp_server(|mut socket| _ = socket.read(&mut [0; 4096]));
    fails(&fetch(at, "20"), 6, "during the handshake", "");
    let cut = "the peer ended without close_notify: what came may be cut short";
    let counted = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello";
    fails(&fetch(answering(counted, End::Cut), "20"), 7, cut, "hello");
    fails(&fetch(answering(counted, End::Polite), "20"), 7, "the server ended, and 4 bytes are missing", "hello");
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    fails(&fetch(answering(chunked, End::Cut), "20"), 7, cut, "hello");
    let amid = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\npart\n";
    fails(&fetch(answering(amid, End::Cut), "20"), 7, cut, "part\n");
    fails(&fetch(answering(amid, End::Polite), "20"), 7, "the last chunk is missing", "part\n");
    fails(&fetch(answering(chunked, End::Polite), "20"), 7, "the last chunk is missing", "hello");
    fails(&fetch(answering("HTTP/1.1 200 OK\r\n\r\nhello", End::Cut), "20"), 7, cut, "hello");
    fails(&fetch(answering("", End::Cut), "20"), 7, cut, "");
    fails(&fetch(answering("HTTP/1.1 200 OK\r\n", End::Polite), "20"), 7, "ended without an answer", "");
}

#[test]
fn an_answer_that_is_none_is_an_error_and_so_is_another_status() {
    let endless = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 100_000]].concat();
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(200));
    let interims = "HTTP/1.1 100 Continue\r\n\r\n".repeat(20);
    let chunked = |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    for (answer, told) in [
        (b"SSH-2.0-OpenSSH\r\n\r\n".to_vec(), "is not HTTP"),
        (endless, "too long"),
        (many.into(), "too many headers in its head"),
        (interims.into(), "too many interim answers"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_vec(), "its length is not a number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx".to_vec(), "there are two"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".to_vec(), "was not asked for"),
        (chunked("x\r\n").into(), "a chunk has no size"),
        (chunked("1\r\nxx\r\n").into(), "a chunk is longer"),
        (chunked(&format!("{}\r\n", "0".repeat(5000))).into(), "too long"),
        (chunked(&format!("0\r\n{}", "X: y\r\n".repeat(200))).into(), "its trailers do not end"),
    ] {
        let output = fetch(answering(answer, End::Never), "20");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), complaint.lines().count()), (Some(7), 1), "{told}: {complaint}");
        assert!(complaint.contains(told), "{told}: {complaint}");
    }
    let answer = "HTTP/1.1 404 Not\x1bFound\r\nContent-Length: 4\r\n\r\ngone";
    let output = fetch(answering(answer, End::Cut), "20");
    assert!(matches!(output.status.code(), Some(7 | 8)), "a control character is none of a reason's");
    let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone";
    fails(&fetch(answering(answer, End::Cut), "20"), 8, "the server says: 404 Not Found", "gone");
    let answer = "HTTP/1.1 301 Moved\r\nLocation: https://elsewhere.example/\r\nContent-Length: 0\r\n\r\n";
    fails(&fetch(answering(answer, End::Cut), "20"), 8, "301 Moved: it has moved to 'https://elsewhere.example/'", "");
}
