//! Who is here, under which name and in which channel, and what a typed line means. Nothing here knows the network: members
//! are [`Key`]s.

pub(crate) use crate::printable::check_name;
use crate::{events::Form, history::Origin, printable::printable};
use mainspring::Key;
use std::{collections::BTreeMap, rc::Rc, time::Instant};

/// The longest line that a member may type, in bytes.
pub const LINE_MAX: usize = 1024;
/// In characters.
pub const NAME_MAX: usize = crate::printable::NAME_MAX;
pub const CHANNEL_MAX: usize = 32;
pub const CHANNELS_MAX: usize = 1000;

/// The channel where everybody begins.
pub const LOBBY: &str = "lobby";

/// How much may be queued for a member that does not read, before it is disconnected. The lines it is told when it joins must
/// fit: a hundred of the longest.
pub const QUEUE_MAX: usize = 384 << 10;

/// How many lines at once, and then one in how much time.
const BURST: u64 = 10;
const PACE: u64 = 500; // milliseconds

/// In a channel with more members, arrivals and departures are not told one by one: see [`Room::note`].
pub const CROWD: usize = 100;

/// The most names, and bytes, in a list of who is there.
const WHO_MAX: usize = 1000;
const WHO_BYTES_MAX: usize = 32 << 10;

/// A member of this server. There may be thousands, so what few of them have is kept elsewhere.
#[derive(Debug)]
pub struct Member {
    pub name: Rc<str>,
    /// Where it is; `None` until it has been told what was said there before.
    pub channel: Option<Rc<str>>,
    pub form: Form,
    /// When it may say the next line at the pace for all, in milliseconds since the room was opened.
    paced_until: u64,
    coming: Option<Box<Coming>>,
}

/// What a member has asked for, if its turn has not come yet.
#[derive(Debug, Default)]
struct Coming {
    /// Where it goes, and through how many channels, that one included.
    channel: Option<(Rc<str>, u32)>,
    /// The name by which others know it until then.
    known_as: Option<Rc<str>>,
}

impl Member {
    /// The name by which others know it: a new one is told in its turn.
    pub fn known_as(&self) -> &Rc<str> {
        self.coming.as_ref().and_then(|coming| coming.known_as.as_ref()).unwrap_or(&self.name)
    }

    /// Where it will be when everything it has typed so far is done.
    pub fn heading(&self) -> Option<&Rc<str>> {
        self.coming.as_ref().and_then(|coming| Some(&coming.channel.as_ref()?.0)).or(self.channel.as_ref())
    }

    fn coming(&mut self) -> &mut Coming {
        self.coming.get_or_insert_default()
    }

    fn tidy(&mut self) {
        self.coming.take_if(|coming| coming.channel.is_none() && coming.known_as.is_none());
    }
}

/// A member of another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub origin: Origin,
    pub channel: Rc<str>,
}

/// The holder of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    Here(Key),
    Elsewhere(Origin),
}

#[derive(Default)]
struct Channel {
    members: BTreeMap<Key, Form>,
    /// Members that have come (`true`) or gone without anybody being told yet.
    changes: BTreeMap<Rc<str>, bool>,
}

/// A channel, and who has come or gone there.
type Changes = (Rc<str>, Vec<(Rc<str>, bool)>);

/// Each name is in `names` or in `remote`, never in both. A channel exists while a member of this server is in it.
#[derive(Default)]
pub struct Room {
    /// Boxed, because a tree whose keys ascend is half empty.
    members: BTreeMap<Key, Box<Member>>,
    names: BTreeMap<Rc<str>, Key>,
    remote: BTreeMap<Rc<str>, Remote>,
    channels: BTreeMap<Rc<str>, Channel>,
    pub members_max: usize,
    /// When somebody first said something.
    opened: Option<Instant>,
}

impl Room {
    pub fn new(members_max: usize) -> Self {
        Self { members_max, ..Self::default() }
    }

    // -------------------------------------------------------------------------------------------------------- members

    pub fn member(&self, key: Key) -> Option<&Member> {
        self.members.get(&key).map(|member| &**member)
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// On all servers.
    pub fn holder(&self, name: &str) -> Option<Holder> {
        let here = self.names.get(name).map(|&key| Holder::Here(key));
        here.or_else(|| self.remote.get(name).map(|remote| Holder::Elsewhere(remote.origin)))
    }

    pub fn is_free(&self, name: &str) -> bool {
        self.holder(name).is_none()
    }

    /// Adds a member with a name, if that will do; otherwise says why not.
    pub fn enter(&mut self, key: Key, form: Form, name: &str) -> Result<(), String> {
        if self.members.len() >= self.members_max {
            return Err("The room is full, try again later.".into());
        }
        self.check_free(name)?;
        let name: Rc<str> = name.into();
        let member = Member { name: Rc::clone(&name), channel: None, form, paced_until: 0, coming: None };
        self.members.insert(key, Box::new(member));
        self.names.insert(name, key);
        Ok(())
    }

    /// Whether a member of ours could take it.
    pub fn check_free(&self, name: &str) -> Result<(), String> {
        check_name(name)?;
        if self.is_free(name) { Ok(()) } else { Err(format!("{name} is here already.")) }
    }

    /// Gives a member a name that is free; its old one becomes free.
    pub fn rename(&mut self, key: Key, name: &str) {
        if let Some(member) = self.members.get_mut(&key) {
            let name: Rc<str> = name.into();
            self.names.remove(&member.name);
            self.names.insert(Rc::clone(&name), key);
            let old = std::mem::replace(&mut member.name, name);
            member.coming().known_as.get_or_insert(old);
        }
    }

    /// From now on others know the new name. Returns the one by which they knew the member, if it was another.
    pub fn tell_name(&mut self, key: Key, name: &Rc<str>) -> Option<Rc<str>> {
        let member = self.members.get_mut(&key)?;
        let old = Rc::clone(member.known_as());
        let is_last = member.name == *name;
        member.coming().known_as = Some(Rc::clone(name)).filter(|_| !is_last);
        member.tidy();
        Some(old).filter(|old| old != name)
    }

    /// `name_2`, or the next that is free, for a member that has to give up its name.
    pub fn other_name(&self, name: &str) -> String {
        let begin: String = name.chars().take(NAME_MAX - 8).collect();
        let mut names = (2..).map(|number| format!("{begin}_{number}"));
        names.find(|name| self.is_free(name)).expect("there are more numbers than members")
    }

    /// A member has gone: its name is free, and it is in no channel any more.
    pub fn leave(&mut self, key: Key) -> Option<Member> {
        let member = self.members.remove(&key)?;
        self.names.remove(&member.name);
        if let Some(channel) = &member.channel {
            self.take_out(channel, key);
        }
        Some(*member)
    }

    /// Where it will be next.
    pub fn head_for(&mut self, key: Key, channel: &str) -> Option<Rc<str>> {
        let channel = self.interned(channel);
        let coming = self.members.get_mut(&key)?.coming();
        let ways = coming.channel.as_ref().map_or(0, |(_, ways)| *ways);
        coming.channel = Some((Rc::clone(&channel), ways + 1));
        Some(channel)
    }

    /// Takes a member out of its channel, until it arrives in the next one. Returns where it was.
    pub fn depart(&mut self, key: Key) -> Option<Rc<str>> {
        let old = self.members.get_mut(&key)?.channel.take()?;
        self.take_out(&old, key);
        Some(old)
    }

    pub fn arrive(&mut self, key: Key, channel: &Rc<str>) {
        if let Some(member) = self.members.get_mut(&key) {
            member.channel = Some(Rc::clone(channel));
            member.coming().channel.take_if(|(_, ways)| {
                *ways -= 1;
                *ways == 0
            });
            member.tidy();
            self.channels.entry(Rc::clone(channel)).or_default().members.insert(key, member.form);
        }
    }

    fn take_out(&mut self, channel: &str, key: Key) {
        if let Some(there) = self.channels.get_mut(channel) {
            there.members.remove(&key);
            if there.members.is_empty() {
                self.channels.remove(channel);
            }
        }
    }

    /// Whether it may say something now; if so, that is counted.
    pub fn may_speak(&mut self, key: Key, now: Instant) -> bool {
        let now = now.duration_since(*self.opened.get_or_insert(now)).as_millis() as u64;
        let Some(member) = self.members.get_mut(&key) else { return false };
        let next = member.paced_until.max(now) + PACE;
        if next > now + PACE * BURST {
            return false;
        }
        member.paced_until = next;
        true
    }

    /// The members in a channel of this server, each with its form.
    pub fn in_channel(&self, channel: &str) -> impl Iterator<Item = (Key, Form)> {
        self.channels.get(channel).into_iter().flat_map(|there| there.members.iter().map(|(&key, &form)| (key, form)))
    }

    /// All members of this server that are in a channel.
    pub fn everybody(&self) -> impl Iterator<Item = (Key, &Member)> {
        self.members.iter().filter(|(_, member)| member.channel.is_some()).map(|(&key, member)| (key, &**member))
    }

    // ------------------------------------------------------------------------------------------------- other servers

    /// A member of another server is in this channel now. Returns where it was. It cannot take the name of a member of ours.
    pub fn remote_came(&mut self, name: &str, origin: Origin, channel: &str) -> Result<Option<Rc<str>>, Key> {
        if let Some(&key) = self.names.get(name) {
            return Err(key);
        }
        let channel = self.interned(channel);
        let old = self.remote.insert(name.into(), Remote { origin, channel });
        Ok(old.map(|old| old.channel))
    }

    pub fn remote_went(&mut self, name: &str) -> Option<Remote> {
        self.remote.remove(name)
    }

    pub fn remotes(&self) -> impl Iterator<Item = (&Rc<str>, &Remote)> {
        self.remote.iter()
    }

    // -------------------------------------------------------------------------------------------------------- channels

    /// One text, shared by all who are there.
    fn interned(&self, channel: &str) -> Rc<str> {
        self.channels.get_key_value(channel).map_or_else(|| channel.into(), |(channel, _)| Rc::clone(channel))
    }

    /// Whether a member can go there: the number of channels is limited.
    pub fn check_channel(&self, channel: &str) -> Result<(), String> {
        if !is_channel(channel) {
            return Err(format!("a channel has 1 to {CHANNEL_MAX} of the characters a-z 0-9 - _"));
        }
        if channel != LOBBY && !self.channels.contains_key(channel) && self.channels.len() >= CHANNELS_MAX {
            return Err(format!("there are {CHANNELS_MAX} channels already, and there can be no more"));
        }
        Ok(())
    }

    /// The names on all servers, sorted, and how many more there are, if they are too many to list.
    pub fn who(&self, channel: &str) -> (Vec<&str>, usize) {
        let here = self.members.values().filter(|member| member.channel.as_deref() == Some(channel));
        let elsewhere = self.remote.iter().filter(|(_, remote)| &*remote.channel == channel).map(|(name, _)| &**name);
        let mut names: Vec<&str> = here.map(|member| &**member.known_as()).chain(elsewhere).collect();
        let all = names.len();
        if all > WHO_MAX {
            names.select_nth_unstable(WHO_MAX); // every new member is told, so sorting must not take long
            names.truncate(WHO_MAX);
        }
        names.sort_unstable();
        let mut bytes = 0;
        let fits = |name: &&&str| {
            bytes += name.len() + 3;
            bytes <= WHO_BYTES_MAX
        };
        names.truncate(names.iter().take_while(fits).count());
        let more = all - names.len();
        (names, more)
    }

    /// The channels of all servers, with their numbers of members.
    pub fn channels(&self) -> BTreeMap<&str, usize> {
        let mut channels = BTreeMap::from([(LOBBY, 0)]);
        channels.extend(self.channels.iter().map(|(name, there)| (&**name, there.members.len())));
        for remote in self.remote.values() {
            *channels.entry(&remote.channel).or_default() += 1;
        }
        channels
    }

    /// Somebody has come or gone. In a crowd that is only noted, because a thousand arrivals would be a million messages; the
    /// changes are told [from time to time](Self::take_changes). `false`: it must be told now.
    pub fn note(&mut self, channel: &str, name: &Rc<str>, is_here: bool, of_many: bool) -> bool {
        let is_noted = of_many || self.is_crowd(channel);
        let Some(there) = self.channels.get_mut(channel).filter(|_| is_noted) else { return false };
        // Nobody was told that this member came (or went), so that it went (or came) again need not be told either.
        if there.changes.insert(Rc::clone(name), is_here) == Some(!is_here) {
            there.changes.remove(name);
        }
        true
    }

    /// Whether a channel is too large to tell each arrival at once, or still has changes that were not told.
    pub fn is_crowd(&self, channel: &str) -> bool {
        self.channels.get(channel).is_some_and(|there| there.members.len() > CROWD || !there.changes.is_empty())
    }

    /// The changes to tell next, so many of each channel, and whether there are more.
    pub fn take_changes(&mut self, most: usize) -> (Vec<Changes>, bool) {
        let mut taken = Vec::new();
        for (name, there) in self.channels.iter_mut().filter(|(_, there)| !there.changes.is_empty()) {
            let changes = std::iter::from_fn(|| there.changes.pop_first()).take(most).collect();
            taken.push((Rc::clone(name), changes));
        }
        (taken, self.channels.values().any(|there| !there.changes.is_empty()))
    }
}

// ------------------------------------------------------------------------------------------------------- what is typed

#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    Say(&'a str),
    Does(&'a str),
    Nick(&'a str),
    /// In which channel; empty: here.
    Who(&'a str),
    Join(String),
    Channels,
    /// The name and the text: only with the list of names can they be told apart.
    Message(&'a str),
    Help,
    Quit,
    /// Not a command, with the message about it.
    Wrong(String),
}

/// `None` if nothing was typed, or only blanks.
pub fn command(typed: &str) -> Option<Command<'_>> {
    let typed = typed.trim();
    if typed.is_empty() {
        return None;
    }
    let Some(command) = typed.strip_prefix('/') else { return Some(Command::Say(typed)) };
    if command.starts_with('/') {
        return Some(Command::Say(command));
    }
    let (verb, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = rest.trim();
    Some(match (verb, rest) {
        ("me" | "nick" | "join" | "msg", "") => {
            let what = match verb {
                "me" => "DOES",
                "nick" => "NAME",
                "join" => "CHANNEL",
                _ => "NAME TEXT",
            };
            Command::Wrong(format!("something is missing: /{verb} {what}"))
        }
        ("me", does) => Command::Does(does),
        ("nick", name) => Command::Nick(name),
        ("who", channel) => Command::Who(channel),
        ("join", channel) => Command::Join(channel.strip_prefix('#').unwrap_or(channel).to_lowercase()),
        ("msg", rest) => Command::Message(rest),
        ("channels", _) => Command::Channels,
        ("help", _) => Command::Help,
        ("quit", _) => Command::Quit,
        _ => Command::Wrong(format!("there is no command /{verb}: /help lists the commands")),
    })
}

/// What a member typed to say this.
pub fn as_typed(text: &str, does: bool) -> String {
    let before = if does { "/me " } else { "" };
    let quote = if !does && text.starts_with('/') { "/" } else { "" };
    format!("{before}{quote}{text}")
}

pub const HELP: [&str; 8] = [
    "/nick NAME: take another name",
    "/me DOES: say what you do",
    "/who [CHANNEL]: who is here, or there",
    "/join CHANNEL: go there; /channels lists them all",
    "/msg NAME TEXT: only NAME hears it",
    "//text: say /text",
    "/quit: leave",
    "a line may have 1,024 bytes; ten lines at once, then two a second",
];

/// The name at the start of a text, and the rest: names may have spaces in them.
pub fn split_name(text: &str, is_name: impl Fn(&str) -> bool) -> Option<(&str, &str)> {
    let splits = text.match_indices(' ').map(|(at, _)| (&text[..at], text[at..].trim()));
    splits.filter(|(name, rest)| !rest.is_empty() && is_name(name)).last()
}

// -------------------------------------------------------------------------------------------------------- what is sound

pub fn is_sayable(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= LINE_MAX && printable(text) == text
}

pub fn is_channel(name: &str) -> bool {
    (1..=CHANNEL_MAX).contains(&name.len()) && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_what_stands_behind_a_slash_and_everything_else_is_said() {
        let cases = [
            ("hello", Some(Command::Say("hello"))),
            ("  //who  ", Some(Command::Say("/who"))),
            (" \t", None),
            ("/me  waves at /me ", Some(Command::Does("waves at /me"))),
            ("/who", Some(Command::Who(""))),
            ("/join #DEV", Some(Command::Join("dev".into()))),
            ("/msg a b c", Some(Command::Message("a b c"))),
            ("/quit now", Some(Command::Quit)),
            ("/WHO", Some(Command::Wrong("there is no command /WHO: /help lists the commands".into()))),
        ];
        for (typed, wanted) in cases {
            assert_eq!(command(typed), wanted, "{typed}");
        }
    }

    #[test]
    fn the_longest_name_that_somebody_has_is_meant() {
        let is_name = |name: &str| ["ann", "ann b", "c"].contains(&name);
        assert_eq!(split_name("ann b c", is_name), Some(("ann b", "c")));
        assert_eq!(split_name("ann c", is_name), Some(("ann", "c")));
        assert_eq!(split_name("ann", is_name), None);
        assert_eq!(split_name("nobody c", is_name), None);
    }

    #[test]
    fn who_must_give_its_name_up_gets_one_that_is_free() {
        let mut room = Room::new(10);
        let long = "x".repeat(NAME_MAX);
        for name in ["ann", "ann_2", &long] {
            assert_eq!(room.remote_came(name, Origin(1), LOBBY), Ok(None));
        }
        assert_eq!(room.other_name("ann"), "ann_3");
        assert_eq!(check_name(&room.other_name(&long)), Ok(()));
        let (names, more) = room.who(LOBBY);
        assert_eq!((&*names, more), (&["ann", "ann_2", &*long][..], 0));
        for number in 0..2000 {
            let _ = room.remote_came(&format!("m{number:04}"), Origin(1), LOBBY);
        }
        let (names, more) = room.who(LOBBY);
        assert_eq!((names.len(), names[999], more), (1000, "m0997", 1003));
    }
}
