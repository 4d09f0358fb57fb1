//! Layers seen as the one tree that overlayfs would show, without a mount.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, statat};
use rustix::io::Errno;

use super::marks::{is_opaque, is_whiteout};
use super::open_directory;
use crate::error::show;
use crate::error::{At, Code, Error, Result};

/// How deep directories may be in each other.
const DEEPEST: usize = 1500;

/// Something in the merged tree.
#[derive(Debug)]
pub struct Node<'a> {
    /// Its path from the root, without a slash at its ends; empty for the root.
    pub path: &'a [u8],
    /// The directory in which it is, in the layer it comes from. Of the root: the root itself.
    pub parent: &'a OwnedFd,
    /// Its name there; `.` for the root.
    pub name: &'a [u8],
    /// Its type, mode, owner, size and times (stat(2)).
    pub stat: Stat,
}

impl Node<'_> {
    /// Directory, file, link, device, FIFO or socket.
    #[must_use]
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// Sees each node of a tree in turn. The names in a directory come sorted.
pub trait Visitor {
    /// Shows a directory, before what is in it.
    ///
    /// # Errors
    /// An error ends the walk.
    fn enter(&mut self, node: &Node<'_>) -> Result<()>;

    /// Ends a directory, after everything in it was shown.
    ///
    /// # Errors
    /// An error ends the walk.
    fn leave(&mut self, node: &Node<'_>) -> Result<()>;

    /// Shows anything but a directory.
    ///
    /// # Errors
    /// An error ends the walk.
    fn leaf(&mut self, node: &Node<'_>) -> Result<()>;
}

/// Shows the tree of these layers, lowest first. With `plain`, a single directory is not a layer, and is shown as it is.
///
/// # Errors
/// The visitor fails; a directory can't be read, or is too deep.
pub fn walk(layers: &[&Path], plain: bool, visitor: &mut dyn Visitor) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut roots = Vec::new();
    for layer in layers.iter().rev() {
        let root = rustix::fs::open(*layer, flags, Mode::empty()).at("open the layer", layer.display())?;
        let opaque = !plain && is_opaque(&root);
        roots.push(Rc::new(root));
        if opaque {
            break;
        }
    }
    let Some(top) = roots.first().cloned() else {
        return Err(Error::new(Code::ImageInvalid, "read the image", "it has no layers"));
    };
    let stat = fstat(&*top).at("read the layer", "/")?;
    let node = Node { path: b"", parent: &top, name: b".", stat };
    visitor.enter(&node)?;
    directory(&roots, &mut Vec::new(), 0, plain, visitor)?;
    visitor.leave(&node)
}

/// A name in a merged directory.
struct MergedEntry {
    stat: Stat,
    /// The directories (by their place among the layers) that have it; more than one for merged directories.
    from: Vec<usize>,
    /// Nothing from below is added.
    closed: bool,
}

fn directory(
    layers: &[Rc<OwnedFd>],
    path: &mut Vec<u8>,
    depth: usize,
    plain: bool,
    visitor: &mut dyn Visitor,
) -> Result<()> {
    let step = "read the directory";
    if depth > DEEPEST {
        return Err(Error::new(Code::ImageInvalid, step, "its directories are nested too deep").on(show(path)));
    }
    // `None`: a whiteout.
    let mut names: BTreeMap<Vec<u8>, Option<MergedEntry>> = BTreeMap::new();
    for (index, layer) in layers.iter().enumerate() {
        for entry in Dir::read_from(&**layer).at(step, show(path))? {
            let entry = entry.at(step, show(path))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let known = names.get_mut(name);
            if known.as_ref().is_some_and(|found| found.as_ref().is_none_or(|found| found.closed)) {
                continue;
            }
            let stat = match statat(&**layer, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other.at(step, show(path))?,
            };
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let closed = plain || !is_directory || open_directory(&**layer, name).is_ok_and(|fd| is_opaque(&fd));
            match known {
                Some(Some(found)) => {
                    if is_directory {
                        found.from.push(index);
                    }
                    found.closed = closed;
                }
                _ if !plain && is_whiteout(layer, name, &stat) => {
                    names.insert(name.to_vec(), None);
                }
                _ => {
                    names.insert(name.to_vec(), Some(MergedEntry { stat, from: vec![index], closed }));
                }
            }
        }
    }
    for (name, found) in names {
        let Some(MergedEntry { stat, from, .. }) = found else { continue };
        let length = path.len();
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        {
            let node = Node { path, parent: &layers[from[0]], name: &name, stat };
            if node.kind() == FileType::Directory {
                visitor.enter(&node)?;
            } else {
                visitor.leaf(&node)?;
            }
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let inner: Vec<Rc<OwnedFd>> = from
                .iter()
                .map(|index| open_directory(&*layers[*index], &name).map(Rc::new).at(step, show(path)))
                .collect::<Result<_>>()?;
            directory(&inner, path, depth + 1, plain, visitor)?;
            visitor.leave(&Node { path, parent: &layers[from[0]], name: &name, stat })?;
        }
        path.truncate(length);
    }
    Ok(())
}
