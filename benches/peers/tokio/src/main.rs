//! Servers on tokio's current_thread runtime: a task for each connection, as its tutorial has them. Lines by
//! `Framed<LinesCodec>`; with `bytes` by hand over one buffer, which is the best that tokio can do.

#[path = "../../common.rs"]
mod common;

use common::{Mode, READ_BYTES, announce, answer_lines, arguments, fail};
use futures_util::{FutureExt, SinkExt, StreamExt};
use std::{io, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    runtime::Builder,
};
use tokio_util::codec::{Framed, LinesCodec};

fn main() {
    let (mode, at, variant) = arguments(&["bytes"]);
    let outcome = Builder::new_current_thread().enable_io().build().and_then(|runtime| {
        runtime.block_on(async {
            if mode == Mode::Udp { echo_datagrams(at).await } else { serve(mode, at, variant == "bytes").await }
        })
    });
    if let Err(why) = outcome {
        fail(format!("cannot serve on {at}: {why}"));
    }
}

async fn serve(mode: Mode, at: SocketAddr, by_hand: bool) -> io::Result<()> {
    let listener = TcpListener::bind(at).await?;
    announce(listener.local_addr()?);
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        match mode {
            Mode::Echo => tokio::spawn(echo(stream)),
            Mode::Line if by_hand => tokio::spawn(lines_by_hand(stream)),
            Mode::Line => tokio::spawn(lines(stream)),
            Mode::Sink => tokio::spawn(sink(stream)),
            Mode::Source => tokio::spawn(source(stream)),
            Mode::Udp => unreachable!("served elsewhere"),
        };
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buf = vec![0; READ_BYTES];
    while let Ok(length @ 1..) = stream.read(&mut buf).await {
        if stream.write_all(&buf[..length]).await.is_err() {
            return;
        }
    }
}

/// `LinesCodec` strips CRLF and adds LF only. Fed until no more lines are ready, then flushed: one write for a batch.
async fn lines(stream: TcpStream) {
    let (mut replies, mut lines) = Framed::with_capacity(stream, LinesCodec::new(), READ_BYTES).split();
    loop {
        let mut next = lines.next().await;
        loop {
            let Some(Ok(mut line)) = next else { return };
            line.push('\r');
            if replies.feed(line).await.is_err() {
                return;
            }
            match lines.next().now_or_never() {
                Some(line) => next = line,
                None => break,
            }
        }
        if replies.flush().await.is_err() {
            return;
        }
    }
}

async fn lines_by_hand(mut stream: TcpStream) {
    let (mut buf, mut replies) = (vec![0; READ_BYTES], Vec::with_capacity(READ_BYTES));
    let mut held = 0;
    while let Ok(length @ 1..) = stream.read(&mut buf[held..]).await {
        let end = held + length;
        replies.clear();
        let answered = answer_lines(&buf[..end], &mut replies);
        buf.copy_within(answered..end, 0);
        held = end - answered;
        if !replies.is_empty() && stream.write_all(&replies).await.is_err() {
            return;
        }
    }
}

async fn sink(mut stream: TcpStream) {
    let mut buf = vec![0; READ_BYTES];
    while let Ok(1..) = stream.read(&mut buf).await {}
}

async fn source(mut stream: TcpStream) {
    let piece = vec![b'Z'; READ_BYTES];
    while stream.write_all(&piece).await.is_ok() {}
}

async fn echo_datagrams(at: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(at).await?;
    announce(socket.local_addr()?);
    let mut buf = vec![0; READ_BYTES];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buf).await else { continue };
        let _ = socket.send_to(&buf[..length], from).await;
    }
}
