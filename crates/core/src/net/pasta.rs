//! User-mode network by pasta(1), for callers without rights on the host.
//!
//! pasta runs beside the container, holds a tap interface in its network namespace and makes ordinary sockets of the
//! caller out of what comes in there. It is found in PATH and never shipped. What was observed of version 2023-03-09
//! (Debian 12), which is also the oldest that nsrs supports:
//!
//! - It writes its process id to the `--pid` file once the interface is up and has its addresses and routes, some 50 ms
//!   after its start, and the file may be a FIFO. So the cheapest robust way to wait is: make a FIFO, open its reading end
//!   non-blocking, start pasta, and poll that end together with pasta's pidfd: readable means ready, an exit before that
//!   means that it failed, with the reason on its standard error.
//! - In the foreground it stays after the container's last process has ended, for it holds the namespace open itself:
//!   whoever started it has to kill it.
//! - It needs a `/dev/net/tun` that the caller may open.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::net::publish::{Proto, Publish};
use nsrs_base::error::{Code, Error, Result};
use nsrs_base::options::NETWORK;
use nsrs_base::sys::helper;

/// The options without which pasta isn't safe to use, see [`argv`].
const NEEDED: [&str; 5] = ["--config-net", "--no-map-gw", "--userns", "--netns", "--ns-ifname"];

/// A pasta that is known to do what nsrs needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pasta {
    /// Path of the executable, absolute.
    pub path: PathBuf,
    /// Whether it takes `--map-host-loopback` (2024-08 and later), which maps the gateway by default.
    pub maps_host_loopback: bool,
}

impl Pasta {
    /// Looks for pasta in `search`, which has the form of PATH.
    ///
    /// # Errors
    /// `Unsupported`, with advice, when pasta is not installed.
    pub fn find(search: &OsStr) -> Result<PathBuf> {
        let is_program = |path: &PathBuf| {
            path.is_absolute()
                && path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
        };
        let mut candidates = std::env::split_paths(search).map(|folder| folder.join("pasta"));
        candidates.find(is_program).ok_or_else(|| {
            Error::new(Code::Unsupported, "find pasta", "it is in no directory of PATH")
                .hint(format!("install the package passt, or use {NETWORK} none or {NETWORK} host"))
        })
    }

    /// Reads what a pasta can do from the text of its `--help`, which goes to standard error or output by version.
    ///
    /// # Errors
    /// `Unsupported` when it lacks an option that nsrs needs.
    pub fn from_help(path: &Path, help: &str) -> Result<Pasta> {
        let has = |option: &str| help.split(|c: char| c.is_whitespace() || c == ',').any(|word| word == option);
        if let Some(missing) = NEEDED.into_iter().find(|option| !has(option)) {
            let error = Error::new(Code::Unsupported, "use pasta", format!("it has no option {missing}"));
            return Err(error.on(path.display().to_string()).hint("install passt of 2023-03-09 or later"));
        }
        Ok(Pasta { path: path.to_owned(), maps_host_loopback: has("--map-host-loopback") })
    }

    /// Finds pasta and runs its `--help` once.
    ///
    /// # Errors
    /// As [`Pasta::find`] and [`Pasta::from_help`], or it can't be run.
    pub fn probe(search: &OsStr) -> Result<Pasta> {
        let path = Pasta::find(search)?;
        let step = "ask pasta what it can do";
        let ended = helper::run(step, std::process::Command::new(&path).arg("--help"))?;
        // By version it ends with 0 or not.
        if !ended.said.contains("--") {
            return Err(Error::new(Code::Unsupported, step, ended.why())
                .on(path.display().to_string())
                .hint("run it with --help by hand; the package passt may have to be installed anew"));
        }
        Pasta::from_help(&path, &ended.said)
    }
}

/// What pasta is started with for one container.
#[derive(Clone, Copy, Debug)]
pub struct PastaPlan<'a> {
    /// The executable, and what it can do.
    pub pasta: &'a Pasta,
    /// A process in the container's user and network namespaces, as the caller's procfs numbers it.
    pub pid: u32,
    /// Whether the container has a user namespace of its own.
    pub userns: bool,
    /// The name of the interface in the container.
    pub interface: &'a str,
    /// The ports to forward. A host's port that is `None` must have been chosen before.
    pub publish: &'a [Publish],
    /// Where pasta writes its process id when it is ready: a FIFO, see the text above.
    pub ready: &'a str,
}

/// The arguments of pasta, its own name first. Nothing but the published ports is forwarded in either direction: without
/// these options pasta would forward all ports that are bound, and give the container the host's loopback as gateway.
#[must_use]
pub fn argv(plan: &PastaPlan) -> Vec<String> {
    let mut argv: Vec<String> = vec![plan.pasta.path.display().to_string()];
    let mut add = |words: &[&str]| argv.extend(words.iter().map(ToString::to_string));
    add(&["--foreground", "--quiet", "--config-net", "--no-map-gw"]);
    if plan.pasta.maps_host_loopback {
        add(&["--map-host-loopback", "none", "--map-guest-addr", "none"]);
    }
    add(&["--ns-ifname", plan.interface, "--pid", plan.ready]);
    for (proto, inward, outward) in [(Proto::Tcp, "--tcp-ports", "--tcp-ns"), (Proto::Udp, "--udp-ports", "--udp-ns")] {
        let ports = plan.publish.iter().filter(|publish| publish.proto == proto).filter_map(forward);
        let before = argv.len();
        argv.extend(ports.flat_map(|port| [inward.to_owned(), port]));
        if argv.len() == before {
            argv.extend([inward.to_owned(), "none".to_owned()]);
        }
        argv.extend([outward.to_owned(), "none".to_owned()]);
    }
    argv.extend(["--netns".to_owned(), format!("/proc/{}/ns/net", plan.pid)]);
    if plan.userns {
        argv.extend(["--userns".to_owned(), format!("/proc/{}/ns/user", plan.pid)]);
    } else {
        argv.push("--netns-only".to_owned());
    }
    argv
}

/// One port in pasta's words: `[address/]host:container`, an IPv6 address without brackets.
fn forward(publish: &Publish) -> Option<String> {
    let ports = format!("{}:{}", publish.host_port?, publish.container_port);
    Some(match publish.host_ip {
        Some(ip) if ip != IpAddr::from([0; 16]) => format!("{ip}/{ports}"),
        _ => ports,
    })
}

#[cfg(test)]
mod tests {
    use nsrs_testing::skip;

    use super::*;
    use crate::net::publish::parse;

    const HELP_2023: &str = "  --no-map-gw\t\tDon't\n  --userns NSPATH \tx\n  --netns PATH|NAME\tx\n  --config-net\t\tx\n\
                             \x20 -I, --ns-ifname NAME\tx\n";

    #[test]
    fn knows_what_a_pasta_can_do_from_its_help() {
        let path = Path::new("/usr/bin/pasta");
        assert!(!Pasta::from_help(path, HELP_2023).unwrap().maps_host_loopback);
        let newer = format!("{HELP_2023}  --map-host-loopback ADDR\tx\n");
        assert!(Pasta::from_help(path, &newer).unwrap().maps_host_loopback);
        let error = Pasta::from_help(path, "--config-net --netns --userns --ns-ifname").unwrap_err();
        assert!(error.reason.contains("--no-map-gw") && !error.hint.is_empty(), "{error}");
    }

    #[test]
    fn says_what_to_install_when_there_is_none() {
        let error = Pasta::find(OsStr::new("/nonexistent:relative")).unwrap_err();
        assert_eq!(error.code, Code::Unsupported);
        assert!(error.hint.contains("passt"), "{error}");
    }

    #[test]
    fn the_installed_pasta_is_usable() {
        let search = OsStr::new("/usr/local/bin:/usr/bin:/bin");
        match Pasta::find(search) {
            Err(_) => skip!("needs pasta"),
            Ok(_) => drop(Pasta::probe(search).unwrap()),
        }
    }

    #[test]
    fn forwards_the_published_ports_and_nothing_else() {
        let pasta = Pasta { path: "/usr/bin/pasta".into(), maps_host_loopback: false };
        let publish: Vec<_> =
            ["8080:80", "127.0.0.1:81:81", "[::1]:82:82"].iter().flat_map(|text| parse(text).unwrap()).collect();
        let ready = "/run/nsrs/ready";
        let plan = PastaPlan { pasta: &pasta, pid: 7, userns: true, interface: "eth0", publish: &publish, ready };
        assert_eq!(
            argv(&plan).join(" "),
            "/usr/bin/pasta --foreground --quiet --config-net --no-map-gw --ns-ifname eth0 --pid /run/nsrs/ready \
             --tcp-ports 8080:80 --tcp-ports 127.0.0.1/81:81 --tcp-ports ::1/82:82 --tcp-ns none \
             --udp-ports none --udp-ns none --netns /proc/7/ns/net --userns /proc/7/ns/user"
        );
    }

    #[test]
    fn a_newer_pasta_is_told_not_to_map_the_loopback() {
        let pasta = Pasta { path: "/usr/bin/pasta".into(), maps_host_loopback: true };
        let plan = PastaPlan { pasta: &pasta, pid: 7, userns: false, interface: "eth0", publish: &[], ready: "r" };
        let argv = argv(&plan).join(" ");
        assert!(argv.contains("--map-host-loopback none") && argv.ends_with("--netns-only"), "{argv}");
    }
}
