//! An application with all that a site can have, and what its clients say.
#![allow(dead_code)] // each test uses a part of it

pub mod frames;

use mainspring::{Context, Key, Produced, Reason};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::PathBuf,
    rc::Rc,
    time::{Duration, UNIX_EPOCH},
};
use web::{
    Answer, Http, Request,
    deflate::Agreed,
    files::Root,
    sse,
    ws::{self, Message, Talk},
};

/// What a body has at most.
pub const BODY_MAX: usize = 1 << 20;

pub struct App {
    pub folder: PathBuf,
    pub root: Root,
    /// How what is sent to each may be compressed.
    pub room: BTreeMap<Key, Option<Agreed>>,
    pub events: u32,
}

impl App {
    pub fn at(folder: PathBuf) -> Self {
        let root = Root::open(&folder).expect("a folder").listed(true);
        Self { folder, root, room: BTreeMap::new(), events: 0 }
    }
}

/// The package's own folder.
impl Default for App {
    fn default() -> Self {
        Self::at(env!("CARGO_MANIFEST_DIR").into())
    }
}

pub fn http() -> Http<App> {
    Http::new(site).clock(|| UNIX_EPOCH)
}

fn site(_: &mut Context<'_, App>, app: &mut App, request: &Request) -> Answer<App> {
    match (request.method(), request.path()) {
        ("GET", "/echo") => Answer::web_socket(ws::Echo::default()),
        ("GET", "/chat") => Answer::web_socket(Member),
        ("GET", "/events") => Answer::events(Duration::from_secs(1), |_, app: &mut App| {
            app.events += 1;
            sse::event("count", &app.events.to_string())
        }),
        ("GET" | "HEAD", "/chunked") => Answer::chunked("text/plain", ["one", "two", "three"].producer()),
        ("GET", "/slow") => Answer::later(|| 7, |_, _, made| Answer::text(200, format!("{made:?}\n"))),
        ("GET", "/large") => Answer::text(200, "x".repeat(3 << 20)),
        ("GET", "/nothing") => Answer::status(204),
        ("GET", "/host") => Answer::text(200, format!("{}\n", request.host())),
        ("GET", "/named") => Answer::web_socket(ws::Echo::default()).header("Sec-WebSocket-Protocol", "chat"),
        ("GET", "/marked") => Answer::later(|| (), |_, _, _| Answer::text(200, "later\n")).header("X-Mark", "1"),
        ("POST", "/asked-first") => Answer::later(
            || (),
            |_, _, _| Answer::collect(BODY_MAX, |_, _, body| Answer::text(200, format!("{} bytes\n", body.len()))),
        ),
        ("POST", "/twice") => Answer::collect(BODY_MAX, |_, _, _| {
            Answer::collect(BODY_MAX, |_, _, body| Answer::text(200, format!("{} bytes\n", body.len())))
        }),
        ("POST", "/length") => Answer::text(200, "without the body\n"),
        ("POST", _) => Answer::collect(BODY_MAX, |_, _, body| Answer::text(200, format!("{} bytes\n", body.len()))),
        ("PUT", path) => upload(app, path.strip_prefix("/upload/").unwrap_or_default()),
        _ => app.root.answer(request),
    }
}

/// Its name is `name.done` when it is whole.
fn upload(app: &App, name: &str) -> Answer<App> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Answer::status(404).close();
    }
    let path = app.folder.join("upload").join(name);
    let part = path.clone();
    Answer::save(
        BODY_MAX as u64,
        move || File::create(part),
        move |_, _, saved| match saved.and_then(|_| fs::rename(&path, path.with_extension("done"))) {
            Ok(()) => Answer::text(201, "kept\n"),
            Err(error) => Answer::text(500, format!("{error}\n")),
        },
    )
}

trait Pieces {
    fn producer(self) -> impl FnMut(&mut Vec<u8>) -> std::io::Result<Produced> + 'static;
}

impl<const N: usize> Pieces for [&'static str; N] {
    fn producer(self) -> impl FnMut(&mut Vec<u8>) -> std::io::Result<Produced> + 'static {
        let mut left = self.into_iter();
        move |out| {
            let Some(piece) = left.next() else { return Ok(Produced::Done) };
            out.extend(piece.as_bytes());
            Ok(Produced::More)
        }
    }
}

/// What one says all hear.
struct Member;

impl Talk<App> for Member {
    fn open(&mut self, ctx: &mut Context<'_, App>, app: &mut App, agreed: Option<Agreed>) {
        app.room.insert(ctx.key, agreed);
    }

    /// Compressed once for all who have agreed on the same.
    fn message(&mut self, ctx: &mut Context<'_, App>, app: &mut App, message: Message<'_>) {
        let mut said: BTreeMap<Option<Agreed>, Rc<[u8]>> = BTreeMap::new();
        for (&member, &agreed) in &app.room {
            ctx.net.send_shared(member, said.entry(agreed).or_insert_with(|| ws::framed(agreed, message).into()));
        }
    }

    fn closed(&mut self, ctx: &mut Context<'_, App>, app: &mut App, _: Reason) {
        app.room.remove(&ctx.key);
    }
}

pub fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("web-{name}-{}", std::process::id()));
    fs::create_dir_all(folder.join("upload")).unwrap();
    fs::write(folder.join("index.html"), "hello\n").unwrap();
    fs::write(folder.join("big"), vec![b'x'; 300_000]).unwrap();
    folder
}

pub fn app(name: &str) -> App {
    App::at(folder(name))
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

pub fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
