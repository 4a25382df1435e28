//! Asks the kernel for all links, then for all addresses, and listens to changes, all by one socket of netlink(7).

use crate::{
    common::{Failure, complain, print, stop_on_interrupt},
    route::{self, GROUPS, Message, News, Question},
    table::Table,
};
use mainspring::{Address, Bind, Datagram, Key, Net, Outcome, Reactor, Reason, Scope, Timer};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, netlink::SocketAddrNetlink, socket_with};
use socket2::Socket;
use std::{io, time::Duration};

/// How long to wait for the kernel, which normally answers at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pause before we ask again: whoever changed something during the list may go on changing.
const PAUSE: Duration = Duration::from_millis(100);

/// The state of the program; each callback borrows it.
struct Watch {
    socket: Key,
    is_once: bool,
    table: Table,
    /// The list that is coming now. The kernel does one at a time (EBUSY).
    asked: Option<Question>,
    /// The number of the last question.
    sequence: u32,
    /// This is the first question, and nothing of its answer has come yet. What comes until then is older, and lost news may have
    /// undone it.
    is_unanswered: bool,
    overdue: Option<Timer>,
    /// The list may not be consistent, so we must ask for it again.
    again: bool,
    /// Whether we have printed that we are watching.
    has_begun: bool,
    ending: Result<(), Failure>,
}

impl Watch {
    /// Asks for the whole list, unless that has begun already.
    fn look(&mut self, net: &mut Net<'_, Self>) {
        if self.asked.is_some() {
            self.again = true;
            return;
        }
        (self.again, self.is_unanswered) = (false, true);
        self.ask(net, Question::Links);
    }

    fn ask(&mut self, net: &mut Net<'_, Self>, question: Question) {
        self.sequence += 1;
        self.asked = Some(question);
        net.send(self.socket, question.bytes(self.sequence));
        let overdue = net.after(PATIENCE, |net, watch: &mut Self| watch.end(net, Err("the kernel does not answer".into())));
        self.overdue = Some(overdue);
    }

    fn hear(&mut self, net: &mut Net<'_, Self>, message: Message) -> Result<(), Failure> {
        let is_answer = message.sequence == self.sequence;
        if is_answer && std::mem::take(&mut self.is_unanswered) {
            self.table.begin();
        }
        self.again |= message.is_interrupted;
        match message.news {
            News::Done if is_answer => self.told(net),
            News::Refused(error) if is_answer && error != 0 => {
                Err(format!("the kernel refuses to answer: {}", io::Error::from_raw_os_error(error)).into())
            }
            news => self.table.hear(news).map_or(Ok(()), print),
        }
    }

    /// The list that we asked for is complete.
    fn told(&mut self, net: &mut Net<'_, Self>) -> Result<(), Failure> {
        if let Some(overdue) = self.overdue.take() {
            net.cancel(overdue);
        }
        if self.asked.take() == Some(Question::Links) {
            self.ask(net, Question::Addresses);
            return Ok(());
        }
        if self.again {
            net.after(PAUSE, |net, watch: &mut Self| watch.look(net));
            return Ok(());
        }
        self.table.complete().into_iter().try_for_each(print)?;
        if self.is_once {
            net.stop();
        } else if !std::mem::replace(&mut self.has_begun, true) {
            print("watching until Ctrl-C")?;
        }
        Ok(())
    }

    fn end(&mut self, net: &mut Net<'_, Self>, ending: Result<(), Failure>) {
        self.ending = ending;
        net.stop();
    }
}

struct Route;

impl Datagram<Watch> for Route {
    fn received(&mut self, scope: &mut Scope<'_, Watch>, watch: &mut Watch, bytes: &[u8], _: &Address) -> Outcome {
        for message in route::messages(bytes) {
            watch.hear(&mut scope.net, message)?;
        }
        Ok(())
    }

    /// ENOBUFS: the kernel had no room for our news, so some is lost.
    fn failed(&mut self, scope: &mut Scope<'_, Watch>, watch: &mut Watch, _: &Address, error: io::Error) -> Outcome {
        if error.raw_os_error() != Some(libc::ENOBUFS) {
            return Err(error.into());
        }
        complain("some news was lost: looking at everything again");
        watch.look(&mut scope.net);
        Ok(())
    }

    fn closed(&mut self, scope: &mut Scope<'_, Watch>, watch: &mut Watch, why: Reason) {
        match why {
            Reason::Failed(fault) => watch.end(&mut scope.net, Err(fault)),
            why if !why.is_clean() => watch.end(&mut scope.net, Err(why.to_string().into())),
            _ => {}
        }
    }
}

/// The socket is connected to the kernel (0), so it hears nobody else.
fn open(groups: u32) -> io::Result<Socket> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?; // none: NETLINK_ROUTE
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket.into())
}

pub(crate) fn watch(is_once: bool) -> Result<(), Failure> {
    let socket = open(if is_once { 0 } else { GROUPS }).map_err(|error| format!("cannot open a netlink socket: {error}"))?;
    let mut reactor = Reactor::new()?;
    stop_on_interrupt(&reactor)?;
    let mut net = reactor.net();
    let mut watch = Watch {
        socket: net.bind_on(socket, Bind::new(), Route)?,
        is_once,
        table: Table::default(),
        asked: None,
        sequence: 0,
        is_unanswered: false,
        overdue: None,
        again: false,
        has_begun: false,
        ending: Ok(()),
    };
    watch.look(&mut net);
    reactor.run(&mut watch)?;
    watch.ending
}
