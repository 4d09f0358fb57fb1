//! Host name, domain name and kernel parameters of the container.

use std::io::Write;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::system::{setdomainname, sethostname};

use super::pseudo::Mounted;
use crate::plan::sandbox::Sandbox;
use nsrs_base::error::{At, Result};

/// Sets the names of the UTS namespace.
///
/// # Errors
/// The kernel refuses.
pub fn set(sandbox: &Sandbox) -> Result<()> {
    if let Some(name) = &sandbox.hostname {
        sethostname(name.as_bytes()).at("set the host name", name)?;
    }
    if let Some(name) = &sandbox.domainname {
        setdomainname(name.as_bytes()).at("set the domain name", name)?;
    }
    Ok(())
}

/// Writes the kernel parameters through the fresh /proc, by descriptor: no mount of the container stands in between.
///
/// # Errors
/// The kernel has no such parameter or refuses the value.
pub fn set_sysctls(sandbox: &Sandbox, mounted: &Mounted) -> Result<()> {
    for sysctl in &sandbox.sysctls {
        let step = "set the kernel parameter";
        let bounds = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let file = openat2(
            &mounted.proc,
            format!("sys/{}", sysctl.path),
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
            bounds,
        )
        .at(step, &sysctl.path)?;
        std::fs::File::from(file)
            .write_all(sysctl.value.as_bytes())
            .at(step, format!("{}={}", sysctl.path, sysctl.value))?;
    }
    Ok(())
}
