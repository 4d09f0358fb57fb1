//! User-mode network by pasta(1), for callers without rights on the host. [`crate::net::pasta`] says how pasta behaves.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    ContainerSide, INTERFACE, Network, NetworkKind, NetworkProgram, NetworkRequest, ProgramTarget, Rows, SharedNetwork,
    explain_ports,
};
use crate::net::pasta::{Pasta, PastaPlan, argv};
use crate::net::publish::Publish;
use crate::net::{inside, ports};
use nsrs_base::error::{Code, Error, Result};
use nsrs_base::host::Host;
use nsrs_base::options::NETWORK;

/// A container that pasta connects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastaNetwork {
    /// Path of the executable.
    pub program: String,
    /// Ports of the host that lead to the container.
    pub publish: Vec<Publish>,
}

pub fn validate(request: &NetworkRequest<'_>, host: &Host) -> (Network, Vec<Error>) {
    let mut problems = Vec::new();
    let publish = request.ports(&mut problems);
    let mut refuse = |why: &str, hint: &str| {
        problems.push(Error::new(Code::Unsupported, format!("use {NETWORK} pasta"), why).about(NETWORK).hint(hint));
    };
    if host.privileged {
        refuse("it is for callers without rights", &format!("as root use {NETWORK} bridge"));
    }
    if request.joins_user_namespace {
        let hint = &format!("join the network namespace too, or use {NETWORK} none");
        refuse("it can't enter a user namespace that was joined", hint);
    }
    if let (Err(missing), false) = (&host.pasta, host.privileged) {
        let hint = &format!(
            "install it (Debian: apt-get install passt), let users open /dev/net/tun (chmod 666), or use {NETWORK} none"
        );
        refuse(&missing.to_string(), hint);
    }
    let program = host.pasta.clone().unwrap_or_default();
    (Network::Pasta(PastaNetwork { program, publish }), problems)
}

impl NetworkKind for PastaNetwork {
    fn name(&self) -> &'static str {
        "pasta"
    }

    fn publishes(&self) -> bool {
        true
    }

    fn explain(&self, rows: &mut dyn Rows) -> fmt::Result {
        let PastaNetwork { program, publish } = self;
        let program = rows.quote(program);
        rows.prose("network", &format!("user mode, by {program}"))?;
        explain_ports(rows, publish)
    }

    fn can_be_prewarmed(&self) -> bool {
        self.publish.is_empty()
    }

    fn needs_program(&self) -> bool {
        true
    }

    fn program(&self, shared: &mut SharedNetwork, container: &ProgramTarget<'_>) -> Result<Option<NetworkProgram>> {
        let pasta = match &mut shared.pasta {
            Some(pasta) => pasta,
            none => none.insert(probe(&self.program)?),
        };
        // If a port is taken, pasta continues with the other address family, and gives no reason where both are taken.
        let publish = ports::choose(&self.publish)?;
        let args = argv(&PastaPlan {
            pasta,
            pid: container.pid as u32,
            userns: container.has_user_namespace,
            interface: INTERFACE,
            publish: &publish,
            ready: container.ready,
        });
        Ok(Some(NetworkProgram {
            name: "pasta",
            args,
            ports: publish.iter().map(ToString::to_string).collect(),
            hint: format!(
                "pasta needs a default route on the host, a /dev/net/tun that this user may open, and ports that this user may take; or use {NETWORK} none"
            ),
        }))
    }

    fn inside(&self, side: &dyn ContainerSide) -> Result<()> {
        side.ask_for_program()?;
        inside::loopback_up()?;
        side.wait()
    }
}

fn probe(program: &str) -> Result<Pasta> {
    let directory = Path::new(program).parent().map_or(OsStr::new("/"), Path::as_os_str);
    Pasta::probe(directory)
}
