//! Where frames end, through the whole loop. That no cut matters is the subject of cuts.rs.

#[cfg(feature = "sim")]
mod changing;
#[cfg(feature = "sim")]
mod framers;
#[cfg(feature = "sim")]
mod limits;
#[cfg(feature = "sim")]
mod own;
#[cfg(feature = "sim")]
mod put_back;
mod sockets;
#[cfg(feature = "sim")]
mod terminators;

use mainspring::{Fault, Framer, Step};

/// Always says the same.
struct Says(fn(&[u8]) -> Result<Step, Fault>);

impl Framer for Says {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        (self.0)(input)
    }
}
