//! A pipelining Redis client inside an application: request queue, replies matched to callbacks, reconnect with back-off.
//! The client is generic over the application's state; the queue lives in the state, the wire protocol is disposable.
use mainspring::*;
use std::str;
use std::{collections::VecDeque, fmt, io, time::Duration};

const BULK_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Value>),
}
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lost {
    /// may or may not have been done
    InFlight,
    QueueFull,
}
impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
type Callback<S> = Box<dyn FnOnce(&mut Net<'_, S>, &mut S, Result<Value, Lost>)>;
/// Where in the state this client lives. (A field projection: Rust has no other way to say "the part of S that is mine".)
type Lens<S> = fn(&mut S) -> &mut Redis<S>;

#[derive(Clone, Copy)]
enum Wired {
    Never,
    Opening,
    Up(Key),
    /// a timer will open it
    BackingOff,
}

pub struct Redis<S> {
    target: String,
    lens: Lens<S>,
    wire: Wired,
    queue: VecDeque<(Vec<u8>, Callback<S>)>,
    flying: VecDeque<Callback<S>>,
    queue_max: usize,
    back_off: Duration,
    reply_max: Duration,
}

impl<S: 'static> Redis<S> {
    pub fn new(target: &str, lens: Lens<S>) -> Self {
        Self {
            target: target.into(),
            lens,
            wire: Wired::Never,
            queue: VecDeque::new(),
            flying: VecDeque::new(),
            queue_max: 10_000,
            back_off: Duration::from_millis(100),
            reply_max: Duration::from_secs(5),
        }
    }
    /// Queued when there is no connection; sent at once when there is.
    pub fn command(
        &mut self,
        net: &mut Net<'_, S>,
        args: &[&[u8]],
        done: impl FnOnce(&mut Net<'_, S>, &mut S, Result<Value, Lost>) + 'static,
    ) {
        if self.queue.len() >= self.queue_max {
            // Not called here: the caller holds a borrow of us, and nothing may run inside another callback.
            net.post(move |net, state| done(net, state, Err(Lost::QueueFull)));
            return;
        }
        self.queue.push_back((encode(args), Box::new(done)));
        match self.wire {
            Wired::Never => self.open(net),
            Wired::Up(_) => self.pump(net),
            Wired::Opening | Wired::BackingOff => {}
        }
    }
    fn open(&mut self, net: &mut Net<'_, S>) {
        self.wire = Wired::Opening;
        net.connect_with(
            &self.target,
            Connect::new().timeout(Duration::from_secs(3)),
            Wire { lens: self.lens, stack: vec![], bulk: false },
        );
    }
    /// What is queued goes out, as far as the water mark lets it; `writable` calls again.
    fn pump(&mut self, net: &mut Net<'_, S>) {
        let Wired::Up(key) = self.wire else { return };
        let Some(mut link) = net.link(key) else { return }; // its `closed` is on the way
        while !link.is_congested() {
            let Some((bytes, done)) = self.queue.pop_front() else { break };
            link.send(&bytes);
            self.flying.push_back(done);
        }
        link.set_deadline((!self.flying.is_empty()).then_some(self.reply_max));
    }
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.flying.is_empty()
    }
}
fn encode(args: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for a in args {
        out.extend(format!("${}\r\n", a.len()).bytes());
        out.extend(*a);
        out.extend(b"\r\n")
    }
    out
}

/// One connection's life: frames in, values out. RESP2 by switching terminators, so a bulk of any bytes is one `Length` frame.
struct Wire<S> {
    lens: Lens<S>,
    stack: Vec<(usize, Vec<Value>)>,
    bulk: bool,
}
impl<S: 'static> Wire<S> {
    fn value(&mut self, ctx: &mut Context<'_, S>, state: &mut S, mut value: Value) -> Outcome {
        while let Some((left, items)) = self.stack.last_mut() {
            items.push(value);
            *left -= 1;
            if *left > 0 {
                return Ok(());
            }
            let (_, items) = self.stack.pop().expect("just seen");
            value = Value::Array(items);
        }
        let redis = (self.lens)(state);
        let done = redis.flying.pop_front().ok_or("a reply nobody asked for")?;
        ctx.set_deadline((!redis.flying.is_empty()).then_some(redis.reply_max));
        done(&mut ctx.net, state, Ok(value));
        Ok(())
    }
}
impl<S: 'static> Protocol<S> for Wire<S> {
    fn connected(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        ctx.set_terminator(Terminator::crlf(64 << 10));
        let redis = (self.lens)(state);
        redis.wire = Wired::Up(ctx.key);
        redis.back_off = Duration::from_millis(100);
        redis.pump(&mut ctx.net);
        Ok(())
    }
    fn frame(&mut self, ctx: &mut Context<'_, S>, state: &mut S, b: &[u8]) -> Outcome {
        if std::mem::take(&mut self.bulk) {
            ctx.set_terminator(Terminator::crlf(64 << 10));
            return self.value(ctx, state, Value::Bulk(b.strip_suffix(b"\r\n").ok_or("bulk without its end")?.to_vec()));
        }
        let (kind, rest) = b.split_first().ok_or("empty line")?;
        let text = str::from_utf8(rest)?;
        match kind {
            b'+' => self.value(ctx, state, Value::Simple(text.into())),
            b'-' => self.value(ctx, state, Value::Error(text.into())),
            b':' => self.value(ctx, state, Value::Int(text.parse()?)),
            b'$' | b'*' if text == "-1" => self.value(ctx, state, Value::Nil),
            b'*' if text == "0" => self.value(ctx, state, Value::Array(vec![])),
            b'*' if self.stack.len() < 32 => {
                self.stack.push((text.parse()?, vec![]));
                Ok(())
            }
            b'$' => {
                let n: usize = text.parse()?;
                if n > BULK_BYTES_MAX {
                    return Err("bulk too big".into());
                }
                self.bulk = true;
                ctx.set_terminator(Terminator::exactly(n + 2));
                Ok(())
            }
            _ => Err("not RESP".into()),
        }
    }
    fn writable(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        (self.lens)(state).pump(&mut ctx.net);
        Ok(())
    }
    /// Not connected, or connected and lost: the same place, the same cure.
    fn closed(&mut self, ctx: &mut Context<'_, S>, state: &mut S, why: Reason) {
        let lens = self.lens;
        let redis = lens(state);
        redis.wire = Wired::BackingOff;
        let delay = redis.back_off;
        redis.back_off = (delay * 2).min(Duration::from_secs(30));
        let lost = std::mem::take(&mut redis.flying);
        if let Reason::Shutdown = why {
            redis.queue.clear()
        } else {
            ctx.net.after(delay, move |net, state| lens(state).open(net));
        }
        for done in lost {
            done(&mut ctx.net, state, Err(Lost::InFlight))
        }
    }
}

// ---------------------------------------------------------------- the application: a line server in front of Redis
struct App {
    redis: Redis<App>,
    hits: u64,
}
struct Line;
impl Protocol<App> for Line {
    fn connected(&mut self, ctx: &mut Context<'_, App>, _: &mut App) -> Outcome {
        ctx.set_terminator(Terminator::line(1024));
        Ok(())
    }
    fn frame(&mut self, ctx: &mut Context<'_, App>, app: &mut App, line: &[u8]) -> Outcome {
        let client = ctx.key;
        let words: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
        app.redis.command(&mut ctx.net, &words, move |net, app, reply| {
            app.hits += 1;
            net.send(
                client,
                match reply {
                    Ok(value) => format!("{value:?}\n"),
                    Err(lost) => format!("sorry: {lost}\n"),
                },
            );
            app.redis.command(net, &[b"INCR", b"hits"], |_, _, _| {}); // a command from inside a callback
        });
        Ok(())
    }
}
fn main() -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.net().listen("127.0.0.1:7000", || Line)?;
    let mut app = App { redis: Redis::new("localhost:redis", |app| &mut app.redis), hits: 0 };
    app.redis.command(&mut reactor.net(), &[b"PING"], |_, _, reply| println!("{reply:?}"));
    reactor.run(&mut app)
}
