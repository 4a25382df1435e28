//! Signals: who waits for one on a host, and what has come.

use super::{HostId, Network, merge};
use crate::flags::*;
use std::collections::BTreeSet;

/// Somebody who waits for signals.
pub(super) struct Hook {
    token: usize,
    signals: Vec<i32>,
    /// What has come, and was not asked for yet: each once, as in a real system.
    pending: BTreeSet<i32>,
}

impl Network {
    pub(crate) fn hook_signals(&mut self, host: HostId, signals: &[i32], token: usize) {
        self.machines[host].hooks.push(Hook { token, signals: signals.to_vec(), pending: BTreeSet::new() });
    }

    pub(crate) fn unhook_signals(&mut self, host: HostId, token: usize) {
        self.machines[host].hooks.retain(|hook| hook.token != token);
        self.machines[host].ready.remove(&token);
    }

    pub(crate) fn take_signals(&mut self, host: HostId, token: usize) -> Vec<i32> {
        let hook = self.machines[host].hooks.iter_mut().find(|hook| hook.token == token);
        hook.map_or_else(Vec::new, |hook| std::mem::take(&mut hook.pending).into_iter().collect())
    }

    /// Whether anybody waits for it.
    pub(crate) fn raise(&mut self, host: HostId, signal: i32) -> bool {
        self.note(host, format_args!("gets signal {signal}"));
        let machine = &mut self.machines[host];
        let mut is_awaited = false;
        for hook in machine.hooks.iter_mut().filter(|hook| hook.signals.contains(&signal)) {
            hook.pending.insert(signal);
            merge(&mut machine.ready, hook.token, READABLE);
            is_awaited = true;
        }
        is_awaited
    }
}
