//! What members are told, in two forms: lines for terminals, JSON objects for browsers. Nothing here knows the members.

use crate::{Agreed, history::Line};
use serde::Serialize;
use std::{fmt::Write, rc::Rc};

/// The form in which a member is told something. All members of one form share one buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    Line,
    /// On a WebSocket, compressed as agreed on.
    Json(Option<Agreed>),
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Event<'a> {
    /// Asks for a name, perhaps with the reason why the last one will not do.
    Ask {
        text: &'a str,
    },
    /// Tells a member its own name, and where it is.
    You {
        name: &'a str,
        channel: &'a str,
        #[serde(skip)]
        because: Because,
    },
    Line {
        id: String,
        channel: &'a str,
        from: &'a str,
        text: &'a str,
        at: i64,
        does: bool,
        /// The line was said before the member came.
        old: bool,
    },
    Private {
        from: &'a str,
        to: &'a str,
        text: &'a str,
        at: i64,
        /// This copy is for the sender.
        #[serde(skip)]
        is_own: bool,
    },
    Who {
        channel: &'a str,
        names: Vec<&'a str>,
        /// How many more there are that are not listed.
        more: usize,
        /// The member itself is in this channel.
        #[serde(skip)]
        is_here: bool,
    },
    Joined {
        name: &'a str,
    },
    Left {
        name: &'a str,
    },
    Renamed {
        from: &'a str,
        to: &'a str,
    },
    /// A notice of the room itself.
    Notice {
        text: &'a str,
        /// A typed line that was refused.
        #[serde(skip_serializing_if = "Option::is_none")]
        refused: Option<&'a str>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    Entered,
    Moved,
    Renamed,
}

impl<'a> Event<'a> {
    pub fn notice(text: &'a str) -> Self {
        Self::Notice { text, refused: None }
    }

    pub fn said(line: &'a Line, old: bool) -> Self {
        let Line { channel, from, text, does, at, .. } = line;
        Self::Line { id: line.id(), channel, from, text, at: *at, does: *does, old }
    }

    /// As the bytes for a member of this form.
    pub fn add_to(&self, out: &mut Vec<u8>, form: Form) {
        match form {
            Form::Line => out.extend(self.line().bytes()),
            Form::Json(agreed) => out.extend(web::ws::text(agreed, &self.json())),
        }
    }

    fn json(&self) -> String {
        serde_json::to_string(self).expect("there is nothing but text and numbers in it")
    }

    /// With its line end; empty where a terminal needs nothing.
    fn line(&self) -> String {
        match self {
            Self::Ask { text } => format!("{text}\n"),
            Self::You { name, channel, because: Because::Entered } => {
                format!("Welcome, {name}! You are in {channel}. /help lists the commands.\n")
            }
            Self::You { channel, because: Because::Moved, .. } => format!("* you are in {channel}\n"),
            Self::You { because: Because::Renamed, .. } => String::new(), // the whole channel is told
            Self::Line { from, text, at, does, old, .. } => {
                let time = if *old { format!("{} ", minute(*at)) } else { String::new() };
                if *does { format!("{time}~ {from} {text}\n") } else { format!("{time}<{from}> {text}\n") }
            }
            Self::Private { to, text, is_own: true, .. } => format!("[you to {to}] {text}\n"),
            Self::Private { from, text, .. } => format!("[{from} to you] {text}\n"),
            Self::Who { channel, names, more, is_here } => {
                let mut line = if *is_here { "* here: ".to_owned() } else { format!("* in {channel}: ") };
                line += &if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
                if *more > 0 {
                    let _ = write!(line, ", and {more} more"); // a String takes everything
                }
                line + "\n"
            }
            Self::Joined { name } => format!("* {name} joined\n"),
            Self::Left { name } => format!("* {name} left\n"),
            Self::Renamed { from, to } => format!("* {from} is now {to}\n"),
            Self::Notice { text, .. } => format!("* {text}\n"),
        }
    }
}

/// One buffer for all members of one form.
pub struct Told<'a> {
    events: &'a [Event<'a>],
    forms: Vec<(Form, Rc<[u8]>)>,
}

impl<'a> Told<'a> {
    pub fn new(events: &'a [Event<'a>]) -> Self {
        Self { events, forms: Vec::new() }
    }

    pub fn to(&mut self, form: Form) -> &Rc<[u8]> {
        let at = self.forms.iter().position(|(there, _)| *there == form).unwrap_or_else(|| {
            let mut bytes = Vec::new();
            for event in self.events {
                event.add_to(&mut bytes, form);
            }
            self.forms.push((form, bytes.into()));
            self.forms.len() - 1
        });
        &self.forms[at].1
    }
}

/// `2026-11-30 20:15`, in UTC.
fn minute(at: i64) -> String {
    let minutes = at.div_euclid(60_000);
    let (day, minute) = (minutes.div_euclid(24 * 60), minutes.rem_euclid(24 * 60));
    let (year, month, day) = date(day);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", minute / 60, minute % 60)
}

/// The date of a day, counted since 1970. An era is 400 years, which are 146,097 days; a year begins in March here, so that
/// the leap day is its last day.
fn date(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468; // since 1 March of the year 0
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // 0 is March
    let of_month = day - (153 * month + 2) / 5 + 1;
    let is_next = month >= 10;
    (era * 400 + year + i64::from(is_next), if is_next { month - 9 } else { month + 3 }, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_those_of_the_calendar() {
        for (at, text) in [
            (0, "1970-01-01 00:00"),
            (-1, "1969-12-31 23:59"),
            (951_782_399_999, "2000-02-28 23:59"),
            (951_782_400_000, "2000-02-29 00:00"),
            (951_868_800_000, "2000-03-01 00:00"),
            (1_764_533_700_123, "2025-11-30 20:15"),
            (4_107_542_400_000, "2100-03-01 00:00"),
        ] {
            assert_eq!(minute(at), text);
        }
    }
}
