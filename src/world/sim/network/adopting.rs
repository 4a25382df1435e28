//! Streams within one machine that nobody has connected: pairs and pipes; and how a reactor takes an end over, and gives it
//! back.

use super::{super::errno::Errno, ACCEPTING, EndId, HostId, Network};
use crate::{address::Address, flags::*, world::Ways};

impl Network {
    /// As by socketpair(2).
    pub(crate) fn pair(&mut self, host: HostId) -> (EndId, EndId) {
        self.note(host, format_args!("makes a pair"));
        self.join_two(host, &Address::Unix(None), [Ways::Both; 2])
    }

    /// As by pipe(2): the end that is read, and the end that is written to.
    pub(crate) fn pipe(&mut self, host: HostId) -> (EndId, EndId) {
        self.note(host, format_args!("makes a pipe"));
        self.join_two(host, &Address::Fd, [Ways::In, Ways::Out])
    }

    fn join_two(&mut self, host: HostId, at: &Address, ways: [Ways; 2]) -> (EndId, EndId) {
        self.machines[host].connects += 1;
        let one = (host as EndId) << 32 | EndId::from(self.machines[host].connects);
        let other = one | ACCEPTING;
        for (end, peer, ways) in [(one, other, ways[0]), (other, one, ways[1])] {
            self.new_end(end, host, at.clone(), at.clone());
            let made = self.ends.get_mut(&end).expect("just made");
            (made.peer, made.is_connected, made.ways) = (Some(peer), true, ways);
        }
        (one, other)
    }

    /// From now on its machine's reactor is told of these ends, as of one; returns what they lead to.
    pub(crate) fn take_over(&mut self, ends: &[EndId], host: HostId, token: usize) -> Result<Address, Errno> {
        self.operate(host, "adopt")?;
        if ends.iter().any(|id| self.ends[id].host != host) {
            return Err(Errno::InvalidArgument);
        }
        for &id in ends {
            let end = self.ends.get_mut(&id).expect("an open socket");
            end.token = Some(token);
            if end.is_broken {
                self.note_loss(id);
            }
            self.note_end(id, format_args!("is adopted, from"));
            self.tell(id, Flags::default());
        }
        Ok(ends.first().map_or(Address::Fd, |id| self.ends[id].remote.clone()))
    }

    /// Its reactor is told nothing of it any more.
    pub(crate) fn let_go(&mut self, id: EndId) {
        if !self.ends.contains_key(&id) {
            return;
        }
        self.forget_events(id);
        self.ends.get_mut(&id).expect("just seen").token = None;
        self.note_end(id, format_args!("is detached, from"));
    }
}
