//! An FTP client. [`Control`] sends one command after the other, each with a closure for its reply; `data.rs` has the connection
//! that carries a file or a list; `tasks.rs` works through a queue of tasks.

mod control;
mod data;
#[path = "../../common/printable.rs"]
mod printable;
mod tasks;

pub use control::Control;
use indicatif::{ProgressBar, ProgressStyle};
use mainspring::{Context, TlsClient};
use std::{collections::VecDeque, io, time::Duration};
pub use tasks::Task;

pub type Ctx<'a> = Context<'a, App>;

/// An `Err` ends the task.
type Done = Result<(), String>;

/// The state of the program.
pub struct App {
    pub user: String,
    pub password: Option<String>,
    /// The folder that remote names start from.
    pub folder: String,
    /// The settings of TLS, and whether it begins with the first byte.
    pub tls: Option<TlsClient>,
    pub is_implicit: bool,
    pub is_active: bool,
    pub continues: bool,
    pub shows_progress: bool,
    pub timeout: Duration,
    pub tasks: VecDeque<Task>,
    /// How many failures were reported, a line each.
    pub failures: u32,
    /// Why it could not finish.
    pub broken: Option<String>,
    /// Why standard output could not be written.
    pub unwritten: Option<io::Error>,
    /// Where lines go: those of the result, and those about failures.
    pub print: fn(&str) -> io::Result<()>,
    pub complain: fn(&str),
}

impl App {
    fn fail(&mut self, what: &str) {
        self.failures += 1;
        (self.complain)(&printable::printable(what));
    }

    /// Nobody wants the rest.
    fn end_unwritten(&mut self, ctx: &mut Ctx<'_>, error: io::Error) {
        self.unwritten = Some(error);
        ctx.net.stop();
    }

    fn bar(&self, name: &str, length: u64, from: u64) -> ProgressBar {
        if !self.shows_progress {
            return ProgressBar::hidden();
        }
        let style =
            ProgressStyle::with_template("{msg:30!} {bar:20} {bytes:>10} of {total_bytes:10} {bytes_per_sec:>12} {eta:>4}");
        let bar = ProgressBar::new(length).with_style(style.expect("a template")).with_message(printable::printable(name));
        bar.set_position(from);
        bar
    }
}
