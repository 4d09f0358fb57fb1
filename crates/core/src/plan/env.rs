//! The command's environment.

use std::collections::BTreeMap;

use super::Problems;
use crate::spec::Spec;
use nsrs_base::error::Error;
use nsrs_base::options::ENV;
use nsrs_store::image_facts::ImageDefaults;

/// What a program on the host's tree is given of the caller's environment: what it needs to run, and no token.
pub const HOST_NAMES: [&str; 21] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "TZ",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_ADDRESS",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_IDENTIFICATION",
    "LC_MEASUREMENT",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NAME",
    "LC_NUMERIC",
    "LC_PAPER",
    "LC_TIME",
];

/// What says who the caller is: a command that runs as somebody else has it from /etc/passwd.
const OF_USER: [&str; 3] = ["HOME", "USER", "LOGNAME"];

/// The search path in another root, docker's.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Resolves the environment. What only the container's own /etc/passwd knows of the user is left out.
pub fn resolve(
    spec: &Spec,
    host_tree: bool,
    image: Option<&ImageDefaults>,
    hostname: Option<&str>,
    problems: &mut Problems,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    if host_tree {
        let is_meant = |name: &&&str| spec.process.user.is_none() || !OF_USER.contains(name);
        let own = HOST_NAMES.iter().filter(is_meant).filter_map(|name| spec.caller.env.get_key_value(*name));
        env.extend(own.map(|(name, value)| (name.clone(), value.clone())));
    } else if let Some(hostname) = hostname {
        env.insert("HOSTNAME".into(), hostname.to_owned());
    }
    // What has no name in it is none, and would be an error only of whoever made the image.
    let pairs = image.into_iter().flat_map(|config| &config.env).filter_map(|pair| pair.split_once('='));
    for (name, value) in pairs.filter(|(name, value)| !name.is_empty() && !name.contains('\0') && !value.contains('\0'))
    {
        env.insert(name.to_owned(), value.to_owned());
    }
    if spec.process.tty.is_some() {
        env.entry("TERM".into()).or_insert_with(|| "xterm".into());
    }
    if spec.env_host {
        env.extend(spec.caller.env.clone());
    }
    env.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.to_owned());
    for (name, value) in &spec.process.env {
        if let Some(error) = refusal(name, value.as_deref()) {
            problems.push(error);
        } else if let Some(value) = value.as_ref().or_else(|| spec.caller.env.get(name)) {
            env.insert(name.clone(), value.clone());
        }
    }
    env
}

/// Why this can't be a variable.
fn refusal(name: &str, value: Option<&str>) -> Option<Error> {
    let bad = |why: &str| Some(Error::invalid(ENV, name, why));
    if name.is_empty() || name.contains('=') || name.contains('\0') {
        return bad("a name is not empty and holds neither = nor NUL");
    }
    if value.is_some_and(|value| value.contains('\0')) {
        return bad("the value holds a NUL byte");
    }
    None
}

/// The environment of a process that enters a container: that of the container, and over it what was asked; a variable
/// without a value is taken away. `forget_user`: what it says of the user is of another one.
pub fn over(
    base: &[String],
    wanted: &BTreeMap<String, Option<String>>,
    forget_user: bool,
    problems: &mut Problems,
) -> Vec<String> {
    let mut env: BTreeMap<&str, &str> = base.iter().filter_map(|entry| entry.split_once('=')).collect();
    if forget_user {
        env.retain(|name, _| !OF_USER.contains(name));
    }
    for (name, value) in wanted {
        match (refusal(name, value.as_deref()), value) {
            (Some(error), _) => problems.push(error),
            (None, Some(value)) => drop(env.insert(name, value)),
            (None, None) => drop(env.remove(name.as_str())),
        }
    }
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Caller;

    fn spec(caller: &[(&str, &str)]) -> Spec {
        let env = caller.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Spec { caller: Caller { cwd: "/".into(), env }, ..Spec::default() }
    }

    fn resolved(spec: &Spec, host_tree: bool) -> BTreeMap<String, String> {
        let mut problems = Problems::default();
        let env = resolve(spec, host_tree, None, Some("box"), &mut problems);
        problems.finish(env).unwrap()
    }

    #[test]
    fn tokens_stay_outside() {
        let spec = spec(&[("PATH", "/bin"), ("LANG", "C"), ("NPM_TOKEN", "secret"), ("HOME", "/root")]);
        let env = resolved(&spec, true);
        assert_eq!(env.keys().collect::<Vec<_>>(), ["HOME", "LANG", "PATH"]);
    }

    #[test]
    fn another_user_is_not_told_to_be_the_caller() {
        let mut spec = spec(&[("HOME", "/root"), ("USER", "root"), ("LOGNAME", "root"), ("SHELL", "/bin/bash")]);
        assert_eq!(resolved(&spec, true)["USER"], "root");
        spec.process.user = Some("ann".into());
        assert_eq!(resolved(&spec, true).keys().collect::<Vec<_>>(), ["PATH", "SHELL"]);
        spec.process.env = BTreeMap::from([("HOME".into(), None)]);
        assert_eq!(resolved(&spec, true)["HOME"], "/root");
    }

    #[test]
    fn another_root_gets_dockers_minimum() {
        let env = resolved(&spec(&[("PATH", "/home/ann/bin"), ("LANG", "C")]), false);
        assert_eq!(env["PATH"], DEFAULT_PATH);
        assert_eq!(env.keys().collect::<Vec<_>>(), ["HOSTNAME", "PATH"]);
    }

    #[test]
    fn a_name_alone_takes_the_callers_value_or_nothing() {
        let mut spec = spec(&[("TOKEN", "x")]);
        spec.process.env =
            BTreeMap::from([("TOKEN".into(), None), ("ABSENT".into(), None), ("A".into(), Some("b=c".into()))]);
        let env = resolved(&spec, false);
        assert_eq!((env["TOKEN"].as_str(), env["A"].as_str(), env.get("ABSENT")), ("x", "b=c", None));
    }

    #[test]
    fn bad_names_are_reported_together() {
        let mut problems = Problems::default();
        let mut spec = spec(&[]);
        spec.process.env = BTreeMap::from([
            ("A=B".into(), Some(String::new())),
            (String::new(), None),
            ("C".into(), Some("\0".into())),
        ]);
        resolve(&spec, false, None, None, &mut problems);
        assert_eq!(problems.finish(()).unwrap_err().len(), 3);
    }
}
