//! Bytes on their way out: a queue of owned bytes, shared bytes, producers and parts of files. No socket, no clock.

mod file_range;

use crate::panics::discard;
pub(crate) use file_range::FileRange;
use std::{collections::VecDeque, fmt, io, io::IoSlice, rc::Rc};

/// Makes output when there is room for it, so that a large answer is never in memory as a whole.
///
/// It is called by the loop, never from inside one of your calls. Any `FnMut(&mut Vec<u8>) -> io::Result<Produced>` is one.
/// The chapter is [back-pressure](crate::manual::back_pressure#producers).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a producer",
    label = "this has to be a `Producer`",
    note = "a producer is a closure with its types written out, `|out: &mut Vec<u8>| -> io::Result<Produced> {{ … }}`, or has `impl Producer`",
    note = "to send bytes that you have, use `send`; to send what is read from a file or the like, `send_from`"
)]
pub trait Producer: 'static {
    /// Appends the next bytes to `out`, ideally tens of kilobytes.
    ///
    /// # Errors
    /// An error ends the connection with [`Reason::Failed`](crate::Reason::Failed), and so does
    /// [`Produced::More`] with nothing appended, which would never end.
    fn more(&mut self, out: &mut Vec<u8>) -> io::Result<Produced>;
}

impl<F: FnMut(&mut Vec<u8>) -> io::Result<Produced> + 'static> Producer for F {
    fn more(&mut self, out: &mut Vec<u8>) -> io::Result<Produced> {
        self(out)
    }
}

/// What a [`Producer`] says after it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Produced {
    /// Something was appended, and there is more: ask again when it is sent.
    More,
    /// Nothing for now. It keeps its place in the queue; `wake` has it asked again.
    NotYet,
    /// That was all; what was appended last is sent. The producer is dropped.
    Done,
}

/// Bytes that are queued one by one are gathered into pieces of about this size. A piece is freed as a whole, so this bounds
/// what a half-sent queue holds unnecessarily.
const PIECE_BYTES: usize = 64 << 10;

/// A producer is asked until this much is ready to be written: one system call's worth.
const PULL_BYTES: usize = 64 << 10;

/// How many pieces leave with one system call. The kernel takes up to 1,024; past sixteen the call costs more than is saved.
pub(crate) const SLICES_MAX: usize = 16;

enum Chunk {
    /// Unsent are `bytes[sent..]`; never empty.
    Owned {
        bytes: Vec<u8>,
        sent: usize,
    },
    Shared {
        bytes: Rc<[u8]>,
        sent: usize,
    },
    /// The kernel takes it as it is. Counts as a producer.
    File(FileRange),
    /// `parked`: it said "not yet".
    Producer {
        producer: Box<dyn Producer>,
        parked: bool,
    },
    /// What is behind it does not leave before it is taken away. Counts as a producer.
    #[cfg(feature = "tls")]
    Barrier,
}

/// Emptied queues, kept for the next one that is needed: a message to a thousand members takes a thousand for a moment.
#[derive(Default)]
#[allow(clippy::vec_box, reason = "the boxes are what is kept: a connection takes one as it is")]
pub(crate) struct Spares(Vec<Box<Output>>);

/// This many are kept, each with at most this much room for bytes: less than 1 MiB in all, and half of that in practice.
const SPARES_MAX: usize = 1024;
const SPARE_BYTES: usize = 256;

impl Spares {
    #[inline]
    pub(crate) fn get(&mut self) -> Box<Output> {
        self.0.pop().unwrap_or_default()
    }

    #[inline]
    fn put(&mut self, output: Box<Output>) {
        if self.0.len() < SPARES_MAX && output.chunks.capacity() <= SLICES_MAX {
            self.0.push(output);
        }
    }

    /// An empty queue does not stay with its connection.
    #[inline]
    pub(crate) fn take_if_empty(&mut self, output: &mut Option<Box<Output>>) {
        if let Some(empty) = output.take_if(|output| output.is_empty()) {
            self.put(empty);
        }
    }
}

#[derive(Default)]
pub(crate) struct Output {
    chunks: VecDeque<Chunk>,
    /// The piece behind them that is added to; usually it is all there is. Unsent are `last[sent..]`; empty if that is.
    last: Vec<u8>,
    sent: usize,
    /// All unsent bytes.
    queued: usize,
    /// How many chunks are producers or files.
    producers: usize,
}

/// Why a producer could not go on.
pub(crate) enum Broken {
    Error(io::Error),
    NoProgress,
}

impl Output {
    /// Unsent bytes, without what producers still have.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.last.is_empty()
    }

    /// There is something that the kernel could take.
    pub(crate) fn waits(&self) -> bool {
        self.queued > 0 || self.front_file().is_some()
    }

    pub(crate) fn producers(&self) -> usize {
        self.producers
    }

    /// Nothing can be written until a producer is woken, or a barrier is taken away.
    pub(crate) fn is_parked(&self) -> bool {
        #[cfg(feature = "tls")]
        if self.has_barrier_in_front() {
            return true;
        }
        matches!(self.chunks.front(), Some(Chunk::Producer { parked: true, .. }))
    }

    /// Whether [`pull`](Self::pull) would call a producer.
    pub(crate) fn wants_pull(&self) -> bool {
        matches!(self.chunks.front(), Some(Chunk::Producer { parked: false, .. }))
    }

    pub(crate) fn push(&mut self, more: &[u8]) {
        if more.is_empty() {
            return;
        }
        self.queued += more.len();
        if self.last.len() + more.len() > PIECE_BYTES {
            self.end_piece();
        }
        self.last.extend_from_slice(more);
    }

    /// Something else is going to stand behind it.
    fn end_piece(&mut self) {
        if !self.last.is_empty() {
            let (bytes, sent) = (std::mem::take(&mut self.last), std::mem::take(&mut self.sent));
            self.chunks.push_back(Chunk::Owned { bytes, sent });
        }
    }

    /// The same without copying; `sent` of the bytes have left already.
    pub(crate) fn push_vec(&mut self, bytes: Vec<u8>, sent: usize) {
        if sent < bytes.len() {
            self.queued += bytes.len() - sent;
            self.end_piece();
            (self.last, self.sent) = (bytes, sent);
        }
    }

    pub(crate) fn push_shared(&mut self, bytes: &Rc<[u8]>) {
        if !bytes.is_empty() {
            self.queued += bytes.len();
            self.end_piece();
            self.chunks.push_back(Chunk::Shared { bytes: Rc::clone(bytes), sent: 0 });
        }
    }

    pub(crate) fn push_producer(&mut self, producer: Box<dyn Producer>) {
        self.producers += 1;
        self.end_piece();
        self.chunks.push_back(Chunk::Producer { producer, parked: false });
    }

    /// For the kernel to take, as far as it can.
    pub(crate) fn push_file(&mut self, file: FileRange) {
        self.producers += 1;
        self.end_piece();
        self.chunks.push_back(Chunk::File(file));
    }

    /// What is in front of it leaves; what is queued from now on waits.
    #[cfg(feature = "tls")]
    pub(crate) fn push_barrier(&mut self) {
        self.producers += 1;
        self.end_piece();
        self.chunks.push_back(Chunk::Barrier);
    }

    #[cfg(feature = "tls")]
    pub(crate) fn has_barrier_in_front(&self) -> bool {
        matches!(self.chunks.front(), Some(Chunk::Barrier))
    }

    #[cfg(all(feature = "tls", debug_assertions))]
    pub(crate) fn has_barrier(&self) -> bool {
        self.chunks.iter().any(|chunk| matches!(chunk, Chunk::Barrier))
    }

    /// The one in front.
    #[cfg(feature = "tls")]
    pub(crate) fn pop_barrier(&mut self) {
        if self.has_barrier_in_front() {
            self.chunks.pop_front();
            self.producers -= 1;
        }
    }

    pub(crate) fn front_file(&self) -> Option<&FileRange> {
        match self.chunks.front() {
            Some(Chunk::File(file)) => Some(file),
            _ => None,
        }
    }

    /// The kernel cannot take it: it is read, like any producer.
    pub(crate) fn read_front_file(&mut self) {
        match self.chunks.pop_front() {
            Some(Chunk::File(file)) => self.chunks.push_front(Chunk::Producer { producer: Box::new(file), parked: false }),
            Some(other) => self.chunks.push_front(other),
            None => {}
        }
    }

    /// Every producer that said "not yet" is asked again: only the first can have said so.
    pub(crate) fn wake(&mut self) {
        for chunk in &mut self.chunks {
            if let Chunk::Producer { parked, .. } = chunk {
                *parked = false;
            }
        }
    }

    /// Has the producer at the front make output. It is called only here. One that is broken, or panics, stays where it is:
    /// if it were dropped by its own panic, a panic of its `drop` would end the program.
    pub(crate) fn pull(&mut self) -> Result<(), Broken> {
        let Some(Chunk::Producer { producer, parked }) = self.chunks.front_mut() else {
            unreachable!("asked only when a producer stands in front");
        };
        let mut made = Vec::new();
        let is_done = loop {
            let before = made.len();
            match producer.more(&mut made).map_err(Broken::Error)? {
                Produced::Done => break true,
                Produced::NotYet => {
                    *parked = true;
                    break false;
                }
                Produced::More if made.len() == before => return Err(Broken::NoProgress),
                Produced::More if made.len() >= PULL_BYTES => break false,
                Produced::More => {}
            }
        };
        if is_done {
            self.producers -= 1;
            self.chunks.pop_front();
        }
        if !made.is_empty() {
            self.queued += made.len();
            self.chunks.push_front(Chunk::Owned { bytes: made, sent: 0 });
        }
        Ok(())
    }

    /// Drops everything, one by one: two that panicked in one drop would end the program.
    pub(crate) fn discard(mut self) {
        while let Some(chunk) = self.chunks.pop_front() {
            discard("a producer", chunk);
        }
    }

    /// All of it, if that is one piece.
    #[inline]
    pub(crate) fn single(&self) -> Option<&[u8]> {
        let is_single = self.chunks.is_empty() && !self.last.is_empty();
        is_single.then(|| &self.last[self.sent..])
    }

    /// Everything that waits, if there are no producers.
    pub(crate) fn unsent(&self) -> Vec<u8> {
        let mut unsent = Vec::with_capacity(self.queued);
        for chunk in &self.chunks {
            match chunk {
                Chunk::Owned { bytes, sent } => unsent.extend_from_slice(&bytes[*sent..]),
                Chunk::Shared { bytes, sent } => unsent.extend_from_slice(&bytes[*sent..]),
                _ => {}
            }
        }
        unsent.extend_from_slice(&self.last[self.sent..]);
        unsent
    }

    /// Collects what can be written at once; returns how many pieces that is.
    pub(crate) fn slices<'a>(&'a self, into: &mut [IoSlice<'a>; SLICES_MAX], mut most: usize) -> usize {
        let unsent = self.chunks.iter().map_while(|chunk| match chunk {
            Chunk::Owned { bytes, sent } => Some(&bytes[*sent..]),
            Chunk::Shared { bytes, sent } => Some(&bytes[*sent..]),
            _ => None,
        });
        let behind = if self.producers == 0 { &self.last[self.sent..] } else { &[] };
        let allowed = unsent.chain([behind]).map_while(|bytes| {
            let length = bytes.len().min(most);
            most -= length;
            (length > 0).then(|| &bytes[..length])
        });
        into.iter_mut().zip(allowed).map(|(slice, bytes)| *slice = IoSlice::new(bytes)).count()
    }

    /// This many bytes of [`slices`](Self::slices) have left.
    #[inline]
    pub(crate) fn advance(&mut self, bytes: usize) {
        if !self.chunks.is_empty() && self.advance_file(bytes) {
            return;
        }
        self.queued -= bytes;
        self.sent += if self.chunks.is_empty() { bytes } else { self.advance_chunks(bytes) };
        debug_assert!(self.sent <= self.last.len(), "no more leaves than there was");
        if self.sent == self.last.len() {
            self.sent = 0;
            self.last.clear();
            if self.last.capacity() > SPARE_BYTES {
                self.last = Vec::new();
            }
        }
    }

    /// Returns whether they were of a file.
    fn advance_file(&mut self, bytes: usize) -> bool {
        let Some(Chunk::File(file)) = self.chunks.front_mut() else { return false };
        if file.advance(bytes) {
            self.producers -= 1;
            self.chunks.pop_front();
        }
        true
    }

    /// How many are of what is behind the chunks.
    #[inline(never)]
    fn advance_chunks(&mut self, mut bytes: usize) -> usize {
        while let Some(front) = self.chunks.front_mut() {
            let (whole, sent) = match front {
                Chunk::Owned { bytes, sent } => (bytes.len(), sent),
                Chunk::Shared { bytes, sent } => (bytes.len(), sent),
                _ => {
                    debug_assert!(bytes == 0, "no more leaves than stood in front");
                    return 0;
                }
            };
            let left = whole - *sent;
            if bytes < left {
                *sent += bytes;
                return 0;
            }
            bytes -= left;
            self.chunks.pop_front();
        }
        bytes
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("queued", &self.queued)
            .field("chunks", &(self.chunks.len() + usize::from(!self.last.is_empty())))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes at most `most` bytes, as a kernel would.
    fn write(output: &mut Output, most: usize) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = output.slices(&mut slices, usize::MAX);
        let mut bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
        bytes.truncate(most);
        output.advance(bytes.len());
        bytes
    }

    #[test]
    fn everything_leaves_in_order_however_it_is_cut() {
        for most in 1..30 {
            let mut output = Output::default();
            output.push(b"one ");
            output.push(b"");
            output.push_shared(&Rc::from(&b"two "[..]));
            output.push_vec(b"..three ".to_vec(), 2);
            output.push_shared(&Rc::from(&b""[..]));
            let mut left = vec!["four ", "five "];
            left.reverse();
            output.push_producer(Box::new(move |out: &mut Vec<u8>| {
                out.extend_from_slice(left.pop().unwrap_or_default().as_bytes());
                Ok(if left.is_empty() { Produced::Done } else { Produced::More })
            }));
            output.push(b"six");
            let mut all = Vec::new();
            while !output.is_empty() {
                if output.wants_pull() {
                    assert!(output.pull().is_ok());
                }
                all.extend(write(&mut output, most));
            }
            assert_eq!(all, b"one two three four five six");
            assert_eq!(output.queued(), 0);
        }
    }

    #[test]
    fn not_yet_keeps_the_place_and_waits_to_be_woken() {
        let mut output = Output::default();
        let mut asked = 0;
        output.push_producer(Box::new(move |out: &mut Vec<u8>| {
            asked += 1;
            if asked == 1 {
                return Ok(Produced::NotYet);
            }
            out.extend_from_slice(b"late ");
            Ok(Produced::Done)
        }));
        output.push(b"after");
        assert!(output.wants_pull() && !output.is_parked());
        assert!(output.pull().is_ok());
        assert!(output.is_parked() && !output.wants_pull());
        assert_eq!((output.producers(), output.queued()), (1, 5));
        assert_eq!(write(&mut output, 99), b"");
        output.wake();
        assert!(output.wants_pull() && output.pull().is_ok());
        assert_eq!((output.producers(), output.queued()), (0, 10));
        assert_eq!(write(&mut output, 99), b"late after");
    }

    #[test]
    fn a_producer_without_progress_is_broken_and_an_error_is_kept() {
        let mut output = Output::default();
        output.push_producer(Box::new(|_: &mut Vec<u8>| Ok(Produced::More)));
        assert!(matches!(output.pull(), Err(Broken::NoProgress)));
        let mut output = Output::default();
        output.push_producer(Box::new(|_: &mut Vec<u8>| Err(io::ErrorKind::NotFound.into())));
        assert!(matches!(output.pull(), Err(Broken::Error(error)) if error.kind() == io::ErrorKind::NotFound));
    }

    #[test]
    fn small_sends_share_a_piece_and_a_piece_stays_small() {
        let mut output = Output::default();
        for _ in 0..20_000 {
            output.push(&[0; 10]);
        }
        assert_eq!(output.chunks.len() + 1, 200_000_usize.div_ceil(PIECE_BYTES));
    }

    #[test]
    fn a_producer_is_asked_until_one_system_calls_worth_is_ready() {
        let mut output = Output::default();
        output.push_producer(Box::new(|out: &mut Vec<u8>| {
            out.extend_from_slice(&[0; PULL_BYTES / 4]);
            Ok(Produced::More)
        }));
        assert!(output.pull().is_ok());
        assert_eq!((output.queued(), output.producers()), (64 << 10, 1));
        assert!(!output.is_parked() && !output.wants_pull(), "bytes stand in front of it");
    }

    #[test]
    fn a_send_that_would_make_a_piece_too_large_is_a_piece_of_its_own() {
        let mut output = Output::default();
        for bytes in [PIECE_BYTES - 1, 1, 1, PIECE_BYTES, 2 * PIECE_BYTES] {
            output.push(&vec![0; bytes]);
        }
        assert_eq!(output.queued(), 4 * PIECE_BYTES + 1);
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = output.slices(&mut slices, usize::MAX);
        let lengths: Vec<usize> = slices[..count].iter().map(|slice| slice.len()).collect();
        assert_eq!(lengths, [PIECE_BYTES, 1, PIECE_BYTES, 2 * PIECE_BYTES]);
    }

    #[test]
    fn what_has_left_already_is_not_queued() {
        let mut output = Output::default();
        output.push_vec(b"gone".to_vec(), 4);
        output.push_vec(vec![], 0);
        assert!(output.is_empty());
    }

    #[test]
    fn an_emptied_queue_is_kept_for_the_next_and_what_is_not_empty_stays() {
        let mut spares = Spares::default();
        let mut output = Some(spares.get());
        output.as_mut().expect("just got").push(b"bytes");
        spares.take_if_empty(&mut output);
        assert_eq!(write(output.as_mut().expect("not empty"), 99), b"bytes");
        spares.take_if_empty(&mut output);
        assert!(output.is_none());
        assert_eq!(spares.0.len(), 1);
        assert!(spares.get().is_empty() && spares.0.is_empty());
    }

    #[test]
    fn only_so_many_queues_are_kept_and_only_small_ones() {
        let with_room = |chunks| Box::new(Output { chunks: VecDeque::with_capacity(chunks), ..Output::default() });
        let mut spares = Spares::default();
        spares.put(with_room(SLICES_MAX + 1));
        assert!(spares.0.is_empty());
        for _ in 0..SPARES_MAX + 1 {
            spares.put(with_room(SLICES_MAX));
        }
        assert_eq!(spares.0.len(), SPARES_MAX);
    }

    #[test]
    fn the_room_of_a_small_piece_that_has_left_is_for_the_next() {
        for (room, is_kept) in [(SPARE_BYTES, true), (SPARE_BYTES + 1, false)] {
            let mut output = Output::default();
            let mut bytes = Vec::with_capacity(room);
            bytes.extend_from_slice(b"first");
            output.push_vec(bytes, 0);
            assert_eq!(write(&mut output, 99), b"first");
            assert_eq!(output.last.capacity(), if is_kept { room } else { 0 });
            output.push(b"second");
            assert_eq!(write(&mut output, 99), b"second");
        }
    }

    #[test]
    fn what_is_one_piece_can_be_had_as_one() {
        let mut output = Output::default();
        assert_eq!(output.single(), None);
        output.push(b"bytes");
        output.advance(2);
        assert_eq!(output.single(), Some(&b"tes"[..]));
        output.push_shared(&Rc::from(&b"more"[..]));
        assert_eq!(output.single(), None);
    }
}
