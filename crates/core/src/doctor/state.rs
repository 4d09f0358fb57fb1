//! Whether the state directory can be used.

use super::{Finding, Host, Verdict};
use nsrs_base::error::{At, Result};

pub fn examine(host: &Host) -> Finding {
    Finding::of("state directory", usable(host), Verdict::Failure, |error| match error.hint.as_str() {
        "" => "set NSRS_STATE_DIR to a directory of your own, on a tmpfs if you can".into(),
        hint => hint.into(),
    })
}

/// Opens it as a container's start does, and writes there.
fn usable(host: &Host) -> Result<String> {
    let path = crate::state::open(host)?;
    let file = path.join(format!(".probe-{}", std::process::id()));
    std::fs::write(&file, "nsrs").at("write into the state directory", path.display())?;
    std::fs::remove_file(&file).at("remove from the state directory", path.display())?;
    Ok(format!("{}, private and writable", path.display()))
}
