//! Tells when this machine's addresses or routes change, by the kernel's own events (rtnetlink(7)).

use std::io::{self, ErrorKind};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType};
use tokio::net::UdpSocket;

/// Links, and addresses and routes of both families: `RTMGRP_…` of linux/rtnetlink.h.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// Protocol 0 of netlink, which is what none named stands for.
const NETLINK_ROUTE: Option<Protocol> = None;
/// Bytes of a message that are read; what is cut off says nothing that is looked at.
const MESSAGE_LEN: usize = 4 * 1024;

/// The kernel's events.
#[derive(Debug)]
pub(super) struct Changes {
    /// A netlink socket, waited for and read as the datagram socket that it is.
    socket: UdpSocket,
}

impl Changes {
    /// Listens from now on. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Where the system does not let us.
    pub(super) fn listen() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, NETLINK_ROUTE)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())? })
    }

    /// Waits until something has changed.
    ///
    /// # Errors
    /// What the system says; nothing more will be told then.
    pub(super) async fn next(&self) -> io::Result<()> {
        let mut has_changed = false;
        let mut message = [0; MESSAGE_LEN];
        while !has_changed {
            self.socket.readable().await?;
            loop {
                match self.socket.try_recv(&mut message) {
                    Ok(_) => has_changed = true,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // More than the socket holds: something did.
                    Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                        has_changed = true;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
