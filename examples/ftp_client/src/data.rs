//! The data connection: it carries one file or a list, and tells the session how that ended.

use crate::{App, Control, Ctx};
use mainspring::{Key, Outcome, Protocol, Reason};
use std::io::{self, Read, Write};

/// The longest list; it is kept in memory.
const LIST_MAX: usize = 16 << 20;

pub(crate) enum Job {
    Fetch(Box<dyn Write + Send>),
    /// To standard output.
    Show,
    Store(Box<dyn Read + Send>),
    List,
}

pub(crate) struct Data {
    control: Key,
    number: u64,
    job: Option<Job>,
    /// The server has connected to us.
    is_called: bool,
    list: Vec<u8>,
    /// By an error on our side, such as a full disk.
    is_broken: bool,
    is_store: bool,
    end: Result<(), String>,
}

impl Data {
    pub(crate) fn new(control: Key, number: u64, job: Job, is_called: bool) -> Self {
        Self {
            control,
            number,
            job: Some(job),
            is_called,
            list: Vec::new(),
            is_broken: false,
            is_store: false,
            end: Err("it broke off".into()),
        }
    }

    /// The file was written or read completely, or it failed: then the server must not take it for complete.
    fn done<T>(&mut self, ctx: &mut Ctx<'_>, end: io::Result<T>) {
        self.end = end.map(drop).map_err(|error| error.to_string());
        if self.end.is_err() {
            self.is_broken = true;
            ctx.abort();
        }
    }
}

impl Protocol<App> for Data {
    fn connected(&mut self, ctx: &mut Ctx<'_>, app: &mut App) -> Outcome {
        let (number, data) = (self.number, ctx.key);
        ctx.net.tell(self.control, move |control: &mut Control, ctx, _| {
            control.data_came(ctx, number, data);
            Ok(())
        });
        match &app.tls {
            Some(tls) if self.is_called => _ = ctx.link().start_tls(tls.clone()),
            _ => self.secured(ctx, app)?,
        }
        Ok(())
    }

    fn secured(&mut self, ctx: &mut Ctx<'_>, app: &mut App) -> Outcome {
        ctx.set_deadline(None);
        ctx.set_stall_timeout(app.timeout);
        ctx.set_idle_timeout(app.timeout);
        match self.job.take() {
            Some(Job::Show) => ctx.save(io::stdout(), |me: &mut Self, ctx, app, saved| {
                match saved {
                    Ok(_) => me.end = Ok(()),
                    Err(error) => app.end_unwritten(ctx, error),
                }
                Ok(())
            }),
            Some(Job::Fetch(writer)) => ctx.save(writer, |me: &mut Self, ctx, _, saved| {
                me.done(ctx, saved);
                Ok(())
            }),
            Some(Job::Store(reader)) => {
                ctx.set_idle_timeout(None); // nothing comes
                self.is_store = true;
                ctx.send_from(reader, |me: &mut Self, ctx, app, sent| {
                    me.done(ctx, sent);
                    // Read what the server sends to its end: tickets of TLS, with which it may want us to resume next time.
                    ctx.half_close();
                    ctx.set_idle_timeout(app.timeout);
                    Ok(())
                });
            }
            Some(Job::List) | None => self.end = Ok(()), // it is complete at the end of the connection
        }
        Ok(())
    }

    fn received(&mut self, _: &mut Ctx<'_>, _: &mut App, bytes: &[u8]) -> Outcome {
        self.list.extend_from_slice(bytes);
        if self.list.len() > LIST_MAX { Err("the list is too long".into()) } else { Ok(()) }
    }

    fn eof(&mut self, ctx: &mut Ctx<'_>, _: &mut App, _: &[u8]) -> Outcome {
        if !self.is_store {
            ctx.close();
        }
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, _: &mut App, why: Reason) {
        let end = std::mem::replace(&mut self.end, Ok(()));
        let carried = match (end, why.is_clean()) {
            (Err(error), _) if self.is_broken => Err(error),
            (Ok(()), _) if self.is_store => Ok(Vec::new()), // everything was sent; the server says whether it came
            (Ok(()), true) => Ok(std::mem::take(&mut self.list)),
            (Err(error), true) => Err(error),
            (_, false) => Err(format!("the data connection: {why}")),
        };
        let number = self.number;
        ctx.net.tell(self.control, move |control: &mut Control, ctx, app| {
            control.data_ended(ctx, app, number, carried);
            Ok(())
        });
    }
}
