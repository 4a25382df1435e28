//! What was logged on the test's own thread, which is the one that its reactor logs on.

use std::{cell::RefCell, sync::Once};

type Records = Vec<(log::Level, String)>;

thread_local! {
    static RECORDS: RefCell<Records> = const { RefCell::new(Vec::new()) };
}

struct Keeper;

impl log::Log for Keeper {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("mainspring")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = record.args().to_string(); // before the records are borrowed: it may panic
            RECORDS.with_borrow_mut(|records| records.push((record.level(), text)));
        }
    }

    fn flush(&self) {}
}

/// Keeps what is logged from now on, by any test of this program.
pub(crate) fn keep_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Keeper).expect("the only logger");
        log::set_max_level(log::LevelFilter::Trace);
    });
}

/// The records of this thread whose text is one of those wanted.
pub(crate) fn logged(wanted: impl Fn(&str) -> bool) -> Records {
    RECORDS.with_borrow(|records| records.iter().filter(|(_, text)| wanted(text)).cloned().collect())
}

/// All records of this thread; they are forgotten.
pub(crate) fn take_log() -> Records {
    RECORDS.with_borrow_mut(std::mem::take)
}
