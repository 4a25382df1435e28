//! Takes over the terminal while the program runs, and restores it however the program ends: normally, after an error, or after
//! a panic in any thread.

use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        event::{DisableBracketedPaste, EnableBracketedPaste},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};
use std::{
    io::{self, IsTerminal, Stdout, StdoutLock},
    panic,
    process::exit,
};

/// The whole screen. Dropping this restores the terminal.
pub(crate) struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    pub(crate) fn open() -> io::Result<Self> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "standard input and output must be a terminal"));
        }
        restore_after_panics();
        let screen = Self(Terminal::new(CrosstermBackend::new(io::stdout()))?);
        enable_raw_mode()?;
        // From here on, dropping it restores the terminal.
        execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste)?;
        Ok(screen)
    }

    pub(crate) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(draw).map(|_| ())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        drop(restore());
    }
}

/// If a step fails, the rest is still tried. Nobody else can write while the lock is held.
fn restore() -> StdoutLock<'static> {
    let mut stdout = io::stdout().lock();
    let _ = execute!(stdout, DisableBracketedPaste, LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
    stdout
}

/// The loop isolates a panic in a callback, and a thread that panics ends alone; but a screen that may be wrong is of no use.
/// So any panic ends the program: it restores the terminal first, so that you can see the message.
fn restore_after_panics() {
    let say = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let _stdout = restore();
        say(info);
        exit(101);
    }));
}
