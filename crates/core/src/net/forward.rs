//! The host's settings below `/proc/sys/net` that a bridge needs, with a record of what they were.
//!
//! The record is written before a setting is changed, so that a later nsrs command can restore it after a crash. It
//! belongs to a state directory and not to one bridge: several bridges need the same setting.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use nsrs_base::error::{At, Result};

/// The directory of network settings (proc_sys_net(5)).
const SYS_NET: &str = "/proc/sys/net";

/// A setting that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    /// The file below `/proc/sys/net`: `ipv4/ip_forward`.
    pub setting: String,
    /// The value that is restored when no bridge needs the setting any more.
    pub before: String,
    /// The value that nsrs wrote.
    pub after: String,
}

impl SettingChange {
    /// A sentence for the user: `set net.ipv4.ip_forward from 0 to 1`.
    #[must_use]
    pub fn sentence(&self) -> String {
        // A dot may be part of an interface's name, so sysctl(8) writes it as a slash.
        let swap = |c| match c {
            '/' => '.',
            '.' => '/',
            other => other,
        };
        let setting: String = self.setting.chars().map(swap).collect();
        format!("set net.{setting} from {} to {}", self.before, self.after)
    }
}

/// What this host needs so that packets of a bridge reach the outside: the settings that have another value now.
///
/// IPv6: where an interface has `force_forwarding` (Linux 6.17) that alone is set, for the host stays a host then. On an
/// older kernel all interfaces forward or none, and a host that forwards ignores router advertisements unless
/// `accept_ra` is 2, so that is set first where it was 1: else the host would lose its own route.
///
/// # Errors
/// A setting can't be read.
pub fn needed(bridge: &str, outside_v6: &[String], with_v6: bool) -> Result<Vec<SettingChange>> {
    let mut wanted = vec![("ipv4/ip_forward".to_owned(), "1")];
    if with_v6 && read("ipv6/conf/all/forwarding")?.as_deref() == Some("0") {
        let forced = format!("ipv6/conf/{bridge}/force_forwarding");
        if read(&forced)?.is_some() {
            wanted.push((forced, "1"));
            wanted.extend(outside_v6.iter().map(|name| (format!("ipv6/conf/{name}/force_forwarding"), "1")));
        } else {
            for name in interfaces("ipv6/conf")? {
                let setting = format!("ipv6/conf/{name}/accept_ra");
                if read(&setting)?.as_deref() == Some("1") {
                    wanted.push((setting, "2"));
                }
            }
            wanted.push(("ipv6/conf/all/forwarding".to_owned(), "1"));
        }
    }
    let mut changes = Vec::new();
    for (setting, after) in wanted {
        if let Some(before) = read(&setting)?.filter(|before| before != after) {
            changes.push(SettingChange { setting, before, after: after.to_owned() });
        }
    }
    Ok(changes)
}

/// Settings of nsrs's own bridge, which go away with it: no router advertisements. Nothing is recorded.
///
/// # Errors
/// The kernel's refusal.
pub fn quiet(bridge: &str) -> Result<()> {
    for setting in ["accept_ra", "accept_dad"] {
        write_if_present(&format!("ipv6/conf/{bridge}/{setting}"), "0")?;
    }
    Ok(())
}

/// Lets connections from and to 127.0.0.0/8 pass the bridge, for ports that are published on the host's loopback.
/// The nftables table must be in place before: its guard keeps everybody else away from that network.
///
/// # Errors
/// The kernel's refusal.
pub fn route_loopback(bridge: &str) -> Result<()> {
    write_if_present(&format!("ipv4/conf/{bridge}/route_localnet"), "1")
}

/// Makes the changes, in order.
///
/// # Errors
/// The kernel's refusal, for example in a container whose `/proc/sys` is read-only.
pub fn apply(changes: &[SettingChange]) -> Result<()> {
    changes.iter().try_for_each(|change| write(&change.setting, &change.after))
}

/// Undoes the changes in reverse, where the setting still is what we made it: somebody else may have decided since.
///
/// # Errors
/// The kernel's refusal. An interface that is gone took its settings with it.
pub fn restore(changes: &[SettingChange]) -> Result<()> {
    for change in changes.iter().rev() {
        if read(&change.setting)?.as_deref() == Some(change.after.as_str()) {
            write_if_present(&change.setting, &change.before)?;
        }
    }
    Ok(())
}

/// Whether this network namespace does IPv6 at all.
#[must_use]
pub fn has_ipv6() -> bool {
    matches!(read("ipv6/conf/all/disable_ipv6"), Ok(Some(value)) if value == "0")
}

fn interfaces(folder: &str) -> Result<Vec<String>> {
    let path = Path::new(SYS_NET).join(folder);
    let entries = fs::read_dir(&path).at("list the interfaces in", path.display())?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| name != "all" && name != "default").collect())
}

/// `None` for a setting that this kernel, or this interface, doesn't have.
fn read(setting: &str) -> Result<Option<String>> {
    let path = Path::new(SYS_NET).join(setting);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        text => Ok(Some(text.at("read the setting", path.display())?.trim().to_owned())),
    }
}

fn write(setting: &str, value: &str) -> Result<()> {
    let path = Path::new(SYS_NET).join(setting);
    fs::write(&path, value).at("write the setting", path.display()).map_err(|error| match error.errno {
        Some(libc::EROFS | libc::EACCES) => {
            error.hint("/proc/sys is read-only here: have the host set it, or choose another network")
        }
        _ => error,
    })
}

fn write_if_present(setting: &str, value: &str) -> Result<()> {
    write(setting, value).or_else(|error| if error.errno == Some(libc::ENOENT) { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{in_new_netns, veth};

    #[test]
    fn says_what_was_changed_in_the_words_of_sysctl() {
        let change = |setting: &str| SettingChange { setting: setting.into(), before: "0".into(), after: "1".into() };
        assert_eq!(change("ipv4/ip_forward").sentence(), "set net.ipv4.ip_forward from 0 to 1");
        let dotted = change("ipv6/conf/eth0.5/force_forwarding").sentence();
        assert_eq!(dotted, "set net.ipv6.conf.eth0/5.force_forwarding from 0 to 1");
    }

    #[test]
    fn changes_what_is_needed_once_and_restores_it() {
        in_new_netns(|| {
            veth("eth9", &[]);
            let outside = ["eth9".to_owned()];
            write("ipv4/ip_forward", "0").unwrap();
            let changes = needed("eth9", &outside, true).unwrap();
            assert_eq!(changes[0].setting, "ipv4/ip_forward");
            assert!(changes.len() > 1, "{changes:?}");
            apply(&changes).unwrap();
            assert_eq!(needed("eth9", &outside, true).unwrap(), []);
            restore(&changes).unwrap();
            assert_eq!(needed("eth9", &outside, true).unwrap(), changes);
        });
    }

    #[test]
    fn leaves_what_somebody_else_decided_since() {
        in_new_netns(|| {
            let change =
                SettingChange { setting: "ipv4/ip_default_ttl".into(), before: "64".into(), after: "65".into() };
            write("ipv4/ip_default_ttl", "66").unwrap();
            restore(&[change]).unwrap();
            assert_eq!(read("ipv4/ip_default_ttl").unwrap().unwrap(), "66");
        });
    }
}
