//! Messages in a database. [`Store`] blocks, so other threads work on it, through a lane of the crate; [`History`] is the
//! loop's side of it. **The lane sets the order of the room**: messages, arrivals and departures are told in the order in
//! which work comes back from it.
//!
//! Lines that come while some are being stored are stored together: one commit, and one fsync(2), for all of them.

use crate::{App, room};
use mainspring::{Lane, Net, OffloadError};
use rusqlite::{
    Connection, OptionalExtension, Row, ToSql, Transaction, TransactionBehavior, params,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, path, path::Path, str::FromStr, sync::Arc, time::Duration};

/// The number of a database, which tells where a line was said first. It is random, and made with the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin(pub u64);

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_ours = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = if is_ours { u64::from_str_radix(text, 16).ok() } else { None };
        number.map(Self).ok_or("an origin is 16 hexadecimal digits")
    }
}

impl TryFrom<String> for Origin {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.to_string()
    }
}

impl ToSql for Origin {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.to_string().into())
    }
}

impl FromSql for Origin {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map_err(|_| FromSqlError::InvalidType)
    }
}

/// Something that was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The server where it was said.
    pub origin: Origin,
    /// The line's number at its server, from 1 and without gaps; 0 if it is not (or not yet) in the database there.
    pub n: u64,
    pub channel: Box<str>,
    pub from: Box<str>,
    pub text: Box<str>,
    /// The text says what the member does: `/me`.
    pub does: bool,
    /// In milliseconds since 1970.
    pub at: i64,
}

impl Line {
    /// Unique, even if the line was not stored.
    pub fn id(&self) -> String {
        let Self { origin, n, at, .. } = self;
        if *n == 0 { format!("{origin}-x{at}") } else { format!("{origin}-{n}") }
    }

    /// Whether a member of ours could have said it; we accept nothing else from other servers.
    pub fn is_sound(&self) -> bool {
        room::is_channel(&self.channel) && room::check_name(&self.from).is_ok() && room::is_sayable(&self.text)
    }
}

/// The last line that a member has heard, by its [`Line::id`]; `None` if it is not in any database.
pub fn parse_id(id: &str) -> Option<(Origin, u64)> {
    let (origin, n) = id.split_once('-')?;
    let n: i64 = n.parse().ok()?; // as the database has it
    Some((origin.parse().ok()?, n.try_into().ok()?))
}

// ------------------------------------------------------------------------------------- the database, on another thread

/// How many lines a new member is told. One that was here before, and says which line was its last, gets a few more.
const RECENT_MAX: i64 = 100;
const MISSED_MAX: i64 = 500;

/// Only the latest of these that fit into the queue of a new member ([`room::QUEUE_MAX`]). A line takes `LINE_MORE` more than
/// its text, which quoting at most doubles.
const TOLD_BYTES_MAX: usize = 100 * (room::LINE_MAX + LINE_MORE);
const LINE_MORE: usize = 300;

/// The oldest lines beyond these are deleted: this is about a hundred megabytes.
const LINES_MAX: i64 = 1_000_000;

/// How long we wait for a database that another process has locked.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// "room", so that we do not take another program's database for ours.
const APPLICATION: i32 = i32::from_be_bytes(*b"room");
const VERSION: i32 = 1;

const TABLES: &str = "
    create table meta (name text primary key, value) without rowid;
    insert into meta values ('origin', lower(hex(randomblob(8))));
    create table origins (origin text primary key, have integer not null) without rowid;
    create table lines (origin text not null, n integer not null, channel text not null, name text not null,
        text text not null, does integer not null, at integer not null, primary key (origin, n));
    create index lines_by_channel on lines (channel);
";

/// The database. Everything here blocks.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    origin: Origin,
}

impl Store {
    /// Opens the database, or makes it. Nothing else can use it meanwhile: two servers would give lines the same numbers.
    pub fn open(path: &Path) -> Result<Self, String> {
        // As an absolute path, because SQLite gives some names a meaning of their own, such as `:memory:`.
        let path = path::absolute(path).map_err(|error| error.to_string())?;
        Self::prepare(Connection::open(path).map_err(|error| told(&error))?)
    }

    /// A database that ends with the program, with a given origin.
    pub fn in_memory(origin: Origin) -> Self {
        let store = Connection::open_in_memory().map_err(|error| told(&error)).and_then(Self::prepare);
        let store = store.expect("nothing fails in memory");
        store.db.execute("update meta set value = ?1", [origin]).expect("nothing fails in memory");
        Self { origin, ..store }
    }

    fn prepare(mut db: Connection) -> Result<Self, String> {
        let found = Self::found(&mut db).map_err(|error| told(&error))?;
        match found {
            (APPLICATION, VERSION, _) | (0, 0, false) => {}
            (APPLICATION, version, _) => {
                return Err(format!("it is of version {version}, but this program only knows version {VERSION}"));
            }
            _ => return Err("it is the database of another program".into()),
        }
        Self::set_up(db).map_err(|error| told(&error))
    }

    /// The database's application and version, and whether there is anything in it.
    fn found(db: &mut Connection) -> rusqlite::Result<(i32, i32, bool)> {
        db.busy_timeout(LOCK_WAIT)?;
        db.pragma_update(None, "locking_mode", "exclusive")?;
        let number = |name| db.pragma_query_value(None, name, |row| row.get(0));
        let is_used = db.query_row("select exists (select 1 from sqlite_schema)", [], |row| row.get(0))?;
        Ok((number("application_id")?, number("user_version")?, is_used))
    }

    fn set_up(mut db: Connection) -> rusqlite::Result<Self> {
        // A commit is on the disk when it returns, so that no two lines get the same number.
        db.pragma_update(None, "journal_mode", "wal")?;
        db.pragma_update(None, "synchronous", "full")?;
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if tx.query_row("select not exists (select 1 from sqlite_schema)", [], |row| row.get(0))? {
            tx.execute_batch(TABLES)?;
            tx.pragma_update(None, "application_id", APPLICATION)?;
            tx.pragma_update(None, "user_version", VERSION)?;
        }
        tx.commit()?;
        let origin = db.query_row("select value from meta where name = 'origin'", [], |row| row.get(0))?;
        Ok(Self { db, origin })
    }

    /// For each server, the last line up to which we have all.
    fn have(&self) -> rusqlite::Result<BTreeMap<Origin, u64>> {
        let mut query = self.db.prepare("select origin, have from origins")?;
        query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }

    /// Stores lines, all of them or none. Ours get their numbers here; lines of others are not stored twice. Returns the number
    /// of each line that was not there before.
    fn keep(&mut self, lines: &[Line]) -> rusqlite::Result<Vec<Option<u64>>> {
        let ours = self.origin;
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let last =
            tx.prepare_cached("select have from origins where origin = ?1")?.query_row([ours], |row| row.get(0)).optional()?;
        let mut last: u64 = last.unwrap_or(0);
        let mut numbers = Vec::with_capacity(lines.len());
        for line in lines {
            if line.origin == ours {
                last += 1;
                numbers.push(insert(&tx, line, last)?);
            } else {
                numbers.push(insert(&tx, line, line.n)?);
            }
        }
        tx.prepare_cached("delete from lines where rowid <= (select max(rowid) from lines) - ?1")?.execute([LINES_MAX])?;
        tx.commit()?;
        Ok(numbers)
    }

    /// The last lines of a channel, the oldest first; only those after `after`, if we have that line.
    fn recent(&self, channel: &str, after: Option<(Origin, u64)>) -> rusqlite::Result<Vec<Line>> {
        let place = "select rowid from lines where origin = ?1 and n = ?2";
        let after: Option<i64> = match after {
            Some((origin, n)) => self.db.prepare_cached(place)?.query_row(params![origin, n], |row| row.get(0)).optional()?,
            None => None,
        };
        let sql = "select origin, n, channel, name, text, does, at from lines
            where channel = ?1 and rowid > ?2 order by rowid desc limit ?3";
        let most = if after.is_some() { MISSED_MAX } else { RECENT_MAX };
        let mut query = self.db.prepare_cached(sql)?;
        let (mut lines, mut left) = (Vec::new(), TOLD_BYTES_MAX);
        for line in query.query_map(params![channel, after.unwrap_or(0), most], line)? {
            let line = line?;
            let Some(less) = left.checked_sub(line.text.len() + LINE_MORE) else { break };
            left = less;
            lines.push(line);
        }
        lines.reverse();
        Ok(lines)
    }

    /// At most so many lines of one server, after this number.
    pub fn lines_after(&self, origin: Origin, n: u64, most: usize) -> Result<Vec<Line>, String> {
        let sql = "select origin, n, channel, name, text, does, at from lines where origin = ?1 and n > ?2 order by n limit ?3";
        let read = || -> rusqlite::Result<Vec<Line>> {
            self.db.prepare_cached(sql)?.query_map(params![origin, n, most as u64], line)?.collect()
        };
        read().map_err(|error| told(&error))
    }

    /// For tests: a database that is full (`max_page_count`), or cannot be written to (`query_only`).
    #[doc(hidden)]
    pub fn set(&self, pragma: &str, value: i64) {
        let _ = self.db.pragma_update(None, pragma, value); // some pragmas answer, which is not an error
    }
}

fn insert(tx: &Transaction<'_>, line: &Line, n: u64) -> rusqlite::Result<Option<u64>> {
    let Line { origin, channel, from, text, does, at, .. } = line;
    let sql = "insert or ignore into lines (origin, n, channel, name, text, does, at) values (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let is_new = tx.prepare_cached(sql)?.execute(params![origin, n, channel, from, text, does, at])? > 0;
    let sql = "insert into origins values (?1, ?2) on conflict (origin) do update set have = max(have, excluded.have)";
    tx.prepare_cached(sql)?.execute(params![origin, n])?;
    Ok(is_new.then_some(n))
}

fn line(row: &Row<'_>) -> rusqlite::Result<Line> {
    let (channel, from, text) = (row.get(2)?, row.get(3)?, row.get(4)?);
    Ok(Line { origin: row.get(0)?, n: row.get(1)?, channel, from, text, does: row.get(5)?, at: row.get(6)? })
}

/// In one line.
fn told(error: &rusqlite::Error) -> String {
    error.to_string().replace(char::is_control, " ")
}

// ------------------------------------------------------------------------------------------------------ on the loop

/// How many lines may wait to be stored; further ones are refused.
const WAITING_MAX: usize = 10_000;

pub struct History {
    pub origin: Origin,
    /// For each server, the last line up to which all were in the database at the start.
    pub had: BTreeMap<Origin, u64>,
    /// The last of our own lines that was stored.
    pub last: u64,
    /// Until the loop runs.
    store: Option<Store>,
    lane: Option<Lane<Store>>,
    /// Lines that come while others are being stored.
    waiting: Vec<Line>,
    /// How many batches of lines are with the lane.
    storing: usize,
    /// Why lines cannot be stored.
    trouble: Option<String>,
}

impl History {
    pub fn new(store: Store) -> Result<Self, String> {
        let had = store.have().map_err(|error| told(&error))?;
        let origin = store.origin;
        let last = had.get(&origin).copied().unwrap_or(0);
        Ok(Self { origin, had, last, store: Some(store), lane: None, waiting: Vec::new(), storing: 0, trouble: None })
    }

    /// There is no net where the state is made, so the lane is made when it is first needed.
    fn lane(&mut self, net: &mut Net<'_, App>) -> &mut Lane<Store> {
        let store = &mut self.store;
        self.lane.get_or_insert_with(|| net.lane(store.take().expect("it is taken once, into the lane")))
    }

    /// So much is waiting that we ignore other servers for now; we ask for their lines later.
    pub fn is_busy(&self) -> bool {
        self.waiting.len().max(self.lane.as_ref().map_or(0, Lane::pending)) >= WAITING_MAX
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.lane.as_ref().is_none_or(|lane| lane.pending() == 0)
    }
}

/// Stores lines, ours or those of other servers, in order, and calls [`App::confirmed`] with each that is new. `false`: there
/// are too many, and nothing is done.
pub fn add(net: &mut Net<'_, App>, app: &mut App, lines: impl IntoIterator<Item = Line>) -> bool {
    if app.history.waiting.len() >= WAITING_MAX {
        return false;
    }
    app.history.waiting.extend(lines);
    if app.history.storing == 0 {
        store(net, app);
    }
    true
}

/// Does work on the database, after all earlier work; then calls `then` on the loop.
pub fn with_store<R: Send + 'static>(
    net: &mut Net<'_, App>,
    app: &mut App,
    work: impl FnOnce(&mut Store) -> R + Send + 'static,
    then: impl FnOnce(&mut Net<'_, App>, &mut App, Result<R, OffloadError>) + 'static,
) {
    store(net, app);
    app.history.lane(net).offload_net(net, work, then);
}

/// Does something after all earlier work has been told; at once if there is none.
pub fn in_order(net: &mut Net<'_, App>, app: &mut App, then: impl FnOnce(&mut Net<'_, App>, &mut App) + 'static) {
    if app.history.is_idle() {
        then(net, app);
    } else {
        with_store(net, app, |_| (), |net, app, _| then(net, app));
    }
}

/// Calls `then` with the latest lines of a channel; what comes live follows them without a gap. If the database does not
/// answer, there are none.
pub fn recent(
    net: &mut Net<'_, App>,
    app: &mut App,
    channel: &str,
    after: Option<(Origin, u64)>,
    then: impl FnOnce(&mut Net<'_, App>, &mut App, Vec<Line>) + 'static,
) {
    let channel = channel.to_owned();
    let work = move |store: &mut Store| store.recent(&channel, after).map_err(|error| told(&error));
    with_store(net, app, work, |net, app, lines| match lines {
        Ok(Ok(lines)) => then(net, app, lines),
        failed => {
            log::debug!("cannot read earlier messages: {failed:?}");
            then(net, app, Vec::new());
        }
    });
}

/// Gives the waiting lines to the lane.
fn store(net: &mut Net<'_, App>, app: &mut App) {
    let history = &mut app.history;
    if history.waiting.is_empty() {
        return;
    }
    let lines = Arc::new(std::mem::take(&mut history.waiting));
    let shared = Arc::clone(&lines);
    history.storing += 1;
    history.lane(net).offload_net(
        net,
        move |store| store.keep(&shared).map_err(|error| told(&error)),
        |net, app, numbers| stored(net, app, lines, numbers),
    );
}

/// Lines that could not be stored are told nevertheless, so members who are here lose nothing.
fn stored(
    net: &mut Net<'_, App>,
    app: &mut App,
    lines: Arc<Vec<Line>>,
    numbers: Result<Result<Vec<Option<u64>>, String>, OffloadError>,
) {
    app.history.storing -= 1;
    let numbers = numbers.unwrap_or_else(|error| Err(error.to_string()));
    let trouble = numbers.as_ref().err().cloned();
    let numbers = numbers.unwrap_or_else(|_| lines.iter().map(|line| Some(line.n)).collect());
    for (mut line, number) in Arc::unwrap_or_clone(lines).into_iter().zip(numbers) {
        let Some(n) = number else { continue };
        line.n = n;
        if line.origin == app.history.origin {
            app.history.last = app.history.last.max(n);
        }
        app.confirmed(net, &line);
    }
    if trouble != app.history.trouble {
        match &trouble {
            Some(why) => app.announce(net, &format!("messages are not being saved: {why}")),
            None => app.announce(net, "messages are saved again"),
        }
        app.history.trouble = trouble;
    }
    if app.history.storing == 0 {
        store(net, app);
    }
}
