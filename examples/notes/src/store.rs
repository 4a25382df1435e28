//! The notes in their database. Everything here blocks: it is called on other threads only.

use rusqlite::{Connection, Row, params};
use std::{
    error::Error,
    path::{self, Path},
};

pub(crate) struct Store {
    db: Connection,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) id: i64,
    pub(crate) text: String,
}

/// The most notes in an answer: if they are of the longest lines, they take half of the output's limit.
const NOTES_MAX: i64 = 100;

impl Store {
    pub(crate) fn open(path: &Path) -> Result<Self, Box<dyn Error>> {
        // As an absolute path, because SQLite gives some names a meaning of their own, such as `:memory:`.
        let db = Connection::open(path::absolute(path)?)?;
        // A commit is on the disk when it returns, and readers do not wait for it.
        db.pragma_update(None, "journal_mode", "wal")?;
        db.pragma_update(None, "synchronous", "full")?;
        // Ids are never used again, because a client may remember one.
        db.execute("create table if not exists notes (id integer primary key autoincrement, text text not null)", [])?;
        Ok(Self { db })
    }

    /// Adds a note; returns its id, once it is committed.
    pub(crate) fn add(&self, text: &str) -> rusqlite::Result<i64> {
        self.db.prepare_cached("insert into notes (text) values (?1)")?.insert([text])
    }

    /// The notes after this one.
    pub(crate) fn list(&self, after: i64) -> rusqlite::Result<Vec<Note>> {
        let mut query = self.db.prepare_cached("select id, text from notes where id > ?1 order by id limit ?2")?;
        query.query_map(params![after, NOTES_MAX], note)?.collect()
    }

    /// The notes with this text in them.
    pub(crate) fn find(&self, text: &str) -> rusqlite::Result<Vec<Note>> {
        let sql = "select id, text from notes where instr(lower(text), lower(?1)) > 0 order by id limit ?2";
        self.db.prepare_cached(sql)?.query_map(params![text, NOTES_MAX], note)?.collect()
    }
}

fn note(row: &Row<'_>) -> rusqlite::Result<Note> {
    Ok(Note { id: row.get(0)?, text: row.get(1)? })
}
