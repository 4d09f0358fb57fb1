//! How a container is connected, and what it knows names by.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::Problems;
use super::namespace::{Kind, Namespaces, Use};
use crate::net::kinds::{self, NamespaceOwner, Network, NetworkKind, NetworkRequest};
use crate::net::names::{Dns, HostResolver, Hosts};
use crate::spec::Spec;
use nsrs_base::error::Error;
use nsrs_base::host::Host;
use nsrs_base::options::{ADD_HOSTS, DNS, IP, IP6, MAC, MOUNTNS, NETWORK, PUBLISH};

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
    let wanted = host.leads_outside || !spec.network.publish.is_empty();
    match (host.privileged && host.net_admin, &host.pasta) {
        (true, _) => "bridge",
        (false, Ok(_)) if wanted && !namespaces.joins(Kind::User) => "pasta",
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
    let text = spec.network.kind.as_deref().unwrap_or_else(|| default_network(spec, host, namespaces));
    let request = NetworkRequest {
        ip: spec.network.ip.as_deref(),
        ip6: spec.network.ip6.as_deref(),
        mac: spec.network.mac.as_deref(),
        publish: &spec.network.publish,
        joins_user_namespace: namespaces.joins(Kind::User),
    };
    let network = if let Some((network, wrong)) = kinds::resolve(text, &request, host) {
        problems.extend(wrong);
        network
    } else if let Some(path) = joined(text) {
        namespaces.add(Kind::Network, Use::Join(path));
        Network::Joined
    } else {
        problems.push(Error::invalid(NETWORK, text, "give none, host, bridge, pasta, or ns:NAME|PATH|PID"));
        Network::None
    };
    if network.kind().namespace() == NamespaceOwner::Container {
        namespaces.add(Kind::Network, Use::Private);
    }
    refuse_what_has_no_place(spec, network.kind(), problems);
    network
}

/// The namespace to join, by a name of ip-netns(8) or as for every kind of namespace.
fn joined(text: &str) -> Option<String> {
    named(text).or_else(|| match super::namespace::parse(Kind::Network, text) {
        Ok(Use::Join(path)) => Some(path),
        _ => None,
    })
}

/// Options that only some networks have.
fn refuse_what_has_no_place(spec: &Spec, kind: &dyn NetworkKind, problems: &mut Problems) {
    let (addresses, ports) = (kind.gives_addresses(), kind.publishes());
    let given = [
        (IP, spec.network.ip.is_some() && !addresses, "only a bridge gives addresses"),
        (IP6, spec.network.ip6.is_some() && !addresses, "only a bridge gives addresses"),
        (MAC, spec.network.mac.is_some() && !addresses, "only a bridge gives addresses"),
        (PUBLISH, !spec.network.publish.is_empty() && !ports, "this network has no ports to publish"),
    ];
    for (option, _, why) in given.into_iter().filter(|(_, wrong, _)| *wrong) {
        problems.push(
            Error::conflict(option, why)
                .on(format!("with {NETWORK} {}", spec.network.kind.as_deref().unwrap_or_else(|| kind.name())))
                .hint(format!("use {NETWORK} bridge (as root) or pasta, or leave the option out")),
        );
    }
}

/// Resolves which name files a container gets.
pub fn names(
    spec: &Spec,
    network: &dyn NetworkKind,
    host_tree: bool,
    own_mounts: bool,
    hostname: Option<&str>,
    problems: &mut Problems,
) -> Names {
    let asked_hosts = !spec.network.add_hosts.is_empty();
    let asked_dns =
        !(spec.network.dns.is_empty() && spec.network.dns_search.is_empty() && spec.network.dns_options.is_empty());
    // With the host's tree and the host's network the host's files are right as they are.
    let own_network = network.namespace() == NamespaceOwner::Container;
    let connected = network.is_connected();
    if !own_mounts {
        for (option, _) in [(ADD_HOSTS, asked_hosts), (DNS, asked_dns)].into_iter().filter(|(_, asked)| *asked) {
            problems.push(
                Error::conflict(option, "the files in /etc would be everybody's")
                    .on(format!("with {MOUNTNS}"))
                    .hint("leave the mount namespace private"),
            );
        }
        return Names::default();
    }
    // What is wrong with the values is told now; the addresses come later.
    let gateway = network.gives_addresses().then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    for value in &spec.network.add_hosts {
        problems.take(Hosts { extra: std::slice::from_ref(value), gateway, ..Hosts::default() }.text());
    }
    problems.take(
        Dns { servers: &spec.network.dns, search: &spec.network.dns_search, options: &spec.network.dns_options }
            .text(&HostResolver::default()),
    );
    Names {
        hosts: own_network || !host_tree || asked_hosts,
        resolv_conf: connected && (own_network || !host_tree) || asked_dns,
        hostname: hostname.is_some(),
        add_hosts: spec.network.add_hosts.clone(),
        dns: spec.network.dns.clone(),
        dns_search: spec.network.dns_search.clone(),
        dns_options: spec.network.dns_options.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use nsrs_base::error::Result;

    fn resolved(spec: &Spec, host: &Host) -> Result<(Network, Namespaces), Vec<Error>> {
        let (mut problems, mut namespaces) = (Problems::default(), Namespaces::default());
        let network = resolve(spec, host, &mut namespaces, &mut problems);
        problems.finish((network, namespaces))
    }

    fn on(network: &str) -> Spec {
        Spec::of(json!({ "network": network }))
    }

    #[test]
    fn root_gets_the_bridge_and_others_what_there_is() {
        let with_pasta = Host { pasta: Ok("/usr/bin/pasta".into()), ..Host::ordinary(1000) };
        let on_a_plane = Host { leads_outside: false, ..with_pasta.clone() };
        for (host, name) in [
            (Host::root(), "bridge"),
            (with_pasta, "pasta"),
            (on_a_plane.clone(), "none"),
            (Host::ordinary(1000), "none"),
        ] {
            let (network, namespaces) = resolved(&Spec::default(), &host).unwrap();
            assert_eq!(network.kind().name(), name);
            assert!(namespaces.makes(Kind::Network));
        }
        let published = Spec::of(json!({ "publish": ["8080:80"] }));
        assert_eq!(resolved(&published, &on_a_plane).unwrap().0.kind().name(), "pasta");
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
        let spec = Spec::of(json!({ "network": "none", "ip": "10.0.0.2", "publish": ["80:80"] }));
        assert_eq!(resolved(&spec, &Host::root()).unwrap_err().len(), 2);
    }

    #[test]
    fn a_network_is_called_what_the_caller_called_it() {
        let spec = Spec::of(json!({ "network": "ns:web", "ip": "10.0.0.2" }));
        let error = resolved(&spec, &Host::root()).unwrap_err().remove(0);
        assert!(error.to_string().contains("with --network ns:web"), "{error}");
    }

    #[test]
    fn every_wrong_address_is_reported() {
        let spec = Spec::of(json!({
            "network": "bridge",
            "ip": "fd00::1",
            "ip6": "x",
            "mac": "01:00:00:00:00:00",
            "publish": ["0:80", "80:80", "80:81", "[::1]:82:82"],
        }));
        assert_eq!(resolved(&spec, &Host::root()).unwrap_err().len(), 6);
    }
}
