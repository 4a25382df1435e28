//! A data connection: it says when it is there, carries one transfer, and says how it has ended.

use super::{Control, Ctx, Ftp, disk::Sink};
use mainspring::{Key, Outcome, Protocol, Reason};
use std::io::Read;

/// What is transferred.
pub(super) enum Job {
    Send(Box<dyn Read + Send>),
    Receive(Sink),
}

pub(super) struct Data {
    pub(super) control: Key,
    /// Who let it in; nobody if we have called.
    pub(super) listener: Option<Key>,
}

impl Data {
    pub(super) fn start(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp, job: Job) -> Outcome {
        ctx.set_deadline(None);
        match job {
            Job::Send(source) => {
                ctx.set_stall_timeout(ftp.set.data_idle);
                ctx.set_write_rate(ftp.set.write_rate);
                ctx.send_from(source, |_: &mut Self, ctx, _, sent| {
                    sent?;
                    ctx.close();
                    Ok(())
                });
            }
            Job::Receive(sink) => {
                ctx.set_idle_timeout(ftp.set.data_idle);
                ctx.set_read_rate(ftp.set.read_rate);
                ctx.save(sink, |_: &mut Self, ctx, _, saved| {
                    saved?;
                    ctx.close();
                    Ok(())
                });
                ctx.resume();
            }
        }
        Ok(())
    }
}

impl Protocol<Ftp> for Data {
    fn connected(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp) -> Outcome {
        ctx.pause(); // it may bring an upload before the command that says where to
        ctx.set_deadline(ftp.set.data_idle); // not an idle time-out: that stands still meanwhile
        let (data, known_as) = (ctx.key, self.listener.unwrap_or(ctx.key));
        ctx.net.tell(self.control, move |control: &mut Control, ctx, ftp| control.data_came(ctx, ftp, data, known_as));
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, _: &mut Ftp, why: Reason) {
        if let Reason::Failed(fault) = &why {
            log::warn!("{} {fault}", ctx.key);
        }
        let data = ctx.key;
        ctx.net.tell(self.control, move |control: &mut Control, ctx, ftp| control.data_gone(ctx, ftp, data, &why));
    }
}
