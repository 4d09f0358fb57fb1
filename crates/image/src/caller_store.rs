//! The store of the calling user, and this process's access to it, which is decided once at the start.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nsrs_base::error::Result;
use nsrs_base::host::Host;
use nsrs_base::version::VERSION;
use nsrs_store::content::Store;
use nsrs_store::store_access::StoreAccess;
use nsrs_store::unpack;

static CURRENT: OnceLock<StoreAccess> = OnceLock::new();

/// Gains the access that a verb needs; `layers`: it writes, reads or removes unpacked layers. Returns a warning for the
/// user.
///
/// # Errors
/// Those of [`StoreAccess::enter_as_root`].
pub fn gain_access(layers: bool) -> Result<Option<String>> {
    let host = Host::probe();
    let access = if layers { StoreAccess::enter_as_root(&host)? } else { StoreAccess::of_caller(&host)? };
    let warning = access.warning.clone();
    let _ = CURRENT.set(access);
    Ok(warning)
}

fn current() -> Result<&'static StoreAccess> {
    if CURRENT.get().is_none() {
        let _ = CURRENT.set(StoreAccess::of_caller(&Host::probe())?);
    }
    Ok(CURRENT.get().unwrap_or_else(|| unreachable!("it was set just now")))
}

/// Opens the store of this user to read it. One that doesn't exist has no images.
///
/// # Errors
/// Those of [`Store::look`].
pub fn open_store() -> Result<Store> {
    Store::look(&current()?.directory)
}

/// Opens the store of this user to add something; creates it if there is none.
///
/// # Errors
/// Those of [`Store::open`].
pub fn make_store() -> Result<Store> {
    Store::open(&current()?.directory)
}

/// Has another process write what was unpacked to disk ([`Store::settle`]), so that nobody waits for it here. If it fails, or
/// the host crashes before it is done, the layers are unpacked again when they are next used.
pub fn settle_in_background() {
    let Ok(access) = current() else { return };
    if open_store().is_ok_and(|store| store.is_settled()) {
        return;
    }
    let mut settle = Command::new("/proc/self/exe");
    settle.args([VERSION, "settle"]).env("NSRS_IMAGE_DIR", &access.directory).current_dir("/");
    settle.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Away from the terminal's Ctrl-C.
    let _ = settle.process_group(0).spawn();
}

/// How this process unpacks layers.
///
/// # Errors
/// The user has no home directory.
pub fn unpack_options() -> Result<unpack::UnpackOptions> {
    Ok(current()?.options.clone())
}
