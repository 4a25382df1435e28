//! permessage-deflate (RFC 7692): agrees on parameters, compresses and decompresses messages. It knows no connection.
//!
//! Nothing is kept from one message to the next, in either direction (`no_context_takeover`, 7.1.1). So a WebSocket needs no
//! state for this, which would be a third of a megabyte, and a message for many clients is compressed only once.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::{cell::RefCell, collections::BTreeMap};

/// What a flush ends with; it is not sent (7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// How far back a message may refer, as a power of two: the default, and the least that zlib can do.
const BITS: u8 = 15;
const BITS_MIN: u8 = 9;

/// The first guess for the size of a message.
const ROOM: usize = 1 << 10;

/// The agreement with a client: how far back our messages may refer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Agreed {
    /// Whether the client has asked for it.
    bits: Option<u8>,
}

impl Agreed {
    /// Agrees to the first offer that we can meet, from the value of `Sec-WebSocket-Extensions`. `None` if there is none.
    pub fn on(offers: &str) -> Option<Self> {
        offers.split(',').find_map(meet)
    }

    /// The same, in the form of the answer.
    pub fn answer(self) -> String {
        let bits = self.bits.map_or_else(String::new, |bits| format!("; server_max_window_bits={bits}"));
        format!("permessage-deflate; server_no_context_takeover; client_no_context_takeover{bits}")
    }
}

/// An offer with a parameter that we do not understand, or that comes twice, is declined (7.1).
fn meet(offer: &str) -> Option<Agreed> {
    let mut words = offer.split(';').map(str::trim);
    if !words.next()?.eq_ignore_ascii_case("permessage-deflate") {
        return None;
    }
    let (mut agreed, mut seen) = (Agreed { bits: None }, Vec::new());
    for word in words {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(window_bits(value.trim_start().trim_matches('"'))?)),
            None => (word, None),
        };
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover", None) | ("client_max_window_bits", _) => {}
            ("server_max_window_bits", Some(bits)) if bits >= BITS_MIN => agreed.bits = Some(bits),
            _ => return None,
        }
    }
    Some(agreed)
}

fn window_bits(text: &str) -> Option<u8> {
    text.parse().ok().filter(|bits| (8..=BITS).contains(bits) && text.len() == if *bits < 10 { 1 } else { 2 })
}

/// Why a message cannot be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It is not compressed data.
    Nonsense,
    TooLarge,
}

/// The compressors and the decompressor for all WebSockets.
#[derive(Default)]
pub struct Deflate {
    /// By how far back a message may refer.
    compress: BTreeMap<u8, Compress>,
    decompress: Option<Decompress>,
}

thread_local! {
    /// One for all WebSockets of a loop, that is, of a thread.
    static DEFLATE: RefCell<Deflate> = RefCell::default();
}

/// A message, compressed.
pub fn compressed(message: &[u8], agreed: Agreed) -> Vec<u8> {
    DEFLATE.with_borrow_mut(|deflate| deflate.compressed(message, agreed))
}

/// The message, decompressed, of at most `most` bytes.
pub fn decompressed(message: &[u8], most: usize) -> Result<Vec<u8>, Broken> {
    DEFLATE.with_borrow_mut(|deflate| deflate.decompressed(message, most))
}

impl Deflate {
    pub fn compressed(&mut self, message: &[u8], agreed: Agreed) -> Vec<u8> {
        let bits = agreed.bits.unwrap_or(BITS);
        let new = || Compress::new_with_window_bits(Compression::default(), false, bits);
        let compress = self.compress.entry(bits).or_insert_with(new);
        compress.reset();
        let mut out = Vec::with_capacity(message.len() / 2 + ROOM);
        loop {
            let (seen, before) = (compress.total_in() as usize, out.len());
            let status = compress.compress_vec(&message[seen..], &mut out, FlushCompress::Sync);
            status.expect("a state that was just reset, and any bytes");
            if out.len() < out.capacity() || (out.len() == before && seen == message.len()) {
                break;
            }
            out.reserve(message.len() - compress.total_in() as usize + ROOM);
        }
        out.truncate(out.len() - TAIL.len());
        out
    }

    /// At most `most` bytes.
    pub fn decompressed(&mut self, message: &[u8], most: usize) -> Result<Vec<u8>, Broken> {
        let decompress = self.decompress.get_or_insert_with(|| Decompress::new(false));
        decompress.reset(false);
        let mut out = Vec::new();
        for mut part in [message, &TAIL] {
            loop {
                if out.len() == out.capacity() {
                    out.reserve_exact((most + 1 - out.len()).min(out.len().max(ROOM))); // one more shows that it is too large
                }
                let (seen, before) = (decompress.total_in(), out.len());
                let status = decompress.decompress_vec(part, &mut out, FlushDecompress::Sync).map_err(|_| Broken::Nonsense)?;
                let used = (decompress.total_in() - seen) as usize;
                part = &part[used..];
                if out.len() > most {
                    return Err(Broken::TooLarge);
                }
                if status == Status::StreamEnd {
                    decompress.reset(false); // a last block that is followed by others (7.2.3.4)
                }
                if part.is_empty() && out.len() < out.capacity() {
                    break;
                }
                if used == 0 && out.len() == before && status != Status::StreamEnd {
                    return Err(Broken::Nonsense);
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_met_or_declined_as_a_whole() {
        let plain = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        let small = format!("{plain}; server_max_window_bits=10");
        let large = format!("{plain}; server_max_window_bits=15");
        let offers = [
            ("permessage-deflate", Some(plain)),
            ("Permessage-Deflate ; client_max_window_bits", Some(plain)),
            ("permessage-deflate; client_max_window_bits=8; server_no_context_takeover", Some(plain)),
            ("permessage-deflate; server_max_window_bits=10", Some(&small)),
            ("permessage-deflate; server_max_window_bits=15", Some(&large)), // who asks is to be answered
            ("permessage-deflate; server_max_window_bits = \"10\"", Some(&small)),
            ("permessage-deflate; server_max_window_bits=8, permessage-deflate", Some(plain)),
            ("x-webkit-deflate-frame, permessage-deflate; client_max_window_bits", Some(plain)),
            ("", None),
            ("permessage-bzip2", None),
            ("permessage-deflate; server_max_window_bits", None),
            ("permessage-deflate; server_max_window_bits=8", None), // zlib cannot
            ("permessage-deflate; server_max_window_bits=16", None),
            ("permessage-deflate; server_max_window_bits=09", None),
            ("permessage-deflate; client_max_window_bits=7", None),
            ("permessage-deflate; client_no_context_takeover=1", None),
            ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
            ("permessage-deflate; unheard_of", None),
            ("permessage-deflate;", None),
        ];
        for (offer, answer) in offers {
            assert_eq!(Agreed::on(offer).map(Agreed::answer).as_deref(), answer, "{offer}");
        }
    }

    /// RFC 7692, 7.2.3: one block, none that is compressed, a last one, two.
    #[test]
    fn the_examples_of_the_rfc_are_read() {
        let hellos: [&[u8]; 4] = [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ];
        let mut deflate = Deflate::default();
        for hello in hellos {
            assert_eq!(deflate.decompressed(hello, 5).as_deref(), Ok(&b"Hello"[..]), "{hello:x?}");
            assert_eq!(deflate.decompressed(hello, 4), Err(Broken::TooLarge), "{hello:x?}");
        }
    }

    #[test]
    fn what_is_made_smaller_is_made_the_same_again_whatever_it_is() {
        let mut deflate = Deflate::default();
        let mut state = 1u64;
        let mut noise = |bytes: usize| -> Vec<u8> {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            };
            (0..bytes).map(|_| next()).collect()
        };
        for bytes in [0, 1, 2, 100, 1_000, 4_095, 4_096, 4_097, 100_000] {
            for message in
                [noise(bytes), vec![b'x'; bytes], b"said again and again, ".iter().copied().cycle().take(bytes).collect()]
            {
                for bits in BITS_MIN..=BITS {
                    let small = deflate.compressed(&message, Agreed { bits: Some(bits) });
                    assert!(!small.is_empty(), "an empty message is one byte (7.2.3.6)");
                    assert_eq!(deflate.decompressed(&small, bytes).as_deref(), Ok(&message[..]), "{bytes} by {bits}");
                }
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_large_and_nonsense_is_no_message() {
        let mut deflate = Deflate::default();
        let bomb = deflate.compressed(&vec![0; 64 << 20], Agreed { bits: None });
        assert!(bomb.len() < 100_000);
        assert_eq!(deflate.decompressed(&bomb, 1 << 20), Err(Broken::TooLarge));
        for nonsense in [&[0xff][..], &[0x06, 0xff, 0xff], &[0xf2, 0x48, 0xff, 0xff, 0xff, 0x12, 0x34]] {
            assert_eq!(deflate.decompressed(nonsense, 1 << 20), Err(Broken::Nonsense), "{nonsense:x?}");
        }
        assert_eq!(
            deflate.decompressed(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 5).as_deref(),
            Ok(&b"Hello"[..]),
            "and goes on"
        );
    }
}
