//! Several servers as one room, over NATS. Each server alone numbers its own lines and keeps its own list of members; the
//! others follow. NATS loses what is sent while a server is away, so everything has a number, every server says every two
//! seconds how far it is ([`Word::Here`]), and servers that have less ask for the rest. So it does not matter what was lost.
//!
//! All servers read `room.all`, and each reads `room.to.` followed by its own origin.

use crate::{
    App, Change,
    history::{self, Line, Origin},
    nats::{Message, Nats, Told},
    room::{self, Holder},
};
use mainspring::{Key, Net, rustls::ClientConfig};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    ops::Bound,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

/// How often each server says how far it is.
const HERE_EVERY: Duration = Duration::from_secs(2);

/// A server that says nothing for this long is gone, and its members with it.
const SILENCE: Duration = Duration::from_secs(8);

/// How many lines are sent again at a time, and how many names.
const LINES_MAX: usize = 100;
const NAMES_MAX: usize = 100;

/// If what we asked for has not come after this time, we ask again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// From a server that we have never heard of before, we want no more lines than this.
const OLD_MAX: u64 = 1000;

/// How long a private message may take, there and back, and how many may be under way.
const PRIVATE_MAX: Duration = Duration::from_secs(5);
const PRIVATES_MAX: usize = 10_000;

/// How many servers at a time, how many ever, and how many members of all other servers together.
const PEERS_MAX: usize = 64;
const ORIGINS_MAX: usize = 1024;
const MEMBERS_MAX: usize = 100_000;

/// No server has said more. (The numbers of a database end at 2^63.)
const NUMBER_MAX: u64 = 1 << 53;

/// What servers tell each other.
#[derive(Debug, Serialize, Deserialize)]
struct Letter {
    from: Origin,
    word: Word,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// The server's last line, its first one since it was started, and the version of its members.
    Here {
        last: u64,
        first: u64,
        version: u64,
    },
    /// The line that follows `after`: there is none between the two (any more). A line that could not be stored has the number 0,
    /// and is told once.
    Line {
        after: u64,
        line: Line,
    },
    /// Asks for the lines after this one.
    WantLines {
        after: u64,
    },
    /// Each change of a server's members makes a new version, one higher than the last.
    Came {
        version: u64,
        name: Rc<str>,
        channel: Rc<str>,
    },
    Went {
        version: u64,
        name: Rc<str>,
    },
    Renamed {
        version: u64,
        from: Rc<str>,
        to: Rc<str>,
        channel: Rc<str>,
    },
    /// Asks for the members whose names come after this one.
    WantMembers {
        after: String,
    },
    /// The members of this version between the two names, with their channels; without `to`, all after the first.
    Members {
        version: u64,
        after: String,
        to: Option<String>,
        members: Vec<(Rc<str>, Rc<str>)>,
    },
    Private {
        id: u64,
        from: String,
        to: String,
        text: String,
        at: i64,
    },
    /// Whether a private message was delivered.
    Answer {
        id: u64,
        is_told: bool,
    },
}

pub struct Together {
    pub nats: Nats<App>,
    origin: Origin,
    /// For each server that we have ever heard of, the line up to which we have all.
    have: BTreeMap<Origin, u64>,
    peers: BTreeMap<Origin, Peer>,
    /// Our first line since the start.
    first: u64,
    /// Our members as we told the other servers, each with its channel.
    ours: BTreeMap<Rc<str>, Rc<str>>,
    version: u64,
    /// Private messages without an answer so far, each with its sender and receiver.
    privates: BTreeMap<u64, (Key, String)>,
    private: u64,
    ticked: Instant,
    is_away: bool,
    has_twin: bool,
}

/// Another server that is here.
struct Peer {
    heard: Instant,
    /// The last line it has said, as far as we know.
    last: u64,
    /// When we asked for lines, and after which.
    asked: Option<(Instant, u64)>,
    members: BTreeMap<Rc<str>, Rc<str>>,
    version: u64,
    /// When we asked for members, and after which.
    listing: Option<(Instant, String)>,
}

const TOLD: Told<App> = Told { find: |app| &mut joined(app).nats, connected, away, message };

fn joined(app: &mut App) -> &mut Together {
    app.together.as_mut().expect("it stays, once it has started")
}

/// From now on the room is shared with all other servers there. For the URL, see [`Nats::new`].
pub fn start(net: &mut Net<'_, App>, app: &mut App, url: &str, tls: Option<Arc<ClientConfig>>) -> Result<(), String> {
    let origin = app.history.origin;
    let mut nats = Nats::new(url, tls, "room", TOLD)?;
    nats.subscribe(net, "room.all");
    nats.subscribe(net, &format!("room.to.{origin}"));
    app.together = Some(Together {
        nats,
        origin,
        have: app.history.had.clone(),
        peers: BTreeMap::new(),
        first: app.history.last + 1,
        ours: BTreeMap::new(),
        version: net.random() >> 12 | 1, // differs from the one before a restart
        privates: BTreeMap::new(),
        private: net.random() >> 12,
        ticked: net.now(),
        is_away: false,
        has_twin: false,
    });
    joined(app).nats.start(net);
    net.every(HERE_EVERY, tick);
    Ok(())
}

/// What members are told while NATS cannot be reached.
pub const ALONE: &str = "NATS is away: only people on this server hear you";

impl Together {
    pub fn is_alone(&self) -> bool {
        self.is_away
    }
}

/// To all servers, or to one. `false`: it is lost, because NATS is away or congested. A server that needs it will ask.
fn publish(net: &mut Net<'_, App>, app: &mut App, to: Option<Origin>, word: Word) -> bool {
    let Some(together) = &mut app.together else { return false };
    let letter = Letter { from: together.origin, word };
    let letter = serde_json::to_vec(&letter).expect("there is nothing but text and numbers in it");
    let subject = to.map_or_else(|| "room.all".to_owned(), |to| format!("room.to.{to}"));
    together.nats.publish(net, &subject, None, letter)
}

// ------------------------------------------------------------------------------------------------ what NATS tells us

fn connected(net: &mut Net<'_, App>, app: &mut App) {
    let together = joined(app);
    for peer in together.peers.values_mut() {
        (peer.asked, peer.listing) = (None, None); // the answers are lost
    }
    if std::mem::take(&mut together.is_away) {
        app.announce(net, "NATS is back: you are one room with the other servers again");
    }
    here(net, app);
}

fn away(net: &mut Net<'_, App>, app: &mut App, why: &str) {
    joined(app).is_away = true;
    log::info!("NATS is away: {why}");
    app.announce(net, ALONE);
}

fn message(net: &mut Net<'_, App>, app: &mut App, message: &Message<'_>) {
    match serde_json::from_slice(message.payload) {
        Ok(_) if app.history.is_busy() => {} // dropped, as if NATS had lost it
        Ok(letter) => heard(net, app, letter),
        Err(error) => log::debug!("cannot read a message on {}: {error}", message.subject),
    }
}

fn heard(net: &mut Net<'_, App>, app: &mut App, Letter { from, word }: Letter) {
    let now = net.now();
    let together = joined(app);
    if from == together.origin {
        if !std::mem::replace(&mut together.has_twin, true) {
            app.announce(net, "another server has a copy of this server's database: its lines are ignored here");
        }
        return;
    }
    if let Word::Here { last, first, version } = word {
        return is_here(net, app, from, last, first, version);
    }
    let Some(peer) = together.peers.get_mut(&from) else { return }; // it will say that it is here
    peer.heard = now;
    match word {
        Word::Line { after, line } if line.origin == from => said(net, app, after, line),
        Word::WantLines { after } => lines_wanted(net, app, from, after),
        Word::Came { version, name, channel } if is_next(net, app, from, version) => set(net, app, from, name, Some(channel)),
        Word::Went { version, name } if is_next(net, app, from, version) => set(net, app, from, name, None),
        Word::Renamed { version, from: old, to, channel } if is_next(net, app, from, version) => {
            renamed(net, app, from, old, to, channel);
        }
        Word::WantMembers { after } => members_wanted(net, app, from, after),
        Word::Members { version, after, to, members } => listed(net, app, from, version, after, to, members),
        Word::Private { id, from: name, to, text, at } if room::check_name(&name).is_ok() && room::is_sayable(&text) => {
            let is_told = app.private(net, &name, &to, &text, at);
            publish(net, app, Some(from), Word::Answer { id, is_told });
        }
        Word::Answer { id, is_told } => answered(net, app, id, is_told),
        _ => {}
    }
}

// ------------------------------------------------------------------------------------------------------ who is here

fn here(net: &mut Net<'_, App>, app: &mut App) {
    let last = app.history.last;
    let Together { first, version, .. } = *joined(app);
    publish(net, app, None, Word::Here { last, first, version });
}

fn is_here(net: &mut Net<'_, App>, app: &mut App, from: Origin, last: u64, first: u64, version: u64) {
    let now = net.now();
    let together = joined(app);
    let is_known = together.peers.contains_key(&from);
    let is_room = together.have.contains_key(&from) || together.have.len() < ORIGINS_MAX;
    if last > NUMBER_MAX || first > NUMBER_MAX || !is_room || (!is_known && together.peers.len() >= PEERS_MAX) {
        return;
    }
    together.have.entry(from).or_insert_with(|| last.saturating_sub(OLD_MAX).max(first.saturating_sub(1)));
    let peer = together.peers.entry(from).or_insert_with(|| {
        log::info!("the server {from} is here");
        Peer { heard: now, last, asked: None, members: BTreeMap::new(), version: 0, listing: None }
    });
    (peer.heard, peer.last) = (now, last);
    let is_asked = peer.listing.as_ref().is_some_and(|(asked, _)| now.duration_since(*asked) < ASK_AGAIN);
    let is_behind = peer.listing.is_some() || peer.version != version;
    if !is_known {
        here(net, app); // so that it need not wait for the next time
    }
    ask_for_lines(net, app, from);
    if is_behind && !is_asked {
        ask_for_members(net, app, from, String::new());
    }
}

fn tick(net: &mut Net<'_, App>, app: &mut App) {
    here(net, app);
    let now = net.now();
    let together = joined(app);
    // If our own process stood still, the others were not silent: we have yet to read what they said.
    let stood_still = now.duration_since(std::mem::replace(&mut together.ticked, now)) > 2 * HERE_EVERY;
    let is_silent = |peer: &Peer| !stood_still && now.duration_since(peer.heard) > SILENCE;
    let gone: Vec<Origin> = together.peers.iter().filter(|(_, peer)| is_silent(peer)).map(|(&origin, _)| origin).collect();
    for origin in gone {
        log::info!("the server {origin} is gone");
        let Some(peer) = joined(app).peers.remove(&origin) else { continue };
        show_in_order(net, app, peer.members.into_keys().collect(), true);
    }
}

// ------------------------------------------------------------------------------------------------------------- lines

/// A line of ours has been told, stored or not.
pub fn confirmed(net: &mut Net<'_, App>, app: &mut App, line: &Line) {
    publish(net, app, None, Word::Line { after: line.n.saturating_sub(1), line: line.clone() });
}

fn said(net: &mut Net<'_, App>, app: &mut App, after: u64, line: Line) {
    let (from, n, is_sound) = (line.origin, line.n, line.is_sound());
    if n == 0 {
        if is_sound {
            history::in_order(net, app, move |net, app| app.confirmed(net, &line));
        }
        return;
    }
    let together = joined(app);
    let (Some(have), Some(peer)) = (together.have.get(&from).copied(), together.peers.get_mut(&from)) else { return };
    peer.last = peer.last.max(n.min(NUMBER_MAX));
    // (Skip a line that no member of ours could have said; otherwise we would ask for it for ever.)
    if have < n && after <= have && n <= NUMBER_MAX && (!is_sound || history::add(net, app, [line])) {
        joined(app).have.insert(from, n);
    }
    ask_for_lines(net, app, from);
}

/// Asks for lines, if there are some that we do not have.
fn ask_for_lines(net: &mut Net<'_, App>, app: &mut App, origin: Origin) {
    let now = net.now();
    let together = joined(app);
    let (Some(&have), Some(peer)) = (together.have.get(&origin), together.peers.get_mut(&origin)) else { return };
    let is_asked = |(at, after): (Instant, u64)| now.duration_since(at) < ASK_AGAIN && have < after + LINES_MAX as u64;
    if have < peer.last && !peer.asked.is_some_and(is_asked) {
        peer.asked = Some((now, have));
        publish(net, app, Some(origin), Word::WantLines { after: have });
    }
}

fn lines_wanted(net: &mut Net<'_, App>, app: &mut App, by: Origin, mut after: u64) {
    let origin = app.history.origin;
    let read = move |store: &mut history::Store| store.lines_after(origin, after, LINES_MAX);
    history::with_store(net, app, read, move |net, app, lines| {
        let Ok(Ok(lines)) = lines else { return }; // the other server will ask again
        for line in lines {
            let n = line.n;
            if !publish(net, app, Some(by), Word::Line { after, line }) {
                return;
            }
            after = n;
        }
    });
}

// ----------------------------------------------------------------------------------------------------------- members

/// A member of ours has come, gone, or changed its name.
pub fn changed(net: &mut Net<'_, App>, app: &mut App, change: &Change) {
    let Some(together) = &mut app.together else { return };
    together.version += 1;
    let version = together.version;
    let (word, free) = match change {
        Change::Came { name, channel, .. } => {
            together.ours.insert(Rc::clone(name), Rc::clone(channel));
            (Word::Came { version, name: Rc::clone(name), channel: Rc::clone(channel) }, None)
        }
        Change::Went { name, .. } => {
            together.ours.remove(name);
            (Word::Went { version, name: Rc::clone(name) }, Some(name))
        }
        Change::Renamed { from, to, channel } => {
            together.ours.remove(from);
            together.ours.insert(Rc::clone(to), Rc::clone(channel));
            let (old, to, channel) = (Rc::clone(from), Rc::clone(to), Rc::clone(channel));
            (Word::Renamed { version, from: old, to, channel }, Some(from))
        }
    };
    publish(net, app, None, word);
    if let Some(name) = free {
        show(net, app, name, false); // a member of another server may have it too
    }
}

/// Whether this change follows the last one; if not, asks for the list of the server's members.
fn is_next(net: &mut Net<'_, App>, app: &mut App, from: Origin, version: u64) -> bool {
    let Some(peer) = joined(app).peers.get_mut(&from) else { return false };
    let is_next = peer.version != 0 && peer.version.checked_add(1) == Some(version);
    if is_next {
        peer.version = version;
    } else if peer.version != 0 || peer.listing.is_none() {
        ask_for_members(net, app, from, String::new());
    }
    is_next
}

/// From the beginning, or after this name.
fn ask_for_members(net: &mut Net<'_, App>, app: &mut App, origin: Origin, after: String) {
    let now = net.now();
    let Some(peer) = joined(app).peers.get_mut(&origin) else { return };
    if after.is_empty() {
        peer.version = 0; // no server has this version
    }
    peer.listing = Some((now, after.clone()));
    publish(net, app, Some(origin), Word::WantMembers { after });
}

fn members_wanted(net: &mut Net<'_, App>, app: &mut App, by: Origin, after: String) {
    let together = joined(app);
    let behind = (Bound::Excluded(after.as_str()), Bound::Unbounded);
    let members: Vec<_> =
        together.ours.range::<str, _>(behind).take(NAMES_MAX).map(|(name, at)| (name.clone(), at.clone())).collect();
    let to = members.last().filter(|_| members.len() == NAMES_MAX).map(|(name, _)| name.to_string());
    let version = together.version;
    publish(net, app, Some(by), Word::Members { version, after, to, members });
}

/// A part of the list replaces what we knew. Changes that come between two parts apply to both.
fn listed(
    net: &mut Net<'_, App>,
    app: &mut App,
    from: Origin,
    version: u64,
    after: String,
    to: Option<String>,
    members: Vec<(Rc<str>, Rc<str>)>,
) {
    let Some(peer) = joined(app).peers.get_mut(&from) else { return };
    if peer.listing.as_ref().is_none_or(|(_, asked)| *asked != after) || to.as_ref().is_some_and(|to| *to <= after) {
        return;
    }
    if !after.is_empty() && version != peer.version {
        return ask_for_members(net, app, from, String::new()); // a change was lost
    }
    (peer.version, peer.listing) = (version, None);
    let end = to.as_deref().map_or(Bound::Unbounded, Bound::Included);
    let known = peer.members.range::<str, _>((Bound::Excluded(after.as_str()), end));
    let mut named: BTreeMap<Rc<str>, Option<Rc<str>>> = known.map(|(name, _)| (Rc::clone(name), None)).collect();
    named.extend(members.into_iter().map(|(name, channel)| (name, Some(channel))));
    let mut changed = Vec::new();
    for (name, channel) in named {
        if note(app, from, &name, channel) {
            changed.push(name);
        }
    }
    show_in_order(net, app, changed, true);
    if let Some(to) = to {
        ask_for_members(net, app, from, to);
    }
}

/// Notes where a member of another server is, if anywhere. Returns whether that is new.
fn note(app: &mut App, origin: Origin, name: &Rc<str>, channel: Option<Rc<str>>) -> bool {
    let together = joined(app);
    let is_full = together.peers.values().map(|peer| peer.members.len()).sum::<usize>() >= MEMBERS_MAX;
    let Some(peer) = together.peers.get_mut(&origin) else { return false };
    match channel {
        Some(channel) if room::check_name(name).is_ok() && room::is_channel(&channel) && !is_full => {
            peer.members.insert(Rc::clone(name), Rc::clone(&channel)).as_ref() != Some(&channel)
        }
        _ => peer.members.remove(name).is_some(),
    }
}

fn set(net: &mut Net<'_, App>, app: &mut App, origin: Origin, name: Rc<str>, channel: Option<Rc<str>>) {
    if note(app, origin, &name, channel) {
        show_in_order(net, app, vec![name], false);
    }
}

/// We need not know the old name: it may be in a part of the list that is still to come.
fn renamed(net: &mut Net<'_, App>, app: &mut App, origin: Origin, from: Rc<str>, to: Rc<str>, channel: Rc<str>) {
    note(app, origin, &from, None);
    note(app, origin, &to, Some(Rc::clone(&channel)));
    history::in_order(net, app, move |net, app| {
        let is_shown = app.room.holder(&from) == Some(Holder::Elsewhere(origin)) && holder(app, &from).is_none();
        let is_next = app.room.is_free(&to) && holder(app, &to).is_some_and(|holder| holder == (origin, Rc::clone(&channel)));
        if is_shown && is_next && app.room.remote_came(&to, origin, &channel).is_ok() {
            app.room.remote_went(&from);
            return app.tell_change(net, &Change::Renamed { from, to, channel }, false);
        }
        show(net, app, &from, false);
        show(net, app, &to, false);
    });
}

/// Of all other servers that have the name, the one with the lowest origin.
fn holder(app: &mut App, name: &str) -> Option<(Origin, Rc<str>)> {
    let mut peers = joined(app).peers.iter();
    peers.find_map(|(&origin, peer)| peer.members.get(name).map(|channel| (origin, Rc::clone(channel))))
}

/// In the order of the room: a member that has gone may have said something before.
fn show_in_order(net: &mut Net<'_, App>, app: &mut App, names: Vec<Rc<str>>, of_many: bool) {
    history::in_order(net, app, move |net, app| names.iter().for_each(|name| show(net, app, name, of_many)));
}

/// Shows in the room who has this name now. If two servers meet with the same name, the lower origin keeps it.
fn show(net: &mut Net<'_, App>, app: &mut App, name: &Rc<str>, of_many: bool) {
    let ours = joined(app).origin;
    let Some((origin, channel)) = holder(app, name) else {
        if let Some(gone) = app.room.remote_went(name) {
            app.tell_change(net, &Change::Went { name: Rc::clone(name), channel: gone.channel }, of_many);
        }
        return;
    };
    if let Some(Holder::Here(key)) = app.room.holder(name) {
        if ours < origin {
            return; // the other member must change its name
        }
        let new = app.room.other_name(name);
        app.rename(net, key, &new);
        app.notice(net, key, &format!("somebody on another server is called {name} too: you are {new} now"));
    }
    let Ok(from) = app.room.remote_came(name, origin, &channel) else { return };
    if from.as_deref() != Some(&*channel) {
        app.tell_change(net, &Change::Came { name: Rc::clone(name), channel, from }, of_many);
    }
}

// -------------------------------------------------------------------------------------------------- private messages

/// A member of ours says something privately to a member of another server, and is told if it does not arrive.
#[allow(clippy::too_many_arguments)]
pub fn private(net: &mut Net<'_, App>, app: &mut App, key: Key, from: &str, origin: Origin, to: &str, text: &str, at: i64) {
    let together = joined(app);
    let (id, is_full) = (together.private, together.privates.len() >= PRIVATES_MAX);
    together.private += 1;
    let word = Word::Private { id, from: from.into(), to: to.into(), text: text.into(), at };
    if is_full || !publish(net, app, Some(origin), word) {
        return app.notice(net, key, &format!("{to} cannot hear you now: the connection to the other servers is bad"));
    }
    joined(app).privates.insert(id, (key, to.into()));
    net.after(PRIVATE_MAX, move |net, app| {
        if let Some((key, to)) = joined(app).privates.remove(&id) {
            app.notice(net, key, &format!("{to} may not have heard you: there was no answer"));
        }
    });
}

fn answered(net: &mut Net<'_, App>, app: &mut App, id: u64, is_told: bool) {
    if let Some((key, to)) = joined(app).privates.remove(&id).filter(|_| !is_told) {
        app.notice(net, key, &format!("{to} has not heard you: nobody has that name any more"));
    }
}
