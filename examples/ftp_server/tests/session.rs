//! Sessions on the simulated network: every command, with good and with bad arguments, and what becomes of a transfer.

mod common;

use common::{Folder, Session, code_of, settings};
use ftp_server::{Control, User};
use mainspring::testing::{Actor, Fate};
use std::{fs, os::unix::fs::symlink, time::Duration};

const S: Duration = Duration::from_secs(1);

/// Whoever is logged in and may write, in binary.
fn session(name: &str) -> Session {
    let root = Folder::new(name);
    fs::write(root.path("hello"), "hello\n").unwrap();
    fs::write(root.path("big"), vec![7; 3_000_000]).unwrap();
    fs::create_dir(root.path("folder")).unwrap();
    let mut session = Session::begin(root);
    session.log_in();
    session
}

#[test]
fn every_command_answers_good_arguments_and_bad_ones() {
    let mut s = session("commands");
    let cases = "
        NOOP 200 ~ NOOP x 501 ~ SYST 215 ~ FEAT 211 ~ HELP 214 ~ HELP stor 214 ~ HELP nope 501 ~ STAT 211 ~ STAT folder 213 ~
        STAT nope 550 ~ STAT * 550 ~ OPTS utf8 on 200 ~ OPTS mlst type;size; 200 ~ OPTS mlst type 501 ~ OPTS mlst a b; 501 ~
        OPTS nope 501 ~ OPTS 501 ~ TYPE a 200 ~ TYPE A N 200 ~ TYPE l8 200 ~ TYPE e 504 ~ TYPE i 200 ~ TYPE 501 ~ MODE s 200 ~
        MODE b 504 ~ MODE x 501 ~ STRU f 200 ~ STRU r 504 ~ STRU x 501 ~ ALLO 10 202 ~ ALLO 501 ~
        PWD 257 ~ PWD x 501 ~ XPWD 257 ~ CWD folder 250 ~ CDUP 250 ~ XCUP 250 ~ CDUP x 501 ~ CWD hello 550 ~ CWD nope 550 ~
        CWD ../../.. 250 ~ CWD 250 ~ XCWD folder 250 ~ CWD / 250 ~
        MKD new 257 ~ MKD new 550 ~ MKD nope/new 550 ~ MKD 501 ~ XMKD new/er 257 ~ RMD new 550 ~ RMD new/er 250 ~ XRMD new 250 ~
        RMD nope 550 ~ RMD hello 550 ~ RMD / 550 ~ DELE nope 550 ~ DELE folder 550 ~ DELE / 550 ~ DELE 501 ~
        RNFR nope 550 ~ RNFR / 550 ~ RNTO x 503 ~ RNFR hello 350 ~ RNTO other 250 ~ RNTO other 503 ~ RNFR other 350 ~ RNTO hello 250 ~
        RNFR hello 350 ~ RNTO / 550 ~ RNFR hello 350 ~ RNTO nope/x 550 ~ RNFR 501 ~ RNTO 501 ~
        SIZE hello 213 ~ SIZE folder 550 ~ SIZE nope 550 ~ SIZE 501 ~ MDTM hello 213 ~ MDTM nope 550 ~ MDTM 501 ~
        MFMT 20200102030405 hello 213 ~ MFMT 20200102030405 nope 550 ~ MFMT 20201302030405 hello 501 ~ MFMT 2020 hello 501 ~
        MFMT hello 501 ~ MFMT 501 ~ MLST 250 ~ MLST hello 250 ~ MLST nope 550 ~
        SITE help 214 ~ SITE help chmod 214 ~ SITE help x 501 ~ SITE chmod 600 hello 200 ~ SITE chmod 888 hello 501 ~
        SITE chmod 600 501 ~ SITE chmod 501 ~ SITE chmod 600 nope 550 ~ SITE nope 500 ~ SITE 501 ~
        REST 5 350 ~ REST x 501 ~ REST -1 501 ~ REST 501 ~ STOR / 550 ~ ABOR 225 ~ ABOR x 501 ~
        RETR hello 150 ~ ABOR 226 ~ RETR nope 550 ~ RETR folder 550 ~ RETR 501 ~ LIST 150 ~ ABOR 226 ~ NLST nope 550 ~ MLSD hello 501 ~ STOR folder 550 ~
        STOR nope/x 550 ~ STOR 501 ~ APPE 501 ~ STOU 150 ~ ABOR 226 ~ REST 3 350 ~ APPE hello 450 ~ REST 7 350 ~ RETR hello 554 ~ REST 7 350 ~
        STOR hello 554 ~ EPSV 229 ~ EPSV 2 522 ~ EPSV 9 501 ~ PASV 227 ~ PASV x 501 ~ PORT 1,2,3,4 501 ~ PORT 10,0,0,1,10,10 501 ~
        PORT 1,2,3,4,5,256 501 ~ EPRT |1|10.0.0.1|2570| 501 ~ EPRT |2|::1|2570| 522 ~ EPRT |9|x|2570| 522 ~ EPRT 1 501 ~ PORT 501 ~
        AUTH tls 502 ~ PBSZ 0 502 ~ PROT p 502 ~ CCC 502 ~ ACCT x 502 ~ XYZ 500 ~ PASS again 503 ~ REIN x 501 ~
        EPSV all 220 ~ PASV 501 ~ EPRT |1|10.0.0.1|2570| 501 ~ EPSV 229 ~ USER user 331 ~ PWD 530 ~ PASS 12345 230 ~ REIN 230 ~
        LIST 530 ~ PASS 12345 503 ~ USER 501 ~ QUIT x 501 ~ QUIT 221";
    for case in cases.split('~').map(str::trim) {
        let (line, code) = case.rsplit_once(' ').unwrap_or(("", case));
        let heard = s.asks(line);
        assert_eq!(code_of(&heard), code, "{line}: {heard}");
    }
    s.scene.hears_end(s.control);
}

impl Session {
    fn passive(&mut self) -> Actor {
        let reply = self.asks("EPSV");
        self.scene.dials(&format!("10.0.0.1:{}", reply.split('|').nth(3).expect("a port")))
    }
}

#[test]
fn what_only_begins_like_a_command_is_none_and_stores_nothing() {
    let mut s = session("almost");
    let before = fs::read_dir(&s.root.0).unwrap().count();
    s.passive();
    for name in ["NOOP-", "NOOP-A", "SIZE+", "STOR+", "MLST ", "STO", "S", "CWD-", "-", "+", "O"] {
        for line in [format!("{name} x"), format!("{} x", name.to_lowercase())] {
            let heard = s.asks(&line);
            // Of `MLST ` the name is right, and ` x` is what there is not.
            assert_eq!(code_of(&heard), if name == "MLST " { "550" } else { "500" }, "{line}: {heard}");
        }
    }
    assert_eq!(code_of(&s.asks("HELP NOOP-")), "501");
    assert_eq!(fs::read_dir(&s.root.0).unwrap().count(), before);
}

#[test]
fn a_download_from_its_beginning_and_from_further_on() {
    let mut s = session("down");
    let d = s.passive();
    assert_eq!(s.asks("RETR hello"), "125 Here it goes.\r\n226 Done.\r\n");
    s.scene.hears(d, "hello\n").hears_end(d);
    let d = s.passive();
    assert_eq!(code_of(&s.asks("REST 2")), "350");
    s.asks("RETR hello");
    s.scene.hears(d, "llo\n").hears_end(d);
    let d = s.passive();
    s.asks("RETR hello");
    s.scene.hears(d, "hello\n").hears_end(d); // REST is for one command
    let d = s.passive();
    assert_eq!(s.asks("RETR big"), "125 Here it goes.\r\n226 Done.\r\n");
    assert_eq!(s.scene.takes(d), vec![7; 3_000_000]);
}

#[test]
fn a_download_whose_client_does_not_read_is_given_up() {
    let mut s = session("stall");
    let d = s.passive();
    s.scene.reads(d, false);
    assert_eq!(s.asks("RETR big"), "125 Here it goes.\r\n");
    s.scene.passes(299 * S);
    assert!(s.scene.net().stats().queued < 700_000);
    let c = s.control;
    s.scene.passes(2 * S).hears(c, "421 The data connection was silent for too long.\r\n").hears_end(c);
    assert_eq!(s.scene.connections(), 0);
}

#[test]
fn an_upload_that_ends_before_stor_is_said() {
    let mut s = session("early");
    let d = s.passive();
    s.scene.says(d, "what").ends(d);
    assert_eq!(s.asks("STOR new"), "125 Here it goes.\r\n226 Done.\r\n");
    assert_eq!(s.read("new"), b"what");
}

#[test]
fn an_upload_has_its_name_when_it_is_whole_and_what_was_cut_can_be_gone_on_with() {
    let mut s = session("cut");
    fs::write(s.root.path("new"), "the old one").unwrap();
    let d = s.passive();
    assert_eq!(s.asks("STOR new"), "125 Here it goes.\r\n");
    s.scene.says(d, "0123456789").settles();
    assert_eq!(s.read("new"), b"the old one");
    s.scene.resets(d);
    assert!(s.hears().starts_with("426 "));
    assert_eq!(s.read("new"), b"the old one");
    assert_eq!(s.asks("SIZE new"), "213 10\r\n");
    for (command, rest, name) in [("STOR", 8, "new"), ("STOR", 10, "new")] {
        let d = s.passive();
        s.asks(&format!("REST {rest}"));
        s.asks(&format!("{command} {name}"));
        s.scene.says(d, "ab").resets(d).settles();
        s.hears();
    }
    assert_eq!(s.asks("SIZE new"), "213 12\r\n");
    let d = s.passive();
    s.asks("APPE new"); // as curl goes on
    s.scene.says(d, "cd").ends(d);
    assert_eq!(s.hears(), "226 Done.\r\n");
    assert_eq!(s.read("new"), b"01234567ababcd");
    assert_eq!(fs::read_dir(&s.root.0).unwrap().count(), 4, "nothing else is left");
}

#[test]
fn a_client_that_is_killed_has_not_sent_all() {
    let mut s = session("killed");
    let d = s.passive();
    s.asks("STOR new");
    let c = s.control;
    s.scene.says(d, "half").settles().ends(c).hears_reset(d);
    assert!(!s.root.path("new").exists());
    assert_eq!(s.read(".new.part"), b"half");
}

#[test]
fn a_file_that_is_there_is_gone_on_with_and_appended_to() {
    let mut s = session("more");
    let d = s.passive();
    s.asks("REST 2");
    s.asks("STOR hello");
    s.scene.says(d, "y").ends(d);
    assert_eq!((s.hears().as_str(), s.read("hello")), ("226 Done.\r\n", b"hey".to_vec()));
    let d = s.passive();
    s.asks("APPE hello");
    s.scene.says(d, "!").ends(d);
    assert_eq!((s.hears().as_str(), s.read("hello")), ("226 Done.\r\n", b"hey!".to_vec()));
    let d = s.passive();
    s.asks("STOR hello");
    s.scene.ends(d);
    assert_eq!((s.hears().as_str(), s.read("hello")), ("226 Done.\r\n", vec![]));
}

#[test]
fn a_log_is_appended_to_though_an_upload_of_it_was_cut() {
    let mut s = session("log");
    fs::write(s.root.path("log"), "1\n").unwrap();
    let d = s.passive();
    s.asks("STOR log");
    s.scene.says(d, "cut").resets(d).settles();
    s.hears();
    for line in ["2\n", "3\n"] {
        let d = s.passive();
        s.asks("APPE log");
        s.scene.says(d, line).ends(d);
        assert_eq!(s.hears(), "226 Done.\r\n");
    }
    assert_eq!(s.read("log"), b"1\n2\n3\n");
    assert_eq!(s.asks("SIZE log"), "213 6\r\n", "it is newer than what was cut");
}

#[test]
fn a_name_may_have_as_many_bytes_as_the_system_takes() {
    let mut s = session("long");
    let name = "n".repeat(255);
    let d = s.passive();
    s.asks(&format!("STOR {name}"));
    s.scene.says(d, "half").resets(d).settles();
    s.hears();
    assert_eq!(s.asks(&format!("SIZE {name}")), "213 4\r\n");
    let d = s.passive();
    s.asks(&format!("APPE {name}"));
    s.scene.says(d, "whole").ends(d);
    assert_eq!((s.hears().as_str(), s.read(&name)), ("226 Done.\r\n", b"halfwhole".to_vec()));
    assert_eq!(code_of(&s.asks(&format!("STOR {name}n"))), "553");
}

#[test]
fn what_stands_before_quit_is_done_first() {
    let mut s = session("quit");
    let d = s.passive();
    s.scene.reads(d, false);
    s.asks("RETR big");
    assert_eq!(s.asks("RETR hello\r\nQUIT"), "", "both wait for the transfer");
    s.scene.reads(d, true);
    let heard = s.hears();
    let codes: Vec<&str> = heard.lines().map(|line| &line[..3]).collect();
    assert_eq!(codes, ["226", "150", "221"], "{heard}");
}

#[test]
fn a_file_is_stored_by_one_at_a_time() {
    let mut s = session("two");
    let (d, first) = (s.passive(), s.control);
    s.asks("STOR new");
    s.scene.says(d, "one").settles();
    let mut other = s.another();
    other.passive();
    assert!(other.asks("STOR new").starts_with("450 "));
    let mut s = Session { control: first, ..other };
    s.scene.ends(d);
    assert_eq!((s.hears().as_str(), s.read("new")), ("226 Done.\r\n", b"one".to_vec()));
}

#[test]
fn a_unique_name_is_told_and_kept() {
    let mut s = session("unique");
    s.asks("CWD folder");
    for (command, stem) in [("STOU", "ftp."), ("STOU mine", "mine.")] {
        let d = s.passive();
        let reply = s.asks(command);
        let name = reply.trim_end().rsplit(' ').next().unwrap().to_owned();
        assert!(reply.starts_with("125 FILE: ") && name.starts_with(stem), "{reply}");
        s.scene.says(d, "x").ends(d);
        assert_eq!(s.hears(), "226 Done.\r\n");
        assert_eq!(s.read(&format!("folder/{name}")), b"x");
    }
}

#[test]
fn what_is_asked_for_before_it_is_said_where_waits_for_that() {
    let mut s = session("later");
    assert_eq!(s.asks("RETR hello\r\nNOOP"), "150 Here it goes.\r\n200 Yes.\r\n");
    let d = s.passive();
    s.scene.hears(d, "hello\n").hears_end(d);
    assert_eq!(s.hears(), "226 Done.\r\n");
}

#[test]
fn a_data_connection_that_has_ended_before_it_was_needed_is_not_waited_for() {
    let mut s = session("ended");
    let d = s.passive();
    s.scene.resets(d).settles();
    assert_eq!(s.asks("RETR hello\r\nNOOP"), "425 The data connection has ended.\r\n200 Yes.\r\n");
    let d = s.passive();
    s.asks("RETR hello");
    s.scene.hears(d, "hello\n");
}

#[test]
fn lists_of_a_folder_a_file_and_what_matches() {
    let mut s = session("lists");
    let list = |s: &mut Session, command: &str| {
        let d = s.passive();
        assert_eq!(s.asks(command), "125 Here it goes.\r\n226 Done.\r\n", "{command}");
        String::from_utf8(s.scene.takes(d)).unwrap()
    };
    assert_eq!(list(&mut s, "NLST hello"), "hello\r\n");
    assert_eq!(list(&mut s, "NLST *l?o"), "hello\r\n");
    assert_eq!(list(&mut s, "NLST folder"), "");
    let mut names: Vec<String> = list(&mut s, "NLST").lines().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, ["big", "folder", "hello"]);
    let long = list(&mut s, "LIST -la");
    assert!(long.lines().any(|line| line.starts_with("drwx") && line.ends_with(" folder")), "{long}");
    assert!(long.lines().any(|line| line.starts_with("-rw") && line.contains("       6 ") && line.ends_with(" hello")), "{long}");
    let facts = list(&mut s, "MLSD");
    let hello = facts.lines().find(|line| line.ends_with(" hello")).unwrap();
    assert!(hello.starts_with("type=file;perm=radfw;size=6;modify=20"), "{hello}");
    assert!(s.asks("MLST folder").contains("\r\n type=dir;perm=elcmpdf;size="));
}

#[test]
fn nothing_outside_of_the_root_is_reached() {
    let outside = Folder::new("outside");
    fs::write(outside.path("secret"), "x").unwrap();
    let mut s = session("inside");
    symlink(&outside.0, s.root.path("away")).unwrap();
    symlink(outside.path("secret"), s.root.path("link")).unwrap();
    symlink("hello", s.root.path("within")).unwrap();
    s.passive();
    for line in ["RETR away/secret", "RETR link", "CWD away", "STOR away/new", "APPE link", "DELE away/secret", "MKD away/x"] {
        assert!(s.asks(line).starts_with("550 "), "{line}");
    }
    for line in ["MFMT 20200102030405 link", "SITE CHMOD 777 link", "SIZE link", "MLST link", "LIST away", "RNFR away/secret"] {
        assert!(s.asks(line).starts_with("550 "), "{line}");
    }
    assert_eq!(code_of(&s.asks("RNFR hello")), "350");
    assert!(s.asks("RNTO away/hello").starts_with("550 "));
    assert!(s.asks("RETR ../../../../etc/passwd").starts_with("550 "));
    assert_eq!(s.asks("SIZE within"), "213 6\r\n");
    assert_eq!(fs::read_dir(&outside.0).unwrap().count(), 1);
    assert_eq!(code_of(&s.asks("DELE link")), "250");
    assert!(outside.path("secret").exists());
}

#[test]
fn abor_in_the_midst_and_before() {
    let mut s = session("abor");
    let d = s.passive();
    s.scene.reads(d, false);
    s.asks("RETR big");
    let codes = |heard: String| heard.lines().map(|line| line[..3].to_owned()).collect::<Vec<_>>();
    assert_eq!(codes(s.asks("ABOR\r\nEPSV\r\nNOOP")), ["426", "226", "229", "200"]);
    let d = s.passive();
    s.scene.reads(d, false);
    assert_eq!(codes(s.asks("RETR big\r\nEPSV\r\nNOOP")), ["125"]);
    assert_eq!(codes(s.asks_bytes(b"\xff\xf4\xff\xf2ABOR\r\n")), ["426", "226", "229", "200"], "by telnet's IP and Synch");
    s.asks("EPSV");
    assert_eq!(codes(s.asks("RETR hello\r\nEPSV")), ["150"]);
    assert_eq!(codes(s.asks("ABOR")), ["426", "226", "229"]);
}

#[test]
fn a_session_that_ends_leaves_neither_port_nor_data_connection() {
    let mut s = session("leaves");
    fs::File::options().write(true).open(s.root.path("big")).unwrap().set_len(30_000_000).unwrap();
    let d = s.passive();
    s.scene.reads(d, false);
    s.asks("RETR big");
    let c = s.control;
    s.scene.resets(c).reads(d, true).takes(d);
    s.scene.hears_reset(d);
    assert_eq!(s.scene.connections(), 0);
    let mut s = session("leaves too");
    let reply = s.asks("EPSV");
    let at = format!("10.0.0.1:{}", reply.split('|').nth(3).unwrap());
    assert_eq!(s.asks("QUIT"), "221 Goodbye.\r\n");
    let c = s.control;
    s.scene.hears_end(c).passes(S);
    assert!(s.scene.net().listen(at.as_str(), Control::default).is_ok(), "the port is free again");
}

#[test]
fn quit_and_a_drain_wait_for_the_transfer() {
    for drains in [false, true] {
        let mut s = session("drains");
        let (d, c) = (s.passive(), s.control);
        s.scene.reads(d, false);
        s.asks("RETR big");
        if drains {
            s.scene.net().drain(100 * S);
        } else {
            assert_eq!(s.asks("QUIT"), "221 Goodbye.\r\n");
            s.scene.ends(c);
        }
        s.scene.passes(10 * S).hears(c, "").reads(d, true).passes(S).hears(c, "226 Done.\r\n").hears_end(c);
        assert_eq!(s.scene.takes(d).len(), 3_000_000);
    }
}

#[test]
fn text_is_translated_both_ways() {
    let mut s = session("text");
    s.asks("TYPE A");
    let d = s.passive();
    s.asks("STOR text");
    s.scene.says(d, "a\r").says(d, "\nb\n\rc\r").ends(d);
    assert_eq!((s.hears().as_str(), s.read("text")), ("226 Done.\r\n", b"a\nb\n\rc\r".to_vec()));
    let d = s.passive();
    assert_eq!(s.asks("RETR text"), "125 Here it goes.\r\n226 Done.\r\n");
    s.scene.hears(d, "a\r\nb\r\n\rc\r").hears_end(d);
    let d = s.passive();
    s.asks("STOR cut");
    s.scene.says(d, "a\r").resets(d).settles();
    assert!(!s.root.path(".cut.part").exists(), "nobody could go on there");
}

#[test]
fn nobody_comes_to_the_data_port_and_a_stranger_does() {
    let mut s = session("nobody");
    let reply = s.asks("EPSV");
    assert_eq!(s.asks("RETR hello"), "150 Here it goes.\r\n");
    let port: u16 = reply.split('|').nth(3).unwrap().parse().unwrap();
    let stranger = s.scene.sim().host("10.9.9.9", ());
    struct Nobody;
    impl mainspring::Protocol for Nobody {
        fn received(&mut self, _: &mut mainspring::Context<'_>, _: &mut (), _: &[u8]) -> mainspring::Outcome {
            panic!("a stranger was sent something");
        }
    }
    s.scene.sim().net(stranger).connect(("10.0.0.1", port), Nobody);
    s.scene.passes(29 * S);
    assert_eq!(s.hears(), "");
    s.scene.passes(S);
    assert_eq!(s.hears(), "421 No data connection was made.\r\n");
    assert_eq!(s.asks("NOOP"), "200 Yes.\r\n");
}

#[test]
fn active_to_nowhere_and_to_somebody() {
    let mut s = session("active");
    let ip = s.scene.address(s.control).ip().expect("an address").ip();
    s.scene.set_fate(&format!("{ip}:2000"), Fate::Silent);
    assert_eq!(s.asks(&format!("EPRT |1|{ip}|2000|\r\nNOOP")), "");
    s.scene.passes(29 * S);
    assert_eq!(s.hears(), "");
    s.scene.passes(2 * S);
    assert!(s.hears().starts_with("425 Cannot connect to you"));
    let server = s.scene.serves(&format!("{ip}:2001"));
    let heard = s.asks(&format!("EPRT |1|{ip}|2001|\r\nNLST hello"));
    assert!(heard.ends_with("200 Connected.\r\n125 Here it goes.\r\n226 Done.\r\n"), "{heard}");
    s.scene.hears(server, "hello\r\n").hears_end(server);
    assert!(s.asks(&format!("EPRT |1|{ip}|1023|")).starts_with("501 "));
}

#[test]
fn who_does_not_log_in_or_is_slow_is_let_go() {
    let mut s = Session::begin(Folder::new("slow"));
    let c = s.control;
    for _ in 0..13 {
        s.asks("NOOP");
        s.scene.passes(9 * S);
    }
    s.scene.passes(9 * S);
    assert_eq!(s.hears(), "421 You have not logged in.\r\n");
    s.scene.hears_end(c);
    let mut s = Session::begin(Folder::new("slow"));
    let c = s.control;
    for _ in 0..59 {
        s.scene.says(c, "N").passes(S);
    }
    s.scene.passes(S);
    assert_eq!(s.hears(), "421 Too slow.\r\n");
    let mut s = Session::begin(Folder::new("slow"));
    s.log_in();
    assert_eq!(s.asks(&"x".repeat(1_000_000)), "500 Too long.\r\n");
    assert_eq!(s.asks("NOOP"), "200 Yes.\r\n");
    s.scene.passes(301 * S);
    assert_eq!(s.hears(), "421 Silent for too long.\r\n");
}

#[test]
fn wrong_passwords_are_thought_about_and_counted_and_readers_only_read() {
    let root = Folder::new("users");
    let mut set = settings(&root.0);
    set.anonymous = true;
    set.login_delay = 3 * S;
    set.users.push(User::parse("reader:a:b").unwrap().into());
    let hash = "$argon2id$v=19$m=16,t=1,p=1$c2FsdHNhbHQ$SVP0Iw8yEO1UbUlSoT9pmA";
    set.users.push(User::parse(&format!("hashed:{hash}:rw")).unwrap().into());
    let mut s = Session::begin_with(root, set);
    for (user, password) in [("anonymous", "me@home"), ("reader", "a:b")] {
        s.asks(&format!("USER {user}"));
        assert_eq!(code_of(&s.asks(&format!("PASS {password}"))), "230", "{user}");
        for line in ["STOR x", "DELE hello", "MKD x", "RNFR x", "MFMT 20200102030405 x", "SITE CHMOD 600 x", "STOU", "APPE x"] {
            assert!(s.asks(line).starts_with("550 You may only read."), "{line}");
        }
    }
    for (user, password) in [("user", "wrong"), ("nobody", "12345"), ("hashed", "wrong")] {
        s.asks("USER anonymous\r\nPASS x"); // which makes nobody forget what was guessed
        s.asks(&format!("USER {user}"));
        assert_eq!(s.asks(&format!("PASS {password}\r\nNOOP")), "");
        s.scene.passes(2 * S);
        assert_eq!(s.hears(), "");
        s.scene.passes(S);
        assert!(s.hears().starts_with("530 Wrong name or password.\r\n"), "{user}");
    }
    let c = s.control;
    s.scene.hears_end(c);
    for wrong in ["", "x", "x:", ":x", "x:$argon2id$v=19", "x:$argon2:rw"] {
        assert!(User::parse(wrong).is_err(), "{wrong}");
    }
}
