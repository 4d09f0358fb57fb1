//! The kinds of network that a container can have: one file each, which decides all that differs from kind to kind.
//!
//! A new kind is a new file with its [`NetworkKind`], a variant of [`Network`], and a word in [`resolve`].

mod bridge;
mod host;
mod joined;
mod none;
mod pasta;

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::bridge::{BRIDGE, BridgeNetwork};
pub use self::pasta::PastaNetwork;
use crate::net::inside::InterfaceAddress;
use crate::net::pasta::Pasta;
use crate::net::publish::{self, Publish};
use nsrs_base::error::{Error, Result};
use nsrs_base::host::Host;

/// The interface of a container that has one of its own.
pub const INTERFACE: &str = "eth0";

/// How a container is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Network {
    /// A network namespace with nothing but a loopback interface.
    None,
    /// No network of its own: the caller's network namespace, with all that is in it.
    Host,
    /// A joined network namespace, left as it is.
    Joined,
    /// An interface on the bridge, with a way out by masquerade.
    Bridge(BridgeNetwork),
    /// An interface that pasta(1) connects to the caller's network, without rights on the host.
    Pasta(PastaNetwork),
}

impl Network {
    /// What is done for a network of this kind.
    #[must_use]
    pub fn kind(&self) -> &dyn NetworkKind {
        match self {
            Network::None => &none::NoNetwork,
            Network::Host => &host::HostNetwork,
            Network::Joined => &joined::JoinedNetwork,
            Network::Bridge(network) => network,
            Network::Pasta(network) => network,
        }
    }
}

/// The network that a word of the caller's stands for, and everything that is wrong with it; `None` for a word of no kind.
#[must_use]
pub fn resolve(word: &str, request: &NetworkRequest<'_>, host: &Host) -> Option<(Network, Vec<Error>)> {
    Some(match word {
        "none" => (Network::None, Vec::new()),
        "host" => (Network::Host, Vec::new()),
        "bridge" => bridge::validate(request, host),
        "pasta" => pasta::validate(request, host),
        _ => return None,
    })
}

/// What the caller wants of the network.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetworkRequest<'a> {
    /// The IPv4 address that the container asks for.
    pub ip: Option<&'a str>,
    /// The IPv6 address that the container asks for.
    pub ip6: Option<&'a str>,
    /// The hardware (MAC) address that the container asks for.
    pub mac: Option<&'a str>,
    /// Ports to publish, in docker's form.
    pub publish: &'a [String],
    /// The container joins a user namespace.
    pub joins_user_namespace: bool,
}

impl NetworkRequest<'_> {
    /// The ports; what is wrong with them goes to `problems`.
    fn ports(&self, problems: &mut Vec<Error>) -> Vec<Publish> {
        let mut all = Vec::new();
        for text in self.publish {
            match publish::parse(text) {
                Ok(ports) => all.extend(ports),
                Err(error) => problems.push(error),
            }
        }
        problems.extend(publish::conflicts(&all).err());
        all
    }
}

/// Whose network namespace a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceOwner {
    /// The container's own, made with it.
    Container,
    /// That of the calling process.
    Caller,
    /// That of whoever made it; it is joined.
    Other,
}

/// What differs from kind to kind of network, in the order in which it is asked or done. What most kinds lack, a default says.
pub trait NetworkKind {
    /// The word for it in reports.
    fn name(&self) -> &'static str;

    /// Whose network namespace the container is in.
    fn namespace(&self) -> NamespaceOwner {
        NamespaceOwner::Container
    }

    /// Something can be reached by it, so that names are worth looking up.
    fn is_connected(&self) -> bool {
        true
    }

    /// It gives addresses that the caller can choose.
    fn gives_addresses(&self) -> bool {
        false
    }

    /// Whether ports of the host can lead to the container.
    fn publishes(&self) -> bool {
        false
    }

    /// Rows about it in the explanation of a plan.
    ///
    /// # Errors
    /// Those of the writer.
    fn explain(&self, rows: &mut dyn Rows) -> fmt::Result;

    /// What of it the state of the host's network refuses already.
    fn check(&self, _state: &Path) -> Vec<Error> {
        Vec::new()
    }

    /// Whether a container can be prewarmed: it holds nothing that others may want in the meantime, and joins nothing that
    /// may be gone by then.
    fn can_be_prewarmed(&self) -> bool;

    /// What prewarmed containers were connected to is still there.
    fn still_stands(&self, _shared: &mut SharedNetwork) -> bool {
        true
    }

    /// It wants an address that a prewarmed container may hold.
    fn wants_address(&self) -> bool {
        false
    }

    /// Takes what the container needs of the host, before it exists.
    ///
    /// # Errors
    /// No rights, no free address, a port in use.
    fn reserve(&self, _shared: &mut SharedNetwork, _state: &Path) -> Result<Attachment> {
        Ok(Attachment::default())
    }

    /// Connects the container, whose first process exists by now. Returns whether that process waits for it.
    ///
    /// # Errors
    /// The kernel refuses a link or a rule.
    fn up(&self, _shared: &mut SharedNetwork, _attachment: &Attachment, _pid: i32, _state: &Path) -> Result<bool> {
        Ok(false)
    }

    /// A program has to run beside the container, which asks for it when the program may enter.
    fn needs_program(&self) -> bool {
        false
    }

    /// The program, if one is needed.
    ///
    /// # Errors
    /// It can't be used, or a port is taken.
    fn program(&self, _shared: &mut SharedNetwork, _container: &ProgramTarget<'_>) -> Result<Option<NetworkProgram>> {
        Ok(None)
    }

    /// Connects the container from inside, in its first process.
    ///
    /// # Errors
    /// The kernel refuses, or the supervisor is gone.
    fn inside(&self, side: &dyn ContainerSide) -> Result<()>;

    /// Takes the container's rules back. Its interface goes with its network namespace, the rest with the [`Attachment`].
    ///
    /// # Errors
    /// The kernel refuses the removal.
    fn down(&self, _shared: &mut SharedNetwork, _attachment: &Attachment) -> Result<()> {
        Ok(())
    }
}

/// Where a kind of network explains itself.
pub trait Rows {
    /// A row of prose.
    ///
    /// # Errors
    /// Those of the writer.
    fn prose(&mut self, label: &str, text: &str) -> fmt::Result;

    /// A row of items.
    ///
    /// # Errors
    /// Those of the writer.
    fn list(&mut self, label: &str, items: &[String]) -> fmt::Result;

    /// A word of somebody else's, as a shell reads it.
    fn quote(&self, word: &str) -> String;
}

/// A row with published ports, if there are any.
fn explain_ports(rows: &mut dyn Rows, publish: &[Publish]) -> fmt::Result {
    if publish.is_empty() {
        return Ok(());
    }
    let text = |port: &Publish| {
        let address = match port.host_ip {
            Some(ip) if ip.is_ipv6() => format!("[{ip}]:"),
            Some(ip) => format!("{ip}:"),
            None => "*:".into(),
        };
        let outside = port.host_port.map_or("free".to_owned(), |port| port.to_string());
        format!("{address}{outside} -> {}/{}", port.container_port, port.proto)
    };
    rows.list("  ports", &publish.iter().map(text).collect::<Vec<_>>())
}

/// What a container holds of the host's network. Dropping it gives addresses and ports back.
#[derive(Debug, Default)]
pub struct Attachment {
    /// The container's addresses, with their lengths and gateways.
    pub addresses: Vec<InterfaceAddress>,
    /// Its published ports, as reports show them.
    pub ports: Vec<String>,
    /// What was switched on on the host for it.
    pub notes: Vec<String>,
    bridge: Option<bridge::BridgePort>,
}

/// What the containers of one supervisor share.
#[derive(Debug, Default)]
pub struct SharedNetwork {
    bridge: Option<bridge::SharedBridge>,
    pasta: Option<Pasta>,
}

impl SharedNetwork {
    /// There is something to [`SharedNetwork::release`], which takes a moment.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.bridge.is_some()
    }

    /// Gives up what is shared, and removes what nobody else uses.
    ///
    /// # Errors
    /// The kernel refuses the removal.
    pub fn release(&mut self) -> Result<()> {
        self.bridge.take().map_or(Ok(()), bridge::SharedBridge::release)
    }
}

/// The container beside which a program runs.
#[derive(Clone, Copy, Debug)]
pub struct ProgramTarget<'a> {
    /// Its first process, by the number that the supervisor sees.
    pub pid: i32,
    /// It has a user namespace of its own.
    pub has_user_namespace: bool,
    /// A FIFO that becomes readable when the program has connected the container.
    pub ready: &'a str,
}

/// A program that connects a container, and runs as long as that does.
#[derive(Debug)]
pub struct NetworkProgram {
    /// What it is called in errors.
    pub name: &'static str,
    /// Its arguments, the path of the executable first.
    pub args: Vec<String>,
    /// The ports that it publishes, as reports show them.
    pub ports: Vec<String>,
    /// What to do where it fails.
    pub hint: String,
}

/// The first process of a container, which connects it from inside.
pub trait ContainerSide {
    /// Waits until the host's side is done.
    ///
    /// # Errors
    /// The supervisor is gone.
    fn wait(&self) -> Result<()>;

    /// Lets a program of the caller's in, and asks for it.
    ///
    /// # Errors
    /// The supervisor is gone.
    fn ask_for_program(&self) -> Result<()>;

    /// The addresses that its interface gets, as they were reserved.
    fn addresses(&self) -> &[InterfaceAddress];

    /// The root of a procfs of this network namespace, which no file of the container covers.
    ///
    /// # Errors
    /// The kernel refuses a new one.
    fn proc(&self) -> Result<ProcRoot<'_>>;
}

/// The root of a procfs.
#[derive(Debug)]
pub enum ProcRoot<'a> {
    /// The one that the container has mounted.
    Mounted(BorrowedFd<'a>),
    /// One that was opened for this.
    Opened(OwnedFd),
}
