//! The files that name things in a container: `/etc/hosts` and `/etc/resolv.conf`. Pure text.

use std::fmt::Write as _;
use std::net::IpAddr;

use nsrs_base::error::{Error, Result};
use nsrs_base::options::{ADD_HOSTS, DNS, DNS_OPTIONS, DNS_SEARCH};

/// The value of `--add-host` that stands for the host's address as the container sees it.
const HOST_GATEWAY: &str = "host-gateway";

/// How many name servers the C library's resolver reads, see resolv.conf(5).
const NAME_SERVERS_MAX: usize = 3;

/// What the container's `/etc/hosts` is made of.
#[derive(Clone, Debug, Default)]
pub struct Hosts<'a> {
    /// The container's host name; empty for none.
    pub hostname: &'a str,
    /// The container's own addresses, each named by the host name.
    pub addresses: &'a [IpAddr],
    /// The values of `--add-host`, each `NAME:IP`.
    pub extra: &'a [String],
    /// What `host-gateway` stands for: the bridge's address, or none without a bridge.
    pub gateway: Option<IpAddr>,
}

impl Hosts<'_> {
    /// The text of `/etc/hosts`, see hosts(5).
    ///
    /// # Errors
    /// A value of `--add-host` that isn't `NAME:IP`, or `host-gateway` without a gateway.
    pub fn text(&self) -> Result<String> {
        let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        for extra in self.extra {
            let (name, address) = self.extra_host(extra)?;
            let _ = writeln!(text, "{address}\t{name}");
        }
        if self.hostname.is_empty() {
            return Ok(text);
        }
        let short = self.hostname.split('.').next().filter(|short| *short != self.hostname);
        let names = [Some(self.hostname), short].into_iter().flatten().collect::<Vec<_>>().join(" ");
        // Without a network of its own the name still has to resolve: Debian's convention for that is 127.0.1.1.
        let own = if self.addresses.is_empty() { &[IpAddr::from([127, 0, 1, 1])] } else { self.addresses };
        for address in own {
            let _ = writeln!(text, "{address}\t{names}");
        }
        Ok(text)
    }

    fn extra_host<'v>(&self, value: &'v str) -> Result<(&'v str, IpAddr)> {
        let invalid = |why: &str| Error::invalid(ADD_HOSTS, value, why);
        let (name, address) = value.split_once(':').ok_or_else(|| invalid("expected NAME:IP"))?;
        check_name(name).map_err(|why| invalid(&why))?;
        if address == HOST_GATEWAY {
            let gateway = self.gateway.ok_or_else(|| invalid("host-gateway needs a bridge network"));
            return gateway.map(|gateway| (name, gateway));
        }
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let address = bare.parse().map_err(|_| invalid("the part after the colon is not an IP address"))?;
        Ok((name, address))
    }
}

/// What the caller asked of `/etc/resolv.conf`; an empty list means the host's.
#[derive(Clone, Debug, Default)]
pub struct Dns<'a> {
    /// The values of `--dns`: name servers.
    pub servers: &'a [String],
    /// The values of `--dns-search`: domains; a single `.` means none.
    pub search: &'a [String],
    /// The values of `--dns-option`, see resolv.conf(5).
    pub options: &'a [String],
}

/// Where the host's resolver settings come from.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostResolver<'a> {
    /// The text of the host's `/etc/resolv.conf`.
    pub resolv_conf: &'a str,
    /// The text of `/run/systemd/resolve/resolv.conf`, which lists the servers behind systemd-resolved's 127.0.0.53.
    pub systemd: Option<&'a str>,
    /// The container shares the host's network: a name server on the host's loopback is reachable.
    pub shares_network: bool,
}

impl HostResolver<'_> {
    /// The name servers of `text` that the container can reach.
    fn reachable<'t>(&self, text: &'t str) -> Vec<&'t str> {
        name_servers_with_zone(text).filter(|server| self.shares_network || !is_loopback(server)).collect()
    }
}

impl Dns<'_> {
    /// The text of the container's `/etc/resolv.conf`.
    ///
    /// Name servers on the host's loopback can't be reached from a network of one's own and are left out. Where none is
    /// left and none was asked for, the text has no `nameserver` line, and names don't resolve: `--dns` gives one.
    ///
    /// # Errors
    /// A value that isn't an address, a domain or an option.
    pub fn text(&self, host: &HostResolver) -> Result<String> {
        self.check()?;
        let mut source = host.resolv_conf;
        let mut servers = host.reachable(source);
        if let (true, Some(systemd)) = (servers.is_empty(), host.systemd) {
            source = systemd;
            servers = host.reachable(source);
        }
        if !self.servers.is_empty() {
            servers = self.servers.iter().map(String::as_str).collect();
        }
        let search: Vec<&str> = match self.search {
            [] => words(source, "search").or_else(|| words(source, "domain")).unwrap_or_default(),
            [dot] if dot == "." => Vec::new(),
            asked => asked.iter().map(String::as_str).collect(),
        };
        let options: Vec<&str> = match self.options {
            [] => words(source, "options").unwrap_or_default(),
            asked => asked.iter().map(String::as_str).collect(),
        };
        let mut text = String::new();
        for (keyword, values) in [("search", search), ("options", options)] {
            if !values.is_empty() {
                let _ = writeln!(text, "{keyword} {}", values.join(" "));
            }
        }
        servers.iter().for_each(|server| _ = writeln!(text, "nameserver {server}"));
        Ok(text)
    }

    fn check(&self) -> Result<()> {
        for server in self.servers {
            let _: IpAddr = server.parse().map_err(|_| Error::invalid(DNS, server, "not an IP address"))?;
        }
        if let Some(fourth) = self.servers.get(NAME_SERVERS_MAX) {
            return Err(Error::invalid(DNS, fourth, "the resolver reads three name servers only"));
        }
        for domain in self.search.iter().filter(|domain| *domain != ".") {
            check_name(domain.trim_end_matches('.')).map_err(|why| Error::invalid(DNS_SEARCH, domain, why))?;
        }
        for option in self.options {
            if option.is_empty() || option.contains(|c: char| c.is_whitespace() || c.is_control()) {
                return Err(Error::invalid(DNS_OPTIONS, option, "expected one word"));
            }
        }
        Ok(())
    }
}

/// The addresses of the name servers that a `resolv.conf` lists.
pub fn name_servers(text: &str) -> impl Iterator<Item = IpAddr> {
    name_servers_with_zone(text).filter_map(|server| server.parse().ok())
}

/// The name servers as they are written: a link-local one has `%interface` behind it.
fn name_servers_with_zone(text: &str) -> impl Iterator<Item = &str> {
    lines(text).filter_map(|mut words| if words.next() == Some("nameserver") { words.next() } else { None })
}

/// The words of the last line that begins with `keyword`: the resolver takes the last one, too.
fn words<'t>(text: &'t str, keyword: &str) -> Option<Vec<&'t str>> {
    let found = lines(text).filter_map(|mut words| (words.next() == Some(keyword)).then(|| words.collect()));
    found.last()
}

fn lines(text: &str) -> impl Iterator<Item = std::str::SplitWhitespace<'_>> {
    text.lines().map(|line| line.split(['#', ';']).next().unwrap_or_default().split_whitespace())
}

/// Whether only the host can reach this server: it is on a loopback, or behind an interface of the host.
fn is_loopback(server: &str) -> bool {
    server.parse().map_or(true, |address: IpAddr| address.is_loopback())
}

/// A host or domain name: dot-separated labels of letters, digits, `-` and `_`, see hostname(7).
fn check_name(name: &str) -> std::result::Result<(), String> {
    if name.is_empty() || name.len() > 253 {
        return Err("expected a name of 1 to 253 bytes".into());
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err("each part between dots has 1 to 63 bytes".into());
        }
        if let Some(bad) = label.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_')) {
            return Err(format!("{bad:?} is not allowed in a name"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a part of a name neither begins nor ends with \"-\"".into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(values: &[&str]) -> Vec<String> {
        values.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn hosts_names_the_container_by_its_addresses() {
        let addresses = ["10.118.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let hosts = Hosts { hostname: "web.example.org", addresses: &addresses, ..Hosts::default() };
        let text = hosts.text().unwrap();
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"), "{text}");
        assert!(text.ends_with("10.118.0.2\tweb.example.org web\nfd00::2\tweb.example.org web\n"), "{text}");
    }

    #[test]
    fn hosts_takes_extra_names_and_the_gateway() {
        let extra = strings(&["db:10.0.0.9", "six:[fd00::1]", "also:fd00::2", "host:host-gateway"]);
        let gateway = Some("10.118.0.1".parse().unwrap());
        let text = Hosts { extra: &extra, gateway, ..Hosts::default() }.text().unwrap();
        assert!(text.ends_with("10.0.0.9\tdb\nfd00::1\tsix\nfd00::2\talso\n10.118.0.1\thost\n"), "{text}");
    }

    #[test]
    fn hosts_rejects_lines_smuggled_into_a_name() {
        for bad in ["db", "db:", ":1.2.3.4", "a b:1.2.3.4", "a\n9.9.9.9 evil:1.2.3.4", "db:host-gateway", "db:1.2.3"] {
            let error = Hosts { extra: &strings(&[bad]), ..Hosts::default() }.text().unwrap_err();
            assert!(error.to_string().starts_with("invalid --add-host"), "{bad}: {error}");
        }
    }

    #[test]
    fn resolv_conf_leaves_out_the_loopback_of_the_host() {
        let host = HostResolver {
            resolv_conf: "# stub\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\noptions edns0\nsearch lan\n",
            systemd: Some("nameserver 192.0.2.53\nsearch lan\n"),
            shares_network: false,
        };
        assert_eq!(Dns::default().text(&host).unwrap(), "search lan\nnameserver 192.0.2.53\n");
        let shared = HostResolver { shares_network: true, ..host };
        let text = Dns::default().text(&shared).unwrap();
        assert_eq!(text, "search lan\noptions edns0\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\n");
    }

    #[test]
    fn resolv_conf_takes_what_was_asked() {
        let (servers, search, options) = (strings(&["9.9.9.9"]), strings(&["."]), strings(&["ndots:2"]));
        let dns = Dns { servers: &servers, search: &search, options: &options };
        let host = HostResolver { resolv_conf: "nameserver 192.0.2.1\nsearch lan\n", ..HostResolver::default() };
        assert_eq!(dns.text(&host).unwrap(), "options ndots:2\nnameserver 9.9.9.9\n");
    }

    #[test]
    fn resolv_conf_rejects_bad_values() {
        let bad = strings(&["dns.example"]);
        assert!(Dns { servers: &bad, ..Dns::default() }.text(&HostResolver::default()).is_err());
        let bad = strings(&["a\nnameserver 6.6.6.6"]);
        assert!(Dns { search: &bad, ..Dns::default() }.text(&HostResolver::default()).is_err());
        assert!(Dns { options: &bad, ..Dns::default() }.text(&HostResolver::default()).is_err());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        assert_eq!(check_name("web-1"), Ok(()));
        for bad in ["", "-a", "a..b", "a b", "a/b", &"x".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
