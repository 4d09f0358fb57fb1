//! A process that enters a container: what is asked, over what the container's own process has.

use nsrs_base::error::{Error, Result};
use nsrs_base::options::{GROUPS, USER};

use super::namespace::Kind;
use super::{Plan, Problems, env, limits, process};
use crate::spec::{EnterSpec, ProcessSpec};

/// Resolves a process that enters the container of a plan. It has the rights and the limits of the container's first
/// process, and what is left out is as that one has it.
///
/// # Errors
/// Every problem of the request.
pub fn resolve(plan: &Plan, spec: &EnterSpec) -> Result<Plan, Vec<Error>> {
    let mut problems = Problems::default();
    let EnterSpec { args, process: asked, preserve_fds, own_pipes } = spec;
    let ProcessSpec { env, workdir, user, groups, umask, tty, timeout_ms } = asked;
    let base = &plan.process;
    let is_other_user = user.is_some() && plan.sandbox.root.is_host_tree();
    let mut variables = env::over(&base.env, env, is_other_user, &mut problems);
    if tty.is_some() && !variables.iter().any(|entry| entry.starts_with("TERM=")) {
        variables.push("TERM=xterm".into());
    }
    process::check_args(args, &variables, &mut problems);
    process::check_fds(preserve_fds, &mut problems);
    let process = process::Process {
        args: args.clone(),
        env: variables,
        workdir: match workdir {
            Some(path) => problems.or(process::check_workdir(path)),
            None => base.workdir.clone(),
        },
        user: match user {
            Some(text) => problems
                .take(process::parse_user(text).map_err(|why| Error::invalid(USER, text, why)))
                .unwrap_or(process::User::Caller),
            None => base.user.clone(),
        },
        groups: match groups.is_empty() {
            true => base.groups.clone(),
            false => problems.all(
                groups.iter().map(|text| process::parse_id(text).map_err(|why| Error::invalid(GROUPS, text, why))),
            ),
        },
        umask: match umask {
            Some(text) => problems.take(limits::parse_umask(text)),
            None => base.umask,
        },
        tty: *tty,
        preserve_fds: preserve_fds.clone(),
        own_pipes: own_pipes.clone(),
        timeout_ms: *timeout_ms,
        rights: base.rights.clone(),
        resources: base.resources.clone(),
    };
    if tty.is_some() && !plan.sandbox.namespaces.makes(Kind::Mount) {
        problems.push(process::no_own_terminal());
    }
    let plan = Plan { sandbox: plan.sandbox.clone(), process };
    problems.finish(plan)
}
