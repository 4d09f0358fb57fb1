//! How a container is connected, and what it knows names by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::Problems;
use super::namespace::{Kind, Namespaces, Use};
use crate::net::names::{Dns, HostResolver, Hosts};
use crate::net::publish::{self, Publish};
use crate::spec::Spec;
use nsrs_base::error::{Code, Error, Result};
use nsrs_base::host::Host;

/// The bridge that containers share.
pub const BRIDGE: &str = "nsrs0";
/// The interface of a container on it.
pub const INTERFACE: &str = "eth0";

/// How a container is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Network {
    /// A network namespace with nothing but a loopback interface.
    None,
    /// The caller's network.
    Host,
    /// A joined network namespace, left as it is.
    Joined,
    /// An interface on the bridge, with a way out by masquerade.
    Bridge(Bridge),
    /// User-mode network by pasta.
    #[serde(rename_all = "camelCase")]
    Pasta {
        /// Where pasta is.
        program: String,
        /// Published ports.
        publish: Vec<Publish>,
    },
}

/// A place on the bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bridge {
    /// Name of the bridge.
    pub name: String,
    /// The wanted IPv4 address; `None` takes a free one.
    pub ip: Option<Ipv4Addr>,
    /// The wanted IPv6 address; `None` takes the one that belongs to the IPv4 address.
    pub ip6: Option<Ipv6Addr>,
    /// The wanted hardware address; `None` takes the one that belongs to the IPv4 address.
    pub mac: Option<[u8; 6]>,
    /// Published ports.
    pub publish: Vec<Publish>,
}

impl Network {
    /// The word for it in reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Network::None => "none",
            Network::Host => "host",
            Network::Joined => "joined",
            Network::Bridge(_) => "bridge",
            Network::Pasta { .. } => "pasta",
        }
    }
}

/// What goes into /etc/hosts, /etc/hostname and /etc/resolv.conf; each file is bound over the root's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Names {
    /// The container gets its own /etc/hosts.
    pub hosts: bool,
    /// The container gets its own /etc/resolv.conf.
    pub resolv_conf: bool,
    /// The container gets its own /etc/hostname.
    pub hostname: bool,
    /// `NAME:IP` lines for /etc/hosts.
    pub add_hosts: Vec<String>,
    /// Name servers; empty for the host's.
    pub dns: Vec<String>,
    /// Search domains; empty for the host's.
    pub dns_search: Vec<String>,
    /// Resolver options; empty for the host's.
    pub dns_options: Vec<String>,
}

/// The network that is taken when none is named.
fn default_network(spec: &Spec, host: &Host, namespaces: &Namespaces) -> &'static str {
    // Who publishes ports wants a network, and hears from pasta why there is none.
    let wanted = host.leads_outside || !spec.publish.is_empty();
    match (host.privileged && host.net_admin, &host.pasta) {
        (true, _) => "bridge",
        (false, Some(_)) if wanted && !namespaces.joins(Kind::User) => "pasta",
        (false, _) => "none",
    }
}

/// `ns:NAME` is a network namespace that ip-netns(8) bound by name.
fn named(text: &str) -> Option<String> {
    let name = text.strip_prefix("ns:")?;
    let good = !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..";
    (good && name.parse::<u32>().is_err()).then(|| format!("/run/netns/{name}"))
}

/// Resolves the network and notes its namespace.
pub fn resolve(spec: &Spec, host: &Host, namespaces: &mut Namespaces, problems: &mut Problems) -> Network {
    let text = spec.network.as_deref().unwrap_or_else(|| default_network(spec, host, namespaces));
    let network = match (text, named(text)) {
        ("host", _) => Network::Host,
        ("none", _) => Network::None,
        ("bridge", _) => Network::Bridge(bridge(spec, host, problems)),
        ("pasta", _) => pasta(spec, host, namespaces, problems),
        (_, Some(path)) => {
            namespaces.add(Kind::Network, Use::Join(path));
            Network::Joined
        }
        _ => match super::namespace::parse(Kind::Network, text) {
            Ok(Use::Join(path)) => {
                namespaces.add(Kind::Network, Use::Join(path));
                Network::Joined
            }
            _ => {
                problems.push(Error::invalid("--network", text, "give none, host, bridge, pasta, or ns:NAME|PATH|PID"));
                Network::None
            }
        },
    };
    if matches!(network, Network::None | Network::Bridge(_) | Network::Pasta { .. }) {
        namespaces.add(Kind::Network, Use::Private);
    }
    refuse_what_has_no_place(spec, &network, problems);
    network
}

/// Options that only some networks have.
fn refuse_what_has_no_place(spec: &Spec, network: &Network, problems: &mut Problems) {
    let bridge = matches!(network, Network::Bridge(_));
    let ports = bridge || matches!(network, Network::Pasta { .. });
    let given = [
        ("--ip", spec.ip.is_some() && !bridge, "only a bridge gives addresses"),
        ("--ip6", spec.ip6.is_some() && !bridge, "only a bridge gives addresses"),
        ("--mac-address", spec.mac.is_some() && !bridge, "only a bridge gives addresses"),
        ("--publish", !spec.publish.is_empty() && !ports, "this network has no ports to publish"),
    ];
    for (option, _, why) in given.into_iter().filter(|(_, wrong, _)| *wrong) {
        problems.push(
            Error::new(Code::InvalidArgument, format!("combine {option}"), why)
                .on(format!("with --network {}", spec.network.as_deref().unwrap_or_else(|| network.name())))
                .hint("use --network bridge (as root) or pasta, or leave the option out"),
        );
    }
}

fn published(spec: &Spec, problems: &mut Problems) -> Vec<Publish> {
    let all: Vec<Publish> =
        problems.all(spec.publish.iter().map(|text| publish::parse(text))).into_iter().flatten().collect();
    problems.take(publish::conflicts(&all));
    all
}

fn bridge(spec: &Spec, host: &Host, problems: &mut Problems) -> Bridge {
    if !(host.privileged && host.net_admin) {
        problems.push(
            Error::new(
                Code::Unsupported,
                "use --network bridge",
                "making interfaces of the host takes root (CAP_NET_ADMIN)",
            )
            .hint("run it as root, or use --network pasta (Debian: apt-get install passt) or none"),
        );
    }
    let address = |option: &str, text: &Option<String>| -> Result<Option<IpAddr>> {
        let parse =
            |text: &String| text.parse::<IpAddr>().map_err(|_| Error::invalid(option, text, "not an IP address"));
        text.as_ref().map(parse).transpose()
    };
    let ip = match problems.or(address("--ip", &spec.ip)) {
        Some(IpAddr::V6(other)) => {
            problems.push(Error::invalid("--ip", other, "that is an IPv6 address").hint("use --ip6"));
            None
        }
        Some(IpAddr::V4(ip)) => Some(ip),
        None => None,
    };
    let ip6 = match problems.or(address("--ip6", &spec.ip6)) {
        Some(IpAddr::V4(other)) => {
            problems.push(Error::invalid("--ip6", other, "that is an IPv4 address").hint("use --ip"));
            None
        }
        Some(IpAddr::V6(ip)) => Some(ip),
        None => None,
    };
    let mac = spec.mac.as_ref().and_then(|text| problems.take(parse_mac(text)));
    let publish = published(spec, problems);
    if let Some(port) = publish.iter().find(|port| port.host_ip == Some(Ipv6Addr::LOCALHOST.into())) {
        problems.push(
            Error::invalid("--publish", port, "the kernel passes nothing between ::1 and a bridge")
                .hint("publish on 127.0.0.1"),
        );
    }
    Bridge { name: BRIDGE.into(), ip, ip6, mac, publish }
}

/// Reads a hardware address, `02:00:00:00:00:01`.
fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bad = |why: &str| Error::invalid("--mac-address", text, why);
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let bytes: Vec<u8> = parts
        .iter()
        .filter(|part| part.len() == 2)
        .filter_map(|part| u8::from_str_radix(part, 16).ok().filter(|_| !part.starts_with('+')))
        .collect();
    let mac: [u8; 6] = bytes
        .try_into()
        .ok()
        .filter(|_| parts.len() == 6)
        .ok_or_else(|| bad("give six bytes such as 02:42:ac:11:00:02"))?;
    if mac[0] & 1 != 0 {
        return Err(bad("this is a group address; the lowest bit of the first byte must be 0"));
    }
    if mac == [0; 6] {
        return Err(bad("all zeroes is no address"));
    }
    Ok(mac)
}

fn pasta(spec: &Spec, host: &Host, namespaces: &Namespaces, problems: &mut Problems) -> Network {
    let publish = published(spec, problems);
    if host.privileged {
        problems.push(
            Error::new(Code::Unsupported, "use --network pasta", "it is for callers without rights")
                .hint("as root use --network bridge"),
        );
    }
    if namespaces.joins(Kind::User) {
        problems.push(
            Error::new(Code::Unsupported, "use --network pasta", "it can't enter a user namespace that was joined")
                .hint("join the network namespace too, or use --network none"),
        );
    }
    let program = match (&host.pasta, &host.pasta_missing) {
        (Some(program), _) => program.clone(),
        (None, missing) if !host.privileged => {
            problems.push(Error::new(Code::Unsupported, "use --network pasta", missing.clone()).hint(
                "install it (Debian: apt-get install passt), let users open /dev/net/tun (chmod 666), or use --network none",
            ));
            String::new()
        }
        _ => String::new(),
    };
    Network::Pasta { program, publish }
}

/// Resolves which name files a container gets.
pub fn names(
    spec: &Spec,
    network: &Network,
    host_tree: bool,
    own_mounts: bool,
    hostname: Option<&str>,
    problems: &mut Problems,
) -> Names {
    let asked_hosts = !spec.add_hosts.is_empty();
    let asked_dns = !(spec.dns.is_empty() && spec.dns_search.is_empty() && spec.dns_options.is_empty());
    // With the host's tree and the host's network the host's files are right as they are.
    let own_network = !matches!(network, Network::Host | Network::Joined);
    let connected = !matches!(network, Network::None);
    if !own_mounts {
        for (option, _) in [("--add-host", asked_hosts), ("--dns", asked_dns)].iter().filter(|(_, asked)| *asked) {
            problems.push(
                Error::new(
                    Code::InvalidArgument,
                    format!("combine {option}"),
                    "the files in /etc would be everybody's",
                )
                .on("with --mountns")
                .hint("leave the mount namespace private"),
            );
        }
        return Names::default();
    }
    // What is wrong with the values is told now; the addresses come later.
    let gateway = matches!(network, Network::Bridge(_)).then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    for value in &spec.add_hosts {
        problems.take(Hosts { extra: std::slice::from_ref(value), gateway, ..Hosts::default() }.text());
    }
    problems.take(
        Dns { servers: &spec.dns, search: &spec.dns_search, options: &spec.dns_options }.text(&HostResolver::default()),
    );
    Names {
        hosts: own_network || !host_tree || asked_hosts,
        resolv_conf: connected && (own_network || !host_tree) || asked_dns,
        hostname: hostname.is_some(),
        add_hosts: spec.add_hosts.clone(),
        dns: spec.dns.clone(),
        dns_search: spec.dns_search.clone(),
        dns_options: spec.dns_options.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(spec: &Spec, host: &Host) -> Result<(Network, Namespaces), Vec<Error>> {
        let (mut problems, mut namespaces) = (Problems::default(), Namespaces::default());
        let network = resolve(spec, host, &mut namespaces, &mut problems);
        problems.finish((network, namespaces))
    }

    fn on(network: &str) -> Spec {
        Spec { network: Some(network.into()), ..Spec::default() }
    }

    #[test]
    fn root_gets_the_bridge_and_others_what_there_is() {
        let with_pasta = Host { pasta: Some("/usr/bin/pasta".into()), ..Host::ordinary(1000) };
        let on_a_plane = Host { leads_outside: false, ..with_pasta.clone() };
        for (host, name) in [
            (Host::root(), "bridge"),
            (with_pasta, "pasta"),
            (on_a_plane.clone(), "none"),
            (Host::ordinary(1000), "none"),
        ] {
            let (network, namespaces) = resolved(&Spec::default(), &host).unwrap();
            assert_eq!(network.name(), name);
            assert!(namespaces.makes(Kind::Network));
        }
        let published = Spec { publish: vec!["8080:80".into()], ..Spec::default() };
        assert_eq!(resolved(&published, &on_a_plane).unwrap().0.name(), "pasta");
    }

    #[test]
    fn a_namespace_is_joined_by_name_path_or_process() {
        for (text, path) in
            [("ns:web", "/run/netns/web"), ("ns:/run/x", "/run/x"), ("ns:42", "/proc/42/ns/net"), ("/run/y", "/run/y")]
        {
            let (network, namespaces) = resolved(&on(text), &Host::root()).unwrap();
            assert_eq!(network, Network::Joined);
            assert_eq!(namespaces.joined[0].path, path);
        }
        for text in ["", "ns:", "ns:..", "br0", "container:x"] {
            assert!(resolved(&on(text), &Host::root()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bridge_without_rights_names_the_remedy() {
        let errors = resolved(&on("bridge"), &Host::ordinary(1000)).unwrap_err();
        assert!(errors[0].hint.contains("pasta"), "{:?}", errors[0]);
    }

    #[test]
    fn what_a_network_has_no_place_for_is_an_error() {
        let spec = Spec { ip: Some("10.0.0.2".into()), publish: vec!["80:80".into()], ..on("none") };
        assert_eq!(resolved(&spec, &Host::root()).unwrap_err().len(), 2);
    }

    #[test]
    fn a_network_is_called_what_the_caller_called_it() {
        let spec = Spec { ip: Some("10.0.0.2".into()), ..on("ns:web") };
        assert_eq!(resolved(&spec, &Host::root()).unwrap_err()[0].subject, "with --network ns:web");
    }

    #[test]
    fn every_wrong_address_is_reported() {
        let spec = Spec {
            ip: Some("fd00::1".into()),
            ip6: Some("x".into()),
            mac: Some("01:00:00:00:00:00".into()),
            publish: vec!["0:80".into(), "80:80".into(), "80:81".into(), "[::1]:82:82".into()],
            ..on("bridge")
        };
        assert_eq!(resolved(&spec, &Host::root()).unwrap_err().len(), 6);
    }

    #[test]
    fn hardware_addresses_have_six_bytes() {
        assert_eq!(parse_mac("02:42:ac:11:00:02").unwrap(), [2, 0x42, 0xac, 0x11, 0, 2]);
        for text in [
            "",
            "02:42:ac:11:00",
            "02:42:ac:11:00:02:03",
            "0g:00:00:00:00:00",
            "00:00:00:00:00:00",
            "+2:42:ac:11:00:02",
        ] {
            assert!(parse_mac(text).is_err(), "{text}");
        }
    }
}
