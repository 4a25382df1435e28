//! The client with a scripted server: what it says, and what it makes of what it hears.

mod common;
#[path = "../../../tests/common/tls.rs"]
mod tls;

use common::{Folder, app, failed, printed};
use ftp_client::{App, Control, Task};
use mainspring::testing::{Actor, Scene};
use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

const S: Duration = Duration::from_secs(1);
const AT: &str = "10.0.0.9:21";

struct Server {
    scene: Scene<App>,
    control: Actor,
    port: u16,
}

impl Server {
    /// It is called, and says hello.
    fn called(app: App) -> Self {
        let mut scene = Scene::new(1, app);
        let control = scene.serves(AT);
        scene.net().connect(AT, Control::default());
        scene.says(control, "220-hello\r\nZoë\u{2019}s\r\n220-220 is no end\r\n220 ready\r\n");
        Self { scene, control, port: 5000 }
    }

    /// The next line, and what is answered.
    fn hears(&mut self, line: &str, answer: &str) -> &mut Self {
        self.scene.hears(self.control, format!("{line}\r\n")).says(self.control, answer);
        self
    }

    fn logs_in(&mut self, features: &str) -> &mut Self {
        self.hears("USER user", "331 password\r\n").hears("PASS 12345", "230 in\r\n");
        self.hears("FEAT", &format!("211-features\r\n{features}211 end\r\n")).hears("TYPE I", "200 binary\r\n")
    }

    /// What is known of a file.
    fn looks(&mut self, name: &str, size: &str, time: &str) -> &mut Self {
        self.hears(&format!("SIZE {name}"), &format!("{size}\r\n")).hears(&format!("MDTM {name}"), &format!("{time}\r\n"))
    }

    /// A file, or a list, comes.
    fn sends(&mut self, command: &str, bytes: &str) -> &mut Self {
        let data = self.passive();
        self.hears(command, "150 here\r\n");
        self.scene.says(data, bytes).ends(data).says(self.control, "226 done\r\n");
        self
    }

    /// A file goes there; the length is checked.
    fn takes(&mut self, name: &str, bytes: &str, length: usize) {
        let data = self.passive();
        self.hears(&format!("STOR {name}"), "150 here\r\n");
        self.scene.hears(data, bytes).hears_end(data).ends(data).says(self.control, "226 done\r\n");
        self.hears(&format!("SIZE {name}"), &format!("213 {length}\r\n"));
    }

    fn passive(&mut self) -> Actor {
        self.port += 1;
        let data = self.scene.serves(&format!("10.0.0.9:{}", self.port));
        let answer = format!("229 come (|||{}|)\r\n", self.port);
        self.hears("EPSV", &answer);
        data
    }

    fn ends(&mut self) {
        let control = self.control;
        self.hears("QUIT", "221 bye\r\n").scene.hears_end(control);
        assert_eq!(self.scene.state().broken, None);
    }

    fn broken(&mut self) -> String {
        self.scene.state().broken.take().expect("it is broken")
    }
}

fn fetch(local: &Path) -> Task {
    Task::Fetch { remote: "file".into(), local: local.join("file"), is_unknown: false }
}

/// As long ago as no file of a test is.
const OLD: &str = "20200102030405";

fn age(file: &Path) {
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_934_245);
    fs::File::options().write(true).open(file).unwrap().set_modified(old).unwrap();
}

#[test]
fn a_list_is_printed_and_does_nothing_to_a_terminal() {
    let mut server = Server::called(app([Task::List("some where".into())]));
    let data = server.logs_in("").passive();
    server.hears("LIST some where", "150 here\r\n");
    server.scene.says(data, "one\r\n\x1b[2Jtwo\r\n").ends(data).says(server.control, "226 done\r\n");
    server.ends();
    assert_eq!((printed(), failed()), (vec!["one".to_owned(), " [2Jtwo".into()], vec![]));
}

#[test]
fn a_file_has_its_name_and_its_time_when_it_is_whole() {
    let here = Folder::new("whole");
    let mut server = Server::called(app([fetch(&here.0)]));
    server.logs_in(" SIZE\r\n MDTM\r\n MLST type*;\r\n").hears("SIZE file", "213 6\r\n");
    server.hears("MDTM file", "213 20200102030405\r\n");
    let data = server.passive();
    server.hears("RETR file", "150 here\r\n");
    server.scene.says(data, "hello\n").settles();
    assert!(!here.path("file").exists());
    server.scene.ends(data).says(server.control, "226 done\r\n");
    server.ends();
    assert_eq!(fs::read(here.path("file")).unwrap(), b"hello\n");
    let time = here.path("file").metadata().unwrap().modified().unwrap();
    assert_eq!(time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 1_577_934_245);
    assert_eq!(failed(), [""; 0]);
}

#[test]
fn what_is_cut_short_or_refused_is_said_and_can_be_gone_on_with() {
    let here = Folder::new("cut");
    let mut app = app([fetch(&here.0), fetch(&here.0), fetch(&here.0), fetch(&here.0), fetch(&here.0)]);
    app.continues = true;
    let mut server = Server::called(app);
    server.logs_in("").hears("SIZE file", "213 6\r\n").hears("MDTM file", "500 what?\r\n");
    let data = server.passive();
    server.hears("RETR file", "550 no\r\n");
    assert_eq!(failed(), ["file: 550 no"]);
    assert!(!here.path("file.part").exists(), "nothing has come");
    server.scene.hears_reset(data);

    server.hears("SIZE file", "213 6\r\n").hears("MDTM file", "500 what?\r\n");
    let data = server.passive();
    server.hears("RETR file", "150 here\r\n");
    server.scene.says(data, "he").ends(data).says(server.control, "226 done\r\n");
    assert!(failed()[0].starts_with("file: 2 bytes have come of 6"));

    server.hears("SIZE file", "213 6\r\n").hears("MDTM file", "500 what?\r\n");
    let data = server.passive();
    server.hears("REST 2", "350 ok\r\n").hears("RETR file", "150 here\r\n");
    server.scene.says(data, "ll").settles().resets(data).says(server.control, "226 done\r\n");
    assert!(failed()[0].starts_with("file: the data connection: "));

    server.hears("SIZE file", "213 6\r\n").hears("MDTM file", "500 what?\r\n");
    let data = server.passive();
    let control = server.control;
    let rest = String::from_utf8(server.scene.settles().takes(control)).unwrap();
    let from: usize = rest.trim().strip_prefix("REST ").expect("there are some").parse().unwrap();
    server.scene.says(control, "350 ok\r\n");
    server.hears("RETR file", "150 here\r\n");
    server.scene.says(data, &b"hello\n"[from..]).ends(data).says(server.control, "426 cut\r\n");
    assert_eq!(failed(), ["file: 426 cut"]);

    server.hears("SIZE file", "213 6\r\n").hears("MDTM file", "500 what?\r\n");
    let data = server.passive();
    server.hears("REST 6", "350 ok\r\n").hears("RETR file", "150 here\r\n");
    server.scene.ends(data).says(server.control, "226 done\r\n");
    server.ends();
    assert_eq!(fs::read(here.path("file")).unwrap(), b"hello\n");
}

#[test]
fn a_server_without_epsv_is_asked_by_pasv_and_its_address_is_not_believed() {
    let mut server = Server::called(app([Task::Show("x".into()), Task::List(String::new())]));
    server.logs_in("").hears("EPSV", "502 what?\r\n").hears("PASV", "227 nonsense\r\n");
    assert_eq!(failed(), ["x: no port in: 227 nonsense"]);
    let data = server.scene.serves("10.0.0.9:6001");
    server.hears("PASV", "227 Entering Passive Mode (10,9,9,9,23,113).\r\n").hears("LIST", "125 here\r\n");
    server.scene.ends(data).says(server.control, "226 done\r\n");
    server.ends();
}

#[test]
fn names_that_lead_elsewhere_are_not_written() {
    let here = Folder::new("names");
    let mirror = Task::FetchAll { remote: "there".into(), local: here.path("in") };
    let mut server = Server::called(app([mirror]));
    let data = server.logs_in(" MLST type*;\r\n").passive();
    server.hears("MLSD there", "150 here\r\n");
    let list = "type=cdir; .\r\ntype=file;size=1; ../a\r\ntype=dir; ..\r\ntype=file;size=1; /b\r\ntype=file;size=1; c\x07\r\ntype=dir; d\r\n";
    server.scene.says(data, list).ends(data).says(server.control, "226 done\r\n");
    assert_eq!(failed().len(), 4);
    let data = server.passive();
    server.hears("MLSD there/d", "150 here\r\n");
    server.scene.ends(data).says(server.control, "226 done\r\n");
    server.ends();
    assert_eq!(fs::read_dir(&here.0).unwrap().count(), 1);
    assert_eq!(fs::read_dir(here.path("in")).unwrap().count(), 1);
}

#[test]
fn a_file_is_stored_its_size_is_checked_and_its_time_is_set() {
    let here = Folder::new("store");
    fs::write(here.path("file"), "hello\n").unwrap();
    let store = || Task::Store { local: here.path("file"), remote: "there".into(), is_unknown: false };
    let mut server = Server::called(app([store(), store()]));
    server.logs_in(" MFMT\r\n");
    for size in [6, 5] {
        let data = server.passive();
        server.hears("STOR there", "150 here\r\n");
        server.scene.hears(data, "hello\n").hears_end(data).ends(data).says(server.control, "226 done\r\n");
        server.hears("SIZE there", &format!("213 {size}\r\n"));
        if size == 6 {
            let control = server.control;
            let line = String::from_utf8(server.scene.settles().takes(control)).unwrap();
            assert!(line.starts_with("MFMT 20") && line.ends_with(" there\r\n"), "{line}");
            server.scene.says(control, "213 ok\r\n");
        }
    }
    server.ends();
    assert_eq!(failed(), ["there: 5 bytes are there of 6"]);
}

#[test]
fn a_server_that_talks_nonsense_is_silent_or_has_no_place_ends_it_in_a_line() {
    for (said, why) in [
        ("hello\r\n", "not a reply of FTP"),
        ("é\r\n", "not a reply of FTP"),
        ("22é x\r\n", "not a reply of FTP"),
        ("421 full\r\n", "421 full"),
        ("530 go away\r\n", "530 go away"),
        ("220 ok\r\n220 ok\r\n220 ok\r\n", "ok"),
        ("", "the server is silent"),
    ] {
        let mut scene = Scene::new(1, app([Task::List(String::new())]));
        let control = scene.serves(AT);
        scene.net().connect(AT, Control::default());
        scene.says(control, said).passes(31 * S);
        let broken = scene.state().broken.take().expect("it is broken");
        assert!(broken.contains(why), "{said}: {broken}");
    }
    let mut scene = Scene::new(1, app([Task::List(String::new())]));
    let control = scene.serves(AT);
    scene.net().connect(AT, Control::default());
    for _ in 0..300 {
        scene.says(control, format!("220-{}\r\n", "x".repeat(1000)));
        if scene.state().broken.is_some() {
            break;
        }
    }
    assert!(scene.state().broken.as_deref().is_some_and(|why| why.contains("without end")));
    let mut server = Server::called(app([]));
    server.hears("USER user", "331 password\r\n").hears("PASS 12345", "530 wrong\r\n");
    assert_eq!(server.broken(), "530 wrong");
}

#[test]
fn any_number_of_tasks_may_fail_at_once() {
    let here = Folder::new("many");
    let mirror = Task::FetchAll { remote: "there".into(), local: here.0.clone() };
    let mut server = Server::called(app([mirror]));
    let data = server.logs_in(" MLST type*;\r\n").passive();
    server.hears("MLSD there", "150 here\r\n");
    let list = format!("type=dir; {}\r\n", "x".repeat(300)).repeat(30_000);
    server.scene.says(data, list).ends(data).says(server.control, "226 done\r\n");
    assert_eq!(failed().len(), 30_000);
    server.ends();
}

#[test]
fn a_server_without_mlsd_is_asked_for_each_file_and_a_file_is_no_folder() {
    let here = Folder::new("names-only");
    for name in ["same", "newer"] {
        fs::write(here.path(name), "here\n").unwrap();
        age(&here.path(name));
    }
    let mut server = Server::called(app([Task::FetchAll { remote: "there".into(), local: here.0.clone() }]));
    server.logs_in("").sends("NLST there", "there/same\r\nnewer\r\nfolder\r\nodd\r\n");
    server.looks("there/same", "213 5", &format!("213 {OLD}"));
    server.looks("there/newer", "213 5", "213 20210102030405").sends("RETR there/newer", "there");
    server.looks("there/folder", "550 no", "550 no").hears("PWD", "257 \"/a \"\"b\"\"\" it is\r\n");
    server.hears("CWD there/folder", "250 there\r\n").hears("CWD /a \"b\"", "250 back\r\n").sends("NLST there/folder", "");
    server.looks("there/odd", "500 what?", "500 what?").hears("PWD", "257 \"/\"\r\n");
    server.hears("CWD there/odd", "550 no folder\r\n").sends("RETR there/odd", "odd");
    server.ends();
    let read = |name| fs::read_to_string(here.path(name)).unwrap();
    assert_eq!([read("same"), read("newer"), read("odd")], ["here\n", "there", "odd"]);
    assert!(here.path("folder").is_dir() && failed().is_empty());

    // And the other way, though a server may not say the time of one.
    let mut server = Server::called(app([Task::StoreAll { local: here.0.clone(), remote: "there".into() }]));
    fs::remove_dir(here.path("folder")).unwrap();
    fs::remove_file(here.path("newer")).unwrap();
    server.logs_in("").hears("MKD there", "550 exists\r\n").sends("NLST there", "same\r\nodd\r\n");
    let control = server.control;
    for _ in 0..2 {
        let asked = String::from_utf8(server.scene.settles().takes(control)).unwrap();
        server.scene.says(control, if asked == "SIZE there/same\r\n" { "213 5\r\n" } else { "213 3\r\n" });
        if asked == "SIZE there/same\r\n" {
            server.hears("MDTM there/same", "213 20210102030405\r\n"); // it was stored later
        } else {
            server.hears("MDTM there/odd", "500 what?\r\n").takes("there/odd", "odd", 3);
        }
    }
    server.ends();
    assert_eq!(failed(), [""; 0]);
}

#[test]
fn where_there_is_no_way_back_nothing_more_is_done() {
    let here = Folder::new("no-way-back");
    let mut server = Server::called(app([Task::FetchAll { remote: "there".into(), local: here.0.clone() }]));
    server.logs_in("").sends("NLST there", "x\r\n").looks("there/x", "550 no", "550 no").hears("PWD", "257 \"/\"\r\n");
    server.hears("CWD there/x", "250 there\r\n").hears("CWD /", "550 no\r\n");
    assert_eq!(server.broken(), "there is no way back: 550 no");
}

#[test]
fn a_server_that_does_not_know_eprt_is_told_by_port() {
    let mut app = app([Task::List(String::new()), Task::List("again".into())]);
    app.is_active = true;
    let mut server = Server::called(app);
    server.logs_in("");
    let control = server.control;
    let said = String::from_utf8(server.scene.settles().takes(control)).unwrap();
    let (here, port) = said.strip_prefix("EPRT |1|").and_then(|said| said.trim_end_matches("|\r\n").split_once('|')).unwrap();
    let port: u16 = port.parse().unwrap();
    server.scene.says(control, "522 no\r\n");
    let told = format!("PORT {},{},{}", here.replace('.', ","), port / 256, port % 256);
    server.hears(&told, "200 ok\r\n").hears("LIST", "425 cannot\r\n");
    let said = String::from_utf8(server.scene.settles().takes(control)).unwrap();
    assert!(said.starts_with("PORT "), "{said}");
    server.scene.says(control, "500 what?\r\n");
    server.ends();
    assert_eq!(failed(), [".: 425 cannot", "again: 500 what?"]);
}

#[test]
fn what_would_be_another_name_is_not_said() {
    let here = Folder::new("lines");
    let odd = || String::from("a\r\nDELE b");
    let store = Task::Store { local: here.path("file"), remote: odd(), is_unknown: false };
    fs::write(here.path("file"), "").unwrap();
    let tasks = [Task::Remove(odd()), Task::MakeFolder("a\nb".into()), Task::Rename("a\0".into(), "b".into()), store];
    let mut server = Server::called(app(tasks));
    server.logs_in("").passive(); // for what is stored
    server.ends();
    let failed = failed();
    assert!(failed.len() == 4 && failed.iter().all(|line| line.contains("FTP cannot send")), "{failed:?}");
    let mut app = app([]);
    app.password = Some("12\r\nDELE b".into());
    let mut server = Server::called(app);
    server.hears("USER user", "331 password\r\n");
    assert!(server.broken().contains("FTP cannot send"));
}

#[test]
fn what_was_changed_since_is_not_gone_on_with() {
    let here = Folder::new("changed");
    fs::write(here.path("mine"), "hello\n").unwrap();
    let store = || Task::Store { local: here.path("mine"), remote: "there".into(), is_unknown: false };
    let mut app = app([store(), store(), store(), store(), fetch(&here.0), fetch(&here.0), fetch(&here.0)]);
    app.continues = true;
    let mut server = Server::called(app);
    server.logs_in("");
    // Older than ours; not shorter; and so that it can be our beginning.
    server.looks("there", "213 2", &format!("213 {OLD}")).takes("there", "hello\n", 6);
    server.looks("there", "213 7", "213 21000102030405").takes("there", "hello\n", 6);
    age(&here.path("mine"));
    server.looks("there", "213 2", &format!("213 {OLD}"));
    let data = server.passive();
    server.hears("REST 2", "350 ok\r\n").hears("STOR there", "150 here\r\n");
    server.scene.hears(data, "llo\n").hears_end(data).ends(data).says(server.control, "226 done\r\n");
    server.hears("SIZE there", "213 6\r\n");
    // It is there already.
    fs::write(here.path("file.part"), "old ").unwrap();
    server.looks("there", "213 6", &format!("213 {OLD}"));
    // What is there has changed since the part came; then it has not; then it is here.
    age(&here.path("file.part"));
    server.looks("file", "213 6", "213 20210102030405").sends("RETR file", "he");
    assert!(failed()[0].contains("2 bytes have come of 6"));
    server.looks("file", "213 6", "213 20210102030405");
    let data = server.passive();
    server.hears("REST 2", "350 ok\r\n").hears("RETR file", "150 here\r\n");
    server.scene.says(data, "llo\n").ends(data).says(server.control, "226 done\r\n");
    server.looks("file", "213 6", "213 20210102030405").ends();
    assert_eq!((fs::read(here.path("file")).unwrap(), failed()), (b"hello\n".to_vec(), vec![]));
}

#[test]
fn who_is_asked_for_a_password_and_has_none_is_told() {
    let mut app = app([]);
    app.password = None;
    let mut server = Server::called(app);
    server.hears("USER user", "331 password\r\n");
    assert_eq!(server.broken(), "user has a password: FTP_PASSWORD or --password-file says it");
}

/// It may have wanted an earlier session of TLS.
#[test]
fn what_is_refused_for_its_connection_is_tried_once_more_in_tls() {
    let mut server = Server::called(app([Task::List("a".into()), Task::List("b".into())]));
    server.logs_in("").passive();
    server.hears("LIST a", "425 no\r\n").passive(); // in clear once is enough
    server.scene.state().tls = Some(tls::sides_of_localhost().1);
    server.hears("LIST b", "425 no\r\n").passive();
    server.hears("LIST b", "522 no\r\n").ends();
    assert_eq!(failed(), ["a: 425 no", "b: 522 no"]);
}

/// What the server still sends, as sessions of TLS, is read.
#[test]
fn an_upload_waits_for_the_servers_end_and_no_longer_than_may_be() {
    let here = Folder::new("half");
    fs::write(here.path("file"), "hello\n").unwrap();
    let store = || Task::Store { local: here.path("file"), remote: "there".into(), is_unknown: false };
    let mut server = Server::called(app([store(), store()]));
    server.logs_in("");
    for is_mute in [false, true] {
        let data = server.passive();
        server.hears("STOR there", "150 here\r\n");
        server.scene.hears(data, "hello\n").hears_end(data).says(server.control, "226 done\r\n").settles();
        let control = server.control;
        assert_eq!(server.scene.takes(control), b"", "it waits");
        match is_mute {
            true => server.scene.passes(31 * S),
            false => server.scene.says(data, "late").ends(data),
        };
        server.hears("SIZE there", "213 6\r\n");
    }
    server.ends();
    assert_eq!(failed(), [""; 0]);
}
