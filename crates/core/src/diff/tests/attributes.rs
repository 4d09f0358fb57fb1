//! Extended attributes and access lists.

use super::*;

#[test]
fn attributes_of_a_file_that_is_closed_to_its_owner_are_brought() {
    alone!();
    let Some(fixture) = OverlayFixture::new("closed-xattrs") else { return };
    for directory in [fixture.lower(), fixture.upper()] {
        fs::write(directory.join("file"), "").unwrap();
        set_mode(&directory.join("file"), 0);
    }
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(fixture.upper().join("file"), "user.nsrs", b"new", flags).unwrap();
    give_all(&fixture);
    as_user(|| assert_eq!(fixture.apply(Consent::default()), []));
    let mut value = [0; 8];
    let count = rustix::fs::getxattr(fixture.lower().join("file"), "user.nsrs", &mut value).unwrap();
    assert_eq!((&value[..count], mode(&fixture.lower().join("file"))), (&b"new"[..], 0));
}

/// An access list in its binary form (acl(5)): the owner, this user, the group, the mask and others.
fn access_list(user: u32, rights: u16) -> Vec<u8> {
    let entry = |tag: u16, rights: u16, id: u32| {
        [tag.to_le_bytes().to_vec(), rights.to_le_bytes().to_vec(), id.to_le_bytes().to_vec()].concat()
    };
    let all = [(1, 7, u32::MAX), (2, rights, user), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)];
    let entries = all.into_iter().flat_map(|(tag, rights, id)| entry(tag, rights, id));
    2_u32.to_le_bytes().into_iter().chain(entries).collect()
}

#[test]
fn nothing_takes_over_the_access_list_of_the_directory_that_it_is_brought_into() {
    let Some(fixture) = OverlayFixture::new("lists") else { return };
    for name in ["shared", "private", "closed"] {
        fs::create_dir(fixture.lower().join(name)).unwrap();
        set_mode(&fixture.lower().join(name), 0o755);
    }
    let set = |path: &Path, key: &str, user: u32| {
        rustix::fs::setxattr(path, key, &access_list(user, 7), rustix::fs::XattrFlags::empty())
    };
    if set(&fixture.lower().join("shared"), "system.posix_acl_default", 1001).is_err() {
        skip!("needs access lists on the temporary file system");
    }
    set(&fixture.lower().join("closed"), "system.posix_acl_access", 1002).unwrap();
    fixture.change(|merged| {
        fs::write(merged.join("private/file"), "secret").unwrap();
        set_mode(&merged.join("private/file"), 0o640);
        fs::create_dir(merged.join("private/dir")).unwrap();
        fs::write(merged.join("private/dir/in"), "").unwrap();
        for name in ["file", "dir"] {
            fs::rename(merged.join("private").join(name), merged.join("shared").join(name)).unwrap();
        }
        fs::write(merged.join("shared/own"), "").unwrap();
        rustix::fs::mknodat(
            fs::File::open(merged.join("shared")).unwrap(),
            "fifo",
            FileType::Fifo,
            Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
        rustix::fs::removexattr(merged.join("shared/fifo"), "system.posix_acl_access").unwrap();
        set_mode(&merged.join("shared/fifo"), 0o666);
        rustix::fs::removexattr(merged.join("closed"), "system.posix_acl_access").unwrap();
        set_mode(&merged.join("closed"), 0o750);
    });
    assert_eq!(fixture.apply(Consent { force: true, privileged: false }), []);
    let list = |path: &str| {
        let mut value = vec![0_u8; 256];
        rustix::fs::getxattr(fixture.lower().join(path), "system.posix_acl_access", &mut value[..]).ok()
    };
    for path in ["shared/file", "shared/dir", "shared/dir/in", "shared/fifo", "closed"] {
        assert_eq!(list(path), None, "{path}");
    }
    assert!(list("shared/own").is_some(), "what the command's file had itself stays");
    assert_eq!(mode(&fixture.lower().join("shared/file")), 0o640);
    assert_eq!(lines(&fixture.list()), "");
}
