//! A log file of a server: the loop collects lines, and another thread writes them, once a second.

use mainspring::{Lane, Net};
use std::{
    ffi::OsStr,
    fmt::{Display, Write as _},
    fs::File,
    io::{self, Write},
    time::Duration,
};

const PERIOD: Duration = Duration::from_secs(1);

/// How much may wait to be written. If the disk is too slow, lines are lost, so that memory is not.
const WAITING_MAX: usize = 4 << 20;

type Sink = Box<dyn Write + Send>;

pub struct LogFile<S> {
    /// Where it is in the state.
    place: fn(&mut S) -> &mut Option<Self>,
    lane: Lane<Sink>,
    /// The same file, for what remains at the end.
    last: Sink,
    lines: String,
    lost: u64,
    is_broken: bool,
}

impl<S: 'static> LogFile<S> {
    /// Opens the file for appending; `-` is standard error.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(net: &mut Net<'_, S>, path: &OsStr, place: fn(&mut S) -> &mut Option<Self>) -> io::Result<Self> {
        let (file, last): (Sink, Sink) = if path == "-" {
            (Box::new(io::stderr()), Box::new(io::stderr()))
        } else {
            let file = File::options().append(true).create(true).open(path)?;
            (Box::new(file.try_clone()?), Box::new(file))
        };
        net.every(PERIOD, move |net, state: &mut S| {
            if let Some(log) = place(state) {
                log.write(net);
            }
        });
        Ok(Self { place, lane: net.lane(file), last, lines: String::new(), lost: 0, is_broken: false })
    }

    pub fn note(&mut self, line: impl Display) {
        if self.lines.len() > WAITING_MAX {
            self.lost += 1;
            return;
        }
        let _ = writeln!(self.lines, "{line}"); // a String takes everything
    }

    fn write(&mut self, net: &mut Net<'_, S>) {
        if self.lines.is_empty() || self.lane.pending() > 0 {
            return;
        }
        let (lines, place) = (std::mem::take(&mut self.lines), self.place);
        let count = lines.lines().count() as u64;
        let write = move |file: &mut Sink| file.write_all(lines.as_bytes()).and_then(|()| file.flush());
        self.lane.offload_net(net, write, move |_, state: &mut S, written| {
            let Some(log) = place(state) else { return };
            let error = match written {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            // Warn once each time it breaks.
            if let Some(error) = error.as_ref().filter(|_| !log.is_broken) {
                log::warn!("the log cannot be written: {error}");
            }
            log.lost += if error.is_some() { count } else { 0 };
            if error.is_none() && log.lost > 0 {
                log::warn!("{} lines of the log were lost", std::mem::take(&mut log.lost));
            }
            log.is_broken = error.is_some();
        });
    }

    /// Writes what remains, after everything else has ended.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.last.write_all(self.lines.as_bytes())
    }
}
