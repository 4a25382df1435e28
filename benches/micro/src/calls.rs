//! What it costs to return from the function that makes a system call: why a loop without libc is cheaper than one can be
//! that goes through it.

use crate::{Failure, median, timed};
use rustix::{
    io::Result,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair},
};
use std::{
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
};

const CALLS: usize = 20_000;
const PASSES: usize = 21;
type Bytes = [u8; 64];

/// rustix makes the call where it is wanted; this makes it a function's, as it is in libc.
#[inline(never)]
fn recv_and_return(from: &OwnedFd, bytes: &mut Bytes) -> Result<usize> {
    Ok(recv(from, bytes, RecvFlags::empty())?.0)
}

pub(crate) fn table() -> std::result::Result<String, Failure> {
    let (here, there) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let (mut libc_here, mut libc_there) = UnixStream::pair()?;
    let mut bytes: Bytes = [b'x'; 64];
    let mut took = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..PASSES {
        took[0].push(each(|| {
            send(&there, &bytes, SendFlags::empty())?;
            Ok(recv(&here, &mut bytes, RecvFlags::empty())?.0)
        })?);
        took[1].push(each(|| {
            send(&there, &bytes, SendFlags::empty())?;
            Ok(recv_and_return(&here, &mut bytes)?)
        })?);
        took[2].push(each(|| {
            libc_there.write_all(&bytes)?;
            Ok(libc_here.read(&mut bytes)?)
        })?);
    }
    let [in_place, one_return, libc] = took.each_mut().map(|times| median(times));
    Ok(format!(
        "### The way to a system call: ns for a send and a recv of 64 bytes, on a pair of sockets\n\n| both made in place | the recv in a \
         function that returns | both through libc |\n|--:|--:|--:|\n| {in_place:.0} | {one_return:.0} | {libc:.0} |\n"
    ))
}

fn each(mut run: impl FnMut() -> std::result::Result<usize, Failure>) -> std::result::Result<f64, Failure> {
    let (took, moved) = timed(|| (0..CALLS).try_fold(0, |sum, _| run().map(|moved| sum + moved)));
    if moved? != CALLS * 64 {
        return Err("a call moved less than all".into());
    }
    Ok(took / CALLS as f64)
}
