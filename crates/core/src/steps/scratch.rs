//! The writable layers of a container's overlays: in memory, or in a directory on disk.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, mkdirat, open, openat, stat, statat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountFlags, UnmountFlags, mount, unmount};
use rustix::process::fchdir;

use super::host_split::split_mode;
use super::mount_api::{FsContext, attach, clone_tree, make_read_only, tmpfs};
use crate::diff::UpperLayer;
use crate::plan::mount::MountSource;
use crate::plan::root::Root;
use crate::plan::sandbox::Sandbox;
use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::options::HIDE;
use nsrs_base::sys::mount::{AttributeChange, set_attributes};

/// Where the layers lie in the scratch file system.
const LAYERS: &str = "layers";
/// Where the short names of lower directories lie in it.
const LOWERS: &str = "l";
/// The longest text that fsconfig(2) takes, without its end.
const LONGEST_OPTION: usize = 255;

/// An overlay to be made.
pub struct Over<'a> {
    /// Where it will be in the container; for the record.
    pub path: &'a str,
    /// Directories of the host, the uppermost first.
    pub lowers: &'a [&'a str],
    /// Restrictions that the overlay is mounted with (`MOUNT_ATTR_*`).
    pub attributes: MountAttrFlags,
    /// Whiteouts and the like stand in attributes of users.
    pub user_xattrs: bool,
    /// Nothing needs to reach the disk: it is thrown away.
    pub volatile: bool,
    /// It is over the layers of an image.
    pub is_image: bool,
}

/// Opens a directory on the disk for writable layers.
///
/// # Errors
/// It can't be entered.
pub fn open_disk(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).at("open the directory for writable layers", path.display())
}

/// Writable layers of the overlays: number N is `N/upper`, with `N/work` beside it. In memory nothing outside can name them,
/// and the kernel throws them away with the container's last process.
pub struct Scratch {
    tree: OwnedFd,
    layers: OwnedFd,
    made: Vec<UpperLayer>,
    in_user_namespace: bool,
    /// The layers will be read: what overlayfs would note in other ways than as files it is told not to.
    read_later: bool,
}

impl Scratch {
    /// The writable layers of this sandbox, if it has an overlay; in `disk`, or in memory.
    ///
    /// # Errors
    /// Fails as [`Scratch::new`] does.
    pub fn for_sandbox(sandbox: &Sandbox, disk: Option<&OwnedFd>) -> Result<Option<Scratch>> {
        let mounts_one = sandbox.mounts.iter().any(|mount| matches!(mount.source, MountSource::Overlay { .. }));
        let root = matches!(sandbox.root, Root::Host(_) | Root::Image(_))
            || (sandbox.changes.is_some() && sandbox.root != Root::Shared);
        if !mounts_one && !root {
            return Ok(None);
        }
        let scratch = Scratch::new(sandbox.user_namespace.is_private(), disk)?;
        Ok(Some(Scratch { read_later: sandbox.changes.is_some(), ..scratch }))
    }

    /// Makes a tmpfs and attaches it where it covers nothing that is still needed (overlayfs takes no detached layers); it
    /// goes with the host's tree when that is left. Not on `/`: a mount on top of the old root would be detached in its
    /// place. A directory on disk is mounted in it.
    ///
    /// # Errors
    /// The kernel refuses a tmpfs, or the directory can't be mounted.
    pub fn new(in_user_namespace: bool, disk: Option<&OwnedFd>) -> Result<Scratch> {
        let step = "make the writable layers";
        let tree = tmpfs(0o755, None, MountAttrFlags::empty())?;
        let place =
            open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at("open", "/proc")?;
        attach(&tree, &place, "/proc")?;
        make_directory(tree.as_fd(), LAYERS)?;
        if let Some(disk) = disk {
            let mount = clone_tree(disk, "", false).at(step, "")?;
            attach(&mount, openat(&tree, LAYERS, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(step, "")?, LAYERS)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let layers = openat(&tree, LAYERS, flags, Mode::empty()).at(step, "")?;
        Ok(Scratch { tree, layers, made: Vec::new(), in_user_namespace, read_later: false })
    }

    /// An overlay over a directory of the host, detached.
    ///
    /// # Errors
    /// The file system can't be the lower layer of an overlay; the error says what to do.
    pub fn overlay(&mut self, path: &str, lower: &str, attributes: MountAttrFlags) -> Result<OwnedFd> {
        self.stack(&Over {
            path,
            lowers: &[lower],
            attributes,
            user_xattrs: self.in_user_namespace,
            volatile: false,
            is_image: false,
        })
        .map_err(|error| error.hint(format!("hide this file system from the container: {HIDE} {lower}")))
    }

    /// An overlay over any number of directories, detached. Its writable layer has the mode and owner of the uppermost of
    /// them.
    ///
    /// # Errors
    /// The kernel refuses one of the directories, or the file system that the layers are to lie in.
    pub fn stack(&mut self, over: &Over<'_>) -> Result<OwnedFd> {
        let Some((top, below)) = over.lowers.split_first() else {
            return Err(Error::new(Code::SetupFailed, "overlay", "there is nothing below").on(over.path));
        };
        // Before anything is made: whoever goes on without this overlay gives its number to the next one.
        let like = stat(*top).map_err(|errno| Error::os("look at", *top, errno))?;
        let real = self.real_paths(over.lowers)?;
        let layer = self.made.len();
        let (upper, work) = (format!("{layer}/upper"), format!("{layer}/work"));
        let is_new = self.directories(&[&layer.to_string(), &upper, &work])?;
        if is_new {
            // The root of the upper layer is what the merged directory's mode and owner are taken from.
            copy_owner(self.layers.as_fd(), &upper, top, &like)?;
        }
        self.record_layer(over, real, false)?;
        // The layers are named from the working directory, for the tmpfs has no path.
        fchdir(&self.tree).at("enter the writable layers", "")?;
        let options = self.options(over, &upper, &work);
        let start = || {
            options.iter().try_fold(FsContext::new("overlay")?, |context, (key, value)| match value {
                Some(value) => context.set(key, value),
                None => context.flag(key),
            })
        };
        let alone = escape(top);
        // Before Linux 6.5 a value may have no comma.
        let is_plain = alone.len() <= LONGEST_OPTION && !alone.contains(',');
        let mounted = if below.is_empty() && is_plain {
            start()?.set("lowerdir", &alone).and_then(|context| context.mount(over.attributes))
        } else {
            let names = self.short_names(layer, over.lowers)?;
            let one_by_one = names.iter().try_fold(start()?, |context, name| context.set("lowerdir+", name));
            match one_by_one.and_then(|context| context.mount(over.attributes)) {
                // Before Linux 6.7.
                Err(error) if error.errno == Some(libc::EINVAL) => {
                    self.at_once(&options, &names, layer, over.attributes).map_err(|_| error)
                }
                other => other,
            }
        };
        mounted.map_err(|error| error.on(format!("overlay over {top}")))
    }

    /// The options of an overlay but for what is below.
    fn options(&self, over: &Over<'_>, upper: &str, work: &str) -> Vec<(&'static str, Option<String>)> {
        let flags = [("userxattr", over.user_xattrs), ("volatile", over.volatile)];
        let mut options: Vec<_> =
            flags.into_iter().filter(|(_, wanted)| *wanted).map(|(flag, _)| (flag, None)).collect();
        if self.read_later {
            let files = [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")];
            options.extend(files.map(|(key, value)| (key, Some(value.to_owned()))));
        }
        options.push(("upperdir", Some(format!("{LAYERS}/{upper}"))));
        options.push(("workdir", Some(format!("{LAYERS}/{work}"))));
        options
    }

    /// All lower directories in one option, as kernels before 6.7 want it. By mount(2): it takes a page of options, fsconfig(2)
    /// 255 bytes of each.
    fn at_once(
        &self,
        options: &[(&'static str, Option<String>)],
        names: &[String],
        layer: usize,
        attributes: MountAttrFlags,
    ) -> Result<OwnedFd> {
        let step = "stack the layers";
        let options = options.iter().map(|(key, value)| match value {
            Some(value) => format!("{key}={value}"),
            None => (*key).to_owned(),
        });
        let options: Vec<String> = options.chain([format!("lowerdir={}", names.join(":"))]).collect();
        let options = CString::new(options.join(",")).at(step, "")?;
        let place = format!("{LOWERS}{layer}.at");
        make_directory(self.tree.as_fd(), &place)?;
        mount("overlay", &place, "overlay", MountFlags::empty(), Some(options.as_c_str())).at(step, "")?;
        let tree = clone_tree(CWD, &place, false).at(step, "")?;
        unmount(&place, UnmountFlags::DETACH).at(step, "")?;
        let set = u64::from(attributes.bits());
        set_attributes(&tree, c"", false, AttributeChange { set, clear: 0, propagation: 0 }).at(step, "")?;
        Ok(tree)
    }

    /// A directory of the layers in the place of one of the host that can't be overlaid, and whether it is new: what is
    /// written there is found with the other changes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn anew(&mut self, path: &str) -> Result<(OwnedFd, bool)> {
        let mode = Mode::from_raw_mode(split_mode(path)?);
        let real = self.real_paths(&[path])?;
        let layer = self.made.len();
        let upper = format!("{layer}/upper");
        let is_new = self.directories(&[&layer.to_string(), &upper])?;
        if is_new {
            chmodat(&self.layers, upper.as_str(), mode, AtFlags::empty()).at("make a writable layer", path)?;
        }
        let over = Over {
            path,
            lowers: &[path],
            attributes: MountAttrFlags::empty(),
            user_xattrs: self.in_user_namespace,
            volatile: false,
            is_image: false,
        };
        self.record_layer(&over, real, true)?;
        let place = openat(&self.tree, format!("{LAYERS}/{upper}"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let tree = clone_tree(place.at("make a writable layer", path)?, "", false).at("make a writable layer", path)?;
        Ok((tree, is_new))
    }

    /// Makes directories among the layers; false if they are of an earlier container.
    fn directories(&self, names: &[&str]) -> Result<bool> {
        for name in names {
            match make_directory(self.layers.as_fd(), name) {
                Err(error) if error.errno == Some(libc::EEXIST) => return Ok(false),
                other => other?,
            }
        }
        Ok(true)
    }

    fn record_layer(&mut self, over: &Over<'_>, lowers: Vec<String>, plain: bool) -> Result<()> {
        let &Over { path, user_xattrs, is_image, .. } = over;
        let upper = format!("{}/upper", self.made.len());
        let stat = statat(&self.layers, upper, AtFlags::SYMLINK_NOFOLLOW).at("make a writable layer", path)?;
        self.made.push(UpperLayer {
            path: path.to_owned(),
            lowers,
            user_xattrs,
            plain,
            is_image,
            mode: stat.st_mode & 0o7777,
        });
        Ok(())
    }

    /// The paths without links, where they will be looked up later: by then a link could lead elsewhere.
    fn real_paths(&self, paths: &[&str]) -> Result<Vec<String>> {
        let real = |path: &str| {
            let real = std::fs::canonicalize(path).at("resolve the lower directory", path)?;
            real.into_os_string().into_string().map_err(|_| {
                Error::new(Code::Unsupported, "note the lower directory", "its real path is not UTF-8").on(path)
            })
        };
        paths.iter().map(|path| if self.read_later { real(path) } else { Ok((*path).to_owned()) }).collect()
    }

    /// The layers that were made, and their directory.
    #[must_use]
    pub fn made(&self) -> (&[UpperLayer], &OwnedFd) {
        (&self.made, &self.layers)
    }

    /// Links to directories, for their paths may be longer than fsconfig(2) takes.
    fn short_names(&self, layer: usize, lowers: &[&str]) -> Result<Vec<String>> {
        let step = "name the lower layers";
        let directory = format!("{LOWERS}{layer}");
        make_directory(self.tree.as_fd(), &directory)?;
        lowers
            .iter()
            .enumerate()
            .map(|(index, lower)| {
                let name = format!("{directory}/{index:x}");
                symlinkat(*lower, &self.tree, name.as_str()).at(step, *lower)?;
                Ok(name)
            })
            .collect()
    }

    /// Attaches what becomes the root within the scratch file system: pivot_root(2) wants a mount point.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn hold(&self, tree: &OwnedFd) -> Result<()> {
        make_directory(self.tree.as_fd(), "root")?;
        let place =
            openat(&self.tree, "root", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at("hold the root", "/")?;
        attach(tree, &place, "/")
    }

    /// An empty directory, detached and read-only.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn empty_directory(&self) -> Result<OwnedFd> {
        self.empty("nothing", |tree, name| mkdirat(tree, name, Mode::from(0o555)))
    }

    /// An empty file, detached and read-only.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn empty_file(&self) -> Result<OwnedFd> {
        self.empty("nothing.file", |tree, name| {
            openat(tree, name, OFlags::CREATE | OFlags::CLOEXEC | OFlags::RDONLY, Mode::from(0o444)).map(drop)
        })
    }

    fn empty(&self, name: &str, make: impl Fn(BorrowedFd<'_>, &str) -> rustix::io::Result<()>) -> Result<OwnedFd> {
        match make(self.tree.as_fd(), name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::os("make an empty place", name, errno)),
        }
        let mount = clone_tree(&self.tree, name, false).at("make an empty place", name)?;
        make_read_only(&mount, false, name)?;
        Ok(mount)
    }
}

fn make_directory(directory: BorrowedFd<'_>, name: &str) -> Result<()> {
    mkdirat(directory, name, Mode::from(0o755)).at("make a writable layer", name)
}

/// Gives a layer's directory the mode and owner of the directory it stands for. An owner that isn't mapped can't be given:
/// then nobody gets more than others have on the host.
fn copy_owner(tree: BorrowedFd<'_>, name: &str, lower: &str, stat: &Stat) -> Result<()> {
    let step = "make a writable layer";
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let mode = match chownat(tree, name, Some(uid), Some(gid), AtFlags::empty()) {
        Ok(()) => stat.st_mode & 0o7777,
        Err(Errno::INVAL | Errno::PERM) => split_mode(lower)?,
        Err(errno) => return Err(Error::os(step, lower, errno)),
    };
    chmodat(tree, name, Mode::from_raw_mode(mode), AtFlags::empty()).at(step, lower)
}

/// In a list of lower directories a colon separates and a backslash escapes (overlayfs documentation, "Mount options").
fn escape(path: &str) -> String {
    path.replace('\\', "\\\\").replace(':', "\\:")
}
