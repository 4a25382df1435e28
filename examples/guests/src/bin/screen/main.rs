//! A client with a screen, for the room of examples/chat.rs. The loop is in the main thread, which draws after each turn that
//! has changed something. The keys come from a thread, because a library reads a terminal's keys and its size best, and it
//! blocks. The thread posts each event into the loop, and waits until that has been taken.

mod app;
#[path = "../../../../common/mod.rs"]
mod common;
#[path = "../../../../common/printable.rs"]
mod printable;
mod terminal;
mod view;

use app::App;
use common::{Failure, arguments, callee, exit, misused, stop_on_interrupt};
use mainspring::{Reactor, Remote};
use ratatui::crossterm::event;
use std::{io, process::ExitCode, sync::mpsc::sync_channel, thread};
use terminal::Screen;

const HELP: &str = "\
A client for the room of the example `chat`, on the whole screen: what was said,
who is there, and a line to type in.

usage: screen --name NAME ADDR

ADDR is HOST:PORT or unix:/path of the room. If the connection is lost, the
client reconnects.

Enter sends the line; the room knows the commands /who and /quit. Page Up and
Page Down show what was said before. You can edit the line with Left, Right,
Home, End, Backspace, Delete, and Ctrl-U, which empties it. Ctrl-D or /quit
leaves; so does Ctrl-C, with the exit status 130.";

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 1, &["name"])? else { return Ok(()) };
    let to = given.text()?.ok_or_else(|| misused("ADDR is missing: the address of the room"))?;
    let to = callee("ADDR", &to)?;
    let name = given.option_text("name")?.ok_or_else(|| misused("--name is missing: who are you?"))?;
    let mut reactor = Reactor::new()?;
    let mut app = App::new(to, name);
    stop_on_interrupt(&reactor)?;
    let mut screen = Screen::open()?;
    app.start(&mut reactor.net());
    let remote = reactor.remote();
    thread::spawn(move || read_terminal(&remote));
    screen.draw(|frame| view::draw(frame, &app))?;
    while reactor.turn(&mut app, None)? {
        if app.has_changed() {
            screen.draw(|frame| view::draw(frame, &app))?;
        }
    }
    app.ending
}

/// The thread, which ends with the program. (If the terminal goes away, SIGHUP kills us: there is nothing to restore.)
fn read_terminal(remote: &Remote<App>) {
    loop {
        let event = event::read();
        let is_over = event.is_err();
        let (waits, wanted) = sync_channel::<()>(0);
        let posted = remote.post(move |net, app| {
            match event {
                Ok(event) => app.happened(net, event),
                Err(error) => app.give_up(net, format!("cannot read the terminal: {}", io::Error::from(error.kind()))),
            }
            drop(waits);
        });
        if posted.is_err() || is_over {
            return;
        }
        let _ = wanted.recv(); // always an error: the message is that `waits` was dropped
    }
}
