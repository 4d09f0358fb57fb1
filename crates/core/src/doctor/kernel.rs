//! The kernel: its version, and the calls that every container makes.

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, memfd_create, open, openat2};
use rustix::io::Errno;

use super::{Examination, Finding, Verdict, probe};
use nsrs_base::error::{Act, At, Code, During, Error, Result};
use nsrs_base::sys::fds::close_on_exec_from;
use nsrs_base::sys::mount::{AttributeChange, set_attributes};
use nsrs_base::sys::{sealed, seccomp};

/// The oldest kernel that has all we use (mount_setattr, owned nftables tables).
const OLDEST: (u32, u32) = (5, 12);

pub fn examine(examination: &Examination<'_>) -> Vec<Finding> {
    let calls = Finding::of("system calls", probe::run(calls), Verdict::Failure, |error| {
        examination.around.remedy(examination.host, error)
    });
    vec![
        version(&rustix::system::uname().release().to_string_lossy()),
        calls,
        proc(),
        seccomp(examination, probe::run(filter)),
        memory(examination, probe::run(executable_memory)),
    ]
}

fn version(release: &str) -> Finding {
    let name = "kernel";
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match found >= OLDEST {
        true => Finding::ok(name, format!("linux {release}")),
        false => Finding::bad(name, Verdict::Failure, format!("linux {release}"), "use linux 5.12 or newer"),
    }
}

/// Each call is made so that it changes nothing: it either exists or says that it doesn't. That this runs shows clone3.
fn calls() -> Result<String> {
    let root = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at("open", "/")?;
    match set_attributes(&root, c"", false, AttributeChange::default()) {
        // Here we may have no right to it; whether a container has is seen with the mount namespace.
        Ok(()) | Err(nix::errno::Errno::EPERM) => {}
        Err(errno) => return Err(Error::os("use", "mount_setattr", errno)),
    }
    openat2(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT).at("use", "openat2")?;
    close_on_exec_from(1 << 20).at("use", "close_range")?;
    rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
        .at("use", "pidfd_open")?;
    Ok("clone3, mount_setattr, openat2, close_range and pidfds work".into())
}

fn proc() -> Finding {
    let magic = rustix::fs::statfs("/proc").map(|stat| stat.f_type);
    match magic {
        Ok(PROC_SUPER_MAGIC) => Finding::ok("/proc", "procfs is mounted"),
        _ => Finding::bad("/proc", Verdict::Failure, "no procfs is mounted there", "as root: mount -t proc proc /proc"),
    }
}

/// The filter that every container gets.
fn filter() -> Result<String> {
    nix::sys::prctl::set_no_new_privs().at("forbid new privileges", "")?;
    seccomp::install().at("install the system call filter", "").during(Act::Rights)?;
    Ok("the containers' filter can be installed".into())
}

fn seccomp(examination: &Examination<'_>, tried: Result<String>) -> Finding {
    Finding::of("seccomp", tried, Verdict::Failure, |error| match (error.id, error.errno) {
        (Some(Act::Rights), Some(libc::EINVAL | libc::ENOSYS)) => "use a kernel with CONFIG_SECCOMP_FILTER".into(),
        _ => examination.around.remedy(examination.host, error),
    })
}

/// Memory that can be executed: nsrs runs from a sealed copy of itself.
fn executable_memory() -> Result<String> {
    if matches!(sealed::running(), Ok(Some(_))) {
        return Ok("nsrs runs from sealed memory".into());
    }
    let memory = match memfd_create("nsrs-probe", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::EXEC) {
        // Before Linux 6.3 memory is executable as it is.
        Err(Errno::INVAL) => memfd_create("nsrs-probe", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING),
        other => other,
    };
    let step = "make memory that can be executed";
    let memory = memory.at(step, "").during(Act::Supervisor)?;
    let mode = rustix::fs::fstat(&memory).at("look at", "memory")?.st_mode;
    if mode & 0o111 == 0 {
        return Err(Error::new(Code::Unsupported, step, "the kernel made it without").during(Act::Supervisor));
    }
    Ok("memory files can be executed".into())
}

fn memory(examination: &Examination<'_>, tried: Result<String>) -> Finding {
    Finding::of("sealed memory", tried, Verdict::Failure, |error| match error.id {
        Some(Act::Supervisor) => "as root: sysctl -w vm.memfd_noexec=0".into(),
        _ => examination.around.remedy(examination.host, error),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Around, Host};
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        for (release, verdict) in [
            ("5.12.0", Verdict::Ok),
            ("6.1.0-18-amd64", Verdict::Ok),
            ("10.0-rc1", Verdict::Ok),
            ("5.4.0-150-generic", Verdict::Failure),
            ("4.19.0", Verdict::Failure),
            ("", Verdict::Failure),
        ] {
            assert_eq!(version(release).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn forbidden_memory_has_a_remedy() {
        let host = Host::root();
        let examination = Examination { host: &host, around: Around::look() };
        let finding = memory(&examination, Err(Error::os("make memory", "", libc::EACCES).during(Act::Supervisor)));
        assert_eq!((finding.verdict, finding.fix.as_str()), (Verdict::Failure, "as root: sysctl -w vm.memfd_noexec=0"));
    }

    #[test]
    fn a_kernel_without_filters_has_a_remedy() {
        let host = Host::root();
        let examination = Examination { host: &host, around: Around::look() };
        let finding = seccomp(&examination, Err(Error::os("install", "", libc::EINVAL).during(Act::Rights)));
        assert_eq!(
            (finding.verdict, finding.fix.as_str()),
            (Verdict::Failure, "use a kernel with CONFIG_SECCOMP_FILTER")
        );
    }
}
