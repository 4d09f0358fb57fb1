//! Users and groups in files that an image brought, which may hold anything.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nsrs_base::host::Host;
use nsrs_base::host::tree::HostTree;

use super::*;
use crate::spec::Spec;

/// A root with an /etc, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("nsrs-identity-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("root/etc")).unwrap();
        Scratch(path)
    }

    fn with(name: &str, passwd: impl AsRef<[u8]>, group: impl AsRef<[u8]>) -> Scratch {
        let scratch = Scratch::new(name);
        fs::write(scratch.etc("passwd"), passwd).unwrap();
        fs::write(scratch.etc("group"), group).unwrap();
        scratch
    }

    fn etc(&self, name: &str) -> PathBuf {
        self.0.join("root/etc").join(name)
    }

    /// What `--user` and `--group-add` give in this root.
    fn identity(&self, user: &str, groups: &[&str]) -> Result<Identity> {
        let spec = Spec::of(serde_json::json!({
            "args": ["true"],
            "rootfs": "/srv",
            "network": "none",
            "user": user,
            "groups": groups,
        }));
        let (plan, problems) = crate::plan::resolve(&spec, &Host::root(), &HostTree::default(), None);
        let plan = problems.finish(plan).unwrap();
        let root = rustix::fs::open(self.0.join("root"), OFlags::PATH | OFlags::DIRECTORY, rustix::fs::Mode::empty());
        resolve(&plan.process, &RootDir::new(root.unwrap()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn given(uid: u32, gid: u32, groups: &[u32], home: Option<&str>, name: Option<&str>) -> Identity {
    let [home, name] = [home, name].map(|text| text.map(str::to_owned));
    Identity { uid, gid, groups: Some(groups.to_vec()), home, name }
}

const APP: &str = "app:x:1000:1001:App,,,:/home/app:/bin/sh\n";

#[test]
fn numbers_need_no_files_and_names_do() {
    let scratch = Scratch::new("none");
    assert_eq!(scratch.identity("1000", &["7"]).unwrap(), given(1000, 0, &[0, 7], None, None));
    assert_eq!(scratch.identity("5:6", &[]).unwrap(), given(5, 6, &[6], None, None));
    for (user, groups) in [("app", &[][..]), ("0:staff", &[]), ("0", &["staff"])] {
        let error = scratch.identity(user, groups).unwrap_err();
        assert!(error.code == Code::InvalidArgument && !error.hint.is_empty(), "{error}");
    }
}

#[test]
fn a_user_is_in_the_groups_that_name_them_unless_one_is_given() {
    let group = "root:x:0:\nstaff:x:50:other,app\nwheel:x:10:application,\nown:x:1001:\ndisk:x:6:app\n";
    let scratch = Scratch::with("groups", format!("root:x:0:0::/root:/bin/sh\n{APP}"), group);
    let app = |gid, groups: &[u32]| given(1000, gid, groups, Some("/home/app"), Some("app"));
    assert_eq!(scratch.identity("app", &[]).unwrap(), app(1001, &[6, 50, 1001]));
    // A number is looked up as well.
    assert_eq!(scratch.identity("1000", &[]).unwrap(), app(1001, &[6, 50, 1001]));
    assert_eq!(scratch.identity("app:wheel", &[]).unwrap(), app(10, &[10]));
    assert_eq!(scratch.identity("app:7", &["staff", "7"]).unwrap(), app(7, &[7, 50]));
}

#[test]
fn no_entry_is_read_as_more_than_it_is() {
    for (name, passwd) in [
        ("too-large", "app:x:4294967295:0::/:/bin/sh\n"),
        ("larger", "app:x:4294967296:0::/:/bin/sh\n"),
        ("negative", "app:x:-1:0::/:/bin/sh\n"),
        ("sign", "app:x:+0:0::/:/bin/sh\n"),
        ("space", "app:x: 0:0::/:/bin/sh\n"),
        ("hexadecimal", "app:x:0x0:0::/:/bin/sh\n"),
        ("empty", "app:x::0::/:/bin/sh\n"),
        ("short", "app:x:0:0:\n"),
        ("longer-name", "app :x:0:0::/:/bin/sh\n"),
        ("other-case", "App:x:0:0::/:/bin/sh\n"),
    ] {
        let scratch = Scratch::with(name, format!("{passwd}{APP}"), "");
        assert_eq!(scratch.identity("app", &[]).unwrap().uid, 1000, "{passwd}");
    }
}

#[test]
fn an_entry_without_a_valid_group_id_needs_a_group_given_with_the_user() {
    for (name, gid) in [("words", "staff"), ("nothing", ""), ("minus", "-1"), ("large", "4294967296")] {
        let scratch = Scratch::with(&format!("group-{name}"), format!("app:x:1000:{gid}::/home/app:/bin/sh\n"), "");
        for user in ["app", "1000"] {
            let error = scratch.identity(user, &[]).unwrap_err();
            assert!(error.code == Code::InvalidArgument && error.reason.contains("group id"), "{error}");
            let given = scratch.identity(&format!("{user}:50"), &[]).unwrap();
            assert_eq!((given.uid, given.gid), (1000, 50), "{gid}");
        }
    }
}

#[test]
fn the_first_entry_counts_and_a_home_is_an_absolute_path() {
    let scratch = Scratch::with("first", format!("app:x:7:8::home:\n{APP}"), "");
    assert_eq!(scratch.identity("app", &[]).unwrap(), given(7, 8, &[8], None, Some("app")));
}

#[test]
fn bytes_that_are_no_text_and_a_missing_last_newline_do_no_harm() {
    let passwd = [b"\xff\xfe:x:0:0::/:\n\0\0\n:::::::\n".as_slice(), APP.trim_end().as_bytes()].concat();
    let scratch = Scratch::with("bytes", passwd, b"\xff:x:1:app\nstaff:x:50:app");
    assert_eq!(scratch.identity("app", &[]).unwrap().groups, Some(vec![1, 50, 1001]));
}

#[test]
fn the_rest_of_a_line_that_is_too_long_is_no_line() {
    let longest = usize::try_from(LONGEST_LINE).unwrap();
    for filled in [longest - 1, longest, longest + 1, 3 * longest] {
        let passwd = format!("{}app:x:0:0::/root:/bin/sh\n{APP}", "x".repeat(filled));
        let scratch = Scratch::with(&format!("long-{filled}"), passwd, "");
        assert_eq!(scratch.identity("app", &[]).unwrap().uid, 1000, "{filled}");
    }
}

#[test]
fn a_user_gets_no_more_groups_than_the_kernel_takes() {
    let group: String = (1..=70_000).map(|number| format!("g{number}:x:{number}:app\n")).collect();
    let scratch = Scratch::with("many", "app:x:1000:1::/:\n", group);
    assert_eq!(scratch.identity("app", &[]).unwrap().groups.unwrap().len(), MOST_GROUPS);
}

#[test]
fn what_is_no_file_is_refused_without_waiting_for_it() {
    let scratch = Scratch::new("kinds");
    let passwd = scratch.etc("passwd");
    let refused = |what: &str| {
        let error = scratch.identity("app", &[]).unwrap_err();
        assert_eq!((error.code, error.subject.as_str()), (Code::SetupFailed, PASSWD), "{what}: {error}");
    };
    fs::create_dir(&passwd).unwrap();
    refused("a directory");
    fs::remove_dir(&passwd).unwrap();
    // Nobody writes to it: opening it to read would wait.
    rustix::fs::mknodat(rustix::fs::CWD, &passwd, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    refused("a pipe");
}

#[test]
fn links_never_lead_out_of_the_root() {
    let scratch = Scratch::new("links");
    let outside = scratch.0.join("passwd");
    fs::write(&outside, "app:x:0:0::/root:/bin/sh\n").unwrap();
    for target in [Path::new("../../passwd"), Path::new("../../../passwd"), &outside] {
        symlink(target, scratch.etc("passwd")).unwrap();
        let found = scratch.identity("app", &[]);
        assert_eq!(found.unwrap_err().code, Code::InvalidArgument, "{}", target.display());
        fs::remove_file(scratch.etc("passwd")).unwrap();
    }
    fs::write(scratch.etc("real"), APP).unwrap();
    symlink("/etc/real", scratch.etc("passwd")).unwrap();
    assert_eq!(scratch.identity("app", &[]).unwrap().uid, 1000);
}
