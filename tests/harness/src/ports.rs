//! Ports for servers that are started again on the same one, and for programs that cannot take one from the kernel
//! themselves.
//!
//! What the kernel gives for port 0 it gives to the next one as soon as it is let go: to another listener, or to a connection
//! that somebody opens, which holds its port for a minute after its end (TIME_WAIT, RFC 9293 §3.6.1). A server that
//! comes back there does not start then; and who asks again and again whether it listens already may reach themselves (a
//! connection from that very port to that very port, §3.5). So these ports are below those that the kernel gives
//! (`ip_local_port_range`, from 32,768 on), and each belongs to this program until it ends: to a socket of its own with
//! an abstract name (unix(7)), which no two programs can have and which goes with the program, however that ends.

use std::net::{IpAddr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketType, sockopt};

/// The first of them …
const FIRST: u16 = 20_000;
/// … and how many.
const COUNT: u16 = 12_000;

/// What holds this program's ports, the last one last.
static HELD: Mutex<Vec<(u16, UnixDatagram)>> = Mutex::new(Vec::new());

/// A port, for TCP and UDP, that nobody else is given while this program runs.
///
/// # Errors
/// Where all are taken, or the kernel makes no sockets.
pub fn reserve(ip: IpAddr) -> Result<SocketAddr> {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    // Programs begin at different ports, and go on from there.
    let begin = || FIRST + u16::try_from(std::process::id() * 37 % u32::from(COUNT)).unwrap_or(0);
    let mut port = held.last().map_or_else(begin, |(last, _)| *last);
    for _ in 0..COUNT {
        port = FIRST + (port + 1 - FIRST) % COUNT;
        let name = UnixAddress::from_abstract_name(format!("lighter-test-port-{port}"))?;
        let Ok(holder) = UnixDatagram::bind_addr(&name) else { continue };
        let address = SocketAddr::new(ip, port);
        match is_free(address) {
            // An address of another host's is none of ours to look at.
            Ok(()) | Err(rustix::io::Errno::ADDRNOTAVAIL) => {
                held.push((port, holder));
                return Ok(address);
            }
            Err(rustix::io::Errno::ADDRINUSE) => {} // by something that is no test
            Err(error) => return Err(error).with_context(|| format!("a port of {ip}")),
        }
    }
    anyhow::bail!("the ports from {FIRST} on are all taken")
}

/// Whether nobody listens there. What asks never listens itself: a program that is being started at this moment has a
/// copy of each socket for a while.
fn is_free(address: SocketAddr) -> rustix::io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn each_port_is_given_once_and_none_that_somebody_listens_on() {
        let localhost = Ipv4Addr::LOCALHOST.into();
        let first = reserve(localhost).unwrap();
        let taken = TcpListener::bind((localhost, FIRST + (first.port() + 1 - FIRST) % COUNT));
        let mut given: Vec<_> = (0..200).map(|_| reserve(localhost).unwrap()).collect();
        given.push(first);
        let count = given.len();
        given.sort();
        given.dedup();
        assert_eq!(given.len(), count, "given twice");
        if let Ok(taken) = taken {
            assert!(!given.contains(&taken.local_addr().unwrap()), "somebody listens there");
        }
        assert!(given.iter().all(|address| (FIRST..FIRST + COUNT).contains(&address.port())));
        // A server can listen there, end, and listen again.
        for _ in 0..2 {
            TcpListener::bind(first).unwrap();
        }
    }
}
