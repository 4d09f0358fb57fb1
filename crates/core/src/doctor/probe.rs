//! A try in a short-lived child. Whatever happens there, an endless wait included, the caller goes on.

use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::plan::namespace::Kind;
use crate::steps::root::make_private;
use nsrs_base::error::{Act, During, Result};
use nsrs_base::host::Host;
use nsrs_base::ids::maps;
use nsrs_base::ids::maps::{IdMap, MapWriter, UserNamespace};
use nsrs_base::sys::child;

/// How long one try may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Tries `body` in a child, and hands on what it saw.
pub fn run(body: impl FnOnce() -> Result<String>) -> Result<String> {
    in_child(LIMIT, 0, body)
}

/// Tries `body` in a child with new namespaces of these kinds. For a caller without rights a user namespace is added, in
/// which the caller keeps their id. Mounts are private.
pub fn within(host: &Host, kinds: &[Kind], body: impl FnOnce() -> Result<String>) -> Result<String> {
    let user = !host.privileged || kinds.contains(&Kind::User);
    let first = if user { Kind::User.flag() } else { 0 };
    let flags = kinds.iter().fold(first, |flags, kind| flags | kind.flag());
    let own = |id: u32| vec![IdMap { inside: id, outside: id, count: 1 }];
    let map = UserNamespace::Private {
        uids: own(host.uid),
        gids: own(host.gid),
        writer: MapWriter::Process,
        deny_setgroups: true,
    };
    in_child(LIMIT, flags, || {
        if user {
            maps::write_own(&map)?;
        }
        if kinds.contains(&Kind::Mount) {
            make_private()?;
        }
        body()
    })
}

fn in_child(limit: Duration, flags: u64, body: impl FnOnce() -> Result<String>) -> Result<String> {
    let kinds: Vec<&str> = Kind::ALL.iter().filter(|kind| flags & kind.flag() != 0).map(|kind| kind.file()).collect();
    let step = if kinds.is_empty() { "make a process" } else { "make the namespaces" };
    let asked = child::ask(step, &kinds.join(", "), flags, || {
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        body()
    })
    .during(Act::Namespaces)?;
    asked.wait_within("try it", limit)
}
