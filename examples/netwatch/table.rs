//! Knows the links and addresses, and finds what is new: a line for each thing that has come, changed or gone. Pure: no socket.

use crate::{
    printable::printable,
    route::{Address, Link, News},
};
use std::collections::BTreeMap;

/// After lost news we get the whole list again, so each thing has a mark: whether it was in the new list.
#[derive(Debug, Default)]
pub(crate) struct Table {
    links: BTreeMap<u32, (Link, Mark)>,
    addresses: BTreeMap<Address, Mark>,
    /// The first list is complete: what comes from now on is new.
    is_complete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Told,
    Untold,
}

impl Table {
    /// Takes a message; returns a line if it says something new.
    pub(crate) fn hear(&mut self, news: News) -> Option<String> {
        match news {
            News::Link(link) => self.link(link),
            News::Address(address) => {
                let is_known = self.addresses.insert(address, Mark::Told).is_some();
                (!is_known).then(|| self.say_address(self.sign(), &address))
            }
            News::AddressGone(address) => {
                self.addresses.remove(&address)?;
                Some(self.say_address('-', &address))
            }
            News::LinkGone(index) => self.links.remove(&index).map(|(link, _)| say_link('-', &link)),
            News::Done | News::Refused(_) => None,
        }
    }

    fn link(&mut self, link: Link) -> Option<String> {
        let sign = match self.links.get(&link.index) {
            None => self.sign(),
            Some((known, _)) if *known == link => ' ',
            Some(_) => '~',
        };
        let said = (sign != ' ').then(|| say_link(sign, &link));
        self.links.insert(link.index, (link, Mark::Told));
        said
    }

    fn sign(&self) -> char {
        if self.is_complete { '+' } else { '=' }
    }

    /// From here on a new list comes.
    pub(crate) fn begin(&mut self) {
        self.links.values_mut().for_each(|(_, mark)| *mark = Mark::Untold);
        self.addresses.values_mut().for_each(|mark| *mark = Mark::Untold);
    }

    /// The new list is complete: returns what is not in it. Addresses go before their links.
    pub(crate) fn complete(&mut self) -> Vec<String> {
        self.is_complete = true;
        let gone = |mark: &Mark| *mark == Mark::Untold;
        let addresses: Vec<News> =
            self.addresses.iter().filter(|(_, mark)| gone(mark)).map(|(address, _)| News::AddressGone(*address)).collect();
        let links = self.links.iter().filter(|(_, (_, mark))| gone(mark)).map(|(index, _)| News::LinkGone(*index));
        let all: Vec<News> = addresses.into_iter().chain(links).collect();
        all.into_iter().filter_map(|news| self.hear(news)).collect()
    }

    fn say_address(&self, sign: char, address: &Address) -> String {
        let Address { link, ip, prefix } = address;
        let name = self.links.get(link).map_or("?", |(link, _)| &link.name);
        format!("{sign} {link} {} {ip}/{prefix}", printable(name))
    }
}

fn say_link(sign: char, link: &Link) -> String {
    let Link { index, name, is_up, is_running, mtu, hardware } = link;
    let state = match (is_up, is_running) {
        (true, true) => "up",
        (true, false) => "up, without a carrier",
        (false, _) => "down",
    };
    let mtu = mtu.map_or(String::new(), |mtu| format!(", mtu {mtu}"));
    let digits: Vec<String> = hardware.iter().map(|byte| format!("{byte:02x}")).collect();
    let hardware = if hardware.iter().all(|byte| *byte == 0) { String::new() } else { format!(", {}", digits.join(":")) };
    format!("{sign} {index} {}: {state}{mtu}{hardware}", printable(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn link(index: u32, name: &str) -> Link {
        Link { index, name: name.into(), is_up: true, is_running: true, mtu: Some(1500), hardware: vec![2, 0, 0, 0, 0, 0xab] }
    }

    fn address(link: u32) -> Address {
        Address { link, ip: Ipv4Addr::new(10, 0, 0, 1).into(), prefix: 24 }
    }

    fn heard(table: &mut Table, news: News) -> String {
        table.hear(news).unwrap_or_default()
    }

    /// With `eth0` and its address.
    fn complete() -> Table {
        let mut table = Table::default();
        table.begin();
        assert_eq!(heard(&mut table, News::Link(link(2, "eth0"))), "= 2 eth0: up, mtu 1500, 02:00:00:00:00:ab");
        assert_eq!(heard(&mut table, News::Address(address(2))), "= 2 eth0 10.0.0.1/24");
        assert_eq!(table.complete(), [""; 0]);
        table
    }

    #[test]
    fn what_comes_changes_and_goes_is_said_once() {
        let mut table = complete();
        assert_eq!(heard(&mut table, News::Link(link(2, "eth0"))), "");
        assert_eq!(heard(&mut table, News::Address(address(2))), "");
        let down = Link { is_up: false, is_running: false, mtu: None, hardware: vec![], ..link(2, "eth0") };
        assert_eq!(heard(&mut table, News::Link(down.clone())), "~ 2 eth0: down");
        assert_eq!(heard(&mut table, News::Link(Link { is_up: true, ..down })), "~ 2 eth0: up, without a carrier");
        assert_eq!(heard(&mut table, News::Link(link(3, "red"))), "+ 3 red: up, mtu 1500, 02:00:00:00:00:ab");
        assert_eq!(heard(&mut table, News::Address(address(3))), "+ 3 red 10.0.0.1/24");
        assert_eq!(heard(&mut table, News::AddressGone(address(3))), "- 3 red 10.0.0.1/24");
        assert_eq!(heard(&mut table, News::AddressGone(address(3))), "");
        assert_eq!(heard(&mut table, News::LinkGone(3)), "- 3 red: up, mtu 1500, 02:00:00:00:00:ab");
        assert_eq!(heard(&mut table, News::LinkGone(3)), "");
    }

    #[test]
    fn what_has_gone_while_news_were_lost_is_said_when_all_is_told_anew() {
        let mut table = complete();
        table.begin();
        assert_eq!(heard(&mut table, News::Link(link(1, "lo"))), "+ 1 lo: up, mtu 1500, 02:00:00:00:00:ab");
        assert_eq!(table.complete(), ["- 2 eth0 10.0.0.1/24", "- 2 eth0: up, mtu 1500, 02:00:00:00:00:ab"]);
        table.begin();
        assert_eq!(heard(&mut table, News::Link(link(1, "lo"))), "");
        assert_eq!(table.complete(), [""; 0]);
    }

    #[test]
    fn a_name_does_nothing_to_a_terminal_and_an_address_need_not_have_a_link() {
        let mut table = complete();
        assert_eq!(heard(&mut table, News::Address(address(7))), "+ 7 ? 10.0.0.1/24");
        assert!(heard(&mut table, News::Link(link(7, "a\u{1b}[2J"))).starts_with("+ 7 a [2J: up"));
    }
}
