//! ICMP echoes: RFC 792 for IPv4, RFC 4443 for IPv6. Pure: no socket, no clock. Any bytes are either an answer or ignored.

use std::net::IpAddr;

/// Type, code, checksum, identifier, sequence number.
const HEAD: usize = 8;

/// The version of IP: ICMP is the same for both, except for the types, and who computes the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

impl Version {
    pub(crate) fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn request(self) -> u8 {
        match self {
            Self::V4 => 8,
            Self::V6 => 128,
        }
    }

    fn reply(self) -> u8 {
        match self {
            Self::V4 => 0,
            Self::V6 => 129,
        }
    }
}

/// A question, which comes back unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Echo<'a> {
    /// Tells whose question it is. On an unprivileged socket the kernel sets it.
    pub(crate) id: u16,
    pub(crate) sequence: u16,
    pub(crate) data: &'a [u8],
}

impl<'a> Echo<'a> {
    /// The question as it is sent. The checksum of IPv6 includes addresses, so the kernel computes it.
    pub(crate) fn request(&self, version: Version) -> Vec<u8> {
        let mut bytes = vec![version.request(), 0, 0, 0];
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.data);
        if version == Version::V4 {
            let sum = checksum(&bytes);
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// Reads an answer. `None` if it is something else, which a raw socket gets too, even our own questions to ourselves.
    pub(crate) fn of_reply(version: Version, bytes: &'a [u8]) -> Option<Self> {
        let bytes = match version {
            Version::V4 => without_ip(bytes)?,
            Version::V6 => bytes,
        };
        let (&[kind, code, _, _, id0, id1, sequence0, sequence1], data) = bytes.split_first_chunk::<HEAD>()?;
        if (kind, code) != (version.reply(), 0) || (version == Version::V4 && checksum(bytes) != 0) {
            return None;
        }
        let (id, sequence) = (u16::from_be_bytes([id0, id1]), u16::from_be_bytes([sequence0, sequence1]));
        Some(Self { id, sequence, data })
    }
}

/// Raw sockets, and on some systems the others too, deliver the header of IP as well (RFC 791: version 4, and the length in
/// words). An answer cannot begin like that: its first byte is 0.
fn without_ip(bytes: &[u8]) -> Option<&[u8]> {
    match *bytes.first()? {
        first if first >> 4 == 4 => bytes.get(usize::from(first & 15).max(5) * 4..),
        _ => Some(bytes),
    }
}

/// The checksum of RFC 1071. For bytes that include their own, it is 0.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let (pairs, odd) = bytes.split_at(bytes.len() & !1);
    let mut sum: u64 = pairs.chunks_exact(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    sum += odd.first().map_or(0, |&last| u64::from(last) << 8);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECHO: Echo<'_> = Echo { id: 0x1234, sequence: 1, data: b"abcdefgh" };

    /// What raw sockets of Linux 6 got over the loopback: the question, and the answer of the kernel.
    const QUESTION_V4: &str = "4500002421d7400040011b007f0000017f00000108005435123400016162636465666768";
    const ANSWER_V4: &str = "450000246b700000400111677f0000017f00000100005c35123400016162636465666768";
    const QUESTION_V6: &str = "8000dbe8123400016162636465666768";
    const ANSWER_V6: &str = "8100dae8123400016162636465666768";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
    }

    #[test]
    fn a_question_is_what_the_kernel_took_for_one() {
        assert_eq!(ECHO.request(Version::V4), bytes(QUESTION_V4)[20..]);
        let mut v6 = bytes(QUESTION_V6);
        v6[2..4].fill(0); // which the kernel fills in
        assert_eq!(ECHO.request(Version::V6), v6);
    }

    #[test]
    fn an_answer_is_read_with_the_header_of_ip_and_without() {
        let v4 = bytes(ANSWER_V4);
        assert_eq!(Echo::of_reply(Version::V4, &v4), Some(ECHO));
        assert_eq!(Echo::of_reply(Version::V4, &v4[20..]), Some(ECHO));
        let with_options = [&[0x46], &v4[1..20], &[1, 1, 1, 0], &v4[20..]].concat();
        assert_eq!(Echo::of_reply(Version::V4, &with_options), Some(ECHO));
        assert_eq!(Echo::of_reply(Version::V6, &bytes(ANSWER_V6)), Some(ECHO));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        for (version, hex) in
            [(Version::V4, QUESTION_V4), (Version::V6, QUESTION_V6), (Version::V6, ANSWER_V4), (Version::V4, ANSWER_V6)]
        {
            assert_eq!(Echo::of_reply(version, &bytes(hex)), None, "{hex}");
        }
        let unreachable = [&[3, 1, 0xfc, 0xfe, 0, 0, 0, 0][..], &bytes(QUESTION_V4)].concat();
        assert_eq!(Echo::of_reply(Version::V4, &unreachable), None);
    }

    #[test]
    fn what_was_cut_or_changed_on_its_way_is_no_answer() {
        let v4 = bytes(ANSWER_V4);
        for len in 0..v4.len() {
            assert_eq!(Echo::of_reply(Version::V4, &v4[..len]), None, "the first {len} bytes");
        }
        for at in 20..v4.len() {
            let mut changed = v4.clone();
            changed[at] ^= 0x40;
            assert_eq!(Echo::of_reply(Version::V4, &changed), None, "byte {at}");
        }
        for len in 0..HEAD {
            assert_eq!(Echo::of_reply(Version::V6, &bytes(ANSWER_V6)[..len]), None, "the first {len} bytes");
        }
    }

    #[test]
    fn a_header_that_is_longer_than_all_there_is_is_no_answer() {
        for first in 0x40..=0x4f {
            for len in 1..80 {
                let bytes = [&[first], &vec![0; len - 1][..]].concat();
                let is_whole = len >= usize::from(first & 15).max(5) * 4 + HEAD;
                assert!(Echo::of_reply(Version::V4, &bytes).is_none() || is_whole, "{first:x} {len}");
            }
        }
    }

    /// The example of RFC 1071, 3, and an odd byte.
    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xf2]), !0xf200);
        assert_eq!(checksum(&[]), 0xffff);
        assert_eq!(checksum(&vec![0xff; 65_536]), 0);
    }
}
