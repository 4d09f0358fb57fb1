//! The root file system of an image as a flat archive, like that of `docker export`.

use std::io::Write;

use crate::error::Result;
use crate::image::stack::Stack;
use crate::image::tree::merge::walk;
use crate::image::tree::pack::Packer;

/// Writes the tree that the layers make together. Returns how many entries it has.
///
/// # Errors
/// A file can't be read, or the output refuses.
pub fn export(stack: &Stack, output: impl Write) -> Result<u64> {
    let mut packer = Packer::new(output);
    walk(&stack.paths(), false, &mut packer)?;
    let entries = packer.entries;
    packer.finish()?;
    Ok(entries)
}
