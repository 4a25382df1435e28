//! The processor's time for each datagram of 1,200 bytes, sent in groups of 32 over loopback, one by one and many at once: of
//! the thread that sends, and of the thread that receives. And of echoes of single ones.

use mainspring::{Address, Bind, Datagram, Outcome, Reactor, Scope};
use std::{
    fs, io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Barrier, mpsc},
    thread,
    time::Duration,
};

const PACKETS: usize = 400_000;
const GROUP: usize = 32;
const SIZE: usize = 1_200;
const ECHOES: usize = 100_000;
const ROUNDS: usize = 3;

/// Nanoseconds that this thread has run (proc(5), schedstat).
fn cpu_time() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    stat.split(' ').next().and_then(|time| time.parse().ok()).expect("a number")
}

struct Count;
impl Datagram<usize> for Count {
    fn received(&mut self, _: &mut Scope<'_, usize>, count: &mut usize, _: &[u8], _: &Address) -> Outcome {
        *count += 1;
        Ok(())
    }
}

struct Echo;
impl Datagram<usize> for Echo {
    fn received(&mut self, scope: &mut Scope<'_, usize>, count: &mut usize, bytes: &[u8], _: &Address) -> Outcome {
        *count += 1;
        scope.reply(bytes);
        Ok(())
    }
}

fn options(batches: bool) -> Bind {
    let options = Bind::new().buffers(4 << 20, 4 << 20);
    if batches { options.batch() } else { options }
}

fn bind(reactor: &mut Reactor<usize>, batches: bool, datagram: impl Datagram<usize>) -> io::Result<SocketAddr> {
    let key = reactor.net().bind_with("127.0.0.1:0", options(batches), datagram)?;
    Ok(reactor.net().local(key).and_then(Address::ip).expect("it is bound"))
}

/// Nanoseconds for each datagram, of the sender and of the receiver.
fn one_way(batches: bool) -> io::Result<[f64; 2]> {
    let (tell, told) = mpsc::channel();
    let begin = Arc::new(Barrier::new(2));
    let also_begin = Arc::clone(&begin);
    let receiver = thread::spawn(move || -> io::Result<f64> {
        let (mut reactor, mut count) = (Reactor::new()?, 0);
        tell.send(bind(&mut reactor, batches, Count)?).expect("somebody wants to know");
        also_begin.wait();
        let before = cpu_time();
        while count < PACKETS / 2 {
            reactor.turn(&mut count, Duration::from_millis(100))?; // some are lost: until half have come
        }
        Ok((cpu_time() - before) as f64 / count as f64)
    });
    let to = Address::Ip(told.recv().expect("it is bound"));
    let mut reactor = Reactor::new()?;
    let key = reactor.net().bind_with("127.0.0.1:0", options(batches), Count)?;
    let group = vec![7; GROUP * SIZE];
    begin.wait();
    let (before, mut count) = (cpu_time(), 0);
    for _ in 0..PACKETS / GROUP {
        if batches {
            reactor.net().send_segments(key, &to, &group, SIZE);
        } else {
            group.chunks(SIZE).for_each(|one| _ = reactor.net().send_to(key, &to, one));
        }
    }
    let sent = (cpu_time() - before) as f64 / PACKETS as f64;
    while !receiver.is_finished() {
        reactor.net().send_segments(key, &to, &group, SIZE); // in case more than half were lost
        reactor.turn(&mut count, Duration::ZERO)?;
    }
    Ok([sent, receiver.join().expect("it does not panic")?])
}

/// Nanoseconds for each datagram there and back, of the one that answers.
fn echo(batches: bool) -> io::Result<f64> {
    let (tell, told) = mpsc::channel();
    let server = thread::spawn(move || -> io::Result<f64> {
        let (mut reactor, mut count) = (Reactor::new()?, 0);
        tell.send(bind(&mut reactor, batches, Echo)?).expect("somebody wants to know");
        let before = cpu_time();
        while count < ECHOES {
            reactor.turn(&mut count, None)?;
        }
        Ok((cpu_time() - before) as f64 / ECHOES as f64)
    });
    let to = told.recv().expect("it is bound");
    let (client, mut buf) = (UdpSocket::bind("127.0.0.1:0")?, [0; 200]);
    for _ in 0..ECHOES {
        client.send_to(&[7; 100], to)?;
        client.recv(&mut buf)?;
    }
    server.join().expect("it does not panic")
}

fn main() -> io::Result<()> {
    println!("| round | sends, one by one | many at once | ratio | receives, one by one | many at once | ratio | echo, ratio |");
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|");
    for round in 1..=ROUNDS {
        let ([send, receive], [send_many, receive_many]) = (one_way(false)?, one_way(true)?);
        let (plain, batched) = (echo(false)?, echo(true)?);
        println!(
            "| {round} | {send:.0} ns | {send_many:.0} ns | {:.2} | {receive:.0} ns | {receive_many:.0} ns | {:.2} | {:.2} |",
            send_many / send,
            receive_many / receive,
            batched / plain
        );
    }
    Ok(())
}
