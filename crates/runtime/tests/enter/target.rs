//! Containers to enter, made by unshare(1) from a root of BusyBox's.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nsrs_base::ids::maps::{self, IdMap, MapWriter, UserNamespace};
use nsrs_core::plan::capability::Capabilities;
use nsrs_core::plan::namespace::Kind;
use nsrs_core::plan::process::{Process, Resources, Rights, User};
use nsrs_core::steps::complete::{Surroundings, Tree};
use nsrs_core::steps::enter::Destination;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The user namespace of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Users {
    /// The host's.
    Host,
    /// One in which the caller is root, and nobody else is anybody.
    Own,
    /// One with a range of ids, as root can make it.
    Range,
}

/// Those that this user can have.
pub fn possible() -> &'static [Users] {
    if rustix::process::geteuid().is_root() { &[Users::Host, Users::Own, Users::Range] } else { &[Users::Own] }
}

/// A container that runs, until this is dropped.
pub struct Target {
    process: Child,
    holder: Option<Child>,
    directory: PathBuf,
    /// Its first process, as the host numbers it.
    pub pid: i32,
    /// The pidfd of that one.
    pub pidfd: OwnedFd,
    users: Users,
}

/// Where the range of ids starts on the host, and how many there are.
const RANGE: (u32, u32) = (300_000, 65_536);

/// Makes the root in a tmpfs and goes there, then runs what follows.
const SCRIPT: &str = r#"
set -e
root=$1; shift
mount -t tmpfs -o mode=755 tmpfs "$root"
cd "$root"
mkdir bin proc dev etc old work tmp
chmod 1777 tmp
cp /usr/bin/busybox bin/busybox
for name in sh cat ls id tty sleep readlink stat kill true env umask pwd nc grep echo mkdir ln rm mv mkfifo ps; do ln -s busybox bin/$name; done
[ -z "$PROGRAM" ] || cp "$PROGRAM" bin/
echo 'root:x:0:0::/root:/bin/sh' > etc/passwd
echo 'ada:x:1000:1000::/home/ada:/bin/sh' >> etc/passwd
echo 'ada:x:1000:' > etc/group
echo 'makers:x:1010:ada' >> etc/group
mount -t proc proc proc
mount -t tmpfs -o mode=755 dev dev
mkdir dev/pts
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
for node in null tty zero; do : > dev/$node; mount --bind /dev/$node dev/$node; done
pivot_root . old
exec /bin/sh -c 'cd /; /bin/busybox umount -l /old; echo ready; exec "$@"' sh "$@"
"#;

impl Target {
    /// A container whose first process only sleeps.
    pub fn new(users: Users) -> Target {
        Target::running(users, &["sleep", "1000"])
    }

    /// A container whose first process is this command of its root; what it says after it stands is on standard error.
    pub fn running(users: Users, command: &[&str]) -> Target {
        Target::with_program(users, Path::new(""), command)
    }

    /// As [`Target::running`], with one more program in its root.
    pub fn with_program(users: Users, program: &Path, command: &[&str]) -> Target {
        let directory = std::env::temp_dir().join(format!("nsrs-enter-{}-{}", std::process::id(), unique()));
        fs::create_dir(&directory).unwrap();
        let holder = (users == Users::Range).then(hold_range);
        let mut words: Vec<String> = Vec::new();
        if let Some(holder) = &holder {
            words.extend(["nsenter", "--user", "-S", "0", "-G", "0", "-t"].map(str::to_owned));
            words.push(holder.id().to_string());
        }
        words.extend(
            ["unshare", "--fork", "--kill-child", "--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup", "--time"]
                .map(str::to_owned),
        );
        if users == Users::Own {
            words.push("--map-root-user".into());
        }
        let mut process = Command::new(&words[0])
            .args(&words[1..])
            .args(["sh", "-c", SCRIPT, "sh"])
            .arg(&directory)
            .args(command)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("PROGRAM", program)
            .env_remove(super::SECRET_NAME)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the container was not made");
        let pid = first_child(process.id());
        let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        Target { process, holder, directory, pid, pidfd, users }
    }

    /// What whoever enters is told of it.
    pub fn destination(&self) -> Destination {
        let is_made = |kind: &Kind| *kind != Kind::User || self.users != Users::Host;
        let namespaces = Kind::ALL.into_iter().filter(is_made).collect();
        let one = |(outside, count)| vec![IdMap { inside: 0, outside, count }];
        let user_namespace = match self.users {
            Users::Host => UserNamespace::Host,
            Users::Own => UserNamespace::Private {
                uids: one((rustix::process::geteuid().as_raw(), 1)),
                gids: one((rustix::process::getegid().as_raw(), 1)),
                writer: MapWriter::Process,
                deny_setgroups: true,
            },
            Users::Range => UserNamespace::Private {
                uids: one(RANGE),
                gids: one(RANGE),
                writer: MapWriter::Supervisor,
                deny_setgroups: false,
            },
        };
        Destination {
            init: false,
            namespaces,
            oom_score_adj: None,
            surroundings: Surroundings { user_namespace, tree: Tree::Directory, most: all_rights(), filtered: false },
        }
    }

    /// The namespace of a kind that its first process is in.
    pub fn namespace(&self, kind: &str) -> String {
        fs::read_link(format!("/proc/{}/ns/{kind}", self.pid)).unwrap().to_string_lossy().into_owned()
    }

    /// A path of the container, as the host reaches it.
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.pid)).join(path.trim_start_matches('/'))
    }

    /// Its first process ends, and so the container.
    pub fn end(&self) {
        rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL).unwrap();
        assert!(nsrs_base::sys::poll::readable_within(&self.pidfd, None));
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        for child in std::iter::once(&mut self.process).chain(&mut self.holder) {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Once the mount is gone with the container.
        for _ in 0..200 {
            if fs::remove_dir(&self.directory).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// A process in a user namespace with a range of ids.
fn hold_range() -> Child {
    let mut child = Command::new("unshare")
        .args(["--user", "sh", "-c", "echo; exec sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let map = [IdMap { inside: 0, outside: RANGE.0, count: RANGE.1 }];
    maps::write(&child.id().to_string(), &map, &map, false).unwrap();
    child
}

fn first_child(parent: u32) -> i32 {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    list.split_whitespace().next().unwrap().parse().unwrap()
}

fn unique() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// The rights of a container that may do everything.
pub fn all_rights() -> Rights {
    Rights { capabilities: Capabilities::ALL, ambient: Capabilities::default(), no_new_privileges: false }
}

/// A command as it is run without options.
pub fn process(args: &[&str]) -> Process {
    Process {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec!["PATH=/bin".into()],
        workdir: "/".into(),
        user: User::Caller,
        groups: Vec::new(),
        umask: None,
        tty: None,
        preserve_fds: Vec::new(),
        own_pipes: Vec::new(),
        timeout_ms: None,
        rights: Rights { no_new_privileges: true, ..all_rights() },
        resources: Resources { rlimits: Vec::new(), oom_score_adj: None },
    }
}
