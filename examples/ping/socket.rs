//! A socket that speaks ICMP with one host: an unprivileged one if the system has that, or else a raw one.

use crate::common::{Failure, unable};
use socket2::{Domain, Protocol, Socket, Type};
use std::{fs, io, net::SocketAddr};

/// The kind of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The kernel puts an identifier of its own into each question, and delivers the answers to that one alone (icmp(7)).
    Unprivileged,
    /// We must do everything, and the header of IPv4 is delivered too (raw(7)).
    Raw,
}

/// It is connected, so that it hears nobody else, and that an unreachable host is reported at once.
pub(crate) fn open(host: SocketAddr) -> Result<(Socket, Kind), Failure> {
    let (domain, protocol) = match host {
        SocketAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        SocketAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let (socket, kind) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => (socket, Kind::Unprivileged),
        Err(_) => (Socket::new(domain, Type::RAW, Some(protocol)).map_err(refused)?, Kind::Raw),
    };
    socket.connect(&host.into()).map_err(|error| format!("cannot reach {}: {error}", host.ip()))?;
    Ok((socket, kind))
}

fn refused(error: io::Error) -> Failure {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return format!("cannot open a socket for ICMP: {error}").into();
    }
    if !cfg!(target_os = "linux") {
        return unable("only root may use ICMP here");
    }
    let groups = fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").unwrap_or_else(|_| "unknown".into());
    let groups = groups.split_whitespace().collect::<Vec<_>>().join(" ");
    unable(format!(
        "not allowed to ask by ICMP: either the sysctl net.ipv4.ping_group_range (now: {groups}) has to have your group in it, \
         or the program needs the capability CAP_NET_RAW (setcap cap_net_raw+ep FILE)"
    ))
}
