//! One protocol as a dialogue.

use super::scene::{Actor, Scene};
use crate::{
    contract::Protocol,
    key::Key,
    listen::{Listen, Refusal},
    reason::Reason,
};
use std::{cell::Cell, fmt, marker::PhantomData, rc::Rc, time::Duration};

/// Where the protocol under test listens.
const AT: &str = "127.0.0.1:7";

/// One protocol and a peer that you play, in virtual time. The protocol runs in a real loop, as an accepted connection; only
/// the world is simulated. There is more in [the chapter](crate::manual::testing#a-dialogue).
///
/// ```
/// # use mainspring::{testing::Transcript, Context, Outcome, Protocol, Reason, Terminator};
/// # struct Hello;
/// # impl Protocol for Hello {
/// #     fn connected(&mut self, ctx: &mut Context<'_>, _: &mut ()) -> Outcome {
/// #         ctx.set_terminator(Terminator::line(100));
/// #         Ok(())
/// #     }
/// #     fn frame(&mut self, ctx: &mut Context<'_>, _: &mut (), line: &[u8]) -> Outcome {
/// #         match line {
/// #             b"HELO" => ctx.send("hi\n"),
/// #             _ => ctx.close(),
/// #         }
/// #         Ok(())
/// #     }
/// # }
/// let mut t = Transcript::new(Hello);
/// t.receives("HEL").sends("");
/// t.receives("O\r\nBYE\r\n").sends("hi\n").closes(Reason::is_clean);
/// ```
pub struct Transcript<P, S = ()> {
    scene: Scene<S>,
    peer: Actor,
    key: Key,
    _protocol: PhantomData<fn() -> P>,
}

impl<P: Protocol<S>, S: Default + 'static> Transcript<P, S> {
    /// Starts with the protocol just connected, and a default state. It may have ended in its `connected`.
    #[track_caller]
    pub fn new(protocol: P) -> Self {
        Self::with_state(protocol, S::default())
    }
}

impl<P: Protocol<S>, S: 'static> Transcript<P, S> {
    /// Starts with the protocol just connected, and this state.
    #[track_caller]
    pub fn with_state(protocol: P, state: S) -> Self {
        let mut scene = Scene::new(0, state);
        let host = scene.host();
        scene.sim().reactor(host).core().ends = Some(Vec::new());
        let mut protocol = Some(protocol);
        let guest = Rc::new(Cell::new(None));
        let let_in = Rc::clone(&guest);
        let listening = scene.net().listen_with(AT, Listen::new().accepts_max(1), move |net, _, _| {
            // Now, because `connected` may open others, or be the end.
            let_in.set(net.core.hub.slots.conns().next().map(|conn| conn.key));
            protocol.take().ok_or_else(Refusal::silent)
        });
        listening.expect("a simulated network has the port");
        let peer = scene.dials(AT);
        let key = guest.get().expect("a listener accepts who comes");
        Self { scene, peer, key, _protocol: PhantomData }
    }

    /// The peer sends this, in one piece.
    ///
    /// # Panics
    /// If the protocol has ended, or the peer's side has; ask [`end`](Self::end) where you do not know. If the protocol has
    /// closed and its output is still on its way, because then it does not read any more. If it does not read for now, and
    /// this is more than a window takes.
    #[track_caller]
    pub fn receives(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.assert_receiving(bytes.as_ref());
        self.scene.says(self.peer, bytes);
        self
    }

    /// The peer sends this, one byte at a time. If the end comes in the middle of it, the rest is lost, as it would be in
    /// one piece.
    ///
    /// # Panics
    /// The same as for [`receives`](Self::receives).
    #[track_caller]
    pub fn receives_bytewise(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.assert_receiving(bytes.as_ref());
        for byte in bytes.as_ref() {
            if self.deafness().is_none() {
                self.scene.says(self.peer, [*byte]);
            }
        }
        self
    }

    #[track_caller]
    fn assert_receiving(&mut self, bytes: &[u8]) {
        match self.deafness() {
            Some(why) if !bytes.is_empty() => panic!("{why}"),
            _ => {}
        }
    }

    /// Why nothing that the peer says would reach the protocol.
    #[track_caller]
    pub(super) fn deafness(&mut self) -> Option<String> {
        if let Some(reason) = self.end() {
            return Some(format!("it has ended, so it receives nothing: {reason}"));
        }
        let connections = self.scene.net().connections();
        let own = connections.iter().find(|connection| connection.key == self.key && connection.is_ending)?;
        let queued = own.queued;
        Some(format!("it has closed, and {queued} bytes of its output are still to leave: it receives nothing any more"))
    }

    /// The peer ends its side.
    ///
    /// # Panics
    /// If it cannot: it has already done so, or the connection is gone. A protocol that has closed politely is waiting for
    /// just this.
    #[track_caller]
    pub fn peer_ends(&mut self) -> &mut Self {
        self.scene.ends(self.peer);
        self
    }

    /// The peer breaks the connection off.
    ///
    /// # Panics
    /// If it has already done so.
    #[track_caller]
    pub fn peer_resets(&mut self) -> &mut Self {
        self.scene.resets(self.peer);
        self
    }

    /// The peer takes nothing any more: its window fills.
    #[track_caller]
    pub fn peer_stops_reading(&mut self) -> &mut Self {
        self.scene.reads(self.peer, false);
        self
    }

    /// The peer takes everything again.
    #[track_caller]
    pub fn peer_reads(&mut self) -> &mut Self {
        self.scene.reads(self.peer, true);
        self
    }

    /// Lets time pass.
    #[track_caller]
    pub fn passes(&mut self, time: Duration) -> &mut Self {
        self.scene.passes(time);
        self
    }

    /// Lets everything happen that can happen without time passing. (The other calls do so by themselves.)
    #[track_caller]
    pub fn settles(&mut self) -> &mut Self {
        self.scene.settles();
        self
    }

    /// Checks that exactly this was sent since it was last asked.
    ///
    /// # Panics
    /// If anything else was sent.
    #[track_caller]
    pub fn sends(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.assert_sent(bytes.as_ref());
        self
    }

    /// Everything that was sent since it was last asked: for answers that contain a time or a random number.
    #[track_caller]
    pub fn sent(&mut self) -> Vec<u8> {
        self.scene.takes(self.peer)
    }

    /// Checks that it has ended, for a reason like this, and sent nothing more than was asked for.
    ///
    /// # Panics
    /// If it has not, or if it has for another reason.
    #[track_caller]
    pub fn closes(&mut self, why: impl FnOnce(&Reason) -> bool) -> &mut Self {
        self.assert_sent(b"");
        match self.end() {
            Some(reason) => assert!(why(&reason), "it ended for another reason: {reason}"),
            None => panic!("it is still open"),
        }
        self
    }

    /// A difference is told together with the end, if there was one: it may be why nothing more came.
    #[track_caller]
    fn assert_sent(&mut self, bytes: &[u8]) {
        let key = self.key;
        self.scene.hears_or(self.peer, bytes, |scene| end_of(scene, key).map(|reason| format!(" (it has ended: {reason})")));
    }

    /// Checks that it has not ended.
    ///
    /// # Panics
    /// If it has.
    #[track_caller]
    pub fn stays_open(&mut self) -> &mut Self {
        if let Some(reason) = self.end() {
            panic!("it has ended: {reason}");
        }
        self
    }

    /// Why it has ended; `None` as long as `closed` has not come.
    #[track_caller]
    pub fn end(&mut self) -> Option<Reason> {
        end_of(&mut self.scene, self.key)
    }

    /// The state.
    #[track_caller]
    pub fn state(&mut self) -> &mut S {
        self.scene.state()
    }

    /// The protocol itself; `None` once it has ended, or has become something else.
    #[track_caller]
    pub fn protocol(&mut self) -> Option<&mut P> {
        self.protocol_as()
    }

    /// What it has become by an [upgrade](crate::Context::upgrade); `None` once it has ended, or if it is not a `Q`.
    #[track_caller]
    pub fn protocol_as<Q: Protocol<S>>(&mut self) -> Option<&mut Q> {
        self.scene.assert_own_sim();
        let (host, key) = (self.scene.host(), self.key);
        self.scene.sim().reactor(host).core().protocol(key)
    }

    /// The connection's key, for commands by `net`.
    pub fn key(&self) -> Key {
        self.key
    }

    /// The peer, for what only a [`Scene`] can do: bytes after the end, for example.
    pub fn peer(&self) -> Actor {
        self.peer
    }

    /// The scene around it: other peers, its listeners, the network.
    pub fn scene(&mut self) -> &mut Scene<S> {
        &mut self.scene
    }
}

#[track_caller]
fn end_of<S: 'static>(scene: &mut Scene<S>, key: Key) -> Option<Reason> {
    scene.settles();
    let host = scene.host();
    let ends = scene.sim().reactor(host).core().ends.as_ref()?;
    ends.iter().find(|(ended, _)| *ended == key).map(|(_, reason)| reason.duplicate())
}

impl<P, S> fmt::Debug for Transcript<P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transcript").field("key", &self.key).field("scene", &self.scene).finish_non_exhaustive()
    }
}
