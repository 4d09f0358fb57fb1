//! Which cgroup hierarchies there are (cgroups(7)).

use rustix::fs::FsWord;

use super::{Finding, Verdict};

/// `CGROUP2_SUPER_MAGIC`: the type of a cgroup v2 file system in statfs(2).
const CGROUP2: FsWord = 0x6367_7270;

/// Information: today nothing that nsrs does by default needs a cgroup of its own.
pub fn examine() -> Finding {
    let is_v2 = |path: &str| rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == CGROUP2);
    let listed = std::fs::read_dir("/sys/fs/cgroup").is_ok_and(|mut entries| entries.next().is_some());
    let detail = match (is_v2("/sys/fs/cgroup"), is_v2("/sys/fs/cgroup/unified"), listed) {
        (true, ..) => "version 2",
        (_, true, _) => "hybrid: version 1, and version 2 beside it",
        (.., true) => "version 1",
        _ => {
            return Finding::bad(
                "cgroups",
                Verdict::Warning,
                "none are mounted",
                "as root: mount -t cgroup2 none /sys/fs/cgroup",
            );
        }
    };
    Finding::ok("cgroups", detail)
}
