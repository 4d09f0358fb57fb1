//! The host's file tree: its mount points and its homes.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::mountinfo::{self, MountEntry};
use crate::error::{Code, Error, Result, show};
use crate::options::ROOTFS;

/// Per-mount restrictions, set on the whole tree of a mount in one mount_setattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Attributes {
    /// Nothing can be written (`MOUNT_ATTR_RDONLY`).
    pub read_only: bool,
    /// Set-user-ID bits and file capabilities are ignored.
    pub nosuid: bool,
    /// Device nodes can't be opened.
    pub nodev: bool,
    /// Programs on the mount can't be executed.
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
    /// Reads the mount table of this process and the homes in /home and /root.
    ///
    /// # Errors
    /// It can't be read; a mount point or a home has a name that is not UTF-8, and could be neither overlaid nor hidden.
    pub fn read() -> Result<HostTree> {
        let table = mountinfo::parse(&mountinfo::read("self")?)?;
        let is_file = |mount: &Overlay| fs::metadata(&mount.path).is_ok_and(|meta| !meta.is_dir());
        let (files, directories): (Vec<_>, Vec<_>) = file_systems(&table)?.into_iter().partition(is_file);
        let files = files.into_iter().map(|mount| mount.path).collect();
        let mount_points = table.iter().map(|mount| text(&mount.point)).collect::<Result<_>>()?;
        Ok(HostTree { directories, files, mount_points, homes: homes()? })
    }
}

fn homes() -> Result<Vec<String>> {
    let homes = fs::read_dir("/home").into_iter().flatten().flatten();
    homes.map(|entry| text(&entry.path())).chain([Ok("/root".to_owned())]).collect()
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::new(Code::Unsupported, "use the host's tree", "the name is not UTF-8")
            .on(show(path.as_os_str().as_bytes()))
            .hint(format!("rename or unmount it, or use {ROOTFS}"))
    })
}

/// The mount points of real file systems, each once, parents first.
fn file_systems(table: &[MountEntry]) -> Result<Vec<Overlay>> {
    let mut points: Vec<Overlay> = Vec::new();
    for mount in table {
        let path = text(&mount.point)?;
        points.retain(|earlier| earlier.path != path);
        if !is_pseudo(&mount.file_system) {
            let attributes = Attributes {
                read_only: mount.has("ro"),
                nosuid: mount.has("nosuid"),
                nodev: mount.has("nodev"),
                noexec: mount.has("noexec"),
                nosymfollow: mount.has("nosymfollow"),
            };
            points.push(Overlay { path, attributes });
        }
    }
    points.sort_by_key(|point| point.path.split('/').filter(|part| !part.is_empty()).count());
    Ok(points)
}

fn is_pseudo(file_system: &[u8]) -> bool {
    PSEUDO.iter().any(|name| name.as_bytes() == file_system)
        || file_system.starts_with(b"fuse.gvfsd")
        || file_system == b"fuse.portal"
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

    fn real(table: &str) -> Vec<Overlay> {
        file_systems(&mountinfo::parse(table.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn a_name_that_no_text_can_hold_is_an_error() {
        let table = mountinfo::parse(b"28 27 0:25 / /mnt/\xff rw - tmpfs tools rw\n").unwrap();
        assert_eq!(file_systems(&table).unwrap_err().subject, r"/mnt/\xff");
    }

    #[test]
    fn real_file_systems_come_parents_first() {
        let points = real(TABLE);
        assert_eq!(
            points.iter().map(|point| point.path.as_str()).collect::<Vec<_>>(),
            ["/", "/srv/my disk", "/mnt/tools"]
        );
        assert!(points[2].attributes.read_only && !points[0].attributes.read_only);
    }

    #[test]
    fn what_is_mounted_last_on_a_point_counts() {
        assert!(real(TABLE).iter().all(|point| point.path != "/home"));
    }
}
