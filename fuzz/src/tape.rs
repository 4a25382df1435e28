//! An input as a tape that is read once.

/// What the fuzzer made up, read from its begin. Beyond its end there are zeros, so every input means something.
#[derive(Clone, Debug)]
pub struct Tape<'a> {
    rest: &'a [u8],
}

impl<'a> Tape<'a> {
    /// At its begin.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Nothing but zeros follows.
    pub fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        first
    }

    /// A number below `end`, which is at most 256.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// Whether something happens that happens once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    /// Any number: mostly a small one, sometimes one at the edge of what a type can hold.
    pub fn number(&mut self) -> u64 {
        match self.below(16) {
            0..10 => u64::from(self.byte()),
            10..13 => u64::from(self.byte()) << 8 | u64::from(self.byte()),
            13 => u64::from(self.byte()) << self.below(64),
            14 => u64::MAX >> self.below(64),
            _ => u64::MAX - u64::from(self.byte()),
        }
    }

    /// The same for sizes.
    pub fn size(&mut self) -> usize {
        usize::try_from(self.number()).unwrap_or(usize::MAX)
    }

    /// So many bytes, or what is left.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(most.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }
}
