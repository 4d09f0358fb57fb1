//! What `--publish` says, in docker's words: `[ip:]host:container[/tcp|udp]`, `container`, and ranges.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use nsrs_base::error::{Code, Error, Result};
use nsrs_base::options::PUBLISH;

/// The transport protocol of a published port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// tcp(7), the default.
    #[default]
    Tcp,
    /// udp(7).
    Udp,
}

impl Proto {
    /// The number of the protocol in an IP header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Proto::Tcp => 6,
            Proto::Udp => 17,
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
        })
    }
}

/// One port of a container that is to answer on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Publish {
    /// The host's address that answers; all of them for `None`.
    pub host_ip: Option<IpAddr>,
    /// The host's port; `None` lets the kernel choose a free one.
    pub host_port: Option<u16>,
    /// The port in the container.
    pub container_port: u16,
    /// The transport protocol of both ports; TCP if none was named.
    pub proto: Proto,
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            None => (),
        }
        match self.host_port {
            Some(port) => write!(f, "{port}:")?,
            None if self.host_ip.is_some() => f.write_str(":")?,
            None => (),
        }
        write!(f, "{}/{}", self.container_port, self.proto)
    }
}

/// Reads one value of `--publish`; a range gives one entry for each of its ports.
///
/// # Errors
/// The value and what is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Publish>> {
    parts(text).map_err(|why| Error::invalid(PUBLISH, text, why))
}

fn parts(text: &str) -> std::result::Result<Vec<Publish>, String> {
    let (address, proto) = match text.rsplit_once('/') {
        None => (text, Proto::Tcp),
        Some((address, "tcp")) => (address, Proto::Tcp),
        Some((address, "udp")) => (address, Proto::Udp),
        Some((_, other)) => return Err(format!("the protocol {other:?} is neither tcp nor udp")),
    };
    let (host, container) = match address.rsplit_once(':') {
        None => (None, address),
        Some((host, container)) => (Some(host), container),
    };
    let container = ports(container, "container")?;
    let (host_ip, host) = match host {
        None => (None, None),
        Some(host) => host_side(host)?,
    };
    let count = container.len();
    if let Some(host) = host.as_ref().filter(|host| host.len() != count) {
        return Err(format!("the host's range has {} ports and the container's has {count}", host.len()));
    }
    let host_ports = host.map_or_else(|| vec![None; count], |range| range.map(Some).collect());
    let publish = |(host_port, container_port)| Publish { host_ip, host_port, container_port, proto };
    Ok(host_ports.into_iter().zip(container).map(publish).collect())
}

type HostSide = (Option<IpAddr>, Option<RangeInclusive<u16>>);

/// Reads `ip:port`, `[ip]:port`, `ip:` or `port`.
fn host_side(text: &str) -> std::result::Result<HostSide, String> {
    let (ip, port) = match text.rsplit_once(':') {
        None => (None, text),
        Some((ip, port)) => (Some(ip), port),
    };
    let ip = ip.map(host_ip).transpose()?;
    match port {
        "" if ip.is_some() => Ok((ip, None)),
        _ => Ok((ip, Some(ports(port, "host")?))),
    }
}

fn host_ip(text: &str) -> std::result::Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let ip: IpAddr = bare.unwrap_or(text).parse().map_err(|_| format!("{text:?} is not an IP address"))?;
    match ip {
        IpAddr::V6(_) if bare.is_none() => Err(format!("write an IPv6 address in brackets: [{ip}]")),
        IpAddr::V4(_) if bare.is_some() => Err(format!("brackets are for IPv6 addresses, and {ip} is an IPv4 address")),
        _ => Ok(ip),
    }
}

/// Reads `port` or `first-last`; `whose` port it is goes into the error.
fn ports(text: &str, whose: &str) -> std::result::Result<RangeInclusive<u16>, String> {
    let port = |text: &str| match text.parse::<u16>() {
        // A leading plus is valid for the parser, and a typing error here.
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => Err(format!("the {whose}'s port {text:?} is not a number from 1 to 65535")),
    };
    let (first, last) = match text.split_once('-') {
        None => (port(text)?, port(text)?),
        Some((first, last)) => (port(first)?, port(last)?),
    };
    if first > last {
        return Err(format!("the {whose}'s range {text:?} runs backwards"));
    }
    Ok(first..=last)
}

/// Checks that no port of the host is asked for twice.
///
/// # Errors
/// The second of the two, and the first one as the reason.
pub fn conflicts(all: &[Publish]) -> Result<()> {
    for (position, later) in all.iter().enumerate() {
        let clash = all[..position].iter().find(|earlier| overlap(earlier, later));
        if let Some(earlier) = clash {
            let why = format!("the host's port is also asked for by {:?}", earlier.to_string());
            return Err(Error::invalid(PUBLISH, later, why).code(Code::InvalidArgument));
        }
    }
    Ok(())
}

fn overlap(a: &Publish, b: &Publish) -> bool {
    // A wildcard of one family covers that family only; no address at all covers both.
    let covers = |wide: &Option<IpAddr>, other: &Option<IpAddr>| match (wide, other) {
        (None, _) => true,
        (Some(ip), Some(other)) => ip.is_unspecified() && ip.is_ipv4() == other.is_ipv4(),
        (Some(_), None) => false,
    };
    let same_ip = a.host_ip == b.host_ip || covers(&a.host_ip, &b.host_ip) || covers(&b.host_ip, &a.host_ip);
    a.proto == b.proto && a.host_port.is_some() && a.host_port == b.host_port && same_ip
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        parse(text).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn reads_the_forms_of_docker() {
        assert_eq!(shown("8080:80"), "8080:80/tcp");
        assert_eq!(shown("53:53/udp"), "53:53/udp");
        assert_eq!(shown("80"), "80/tcp");
        assert_eq!(shown("127.0.0.1:8080:80"), "127.0.0.1:8080:80/tcp");
        assert_eq!(shown("127.0.0.1::80"), "127.0.0.1::80/tcp");
        assert_eq!(shown("[::1]:80:80"), "[::1]:80:80/tcp");
        assert_eq!(shown("8000-8002:9000-9002"), "8000:9000/tcp 8001:9001/tcp 8002:9002/tcp");
        assert_eq!(shown("7000-7001/udp"), "7000/udp 7001/udp");
    }

    #[test]
    fn what_is_shown_reads_back() {
        for text in ["127.0.0.1::80/tcp", "[fd00::1]:1:2/udp", "80/tcp", "1:2/tcp"] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn names_the_value_and_the_reason() {
        for (text, why) in [
            ("0:80", "host's port \"0\""),
            ("70000:80", "host's port \"70000\""),
            ("80:", "container's port \"\""),
            ("", "container's port \"\""),
            ("+80:80", "not a number"),
            ("80:80/sctp", "\"sctp\" is neither tcp nor udp"),
            ("8000-8005:80", "has 6 ports and the container's has 1"),
            ("8005-8000:80-85", "runs backwards"),
            ("300.1.1.1:80:80", "\"300.1.1.1\" is not an IP address"),
            ("::1:80:80", "write an IPv6 address in brackets: [::1]"),
            ("[127.0.0.1]:80:80", "brackets are for IPv6"),
            (":80", "host's port \"\""),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("invalid --publish {text:?}: ")) && error.contains(why), "{error}");
        }
    }

    #[test]
    fn finds_a_port_that_is_asked_for_twice() {
        let all = |texts: &[&str]| texts.iter().flat_map(|text| parse(text).unwrap()).collect::<Vec<_>>();
        for fine in [
            &["80:1", "81:1"][..],
            &["80:1", "80:1/udp"],
            &["127.0.0.1:80:1", "127.0.0.2:80:1"],
            &["1", "1"],
            &["0.0.0.0:80:1", "[::]:80:1"],
        ] {
            conflicts(&all(fine)).unwrap();
        }
        for clash in [&["80:1", "80:2"][..], &["80:1", "127.0.0.1:80:1"], &["0.0.0.0:80:1", "10.0.0.1:80:1"]] {
            assert!(conflicts(&all(clash)).is_err(), "{clash:?}");
        }
    }
}
