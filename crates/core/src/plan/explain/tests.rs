use crate::plan::resolve;
use crate::spec::Spec;
use nsrs_base::host::Host;
use nsrs_base::host::tree::Attributes;
use nsrs_base::host::tree::HostTree;
use nsrs_base::host::tree::Overlay;
use serde_json::json;

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn tree() -> HostTree {
    let overlay =
        |path: &str, nodev| Overlay { path: path.into(), attributes: Attributes { nodev, ..Attributes::default() } };
    HostTree {
        directories: vec![overlay("/", false), overlay("/home", true)],
        files: texts(&["/etc/hosts"]),
        mount_points: texts(&["/", "/proc", "/home", "/mnt/a b"]),
        homes: texts(&["/home/ann"]),
    }
}

fn explained(spec: &Spec, host: &Host) -> String {
    let (plan, problems) = resolve(spec, host, &tree(), None);
    problems.finish(plan).unwrap().to_string()
}

#[test]
fn a_root_directory_on_the_bridge() {
    let spec = Spec::of(json!({
        "args": ["sh", "-c", "echo 'hello world' > \"$OUT\""],
        "rootfs": "/srv/alpine",
        "readOnly": true,
        "user": "1000:web",
        "volumes": ["/data:/data:ro,nosuid"],
        "tmpfs": ["/tmp:size=64m"],
        "ip": "10.88.0.9",
        "mac": "02:42:ac:11:00:02",
        "publish": ["8080:80", "127.0.0.1::53/udp"],
        "addHosts": ["db:10.0.0.5"],
        "env": { "TOKEN": "s3cret" },
        "capAdd": ["NET_RAW"],
        "ulimits": ["nofile=1024:2048", "core=0"],
        "sysctls": { "net.core.somaxconn": "128" },
        "init": true,
        "tty": { "cols": 80, "rows": 24 },
        "timeout": 5000,
    }));
    assert_eq!(
        explained(&spec, &Host::root()),
        r#"
command       sh -c 'echo '\''hello world'\'' > "$OUT"'
user          1000, group web
workdir       /

new           mount, pid, network, uts, ipc, cgroup
not isolated  user: ids are the host's; what holds root back is its capabilities
not isolated  time: the clocks are the host's

root          /srv/alpine, read-only
/proc         new
/sys          new, read-only
/dev          null, zero, full, random, urandom, tty (made), own pts of group 5, shm of 64 MiB,
              own mqueue; nodes elsewhere open nothing
own files     /etc/hosts, /etc/resolv.conf, /etc/hostname
  add hosts   db:10.0.0.5
mount         /data: /data of the host, read-only, nosuid, nodev
mount         /tmp: tmpfs, at most 64 MiB, mode 1777, nosuid, nodev, noexec

hostname      nsrs
network       bridge nsrs0, as eth0 with 10.88.0.9 and its IPv6 counterpart
  mac         02:42:ac:11:00:02
  on the host forwarding is switched on where it is off; masquerade by nftables
  ports       *:8080 -> 80/tcp, 127.0.0.1:free -> 53/udp
sysctl        net.ipv4.ip_unprivileged_port_start = 0
sysctl        net.ipv4.ping_group_range = '0 2147483647'
sysctl        net.core.somaxconn = 128
masked        13 paths of /proc and /sys that tell of the host; 6 paths read-only

limits        nofile 1024:2048, core 0
umask         0022
system calls  no AF_VSOCK or AF_ALG sockets, no typing into terminals (TIOCSTI, TIOCLINUX)
capabilities  CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP,
              NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, SETFCAP
  if not root NET_RAW
new rights    none: set-user-ID programs and file capabilities give nothing (no_new_privs)
environment   HOSTNAME, PATH, TERM, TOKEN
init          a small init is the first process; it reaps orphans and forwards signals
terminal      its own, 80 columns, 24 rows
timeout       killed after 5000 ms
"#
        .trim_start()
    );
}

#[test]
fn an_ordinary_user_on_the_hosts_tree() {
    let caller = json!({ "cwd": "/tmp/build", "env": { "PATH": "/bin", "HOME": "/home/ann" } });
    let spec = Spec::of(json!({ "args": ["make"], "caller": caller, "hide": ["~/work"] }));
    assert_eq!(
        explained(&spec, &Host::ordinary(1000)),
        r"
command       make
user          the caller's ids
workdir       /tmp/build

new           user, mount, pid, network, uts, ipc, cgroup
not isolated  time: the clocks are the host's
user ids      1000 = host 1000
group ids     1000 = host 1000
id maps       written by the new process itself; setgroups is refused inside

root          the host's tree, copy-on-write: changes live in memory and die with the container
  overlaid    /, /home (nodev)
  entry-wise  /, /mnt
              (they hold some of the host's 4 mount points; those not overlaid stay empty)
  files       /etc/hosts (read-only)
  fresh       /tmp, /run
  hidden      140 places of home directories that keep keys, tokens and histories, where they
              exist
  hidden too  /home/ann/work
  revealed    /tmp/build, the caller's working directory
/proc         new
/sys          new, read-only
/dev          null, zero, full, random, urandom, tty (bound from the host), own pts, shm of 64
              MiB, own mqueue; nodes elsewhere open nothing
own files     /etc/hosts

hostname      the host's, copied
network       none: a loopback interface and nothing else
sysctl        net.ipv4.ip_unprivileged_port_start = 0
sysctl        net.ipv4.ping_group_range = '1000 1000'
masked        13 paths of /proc and /sys that tell of the host; 6 paths read-only

system calls  no AF_VSOCK or AF_ALG sockets, no typing into terminals (TIOCSTI, TIOCLINUX)
capabilities  CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP,
              NET_BIND_SERVICE, SYS_CHROOT, SETFCAP
  if not root none
new rights    none: set-user-ID programs and file capabilities give nothing (no_new_privs)
environment   HOME, PATH
"
        .trim_start()
    );
}

#[test]
fn everything_joined_or_shared() {
    let spec = Spec::of(json!({
        "args": ["id"],
        "caller": { "cwd": "/", "env": {} },
        "mountns": "host",
        "pid": "ns:42",
        "uts": "host",
        "ipc": "/run/ns/my ipc",
        "userns": "host",
        "cgroupns": "host",
        "timens": "host",
        "network": "host",
        "capDrop": ["ALL"],
        "allowNewPrivileges": true,
    }));
    assert_eq!(
        explained(&spec, &Host::root()),
        r"
command       id
user          the caller's ids
workdir       /

joined        pid: /proc/42/ns/pid
joined        ipc: '/run/ns/my ipc'
not isolated  user: ids are the host's; what holds root back is its capabilities
not isolated  mount: the command works on the host's files and mounts themselves
not isolated  network: the command has the host's interfaces, ports and services on its loopback
not isolated  uts: the host name is the host's
not isolated  cgroup: the command sees the host's cgroup paths
not isolated  time: the clocks are the host's

root          the tree of the mount namespace it is in, as it is

network       the host's

system calls  no AF_VSOCK or AF_ALG sockets, no typing into terminals (TIOCSTI, TIOCLINUX)
capabilities  none
  if not root none
new rights    ALLOWED by set-user-ID programs and file capabilities (no_new_privs is off)
environment   PATH
init          a small init is the first process; it reaps orphans and forwards signals
"
        .trim_start()
    );
}

#[test]
fn no_line_is_wider_than_100_columns_and_long_commands_can_be_pasted() {
    let args: Vec<String> = (0..40).map(|number| format!("--option-{number}=value {number}")).collect();
    let text = explained(&Spec::of(json!({ "args": args, "rootfs": "/srv" })), &Host::root());
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert!(text.lines().next().unwrap().ends_with(r"'--option-2=value 2' \"), "{text}");
}
