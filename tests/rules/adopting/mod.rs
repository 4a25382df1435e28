//! Streams that somebody else has opened: taken over, and given back.

mod kinds;
