//! The protocol of one connection: a line with a question, one answer, and that is all.

use crate::{
    gopher::{BadRequest, Item, Kind, LAST_LINE, Request, SELECTOR_MAX, Stuffer},
    site::{self, Answer, Place, Site},
};
use mainspring::{Context, Limit, Outcome, Produced, Producer, Protocol, Terminator};
use std::{
    fmt,
    fs::File,
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

/// A selector, a tab, and words to search for, which may be as long as a selector.
const REQUEST_MAX: usize = 2 * SELECTOR_MAX + 1;

/// How many searches run at a time: on half of the threads for blocking work. Whatever they cost, the other half is left for
/// folders and files.
const SEARCHES_MAX: usize = 2;

/// How much of a file is read at a time.
const PIECE_BYTES: u64 = 32 << 10;

/// The state of the program.
pub(crate) struct Server {
    pub(crate) site: Arc<Site>,
    /// Each search holds a clone of it until it is done, even if nobody waits for the result any more.
    pub(crate) searches: Arc<()>,
    /// Our host's name in menus; `None`: the address that the client connected to.
    pub(crate) host: Option<String>,
    /// How long a client may take to ask.
    pub(crate) patience: Duration,
}

impl Server {
    fn place(&self, ctx: &Context<'_, Self>) -> Place {
        let local = ctx.local().ip();
        // A listener for both families shows IPv4 addresses as IPv6 ones, which a client with IPv4 only cannot use.
        let host = self.host.clone().or_else(|| Some(local?.ip().to_canonical().to_string()));
        Place { host: host.unwrap_or_else(|| "localhost".into()), port: local.map_or(70, |local| local.port()) }
    }
}

type Ctx<'a> = Context<'a, Server>;

pub(crate) struct Visitor;

impl Protocol<Server> for Visitor {
    fn connected(&mut self, ctx: &mut Ctx<'_>, server: &mut Server) -> Outcome {
        ctx.set_terminator(Terminator::line(REQUEST_MAX));
        ctx.set_deadline(server.patience); // not an idle time-out, which a client that sends byte by byte never reaches
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Ctx<'_>, server: &mut Server, line: &[u8]) -> Outcome {
        let request = match Request::parse(line) {
            Ok(request) => request,
            Err(why) => {
                give(ctx, Answer::Error(why.to_string()));
                return Ok(());
            }
        };
        let search = site::is_search(&request).then(|| Arc::clone(&server.searches));
        if search.is_some() && Arc::strong_count(&server.searches) > 1 + SEARCHES_MAX {
            give(ctx, Answer::Error("too many searches, try again later".into()));
            return Ok(());
        }
        ctx.set_deadline(None);
        let (site, place) = (Arc::clone(&server.site), server.place(ctx));
        // Listing and searching folders waits for the disk, so another thread does it. One question, one answer.
        ctx.offload_held(
            move || {
                let answer = site.answer(&request, &place);
                drop(search);
                answer
            },
            |_: &mut Self, ctx, _, answer| {
                give(ctx, answer.unwrap_or_else(|why| Answer::Error(why.to_string())));
                Ok(())
            },
        );
        Ok(())
    }

    fn exceeded(&mut self, ctx: &mut Ctx<'_>, _: &mut Server, limit: Limit) -> Outcome {
        if limit != Limit::FrameBytes {
            return Err(limit.into());
        }
        give(ctx, Answer::Error(BadRequest::TooLong.to_string()));
        Ok(())
    }
}

/// Queues the answer, and closes once it is sent: this is how a client knows where a binary ends.
fn give(ctx: &mut Ctx<'_>, answer: Answer) {
    match answer {
        Answer::Menu(items) => {
            for item in items {
                write!(ctx, "{item}");
            }
            ctx.send(LAST_LINE);
        }
        Answer::File { kind, file, bytes } => ctx.produce(Reading::new(file, bytes, kind.is_in_lines())),
        Answer::Error(why) => ctx.send(error(why)),
    }
    ctx.close();
}

/// The error to send to a client that cannot have what it asked for.
fn error(why: impl fmt::Display) -> String {
    format!("{}{LAST_LINE}", Item::note(Kind::Error, why))
}

/// A file on its way out, read as fast as the client reads: on the loop, but little at a time, and mostly read ahead by the
/// system.
struct Reading {
    file: File,
    /// The size when the file was opened: a file that grows faster than it is read would never end.
    bytes_left: u64,
    text: Option<Stuffer>,
    piece: Vec<u8>,
}

impl Reading {
    fn new(file: File, bytes: u64, is_text: bool) -> Self {
        Self { file, bytes_left: bytes, text: is_text.then(Stuffer::new), piece: Vec::new() }
    }
}

impl Producer for Reading {
    /// An error resets the connection, so that the client does not take a part for the whole.
    fn more(&mut self, out: &mut Vec<u8>) -> io::Result<Produced> {
        let piece = if self.text.is_some() { &mut self.piece } else { &mut *out };
        let read = (&self.file).take(PIECE_BYTES.min(self.bytes_left)).read_to_end(piece)?;
        if let Some(stuffer) = &mut self.text {
            stuffer.push(&self.piece, out);
            self.piece.clear();
        }
        self.bytes_left -= read as u64;
        if self.bytes_left > 0 {
            return if read > 0 { Ok(Produced::More) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        if let Some(stuffer) = self.text.take() {
            stuffer.finish(out);
        }
        Ok(Produced::Done)
    }
}
