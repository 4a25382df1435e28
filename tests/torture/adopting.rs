//! Streams that nobody has connected, and connections that are given back.

use super::{BULK, Book, CLIENT, Me, Page, Player, SERVER, Stage, World, local::local_pair, pattern, player, says_what_it_got};
use mainspring::{Adopted, Key, Net};

impl Stage {
    /// Two ends of one stream within a host; on the real one a pair of sockets.
    fn pair(&mut self, host: usize) -> (Adopted, Adopted) {
        match &mut self.world {
            World::Simulated { sim, hosts } => sim.pair(hosts[host]),
            World::Real { .. } => {
                let (one, other) = local_pair();
                (one.into(), other.into())
            }
        }
    }
}

impl Book {
    /// Faces the one of that label, and goes on with what a page before says of it. Where it cannot be adopted it is closed.
    fn adopt(
        &mut self,
        net: &mut Net<'_, Self>,
        adopted: Adopted,
        faces: &'static str,
        before: Page,
        player: Player,
    ) -> Option<Key> {
        let label = player.label;
        let key = net.adopt(adopted, player).ok()?;
        self.begun += 1;
        let Page { sent, got, is_pipe, .. } = before;
        self.pages.insert(key, Page { label, faces, sent, got, is_pipe, ..Page::default() });
        Some(key)
    }
}

impl Me<'_, '_> {
    fn detach(&mut self) {
        let key = self.ctx.key;
        if self.ctx.net.detach(key) {
            self.page().has_ended = true;
        } else {
            self.close(); // it has failed
        }
    }

    /// What it was just given back becomes a connection again, and what had not left is sent first.
    fn adopt_again(&mut self, player: Player) {
        let Some(detached) = self.book.given_back.take() else { return };
        let page = self.page();
        let (faces, before) = (page.faces, Page { sent: page.sent.clone(), got: page.got.clone(), ..Page::default() });
        let adopted = detached.socket.unread(detached.unread);
        if let Some(key) = self.book.adopt(&mut self.ctx.net, adopted, faces, before, player) {
            assert!(self.ctx.net.send(key, &detached.unsent), "it is open");
            self.book.pages.entry(key).or_default().was_congested = true;
        }
    }
}

/// Says much, and reads what is said to it.
fn says_much(label: &'static str) -> Player {
    player(label, |me, call| {
        if *call == super::Call::Connected {
            me.send("a line\n");
            me.send(pattern(BULK));
            me.ctx.half_close();
        }
        me.usual(call)
    })
}

fn adopt_both(stage: &mut Stage, (one, other): (Adopted, Adopted), is_pipe: bool) {
    let page = || Page { is_pipe, ..Page::default() };
    stage.with(SERVER, |net, book| {
        book.adopt(net, one, "far end", page(), says_much("near end"));
        book.adopt(net, other, "near end", page(), says_what_it_got("far end"));
    });
}

pub(super) fn an_adopted_pair(stage: &mut Stage) {
    let ends = stage.pair(SERVER);
    adopt_both(stage, ends, false);
}

pub(super) fn two_pipes(stage: &mut Stage) {
    let (sim, hosts) = stage.sim();
    let ends = sim.pipes(hosts[SERVER]);
    adopt_both(stage, ends, true);
}

/// In the midst of its input, and with output that has not left.
pub(super) fn given_back_and_adopted_again(stage: &mut Stage) {
    let door = stage.listen(SERVER, || {
        player("server", |me, call| match call {
            super::Call::Connected => {
                me.lines();
                Ok(())
            }
            super::Call::Frame(_) => {
                me.send(pattern(BULK));
                me.detach();
                Ok(())
            }
            super::Call::Closed(why) if why == "detached" => {
                me.adopt_again(says_what_it_got("server"));
                Ok(())
            }
            call => me.usual(call),
        })
    });
    stage.connect(CLIENT, &door, says_much("client"));
}
