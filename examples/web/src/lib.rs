//! A web server: files and uploads in `http.rs`, which makes of a connection a WebSocket (`ws.rs`) or a stream of
//! events (`sse.rs`) where that is asked for. What a request says is read in `head.rs` and `body.rs`, which know no
//! connection.

pub mod body;
pub mod head;
pub mod http;
pub mod sse;
pub mod ws;

use mainspring::{Context, Key};
use std::{collections::BTreeSet, path::PathBuf};

/// What the program has one of.
#[derive(Default)]
pub struct App {
    pub root: PathBuf,
    /// Files are read by the loop itself, which waits for the disk then; otherwise by other threads.
    pub is_inline: bool,
    pub date: String,
    /// The members of the chat room.
    pub room: BTreeSet<Key>,
    /// Who gets the reactor's own events.
    pub watchers: BTreeSet<Key>,
}

pub type Ctx<'a> = Context<'a, App>;
