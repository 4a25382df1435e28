//! What is handed to a simulated world, and what it gives back: sockets and pipes; a stream of pipes has one for each
//! direction.

use super::{
    super::{
        Listener, Moved, Stream, TakenOver,
        transport::{Transport, Ways, broken_pipe, nothing_left},
    },
    EndId, Errno, HostId, SharedNetwork, SimStream, SimWorld,
};
use crate::{
    address::Address,
    adopted::{Adopted, AdoptedListener, What},
    parked::Parked,
};
use std::{
    io::{self, ErrorKind, IoSlice},
    rc::Rc,
};

/// What a simulated stream is while no reactor has it.
pub(super) enum Handed {
    Stream(SimStream),
    Pipes(Pipes),
}

impl From<Handed> for Adopted {
    fn from(handed: Handed) -> Self {
        Self::new(What::Simulated(Parked::new(Box::new(handed))))
    }
}

/// Two ends of one stream.
pub(crate) fn pair(network: &SharedNetwork, host: HostId) -> (Adopted, Adopted) {
    let (one, other) = network.borrow_mut().pair(host);
    let handed = |end| Handed::Stream(SimStream { network: Rc::clone(network), end, resets: false }).into();
    (handed(one), handed(other))
}

/// The end that is read, and the end that is written to.
pub(crate) fn pipe(network: &SharedNetwork, host: HostId) -> (Adopted, Adopted) {
    let (reader, writer) = network.borrow_mut().pipe(host);
    let handed = |reader, writer| Handed::Pipes(Pipes { network: Rc::clone(network), reader, writer }).into();
    (handed(Some(reader), None), handed(None, Some(writer)))
}

/// Each reads what the other writes.
pub(crate) fn pipes(network: &SharedNetwork, host: HostId) -> (Adopted, Adopted) {
    let [(one_reads, other_writes), (other_reads, one_writes)] = [(); 2].map(|()| network.borrow_mut().pipe(host));
    let handed = |reader, writer| {
        let pipes = Pipes { network: Rc::clone(network), reader: Some(reader), writer: Some(writer) };
        Handed::Pipes(pipes).into()
    };
    (handed(one_reads, one_writes), handed(other_reads, other_writes))
}

impl SimWorld {
    pub(in super::super) fn take_over(&mut self, adopted: Adopted, token: usize) -> io::Result<TakenOver> {
        let Adopted { what, unread } = adopted;
        let What::Simulated(mut parked) = what else {
            let text = "a stream of the real system: a simulated world cannot wait for it";
            return Err(io::Error::new(ErrorKind::Unsupported, text));
        };
        let handed = parked.take();
        let handed =
            handed.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a simulated socket belongs to another thread"))?;
        let (stream, peer) = match *handed.downcast().expect("the only kind there is") {
            Handed::Stream(stream) => {
                let peer = self.take_over_ends(&stream.network, &[stream.end], token)?;
                (Stream::Dyn(Box::new(Box::new(stream))), peer)
            }
            Handed::Pipes(pipes) => {
                let ways = Ways::of(pipes.reader.is_some(), pipes.writer.is_some()).ok_or_else(nothing_left)?;
                let peer = self.take_over_ends(&pipes.network, &pipes.ends(), token)?;
                (Stream::Dyn(Box::new(Box::new(SimPipes { pipes, ways }))), peer)
            }
        };
        Ok(TakenOver { stream, peer, reads_at_once: false, unread })
    }

    fn take_over_ends(&self, network: &SharedNetwork, ends: &[EndId], token: usize) -> io::Result<Address> {
        if !Rc::ptr_eq(network, &self.network) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a simulated socket belongs to another network"));
        }
        network.borrow_mut().take_over(ends, self.host, token).map_err(Errno::to_error)
    }

    pub(in super::super) fn take_over_listener(
        &mut self,
        _: AdoptedListener,
        _: usize,
    ) -> io::Result<(Box<dyn Listener>, Address)> {
        let text = "a listening socket of the real system: a simulated world cannot wait for it";
        Err(io::Error::new(ErrorKind::Unsupported, text))
    }

    pub(in super::super) fn detach(&mut self, stream: Stream) -> Adopted {
        match stream {
            Stream::Dyn(other) => other.detach().unwrap_or_else(|inner| self.detach(inner)),
            _ => Adopted::nothing(),
        }
    }
}

/// At least one of them.
pub(super) struct Pipes {
    network: SharedNetwork,
    reader: Option<EndId>,
    writer: Option<EndId>,
}

impl Pipes {
    fn ends(&self) -> Vec<EndId> {
        self.reader.into_iter().chain(self.writer).collect()
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        for end in self.ends() {
            self.network.borrow_mut().close(end, false);
        }
    }
}

struct SimPipes {
    /// Without a writer once our side has ended.
    pipes: Pipes,
    ways: Ways,
}

impl Transport for SimPipes {
    fn recv(&mut self, buf: &mut [u8]) -> io::Result<Moved> {
        match self.pipes.reader {
            Some(end) => self.pipes.network.borrow_mut().recv(end, buf).map_err(Errno::to_error),
            None => Ok(Moved { bytes: 0, drained: true }),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<Moved> {
        self.send_vectored(&[IoSlice::new(bytes)])
    }

    fn send_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<Moved> {
        match self.pipes.writer {
            Some(end) => self.pipes.network.borrow_mut().send(end, bytes).map_err(Errno::to_error),
            None => Err(broken_pipe()),
        }
    }

    fn connected(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    fn take_error(&mut self) -> Option<io::Error> {
        self.pipes.network.borrow_mut().take_error(self.pipes.writer?).map(Errno::to_error)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        if let Some(end) = self.pipes.writer.take() {
            self.pipes.network.borrow_mut().close(end, false);
        }
        Ok(())
    }

    fn abort(&mut self) {}

    fn local(&self) -> Option<Address> {
        None
    }

    fn socket(&self) -> Option<socket2::SockRef<'_>> {
        None
    }

    fn lingers(&self) -> bool {
        self.ways == Ways::Both
    }

    fn writes_apart(&self) -> bool {
        true
    }

    fn ways(&self) -> Ways {
        self.ways
    }

    fn detaches(&self) -> bool {
        true
    }

    fn detach(self: Box<Self>) -> Result<Adopted, Stream> {
        for end in self.pipes.ends() {
            self.pipes.network.borrow_mut().let_go(end);
        }
        Ok(Handed::Pipes(self.pipes).into())
    }
}
