//! A chat room: over lines of text ([`lines`]) and WebSockets ([`talk`], with the page of [`page`]), with its history in a
//! database ([`history`]), and perhaps shared with other servers ([`together`]).
//!
//! [`App`] is the state, which every callback borrows. The protocols pass what they receive to [`App::typed`]; what members
//! are told goes through [`App::tell`] and [`App::send`]. [`room`] knows who is here, and [`events`] what they are told: these
//! two know nothing about the network.

pub mod events;
pub mod history;
pub mod lines;
pub mod nats;
pub mod page;
#[path = "../../common/printable.rs"]
mod printable;
pub mod room;
pub mod talk;
pub mod together;

use events::{Because, Event, Form, Told};
use history::{History, Line, Origin, Store, add, in_order, recent};
use mainspring::{Key, Net};
use room::{Command, HELP, Holder, LINE_MAX, LOBBY, Room, command, split_name};
use std::{rc::Rc, time::Duration};
use together::Together;

pub use web::deflate::Agreed;

/// The state of the program.
pub struct App {
    pub room: Room,
    pub history: History,
    pub together: Option<Together>,
    /// Milliseconds since 1970. The loop's own clock knows no date.
    pub clock: fn() -> i64,
    /// The time of our last line: no two of ours have the same.
    last_at: i64,
    /// A timer is set for what a crowd is told from time to time.
    is_paced: bool,
}

/// A member comes, goes, or changes its name, in the order of the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The member is in `channel` now; it comes from another one, or from none.
    Came {
        name: Rc<str>,
        channel: Rc<str>,
        from: Option<Rc<str>>,
    },
    Went {
        name: Rc<str>,
        channel: Rc<str>,
    },
    Renamed {
        from: Rc<str>,
        to: Rc<str>,
        channel: Rc<str>,
    },
}

/// What a new member asks for: a channel, and to hear only what came after a line that it knows.
#[derive(Clone, Debug)]
pub struct Wish {
    pub channel: String,
    pub after: Option<(Origin, u64)>,
}

/// How often a crowd is told who came and went, and about how many at a time.
const CHANGES_EVERY: Duration = Duration::from_millis(100);
const CHANGES_MAX: usize = 50;

/// A line that is older, in milliseconds, was not said just now.
const LATE: i64 = 60_000;

pub const ASK: &str = "Your name?";
pub const TOO_LONG: &str = "not said: a line has 1024 bytes at most";

impl App {
    pub fn new(store: Store, members_max: usize) -> Result<Self, String> {
        let (room, history) = (Room::new(members_max), History::new(store)?);
        Ok(Self { room, history, together: None, clock: millis, last_at: 0, is_paced: false })
    }

    // ------------------------------------------------------------------------------------------- what members are told

    /// Tells something to all members in a channel of this server, with one buffer for each form.
    pub fn tell(&self, net: &mut Net<'_, Self>, channel: &str, events: &[Event<'_>]) {
        let mut told = Told::new(events);
        for (key, form) in self.room.in_channel(channel) {
            net.send_shared(key, told.to(form));
        }
    }

    /// Tells one member something. A client without a name has no form in the room yet, so it is given.
    pub fn send(net: &mut Net<'_, Self>, key: Key, form: Form, events: &[Event<'_>]) {
        let mut bytes = Vec::new();
        for event in events {
            event.add_to(&mut bytes, form);
        }
        net.send(key, bytes); // it may have gone meanwhile
    }

    pub fn notice(&self, net: &mut Net<'_, Self>, key: Key, text: &str) {
        if let Some(member) = self.room.member(key) {
            Self::send(net, key, member.form, &[Event::notice(text)]);
        }
    }

    /// Tells a member that its line was refused.
    fn refuse(&self, net: &mut Net<'_, Self>, key: Key, text: &str, typed: &str) {
        if let Some(member) = self.room.member(key) {
            Self::send(net, key, member.form, &[Event::Notice { text, refused: Some(typed) }]);
        }
    }

    /// Tells everybody on this server a notice of the room itself.
    pub fn announce(&self, net: &mut Net<'_, Self>, text: &str) {
        log::info!("{text}");
        let events = [Event::notice(text)];
        let mut told = Told::new(&events);
        for (key, member) in self.room.everybody() {
            net.send_shared(key, told.to(member.form));
        }
    }

    // ------------------------------------------------------------------------------------ what happens, in one place each

    /// A line has been stored, or cannot be. Everybody in its channel is told, and the sender takes that as the confirmation.
    /// Lines of other servers come this way as well.
    fn confirmed(&mut self, net: &mut Net<'_, Self>, line: &Line) {
        // A line that another server said while we could not hear it is told with its time.
        let is_late = line.origin != self.history.origin && (self.clock)().saturating_sub(line.at) > LATE;
        self.tell(net, &line.channel, &[Event::said(line, is_late)]);
        if line.origin == self.history.origin {
            together::confirmed(net, self, line);
        }
    }

    /// A member of ours has come, gone, or changed its name: tells members and other servers.
    fn changed(&mut self, net: &mut Net<'_, Self>, change: &Change) {
        self.tell_change(net, change, false);
        together::changed(net, self, change);
    }

    /// Tells members who came, went, or changed a name, on this server or another; in a crowd, or about many at once, a little
    /// later.
    pub fn tell_change(&mut self, net: &mut Net<'_, Self>, change: &Change, of_many: bool) {
        match change {
            Change::Came { name, channel, from } => {
                if let Some(from) = from {
                    self.tell_presence(net, from, name, false, of_many);
                }
                self.tell_presence(net, channel, name, true, of_many);
            }
            Change::Went { name, channel } => self.tell_presence(net, channel, name, false, of_many),
            Change::Renamed { from, to, channel } if self.room.is_crowd(channel) => {
                self.tell_presence(net, channel, from, false, of_many);
                self.tell_presence(net, channel, to, true, of_many);
            }
            Change::Renamed { from, to, channel } => self.tell(net, channel, &[Event::Renamed { from, to }]),
        }
    }

    fn tell_presence(&mut self, net: &mut Net<'_, Self>, channel: &str, name: &Rc<str>, is_here: bool, of_many: bool) {
        if !self.room.note(channel, name, is_here, of_many) {
            self.tell(net, channel, &[presence(name, is_here)]);
        } else if !std::mem::replace(&mut self.is_paced, true) {
            net.after(CHANGES_EVERY, |net, app| app.tell_changes(net));
        }
    }

    fn tell_changes(&mut self, net: &mut Net<'_, Self>) {
        let (channels, is_more) = self.room.take_changes(CHANGES_MAX);
        for (channel, changes) in channels {
            let events: Vec<Event<'_>> = changes.iter().map(|(name, is_here)| presence(name, *is_here)).collect();
            self.tell(net, &channel, &events);
        }
        self.is_paced = is_more;
        if is_more {
            net.after(CHANGES_EVERY, |net, app| app.tell_changes(net));
        }
    }

    // ---------------------------------------------------------------------------------------------- coming and going

    /// A client gives a name. If it will do, the client is told where it is, and what was said there; if not, it is asked again.
    pub fn enter(&mut self, net: &mut Net<'_, Self>, key: Key, form: Form, name: &str, wish: Option<&Wish>) {
        let channel = wish.map(|wish| &*wish.channel).filter(|channel| self.room.check_channel(channel).is_ok());
        let channel = channel.unwrap_or(LOBBY);
        match self.room.enter(key, form, name) {
            Ok(()) => self.go(net, key, channel, wish.and_then(|wish| wish.after)),
            Err(why) => Self::send(net, key, form, &[Event::Ask { text: &format!("{why} {ASK}") }]),
        }
    }

    /// Reads the channel's latest lines once everything said before has been told, so that the member hears nothing twice and
    /// misses nothing.
    fn go(&mut self, net: &mut Net<'_, Self>, key: Key, channel: &str, after: Option<(Origin, u64)>) {
        let Some(channel) = self.room.head_for(key, channel) else { return };
        recent(net, self, &Rc::clone(&channel), after, move |net, app, lines| app.arrived(net, key, channel, &lines));
    }

    fn arrived(&mut self, net: &mut Net<'_, Self>, key: Key, channel: Rc<str>, lines: &[Line]) {
        let Some(member) = self.room.member(key) else { return }; // it has gone meanwhile
        let (name, form) = (Rc::clone(member.known_as()), member.form);
        let from = self.room.depart(key);
        let because = if from.is_some() { Because::Moved } else { Because::Entered };
        self.changed(net, &Change::Came { name: Rc::clone(&name), channel: Rc::clone(&channel), from });
        self.room.arrive(key, &channel);
        let mut events = vec![Event::You { name: &name, channel: &channel, because }];
        events.extend(lines.iter().map(|line| Event::said(line, true)));
        events.push(self.who(&channel, true));
        if self.together.as_ref().is_some_and(Together::is_alone) {
            events.push(Event::notice(together::ALONE));
        }
        Self::send(net, key, form, &events);
    }

    /// A member is gone, however it went. Its name is free at once; the others are told once they have heard all that it said.
    pub fn left(&mut self, net: &mut Net<'_, Self>, key: Key) {
        let Some(member) = self.room.leave(key) else { return };
        let Some(channel) = member.channel.clone() else { return }; // nobody knew about it
        let change = Change::Went { name: Rc::clone(member.known_as()), channel };
        in_order(net, self, move |net, app| app.changed(net, &change));
    }

    /// Gives a member a name that is free, in the order of the room.
    pub fn rename(&mut self, net: &mut Net<'_, Self>, key: Key, name: &str) {
        self.room.rename(key, name);
        let to: Rc<str> = name.into();
        in_order(net, self, move |net, app| {
            let Some(member) = app.room.member(key) else { return }; // it has gone, under its old name
            let (form, Some(channel)) = (member.form, member.channel.clone()) else { return };
            let Some(from) = app.room.tell_name(key, &to) else { return };
            Self::send(net, key, form, &[Event::You { name: &to, channel: &channel, because: Because::Renamed }]);
            app.changed(net, &Change::Renamed { from, to, channel });
        });
    }

    // -------------------------------------------------------------------------------------------------- what is typed

    /// A typed line, as it came: from a member, or the name of a new one. `false`: the member leaves.
    pub fn typed(&mut self, net: &mut Net<'_, Self>, key: Key, form: Form, wish: Option<&Wish>, typed: &str) -> bool {
        let (now, typed) = (net.now(), printable::printable(typed));
        let command = command(&typed);
        if command == Some(Command::Quit) {
            return false;
        }
        match command {
            _ if typed.len() > LINE_MAX => {
                Self::send(net, key, form, &[Event::Notice { text: TOO_LONG, refused: Some(&typed) }]);
            }
            _ if self.room.member(key).is_none() => self.enter(net, key, form, typed.trim(), wish),
            None => {}
            Some(command) if self.room.may_speak(key, now) => self.command(net, key, command),
            Some(_) => {
                self.refuse(net, key, "not said: too many lines at once, wait a moment", &typed);
            }
        }
        true
    }

    /// A command that changes something starts at once, and its turn comes. One that only answers waits for that turn, so that a
    /// member hears all answers in the order in which it typed.
    fn command(&mut self, net: &mut Net<'_, Self>, key: Key, command: Command<'_>) {
        let Some((name, heading)) = self.room.member(key).and_then(|member| Some((&member.name, member.heading()?))) else {
            return;
        };
        let (name, heading) = (Rc::clone(name), Rc::clone(heading));
        match command {
            Command::Say(text) => self.say(net, key, &name, &heading, text, false),
            Command::Does(text) => self.say(net, key, &name, &heading, text, true),
            Command::Nick(new) if *new == *name => self.answer(net, key, format!("you are {name}")),
            Command::Nick(new) => match self.room.check_free(new) {
                Ok(()) => self.rename(net, key, new),
                Err(why) => self.answer(net, key, why),
            },
            Command::Join(channel) => match self.room.check_channel(&channel) {
                Ok(()) if *channel == *heading => self.answer(net, key, format!("you are in {channel}")),
                Ok(()) => self.go(net, key, &channel, None),
                Err(why) => self.answer(net, key, why),
            },
            Command::Who(channel) => {
                let channel = if channel.is_empty() { heading.to_string() } else { channel.to_owned() };
                in_order(net, self, move |net, app| {
                    let Some(member) = app.room.member(key) else { return };
                    let is_here = member.channel.as_deref() == Some(&channel);
                    Self::send(net, key, member.form, &[app.who(&channel, is_here)]);
                });
            }
            Command::Channels => in_order(net, self, move |net, app| {
                let channels: Vec<String> = app.room.channels().iter().map(|(name, n)| format!("{name} ({n})")).collect();
                app.notice(net, key, &format!("channels: {}", channels.join(", ")));
            }),
            Command::Message(text) => {
                let text = text.to_owned();
                in_order(net, self, move |net, app| app.message(net, key, &text));
            }
            Command::Help => in_order(net, self, move |net, app| HELP.iter().for_each(|text| app.notice(net, key, text))),
            Command::Wrong(why) => self.answer(net, key, why),
            Command::Quit => {}
        }
    }

    fn answer(&mut self, net: &mut Net<'_, Self>, key: Key, text: String) {
        in_order(net, self, move |net, app| app.notice(net, key, &text));
    }

    fn who<'a>(&'a self, channel: &'a str, is_here: bool) -> Event<'a> {
        let (names, more) = self.room.who(channel);
        Event::Who { channel, names, more, is_here }
    }

    fn say(&mut self, net: &mut Net<'_, Self>, key: Key, from: &str, channel: &str, text: &str, does: bool) {
        let (channel, from) = (channel.into(), from.into());
        self.last_at = (self.clock)().max(self.last_at + 1);
        let line = Line { origin: self.history.origin, n: 0, channel, from, text: text.into(), does, at: self.last_at };
        if !add(net, self, [line]) {
            let typed = room::as_typed(text, does);
            self.refuse(net, key, "not said: the room is too busy, try again", &typed);
        }
    }

    fn message(&mut self, net: &mut Net<'_, Self>, key: Key, text: &str) {
        let Some(member) = self.room.member(key) else { return };
        let (from, form) = (Rc::clone(member.known_as()), member.form);
        let Some((to, text)) = split_name(text, |name| !self.room.is_free(name)) else {
            let name = text.split(' ').next().unwrap_or(text);
            let (why, typed) = (format!("nobody is called {name} here, or there is no text"), format!("/msg {text}"));
            return self.refuse(net, key, &why, &typed);
        };
        let at = (self.clock)();
        Self::send(net, key, form, &[Event::Private { from: &from, to, text, at, is_own: true }]);
        match self.room.holder(to) {
            Some(Holder::Here(_)) => _ = self.private(net, &from, to, text, at),
            Some(Holder::Elsewhere(origin)) => together::private(net, self, key, &from, origin, to, text, at),
            None => {}
        }
    }

    /// Tells a member of ours a private message. `false`: the member is not here.
    pub fn private(&self, net: &mut Net<'_, Self>, from: &str, to: &str, text: &str, at: i64) -> bool {
        let Some(Holder::Here(key)) = self.room.holder(to) else { return false };
        let Some(member) = self.room.member(key) else { return false };
        Self::send(net, key, member.form, &[Event::Private { from, to, text, at, is_own: false }]);
        true
    }
}

fn presence(name: &str, is_here: bool) -> Event<'_> {
    if is_here { Event::Joined { name } } else { Event::Left { name } }
}

fn millis() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}
