//! Entry points of the micro-benchmarks, which stand in benches/micro. Compiled with `--cfg bench` only: what the public
//! names suffice for is not here.

use crate::{
    input::Input,
    terminator::{Found, Framing, Terminator},
};

/// Cuts `bytes`, which arrive in chunks, into frames and pieces, without a socket or a callback, as the loop does it.
///
/// # Panics
/// If a frame is too long, or a framer fails.
pub fn cut(terminator: Terminator, bytes: &[u8], chunk: usize, mut found: impl FnMut(&[u8])) {
    let mut framing = Framing::from(terminator);
    let mut input = Input::with_capacity(64 << 10);
    for chunk in bytes.chunks(chunk) {
        input.room(chunk.len())[..chunk.len()].copy_from_slice(chunk);
        input.filled(chunk.len());
        loop {
            match framing.next(&mut input) {
                Found::Frame(range) => found(input.slice(range)),
                Found::Piece(range) if range.is_empty() => {}
                Found::Piece(range) => found(input.slice(range)),
                Found::Nothing => break,
                _ => panic!("a frame is too long, or its framer has failed"),
            }
        }
    }
}
