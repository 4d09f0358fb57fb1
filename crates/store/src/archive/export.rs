//! The root file system of an image as a flat archive, like that of `docker export`.

use std::io::Write;

use crate::archive::pack::Packer;
use crate::stack::LayerStack;
use nsrs_base::error::Result;
use nsrs_base::tree::merge::walk;

/// Writes the tree that the layers make together. Returns how many entries it has.
///
/// # Errors
/// A file can't be read, or the output refuses.
pub fn export(stack: &LayerStack, output: impl Write) -> Result<u64> {
    let mut packer = Packer::new(output);
    walk(&stack.paths(), false, &mut packer)?;
    let entries = packer.entries;
    packer.finish()?;
    Ok(entries)
}
