//! Time as the loop counts it: nanoseconds since its world began. It is monotonic, and an argument everywhere below the
//! reactor: nothing down here asks a clock.

use std::{ops::Add, time::Duration};

/// A moment, in nanoseconds since the world began. Five hundred years fit; what is further away saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(pub(crate) u64);

impl Time {
    /// So far away that it never comes.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// The last moment that a simulated clock shows.
    #[cfg(feature = "sim")]
    pub(crate) const LAST: Self = Self(Self::NEVER.0 - 1);

    /// Zero if `earlier` is not earlier.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, more: Duration) -> Self {
        Self(self.0.saturating_add(nanos(more)))
    }
}

/// The shortest pause between things that come again and again: without one a loop would never sleep.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(1);

/// `Duration::MAX` is "for ever", not an overflow.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_durations_saturate() {
        assert_eq!(Time(5) + Duration::MAX, Time::NEVER);
        assert_eq!(Time(5).since(Time(9)), Duration::ZERO);
    }
}
