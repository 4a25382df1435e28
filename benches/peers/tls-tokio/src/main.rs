//! An echo over TLS on tokio's current_thread runtime: a task for each connection, as the example of tokio-rustls has it.
//! With `small` its buffer has 4 KiB, which is what a program with many idle ones would take.

#[path = "../../common.rs"]
mod common;
#[path = "../../tls.rs"]
mod tls;

use common::{Mode, READ_BYTES, announce, arguments, fail};
use std::{error::Error, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Builder,
};
use tokio_rustls::TlsAcceptor;

fn main() {
    let (mode, at, variant) = arguments(&["small"]);
    if mode != Mode::Echo {
        fail("it only echoes");
    }
    let read_bytes = if variant == "small" { 4096 } else { READ_BYTES };
    let outcome = Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(serve(at, read_bytes)));
    if let Err(why) = outcome {
        fail(format!("cannot serve on {at}: {why}"));
    }
}

async fn serve(at: SocketAddr, read_bytes: usize) -> Result<(), Box<dyn Error + Send + Sync>> {
    let acceptor = TlsAcceptor::from(tls::server()?);
    let listener = TcpListener::bind(at).await?;
    announce(listener.local_addr()?);
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        tokio::spawn(echo(stream, acceptor.clone(), read_bytes));
    }
}

async fn echo(stream: TcpStream, acceptor: TlsAcceptor, read_bytes: usize) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut buf = vec![0; read_bytes];
    while let Ok(length @ 1..) = stream.read(&mut buf).await {
        if stream.write_all(&buf[..length]).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}
