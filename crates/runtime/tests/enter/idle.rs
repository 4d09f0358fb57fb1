//! The init of a container without a command.

use std::os::fd::BorrowedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nsrs_core::steps::channel::{Channel, FromChild, ToChild};
use rustix::process::Signal;

use super::Test;
use super::target::possible;

pub const TESTS: &[Test] = &[
    ("an init without a command holds the container open and reaps", reaps),
    ("an init without a command ends at a signal", ends),
    ("an init without a command is in charge where it isn't the first", in_charge),
];

/// An init without a command, as the first process of a PID namespace or in that of the test.
fn start(unshare: &[&str]) -> (Child, Channel) {
    let (ours, theirs) = Channel::mailbox().unwrap();
    let leave = |fd: BorrowedFd<'_>| nsrs_base::sys::fds::leave(fd.try_clone_to_owned().unwrap()).unwrap();
    let numbers: Vec<i32> = theirs.fds().into_iter().map(leave).collect();
    drop(theirs);
    let mut words: Vec<&str> = unshare.to_vec();
    let numbers_text = numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    words.extend([env!("CARGO_BIN_EXE_nsrs-runtime"), "init", &numbers_text]);
    let child = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).spawn().unwrap();
    // Its copies alone are open.
    for number in numbers {
        drop(nsrs_base::sys::fds::inherited(number).unwrap());
    }
    (child, ours)
}

fn receive(channel: &Channel) -> Option<FromChild> {
    channel.receive().unwrap().map(|(message, _)| message)
}

fn first() -> Vec<&'static str> {
    let mut words = vec!["unshare", "--fork", "--kill-child", "--pid", "--mount-proc"];
    if possible()[0] != super::target::Users::Host {
        words.push("--map-root-user");
    }
    words
}

fn child_of(pid: u32) -> i32 {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    list.split_whitespace().next().unwrap().parse().unwrap()
}

fn signal(pid: i32, signal: Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn reaps() {
    let (mut child, channel) = start(&first());
    assert!(matches!(receive(&channel), Some(FromChild::Executed)));
    let init = child_of(child.id());
    let enter = |script: &str| {
        let pid = init.to_string();
        let mut words = vec!["nsenter", "-t", &pid, "--pid", "--mount"];
        if possible()[0] != super::target::Users::Host {
            words.extend(["--user", "--preserve-credentials"]);
        }
        words.extend(["sh", "-c", script]);
        let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // Orphans, which nobody but the init can reap.
    enter("for n in 1 2 3 4 5; do (sleep 0.05 &) ; done");
    std::thread::sleep(Duration::from_millis(400));
    let states = enter("cat /proc/[0-9]*/stat");
    assert!(states.starts_with("1 (") && !states.contains(") Z "), "{states}");
    signal(init, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(receive(&channel).is_none());
}

fn ends() {
    for wanted in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let (mut child, channel) = start(&first());
        assert!(matches!(receive(&channel), Some(FromChild::Executed)));
        let init = child_of(child.id());
        // Others are nothing to it.
        signal(init, Signal::USR1);
        signal(init, Signal::WINCH);
        std::thread::sleep(Duration::from_millis(20));
        assert!(child.try_wait().unwrap().is_none());
        signal(init, wanted);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{wanted:?}");
    }
}

fn in_charge() {
    let (mut child, channel) = start(&[]);
    assert!(matches!(receive(&channel), Some(FromChild::InCharge)));
    channel.send(&ToChild::Start, &[]).unwrap();
    assert!(matches!(receive(&channel), Some(FromChild::Executed)));
    signal(child.id() as i32, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
