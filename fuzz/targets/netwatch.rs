//! The example `netwatch`: whatever the kernel seems to say, what was cut off changes nothing that stands before it, and each thing is
//! said once when it comes, changes and goes.
#![no_main]

#[allow(dead_code)]
#[path = "../../examples/common/printable.rs"]
mod printable;
#[allow(dead_code)]
#[path = "../../examples/netwatch/route.rs"]
mod route;
#[path = "../../examples/netwatch/table.rs"]
mod table;

use libfuzzer_sys::fuzz_target;
use mainspring_fuzz::Tape;
use route::{Address, Link, Message, News, messages};
use std::collections::{BTreeMap, BTreeSet};
use table::Table;

fuzz_target!(|data: &[u8]| {
    let mut tape = Tape::new(data);
    let mut watch = Watch::default();
    if tape.once_in(2) {
        return watch.hears(tape.rest());
    }
    while !tape.is_over() {
        match tape.below(8) {
            0 => watch.begins(),
            1 => watch.completes(),
            _ => {
                let count = 1 + tape.below(3);
                let datagram: Vec<u8> = (0..count).flat_map(|_| message(&mut tape)).collect();
                watch.hears(&datagram);
            }
        }
    }
});

/// The table, and what it must know.
#[derive(Default)]
struct Watch {
    table: Table,
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<Address>,
    told_links: BTreeSet<u32>,
    told_addresses: BTreeSet<Address>,
}

impl Watch {
    fn begins(&mut self) {
        self.table.begin();
        self.told_links.clear();
        self.told_addresses.clear();
    }

    fn completes(&mut self) {
        let before = self.links.len() + self.addresses.len();
        self.links.retain(|index, _| self.told_links.contains(index));
        self.addresses.retain(|address| self.told_addresses.contains(address));
        let lines = self.table.complete();
        assert_eq!(lines.len(), before - self.links.len() - self.addresses.len());
        assert!(lines.iter().all(|line| line.starts_with("- ")));
    }

    fn hears(&mut self, datagram: &[u8]) {
        let all: Vec<Message> = messages(datagram).collect();
        assert!(all.len() <= datagram.len() / 16);
        let some: Vec<Message> = messages(&datagram[..datagram.len() / 2]).collect();
        assert!(all.starts_with(&some));
        for message in all {
            let is_news = self.is_news(&message.news);
            let said = self.table.hear(message.news);
            assert_eq!(said.is_some(), is_news);
            let Some(line) = said else { continue };
            assert!(line.starts_with(['=', '+', '~', '-']) && !line.contains(char::is_control), "{line:?}");
        }
    }

    fn is_news(&mut self, news: &News) -> bool {
        match news {
            News::Link(link) => {
                self.told_links.insert(link.index);
                self.links.insert(link.index, link.clone()).as_ref() != Some(link)
            }
            News::Address(address) => {
                self.told_addresses.insert(*address);
                self.addresses.insert(*address)
            }
            News::LinkGone(index) => self.links.remove(index).is_some(),
            News::AddressGone(address) => self.addresses.remove(address),
            News::Done | News::Refused(_) => false,
        }
    }
}

/// Much as the kernel writes one: few links and addresses, and now and then a length that lies.
fn message(tape: &mut Tape<'_>) -> Vec<u8> {
    let kind = [16u16, 17, 20, 21, 16, 20, 2, 3][tape.below(8)];
    let mut body = vec![[0u8, 2, 10, 7][tape.below(4)], tape.byte() % 3, 0, 0];
    body.extend((tape.below(4) as u32).to_ne_bytes());
    if kind < 20 {
        body.extend(u32::from(tape.byte()).to_ne_bytes());
        body.extend([0; 4]);
    }
    for _ in 0..tape.below(4) {
        attribute(tape, &mut body);
    }
    let len = if tape.once_in(16) { tape.number() as u32 } else { 16 + body.len() as u32 };
    let head = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0, 0], &[tape.byte(), 0, 0, 0], &[0; 4]].concat();
    [head, body].concat()
}

fn attribute(tape: &mut Tape<'_>, body: &mut Vec<u8>) {
    let kind = (tape.below(5) as u16) | if tape.once_in(8) { 0x8000 } else { 0 };
    let length = [4, 16, 1, 6, 0][tape.below(5)];
    let value = tape.bytes(length);
    let len = if tape.once_in(16) { tape.number() as u16 } else { 4 + value.len() as u16 };
    body.extend(len.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}
