//! Looking names up: what is known of a name, what a lookup of it brings, and how long that takes. There is no thread here:
//! the world gives the answer to one.

use super::{super::trace::Trace, EndId, HostId, LOOKING_UP, Network, chance::Chance};
use crate::names::{NameError, Question, Resolved};
use std::{io, net::IpAddr, time::Duration};

/// What is known of a name.
#[derive(Clone, Debug, Default)]
pub(super) struct Name {
    addresses: Vec<IpAddr>,
    fate: Option<NameFate>,
}

/// What happens when a name is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFate {
    /// There is no such name.
    NotFound,
    /// The resolver has no answer for now.
    TryAgain,
    /// The resolver cannot answer.
    Failed,
    /// The answer is right, and takes this long. A thread is busy with it meanwhile.
    Slow(Duration),
    /// No answer ever comes; a thread waits for it for ever.
    Silent,
}

impl Network {
    pub(crate) fn set_name(&mut self, host: &str, addresses: Vec<IpAddr>) {
        self.names.entry(canonical(host)).or_default().addresses = addresses;
    }

    pub(crate) fn set_name_fate(&mut self, host: &str, fate: Option<NameFate>) {
        self.names.entry(canonical(host)).or_default().fate = fate;
    }

    /// What the next lookup of a host brings, and how long it takes.
    pub(crate) fn look_up(&mut self, host: HostId, question: &Question) -> (io::Result<Resolved>, Duration) {
        self.machines[host].lookups += 1;
        let id = LOOKING_UP | (host as EndId) << 32 | EndId::from(self.machines[host].lookups);
        let takes = self.delay(id).saturating_add(self.weather.latency);
        let (found, fate) = self.find(question);
        let asked = found.as_ref().map_or_else(ToString::to_string, |found| format!("{found:?}"));
        self.note(host, format_args!("looks up {question:?}: {asked}"));
        let failures = self.weather.lookups;
        if self.strikes(id, Chance::Lookup, failures).is_some() {
            let line = format!("{} {} Lookup of {question:?}", Trace::stamp(self.now), self.machines[host].name);
            self.struck.push(((id, Chance::Lookup, 0), line));
            return (Err(NameError::TryAgain.error("the simulated resolver has no answer for now")), takes);
        }
        match fate {
            Some(NameFate::Slow(slow)) => (found, slow),
            Some(NameFate::Silent) => (found, Duration::MAX),
            _ => (found, takes),
        }
    }

    fn find(&self, question: &Question) -> (io::Result<Resolved>, Option<NameFate>) {
        match question {
            Question::Addresses(host) => {
                let name = self.names.get(&canonical(host));
                let found = match name.and_then(|name| name.fate) {
                    Some(NameFate::TryAgain) => Err(NameError::TryAgain.error(format!("`{host}`: no answer for now"))),
                    Some(NameFate::Failed) => Err(NameError::Failed.error(format!("`{host}`: the resolver cannot answer"))),
                    None | Some(NameFate::Slow(_) | NameFate::Silent) if name.is_some_and(|name| !name.addresses.is_empty()) => {
                        let addresses = name.map_or(&[][..], |name| &name.addresses);
                        Ok(Resolved::Addresses(addresses.iter().map(|&ip| (ip, 0).into()).collect()))
                    }
                    _ => Err(NameError::NotFound.error(format!("`{host}`: there is no such name"))),
                };
                (found, name.and_then(|name| name.fate))
            }
            #[cfg(feature = "names")]
            Question::Name(ip) => {
                let name = self.names.iter().find(|(_, name)| name.addresses.contains(ip));
                let found = name.map(|(host, _)| Resolved::Name(host.clone()));
                (found.ok_or_else(|| NameError::NotFound.error(format!("`{ip}`: it has no name"))), None)
            }
        }
    }
}

/// Names are equal in any case, and with the root's dot (RFC 1034, 3.1).
fn canonical(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}
