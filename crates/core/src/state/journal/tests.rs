use std::cell::RefCell;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::state::testing::Holder;
use nsrs_base::error::Code;

/// A state directory, removed with this.
struct StateDirectory(PathBuf);

impl StateDirectory {
    fn new(name: &str) -> StateDirectory {
        let path = std::env::temp_dir().join(format!("nsrs-journal-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        fs::create_dir(path.join("supervisors")).unwrap();
        fs::set_permissions(path.join("supervisors"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        StateDirectory(path)
    }

    /// A journal of a supervisor that is dead.
    fn dead(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join("supervisors").join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn collect(&self) -> Result<usize> {
        collect(&self.0, |object| panic!("{object:?} is nobody's"))
    }
}

impl Drop for StateDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Journal {
    /// Its supervisor dies: the bytes stay, and nobody holds them.
    fn die(self) -> PathBuf {
        let (path, copy) = (self.path.clone(), fs::read(&self.path).unwrap());
        drop(self);
        assert!(!path.exists());
        fs::write(&path, copy).unwrap();
        path
    }
}

/// A process that sleeps, ended with this.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Sleeper {
        Sleeper(Command::new("sleep").arg("60").spawn().unwrap())
    }

    fn entry(&self) -> JournalEntry {
        JournalEntry::process(Pid::from_child(&self.0), Termination::Kill)
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    fn was_killed(&mut self) -> bool {
        self.0.wait().unwrap().signal() == Some(libc::SIGKILL)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn one(boot: &str, entry: &JournalEntry) -> Vec<u8> {
    [format::boot(boot), format::entry(0, entry)].concat()
}

#[test]
fn what_a_dead_supervisor_left_is_ended() {
    let state = StateDirectory::new("left");
    let (mut child, mut other) = (Sleeper::new(), Sleeper::new());
    let mut journal = Journal::open(&state.0).unwrap();
    journal.note(child.entry()).unwrap();
    let struck = journal.note(other.entry()).unwrap();
    journal.strike(struck);
    let stray = journal.companion("pasta-7");
    let used = state.0.join("supervisors/9-9.pasta-7");
    fs::write(&stray, "").unwrap();
    fs::write(&used, "").unwrap();
    let path = journal.die();
    assert!(stray.exists());
    assert_eq!(state.collect().unwrap(), 1);
    assert!(!stray.exists() && used.exists());
    assert!(child.was_killed());
    assert!(other.lives());
    assert!(!path.exists());
}

#[test]
fn what_a_living_supervisor_has_is_left_alone() {
    let state = StateDirectory::new("living");
    let path = state.dead("1-0", &one(boot_id(), &JournalEntry::Cgroup { path: "/nowhere".into() }));
    let holder = Holder::of(&path);
    assert_eq!(state.collect().unwrap(), 0);
    assert!(path.exists());
    drop(holder);
    assert_eq!(state.collect().unwrap(), 0);
    assert!(!path.exists());
}

#[test]
fn an_init_is_asked_to_end_and_waited_for() {
    let state = StateDirectory::new("asked");
    // The one ends what it has when it is told, the other doesn't listen.
    let trap =
        format!("trap 'sleep 0.05; echo > {}/done; exit' HUP; echo; while :; do sleep 0.01; done", state.0.display());
    let spawn = |script: &str| {
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        // Its trap is set when it says something.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        child
    };
    let (mut polite, mut deaf) = (spawn(&trap), spawn("trap '' HUP; echo; while :; do sleep 0.01; done"));
    let mut journal = Journal::open(&state.0).unwrap();
    for child in [&polite, &deaf] {
        journal.note(JournalEntry::process(Pid::from_child(child), Termination::Ask)).unwrap();
    }
    journal.die();
    assert_eq!(state.collect().unwrap(), 2);
    assert!(polite.wait().unwrap().success());
    assert!(state.0.join("done").exists());
    assert_eq!(deaf.wait().unwrap().signal(), Some(libc::SIGKILL));
}

#[test]
fn a_number_that_passed_to_another_process_is_left_alone() {
    let state = StateDirectory::new("reused");
    let mut child = Sleeper::new();
    let pid = child.0.id() as i32;
    for noted_ns in [0, 12345, now() + 60_000_000_000, u64::MAX] {
        let entry = JournalEntry::Process { pid, noted_ns, termination: Termination::Kill };
        state.dead("1-0", &one(boot_id(), &entry));
        assert_eq!(state.collect().unwrap(), 0, "{noted_ns}");
    }
    assert!(child.lives());
}

#[test]
fn directories_go_with_what_is_in_them_if_they_are_still_the_ones() {
    let state = StateDirectory::new("directories");
    let make = |name: &str| {
        let path = state.0.join(name);
        fs::create_dir_all(path.join("a/b")).unwrap();
        path
    };
    let (left, replaced, linked, gone) = (make("left"), make("replaced"), make("linked"), make("gone"));
    let mut journal = Journal::open(&state.0).unwrap();
    for path in [&left, &replaced, &linked, &gone] {
        journal.note(JournalEntry::directory(path).unwrap()).unwrap();
    }
    // The old ones stay, so that their inodes are not given to the new ones.
    fs::rename(&replaced, state.0.join("old")).unwrap();
    make("replaced");
    fs::rename(&linked, state.0.join("target")).unwrap();
    std::os::unix::fs::symlink("target", &linked).unwrap();
    fs::remove_dir_all(&gone).unwrap();
    let path = journal.die();
    assert_eq!(state.collect().unwrap(), 0);
    assert!(!left.exists() && !path.exists());
    assert!(replaced.join("a/b").exists() && linked.join("a/b").exists());
}

#[test]
fn of_another_boot_only_directories_are_taken_back() {
    let state = StateDirectory::new("boot");
    let mut child = Sleeper::new();
    let directory = state.0.join("left");
    let object = NetworkObject::Link("nsrs-none".into());
    let others = [
        child.entry(),
        JournalEntry::Network { netns: current_netns().unwrap(), object },
        JournalEntry::Cgroup { path: state.0.join("supervisors") },
    ];
    for boot in [format::boot("1b4e28ba-2fa1-11d2-883f-0016d3cca427"), Vec::new()] {
        fs::create_dir(&directory).unwrap();
        let entries = others.iter().chain([&JournalEntry::directory(&directory).unwrap()]).cloned().collect::<Vec<_>>();
        let entries = (0..).zip(entries).flat_map(|(number, entry)| format::entry(number, &entry));
        let path = state.dead("1-0", &boot.into_iter().chain(entries).collect::<Vec<u8>>());
        // What is asked for of the network would panic.
        assert_eq!(state.collect().unwrap(), 0);
        assert!(!directory.exists() && !path.exists());
        assert!(child.lives());
    }
}

#[test]
fn a_journal_cut_short_or_damaged_counts_by_its_whole_records() {
    let state = StateDirectory::new("damaged");
    let (mut first, mut last, mut lost) = (Sleeper::new(), Sleeper::new(), Sleeper::new());
    let mut damaged = format::entry(1, &lost.entry());
    damaged[10] ^= 1;
    let end = format::entry(3, &lost.entry());
    let parts =
        [one(boot_id(), &first.entry()), damaged, format::entry(2, &last.entry()), end[..end.len() - 1].to_vec()];
    let path = state.dead("1-0", &parts.concat());
    assert_eq!(state.collect().unwrap(), 2);
    assert!(first.was_killed() && last.was_killed());
    assert!(lost.lives());
    assert!(!path.exists());
}

#[test]
fn a_journal_of_a_newer_nsrs_is_an_error_and_the_others_are_collected() {
    let state = StateDirectory::new("newer");
    let (mut child, mut theirs) = (Sleeper::new(), Sleeper::new());
    let mut bytes = one(boot_id(), &theirs.entry());
    // Of version 2, and whole.
    bytes.extend([2, 2, 0, 0, 0, 0, 0, 0]);
    let head = bytes.len() - 8;
    let crc = crc::crc32(&[&bytes[head..head + 4]]).to_le_bytes();
    bytes[head + 4..].copy_from_slice(&crc);
    let newer = state.dead("1-0", &bytes);
    let companion = state.dead("1-0.pasta-7", b"");
    state.dead("2-0", &one(boot_id(), &child.entry()));
    let error = state.collect().unwrap_err();
    assert_eq!((error.code, error.subject.as_str()), (Code::Unsupported, newer.to_str().unwrap()), "{error}");
    assert!(error.reason.contains("newer") && error.hint.contains("remove the file"), "{error:?}");
    assert!(child.was_killed());
    assert!(newer.exists() && companion.exists() && theirs.lives());
    assert!(!state.0.join("supervisors/2-0").exists());
    fs::remove_file(&newer).unwrap();
    assert_eq!(state.collect().unwrap(), 0);
}

#[test]
fn objects_of_the_network_are_removed_in_their_namespace_alone() {
    let state = StateDirectory::new("network");
    let here = current_netns().unwrap();
    let entry = |netns, name: &str| JournalEntry::Network { netns, object: NetworkObject::Link(name.into()) };
    let mut journal = Journal::open(&state.0).unwrap();
    for (netns, name) in [(here, "one"), (here + 1, "elsewhere"), (here, "two")] {
        journal.note(entry(netns, name)).unwrap();
    }
    let path = journal.die();
    let removed = RefCell::new(Vec::new());
    let remove = |object: &NetworkObject| {
        removed.borrow_mut().push(object.clone());
        Ok(())
    };
    collect(&state.0, remove).unwrap();
    assert_eq!(*removed.borrow(), ["two", "one"].map(|name| NetworkObject::Link(name.into())), "the last made first");
    assert!(path.exists(), "it names something in another namespace");

    // What fails is tried again by the next command.
    state.dead(path.file_name().unwrap().to_str().unwrap(), &one(boot_id(), &entry(here, "three")));
    let refuse = |_: &NetworkObject| Err(nsrs_base::error::Error::os("remove the interface", "three", libc::EPERM));
    assert_eq!(collect(&state.0, refuse).unwrap_err().subject, "three");
    assert!(path.exists());
    collect(&state.0, remove).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_cgroup_goes_with_what_runs_in_it() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mut found = false;
    // One of each version that is mounted here.
    for kind in ["cgroup2", "cgroup"] {
        let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let Some(mount) = fields.find(|fields| fields[2] == kind && !fields[3].contains("cpuset")) else { continue };
        let cgroup = Path::new(mount[1]).join(format!("nsrs-journal-{}", std::process::id()));
        if fs::create_dir(&cgroup).is_err() {
            continue;
        }
        found = true;
        fs::create_dir(cgroup.join("inner")).unwrap();
        let mut children = [Sleeper::new(), Sleeper::new()];
        for (child, group) in children.iter().zip([cgroup.clone(), cgroup.join("inner")]) {
            fs::write(group.join("cgroup.procs"), child.0.id().to_string()).unwrap();
        }
        let state = StateDirectory::new("cgroup");
        let mut journal = Journal::open(&state.0).unwrap();
        journal.note(JournalEntry::Cgroup { path: cgroup.clone() }).unwrap();
        journal.note(JournalEntry::Cgroup { path: cgroup.join("gone") }).unwrap();
        journal.die();
        assert_eq!(state.collect().unwrap(), 0);
        assert!(!cgroup.exists());
        assert!(children.iter_mut().all(Sleeper::was_killed));
    }
    if !found {
        println!("skipped a_cgroup_goes_with_what_runs_in_it: no cgroup can be made here");
    }
}

#[test]
fn a_journal_stays_small_and_keeps_what_is_open() {
    let state = StateDirectory::new("small");
    let mut journal = Journal::open(&state.0).unwrap();
    let entry = |number: u32| JournalEntry::Cgroup { path: format!("/nowhere/{number}").into() };
    // Nothing is open in between: it is emptied.
    for number in 0..1000 {
        let id = journal.note(entry(number)).unwrap();
        journal.strike(id);
        assert!(fs::metadata(&journal.path).unwrap().len() < EMPTIED_AT);
    }
    // Something is: it is rewritten, under the same name and the same lock.
    let mut kept = vec![journal.note(entry(5000)).unwrap()];
    for number in 0..10_000 {
        let id = journal.note(entry(number)).unwrap();
        if number % 1000 == 0 {
            kept.push(id)
        } else {
            journal.strike(id)
        }
        assert!(fs::metadata(&journal.path).unwrap().len() <= REWRITTEN_AT + 64);
        assert_eq!(fs::metadata(&journal.path).unwrap().len(), journal.size);
    }
    assert_eq!(fs::metadata(&journal.path).unwrap().ino(), journal.file.metadata().unwrap().ino());
    assert!(!journal.companion("new").exists());
    // Another process can't lock it. Looked at first: whoever closes a file lets go of all its locks of his.
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let inode = format!(":{} ", journal.file.metadata().unwrap().ino());
    assert!(locks.lines().any(|line| line.contains("POSIX") && line.contains(&inode)), "{locks}");
    let contents = format::read(&fs::read(&journal.path).unwrap()).unwrap();
    assert_eq!((contents.boot.as_deref(), &contents.open), (Some(boot_id()), &journal.open));
    assert_eq!(contents.open.len(), 11);
    kept.into_iter().for_each(|id| journal.strike(id));
    assert_eq!(format::read(&fs::read(&journal.path).unwrap()).unwrap().open.len(), 0);
}

#[test]
fn without_room_there_is_an_error_and_no_half_record() {
    let state = StateDirectory::new("room");
    let mut journal = Journal::open(&state.0).unwrap();
    let id = journal.note(JournalEntry::Cgroup { path: "/nowhere".into() }).unwrap();
    let before = fs::read(&journal.path).unwrap();
    // It can't be written to by this descriptor.
    journal.file = File::open(&journal.path).unwrap();
    let error = journal.note(JournalEntry::Cgroup { path: "/elsewhere".into() }).unwrap_err();
    assert_eq!(error.step, "write the journal");
    assert_eq!(journal.open.len(), 1);
    journal.strike(id);
    assert_eq!(fs::read(&journal.path).unwrap(), before);
}
