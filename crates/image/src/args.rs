//! The arguments of a verb: flags, options with a value, and positional ones.
//!
//! The caller is the command line of nsrs, which has validated them. What is unknown here is refused without explanation.

use nsrs_base::error::{Code, Error, Result};

/// The arguments that are not read yet.
#[derive(Debug)]
pub struct Args {
    rest: Vec<String>,
}

impl Args {
    /// The arguments after the verb.
    #[must_use]
    pub fn new(rest: Vec<String>) -> Args {
        Args { rest }
    }

    /// The end of the options: `--`, or the end of all.
    fn end(&self) -> usize {
        self.rest.iter().position(|arg| arg == "--").unwrap_or(self.rest.len())
    }

    /// Takes a flag; returns whether it was given.
    pub fn flag(&mut self, name: &str) -> bool {
        let end = self.end();
        let found = self.rest[..end].iter().position(|arg| arg == name);
        found.map(|index| self.rest.remove(index)).is_some()
    }

    /// Takes the value of an option, `--name value` or `--name=value`; of several the last.
    ///
    /// # Errors
    /// There is no value.
    pub fn value(&mut self, name: &str) -> Result<Option<String>> {
        Ok(self.values(name)?.pop())
    }

    /// Takes all values of an option that can be repeated.
    ///
    /// # Errors
    /// One has no value.
    pub fn values(&mut self, name: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut index = 0;
        while index < self.end() {
            let Some(after) = self.rest[index].strip_prefix(name) else {
                index += 1;
                continue;
            };
            if let Some(value) = after.strip_prefix('=') {
                found.push(value.to_owned());
                self.rest.remove(index);
            } else if after.is_empty() {
                if index + 1 >= self.end() {
                    return Err(Error::new(Code::InvalidArgument, format!("read {name}"), "a value is missing"));
                }
                self.rest.remove(index);
                found.push(self.rest.remove(index));
            } else {
                index += 1;
            }
        }
        Ok(found)
    }

    /// The positional arguments, from `least` to `most` of them.
    ///
    /// # Errors
    /// An option is left, or there are fewer or more arguments.
    pub fn rest(self, what: &str, least: usize, most: usize) -> Result<Vec<String>> {
        let end = self.end();
        if let Some(option) = self.rest[..end].iter().find(|arg| arg.starts_with('-') && *arg != "-") {
            return Err(Error::new(Code::InvalidArgument, "read the arguments", "unknown option").on(option));
        }
        let mut rest = self.rest;
        if end < rest.len() {
            rest.remove(end);
        }
        if rest.len() < least || rest.len() > most {
            return Err(Error::new(Code::InvalidArgument, "read the arguments", format!("give {what}")));
        }
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::new(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn options_stand_anywhere_before_two_dashes() {
        let mut args = args("a --format json b --all -- --all");
        assert_eq!(args.value("--format").unwrap().as_deref(), Some("json"));
        assert!(args.flag("--all"));
        assert!(!args.flag("--all"));
        assert_eq!(args.rest("names", 0, 9).unwrap(), ["a", "b", "--all"]);
    }

    #[test]
    fn what_is_unknown_or_incomplete_is_refused() {
        assert!(args("--format").value("--format").is_err());
        assert!(args("--what a").rest("a name", 1, 1).is_err());
        assert!(args("a b").rest("a name", 1, 1).is_err());
        assert_eq!(args("--x=1 --x 2").values("--x").unwrap(), ["1", "2"]);
    }
}
