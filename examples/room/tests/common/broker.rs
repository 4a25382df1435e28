//! A small NATS broker for tests, in the simulated world and over loopback: subjects with `*` and `>`, a login, TLS.
#![allow(dead_code)] // each test uses a part of it

use mainspring::{
    Context, Key, Limit, Listen, Net, Outcome, Protocol, Reason, Terminator, TlsServer, TlsSide, rustls::ServerConfig,
};
use serde_json::Value;
use std::{io, sync::Arc, time::Duration};

#[derive(Default)]
pub struct Broker {
    /// Whom everybody has to be.
    pub login: Option<(&'static str, &'static str)>,
    pub tls: Option<Arc<ServerConfig>>,
    /// Of a thousand messages so many are lost. (A real one loses those only that are sent while somebody is away.)
    pub lost: u64,
    /// And all with this subject.
    pub lost_to: Option<&'static str>,
    /// What nobody may subscribe to, or publish.
    pub forbidden: Option<&'static str>,
    /// What a server says first, if not what it should.
    pub greeting: Option<&'static str>,
    pub logins: u32,
    pub published: u64,
    pub subscriptions: Vec<Subscription>,
}

pub struct Subscription {
    client: Key,
    echo: bool,
    sid: String,
    subject: String,
}

impl Broker {
    pub fn listen(net: &mut Net<'_, Self>, at: &str) -> io::Result<Key> {
        net.listen_with(at, Listen::new().output_limits(16 << 10, 64 << 10, 4 << 20), |_, _, _| Ok(Client::default()))
    }

    fn publish(&mut self, net: &mut Net<'_, Self>, from: Key, subject: &str, reply: Option<&str>, payload: &[u8]) {
        self.published += 1;
        for subscription in &self.subscriptions {
            let is_own = subscription.client == from && !subscription.echo;
            let is_lost = self.lost_to == Some(subject) || net.random() % 1000 < self.lost;
            if is_own || is_lost || !matches(&subscription.subject, subject) {
                continue;
            }
            let (sid, reply) = (&subscription.sid, reply.map_or_else(String::new, |reply| format!("{reply} ")));
            let head = format!("MSG {subject} {sid} {reply}{}\r\n", payload.len());
            net.send(subscription.client, [head.as_bytes(), payload, b"\r\n"].concat());
        }
    }
}

fn matches(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some(wanted), Some(word)) if wanted == word || wanted == "*" => {}
            _ => return false,
        }
    }
}

#[derive(Default)]
struct Client {
    is_logged_in: bool,
    echo: bool,
    coming: Option<(String, Option<String>)>,
    unanswered: u32,
}

impl Client {
    fn refuse(ctx: &mut Context<'_, Broker>, why: &str) {
        write!(ctx, "-ERR '{why}'\r\n");
        ctx.close();
    }
}

impl Protocol<Broker> for Client {
    fn connected(&mut self, ctx: &mut Context<'_, Broker>, broker: &mut Broker) -> Outcome {
        ctx.set_terminator(Terminator::crlf(4096));
        ctx.set_idle_timeout(Duration::from_secs(2));
        ctx.set_hold_back(false);
        let (tls, auth) = (broker.tls.is_some(), broker.login.is_some());
        match broker.greeting {
            Some(greeting) => ctx.send(greeting),
            None => write!(
                ctx,
                "INFO {{\"server_id\":\"test\",\"max_payload\":65536,\"tls_required\":{tls},\"auth_required\":{auth}}} \r\n"
            ),
        }
        if let Some(tls) = &broker.tls {
            ctx.link().start_tls(TlsSide::from(TlsServer::new(tls.clone())));
        }
        Ok(())
    }

    fn secured(&mut self, _: &mut Context<'_, Broker>, _: &mut Broker) -> Outcome {
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Broker>, broker: &mut Broker, frame: &[u8]) -> Outcome {
        self.unanswered = 0;
        if let Some((subject, reply)) = self.coming.take() {
            ctx.set_terminator(Terminator::crlf(4096));
            let payload = frame.strip_suffix(b"\r\n").ok_or("payload")?;
            if broker.forbidden == Some(&subject) {
                write!(ctx, "-ERR 'Permissions Violation for Publish to \"{subject}\"'\r\n");
            } else {
                broker.publish(&mut ctx.net, ctx.key, &subject, reply.as_deref(), payload);
            }
            return Ok(());
        }
        let line = std::str::from_utf8(frame)?;
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["CONNECT", ..] => {
                let options: Value = serde_json::from_str(&line[8..])?;
                let login = (options["user"].as_str(), options["pass"].as_str());
                if broker.login.is_some_and(|(user, password)| login != (Some(user), Some(password))) {
                    Self::refuse(ctx, "Authorization Violation");
                    return Ok(());
                }
                broker.logins += 1;
                (self.is_logged_in, self.echo) = (true, options["echo"] != false);
            }
            ["PING"] => ctx.send("PONG\r\n"),
            ["PONG"] => {}
            _ if !self.is_logged_in => Self::refuse(ctx, "Authorization Violation"),
            ["SUB", subject, sid] if broker.forbidden == Some(subject) => {
                write!(ctx, "-ERR 'Permissions Violation for Subscription to \"{subject}\" {sid}'\r\n");
            }
            ["SUB", subject, sid] => {
                let (client, echo, sid, subject) = (ctx.key, self.echo, sid.into(), subject.into());
                broker.subscriptions.push(Subscription { client, echo, sid, subject });
            }
            ["UNSUB", sid] => broker.subscriptions.retain(|one| one.client != ctx.key || one.sid != sid),
            ["PUB", subject, size] => self.announced(ctx, subject, None, size.parse()?),
            ["PUB", subject, reply, size] => self.announced(ctx, subject, Some(reply), size.parse()?),
            _ => Self::refuse(ctx, "Unknown Protocol Operation"),
        }
        Ok(())
    }

    fn exceeded(&mut self, ctx: &mut Context<'_, Broker>, _: &mut Broker, limit: Limit) -> Outcome {
        self.unanswered += 1;
        if limit != Limit::Idle || self.unanswered > 2 {
            return Err(limit.into());
        }
        ctx.send("PING\r\n");
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Broker>, broker: &mut Broker, _: Reason) {
        broker.subscriptions.retain(|one| one.client != ctx.key);
    }
}

impl Client {
    fn announced(&mut self, ctx: &mut Context<'_, Broker>, subject: &str, reply: Option<&str>, size: usize) {
        self.coming = Some((subject.into(), reply.map(Into::into)));
        ctx.set_terminator(Terminator::declared(size + 2, 65538));
    }
}
