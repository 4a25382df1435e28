//! One protocol as a dialogue.

use super::scene::{Actor, Scene};
use crate::{
    contract::Protocol,
    key::Key,
    listen::{Listen, Refusal},
    reason::Reason,
};
use std::{fmt, marker::PhantomData, time::Duration};

/// Where the protocol under test listens.
const AT: &str = "127.0.0.1:7";

/// One protocol and a peer that you play, in virtual time. The protocol runs in a real loop, as an accepted connection; only
/// the world is simulated.
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
    /// The protocol, just connected, with a default state.
    pub fn new(protocol: P) -> Self {
        Self::with_state(protocol, S::default())
    }
}

impl<P: Protocol<S>, S: 'static> Transcript<P, S> {
    /// The protocol, just connected, with this state.
    pub fn with_state(protocol: P, state: S) -> Self {
        let mut scene = Scene::new(0, state);
        let host = scene.host();
        scene.sim().reactor(host).core().ends = Some(Vec::new());
        let mut protocol = Some(protocol);
        let listening =
            scene.net().listen_with(AT, Listen::new().accepts_max(1), move |_, _, _| protocol.take().ok_or_else(Refusal::silent));
        listening.expect("a simulated network has the port");
        let peer = scene.dials(AT);
        let key = scene.sim().reactor(host).core().hub.slots.keys().last().expect("it was accepted");
        Self { scene, peer, key, _protocol: PhantomData }
    }

    /// The peer sends this, in one piece.
    pub fn receives(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.scene.says(self.peer, bytes);
        self
    }

    /// The same, one byte at a time.
    pub fn receives_bytewise(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        for byte in bytes.as_ref() {
            self.scene.says(self.peer, [*byte]);
        }
        self
    }

    /// The peer ends its side.
    pub fn peer_ends(&mut self) -> &mut Self {
        self.scene.ends(self.peer);
        self
    }

    /// The peer breaks the connection off.
    pub fn peer_resets(&mut self) -> &mut Self {
        self.scene.resets(self.peer);
        self
    }

    /// The peer takes nothing any more: its window fills.
    pub fn peer_stops_reading(&mut self) -> &mut Self {
        self.scene.reads(self.peer, false);
        self
    }

    /// The peer takes everything again.
    pub fn peer_reads(&mut self) -> &mut Self {
        self.scene.reads(self.peer, true);
        self
    }

    /// Lets time pass.
    pub fn passes(&mut self, time: Duration) -> &mut Self {
        self.scene.passes(time);
        self
    }

    /// Lets everything happen that happens without time passing. (The other calls do so by themselves.)
    pub fn settles(&mut self) -> &mut Self {
        self.scene.settles();
        self
    }

    /// Exactly this was sent since it was last asked.
    ///
    /// # Panics
    /// If anything else was sent.
    #[track_caller]
    pub fn sends(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.scene.hears(self.peer, bytes);
        self
    }

    /// Everything that was sent since it was last asked: for answers with a time or a random number in them.
    pub fn sent(&mut self) -> Vec<u8> {
        self.scene.takes(self.peer)
    }

    /// It has ended, with such a reason, and sent nothing more than was asked for.
    ///
    /// # Panics
    /// If it has not, or for another reason.
    #[track_caller]
    pub fn closes(&mut self, why: impl FnOnce(&Reason) -> bool) -> &mut Self {
        self.scene.hears(self.peer, b"");
        match self.end() {
            Some(reason) => assert!(why(&reason), "it ended for another reason: {reason}"),
            None => panic!("it is still open"),
        }
        self
    }

    /// It has not ended.
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

    fn end(&mut self) -> Option<Reason> {
        self.scene.settles();
        let (host, key) = (self.scene.host(), self.key);
        let ends = self.scene.sim().reactor(host).core().ends.as_ref()?;
        ends.iter().find(|(ended, _)| *ended == key).map(|(_, reason)| reason.duplicate())
    }

    /// Why it ended, as a text.
    pub(super) fn end_reason(&mut self) -> Option<String> {
        self.end().map(|reason| reason.to_string())
    }

    /// The state.
    pub fn state(&mut self) -> &mut S {
        self.scene.state()
    }

    /// The protocol itself; nothing once it has ended, or has become something else.
    pub fn protocol(&mut self) -> Option<&mut P> {
        let (host, key) = (self.scene.host(), self.key);
        self.scene.sim().reactor(host).core().protocol(key)
    }

    /// The connection's key, for commands by `net`.
    pub fn key(&self) -> Key {
        self.key
    }

    /// The scene around it: other peers, its listeners, the network.
    pub fn scene(&mut self) -> &mut Scene<S> {
        &mut self.scene
    }
}

impl<P, S> fmt::Debug for Transcript<P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transcript").field("key", &self.key).field("scene", &self.scene).finish_non_exhaustive()
    }
}
