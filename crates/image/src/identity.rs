//! Who this process is for the files of images, decided once at its start.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nsrs_base::error::Result;
use nsrs_base::host::Host;
use nsrs_base::version::VERSION;
use nsrs_store::content::Store;
use nsrs_store::identity::{self, Identity};
use nsrs_store::unpack;

static CURRENT: OnceLock<Identity> = OnceLock::new();

/// Becomes who the verb needs to be; `trees`: it writes, reads or removes unpacked layers. Returns what the user should
/// know.
///
/// # Errors
/// Those of [`identity::enter`].
pub fn become_needed(trees: bool) -> Result<Option<String>> {
    let host = Host::probe();
    let identity = if trees { identity::enter(&host)? } else { identity::outside(&host)? };
    let warning = identity.warning.clone();
    let _ = CURRENT.set(identity);
    Ok(warning)
}

fn current() -> Result<&'static Identity> {
    if CURRENT.get().is_none() {
        let _ = CURRENT.set(identity::outside(&Host::probe())?);
    }
    Ok(CURRENT.get().unwrap_or_else(|| unreachable!("it was set just now")))
}

/// Opens the store of this user to look into it: where there is none, it has no images.
///
/// # Errors
/// Those of [`Store::look`].
pub fn open_store() -> Result<Store> {
    Store::look(&current()?.directory)
}

/// Opens the store of this user to bring something, and makes it if there is none.
///
/// # Errors
/// Those of [`Store::open`].
pub fn make_store() -> Result<Store> {
    Store::open(&current()?.directory)
}

/// Has another process bring what was unpacked to the disk ([`Store::settle`]), so that nobody waits for it here. If that
/// fails, or the host goes down before it is through, the layers are unpacked once more at their next use after that.
pub fn settle_later() {
    let Ok(identity) = current() else { return };
    if open_store().is_ok_and(|store| store.is_settled()) {
        return;
    }
    let mut settle = Command::new("/proc/self/exe");
    settle.args([VERSION, "settle"]).env("NSRS_IMAGE_DIR", &identity.directory).current_dir("/");
    settle.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Away from the terminal's Ctrl-C.
    let _ = settle.process_group(0).spawn();
}

/// How layers are unpacked here.
///
/// # Errors
/// The user has no home directory.
pub fn unpacking() -> Result<unpack::Options> {
    Ok(current()?.options.clone())
}
