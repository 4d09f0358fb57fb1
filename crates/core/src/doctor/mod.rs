//! Verdicts about a host, found by doing: each check tries what a container needs, in a child that can't hang.
//!
//! [`examine`] is for a single-threaded process: its checks run in copies of it.

mod around;
mod cgroups;
mod forward_policy;
mod kernel;
mod mounts;
mod namespaces;
mod network;
mod probe;
mod state;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use self::around::Around;
use nsrs_base::error::{Error, Result};
use nsrs_base::host::Host;

/// What a check means for containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Containers can use what was checked.
    Ok,
    /// Something optional is missing: some options of containers fail, or work less well.
    Warning,
    /// Containers of this caller can't run with the defaults.
    Failure,
}

/// One check. Its texts name options by placeholders ([`nsrs_base::options`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Short name of the check: `veth`, `cgroups`.
    pub name: String,
    /// Whether what was checked can be used.
    pub verdict: Verdict,
    /// What the check found, or the error of what was tried.
    pub detail: String,
    /// What to do about it, if anything is to be done.
    pub fix: String,
}

impl Finding {
    fn ok(name: &str, detail: impl Into<String>) -> Finding {
        Finding { name: name.into(), verdict: Verdict::Ok, detail: detail.into(), fix: String::new() }
    }

    fn bad(name: &str, verdict: Verdict, detail: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { name: name.into(), verdict, detail: detail.into(), fix: fix.into() }
    }

    /// What came of a try: its text, or the error with the remedy that `fix` knows.
    fn of(name: &str, tried: Result<String>, verdict: Verdict, fix: impl FnOnce(&Error) -> String) -> Finding {
        match tried {
            Ok(detail) => Finding::ok(name, detail),
            Err(error) => Finding::bad(name, verdict, error.line(), fix(&error)),
        }
    }
}

/// What the checks are given: the caller's rights, and what else on this host has a say.
struct Examination<'a> {
    host: &'a Host,
    around: Around,
}

/// Tries what containers need. `Failure` means that nothing runs for this caller with the defaults.
///
/// Each check takes 2 seconds at most. The calling process must be single-threaded: it is copied for the checks.
#[must_use]
pub fn examine(host: &Host) -> Vec<Finding> {
    let examination = Examination { host, around: Around::look() };
    let mut findings = kernel::examine(&examination);
    let user = namespaces::user(&examination);
    // Without rights everything else needs a user namespace; where there is none, one finding says it all.
    let go_on = host.privileged || user.iter().all(|finding| finding.verdict != Verdict::Failure);
    findings.extend(user);
    if go_on {
        findings.extend(namespaces::others(&examination));
        findings.extend(mounts::examine(&examination));
    }
    findings.extend(network::examine(&examination));
    findings.push(cgroups::examine());
    findings.push(state::examine(host));
    findings.extend(examination.around.findings());
    findings
}
