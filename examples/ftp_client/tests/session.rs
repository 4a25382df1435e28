//! The client with a scripted server: what it says, and what it makes of what it hears.

mod common;

use common::{Folder, app, failed, printed};
use ftp_client::{App, Control, Task};
use mainspring::testing::{Actor, Scene};
use std::{fs, path::Path, time::Duration};

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
        ("hello\r\n", "no reply of FTP"),
        ("é\r\n", "no reply of FTP"),
        ("22é x\r\n", "no reply of FTP"),
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
