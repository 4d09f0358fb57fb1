//! The network of a plan, and the files that name it.

use std::fmt::Result;

use super::sheet::{Sheet, quoted};
use crate::net::publish::Publish;
use crate::plan::network::{Bridge, INTERFACE, Names, Network};

/// The files in /etc that are the container's own.
pub fn name_files(sheet: &mut Sheet<'_, '_>, names: &Names) -> Result {
    let Names { hosts, resolv_conf, hostname, add_hosts, dns, dns_search, dns_options } = names;
    let files = [(hosts, "/etc/hosts"), (resolv_conf, "/etc/resolv.conf"), (hostname, "/etc/hostname")]
        .map(|(own, path)| own.then_some(path));
    let files: Vec<&str> = files.into_iter().flatten().collect();
    if !files.is_empty() {
        sheet.list("own files", files)?;
    }
    for (label, values) in
        [("  add hosts", add_hosts), ("  dns", dns), ("  dns search", dns_search), ("  dns options", dns_options)]
    {
        if !values.is_empty() {
            sheet.list(label, values.iter().map(|value| quoted(value)))?;
        }
    }
    Ok(())
}

/// How the container is connected.
pub fn connection(sheet: &mut Sheet<'_, '_>, network: &Network) -> Result {
    match network {
        Network::None => sheet.prose("network", "none: a loopback interface and nothing else"),
        Network::Host => sheet.prose("network", "the host's"),
        Network::Joined => sheet.prose("network", "that of the joined namespace, left as it is"),
        Network::Bridge(bridge) => on_bridge(sheet, bridge),
        Network::Pasta { program, publish } => {
            sheet.prose("network", &format!("user mode, by {}", quoted(program)))?;
            ports(sheet, publish)
        }
    }
}

fn on_bridge(sheet: &mut Sheet<'_, '_>, bridge: &Bridge) -> Result {
    let Bridge { name, ip, ip6, mac, publish } = bridge;
    let wish = |wish: Option<String>, free: &str| wish.unwrap_or_else(|| free.to_owned());
    let ip = wish(ip.map(|ip| ip.to_string()), "a free IPv4 address");
    let ip6 = wish(ip6.map(|ip| ip.to_string()), "its IPv6 counterpart");
    sheet.prose("network", &format!("bridge {name}, as {INTERFACE} with {ip} and {ip6}"))?;
    if let Some(mac) = mac {
        let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        sheet.list("  mac", [bytes.join(":")])?;
    }
    sheet.prose("  on the host", "forwarding is switched on where it is off; masquerade by nftables")?;
    ports(sheet, publish)
}

fn ports(sheet: &mut Sheet<'_, '_>, publish: &[Publish]) -> Result {
    if publish.is_empty() {
        return Ok(());
    }
    sheet.list(
        "  ports",
        publish.iter().map(|port| {
            let address = match port.host_ip {
                Some(ip) if ip.is_ipv6() => format!("[{ip}]:"),
                Some(ip) => format!("{ip}:"),
                None => "*:".into(),
            };
            let outside = port.host_port.map_or("free".to_owned(), |port| port.to_string());
            format!("{address}{outside} -> {}/{}", port.container_port, port.proto)
        }),
    )
}
