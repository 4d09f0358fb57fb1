//! The second half of a plan: a process in the sandbox, what it executes, as whom, with which rights and limits.

use serde::{Deserialize, Serialize};

use super::capability::Capabilities;
use super::limits::Rlimit;
use super::namespace::{Kind, Namespaces};
use super::root::Root;
use super::{Problems, capability, env, image, limits};
use crate::spec::{Spec, TerminalSize};
use nsrs_base::error::{Code, Error, Result};
use nsrs_base::options::{FDS, GROUPS, MOUNTNS, TTY, USER, WORKDIR, each};
use nsrs_store::image_facts::ImageDefaults;

/// A user or group as it was written; numbers are final, names are looked up in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Id {
    /// A number in the container's user namespace.
    Number(u32),
    /// A name of the container's /etc/passwd or /etc/group.
    Name(String),
}

/// As whom the command runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum User {
    /// With the ids the caller has, on the host's own tree.
    Caller,
    /// As this user, looked up in the container.
    #[serde(rename_all = "camelCase")]
    Given {
        /// Who owns the process.
        user: Id,
        /// The group; `None` is the user's own.
        group: Option<Id>,
    },
}

/// What a process may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rights {
    /// Its capabilities, and the bounding set of all its descendants.
    pub capabilities: Capabilities,
    /// Those the caller added by name; a user who isn't root keeps these.
    pub ambient: Capabilities,
    /// Nothing it executes ever gets more rights (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privileges: bool,
}

/// How much of the host a process may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What setrlimit(2) is called with; a resource that isn't listed keeps the caller's limits.
    pub rlimits: Vec<Rlimit>,
    /// Out-of-memory score, -1000 to 1000; `None` keeps the caller's.
    pub oom_score_adj: Option<i32>,
}

/// A process in a sandbox: its first one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// The program, looked up in `PATH` unless it holds a slash, and its arguments.
    pub args: Vec<String>,
    /// The environment as `NAME=VALUE`; what tells of its user is added in the container.
    pub env: Vec<String>,
    /// Working directory in the container.
    pub workdir: String,
    /// As whom it runs.
    pub user: User,
    /// Supplementary groups beside those of the user.
    pub groups: Vec<Id>,
    /// File mode creation mask; `None` keeps the caller's.
    pub umask: Option<u32>,
    /// Its own terminal, of this size; `None`: it has none of its own.
    pub tty: Option<TerminalSize>,
    /// Numbers of the passed file descriptors beyond 0, 1, 2.
    pub preserve_fds: Vec<i32>,
    /// Which of standard output (1) and error (2) are pipes that were made for it, and are given to its user.
    pub own_pipes: Vec<i32>,
    /// It is killed after this many milliseconds.
    pub timeout_ms: Option<u64>,
    /// What it may do.
    pub rights: Rights,
    /// How much it may use.
    pub resources: Resources,
}

impl Process {
    /// Whether what is done for this process before it is known, in a sandbox with this root, would be done for the other too.
    pub(super) fn prepares(&self, root: &Root, other: &Process) -> bool {
        let Process {
            args: _,
            env: _,
            workdir,
            user: _,
            groups: _,
            umask: _,
            tty,
            preserve_fds: _,
            own_pipes: _,
            timeout_ms: _,
            rights: Rights { capabilities, ambient: _, no_new_privileges: _ },
            resources: Resources { rlimits: _, oom_score_adj },
        } = self;
        *oom_score_adj == other.resources.oom_score_adj
            && *capabilities == other.rights.capabilities
            && *tty == other.tty
            // In an image it is made where it is missing.
            && (!matches!(root, Root::Image(_)) || *workdir == other.workdir)
    }
}

/// The kernel takes at most 32 pages for one argument (execve(2), `MAX_ARG_STRLEN`).
const MOST_ONE: usize = 131_072;
/// And at most three quarters of 8 MiB for all of them, with their pointers.
const MOST_ALL: usize = 6 * 1024 * 1024;

/// What the kernel would refuse of a command and its environment.
pub(super) fn check_args(args: &[String], env: &[String], problems: &mut Problems) {
    let bad = |why: &str| Error::new(Code::InvalidArgument, "run the command", why);
    match args.first() {
        None => problems.push(bad("no command is given").hint(each(
            "give a command: the image has none",
            "nsrs run [options] IMAGE COMMAND [ARG…], or nsrs run [options] -- COMMAND [ARG…]",
        ))),
        Some(program) if program.is_empty() => problems.push(bad("the command is an empty word")),
        Some(_) => {}
    }
    if args.iter().any(|arg| arg.contains('\0')) {
        problems.push(bad("an argument holds a NUL byte"));
    }
    let too_long = |why: String| {
        let mut error = bad(&why).hint("pass large data by a file or by standard input");
        error.errno = Some(libc::E2BIG);
        error
    };
    if let Some(arg) = args.iter().chain(env).find(|arg| arg.len() >= MOST_ONE) {
        problems.push(too_long(format!(
            "one argument or variable has {} bytes, the kernel takes {} at most",
            arg.len(),
            MOST_ONE - 1
        )));
    }
    let all: usize = args.iter().chain(env).map(|arg| arg.len() + 1 + size_of::<usize>()).sum();
    if all > MOST_ALL {
        problems
            .push(too_long(format!("arguments and environment have {all} bytes, the kernel takes {MOST_ALL} at most")));
    }
}

/// Reads a user or group: only digits are a number, and it must fit; 4294967295 is no id.
pub(super) fn parse_id(text: &str) -> Result<Id, &'static str> {
    if text.is_empty() {
        return Err("a user or group is missing");
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<u32>() {
            Ok(number) if number < u32::MAX => Ok(Id::Number(number)),
            _ => Err("ids go from 0 to 4294967294"),
        };
    }
    if text.starts_with(['-', '+']) || text.contains(['\0', '\n', ':', '/']) || text.chars().any(char::is_whitespace) {
        return Err("that is neither a number nor a name");
    }
    Ok(Id::Name(text.to_owned()))
}

/// Reads `USER[:GROUP]`, names or numbers.
pub(super) fn parse_user(text: &str) -> Result<User, &'static str> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    Ok(User::Given { user: parse_id(user)?, group: group.map(parse_id).transpose()? })
}

fn resolve_user(spec: &Spec, host_tree: bool, image: Option<&ImageDefaults>, problems: &mut Problems) -> User {
    let of_image = image.map(|config| config.user.as_str()).filter(|user| !user.is_empty());
    match (&spec.process.user, of_image) {
        (Some(text), _) => {
            problems.take(parse_user(text).map_err(|why| Error::invalid(USER, text, why))).unwrap_or(User::Caller)
        }
        (None, Some(text)) => problems
            .take(parse_user(text).map_err(|why| Error::invalid_value("User of the image", text, why)))
            .unwrap_or(User::Caller),
        (None, None) if host_tree => User::Caller,
        (None, None) => User::Given { user: Id::Number(0), group: None },
    }
}

fn resolve_workdir(
    spec: &Spec,
    namespaces: &Namespaces,
    host_tree: bool,
    image: Option<&ImageDefaults>,
    problems: &mut Problems,
) -> String {
    match (&spec.process.workdir, image) {
        (Some(path), _) if check_workdir(path).is_err() => problems.or(check_workdir(path)),
        // The caller's directory is a path of other mounts.
        (None, _) if namespaces.joins(Kind::Mount) => "/".into(),
        (_, Some(config)) => image::workdir(spec, config),
        (Some(path), None) => path.clone(),
        (None, None) if host_tree => spec.caller.cwd.clone(),
        (None, None) => "/".into(),
    }
}

/// A working directory as it is given.
pub(super) fn check_workdir(path: &str) -> Result<String> {
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(path.to_owned());
    }
    Err(Error::invalid(WORKDIR, path, "give an absolute path in the container"))
}

/// Numbers for descriptors that are passed.
pub(super) fn check_fds(numbers: &[i32], problems: &mut Problems) {
    if let Some(fd) = numbers.iter().find(|fd| !(3..1024).contains(*fd)) {
        problems.push(Error::invalid(FDS, fd, "give numbers from 3 to 1023"));
    }
}

/// A terminal is asked for where there is no /dev of the container's own.
pub(super) fn no_own_terminal() -> Error {
    Error::conflict(TTY, "a terminal is made in the container's own /dev")
        .on(format!("with {MOUNTNS}"))
        .hint("leave the mount namespace private")
}

fn resolve_rights(spec: &Spec, problems: &mut Problems) -> Rights {
    let capabilities = capability::resolve(&spec.rights.cap_add, &spec.rights.cap_drop, problems);
    let added = capability::resolve(&spec.rights.cap_add, &["ALL".into()], &mut Problems::default());
    Rights {
        capabilities,
        ambient: Capabilities(added.0 & capabilities.0),
        no_new_privileges: !spec.rights.allow_new_privileges,
    }
}

fn resolve_resources(spec: &Spec, problems: &mut Problems) -> Resources {
    Resources {
        rlimits: problems.all(spec.resources.ulimits.iter().map(|text| limits::parse_ulimit(text))),
        oom_score_adj: spec.resources.oom_score_adj.and_then(|score| problems.take(limits::check_oom_score(score))),
    }
}

fn resolve_terminal(spec: &Spec, namespaces: &Namespaces, problems: &mut Problems) -> Option<TerminalSize> {
    if spec.process.tty.is_some() && !namespaces.makes(Kind::Mount) {
        problems.push(no_own_terminal());
    }
    spec.process.tty
}

/// Resolves the first process of a sandbox with these namespaces.
pub fn resolve(
    spec: &Spec,
    namespaces: &Namespaces,
    host_tree: bool,
    image: Option<&ImageDefaults>,
    hostname: Option<&str>,
    problems: &mut Problems,
) -> Process {
    let env: Vec<String> = env::resolve(spec, host_tree, image, hostname, problems)
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let of_image = image.filter(|_| !spec.only_waits());
    let args = of_image.map_or_else(|| spec.args.clone(), |config| image::args(spec, config));
    // Of an image that wasn't found nobody knows the command.
    if !spec.only_waits() && (spec.root.image().is_none() || image.is_some()) {
        check_args(&args, &env, problems);
    }
    check_fds(&spec.preserve_fds, problems);
    Process {
        args,
        env,
        user: resolve_user(spec, host_tree, image, problems),
        workdir: resolve_workdir(spec, namespaces, host_tree, image, problems),
        groups: problems.all(
            spec.process.groups.iter().map(|text| parse_id(text).map_err(|why| Error::invalid(GROUPS, text, why))),
        ),
        umask: match &spec.process.umask {
            Some(text) => problems.take(limits::parse_umask(text)),
            None => (!host_tree).then_some(0o022),
        },
        tty: resolve_terminal(spec, namespaces, problems),
        preserve_fds: spec.preserve_fds.clone(),
        own_pipes: spec.own_pipes.clone(),
        timeout_ms: spec.process.timeout_ms,
        rights: resolve_rights(spec, problems),
        resources: resolve_resources(spec, problems),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resolved(spec: &Spec, host_tree: bool) -> std::result::Result<Process, Vec<Error>> {
        let mut problems = Problems::default();
        let process = resolve(spec, &Namespaces::default(), host_tree, None, None, &mut problems);
        problems.finish(process)
    }

    fn run(user: &str) -> std::result::Result<Process, Vec<Error>> {
        resolved(&Spec::of(json!({ "args": ["true"], "user": user })), false)
    }

    #[test]
    fn numbers_are_numbers_and_names_are_names() {
        assert_eq!(run("1000:0").unwrap().user, User::Given { user: Id::Number(1000), group: Some(Id::Number(0)) });
        assert_eq!(run("1000abc").unwrap().user, User::Given { user: Id::Name("1000abc".into()), group: None });
        assert_eq!(run("0x0").unwrap().user, User::Given { user: Id::Name("0x0".into()), group: None });
    }

    #[test]
    fn no_number_overflows_into_root() {
        for user in [
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "-1",
            "+0",
            " 0",
            "",
            ":0",
            "0:",
            "0:4294967296",
            "a b",
        ] {
            assert!(run(user).is_err(), "{user:?}");
        }
    }

    #[test]
    fn arguments_beyond_the_kernels_limit_are_named_as_such() {
        let errors =
            resolved(&Spec { args: vec!["echo".into(), "x".repeat(1_000_000)], ..Spec::default() }, true).unwrap_err();
        assert!(errors[0].to_string().contains("E2BIG"), "{}", errors[0]);
        assert!(resolved(&Spec { args: vec!["x".repeat(100_000); 70], ..Spec::default() }, true).is_err());
    }

    #[test]
    fn without_a_command_there_is_an_error() {
        assert!(resolved(&Spec::default(), true).is_err());
        assert!(resolved(&Spec { args: vec![String::new()], ..Spec::default() }, true).is_err());
    }
}
