//! What a command that enters finds: that of the container, and what it was given.

use std::os::fd::AsFd;

use nsrs_base::error::Code;
use nsrs_core::plan::Problems;
use nsrs_core::plan::capability::{self, Capabilities};
use nsrs_core::plan::limits::Rlimit;
use nsrs_core::plan::namespace::Kind;
use nsrs_core::plan::process::{Id, Process, User};
use nsrs_core::spec::TerminalSize;

use super::Test;
use super::entered::{Door, Outcome};
use super::target::{Target, Users, possible, process};

pub const TESTS: &[Test] = &[
    ("a command is in all namespaces of the container", in_all_namespaces),
    ("a command has its streams, arguments, environment and directory", streams_and_words),
    ("a command has no descriptors but its own", descriptors),
    ("a large command enters", large),
    ("a command's end is the process's", exit_codes),
    ("a command that can't be executed is an error", exec_errors),
    ("a user is looked up in the container", users),
    ("a command has its mask and limits", limits),
    ("rights are those of the process and never more than the container's", rights),
    ("a terminal is the container's own", terminal),
    ("a terminal is made in a devpts and in nothing else", false_terminal),
    ("a container that has ended can't be entered", ended),
    ("without a PID namespace of its own a command runs under an init", under_init),
    ("without any namespace of its own a command runs", nothing_to_enter),
    ("the out-of-memory score is the container's, or the command's", oom_score),
];

/// Runs one in a new container of each kind.
fn each(process: &Process, check: impl Fn(Users, Outcome)) {
    let door = Door::open();
    for users in possible() {
        let target = Target::new(*users);
        check(*users, door.run(&target, process));
    }
}

fn sh(script: &str) -> Process {
    process(&["sh", "-c", script])
}

fn in_all_namespaces() {
    let kinds = ["mnt", "pid", "net", "uts", "ipc", "user", "cgroup", "time"];
    let door = Door::open();
    for users in possible() {
        let target = Target::new(*users);
        let stdout =
            door.run(&target, &sh(&format!("for n in {}; do readlink /proc/self/ns/$n; done", kinds.join(" "))));
        let expected: Vec<String> = kinds.iter().map(|kind| target.namespace(kind)).collect();
        assert_eq!(stdout.good().lines().collect::<Vec<_>>(), expected, "{users:?}");
        // Its root is the container's, and its number one of it.
        let stdout = door.run(&target, &sh("ls -d /bin /usr 2>&1; [ $$ -lt 100 ] && echo small")).stdout;
        assert!(stdout.contains("/bin\n") && stdout.contains("/usr: No such") && stdout.contains("small"), "{stdout}");
    }
}

fn streams_and_words() {
    let mut process = process(&["sh", "-c", "cat; echo $0 $1; echo $GREETING; pwd", "a b", "c"]);
    process.env.push("GREETING=good day".into());
    process.workdir = "/work".into();
    each(&process, |users, outcome| assert_eq!(outcome.good(), "a b c\ngood day\n/work\n", "{users:?}"));
}

fn descriptors() {
    let door = Door::open();
    for users in possible() {
        let target = Target::new(*users);
        let (read, _write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        // Every number that our own descriptors might have in the intermediate process, in turn.
        for number in 3..14 {
            let mut process = sh("cd /proc/self/fd; echo *; ls -l /proc/$$/fd 1>&2");
            process.preserve_fds = vec![number, 40];
            let newcomer = door.prepare();
            newcomer.enter(&target.destination(), target.pidfd.as_fd()).unwrap();
            let stdout = newcomer.run(&process, &[read.as_fd(), read.as_fd()]).good();
            assert!(stdout.contains(&format!("{number} -> pipe:")) && stdout.contains("40 -> pipe:"), "{stdout}");
            let links = stdout.lines().filter(|line| line.contains(" -> ")).count();
            assert_eq!(links, 5, "{users:?} {number}: {stdout}");
        }
    }
}

fn large() {
    let mut process = sh("echo ${#LONG} ${#0}");
    process.env.push(format!("LONG={}", "x".repeat(100_000)));
    process.args.push("y".repeat(90_000));
    each(&process, |_, outcome| assert_eq!(outcome.good(), "100000 90000\n"));
}

fn exit_codes() {
    each(&sh("exit 7"), |_, outcome| assert_eq!(outcome.code, Some(7)));
    each(&sh("kill -TERM $$"), |_, outcome| assert_eq!(outcome.code, Some(128 + 15)));
}

fn exec_errors() {
    each(&process(&["nowhere"]), |_, outcome| assert_eq!(outcome.refused().0, Code::CommandNotFound));
    each(&process(&["/etc/passwd"]), |_, outcome| assert_eq!(outcome.refused().0, Code::CommandNotExecutable));
    let mut elsewhere = process(&["true"]);
    elsewhere.workdir = "/nowhere".into();
    each(&elsewhere, |_, outcome| {
        let (code, error) = outcome.refused();
        assert_eq!((code, error.subject.as_str()), (Code::InvalidArgument, "/nowhere"));
    });
}

fn by_name(name: &str) -> User {
    User::Given { user: Id::Name(name.into()), group: None }
}

fn users() {
    let mut ada = sh("id -u; id -g; id -G; echo $HOME");
    ada.user = by_name("ada");
    each(&ada, |users, outcome| match users {
        // Only one id is mapped there.
        Users::Own => assert_eq!(outcome.refused().0, Code::InvalidArgument),
        _ => assert_eq!(outcome.good(), "1000\n1000\n1000 1010\n/home/ada\n", "{users:?}"),
    });
    let mut nobody = process(&["true"]);
    nobody.user = by_name("nobody");
    each(&nobody, |_, outcome| assert_eq!(outcome.refused().1.step, "find the user"));
}

fn limits() {
    let mut process = sh("umask; ulimit -n; ulimit -Hn; : > /tmp/made; stat -c %a /tmp/made");
    process.umask = Some(0o027);
    process.resources.rlimits = vec![Rlimit { name: "nofile".into(), soft: Some(99), hard: Some(123) }];
    each(&process, |_, outcome| assert_eq!(outcome.good(), "0027\n99\n123\n640\n"));
}

/// The capability sets of /proc/PID/status, and whether it can gain more.
const STATUS: &str = "grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status";

fn status_line(stdout: &str, name: &str) -> u64 {
    let line = stdout.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

fn rights() {
    let set = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        capability::resolve(&names, &["ALL".to_owned()], &mut Problems::default())
    };
    let door = Door::open();
    for users in possible() {
        let target = Target::new(*users);
        let mut destination = target.destination();
        destination.surroundings.most.capabilities = set(&["CHOWN", "KILL", "SYS_PTRACE"]);
        let mut process = sh(STATUS);
        process.rights.capabilities = set(&["CHOWN", "KILL", "SYS_ADMIN"]);
        let stdout = door.run_in(&destination, &target, &process).good();
        let expected = set(&["CHOWN", "KILL"]).0;
        for name in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(status_line(&stdout, name), expected, "{users:?} {name}");
        }
        assert_eq!(status_line(&stdout, "CapInh") | status_line(&stdout, "CapAmb"), 0);
        assert_eq!((status_line(&stdout, "NoNewPrivs"), status_line(&stdout, "Seccomp")), (1, 2));

        // What was asked for by name is given or refused.
        process.user = User::Given { user: Id::Number(if *users == Users::Own { 0 } else { 1000 }), group: None };
        process.rights.ambient = set(&["SYS_ADMIN"]);
        let (code, error) = door.run_in(&destination, &target, &process).refused();
        assert_eq!((code, error.subject.as_str()), (Code::InvalidArgument, "SYS_ADMIN"), "{users:?}");

        // The container's first process can't gain rights: nobody in it can.
        destination.surroundings.most.no_new_privileges = true;
        process.rights.ambient = Capabilities::default();
        process.rights.no_new_privileges = false;
        let stdout = door.run_in(&destination, &target, &process).good();
        assert_eq!(status_line(&stdout, "NoNewPrivs"), 1);
    }
}

fn terminal() {
    let mut process = sh("tty; : > /dev/tty && echo opened; [ -t 2 ] && echo error; ps -o pid,tty >/dev/null; exit 3");
    process.tty = Some(TerminalSize { cols: 91, rows: 33 });
    each(&process, |users, outcome| {
        assert_eq!((outcome.code, &outcome.error), (Some(3), &None), "{users:?}");
        assert_eq!(outcome.stdout, "/dev/pts/0\r\nopened\r\nerror\r\n", "{users:?}");
    });
}

fn false_terminal() {
    let mut process = process(&["tty"]);
    process.tty = Some(TerminalSize { cols: 80, rows: 24 });
    // A pipe that nobody writes to would hold up whoever opens it; a bound file is what another has chosen.
    for script in [
        "busybox umount /dev/pts; mkfifo /dev/pts/ptmx; exec sleep 1000",
        "busybox mount -t tmpfs none /dev/pts; echo secret > /dev/pts/ptmx; exec sleep 1000",
        "echo secret > /tmp/file; busybox mount --bind /tmp/file /dev/pts/ptmx; exec sleep 1000",
    ] {
        let door = Door::open();
        for users in possible() {
            let target = Target::running(*users, &["sh", "-c", &format!("{script} & wait")]);
            std::thread::sleep(std::time::Duration::from_millis(300));
            assert_eq!(door.run(&target, &process).refused().1.step, "make the terminal", "{script}");
        }
    }
}

fn ended() {
    let door = Door::open();
    for users in possible() {
        let target = Target::new(*users);
        let (early, late) = (door.prepare(), door.prepare());
        early.enter(&target.destination(), target.pidfd.as_fd()).unwrap();
        target.end();
        assert!(early.run(&process(&["true"]), &[]).refused().0 == Code::ContainerEnded);
        let error = late.enter(&target.destination(), target.pidfd.as_fd()).unwrap_err();
        assert_eq!(error.code, Code::ContainerEnded);
        nix::sys::wait::waitpid(late.intermediate, None).unwrap();
    }
}

fn under_init() {
    let door = Door::open();
    for users in possible() {
        let target = Target::new(*users);
        let mut destination = target.destination();
        // The init of a build for development needs the host's libraries.
        destination.namespaces.retain(|kind| !matches!(kind, Kind::Pid | Kind::Mount));
        destination.init = true;
        // What it leaves behind ends with it.
        let script = "sleep 1000 & echo $PPID; exit 5";
        let outcome = door.run_in(&destination, &target, &sh(script));
        assert_eq!((outcome.code, &outcome.error), (Some(5), &None), "{users:?}");
        assert_eq!(outcome.init, ["InCharge", "Executed", "Ended(1280)"]);
        let outcome = door.run_in(&destination, &target, &process(&["nowhere"]));
        assert_eq!(outcome.refused().0, Code::CommandNotFound);
    }
}

fn nothing_to_enter() {
    if possible()[0] != Users::Host {
        println!("skipped: an ordinary user's container has a user namespace");
        return;
    }
    let door = Door::open();
    let target = Target::new(Users::Host);
    let mut destination = target.destination();
    destination.namespaces.clear();
    let mut process = sh("readlink /proc/self/ns/mnt");
    process.env = vec!["PATH=/usr/bin:/bin".into()];
    let outcome = door.run_in(&destination, &target, &process);
    let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    assert_eq!(outcome.good().trim_end(), own.to_string_lossy());
}

fn oom_score() {
    let door = Door::open();
    for users in possible() {
        let target = Target::new(*users);
        let mut destination = target.destination();
        destination.oom_score_adj = Some(200);
        let mut process = sh("cat /proc/self/oom_score_adj");
        assert_eq!(door.run_in(&destination, &target, &process).good(), "200\n");
        process.resources.oom_score_adj = Some(300);
        assert_eq!(door.run_in(&destination, &target, &process).good(), "300\n");
    }
}
