//! The smallest echo server on tokio, with the features rt and net.

use std::io;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
};

async fn echo(stream: TcpStream) -> io::Result<()> {
    let mut buf = [0; 4096];
    loop {
        stream.readable().await?;
        let length = match stream.try_read(&mut buf) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => continue,
            Err(why) => return Err(why),
        };
        let mut sent = 0;
        while sent < length {
            stream.writable().await?;
            match stream.try_write(&buf[sent..length]) {
                Ok(more) => sent += more,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                Err(why) => return Err(why),
            }
        }
    }
}

fn main() -> io::Result<()> {
    Builder::new_current_thread().enable_io().build()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:7000").await?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(echo(stream));
        }
    })
}
