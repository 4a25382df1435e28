//! Messages of netlink(7) about links and addresses (rtnetlink(7)), as the kernel writes them. Pure: no socket. Whatever the
//! bytes are, what cannot be read is left out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

// ------------------------------------------------------------------------------------------------- what is there

/// The content of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Link(Link),
    LinkGone(u32),
    Address(Address),
    AddressGone(Address),
    /// The end of the list.
    Done,
    /// The number of an error, errno(3).
    Refused(i32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    /// As it is; it may contain almost any byte.
    pub(crate) name: String,
    pub(crate) is_up: bool,
    /// Whether it is up, and the other end of the cable is too.
    pub(crate) is_running: bool,
    pub(crate) mtu: Option<u32>,
    /// The address of the hardware; empty if it has none.
    pub(crate) hardware: Vec<u8>,
}

/// An address of ours, on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) link: u32,
    pub(crate) ip: IpAddr,
    pub(crate) prefix: u8,
}

// ------------------------------------------------------------------------------------------------------ messages

/// `struct nlmsghdr`: length, kind, flags, sequence, sender.
const HEAD: usize = 16;
/// `struct rtattr`: length, kind.
const ATTRIBUTE_HEAD: usize = 4;
/// `struct ifinfomsg`: family, padding, type, index, flags, what has changed.
const LINK: usize = 16;
/// `struct ifaddrmsg`: family, length of the prefix, flags, scope, index.
const ADDRESS: usize = 8;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;

const NLM_F_DUMP_INTR: u16 = 0x10;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const IFF_UP: u32 = 1;
const IFF_RUNNING: u32 = 0x40;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// The bits of an attribute's kind; the two bits above say something about its content.
const KIND_MASK: u16 = 0x3fff;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The number of the question; 0 if nobody asked.
    pub(crate) sequence: u32,
    /// Something changed while the kernel made the list, so it may not be consistent.
    pub(crate) is_interrupted: bool,
    pub(crate) news: News,
}

/// The messages of a datagram that are about links, addresses, or a question.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message> {
    std::iter::from_fn(move || {
        loop {
            let (message, rest) = next_message(datagram)?;
            datagram = rest;
            if message.is_some() {
                return message;
            }
        }
    })
}

/// The first message, and the rest after it. `None` if it is not complete.
fn next_message(datagram: &[u8]) -> Option<(Option<Message>, &[u8])> {
    let head = datagram.get(..HEAD)?;
    let len = usize::try_from(u32_at(head, 0)?).ok().filter(|len| *len >= HEAD)?;
    let body = datagram.get(HEAD..len)?;
    let flags = u16_at(head, 6)?;
    let news = news(u16_at(head, 4)?, body);
    let sequence = u32_at(head, 8)?;
    let message = news.map(|news| Message { sequence, is_interrupted: flags & NLM_F_DUMP_INTR != 0, news });
    Some((message, after(datagram, len)))
}

fn news(kind: u16, body: &[u8]) -> Option<News> {
    match kind {
        RTM_NEWLINK => link(body).map(News::Link),
        RTM_DELLINK => link(body).map(|link| News::LinkGone(link.index)),
        RTM_NEWADDR => address(body).map(News::Address),
        RTM_DELADDR => address(body).map(News::AddressGone),
        NLMSG_DONE => Some(News::Done),
        NLMSG_ERROR => u32_at(body, 0).map(|error| News::Refused((error as i32).wrapping_neg())),
        _ => None,
    }
}

/// Messages of a bridge or of IPv6 about a link have another family, and are not about the link itself: a port that leaves
/// its bridge is an `RTM_DELLINK` too.
fn link(body: &[u8]) -> Option<Link> {
    let (head, rest) = body.split_at_checked(LINK)?;
    if head[0] != AF_UNSPEC {
        return None;
    }
    let flags = u32_at(head, 8)?;
    let (is_up, is_running) = (flags & IFF_UP != 0, flags & IFF_RUNNING != 0);
    let mut link = Link { index: u32_at(head, 4)?, name: String::new(), is_up, is_running, mtu: None, hardware: Vec::new() };
    for (kind, value) in attributes(rest) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = u32_at(value, 0),
            IFLA_ADDRESS => link.hardware = value.to_vec(),
            _ => {}
        }
    }
    Some(link)
}

/// If a link has two ends, `IFA_ADDRESS` is the other one, and `IFA_LOCAL` is ours.
fn address(body: &[u8]) -> Option<Address> {
    let (head, rest) = body.split_at_checked(ADDRESS)?;
    let of = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| ip(head[0], value));
    let ip = of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS))?;
    Some(Address { link: u32_at(head, 4)?, ip, prefix: head[1] })
}

fn ip(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => <[u8; 4]>::try_from(bytes).ok().map(|bytes| Ipv4Addr::from(bytes).into()),
        AF_INET6 => <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

/// Kinds and values, up to the first that is not complete.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & KIND_MASK;
        let value = bytes.get(ATTRIBUTE_HEAD..len)?;
        bytes = after(bytes, len);
        Some((kind, value))
    })
}

/// Everything begins at a multiple of 4; at the end the padding may be missing.
fn after(bytes: &[u8], len: usize) -> &[u8] {
    bytes.get(len.next_multiple_of(4)..).unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

// ----------------------------------------------------------------------------------------------------- questions

/// What we can ask for; the kernel answers with a complete list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    Links,
    Addresses,
}

const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;

impl Question {
    /// For any family: all zeros after the head.
    pub(crate) fn bytes(self, sequence: u32) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Links => (RTM_GETLINK, LINK),
            Self::Addresses => (RTM_GETADDR, ADDRESS),
        };
        let len = (HEAD + body) as u32;
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut bytes = Vec::new();
        bytes.extend(len.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.resize(HEAD + body, 0); // no sender: the kernel knows who we are
        bytes
    }
}

const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// The groups that report changes, as bits; the first group has the first bit.
pub(crate) const GROUPS: u32 = (1 << RTNLGRP_LINK | 1 << RTNLGRP_IPV4_IFADDR | 1 << RTNLGRP_IPV6_IFADDR) >> 1;

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    /// What Linux 6 told of its loopback on a machine of little-endian numbers; of the link's 38 attributes the first few,
    /// and one that is nested (and its length to match).
    const LO: &str = concat!(
        "640000001000020001000000a21e0000",
        "00000403010000004900010000000000",
        "070003006c6f0000",
        "08000d00e8030000",
        "0500100000000000",
        "0800040000000100",
        "0a0001000000000000000000",
        "0a0002000000000000000000",
        "0c002b000500020000000000",
    );
    const LO_ADDRESSES: &str = concat!(
        "4c0000001400020002000000a21e0000020880fe01000000080001007f000001080002007f000001070003006c6f000008000800",
        "8000000014000600ffffffffffffffff9517030095170300",
        "500000001400020002000000a21e00000a8080fe0100000014000100000000000000000000000000000000011400",
        "0600ffffffffffffffff9517030095170300080008008000000005000b0001000000",
    );
    const DONE: &str = "140000000300020001000000a21e000000000000";

    fn bytes(hex: &str) -> Vec<u8> {
        let hex = hex.replace(' ', "");
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
    }

    fn told(datagram: &[u8]) -> Vec<News> {
        messages(datagram).map(|message| message.news).collect()
    }

    fn lo() -> Link {
        Link { index: 1, name: "lo".into(), is_up: true, is_running: true, mtu: Some(65_536), hardware: vec![0; 6] }
    }

    fn lo_addresses() -> [Address; 2] {
        let v4 = Address { link: 1, ip: Ipv4Addr::LOCALHOST.into(), prefix: 8 };
        [v4, Address { link: 1, ip: Ipv6Addr::LOCALHOST.into(), prefix: 128 }]
    }

    #[test]
    fn what_the_kernel_says_of_its_loopback_is_understood() {
        assert_eq!(told(&bytes(LO)), [News::Link(lo())]);
        assert_eq!(told(&bytes(LO_ADDRESSES)), lo_addresses().map(News::Address));
        let done = messages(&bytes(DONE)).next().expect("a message");
        assert_eq!(done, Message { sequence: 1, is_interrupted: false, news: News::Done });
    }

    #[test]
    fn what_goes_is_told_as_what_comes() {
        let (mut link, mut addresses) = (bytes(LO), bytes(LO_ADDRESSES));
        link[4] = 17;
        addresses[4] = 21;
        assert_eq!(told(&link), [News::LinkGone(1)]);
        let [v4, v6] = lo_addresses();
        assert_eq!(told(&addresses), [News::AddressGone(v4), News::Address(v6)]);
    }

    #[test]
    fn of_a_link_with_two_ends_ours_is_the_address() {
        let mut addresses = bytes(LO_ADDRESSES);
        addresses[28..32].copy_from_slice(&[10, 0, 0, 2]); // IFA_ADDRESS
        assert_eq!(told(&addresses)[0], News::Address(lo_addresses()[0]));
        addresses[34] = 99; // there is no IFA_LOCAL
        let other = Address { ip: Ipv4Addr::new(10, 0, 0, 2).into(), ..lo_addresses()[0] };
        assert_eq!(told(&addresses)[0], News::Address(other));
    }

    #[test]
    fn a_port_that_leaves_its_bridge_is_no_link_that_goes() {
        let mut link = bytes(LO);
        (link[4], link[HEAD]) = (17, 7); // AF_BRIDGE
        assert_eq!(told(&link), []);
    }

    #[test]
    fn a_refusal_has_its_errno_and_a_dump_that_was_interrupted_says_so() {
        let refused = [&bytes("24000000 0200 0000 07000000 a21e0000"), &(-16i32).to_ne_bytes()[..], &[0; 16]].concat();
        let message = messages(&refused).next().expect("a message");
        assert_eq!(message, Message { sequence: 7, is_interrupted: false, news: News::Refused(16) });
        let mut done = bytes(DONE);
        done[6] |= 0x10;
        assert!(messages(&done).all(|message| message.is_interrupted));
        let worst = [&refused[..HEAD], &i32::MIN.to_ne_bytes(), &[0; 16]].concat();
        assert_eq!(told(&worst), [News::Refused(i32::MIN)]);
    }

    #[test]
    fn what_was_cut_is_left_out_and_nothing_else() {
        let all = [bytes(LO), bytes(LO_ADDRESSES), bytes(DONE)].concat();
        assert_eq!(told(&all).len(), 4);
        for len in 0..all.len() {
            let told_of_some = told(&all[..len]);
            assert_eq!(told_of_some, told(&all)[..told_of_some.len()], "the first {len} bytes");
        }
    }

    #[test]
    fn lengths_that_lie_end_it() {
        for len in [0, 1, 15, 101, u32::MAX] {
            let mut link = bytes(LO);
            link[..4].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(told(&link), [], "a message of {len} bytes");
        }
        for len in [0, 1, 3, 200, u16::MAX] {
            let mut link = bytes(LO);
            link[32..34].copy_from_slice(&len.to_ne_bytes());
            let nameless = Link { name: String::new(), mtu: None, hardware: vec![], ..lo() };
            assert_eq!(told(&link), [News::Link(nameless)], "an attribute of {len} bytes");
        }
    }

    #[test]
    fn an_address_of_a_wrong_length_is_none() {
        let (family, lengths) = ([(HEAD, 10)], [(24, 7), (32, 7)]); // of IFA_ADDRESS and IFA_LOCAL
        for changes in [&family[..], &[(HEAD, 130)], &lengths] {
            let mut addresses = bytes(LO_ADDRESSES);
            changes.iter().for_each(|(at, wrong)| addresses[*at] = *wrong);
            assert_eq!(told(&addresses), [News::Address(lo_addresses()[1])], "{changes:?}");
        }
    }

    /// What iproute2 and our own captures sent.
    #[test]
    fn questions_are_asked_as_the_kernel_wants_them() {
        assert_eq!(Question::Links.bytes(1), bytes("2000000012000103010000000000000000000000000000000000000000000000"));
        assert_eq!(Question::Addresses.bytes(2), bytes("180000001600010302000000000000000000000000000000"));
        assert_eq!(GROUPS, 0x111);
    }
}
