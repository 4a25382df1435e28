//! The program as its users meet it, with the clients that they have.
#![cfg(unix)]

#[allow(dead_code)] // it has more
#[path = "../../../tests/common/folder.rs"]
mod folder;
#[allow(dead_code)] // it has more
#[path = "../../../tests/common/skips.rs"]
mod skips;
#[path = "../../../tests/common/started.rs"]
mod started;

use folder::Folder;
use skips::skip;
use started::{Server, certs};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    time::Duration,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mail_sink");

struct Sink {
    /// Ends before its folder goes.
    program: Server,
    folder: Folder,
}

impl Sink {
    fn start(name: &str, options: &[&str]) -> Self {
        let folder = Folder::new(name);
        Self::run(Command::new(PROGRAM).args(options).arg(&folder.0).arg("127.0.0.1:0"), folder).expect("it starts")
    }

    fn run(command: &mut Command, folder: Folder) -> Option<Self> {
        Server::try_start(command).map(|program| Self { program, folder })
    }

    fn client(&self) -> Client {
        let socket = TcpStream::connect(self.program.at).expect("it listens");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("not zero");
        let mut client = Client(BufReader::new(socket));
        client.hears("220 localhost ESMTP");
        client
    }

    fn mails(&self, folder: &str) -> Vec<String> {
        let read = fs::read_dir(self.folder.path(folder)).expect("a folder");
        read.map(|entry| fs::read_to_string(entry.expect("readable").path()).expect("text")).collect()
    }

    /// By SIGTERM; the exit status, and the rest of the output.
    fn ends(self) -> (Option<i32>, String) {
        self.program.ends()
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn hears(&mut self, begin: &str) {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line in time");
        assert!(line.starts_with(begin), "{begin}: {line}");
    }

    fn says(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("it reads");
    }

    fn asks(&mut self, line: &str, answer: &str) {
        self.says(&format!("{line}\r\n"));
        self.hears(answer);
    }

    fn rest(mut self) -> String {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).expect("an end in time");
        rest
    }

    fn begins_a_mail(&mut self) {
        for (line, answer) in [("HELO me", "250"), ("MAIL FROM:<a@x>", "250"), ("RCPT TO:<b@y>", "250"), ("DATA", "354")] {
            self.asks(line, answer);
        }
    }
}

/// What a program of others says, if there is one.
fn ask(program: &str, args: &[&str]) -> Option<Output> {
    let output = Command::new("timeout").arg("60").arg(program).args(args).output().expect("timeout(1) exists");
    if output.status.code() == Some(127) {
        skip(format_args!("{program} is not installed"));
        return None;
    }
    Some(output)
}

fn assert_success(output: &Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
}

fn tls() -> [String; 3] {
    ["--tls".into(), certs("p256.pem"), certs("p256.key")]
}

#[test]
fn sigterm_waits_for_the_mail_that_is_coming() {
    let sink = Sink::start("term", &[]);
    let (mut client, mut idle) = (sink.client(), sink.client());
    client.begins_a_mail();
    client.says("hello\r\n");
    let ends = std::thread::spawn(move || sink.ends());
    idle.hears("421 4.3.2 Going down.");
    client.says("..\r\n.\r\n");
    client.hears("250 2.0.0 Stored.");
    assert_eq!(client.rest(), "");
    assert_eq!(ends.join().expect("no panic"), (Some(0), "1 stored, 0 handed on\n".into()));
}

#[test]
fn python_sends_mails_by_starttls_and_without() {
    let [tls, cert, key] = tls();
    let sink = Sink::start("python", &[&tls, &cert, &key]);
    let script = r#"
import smtplib, ssl, sys
port, ca = int(sys.argv[1]), sys.argv[2]
with smtplib.SMTP("localhost", port) as smtp:
    smtp.sendmail("a@x", ["b@y", "c@y"], "Subject: clear\n\n.\n..\nend")
    smtp.starttls(context=ssl.create_default_context(cafile=ca))
    assert smtp.esmtp_features == {}, "nothing of before is believed"
    assert smtp.docmd("MAIL FROM:<a@x>")[0] == 503
    smtp.ehlo()
    assert "starttls" not in smtp.esmtp_features, smtp.esmtp_features
    assert smtp.esmtp_features["size"] == "10485760"
    smtp.sendmail("ä@x", ["b@y"], "Subject: ä\r\n\r\nsecret".encode(), ["SMTPUTF8", "BODY=8BITMIME"])
    try:
        smtp.sendmail("a@x", ["b@y"], "x" * (11 << 20))
        sys.exit("too much was taken")
    except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
        assert error.smtp_code == 552, error
"#;
    let (port, ca) = (sink.program.at.port().to_string(), certs("ca.pem"));
    let Some(output) = ask("python3", &["-c", script, &port, &ca]) else { return };
    assert_success(&output);
    let mut mails = sink.mails("new");
    mails.sort_by_key(|mail| mail.len());
    assert_eq!(mails.len(), 2);
    let (secret, clear) = if mails[0].contains("secret") { (&mails[0], &mails[1]) } else { (&mails[1], &mails[0]) };
    assert!(
        secret.starts_with("Return-Path: <ä@x>\nDelivered-To: b@y\nReceived: from ") && secret.contains("\twith UTF8SMTPS; ")
    );
    assert!(clear.starts_with("Return-Path: <a@x>\nDelivered-To: b@y\nDelivered-To: c@y\n") && clear.contains("\twith ESMTP; "));
    assert!(clear.ends_with("\n\n.\n..\nend\n"), "{clear}");
}

#[test]
fn without_tls_nothing_is_taken_if_it_is_required_and_what_came_in_clear_is_not_believed() {
    let [tls, cert, key] = tls();
    let sink = Sink::start("required", &["--require-tls", &tls, &cert, &key]);
    let mut client = sink.client();
    client.asks("HELO me", "250");
    client.asks("MAIL FROM:<a@x>", "530 5.7.0");
    client.says("STARTTLS\r\nMAIL FROM:<evil@x>\r\n");
    client.hears("220 2.0.0");
    let mut rest = Vec::new();
    let end = client.0.read_to_end(&mut rest);
    assert!(end.is_err() || !rest.windows(3).any(|reply| reply == b"250"), "{}", rest.escape_ascii());
    let (at, ca) = (sink.program.at.to_string(), certs("ca.pem"));
    let script = format!(
        "printf 'EHLO me\\r\\nMAIL FROM:<a@x>\\r\\nQUIT\\r\\n' | \
         openssl s_client -connect {at} -starttls smtp -CAfile {ca} -verify_return_error -quiet"
    );
    if let Some(output) = ask("sh", &["-c", &script]) {
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("250 2.1.0 Ok.") || said.contains("not found"), "{said}");
    }
    assert_eq!(sink.ends().0, Some(0));
}

#[test]
fn swaks_and_curl_send_mails() {
    let [tls, cert, key] = tls();
    let sink = Sink::start("clients", &[&tls, &cert, &key, "--for", "y,z.example"]);
    let (at, mut sent) = (sink.program.at.to_string(), 0);
    let swaks = ["--server", &at, "--from", "a@x", "--to", "b@y", "--pipeline", "--tls-optional", "--body", "by swaks"];
    if let Some(output) = ask("swaks", &swaks) {
        assert_success(&output);
        sent += 1;
        let refused = ask("swaks", &["--server", &at, "--from", "a@x", "--to", "b@elsewhere"]).expect("it is there");
        assert_eq!(refused.status.code(), Some(24), "no recipient was taken");
    }
    let text = sink.folder.path("text");
    fs::write(&text, "Subject: by curl\r\n\r\n.\r\n..\r\nend\r\n").expect("ours");
    let (text, url) = (text.to_str().expect("text"), format!("smtp://localhost:{}", sink.program.at.port()));
    let ca = certs("ca.pem");
    let curl = ["-sS", &url, "--ssl-reqd", "--cacert", &ca, "--mail-from", "a@x", "--mail-rcpt", "b@z.example", "-T", text];
    if let Some(output) = ask("curl", &curl) {
        assert_success(&output);
        sent += 1;
        let mails = sink.mails("new");
        let mail = mails.iter().find(|mail| mail.contains("by curl")).expect("it is there");
        assert!(mail.contains("\twith ESMTPS; ") && mail.ends_with("Subject: by curl\n\n.\n..\nend\n"), "{mail}");
    }
    assert_eq!(sink.mails("new").len(), sent);
}

#[test]
fn a_mail_is_handed_on_by_tls_to_who_has_the_certificate_and_to_nobody_else() {
    let [tls, cert, key] = tls();
    let (last, clear) = (Sink::start("last", &[&tls, &cert, &key]), Sink::start("clear", &[]));
    let (ca, stranger) = (certs("ca.pem"), certs("other.pem"));
    let port = |sink: &Sink, host: &str| format!("{host}:{}", sink.program.at.port());
    let forward = |name: &str, to: &str, ca: &str| {
        let sink = Sink::start(name, &["--forward", to, "--forward-tls", "--forward-ca", ca]);
        let mut client = sink.client();
        client.begins_a_mail();
        client.asks(&format!("Subject: {name}\r\n\r\nhello\r\n."), "250 2.0.0 Stored.");
        sink
    };
    let refused =
        [forward("not-offered", &port(&clear, "localhost"), &ca), forward("not-known", &port(&last, "localhost"), &stranger)];
    let taken = forward("taken", &port(&last, "localhost"), &ca);
    let again = forward("by-address", &port(&last, "127.0.0.1"), &ca);
    for sink in [taken, again] {
        until(|| sink.mails("queue").is_empty());
        assert_eq!(sink.ends(), (Some(0), "1 stored, 1 handed on\n".into()));
    }
    for sink in refused {
        assert_eq!(sink.mails("queue").len(), 1);
        assert_eq!(sink.ends(), (Some(0), "1 stored, 0 handed on\n".into()));
    }
    let mails = last.mails("new");
    assert_eq!((mails.len(), clear.mails("new").len()), (2, 0));
    assert!(mails.iter().all(|mail| mail.contains("\twith ESMTPS; ") && mail.contains("\twith SMTP; ")), "{mails:?}");
}

/// Or it fails, after a minute.
fn until(is_so: impl Fn() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10)); // there is nothing to wait for: another process's files
    }
    panic!("it did not come true in a minute");
}

#[test]
fn on_a_full_disk_a_mail_is_refused_for_now_and_the_session_goes_on() {
    let started = ["-m", "-rm"].iter().find_map(|how| {
        let folder = Folder::new("full");
        let place = folder.0.display();
        let script = format!("mount -t tmpfs -o size=400k none '{place}' && exec '{PROGRAM}' '{place}' 127.0.0.1:0");
        Sink::run(Command::new("unshare").args([how, "sh", "-c", &script]).stderr(Stdio::null()), folder)
    });
    let Some(sink) = started else { return skip("nothing can be mounted here") };
    let mut client = sink.client();
    let sends = |client: &mut Client, lines: usize, answer: &str| {
        client.begins_a_mail();
        client.says(&format!("{}\r\n", "x".repeat(98)).repeat(lines));
        client.asks(".", answer);
    };
    sends(&mut client, 10_000, "452 4.3.1 The disk is full.");
    sends(&mut client, 1000, "250 2.0.0 Stored.");
    sends(&mut client, 10_000, "452 4.3.1 The disk is full.");
    sends(&mut client, 1000, "250 2.0.0 Stored.");
    client.asks("QUIT", "221");
    assert_eq!(sink.ends(), (Some(0), "2 stored, 0 handed on\n".into()));
}

#[test]
fn what_was_acknowledged_is_there_once_though_it_is_killed() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/mail_bars.py");
    for (name, more) in [("killed", &[][..]), ("killed-first", &["forward"])] {
        let folder = Folder::new(name);
        let mut args = vec![script, PROGRAM, folder.0.to_str().expect("text"), "300", "10", "4"];
        args.extend(more);
        let Some(output) = ask("python3", &args) else { return };
        assert_success(&output);
        println!("{name}: {}", String::from_utf8_lossy(&output.stdout).trim_end());
    }
}

#[test]
fn it_can_be_looked_at() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").to_string();
    let sink = Sink::start("inspect", &["--inspect", &free]);
    let mut client = sink.client();
    client.begins_a_mail();
    let mut page = TcpStream::connect(&free).expect("it listens");
    write!(page, "GET /metrics HTTP/1.0\r\nHost: {free}\r\n\r\n").expect("it reads");
    let mut said = String::new();
    page.read_to_string(&mut said).expect("text");
    assert!(said.contains(" 200 ") && said.contains("mainspring_"), "{said}");
    client.asks(".", "250 2.0.0 Stored.");
    drop(client);
    assert_eq!(sink.ends(), (Some(0), "1 stored, 0 handed on\n".into()));
}

#[test]
fn a_wrong_command_line_is_refused() {
    let folder = Folder::new("wrong");
    let folder = folder.0.to_str().expect("text");
    for args in [
        &[][..],
        &["--nonsense"],
        &["--require-tls", folder],
        &["--host", "a b", folder],
        &["--size", "0", folder],
        &["--forward", "host:0", folder],
        &[folder, "nowhere"],
    ] {
        let output = Command::new(PROGRAM).args(args).output().expect("it was built");
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{args:?}");
    }
    let output = Command::new(PROGRAM).args(["/dev/null/nowhere", "127.0.0.1:0"]).output().expect("it was built");
    assert_eq!(output.status.code(), Some(1));
    let output = Command::new(PROGRAM).arg("--help").output().expect("it was built");
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && help.lines().all(|line| line.len() <= 80) && help.contains("usage: mail_sink "));
}
