//! Other firewalls that drop what is forwarded: nsrs can't overrule them, so they are named.

use netlink_bindings::nftables::{Nfgenmsg, OpGetchainDump};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::{Finding, Verdict, probe};
use crate::net::kinds::BRIDGE;
use nsrs_base::error::{At, Code, Error, Result};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN`.
const GET_CHAIN: u16 = 10 << 8 | 4;
const NEW_CHAIN: u16 = 10 << 8 | 3;
/// Of a netlink message (netlink(7)).
const HEADER: usize = 16;
/// `NF_INET_FORWARD`, and the policy `NF_DROP`.
const FORWARD: u32 = 2;
const DROP: u32 = 0;

pub fn examine() -> Finding {
    let name = "other firewalls";
    // In a child for its time limit; it only reads.
    match probe::run(|| dropping().map(|chains| chains.join(", "))) {
        Ok(chains) if chains.is_empty() => Finding::ok(name, "no nftables chain drops what is forwarded"),
        Ok(chains) => Finding::bad(
            name,
            Verdict::Warning,
            format!("policy drop in {chains}: packets of the bridge may not pass"),
            format!(
                "iptables -I FORWARD -i {BRIDGE} -j ACCEPT && iptables -I FORWARD -o {BRIDGE} -j ACCEPT (docker: in \
                 DOCKER-USER; firewalld: firewall-cmd --zone=trusted --add-interface={BRIDGE})"
            ),
        ),
        Err(error) => Finding::ok(name, format!("not seen: {error}")),
    }
}

/// Base chains of any family at the forward hook with policy drop, as `table chain`.
fn dropping() -> Result<Vec<String>> {
    let step = "list the nftables chains";
    let mut socket = Socket::new(NETLINK_NETFILTER).at(step, "")?;
    socket.bind_auto().at(step, "")?;
    let mut body = Vec::new();
    OpGetchainDump::encode_request(&mut body, &Nfgenmsg::default());
    let length = (HEADER + body.len()) as u32;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut request = Vec::from(length.to_ne_bytes());
    request.extend(GET_CHAIN.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    socket.send_to(&request, &SocketAddr::new(0, 0), 0).at(step, "")?;
    let mut chains = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full().at(step, "")?;
        for (kind, body) in Messages(&bytes) {
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(chains),
                libc::NLMSG_ERROR => return Err(Error::new(Code::Unsupported, step, "the kernel refuses it")),
                _ if kind == NEW_CHAIN => chains.extend(drops(body)),
                _ => {}
            }
        }
    }
}

fn drops(body: &[u8]) -> Option<String> {
    let (_, chain) = OpGetchainDump::decode_request(body);
    let forward = chain.get_hook().ok()?.get_num().ok()? == FORWARD;
    (forward && chain.get_policy().ok()? == DROP).then(|| {
        let text = |name: std::result::Result<&std::ffi::CStr, _>| {
            name.map_or("?".into(), |name: &std::ffi::CStr| name.to_string_lossy().into_owned())
        };
        format!("{} {}", text(chain.get_table()), text(chain.get_name()))
    })
}

/// The messages of a datagram: kind and body.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = u32::from_ne_bytes(*self.0.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes([*self.0.get(4)?, *self.0.get(5)?]);
        let body = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    }
}

#[cfg(test)]
mod tests {
    use nsrs_testing::skip;

    use super::*;
    use crate::net::testing::in_new_netns;

    #[test]
    fn a_dropping_forward_chain_is_named_and_an_accepting_one_is_not() {
        in_new_netns(|| {
            let nft =
                |rules: &str| std::process::Command::new("nft").arg(rules).status().map(|status| status.success());
            if nft("list ruleset").is_err() {
                skip!("needs nft");
            }
            assert_eq!(dropping().unwrap(), Vec::<String>::new());
            for rules in [
                "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
                "add table inet soft; add chain inet soft through { type filter hook forward priority 0; policy accept; }",
                "add chain inet soft coming { type filter hook input priority 0; policy drop; }; add chain inet soft plain",
            ] {
                assert!(nft(rules).unwrap(), "{rules}");
            }
            assert_eq!(dropping().unwrap(), ["filter FORWARD"]);
        });
    }
}
