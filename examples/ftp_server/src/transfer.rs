//! The second connection of a session: the client connects to us, or we to it; it carries one transfer, and reports how that
//! ended. The session owns it, so it ends with the session.

use crate::{
    Control, Ctx, Ftp, Refused,
    disk::{Source, Upload, load},
    must, refuse, reply,
};
use mainspring::{Connect, Key, Lane, Listen, Outcome, Protocol, Reason, Refusal, TlsError, TlsStage};
use std::{
    borrow::Cow,
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    time::Duration,
};

/// How many ports are tried to find a passive one, from a random one on.
const PORTS_TRIED: usize = 100;

/// A smaller file is written as a whole.
const SMALL: usize = 64 << 10;

/// When a client is killed, its connections end within this time of each other.
const KILLED: Duration = Duration::from_millis(20);

/// The time for a client to connect to its data port, or to accept our connection.
const WAIT: Duration = Duration::from_secs(30);

/// How much of a file the kernel sends by itself, while the next such part is read from the disk.
const WINDOW: u64 = 8 << 20;

/// The state of the data connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// We wait for it at a port of ours; until then the key is the listener's.
    Awaited,
    /// We are connecting to the client, and owe the reply to its PORT.
    Coming,
    Open,
    /// A transfer is under way.
    Running,
}

/// What to transfer.
pub(crate) enum Job {
    Send(Source),
    Receive(Upload),
}

impl Control {
    pub(crate) fn passive(&mut self, ctx: &mut Ctx<'_>, ftp: &Ftp, is_extended: bool, arg: &str) -> Result<(), Refused> {
        must(is_extended || !self.is_extended_only, 501, "You said EPSV ALL.")?;
        let (here, peer) = ends(ctx)?;
        match (arg.to_ascii_uppercase().as_str(), here.is_ipv4()) {
            ("", _) | ("1", true) | ("2", false) => {}
            ("ALL", _) => {
                self.is_extended_only = true;
                reply(ctx, 220, "EPSV only, then.");
                return Ok(());
            }
            ("1" | "2", is_ipv4) => return refuse_protocol(is_ipv4),
            _ => return refuse(501, "1, 2 or ALL."),
        }
        must(is_extended || here.is_ipv4(), 425, "EPSV, over IPv6.")?;
        self.drop_data(ctx, ftp);
        let open = self.listener.filter(|&listener| ctx.net.is_open(listener));
        let Some(listener) = open.or_else(|| listen(ctx, ftp, here, peer)) else { return refuse(425, "No port is free.") };
        self.waits += 1;
        self.has_lost_data = false;
        (self.listener, self.data) = (Some(listener), Some((listener, Stage::Awaited)));
        self.wait(ctx, ftp, 421);
        let port = ctx.net.local(listener).and_then(|at| at.ip()).map_or(0, |at| at.port());
        if is_extended {
            reply(ctx, 229, format_args!("Come to (|||{port}|)."));
        } else {
            let host = ftp.set.public_address.map_or(here, IpAddr::V4).to_string().replace('.', ",");
            reply(ctx, 227, format_args!("Come to ({host},{},{}).", port >> 8, port & 255));
        }
        Ok(())
    }

    pub(crate) fn active(&mut self, ctx: &mut Ctx<'_>, ftp: &Ftp, is_extended: bool, arg: &str) -> Result<(), Refused> {
        must(!self.is_extended_only, 501, "You said EPSV ALL.")?;
        let (here, peer) = ends(ctx)?;
        must(is_extended || here.is_ipv4(), 501, "EPRT, over IPv6.")?;
        let Some(to) = (if is_extended { extended_address(arg) } else { address(arg).map(Some) }) else {
            return refuse(501, "No address.");
        };
        let Some(to) = to.filter(|to| to.is_ipv4() == here.is_ipv4()) else { return refuse_protocol(here.is_ipv4()) };
        // Otherwise somebody could use us to reach hosts that he cannot reach himself (RFC 2577).
        must(to.ip().to_canonical() == peer, 501, "Only to your own address.")?;
        must(to.port() >= 1024, 501, "Not to a port below 1024.")?;
        self.drop_data(ctx, ftp);
        self.has_lost_data = false;
        self.stop_waiting(ctx, ftp);
        let options = Connect::new().owner(ctx.key).timeout(ftp.set.idle.min(WAIT)).local((here, 0).into());
        let data = Data::new(ctx.key, None, self.is_private);
        self.data = Some((ctx.net.connect_with(to, options, data), Stage::Coming));
        self.owe(ctx);
        Ok(())
    }

    /// Waits for the data connection; if none comes, this is the reply.
    fn wait(&mut self, ctx: &mut Ctx<'_>, ftp: &Ftp, code: u16) {
        self.stop_waiting(ctx, ftp);
        self.patience = Some(ctx.after(ftp.set.idle.min(WAIT), move |me: &mut Self, ctx, ftp| {
            me.wanted = None;
            me.drop_data(ctx, ftp);
            reply(ctx, code, "No data connection was made.");
            me.go_on(ctx, ftp);
            Ok(())
        }));
    }

    fn stop_waiting(&mut self, ctx: &mut Ctx<'_>, ftp: &Ftp) {
        if let Some(patience) = self.patience.take() {
            ctx.net.cancel(patience);
        }
        // If there are only a few ports, do not keep one that is not needed.
        let is_to_go = ftp.set.passive_ports.is_some() && !self.is_awaited();
        if let Some(listener) = self.listener.take_if(|_| is_to_go) {
            ctx.net.close(listener);
        }
    }

    fn is_awaited(&self) -> bool {
        matches!(self.data, Some((_, Stage::Awaited)))
    }

    /// Also drops the transfer that waits for it.
    pub(crate) fn drop_data(&mut self, ctx: &mut Ctx<'_>, ftp: &Ftp) {
        if let Some((key, stage)) = self.data.take() {
            self.wanted = None;
            if stage != Stage::Awaited {
                ctx.net.abort(key);
            }
            self.stop_waiting(ctx, ftp);
            ctx.set_idle_timeout(ftp.set.idle);
        }
    }

    pub(crate) fn begin(&mut self, ctx: &mut Ctx<'_>, ftp: &Ftp, job: Job, text: &str) {
        match self.data {
            Some((data, Stage::Open)) => {
                reply(ctx, 125, text);
                self.start(ctx, data, job);
            }
            None if std::mem::take(&mut self.has_lost_data) => reply(ctx, 425, "The data connection has ended."),
            // Otherwise the client says later where.
            _ => {
                reply(ctx, 150, text);
                self.wanted = Some(job);
                if self.data.is_none() {
                    self.wait(ctx, ftp, 425);
                }
            }
        }
    }

    fn start(&mut self, ctx: &mut Ctx<'_>, data: Key, job: Job) {
        self.data = Some((data, Stage::Running));
        ctx.net.tell(data, |data: &mut Data, ctx, ftp| data.start(ctx, ftp, job)); // if it has ended, we are told next
    }

    fn data_came(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp, data: Key, wait: Option<u64>) -> Outcome {
        match self.data {
            Some((_, Stage::Awaited)) if wait == Some(self.waits) => {}
            Some((key, Stage::Coming)) if key == data => {
                reply(ctx, 200, "Connected.");
                self.answered(ctx);
            }
            _ => {
                ctx.net.abort(data); // too late
                return Ok(());
            }
        }
        self.data = Some((data, Stage::Open));
        self.stop_waiting(ctx, ftp);
        ctx.set_idle_timeout(None); // the time-outs of the data connection watch from now on
        if let Some(job) = self.wanted.take() {
            self.start(ctx, data, job);
        }
        self.go_on(ctx, ftp);
        Ok(())
    }

    fn data_gone(
        &mut self,
        ctx: &mut Ctx<'_>,
        ftp: &mut Ftp,
        (data, wait): (Key, Option<u64>),
        why: &Reason,
        end: End,
    ) -> Outcome {
        let was_transferring = self.is_transferring();
        let is_it = |key, stage| key == data || stage == Stage::Awaited && wait == Some(self.waits);
        let Some((_, stage)) = self.data.filter(|&(key, stage)| is_it(key, stage)) else { return Ok(()) };
        self.data = None;
        self.wanted = None;
        self.has_lost_data = stage == Stage::Open;
        ctx.set_idle_timeout(ftp.set.idle);
        let told: (u16, Cow<'_, str>) = match (end, why) {
            (End::Saved(upload), why) if why.is_clean() => {
                if std::mem::take(&mut self.aborts) {
                    self.waiting.push_front("ABOR".into()); // it came too late, and the reply says so
                }
                self.change = std::mem::take(&mut self.transfer);
                self.answer(ctx, move || Ok(upload.finish().map(|()| "226 Done.".into())?));
                return Ok(());
            }
            (End::Sent, why) if why.is_clean() => (226, "Done.".into()),
            (End::Broken(error), _) => {
                let Refused(code, text) = error.into();
                (code, text)
            }
            _ if stage == Stage::Coming => (425, format!("Cannot connect to you: {why}.").into()),
            _ if TlsError::of(why).is_some_and(|error| error.stage == TlsStage::TimedOut) || matches!(why, Reason::Limit(_)) => {
                (421, "The data connection was silent for too long.".into())
            }
            _ if self.aborts => (426, "Cut off, as you wished.".into()),
            (_, Reason::Tls(_)) => (522, format!("{why}.").into()),
            _ => (426, "The data connection broke.".into()),
        };
        if was_transferring || stage == Stage::Coming || told.0 == 421 {
            if was_transferring {
                self.note(ctx, ftp, format_args!("{}: {} {}", self.transfer, told.0, told.1));
            }
            reply(ctx, told.0, told.1);
        }
        match stage {
            Stage::Coming => self.answered(ctx),
            _ if told.0 == 421 => ctx.close(),
            _ => {}
        }
        if std::mem::take(&mut self.aborts) {
            reply(ctx, 226, "Aborted.");
        }
        self.go_on(ctx, ftp);
        Ok(())
    }

    pub(crate) fn abort(&mut self, ctx: &mut Ctx<'_>, ftp: &Ftp) {
        match self.data {
            Some((data, Stage::Running)) => {
                self.aborts = true; // both replies follow when it has ended
                ctx.net.abort(data);
            }
            _ if self.wanted.take().is_some() => {
                self.drop_data(ctx, ftp);
                reply(ctx, 426, "Cut off, as you wished.");
                reply(ctx, 226, "Aborted.");
            }
            Some(_) => {
                self.drop_data(ctx, ftp);
                reply(ctx, 225, "Closed.");
            }
            None => reply(ctx, 225, "Nothing to abort."),
        }
    }
}

/// Listens on a port of the session's own, which accepts only its client, and only while it waits for one.
fn listen(ctx: &mut Ctx<'_>, ftp: &Ftp, here: IpAddr, peer: IpAddr) -> Option<Key> {
    let (control, is_it) = (ctx.key, move |from: IpAddr| from.to_canonical() == peer);
    let ports = ftp.set.passive_ports.clone().unwrap_or(0..=0);
    let some = ctx.net.random() as usize % ports.len();
    let bind = ctx.local().ip().map_or(here, |local| local.ip());
    ports.clone().cycle().skip(some).take(ports.len().min(PORTS_TRIED)).find_map(|port| {
        let options = Listen::new().owner(control).backlog(4).connections_max(4, "");
        let let_in = ctx.net.listen_with((bind, port), options, move |net, _, from| {
            let waits = net.peek::<Control>(control).filter(|control| control.is_awaited());
            match waits.filter(|_| from.ip().is_some_and(|from| is_it(from.ip()))) {
                Some(waiting) => Ok(Data::new(control, Some(waiting.waits), waiting.is_private)),
                None => Err(Refusal::silent()),
            }
        });
        let_in.ok()
    })
}

/// The IP addresses of the control connection, ours and the client's.
fn ends(ctx: &Ctx<'_>) -> Result<(IpAddr, IpAddr), Refused> {
    match (ctx.local().ip(), ctx.peer().ip()) {
        (Some(here), Some(peer)) => Ok((here.ip().to_canonical(), peer.ip().to_canonical())),
        _ => refuse(425, "Not over IP."),
    }
}

fn refuse_protocol<T>(is_ipv4: bool) -> Result<T, Refused> {
    refuse(522, format!("Network protocol not supported (use {}).", if is_ipv4 { 1 } else { 2 }))
}

/// The form of PORT: `127,0,0,1,4,1`.
fn address(arg: &str) -> Option<SocketAddr> {
    let numbers: Vec<u8> = arg.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [a, b, c, d, high, low] = numbers[..] else { return None };
    Some((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])).into())
}

/// The form of EPRT: `|1|127.0.0.1|1025|`. `Some(None)`: of a protocol that we do not know.
fn extended_address(arg: &str) -> Option<Option<SocketAddr>> {
    let parts: Vec<&str> = arg.split(arg.chars().next()?).collect();
    let ["", protocol, ip, port, ""] = parts[..] else { return None };
    let port = port.parse().ok()?;
    match protocol {
        "1" => Some(Some((ip.parse::<Ipv4Addr>().ok()?, port).into())),
        "2" => Some(Some((ip.parse::<Ipv6Addr>().ok()?, port).into())),
        other => other.parse::<u32>().ok().map(|_| None),
    }
}

/// How a transfer ends.
enum End {
    None,
    Sent,
    Saved(Upload),
    Broken(io::Error),
}

struct Data {
    control: Key,
    /// The number of the wait that accepted it; `None` if we have connected.
    wait: Option<u64>,
    is_private: bool,
    /// What to do once it is in TLS.
    job: Option<Job>,
    end: End,
    upload: Option<Upload>,
    is_large: bool,
    file: Option<Windows>,
}

/// A file that is sent a part at a time, while another thread reads the disk.
struct Windows {
    lane: Lane<File>,
    left: Range<u64>,
    /// What is in memory and can be sent.
    next: Option<(File, Range<u64>)>,
}

impl Data {
    fn new(control: Key, wait: Option<u64>, is_private: bool) -> Self {
        Self { control, wait, is_private, job: None, end: End::None, upload: None, is_large: false, file: None }
    }

    fn start(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp, job: Job) -> Outcome {
        if self.is_private && ctx.tls().is_none() {
            self.job = Some(job);
            ctx.resume();
            begin_tls(ctx, ftp);
            return Ok(());
        }
        ctx.pause(); // a client that downloads has nothing to say here
        ctx.set_deadline(None);
        ctx.set_stall_timeout(ftp.set.idle);
        ctx.set_write_rate(ftp.set.rate);
        match job {
            Job::Send(Source::Bytes(bytes)) => {
                ctx.send(bytes);
                self.sent(ctx);
            }
            Job::Send(Source::File(file, left)) => {
                self.file = Some(Windows { lane: ctx.net.lane(file), left, next: None });
                self.load(ctx);
            }
            Job::Send(Source::Reader(source)) => ctx.send_from(source, |me: &mut Self, ctx, _, sent| {
                match sent {
                    Ok(_) => me.sent(ctx),
                    Err(error) => me.broken(ctx, error),
                }
                Ok(())
            }),
            Job::Receive(upload) => {
                ctx.set_idle_timeout(ftp.set.idle);
                ctx.set_read_rate(ftp.set.rate);
                self.upload = Some(upload);
                ctx.resume();
            }
        }
        Ok(())
    }

    fn sent(&mut self, ctx: &mut Ctx<'_>) {
        self.end = End::Sent;
        ctx.close();
    }

    fn broken(&mut self, ctx: &mut Ctx<'_>, error: io::Error) {
        self.end = End::Broken(error);
        ctx.abort();
    }

    fn load(&mut self, ctx: &mut Ctx<'_>) {
        let Some(Windows { lane, left, .. }) = &mut self.file else { return };
        let window = left.start..left.end.min(left.start + WINDOW);
        left.start = window.end;
        if window.is_empty() {
            return self.sent(ctx);
        }
        let of_window = window.clone();
        let loaded = move |file: &mut File| load(file, &of_window).and_then(|()| file.try_clone());
        lane.offload(ctx, loaded, |me: &mut Self, ctx, _, loaded| {
            match (loaded?, &mut me.file) {
                (Ok(file), Some(windows)) => windows.next = Some((file, window)),
                (Err(error), _) => me.broken(ctx, error),
                (Ok(_), None) => {}
            }
            me.pour(ctx);
            Ok(())
        });
    }

    fn pour(&mut self, ctx: &mut Ctx<'_>) {
        if ctx.is_congested() {
            return;
        }
        if let Some((file, window)) = self.file.as_mut().and_then(|file| file.next.take()) {
            ctx.send_file(file, window);
            self.load(ctx);
        }
    }
}

/// PROT P needs AUTH before it, so there is TLS.
fn begin_tls(ctx: &mut Ctx<'_>, ftp: &Ftp) {
    if let Some(tls) = &ftp.set.tls {
        ctx.link().start_tls(tls.data.clone().handshake_timeout(ftp.set.idle.min(WAIT)));
    }
}

impl Protocol<Ftp> for Data {
    fn connected(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp) -> Outcome {
        ctx.set_deadline(ftp.set.idle); // not an idle time-out: that stands still while it is paused
        // A client that connects to us may begin with TLS at once; if we connect, it begins after the transfer's command.
        if self.is_private && self.wait.is_some() {
            begin_tls(ctx, ftp);
        } else {
            self.secured(ctx, ftp)?;
        }
        Ok(())
    }

    fn secured(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp) -> Outcome {
        if let Some(job) = self.job.take() {
            return self.start(ctx, ftp, job);
        }
        ctx.pause(); // an upload may come before the command that says where to store it
        let (data, wait) = (ctx.key, self.wait);
        ctx.net.tell(self.control, move |control: &mut Control, ctx, ftp| control.data_came(ctx, ftp, data, wait));
        Ok(())
    }

    fn received(&mut self, ctx: &mut Ctx<'_>, _: &mut Ftp, bytes: &[u8]) -> Outcome {
        let mut upload = self.upload.take().ok_or("unexpected bytes: there was no upload")?;
        upload.ahead.extend_from_slice(bytes);
        if upload.ahead.len() < SMALL {
            self.upload = Some(upload);
            return Ok(());
        }
        self.is_large = true;
        ctx.save(upload, |me: &mut Self, ctx, _, saved| {
            match saved {
                Ok(upload) => me.upload = Some(upload),
                Err(error) => me.broken(ctx, error),
            }
            Ok(())
        });
        Ok(())
    }

    fn eof(&mut self, ctx: &mut Ctx<'_>, _: &mut Ftp, _: &[u8]) -> Outcome {
        let Some(upload) = self.upload.take() else {
            ctx.close();
            return Ok(());
        };
        self.end = End::Saved(upload);
        // In TLS the client has said that this was all. In the clear a client that was killed looks the same, but then the end
        // of its session follows.
        if self.is_large && ctx.tls().is_none() {
            ctx.after(KILLED, |_: &mut Self, ctx, _| {
                ctx.close();
                Ok(())
            });
        } else {
            ctx.close();
        }
        Ok(())
    }

    fn draining(&mut self, _: &mut Ctx<'_>, _: &mut Ftp) -> Outcome {
        Ok(()) // its session ends it
    }

    fn writable(&mut self, ctx: &mut Ctx<'_>, _: &mut Ftp) -> Outcome {
        self.pour(ctx);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, _: &mut Ftp, why: Reason) {
        let end = match std::mem::replace(&mut self.end, End::None) {
            End::Saved(upload) if !why.is_clean() => {
                self.upload = Some(upload);
                End::None
            }
            end => end,
        };
        if let Some(upload) = self.upload.take() {
            ctx.net.offload(move || drop(upload), |_, _, _| ()); // which writes what has come
        }
        let it = (ctx.key, self.wait);
        ctx.net.tell(self.control, move |control: &mut Control, ctx, ftp| control.data_gone(ctx, ftp, it, &why, end));
    }
}
