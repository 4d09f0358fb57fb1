//! The calls of nsrs that texts recommend: JavaScript is told `images.pull('alpine')`, a user of the command line
//! `nsrs pull alpine`. In a text they are placeholders, as the names of options are ([`crate::options`]).

use std::fmt;

use crate::options::each;

/// A call by its name on each front. Displays as a placeholder for it without arguments.
#[derive(Clone, Copy, Debug)]
pub struct CallName {
    /// With what stands around the one argument.
    javascript: (&'static str, &'static str, &'static str),
    shell: &'static str,
}

impl CallName {
    const fn new(javascript: &'static str, shell: &'static str) -> CallName {
        CallName { javascript: (javascript, "", ""), shell }
    }

    /// A placeholder for the call with this argument.
    #[must_use]
    pub fn of(self, argument: &str) -> String {
        let (name, before, after) = self.javascript;
        let quoted = argument.replace('\\', "\\\\").replace('\'', "\\'");
        each(&format!("{name}({before}'{quoted}'{after})"), &format!("{} {argument}", self.shell))
    }
}

impl fmt::Display for CallName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&each(&format!("{}()", self.javascript.0), self.shell))
    }
}

/// Fetches an image from a registry into the store.
pub const PULL: CallName = CallName::new("images.pull", "nsrs pull");
/// Adds the images of an archive.
pub const LOAD: CallName = CallName::new("images.load", "nsrs load");
/// Lists the images of the store.
pub const LIST: CallName = CallName::new("images.list", "nsrs images");
/// Removes an image from the store.
pub const REMOVE: CallName = CallName::new("images.remove", "nsrs rmi");
/// Removes images and layers that nobody uses.
pub const PRUNE: CallName = CallName::new("images.prune", "nsrs image prune");
/// Stores the credentials for a registry.
pub const LOGIN: CallName = CallName { javascript: ("images.login", "{ registry: ", ", … }"), shell: "nsrs login" };
/// Runs a command in a container.
pub const RUN: CallName = CallName::new("run", "nsrs run");
/// Finds out what containers can do on this host.
pub const CHECK_HOST: CallName = CallName::new("checkHost", "nsrs doctor");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Front, in_words_of};

    #[test]
    fn each_front_is_told_its_own_call() {
        let text = format!("{LIST} lists them; {} or {}", PULL.of("it's"), LOGIN.of("a.io"));
        assert_eq!(in_words_of(Front::Shell, &text), "nsrs images lists them; nsrs pull it's or nsrs login a.io");
        assert_eq!(
            in_words_of(Front::JavaScript, &text),
            "images.list() lists them; images.pull('it\\'s') or images.login({ registry: 'a.io', … })"
        );
    }
}
