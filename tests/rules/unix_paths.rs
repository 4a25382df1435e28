//! Listening on a path of the file system: who gets it, who removes the file.

use crate::common::{Folder, Nothing, is_alone, ms, until_net};
use mainspring::{Context, Key, Outcome, Protocol, Reactor};
use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::{
        fs::FileTypeExt,
        net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Barrier},
};

/// What a server that has died leaves behind.
fn leave_stale(path: &Path) {
    drop(UnixListener::bind(path).expect("a free path"));
}

/// Tries to become the server of `at`: whether it has, and is.
fn serve(reactor: &mut Reactor<()>, at: &str) -> Option<Key> {
    match reactor.net().listen(at, || Nothing) {
        Ok(key) => Some(key),
        Err(error) if error.kind() == ErrorKind::AddrInUse => None,
        Err(error) => panic!("neither its own nor in use: {error}"),
    }
}

fn stop(reactor: &mut Reactor<()>, key: Option<Key>) {
    if let Some(key) = key {
        reactor.net().close(key);
        reactor.turn(&mut (), ms(0)).expect("the selector works");
    }
}

/// This many servers try to have each of these addresses, all at the same time; how many have had each.
fn race_of_threads(servers: usize, addresses: Vec<String>) -> Vec<usize> {
    let (barrier, addresses) = (Arc::new(Barrier::new(servers)), Arc::new(addresses));
    let racers: Vec<_> = (0..servers)
        .map(|_| {
            let (barrier, addresses) = (Arc::clone(&barrier), Arc::clone(&addresses));
            std::thread::spawn(move || {
                let mut reactor = Reactor::new().expect("a selector");
                let try_one = |at: &String| {
                    barrier.wait();
                    let key = serve(&mut reactor, at);
                    barrier.wait(); // each lives until all have tried
                    stop(&mut reactor, key);
                    usize::from(key.is_some())
                };
                addresses.iter().map(try_one).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut winners = vec![0; addresses.len()];
    for racer in racers {
        let won = racer.join().expect("no panic");
        winners.iter_mut().zip(won).for_each(|(all, won)| *all += won);
    }
    winners
}

const ROUNDS: usize = 300;

/// A probe and the removal of what it found dead were two steps, and whoever was bound and did not listen yet looked dead:
/// two of the servers that were started together believed that they had the path.
#[test]
fn of_servers_that_start_together_one_has_the_path() {
    let folder = Folder::new("threads");
    let path = |name: String| format!("unix:{}", folder.path(&name).display());
    let free: Vec<_> = (0..ROUNDS).map(|round| path(format!("free-{round}"))).collect();
    let stale: Vec<_> = (0..ROUNDS).map(|round| path(format!("stale-{round}"))).collect();
    stale.iter().for_each(|at| leave_stale(Path::new(&at["unix:".len()..])));
    for addresses in [free.clone(), stale, free] {
        let won = race_of_threads(3, addresses);
        let odd: Vec<_> = won.iter().enumerate().filter(|(_, winners)| **winners != 1).collect();
        assert!(odd.is_empty(), "round and winners: {odd:?}");
    }
    assert_eq!(folder.names(), [""; 0], "nothing is left behind");
}

#[test]
#[cfg(target_os = "linux")]
fn of_servers_that_start_together_one_has_the_abstract_name() {
    let names = (0..ROUNDS).map(|round| format!("unix:@mainspring-{}-{round}", std::process::id())).collect();
    assert!(race_of_threads(3, names).iter().all(|winners| *winners == 1));
}

struct Racer(Child, ChildStdin, BufReader<ChildStdout>);

impl Racer {
    /// This test once more, in a process of its own, which does what it is told by lines.
    fn start(test: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("a test is a program"))
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env("MAINSPRING_TEST_IS_RACER", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Self(child, input, BufReader::new(output))
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.1, "{line}").expect("it reads");
    }

    /// What it answers, past whatever the harness says.
    fn answer(&mut self) -> usize {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.2.read_line(&mut line).expect("it writes") > 0, "it has ended");
            if let Some(won) = line.trim().strip_prefix("won ") {
                return won.parse().expect("a number");
            }
        }
    }
}

/// Each line is an address to listen on instead of the one before.
fn race_as_told() {
    let (mut reactor, mut key) = (Reactor::new().expect("a selector"), None);
    for line in std::io::stdin().lines() {
        stop(&mut reactor, key.take());
        key = serve(&mut reactor, &line.expect("text"));
        println!("\nwon {}", usize::from(key.is_some()));
    }
}

#[test]
fn of_processes_that_start_together_one_has_the_path() {
    let test = "unix_paths::of_processes_that_start_together_one_has_the_path";
    if std::env::var_os("MAINSPRING_TEST_IS_RACER").is_some() {
        return race_as_told();
    }
    let folder = Folder::new("processes");
    let mut racers = [(); 3].map(|()| Racer::start(test));
    for round in 0..ROUNDS / 2 {
        let path = folder.path(&round.to_string());
        if round % 2 == 1 {
            leave_stale(&path);
        }
        racers.iter_mut().for_each(|racer| racer.tell(&format!("unix:{}", path.display())));
        let winners: usize = racers.iter_mut().map(Racer::answer).sum();
        assert_eq!(winners, 1, "round {round}");
    }
    for Racer(mut child, input, _output) in racers {
        drop(input);
        assert!(child.wait().expect("it ends").success());
    }
    assert_eq!(folder.names(), [""; 0], "nothing is left behind");
}

#[test]
fn a_path_that_somebody_has_is_refused_and_its_owner_does_not_notice() {
    let folder = Folder::new("taken");
    let path = folder.path("taken");
    let mut reactor = Reactor::<()>::new().expect("a selector");
    let mut refused = |why: &str| {
        let error = reactor.net().listen(path.as_path(), || Nothing).expect_err("it is taken");
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "{why}");
        assert!(error.to_string().contains(why), "{why}: {error}");
    };
    let server = UnixListener::bind(&path).expect("a free path");
    server.set_nonblocking(true).expect("a socket option");
    refused("another program listens there");
    assert!(server.accept().is_err(), "nobody has come to it");
    fs::remove_file(&path).expect("it is there");
    // Bound, and not yet listening.
    let early = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("a descriptor");
    early.bind(&socket2::SockAddr::unix(&path).expect("short")).expect("a free path");
    refused("another program listens there");
    fs::remove_file(&path).expect("it is there");
    let datagrams = UnixDatagram::bind(&path).expect("a free path");
    refused("another program listens there");
    drop(datagrams);
    fs::remove_file(&path).expect("it is there");
    fs::write(&path, "a letter").expect("a file");
    refused("not a socket");
    assert_eq!(fs::read(&path).expect("it is there"), b"a letter");
    fs::remove_file(&path).expect("it is there");
    leave_stale(&folder.path("elsewhere"));
    std::os::unix::fs::symlink(folder.path("elsewhere"), &path).expect("a link");
    refused("not a socket");
}

/// A server that is killed while it replaces a file leaves its claim on it, which is as dead as the file.
#[test]
fn what_was_left_by_who_died_while_it_replaced_a_file_is_not_in_the_way() {
    use std::os::unix::fs::MetadataExt;
    let folder = Folder::new("claims");
    let path = folder.path("server");
    leave_stale(&path);
    let mut last = path.clone();
    for _ in 0..3 {
        let inode = fs::symlink_metadata(&last).expect("it is there").ino();
        last = folder.path(&format!(".stale-{inode:x}"));
        drop(UnixDatagram::bind(&last).expect("a free path"));
    }
    let mut reactor = Reactor::<()>::new().expect("a selector");
    reactor.net().listen(path.as_path(), || Nothing).expect("nobody lives there");
    assert_eq!(folder.names(), ["server"]);
    // A claim that is alive is respected: its owner is about to have the path.
    drop(reactor);
    leave_stale(&path);
    let inode = fs::symlink_metadata(&path).expect("it is there").ino();
    let _claim = UnixDatagram::bind(folder.path(&format!(".stale-{inode:x}"))).expect("a free path");
    let mut reactor = Reactor::<()>::new().expect("a selector");
    let error = reactor.net().listen(path.as_path(), || Nothing).expect_err("somebody is at it");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(path.exists());
}

/// A claim's path may be longer than a socket's may be.
#[test]
#[cfg(target_os = "linux")]
fn a_stale_file_of_the_longest_path_is_replaced() {
    let folder = Folder::new("long");
    let room = 108 - folder.0.as_os_str().len() - 2;
    let deep = folder.path(&"d".repeat(room - 2));
    fs::create_dir_all(&deep).expect("a folder");
    let path = deep.join("s");
    assert_eq!(path.as_os_str().len(), 107);
    leave_stale(&path);
    let mut reactor = Reactor::<()>::new().expect("a selector");
    reactor.net().listen(path.as_path(), || Nothing).expect("nobody lives there");
    drop(reactor);
    assert_eq!(fs::read_dir(&deep).expect("a folder").count(), 0, "nothing is left behind");
}

#[test]
fn a_file_goes_with_its_listener_unless_it_is_anothers_by_now() {
    let folder = Folder::new("ends");
    let path = folder.path("server");
    let mut reactor = Reactor::<()>::new().expect("a selector");
    let key = reactor.net().listen(path.as_path(), || Nothing).expect("a free path");
    assert!(fs::symlink_metadata(&path).expect("it is there").file_type().is_socket());
    stop(&mut reactor, Some(key));
    assert!(!path.exists());
    reactor.net().listen(path.as_path(), || Nothing).expect("a free path");
    fs::remove_file(&path).expect("it is there");
    let _other = UnixListener::bind(&path).expect("a free path");
    drop(reactor);
    assert!(path.exists(), "it is another's");
}

/// Every descriptor but this many is taken; the files are to be dropped.
fn take_descriptors(but: usize) -> Vec<fs::File> {
    let mut hoard = Vec::new();
    while let Ok(file) = fs::File::open("/dev/null") {
        hoard.push(file);
    }
    hoard.truncate(hoard.len() - but);
    hoard
}

/// What could not be looked at for want of a descriptor was said to be another's.
#[test]
fn without_descriptors_a_dead_path_is_nobody_elses() {
    if !is_alone("unix_paths::without_descriptors_a_dead_path_is_nobody_elses", "ulimit -n 60 &&") {
        return;
    }
    let folder = Folder::new("descriptors");
    for free in 0..5 {
        let path = folder.path(&format!("socket{free}"));
        leave_stale(&path);
        let mut reactor = Reactor::<()>::new().expect("a selector");
        let hoard = take_descriptors(free);
        let kind = reactor.net().listen(path.as_path(), || Nothing).map_err(|error| error.kind());
        assert_ne!(kind, Err(ErrorKind::AddrInUse), "with {free}");
        drop(hoard);
        assert!(kind.is_ok() || reactor.net().listen(path.as_path(), || Nothing).is_ok(), "with {free}: there are some again");
    }
}

/// Sockets that linger make room, also while the loop checks whether a file is a dead server's.
#[test]
fn who_lingers_makes_room_for_who_takes_a_dead_path() {
    if !is_alone("unix_paths::who_lingers_makes_room_for_who_takes_a_dead_path", "ulimit -n 60 &&") {
        return;
    }
    struct Once;
    impl Protocol for Once {
        fn connected(&mut self, ctx: &mut Context<'_>, (): &mut ()) -> Outcome {
            ctx.send("bye");
            ctx.close();
            Ok(())
        }
    }
    let folder = Folder::new("room");
    for free in 0..4 {
        let (path, other) = (folder.path(&format!("socket{free}")), folder.path(&format!("other{free}")));
        leave_stale(&path);
        let mut reactor = Reactor::<()>::new().expect("a selector");
        reactor.net().listen(other.as_path(), || Once).expect("a free path");
        let peers: Vec<_> = (0..10).map(|_| UnixStream::connect(&other).expect("it listens")).collect();
        until_net(&mut reactor, &mut (), |net, _| net.stats().lingering == 10);
        let hoard = take_descriptors(free);
        reactor.net().listen(path.as_path(), || Nothing).expect("one that lingers makes room");
        drop((hoard, peers));
    }
}
