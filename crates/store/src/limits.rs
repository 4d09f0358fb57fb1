//! How much an archive may unpack to.

use nsrs_base::error::{Code, Error, Result};
use nsrs_base::options::MAX_RATIO;

/// The limits of unpacking an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that are always allowed.
    pub floor: u64,
    /// Beyond that, how many times the size of the packed archive.
    pub ratio: u64,
    /// The most entries that an archive may have.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { floor: 1 << 30, ratio: 200, entries: 5_000_000 }
    }
}

impl Limits {
    /// Checks the number of unpacked bytes against that of the packed ones.
    ///
    /// # Errors
    /// There are more than allowed (`ImageInvalid`).
    pub fn check(&self, size: u64, packed: u64) -> Result<()> {
        let most = self.floor.max(packed.saturating_mul(self.ratio));
        if size <= most {
            return Ok(());
        }
        let why = format!("it unpacks to more than {most} bytes, {} times its size", self.ratio);
        Err(Error::new(Code::ImageInvalid, "unpack the archive", why).hint(format!(
            "it may be made to fill the disk; if you trust it, pull, load or import it with a higher {MAX_RATIO}"
        )))
    }
}
