//! Holds the ports of the host that containers publish.
//!
//! A reserved port is a bound socket that nobody reads: "in use" is then the kernel's answer and not a guess, and no
//! other program can take the port while the container runs. Traffic for the port is redirected by nftables before it
//! reaches a socket, so the reservation neither answers nor swallows it; a TCP socket that doesn't listen answers with a
//! reset, as a closed port does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::sockopt::{set_ipv6_v6only, set_socket_recv_buffer_size, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};

use crate::net::publish::{Proto, Publish};
use nsrs_base::error::{At, Code, Errno, Result};

/// A port of the host, held until this is dropped. The socket is closed on exec.
#[derive(Debug)]
pub struct Reserved {
    /// What was reserved, with the port that the kernel chose where none was asked for.
    pub publish: Publish,
    /// The number of the reserved port, never 0.
    pub port: u16,
    _socket: OwnedFd,
}

impl Reserved {
    /// Takes the port on the address that was asked for, or on all of both families.
    ///
    /// # Errors
    /// `InUse` when another socket has it; the kernel's refusal for an address that the host does not have.
    pub fn take(publish: Publish) -> Result<Reserved> {
        let subject = publish.to_string();
        // Without SO_REUSEADDR: with it, two sockets that don't listen may share a port.
        let socket = bind_all(publish, false)?;
        let address = getsockname(&socket).at("read the port of", &subject)?;
        let address = SocketAddr::try_from(address).at("read the port of", &subject)?;
        let publish = Publish { host_port: Some(address.port()), ..publish };
        Ok(Reserved { publish, port: address.port(), _socket: socket })
    }
}

/// The same ports, with a free one in place of each that the kernel is to choose, for a program that binds them itself.
/// Such a program reports little when it fails, and may be content with one of two address families. So all ports are
/// checked to be free now; another program may still take one before.
///
/// # Errors
/// As [`Reserved::take`].
pub fn choose(wanted: &[Publish]) -> Result<Vec<Publish>> {
    let (named, open): (Vec<Publish>, Vec<Publish>) = wanted.iter().partition(|publish| publish.host_port.is_some());
    // As a server does it: connections of the one before it that are not quite over don't count. Held for a moment, so that
    // the kernel chooses others, and none twice.
    let bind = |publish: &Publish| bind_all(*publish, publish.proto == Proto::Tcp);
    let _held = named.iter().map(bind).collect::<Result<Vec<_>>>()?;
    let chosen = open.into_iter().map(Reserved::take).collect::<Result<Vec<_>>>()?;
    let mut chosen = chosen.iter().map(|reserved| reserved.publish);
    Ok(wanted
        .iter()
        .map(|publish| publish.host_port.map_or_else(|| chosen.next(), |_| Some(*publish)).unwrap_or(*publish))
        .collect())
}

/// A socket on the address that was asked for, or on all of both families.
fn bind_all(publish: Publish, reuse: bool) -> Result<OwnedFd> {
    let port = publish.host_port.unwrap_or(0);
    let bound = |ip: IpAddr, one_family| bound(SocketAddr::new(ip, port), publish.proto, one_family, reuse);
    let result = match publish.host_ip {
        Some(ip) => bound(ip, true),
        // One dual-stack socket covers both families, and a host without IPv6 has the other one only.
        None => bound(Ipv6Addr::UNSPECIFIED.into(), false).or_else(|error| match error {
            rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL => {
                bound(Ipv4Addr::UNSPECIFIED.into(), true)
            }
            other => Err(other),
        }),
    };
    result.map_err(|errno| refusal(&publish.to_string(), publish, errno))
}

fn bound(address: SocketAddr, proto: Proto, one_family: bool, reuse: bool) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match proto {
        Proto::Tcp => SocketType::STREAM,
        Proto::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        set_ipv6_v6only(&socket, one_family)?;
    }
    if proto == Proto::Udp {
        // Nobody reads: keep as little as the kernel allows of what arrives before the redirection is in place.
        set_socket_recv_buffer_size(&socket, 0)?;
    }
    if reuse {
        set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(socket)
}

fn refusal(subject: &str, publish: Publish, errno: rustix::io::Errno) -> nsrs_base::error::Error {
    let error = nsrs_base::error::Error::os("publish", subject, Errno::from(errno));
    let port = publish.host_port.unwrap_or(0);
    match errno {
        rustix::io::Errno::ADDRINUSE => error
            .code(Code::InUse)
            .because(format!("port {port}/{} of the host is in use", publish.proto))
            .hint(format!("choose another port, or find its user with: ss -lnp 'sport = :{port}'")),
        rustix::io::Errno::ADDRNOTAVAIL => {
            let ip = publish.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            error.because(format!("the host has no address {ip}")).code(Code::InvalidArgument)
        }
        rustix::io::Errno::ACCESS => {
            error.hint("ports below net.ipv4.ip_unprivileged_port_start (1024) need root or CAP_NET_BIND_SERVICE")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::net::publish::parse;

    fn take(text: &str) -> Result<Reserved> {
        Reserved::take(parse(text).unwrap()[0])
    }

    #[test]
    fn a_reserved_port_is_in_use() {
        let held = take("80").unwrap();
        assert_ne!(held.port, 0);
        for again in [format!("{}:80", held.port), format!("127.0.0.1:{}:80", held.port)] {
            let error = take(&again).unwrap_err();
            assert_eq!(error.code, Code::InUse, "{error}");
            assert!(error.reason.contains(&held.port.to_string()) && !error.hint.is_empty(), "{error}");
        }
        assert!(TcpListener::bind(("127.0.0.1", held.port)).is_err());
        let port = held.port;
        drop(held);
        take(&format!("{port}:80")).unwrap();
    }

    #[test]
    fn a_listening_program_keeps_its_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(take(&format!("{port}:80")).unwrap_err().code, Code::InUse);
        assert_eq!(take(&format!("127.0.0.1:{port}:80")).unwrap_err().code, Code::InUse);
        let check = |text: &str| choose(&parse(text).unwrap());
        assert_eq!(check(&format!("{port}:80")).unwrap_err().code, Code::InUse);
        drop(listener);
        check(&format!("{port}:80")).unwrap();
    }

    #[test]
    fn ports_are_chosen_for_a_program_that_takes_them_itself() {
        let wanted: Vec<_> = ["80", "127.0.0.1::81", "82/udp"].iter().flat_map(|text| parse(text).unwrap()).collect();
        let chosen = choose(&wanted).unwrap();
        for (publish, wanted) in chosen.iter().zip(&wanted) {
            assert_eq!(Publish { host_port: None, ..*publish }, *wanted);
            assert_eq!(Reserved::take(*publish).unwrap().port, publish.host_port.unwrap());
        }
        assert_ne!(chosen[0].host_port, chosen[1].host_port);
    }

    #[test]
    fn tcp_and_udp_are_apart() {
        let held = take("80/udp").unwrap();
        assert!(UdpSocket::bind(("0.0.0.0", held.port)).is_err());
        TcpListener::bind(("0.0.0.0", held.port)).unwrap();
    }

    #[test]
    fn an_address_that_the_host_lacks_is_an_error() {
        let error = take("192.0.2.200:8080:80").unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{error}");
        assert!(error.reason.contains("no address 192.0.2.200"), "{error}");
    }
}
