//! What these tests share.
#![allow(dead_code)] // each uses a part of it

#[path = "../../../../tests/common/folder.rs"]
mod folder;

pub(crate) use folder::Folder;
use ftp_client::{App, Task};
use std::{cell::RefCell, time::Duration};

thread_local! {
    static PRINTED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static FAILED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// What was printed since it was asked for last; and what was said to have failed.
pub fn printed() -> Vec<String> {
    PRINTED.take()
}

pub fn failed() -> Vec<String> {
    FAILED.take()
}

pub fn app(tasks: impl IntoIterator<Item = Task>) -> App {
    App {
        user: "user".into(),
        password: Some("12345".into()),
        folder: String::new(),
        tls: None,
        is_implicit: false,
        is_active: false,
        continues: false,
        shows_progress: false,
        timeout: Duration::from_secs(30),
        tasks: tasks.into_iter().collect(),
        failures: 0,
        broken: None,
        unwritten: None,
        print: |line| {
            PRINTED.with_borrow_mut(|lines| lines.push(line.to_owned()));
            Ok(())
        },
        complain: |line| FAILED.with_borrow_mut(|lines| lines.push(line.to_owned())),
    }
}
