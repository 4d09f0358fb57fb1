//! The file tree that becomes the container's `/`.

use serde::{Deserialize, Serialize};

use super::Problems;
use super::image::{self, ImageRoot};
use nsrs_base::host::tree::Overlay;
use nsrs_base::options::{HIDE, MOUNTS, READ_ONLY, ROOTFS, TMPFS, VOLUMES};
use nsrs_store::image_facts::ImageFacts;

use super::mount::absolute;
use super::namespace::{Kind, Namespaces};
use super::{changes, hide, namespace};
use crate::spec::Spec;
use nsrs_base::error::Error;
use nsrs_base::host::Host;
use nsrs_base::host::tree::HostTree;

/// Where `/` comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Root {
    /// The mount namespace isn't new: the tree is the one it holds.
    Shared,
    /// A directory of the host.
    #[serde(rename_all = "camelCase")]
    Directory {
        /// Absolute path on the host.
        path: String,
        /// The directory is mounted read-only, but not what the caller mounts in it.
        read_only: bool,
    },
    /// The host's own tree, copy-on-write.
    #[serde(rename_all = "camelCase")]
    Host(HostRoot),
    /// The layers of an image, copy-on-write.
    Image(ImageRoot),
}

/// The host's own tree as a root: each real file system under an overlay whose changes live in memory and die with the
/// container, over it fresh /tmp and /run, and secrets hidden.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostRoot {
    /// Real file systems, parents first; the first is `/`.
    pub overlays: Vec<Overlay>,
    /// Directories with mounts below them, which a user namespace can't overlay: the kernel would have to show what lies
    /// under those mounts. Each is made anew, and its entries overlaid one by one.
    pub split: Vec<String>,
    /// All mount points of the host; what of them is neither overlaid nor fresh stays empty in a split directory.
    pub mount_points: Vec<String>,
    /// Files that are mount points; they are bound read-only, for an overlay is of directories.
    pub files: Vec<String>,
    /// Directories that are fresh and empty.
    pub fresh: Vec<String>,
    /// Secret places of the homes, hidden where they exist.
    pub hidden: Vec<String>,
    /// Paths the caller wants hidden; one that doesn't exist is an error, for a misspelt one would stay visible.
    pub hidden_by_caller: Vec<String>,
    /// The caller's working directory, where something above would cover it.
    pub reveal: Option<String>,
    /// All of the tree is mounted read-only, the working directory too.
    pub read_only: bool,
}

impl HostRoot {
    /// Does it come into view with the caller's working directory, below that?
    #[must_use]
    pub fn is_revealed(&self, path: &str) -> bool {
        self.reveal.as_ref().is_some_and(|reveal| path != reveal && below(path, reveal))
    }
}

impl Root {
    /// The signal that asks the command to end.
    #[must_use]
    pub fn stop_signal(&self) -> i32 {
        match self {
            Root::Image(image) => image.stop_signal.unwrap_or(libc::SIGTERM),
            _ => libc::SIGTERM,
        }
    }

    /// Is it the host's own tree, under an overlay or as it is?
    #[must_use]
    pub fn is_host_tree(&self) -> bool {
        matches!(self, Root::Host(_) | Root::Shared)
    }
}

/// Directories of the host's tree that a container never sees: sockets of services, other programs' files.
const FRESH: [&str; 2] = ["/tmp", "/run"];
/// Directories that [`super::pseudo`] fills.
const PSEUDO: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Does `path` lie at or below `directory`?
pub(super) fn below(path: &str, directory: &str) -> bool {
    path == directory || path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/') || directory == "/")
}

fn is_covered(path: &str, covers: &[&str]) -> bool {
    covers.iter().any(|cover| below(path, cover))
}

/// The host's tree as a root.
#[must_use]
pub fn host_root(spec: &Spec, host: &Host, tree: &HostTree, user_private: bool) -> HostRoot {
    let cwd = spec.caller.cwd.as_str();
    let home = spec.caller.env.get("HOME").map(String::as_str).or(host.home.as_deref());
    let covers: Vec<&str> = FRESH.into_iter().chain(PSEUDO).collect();
    let by_caller: Vec<String> = spec.root.hide.iter().map(|path| clean(&absolute(path, cwd, home))).collect();
    let mut homes = tree.homes.clone();
    homes.extend(home.filter(|home| *home != "/").map(ToOwned::to_owned));
    let mut secrets = hide::paths(&homes);
    // Whoever could write to the layers from inside would forge the list.
    secrets.extend(changes::upper(spec, host));
    let in_hidden = secrets.iter().chain(&by_caller).any(|path| below(cwd, path));
    let reveal = (cwd != "/" && (is_covered(cwd, &FRESH) || in_hidden)).then(|| cwd.to_owned());
    // What a fresh directory covers needs no hiding, unless it comes back into view with the working directory.
    let revealed = |path: &str| reveal.as_ref().is_some_and(|reveal| below(path, reveal));
    let in_view = |path: &str| !is_covered(path, &covers) || revealed(path);
    let hidden = secrets.into_iter().filter(|path| in_view(path)).collect();
    let hidden_with_another =
        |path: &String| !revealed(path) && by_caller.iter().any(|other| other != path && below(path, other));
    let hidden_by_caller: Vec<String> =
        by_caller.iter().filter(|path| in_view(path) && !hidden_with_another(path)).cloned().collect();
    // What nobody will see is not overlaid: to hide a file system is the remedy where the kernel refuses that.
    let unseen = |overlay: &Overlay| overlay.path != "/" && hidden_by_caller.contains(&overlay.path);
    HostRoot {
        overlays: tree
            .directories
            .iter()
            .filter(|overlay| in_view(&overlay.path) && !unseen(overlay))
            .cloned()
            .collect(),
        mount_points: if user_private { tree.mount_points.clone() } else { Vec::new() },
        split: if user_private { parents(&tree.mount_points) } else { Vec::new() },
        files: tree.files.iter().filter(|path| in_view(path)).cloned().collect(),
        fresh: FRESH.map(ToOwned::to_owned).to_vec(),
        hidden,
        hidden_by_caller,
        reveal,
        read_only: spec.root.read_only,
    }
}

/// Every directory above a mount point.
fn parents(mount_points: &[String]) -> Vec<String> {
    let mut parents = std::collections::BTreeSet::new();
    for point in mount_points {
        let mut path = point.as_str();
        while let Some((parent, _)) = path.rsplit_once('/').filter(|_| path != "/") {
            path = if parent.is_empty() { "/" } else { parent };
            parents.insert(path.to_owned());
        }
    }
    parents.into_iter().collect()
}

/// The same path without `.`, empty parts and a slash at the end; `..` stays, for a link may stand before it.
pub(super) fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

/// Decides where `/` comes from, and what of it is hidden.
pub fn resolve(
    spec: &Spec,
    namespaces: &Namespaces,
    host: &Host,
    tree: &HostTree,
    facts: Option<&ImageFacts>,
    problems: &mut Problems,
) -> Root {
    let text = spec.root.directory().unwrap_or("host");
    let own_mounts = namespaces.makes(Kind::Mount);
    if !own_mounts {
        let given = [
            (ROOTFS, spec.root.image().is_some() || (spec.root.directory().is_some() && text != "host")),
            (READ_ONLY, spec.root.read_only),
            (HIDE, !spec.root.hide.is_empty()),
            (VOLUMES, !spec.root.volumes.is_empty()),
            (MOUNTS, !spec.root.mounts.is_empty()),
            (TMPFS, !spec.root.tmpfs.is_empty()),
        ];
        for (option, _) in given.into_iter().filter(|(_, given)| *given) {
            let error = Error::conflict(option, "it would change the mounts of others");
            // An image is its own word on the command line.
            let step =
                if option == ROOTFS && spec.root.image().is_some() { "combine an image".into() } else { error.step };
            problems.push(
                Error { step, ..error }
                    .on(format!("with {}", namespace::Kind::Mount.option()))
                    .hint("leave the mount namespace private"),
            );
        }
        return Root::Shared;
    }
    if spec.root.image().is_some() {
        // Where it wasn't found, that has been told.
        return Root::Image(image::root(spec, facts.unwrap_or(&ImageFacts::default()), namespaces, host, problems));
    }
    match text {
        "host" => Root::Host(host_root(spec, host, tree, namespaces.makes(Kind::User) || namespaces.joins(Kind::User))),
        "" => {
            problems.push(Error::invalid(ROOTFS, text, "give a directory, or host for the host's own tree"));
            Root::Shared
        }
        _ if text.contains('\0') => {
            problems.push(Error::invalid(ROOTFS, text, "a path can't hold a NUL byte"));
            Root::Shared
        }
        _ => {
            if !spec.root.hide.is_empty() {
                problems.push(
                    Error::conflict(HIDE, "only the host's own tree has something to hide")
                        .on(format!("with {ROOTFS} {text:?}"))
                        .hint(format!("{TMPFS} PATH covers a directory of another root")),
                );
            }
            let home = spec.caller.env.get("HOME").map(String::as_str).or(host.home.as_deref());
            Root::Directory { path: absolute(text, &spec.caller.cwd, home), read_only: spec.root.read_only }
        }
    }
}

#[cfg(test)]
mod tests {
    use nsrs_base::host::tree::Attributes;
    use serde_json::json;

    use super::*;
    use crate::spec::Caller;

    fn tree() -> HostTree {
        HostTree {
            directories: ["/", "/home", "/run/user/1000", "/tmp/disk", "/srv"]
                .map(|path| Overlay { path: path.into(), attributes: Attributes::default() })
                .to_vec(),
            files: ["/etc/hosts", "/run/secret"].map(String::from).to_vec(),
            homes: vec!["/root".into(), "/home/ann".into()],
            mount_points: ["/", "/proc", "/mnt/a/b"].map(String::from).to_vec(),
        }
    }

    fn at(cwd: &str) -> Spec {
        Spec { caller: Caller { cwd: cwd.into(), ..Caller::default() }, ..Spec::default() }
    }

    fn hiding(paths: &[&str], cwd: &str) -> Spec {
        Spec { caller: at(cwd).caller, ..Spec::of(json!({ "hide": paths })) }
    }

    #[test]
    fn real_file_systems_are_overlaid_and_fresh_ones_are_not() {
        let root = host_root(&at("/srv/app"), &Host::root(), &tree(), false);
        let overlaid: Vec<&str> = root.overlays.iter().map(|overlay| overlay.path.as_str()).collect();
        assert_eq!(overlaid, ["/", "/home", "/srv"]);
        assert_eq!(root.files, ["/etc/hosts"]);
        assert_eq!(root.fresh, ["/tmp", "/run"]);
        assert_eq!(root.reveal, None);
    }

    #[test]
    fn a_user_namespace_splits_what_has_mounts_below() {
        assert_eq!(host_root(&at("/"), &Host::root(), &tree(), true).split, ["/", "/mnt", "/mnt/a"]);
        assert!(host_root(&at("/"), &Host::root(), &tree(), false).split.is_empty());
    }

    #[test]
    fn the_working_directory_stays_visible_wherever_it_lies() {
        for cwd in ["/tmp/build", "/tmp", "/run/user/1000/x", "/home/ann/.ssh", "/home/ann/.aws/deep"] {
            assert_eq!(host_root(&at(cwd), &Host::root(), &tree(), false).reveal.as_deref(), Some(cwd));
        }
        for cwd in ["/", "/home/ann", "/tmpfoo", "/runner/x"] {
            assert_eq!(host_root(&at(cwd), &Host::root(), &tree(), false).reveal, None, "{cwd}");
        }
    }

    #[test]
    fn what_is_mounted_in_it_stays_visible_too() {
        let root = host_root(&at("/tmp"), &Host::root(), &tree(), false);
        let overlaid: Vec<&str> = root.overlays.iter().map(|overlay| overlay.path.as_str()).collect();
        assert_eq!(overlaid, ["/", "/home", "/tmp/disk", "/srv"]);
        assert!(root.is_revealed("/tmp/disk") && !root.is_revealed("/tmp") && !root.is_revealed("/srv"));
        assert!(host_root(&at("/run"), &Host::root(), &tree(), false).files.contains(&"/run/secret".to_owned()));
    }

    #[test]
    fn secrets_stay_hidden_in_a_working_directory_that_comes_back_into_view() {
        let mut spec = at("/tmp/home/ann");
        spec.caller.env.insert("HOME".into(), "/tmp/home/ann".into());
        let root = host_root(&spec, &Host::root(), &tree(), false);
        assert_eq!(root.reveal.as_deref(), Some("/tmp/home/ann"));
        assert!(root.hidden.contains(&"/tmp/home/ann/.ssh".to_owned()));
        assert!(
            !host_root(
                &Spec { caller: Caller { cwd: "/".into(), ..spec.caller }, ..Spec::default() },
                &Host::root(),
                &tree(),
                false
            )
            .hidden
            .contains(&"/tmp/home/ann/.ssh".to_owned())
        );
    }

    #[test]
    fn secrets_of_every_home_are_hidden_and_more_on_request() {
        let spec = hiding(&["./keys/", "~/mine"], "/srv/app");
        let root = host_root(&spec, &Host { home: Some("/root".into()), ..Host::root() }, &tree(), false);
        for path in ["/root/.ssh", "/home/ann/.kube"] {
            assert!(root.hidden.contains(&path.to_owned()), "{path}");
        }
        assert_eq!(root.hidden_by_caller, ["/srv/app/keys", "/root/mine"]);
    }

    #[test]
    fn a_file_system_that_is_hidden_is_not_overlaid() {
        let spec = hiding(&["/home/ann/keys", "/home", "/"], "/srv/app");
        let root = host_root(&spec, &Host::root(), &tree(), false);
        let overlaid: Vec<&str> = root.overlays.iter().map(|overlay| overlay.path.as_str()).collect();
        assert_eq!(overlaid, ["/", "/home", "/srv"]);
        let spec = hiding(&["/home/ann/keys", "/home"], "/srv/app");
        let root = host_root(&spec, &Host::root(), &tree(), false);
        assert!(root.overlays.iter().all(|overlay| overlay.path != "/home"));
        assert_eq!(root.hidden_by_caller, ["/home"]);
    }

    #[test]
    fn a_shared_mount_namespace_takes_no_mounts() {
        let spec = Spec::of(json!({ "rootfs": "/srv", "readOnly": true, "tmpfs": ["/x"] }));
        let mut problems = Problems::default();
        resolve(&spec, &Namespaces::default(), &Host::root(), &tree(), None, &mut problems);
        assert_eq!(problems.finish(()).unwrap_err().len(), 3);
    }
}
