//! Whether the command's changes are listed, and where they are kept.

use serde::{Deserialize, Serialize};

use super::Problems;
use super::mount::absolute;
use super::root::{Root, below, clean};
use crate::spec::Form;
use crate::spec::Spec;
use nsrs_base::error::Error;
use nsrs_base::host::Host;
use nsrs_base::options::{DIFF, MOUNTNS, UPPER};

/// What becomes of the changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// They are listed at the end, in this form.
    pub list: Option<Form>,
    /// Absolute path of the directory that they are kept in; `None`: they are thrown away.
    pub upper: Option<String>,
}

/// The directory that was asked for, as an absolute path.
#[must_use]
pub fn upper(spec: &Spec, host: &Host) -> Option<String> {
    let home = spec.caller.env.get("HOME").map(String::as_str).or(host.home.as_deref());
    spec.root.upper.as_ref().map(|path| clean(&absolute(path, &spec.caller.cwd, home)))
}

/// Resolves what is wanted of the changes.
pub fn resolve(spec: &Spec, root: &Root, host: &Host, problems: &mut Problems) -> Option<Changes> {
    if !spec.root.diff && spec.root.upper.is_none() {
        return None;
    }
    if *root == Root::Shared {
        let option = if spec.root.upper.is_some() { UPPER } else { DIFF };
        problems.push(
            Error::conflict(option, "nothing is copied on write there")
                .on(format!("with {MOUNTNS}"))
                .hint("leave the mount namespace private"),
        );
    }
    let upper = upper(spec, host);
    if let (Some(text), Some(path)) = (&spec.root.upper, &upper) {
        let inside = match root {
            Root::Directory { path: root, .. } => below(path, root),
            _ => false,
        };
        if text.is_empty() || text.contains('\0') || path == "/" {
            problems.push(Error::invalid(UPPER, text, "give a directory for the changes"));
        } else if inside {
            problems.push(
                Error::invalid(UPPER, text, "it lies in the root file system")
                    .hint("choose a directory outside of it, on the same file system or another"),
            );
        } else if matches!(root, Root::Host(_)) && below(&spec.caller.cwd, path) {
            problems.push(
                Error::invalid(UPPER, text, "the working directory lies in it, which the container can't see")
                    .hint("choose a directory beside or below the working directory"),
            );
        }
    }
    Some(Changes { list: spec.root.diff.then_some(spec.changes_form), upper })
}
