//! A room to be tested, and both ends of a WebSocket by hand.
#![allow(dead_code)] // each test uses a part of it

#[path = "../../../web/tests/common/frames.rs"]
mod frames;

use frames::client;
use mainspring::{Listen, testing::Scene};
use room::{
    App,
    history::{Origin, Store},
    lines::{self, Lines},
    page,
};
use web::Http;

pub const LINES: &str = "10.0.0.1:7001";
pub const WEB: &str = "10.0.0.1:8080";

/// 2026-11-30 20:15
pub const CLOCK: i64 = 1_796_069_700_000;

pub fn app() -> App {
    app_of(Store::in_memory(Origin(0xabc)))
}

pub fn app_of(store: Store) -> App {
    let mut app = App::new(store, 2000).expect("a database in memory");
    app.clock = || CLOCK;
    app
}

/// The room as the program has it, in the simulated world: with its bounds.
pub fn scene(app: App) -> Scene<App> {
    scene_with(app, lines::bounds(2000))
}

pub fn scene_with(app: App, options: Listen) -> Scene<App> {
    let mut scene = Scene::with_config(0, app, lines::config());
    scene.net().listen_with(LINES, options, |_, _, _| Ok(Lines::default())).expect("a simulated port is free");
    scene.net().listen_with(WEB, page::bounds(2000), |_, _, _| Ok(Http::new(page::site))).expect("a simulated port is free");
    scene
}

pub fn request(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: 10.0.0.1:8080\r\nOrigin: http://10.0.0.1:8080\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A frame of a client: masked.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    client(opcode, true, payload)
}

pub fn typed(line: &str) -> Vec<u8> {
    masked(1, line.as_bytes())
}

/// Takes a frame of the server from the front, if it is there: its opcode and its payload.
pub fn frame(input: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (length, begin) = match *input.get(1)? {
        n @ 0..=125 => (usize::from(n), 2),
        126 => (usize::from(u16::from_be_bytes([*input.get(2)?, *input.get(3)?])), 4),
        _ => (input.get(2..10)?.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), 10),
    };
    if input.len() < begin + length {
        return None;
    }
    let frame: Vec<u8> = input.drain(..begin + length).collect();
    Some((frame[0] & 0xf, frame[begin..].to_vec()))
}

/// All messages and close frames of the server, a line each.
pub fn frames(mut input: Vec<u8>) -> String {
    let mut text = String::new();
    while let Some((opcode, payload)) = frame(&mut input) {
        match opcode {
            1 => text += &String::from_utf8(payload).expect("text"),
            8 => text += &format!("close {}", payload.iter().fold(0, |code, &byte| code << 8 | u32::from(byte))),
            other => text += &format!("opcode {other}"),
        }
        text += "\n";
    }
    assert!(input.is_empty(), "half a frame: {}", input.escape_ascii());
    text
}
