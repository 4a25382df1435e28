//! A web server: files and uploads in `http.rs`, which makes of a connection a WebSocket (`ws.rs`) or a stream of
//! events (`sse.rs`) where that is asked for. What a request says is read in `head.rs` and `body.rs`, what is sent of a
//! file stands in `parts.rs`, and messages of a WebSocket are compressed in `deflate.rs`: these know no connection.

pub mod body;
pub mod deflate;
pub mod head;
pub mod http;
pub mod parts;
pub mod sse;
pub mod ws;

use deflate::{Agreed, Deflate};
use mainspring::{Context, Key};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

/// What the program has one of.
#[derive(Default)]
pub struct App {
    pub root: PathBuf,
    /// Files are read by the loop itself, which waits for the disk then; otherwise by other threads.
    pub is_inline: bool,
    pub date: String,
    /// The members of the chat room, and how what is sent to each may be compressed.
    pub room: BTreeMap<Key, Option<Agreed>>,
    /// For the messages of all WebSockets.
    pub deflate: Deflate,
    /// Who gets the reactor's own events.
    pub watchers: BTreeSet<Key>,
}

pub type Ctx<'a> = Context<'a, App>;
