//! How many connections each address has, for a listener that limits that. Behind a table of functions, which the option
//! names, so that a program that limits nothing links no map.

use std::{collections::HashMap, net::IpAddr};

pub(crate) trait Peers {
    fn has(&self, ip: IpAddr) -> usize;
    fn add(&mut self, ip: IpAddr);
    fn remove(&mut self, ip: IpAddr);
    /// How many addresses there are.
    #[cfg(test)]
    fn len(&self) -> usize;
}

pub(crate) fn new() -> Box<dyn Peers> {
    Box::new(Counted::default())
}

/// Never 0.
#[derive(Default)]
struct Counted(HashMap<IpAddr, usize>);

impl Peers for Counted {
    fn has(&self, ip: IpAddr) -> usize {
        self.0.get(&ip).copied().unwrap_or_default()
    }

    fn add(&mut self, ip: IpAddr) {
        *self.0.entry(ip).or_default() += 1;
    }

    fn remove(&mut self, ip: IpAddr) {
        if let Some(has) = self.0.get_mut(&ip) {
            *has -= 1;
            if *has == 0 {
                self.0.remove(&ip);
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.len()
    }
}
