//! What the screen shows, and how it changes when the room says something or you type. Nothing here knows about terminals.

use crate::{
    common::{Failure, is_misused, misused},
    printable::printable,
};
use mainspring::{Context, Keep, Limit, Net, Outcome, Protocol, Reason, Reconnect, Target, Terminator};
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::{consts::SIGINT, low_level::raise};
use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

/// We disconnect from a room that sends a longer line, and connect again later.
const LINE_MAX: usize = 64 << 10; // the list of who is there is one line, of 500 names

/// How many lines are kept to look back at.
const HISTORY_MAX: usize = 1000;

/// How many lines of ours are recognised if the room sends them back.
const SAID_MAX: usize = 100;

/// The room takes lines of 1,024 bytes.
const INPUT_MAX: usize = 1000;

/// A room that reads nothing of what we say for this long is gone, or as good as gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// How far we have got with the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not connected; the text says why.
    Away(String),
    /// There is a connection, but we have not told our name yet.
    Connected,
    /// We have told our name.
    Introduced,
    /// The room does not accept that name: the next typed line is another one.
    Nameless,
    In,
}

/// The state of the program; each callback borrows it.
pub(crate) struct App {
    room: Reconnect<App>,
    pub(crate) name: String,
    pub(crate) stage: Stage,
    pub(crate) input: Input,
    /// The lines of the room, the newest last. history.len() <= HISTORY_MAX
    pub(crate) history: VecDeque<String>,
    pub(crate) members: BTreeSet<String>,
    /// Our own lines, already shown: a room may send them back, as examples/room does. said.len() <= SAID_MAX
    said: VecDeque<String>,
    /// How many rows at the end of the history are below the screen.
    pub(crate) back: usize,
    /// The next list of who is there is for the program, and not for the user.
    is_to_list: bool,
    was_connected: bool,
    changed: bool,
    pub(crate) ending: Result<(), Failure>,
}

impl App {
    pub(crate) fn new(to: impl Into<Target>, name: String) -> Self {
        let room = Reconnect::new(to, |app: &mut App| &mut app.room, || Room).keep(Keep::Nothing);
        Self {
            room,
            name,
            stage: Stage::Away("connecting to the room".into()),
            input: Input::default(),
            history: VecDeque::new(),
            members: BTreeSet::new(),
            said: VecDeque::new(),
            back: 0,
            is_to_list: false,
            was_connected: false,
            changed: false,
            ending: Ok(()),
        }
    }

    pub(crate) fn start(&mut self, net: &mut Net<'_, Self>) {
        self.room.start(net);
    }

    /// Whether there is something new to draw since the last call.
    pub(crate) fn has_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(crate) fn give_up(&mut self, net: &mut Net<'_, Self>, why: impl Into<Failure>) {
        self.ending = Err(why.into());
        self.leave(net);
    }

    fn leave(&mut self, net: &mut Net<'_, Self>) {
        self.room.stop(net);
        if self.room.key().is_none() {
            net.stop(); // otherwise a last `closed` comes, and stops it
        }
    }

    fn note(&mut self, line: impl Into<String>) {
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(line.into());
        self.changed = true;
    }

    // ------------------------------------------------------------------------------------------- what the room says

    /// Lines without a name or `* ` at the beginning come from the room itself, and from nobody else.
    fn heard(&mut self, ctx: &mut Context<'_, Self>, line: &str) {
        if let Some(at) = self.said.iter().position(|said| said == line) {
            self.said.drain(..=at);
            return;
        }
        if line.ends_with("Your name?") && self.stage != Stage::In {
            return self.asked_for_name(ctx, line);
        }
        if line.starts_with("Welcome, ") && self.stage == Stage::Introduced {
            self.stage = Stage::In;
            self.room.ready(ctx);
            self.members = BTreeSet::from([self.name.clone()]);
            self.is_to_list = true;
            ctx.send("/who\n");
        } else if let Some(names) = line.strip_prefix("* here: ") {
            self.members = names.split(", ").map(str::to_owned).collect();
            if std::mem::take(&mut self.is_to_list) {
                self.changed = true;
                return;
            }
        } else if let Some(name) = line.strip_prefix("* ").and_then(|line| line.strip_suffix(" joined")) {
            self.members.insert(name.to_owned());
        } else if let Some(name) = line.strip_prefix("* ").and_then(|line| line.strip_suffix(" left")) {
            self.members.remove(name);
        } else if let Some((from, to)) = line.strip_prefix("* ").and_then(|line| line.split_once(" is now ")) {
            if self.members.remove(from) {
                self.members.insert(to.to_owned());
            }
            if from == self.name {
                to.clone_into(&mut self.name);
            }
        }
        self.note(line);
    }

    fn asked_for_name(&mut self, ctx: &mut Context<'_, Self>, line: &str) {
        self.changed = true;
        if self.stage == Stage::Connected {
            self.stage = Stage::Introduced;
            writeln!(ctx, "{}", self.name);
        } else {
            self.stage = Stage::Nameless;
            self.note(line);
        }
    }

    // ------------------------------------------------------------------------------------------------ what is typed

    pub(crate) fn happened(&mut self, net: &mut Net<'_, Self>, event: Event) {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.pressed(net, key),
            Event::Paste(text) => self.input.insert(&text),
            Event::Resize(..) => {}
            _ => return,
        }
        self.changed = true;
    }

    fn pressed(&mut self, net: &mut Net<'_, Self>, key: KeyEvent) {
        let page = 10;
        match (key.code, key.modifiers.contains(KeyModifiers::CONTROL)) {
            // Send the signal, as a terminal does in which no program reads keys, so that this and kill(1) end in the same way.
            (KeyCode::Char('c'), true) => _ = raise(SIGINT),
            (KeyCode::Char('d'), true) => self.leave(net),
            (KeyCode::Char('u'), true) => self.input = Input::default(),
            #[cfg(debug_assertions)] // scripts/guests.sh tests how a panic leaves the terminal
            (KeyCode::Char('p'), true) => panic!("it was asked for"),
            (KeyCode::Char(_), true) => {}
            (KeyCode::Char(c), false) => self.input.insert(c.encode_utf8(&mut [0; 4])),
            (KeyCode::Backspace, _) => self.input.backspace(),
            (KeyCode::Delete, _) => self.input.delete(),
            (KeyCode::Left, _) => self.input.left(),
            (KeyCode::Right, _) => self.input.right(),
            (KeyCode::Home, _) => self.input.at = 0,
            (KeyCode::End, _) => self.input.at = self.input.text.len(),
            (KeyCode::PageUp, _) => self.back = self.back.saturating_add(page).min(self.history.len()),
            (KeyCode::PageDown, _) => self.back = self.back.saturating_sub(page),
            (KeyCode::Enter, _) => self.entered(net),
            _ => {}
        }
    }

    fn says(&mut self, line: String) {
        if self.said.len() == SAID_MAX {
            self.said.pop_front();
        }
        self.said.push_back(line.clone());
        self.note(line);
    }

    /// A line that cannot be sent stays in the input field.
    fn entered(&mut self, net: &mut Net<'_, Self>) {
        let text = self.input.text.trim().to_owned();
        self.back = 0;
        if text.is_empty() {
            return self.input = Input::default();
        }
        if text == "/quit" {
            return self.leave(net);
        }
        let is_taken = self.room.key().and_then(|key| net.link(key)).is_some_and(|link| !link.is_congested());
        match self.stage {
            Stage::Nameless if is_taken => {
                self.name.clone_from(&text);
                self.stage = Stage::Introduced;
                if let Some(key) = self.room.key() {
                    net.send(key, format!("{text}\n"));
                }
            }
            Stage::In if is_taken => {
                self.room.send(net, format!("{text}\n"));
                if !text.starts_with('/') {
                    self.says(format!("<{}> {text}", self.name));
                }
            }
            Stage::In | Stage::Nameless => return self.note("Not said: the room has not read the lines before yet."),
            _ => return self.note("Not said: there is no connection to the room."),
        }
        self.input = Input::default();
    }
}

/// The input field.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// text.len() <= INPUT_MAX
    pub(crate) text: String,
    /// The place of the cursor, in bytes: at the beginning of a character, or at the end.
    pub(crate) at: usize,
}

impl Input {
    /// What would control a terminal, or end the line, becomes a space, so that pasted text is one line too.
    fn insert(&mut self, text: &str) {
        for c in printable(text).chars() {
            if self.text.len() + c.len_utf8() > INPUT_MAX {
                return;
            }
            self.text.insert(self.at, c);
            self.at += c.len_utf8();
        }
    }

    fn backspace(&mut self) {
        if self.at > 0 {
            self.left();
            self.delete();
        }
    }

    fn delete(&mut self) {
        if self.at < self.text.len() {
            self.text.remove(self.at);
        }
    }

    fn left(&mut self) {
        self.at -= self.text[..self.at].chars().next_back().map_or(0, char::len_utf8);
    }

    fn right(&mut self) {
        self.at += self.text[self.at..].chars().next().map_or(0, char::len_utf8);
    }
}

/// A connection to the room; there is a new one for each attempt.
struct Room;

impl Protocol<App> for Room {
    fn connected(&mut self, ctx: &mut Context<'_, App>, app: &mut App) -> Outcome {
        app.was_connected = true;
        app.stage = Stage::Connected;
        app.changed = true;
        ctx.set_terminator(Terminator::line(LINE_MAX));
        ctx.set_stall_timeout(PATIENCE);
        // TCP notices a room that has vanished; the system tells a Unix socket.
        let _ = ctx.link().with_socket(|socket| socket.set_keepalive(true));
        Ok(())
    }

    /// What others say must not control the terminal.
    fn frame(&mut self, ctx: &mut Context<'_, App>, app: &mut App, line: &[u8]) -> Outcome {
        app.heard(ctx, &printable(&String::from_utf8_lossy(line)));
        Ok(())
    }

    fn exceeded(&mut self, _: &mut Context<'_, App>, _: &mut App, limit: Limit) -> Outcome {
        Err(limit.into())
    }

    fn closed(&mut self, ctx: &mut Context<'_, App>, app: &mut App, why: Reason) {
        let was_there = app.stage == Stage::In;
        app.room.closed(ctx, &why); // connects again, after a pause
        app.members.clear();
        app.said.clear();
        app.stage = Stage::Away(format!("not in the room: {why}; trying again"));
        app.changed = true;
        if was_there {
            app.note(format!("* lost the room: {why}"));
        }
        if app.room.is_stopped() {
            ctx.net.stop();
        } else if !app.was_connected && matches!(&why, Reason::Resolve(error) if is_misused(error)) {
            app.give_up(&mut ctx.net, misused(why));
        }
    }
}
