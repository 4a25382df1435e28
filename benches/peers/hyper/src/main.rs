//! A folder served by hyper on one thread, to be measured beside examples/web: `hyper-files ROOT PORT [blocking]`. With
//! `blocking` files are read by `spawn_blocking`, without it by the loop itself.
#![forbid(unsafe_code)]

use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, LAST_MODIFIED},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, env, fs::File, io, io::Read, net::Ipv4Addr, path::PathBuf, rc::Rc, time::SystemTime};
use tokio::{net::TcpListener, task};

fn read(path: PathBuf) -> io::Result<(Vec<u8>, SystemTime)> {
    let mut file = File::open(path)?;
    let meta = file.metadata()?;
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    file.read_to_end(&mut bytes)?;
    Ok((bytes, meta.modified()?))
}

async fn answer(request: Request<Incoming>, root: Rc<PathBuf>, is_blocking: bool) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = root.join(request.uri().path().trim_start_matches('/'));
    let found = if is_blocking {
        task::spawn_blocking(move || read(path)).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    } else {
        read(path)
    };
    let answer = Response::builder().header(DATE, httpdate::fmt_http_date(SystemTime::now()));
    let answer = match found {
        Ok((bytes, modified)) => answer
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, bytes.len())
            .header(LAST_MODIFIED, httpdate::fmt_http_date(modified))
            .body(Full::new(bytes.into())),
        Err(_) => answer.status(404).body(Full::default()),
    };
    Ok(answer.expect("it has a status and headers"))
}

fn main() -> io::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let (root, port) = (Rc::new(PathBuf::from(&args[0])), args[1].parse().expect("a port"));
    let is_blocking = args.get(2).is_some_and(|word| word == "blocking");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    task::LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        println!("listening on {}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let root = Rc::clone(&root);
            task::spawn_local(async move {
                let service = service_fn(|request| answer(request, Rc::clone(&root), is_blocking));
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}
