//! What the network of a container needs: tried in a network namespace that goes with the try, never in the host's.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{LinkBridge, LinkVeth};
use rustix::fs::{Access, Mode, OFlags, access, open};

use super::{Examination, Finding, Verdict, forward_policy, probe};
use crate::net::forward::has_ipv6;
use crate::net::kinds::BRIDGE;
use crate::net::nft::Nat;
use crate::net::transport::{Batch, Netlink};
use crate::plan::namespace::Kind;
use nsrs_base::error::{At, Result};
use nsrs_base::host::{Host, PastaMissing};
use nsrs_base::options::NETWORK;

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

pub fn examine(examination: &Examination<'_>) -> Vec<Finding> {
    let host = examination.host;
    let mut findings = match (host.privileged, host.net_admin) {
        (true, true) => on_bridge(examination),
        (true, false) => vec![Finding::bad(
            "bridge",
            Verdict::Warning,
            format!("CAP_NET_ADMIN is missing: containers have no network but {NETWORK} host"),
            "start the outer container with --cap-add NET_ADMIN (docker)",
        )],
        (false, _) => vec![pasta(host)],
    };
    findings.push(ipv6());
    findings
}

/// The parts of the bridge network, root's default.
fn on_bridge(examination: &Examination<'_>) -> Vec<Finding> {
    let own = |name: &str, module: &'static str, body: fn() -> Result<String>| {
        let tried = probe::within(examination.host, &[Kind::Network], body);
        Finding::of(name, tried, Verdict::Failure, |error| match error.errno {
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS | libc::ENOSPC) => {
                examination.around.remedy(examination.host, error)
            }
            _ => format!("modprobe {module}, or use {NETWORK} none"),
        })
    };
    vec![
        own("veth", "veth", veth),
        own("bridge", "bridge", bridge),
        own("nftables", "-a nf_tables nft_nat nft_masq nft_fib_inet", nftables),
        forwarding(),
        forward_policy::examine(),
    ]
}

fn add(message: RouteNetlinkMessage, subject: &str) -> Result<String> {
    let mut batch = Batch::new();
    batch.route(message, NLM_F_CREATE | NLM_F_EXCL, "make", subject);
    Netlink::route()?.send(batch)?;
    Ok("made in a new network namespace".into())
}

fn veth() -> Result<String> {
    add(RouteNetlinkMessage::NewLink(LinkVeth::new("probe0", "probe1").up().build()), "a veth pair")
}

fn bridge() -> Result<String> {
    add(RouteNetlinkMessage::NewLink(LinkBridge::new(BRIDGE).up().build()), "a bridge")
}

/// The whole table that containers use, so that every expression in it is tried.
fn nftables() -> Result<String> {
    let subnets = [
        IpNet::new_assert(Ipv4Addr::new(10, 0, 0, 0).into(), 24),
        IpNet::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0).into(), 64),
    ];
    Nat::open(BRIDGE, &subnets)?;
    Ok("the table for masquerade and ports, made in a new network namespace".into())
}

fn forwarding() -> Finding {
    let name = "ipv4 forwarding";
    let now = fs::read_to_string(FORWARD).unwrap_or_default();
    match (now.trim(), access(FORWARD, Access::WRITE_OK)) {
        ("1", _) => Finding::ok(name, "on"),
        (_, Ok(())) => Finding::ok(name, "off; nsrs switches it on for the first container on a bridge"),
        (_, Err(errno)) => Finding::bad(
            name,
            Verdict::Failure,
            format!("off, and {FORWARD} can't be written: {}", nsrs_base::error::Errno::from(errno)),
            "on the host: sysctl -w net.ipv4.ip_forward=1 (outer container: docker run --sysctl net.ipv4.ip_forward=1), or \
             use --network none",
        ),
    }
}

/// The network of callers without rights.
fn pasta(host: &Host) -> Finding {
    let name = "pasta";
    match &host.pasta {
        Ok(_) if !host.leads_outside => Finding::bad(
            name,
            Verdict::Warning,
            "no default route leads out of here; containers have no network",
            format!("connect this host, or use {NETWORK} host"),
        ),
        Ok(program) => Finding::of(name, probe::run(|| opens_tun(program)), Verdict::Warning, |_| tun_remedy().into()),
        Err(missing) => {
            let fix = match missing {
                PastaMissing::NoTun(_) => tun_remedy(),
                PastaMissing::NotInstalled | PastaMissing::NotNeeded => {
                    "as root: apt-get install passt (Debian, Ubuntu), dnf install passt (Fedora)"
                }
            };
            Finding::bad(name, Verdict::Warning, format!("{missing}; containers have no network"), fix)
        }
    }
}

fn opens_tun(program: &str) -> Result<String> {
    open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
        .at("open", "/dev/net/tun")?;
    Ok(format!("{program}; /dev/net/tun opens"))
}

fn tun_remedy() -> &'static str {
    "as root: modprobe tun && chmod 666 /dev/net/tun (outer container: docker run --device /dev/net/tun)"
}

fn ipv6() -> Finding {
    match has_ipv6() {
        true => Finding::ok("ipv6", "on"),
        false => {
            let fix = "sysctl -w net.ipv6.conf.all.disable_ipv6=0, where the kernel has it";
            Finding::bad("ipv6", Verdict::Warning, "off: containers get IPv4 only", fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsrs_base::options::{Front, in_words_of};

    #[test]
    fn a_missing_pasta_is_a_warning_that_names_the_package() {
        let finding = pasta(&Host::ordinary(1000));
        assert_eq!(finding.verdict, Verdict::Warning);
        assert!(finding.fix.contains("apt-get install passt"), "{finding:?}");
        let closed = Host { pasta: Err(PastaMissing::NoTun(libc::EACCES)), ..Host::ordinary(1000) };
        assert!(pasta(&closed).fix.contains("chmod 666 /dev/net/tun"));
        let on_a_plane = Host { pasta: Ok("/usr/bin/pasta".into()), leads_outside: false, ..Host::ordinary(1000) };
        let no_route = pasta(&on_a_plane);
        assert!(no_route.detail.contains("default route"));
        assert_eq!(in_words_of(Front::JavaScript, &no_route.fix), "connect this host, or use network host");
    }
}
