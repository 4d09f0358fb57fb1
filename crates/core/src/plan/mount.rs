//! The caller's mounts: bind, tmpfs and overlay (mount(8), mount_setattr(2)).

use std::fmt;

use serde::{Deserialize, Serialize};

use nsrs_base::host::tree::Attributes;
use nsrs_base::options::{MOUNTS, OptionName, ROOTFS, TMPFS, VOLUMES};

use super::size;
use crate::spec::{self, MountOptions};
use nsrs_base::error::{Code, Error, Result};

/// What is mounted, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub enum MountSource {
    /// A directory or file of the host.
    Bind {
        /// Absolute path on the host.
        path: String,
        /// With all mounts below it.
        recursive: bool,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Most bytes it may hold; `None` is half of the host's memory.
        size: Option<u64>,
        /// Mode of its root directory.
        mode: u32,
        /// Owner of its root directory in the container.
        uid: u32,
        /// Group of its root directory in the container.
        gid: u32,
    },
    /// A directory of the host, copy-on-write: changes go to memory and are thrown away.
    Overlay {
        /// Absolute path on the host.
        lower: String,
    },
}

/// How mount events travel between this mount and the host's (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// They don't: neither side sees a later mount of the other.
    #[default]
    Private,
    /// From the host to the container.
    Slave,
    /// From the host to the container, and back.
    Shared,
    /// They don't, and the mount can't be bound again.
    Unbindable,
}

/// One mount that the caller asked for, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Absolute path in the container, resolved inside its root when the mount is made.
    pub target: String,
    /// What is mounted there.
    pub source: MountSource,
    /// What it restricts: `ro`, `nosuid`, `nodev`, `noexec`, `nosymfollow`.
    pub attributes: Attributes,
    /// Whether later mounts on the host show below it, and the other way round.
    pub propagation: Propagation,
    /// The option as it was written, for errors.
    pub option: Written,
}

/// An option as it was written: its name, and its value or what tells it apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Which option it is.
    pub name: OptionName,
    /// Its value, quoted, or the part of it that tells it from others of that name.
    pub value: String,
}

impl Written {
    /// That it is wrong, and why.
    #[must_use]
    pub fn invalid(&self, why: impl Into<String>) -> Error {
        Error::new(Code::InvalidArgument, "invalid", why).on(self.to_string()).about(self.name)
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.value)
    }
}

/// The parts of one mount option, not yet checked.
struct MountParts<'a> {
    option: Written,
    kind: &'a str,
    source: String,
    target: String,
    options: Vec<&'a str>,
}

/// Reads `SOURCE:TARGET[:OPTIONS]`.
///
/// # Errors
/// A part is missing or wrong; the error quotes the whole text.
pub fn parse_volume(text: &str, cwd: &str, home: Option<&str>) -> Result<Mount> {
    let bad = |why: &str| Error::invalid(VOLUMES, text, why);
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        [only] if only.starts_with('/') => {
            return Err(bad("a volume without a source").hint(format!("{TMPFS} {only} gives an empty directory there")));
        }
        _ => {
            return Err(bad("give SOURCE:TARGET[:OPTIONS]")
                .hint(format!("for a path that holds a colon use {MOUNTS} type=bind,source=…,target=…")));
        }
    };
    let looks_like_a_path = source.starts_with(['/', '.', '~']);
    if !looks_like_a_path {
        return Err(bad("named volumes don't exist here").hint(format!("write ./{source} for a directory")));
    }
    build(MountParts {
        option: Written { name: VOLUMES, value: format!("{text:?}") },
        kind: "bind",
        source: absolute(source, cwd, home),
        target: target.to_owned(),
        options: options.split(',').filter(|option| !option.is_empty()).collect(),
    })
}

/// Reads `TARGET[:OPTIONS]`.
///
/// # Errors
/// The target is not absolute, or an option is unknown.
pub fn parse_tmpfs(text: &str) -> Result<Mount> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    // With `nodev` what docker gives a tmpfs; an option takes each back.
    let mut all = vec!["nosuid", "noexec"];
    all.extend(options.split(',').filter(|option| !option.is_empty()));
    build(MountParts {
        option: Written { name: TMPFS, value: format!("{text:?}") },
        kind: "tmpfs",
        source: String::new(),
        target: target.to_owned(),
        options: all,
    })
}

/// Reads `type=bind,source=/src,target=/dst,readonly` or takes its typed form.
///
/// # Errors
/// A key is unknown or missing, or a value is wrong.
pub fn parse_mount(mount: &spec::MountSpec, cwd: &str, home: Option<&str>) -> Result<Mount> {
    match mount {
        spec::MountSpec::Typed(MountOptions { kind, source, target, options }) => build(MountParts {
            option: Written { name: MOUNTS, value: format!("type={kind},target={target}") },
            kind,
            source: if source.is_empty() { String::new() } else { absolute(source, cwd, home) },
            target: target.clone(),
            options: options.iter().map(String::as_str).collect(),
        }),
        spec::MountSpec::Text(text) => {
            let mut parts = MountParts {
                option: Written { name: MOUNTS, value: format!("{text:?}") },
                kind: "bind",
                source: String::new(),
                target: String::new(),
                options: vec![],
            };
            for part in text.split(',').filter(|part| !part.is_empty()) {
                match part.split_once('=') {
                    Some(("type", value)) => parts.kind = value,
                    Some(("source" | "src" | "lower", value)) => parts.source = absolute(value, cwd, home),
                    Some(("target" | "dst" | "destination", value)) => parts.target = value.to_owned(),
                    Some(("bind-propagation", value)) => parts.options.push(value),
                    Some(("readonly" | "ro", "true" | "1")) => parts.options.push("ro"),
                    Some(("readonly" | "ro", "false" | "0")) => parts.options.push("rw"),
                    Some(("tmpfs-size", _)) => parts.options.push(&part["tmpfs-".len()..]),
                    Some(("tmpfs-mode", _)) => parts.options.push(&part["tmpfs-".len()..]),
                    None if part == "readonly" => parts.options.push("ro"),
                    _ => parts.options.push(part),
                }
            }
            build(parts)
        }
    }
}

fn build(parts: MountParts<'_>) -> Result<Mount> {
    let bad = |why: String| parts.option.invalid(why);
    if !["bind", "tmpfs", "overlay"].contains(&parts.kind) {
        return Err(bad(format!("no such type of mount: {:?}", parts.kind)).hint("types: bind, tmpfs, overlay"));
    }
    if !parts.target.starts_with('/') {
        return Err(bad("the target is not an absolute path in the container".into()));
    }
    if parts.target.contains('\0') || parts.source.contains('\0') {
        return Err(bad("a path can't hold a NUL byte".into()));
    }
    if parts.target.split('/').all(|part| part.is_empty() || part == ".") {
        return Err(bad("the target is the root itself".into()).hint(format!("use {ROOTFS} for the root file system")));
    }
    if parts.source.is_empty() && parts.kind != "tmpfs" {
        return Err(bad("the source is missing".into()));
    }
    if !parts.source.is_empty() && parts.kind == "tmpfs" {
        return Err(bad("a tmpfs has no source".into()));
    }
    let source = match parts.kind {
        "bind" => MountSource::Bind { path: parts.source.clone(), recursive: true },
        "tmpfs" => MountSource::Tmpfs { size: None, mode: 0o1777, uid: 0, gid: 0 },
        _ => MountSource::Overlay { lower: parts.source.clone() },
    };
    let mut mount = Mount {
        target: parts.target.clone(),
        source,
        // A device node outside /dev is a way to hardware that nobody has decided about: who wants one asks for `dev`.
        attributes: Attributes { nodev: true, ..Attributes::default() },
        propagation: Propagation::default(),
        option: parts.option.clone(),
    };
    for option in &parts.options {
        if !set(&mut mount, option).map_err(bad)? {
            return Err(
                bad(format!("no such option of a {} mount: {option:?}", parts.kind)).hint(known_options(&mount.source))
            );
        }
    }
    Ok(mount)
}

/// The options of a kind of mount, for whoever gave another.
fn known_options(source: &MountSource) -> String {
    let own = match source {
        MountSource::Bind { .. } => "rbind, bind, [r]private, [r]slave, [r]shared, [r]unbindable, ",
        MountSource::Tmpfs { .. } => "size=SIZE, mode=OCTAL, uid=N, gid=N, ",
        MountSource::Overlay { .. } => "",
    };
    format!("options: {own}ro, rw, [no]suid, [no]dev, [no]exec, [no]symfollow")
}

/// Applies one option; `false` if this kind of mount has none of that name.
fn set(mount: &mut Mount, option: &str) -> Result<bool, String> {
    let attributes = &mut mount.attributes;
    match option {
        "ro" | "readonly" => attributes.read_only = true,
        "rw" => attributes.read_only = false,
        "nosuid" => attributes.nosuid = true,
        "suid" => attributes.nosuid = false,
        "nodev" => attributes.nodev = true,
        "dev" => attributes.nodev = false,
        "noexec" => attributes.noexec = true,
        "exec" => attributes.noexec = false,
        "nosymfollow" => attributes.nosymfollow = true,
        "symfollow" => attributes.nosymfollow = false,
        _ => return set_of_kind(mount, option),
    }
    Ok(true)
}

fn set_of_kind(mount: &mut Mount, option: &str) -> Result<bool, String> {
    let number = |value: &str, radix: u32, most: u32| {
        u32::from_str_radix(value, radix).ok().filter(|number| *number <= most && !value.starts_with('+'))
    };
    let wrong = |why: &str| format!("wrong value in {option:?}: {why}");
    let id = || wrong("give a number");
    match (&mut mount.source, option.split_once('=').unwrap_or((option, ""))) {
        (MountSource::Bind { recursive, .. }, ("bind", "")) => *recursive = false,
        (MountSource::Bind { recursive, .. }, ("rbind", "")) => *recursive = true,
        (MountSource::Bind { .. }, ("private" | "rprivate", "")) => mount.propagation = Propagation::Private,
        (MountSource::Bind { .. }, ("slave" | "rslave", "")) => mount.propagation = Propagation::Slave,
        (MountSource::Bind { .. }, ("shared" | "rshared", "")) => mount.propagation = Propagation::Shared,
        (MountSource::Bind { .. }, ("unbindable" | "runbindable", "")) => mount.propagation = Propagation::Unbindable,
        (MountSource::Tmpfs { size, .. }, ("size", value)) => {
            *size = Some(size::parse(value).map_err(wrong)?);
        }
        (MountSource::Tmpfs { mode, .. }, ("mode", value)) => {
            *mode = number(value, 8, 0o7777).ok_or_else(|| wrong("give an octal mode up to 7777"))?;
        }
        (MountSource::Tmpfs { uid, .. }, ("uid", value)) => *uid = number(value, 10, u32::MAX - 1).ok_or_else(id)?,
        (MountSource::Tmpfs { gid, .. }, ("gid", value)) => *gid = number(value, 10, u32::MAX - 1).ok_or_else(id)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// An absolute path on the host: relative to the caller's directory, `~/` to their home. Without a directory it stays
/// relative.
#[must_use]
pub fn absolute(path: &str, cwd: &str, home: Option<&str>) -> String {
    match (path.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
        _ if path.starts_with('/') || cwd.is_empty() => path.to_owned(),
        _ => format!("{}/{path}", cwd.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(text: &str) -> Result<Mount> {
        parse_volume(text, "/home/ann/work", Some("/home/ann"))
    }

    #[test]
    fn a_volume_is_a_recursive_private_bind_mount() {
        let mount = volume("/src:/dst:ro,nosuid").unwrap();
        assert_eq!(mount.source, MountSource::Bind { path: "/src".into(), recursive: true });
        assert!(mount.attributes.read_only && mount.attributes.nosuid && mount.attributes.nodev);
        assert_eq!(mount.propagation, Propagation::Private);
    }

    #[test]
    fn relative_sources_belong_to_the_caller() {
        for (text, path) in [(".:/w", "/home/ann/work/."), ("./a:/w", "/home/ann/work/./a"), ("~/b:/w", "/home/ann/b")]
        {
            assert_eq!(volume(text).unwrap().source, MountSource::Bind { path: path.into(), recursive: true });
        }
    }

    #[test]
    fn bad_volumes_name_what_is_wrong() {
        for (text, why) in [
            ("/src:dst", "not an absolute path"),
            ("data:/dst", "named volumes"),
            ("/only", "without a source"),
            ("/a:/b:c:d", "SOURCE:TARGET"),
            ("/a:/b:fast", "no such option"),
            ("/a:/", "the root itself"),
            ("/a:/b:size=1m", "no such option"),
        ] {
            let error = volume(text).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_tmpfs_is_as_tight_as_dockers() {
        let mount = parse_tmpfs("/tmp:size=64m,mode=700,exec").unwrap();
        assert_eq!(mount.source, MountSource::Tmpfs { size: Some(64 << 20), mode: 0o700, uid: 0, gid: 0 });
        assert!(mount.attributes.nosuid && mount.attributes.nodev && !mount.attributes.noexec);
        for text in ["tmp", "/t:size=0", "/t:mode=9", "/t:rbind"] {
            assert!(parse_tmpfs(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wrong_mount_is_told_with_what_is_allowed() {
        let text = |error: Error| format!("{error}; {}", error.hint);
        let mount = |text: &str| parse_mount(&spec::MountSpec::Text(text.into()), "/", None).unwrap_err();
        assert_eq!(
            text(mount("type=foo")),
            "invalid --mount \"type=foo\": no such type of mount: \"foo\"; types: bind, tmpfs, overlay"
        );
        let error = parse_tmpfs("/x:size=abc").unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid --tmpfs \"/x:size=abc\": wrong value in \"size=abc\": give a size such as 64m or 1g"
        );
        assert!(text(parse_tmpfs("/x:fast").unwrap_err()).contains("size=SIZE"));
        assert!(text(parse_tmpfs("/x:mode=9").unwrap_err()).contains("octal"));
    }

    #[test]
    fn the_mount_option_has_dockers_keys() {
        let text = spec::MountSpec::Text("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave".into());
        let mount = parse_mount(&text, "/", None).unwrap();
        assert!(mount.attributes.read_only);
        assert_eq!(mount.propagation, Propagation::Slave);
        for text in ["type=bind,dst=/b", "type=tmpfs,src=/a,dst=/b", "type=nfs,src=/a,dst=/b", "type=bind,src=/a,dst=b"]
        {
            assert!(parse_mount(&spec::MountSpec::Text(text.into()), "/", None).is_err(), "{text}");
        }
    }

    #[test]
    fn a_typed_mount_may_hold_colons_and_commas() {
        let typed = spec::MountSpec::Typed(MountOptions {
            kind: "bind".into(),
            source: "/a:b,c".into(),
            target: "/d".into(),
            options: vec!["ro".into()],
        });
        assert_eq!(
            parse_mount(&typed, "/", None).unwrap().source,
            MountSource::Bind { path: "/a:b,c".into(), recursive: true }
        );
    }
}
