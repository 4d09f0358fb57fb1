//! The host's file tree: its mount points and its homes.

use std::fs;

use serde::{Deserialize, Serialize};

/// Per-mount restrictions, set on the whole tree of a mount in one mount_setattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Attributes {
    /// No writing.
    pub read_only: bool,
    /// Set-user-ID bits and file capabilities are ignored.
    pub nosuid: bool,
    /// Device nodes don't work.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
    /// Symbolic links are not followed.
    pub nosymfollow: bool,
}

/// A file system of the host that is overlaid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overlay {
    /// Where it is mounted, on the host and in the container.
    pub path: String,
    /// The host's restrictions, which stay.
    pub attributes: Attributes,
}

/// The mount table and homes of the host, read when a container wants the host's own tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostTree {
    /// Real file systems mounted on directories, parents first.
    pub directories: Vec<Overlay>,
    /// Mount points of real file systems that are files.
    pub files: Vec<String>,
    /// Every mount point, of whatever file system.
    pub mount_points: Vec<String>,
    /// Home directories of this host's people.
    pub homes: Vec<String>,
}

/// File systems that hold no files of people: windows into the kernel, and mounts that only trigger others.
const PSEUDO: [&str; 21] = [
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "devpts",
    "devtmpfs",
    "securityfs",
    "debugfs",
    "tracefs",
    "bpf",
    "pstore",
    "mqueue",
    "hugetlbfs",
    "configfs",
    "fusectl",
    "binfmt_misc",
    "autofs",
    "nsfs",
    "efivarfs",
    "rpc_pipefs",
    "selinuxfs",
];

impl HostTree {
    /// Reads /proc/self/mountinfo (proc_pid_mountinfo(5)) and the homes in /home and /root.
    #[must_use]
    pub fn read() -> HostTree {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let is_file = |mount: &Overlay| fs::metadata(&mount.path).is_ok_and(|meta| !meta.is_dir());
        let (files, directories): (Vec<_>, Vec<_>) = mount_points(&table).into_iter().partition(is_file);
        let files = files.into_iter().map(|mount| mount.path).collect();
        let homes = fs::read_dir("/home").into_iter().flatten().flatten();
        let homes = homes.map(|entry| entry.path().to_string_lossy().into_owned()).chain(["/root".to_owned()]);
        let all = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect();
        HostTree { directories, files, mount_points: all, homes: homes.collect() }
    }
}

/// The mount points of real file systems, each once, parents first.
fn mount_points(mountinfo: &str) -> Vec<Overlay> {
    let mut points: Vec<Overlay> = Vec::new();
    for line in mountinfo.lines() {
        let mut fields = line.split(' ');
        let (Some(point), Some(options), Some(kind)) =
            (fields.nth(4), fields.next(), fields.skip_while(|field| *field != "-").nth(1))
        else {
            continue;
        };
        let path = unescape(point);
        points.retain(|earlier| earlier.path != path);
        if !PSEUDO.contains(&kind) && !kind.starts_with("fuse.gvfsd") && kind != "fuse.portal" {
            let has = |name: &str| options.split(',').any(|option| option == name);
            let attributes = Attributes {
                read_only: has("ro"),
                nosuid: has("nosuid"),
                nodev: has("nodev"),
                noexec: has("noexec"),
                nosymfollow: has("nosymfollow"),
            };
            points.push(Overlay { path, attributes });
        }
    }
    points.sort_by_key(|point| point.path.split('/').filter(|part| !part.is_empty()).count());
    points
}

/// The kernel writes space, tab, newline and backslash in octal.
pub fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, octal) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
30 25 0:27 / /srv/my\\040disk rw - ext4 /dev/vdb rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
28 27 0:25 / /mnt/tools ro master:3 - tmpfs tools ro
29 27 0:26 / /home rw - btrfs /dev/vdc rw
31 29 0:30 / /home rw - proc proc rw
";

    #[test]
    fn real_file_systems_come_parents_first() {
        let points = mount_points(TABLE);
        assert_eq!(
            points.iter().map(|point| point.path.as_str()).collect::<Vec<_>>(),
            ["/", "/srv/my disk", "/mnt/tools"]
        );
        assert!(points[2].attributes.read_only && !points[0].attributes.read_only);
    }

    #[test]
    fn what_is_mounted_last_on_a_point_counts() {
        assert!(mount_points(TABLE).iter().all(|point| point.path != "/home"));
    }
}
