//! The one error record of nsrs.
//!
//! An [`Error`] is plain data: it crosses the process border between the container's child and the supervisor, and the
//! language border to JavaScript, without losing a field. It names what failed (`step`), on what (`subject`), why
//! (`errno`, or `reason` in words) and, where the cause is known, what to do next (`hint`). What is decided by an error is
//! decided by its `code`, its `id` or its `errno`, and never by these words.
//!
//! The words name options by placeholders ([`crate::options`]); [`Error::in_words_of`] puts in the names.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::options::{Front, OptionName, in_words_of};
use crate::text::{escaped, printable};

/// What kind of failure this is; decides the exit code of the CLI and the `code` of the JavaScript error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The caller asked for something that can't be: a wrong value, or values that contradict each other.
    InvalidArgument,
    /// The kernel or the host refused a step of the set-up.
    SetupFailed,
    /// The host lacks what was asked for: a kernel feature, a right, a helper program.
    Unsupported,
    /// The command does not exist in the container (exit code 127).
    CommandNotFound,
    /// The command exists and can't be executed (exit code 126).
    CommandNotExecutable,
    /// Something that was asked for is held by somebody else: a port, an address.
    InUse,
    /// The image, or a part of it, is not in the store, the archive or the registry.
    ImageNotFound,
    /// The image is in the store, and its layers have to be unpacked or stacked before a container can run from it.
    ImageNotReady,
    /// What should be an image or a part of one isn't, or is not what its digest says.
    ImageInvalid,
    /// The container has ended, or is being stopped: nobody can enter it any more.
    ContainerEnded,
    /// The supervisor is gone, or speaks another version of the protocol.
    SupervisorLost,
}

impl Code {
    /// The name that JavaScript sees as `error.code`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Code::InvalidArgument => "ERR_NSRS_INVALID_ARGUMENT",
            Code::SetupFailed => "ERR_NSRS_SETUP_FAILED",
            Code::Unsupported => "ERR_NSRS_UNSUPPORTED",
            Code::CommandNotFound => "ERR_NSRS_COMMAND_NOT_FOUND",
            Code::CommandNotExecutable => "ERR_NSRS_COMMAND_NOT_EXECUTABLE",
            Code::InUse => "ERR_NSRS_IN_USE",
            Code::ImageNotFound => "ERR_NSRS_IMAGE_NOT_FOUND",
            Code::ImageNotReady => "ERR_NSRS_IMAGE_NOT_READY",
            Code::ImageInvalid => "ERR_NSRS_IMAGE_INVALID",
            Code::ContainerEnded => "ERR_NSRS_CONTAINER_ENDED",
            Code::SupervisorLost => "ERR_NSRS_SUPERVISOR_LOST",
        }
    }

    /// The exit code of the CLI for this failure, by the convention of shells and container tools.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Code::CommandNotFound => 127,
            Code::CommandNotExecutable => 126,
            _ => 125,
        }
    }
}

/// The act of the recipe that failed: the stable name of a step, whose words may change from version to version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Reading what was asked for.
    Request,
    /// Turning it into a plan, against the facts of the host; nothing has been touched.
    Resolve,
    /// Finding and holding the image.
    Image,
    /// Opening the state directory, and collecting what dead supervisors left.
    State,
    /// Starting the supervisor, and talking to it.
    Supervisor,
    /// Making or joining the namespaces.
    Namespaces,
    /// Mapping user and group ids.
    IdMaps,
    /// Putting the root file system together.
    Root,
    /// Mounting /proc, /sys and /dev.
    Pseudo,
    /// Writing /etc/hosts, /etc/hostname and /etc/resolv.conf.
    Files,
    /// Making the mounts that the caller asked for.
    Mounts,
    /// Making the writable layer, and listing the changes.
    Changes,
    /// Connecting the container to its network.
    Network,
    /// Setting host name and domain name.
    Names,
    /// Setting kernel parameters.
    Sysctls,
    /// Opening the container's own terminal.
    Terminal,
    /// Taking standard streams and passed file descriptors.
    Descriptors,
    /// Finding the user, and becoming it.
    User,
    /// Dropping capabilities, and installing the system call filter.
    Rights,
    /// Setting resource limits.
    Limits,
    /// Entering the working directory.
    Workdir,
    /// Executing the command.
    Exec,
    /// Watching the command, and clearing up after it.
    Watch,
    /// Bringing kept changes into the real tree.
    Apply,
    /// Trying out what the host can do.
    Doctor,
}

impl Act {
    /// The name that JavaScript sees as `error.id`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Act::Request => "request",
            Act::Resolve => "resolve",
            Act::Image => "image",
            Act::State => "state",
            Act::Supervisor => "supervisor",
            Act::Namespaces => "namespaces",
            Act::IdMaps => "id-maps",
            Act::Root => "root",
            Act::Pseudo => "pseudo",
            Act::Files => "files",
            Act::Mounts => "mounts",
            Act::Changes => "changes",
            Act::Network => "network",
            Act::Names => "names",
            Act::Sysctls => "sysctls",
            Act::Terminal => "terminal",
            Act::Descriptors => "descriptors",
            Act::User => "user",
            Act::Rights => "rights",
            Act::Limits => "limits",
            Act::Workdir => "workdir",
            Act::Exec => "exec",
            Act::Watch => "watch",
            Act::Apply => "apply",
            Act::Doctor => "doctor",
        }
    }
}

/// One failure: what failed, on what, why, and what to do next.
///
/// Displayed as `<step> <subject>: <why>`, for example
/// `mount the overlay of /home: permission denied (EACCES)`, in the words of the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// What kind of failure this is.
    pub code: Code,
    /// During which act of the recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Act>,
    /// What was being done, in the infinitive: `open the root filesystem`.
    pub step: String,
    /// What it was done to: a path, an option with its value, an interface. Empty when the step says it all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// The option whose value caused the failure, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option: Option<OptionName>,
    /// The kernel's error number, where the kernel refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// Why, in words, where it was not (only) the kernel who refused.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What to do next, where we know it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Names that may have been meant instead, the most likely first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suggestions: Vec<String>,
}

/// Result with the error record of nsrs, or with several.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<Error> for Vec<Error> {
    fn from(error: Error) -> Vec<Error> {
        vec![error]
    }
}

impl Error {
    /// An error whose reason is a text and not an error number.
    #[must_use]
    pub fn new(code: Code, step: impl Into<String>, reason: impl Into<String>) -> Error {
        Error {
            code,
            id: None,
            step: step.into(),
            subject: String::new(),
            option: None,
            errno: None,
            reason: reason.into(),
            hint: String::new(),
            suggestions: Vec::new(),
        }
    }

    /// A wrong value of an option: `invalid --option "value": why`.
    #[must_use]
    pub fn invalid(option: OptionName, value: impl fmt::Display, why: impl Into<String>) -> Error {
        Error::invalid_value(&option.to_string(), value, why).about(option)
    }

    /// An option that can't be given together with something else that was asked for, which is the subject: `combine --option`.
    #[must_use]
    pub fn conflict(option: OptionName, why: impl Into<String>) -> Error {
        Error::new(Code::InvalidArgument, format!("combine {option}"), why).about(option)
    }

    /// A wrong value of something that is not an option of a container: `invalid name "value": why`.
    #[must_use]
    pub fn invalid_value(name: &str, value: impl fmt::Display, why: impl Into<String>) -> Error {
        Error::new(Code::InvalidArgument, format!("invalid {name}"), why).on(format!("{:?}", value.to_string()))
    }

    /// A refusal of the kernel during the set-up, with its error number.
    #[must_use]
    pub fn os(step: impl Into<String>, subject: impl Into<String>, errno: impl Into<Errno>) -> Error {
        let errno = errno.into().0;
        Error {
            code: Code::SetupFailed,
            id: None,
            step: step.into(),
            subject: subject.into(),
            option: None,
            errno: Some(errno),
            reason: String::new(),
            // Of whatever step: it isn't to blame.
            hint: match errno {
                libc::EMFILE => "raise the limit of open files (ulimit -n) of the process that calls nsrs".into(),
                libc::ENFILE => "the whole host is out of open files: raise its limit (sysctl fs.file-max)".into(),
                _ => String::new(),
            },
            suggestions: Vec::new(),
        }
    }

    /// The same failure, said of this subject.
    #[must_use]
    pub fn on(mut self, subject: impl Into<String>) -> Error {
        self.subject = subject.into();
        self
    }

    /// The same failure with advice on what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        let hint = hint.into();
        if !hint.is_empty() {
            self.hint = hint;
        }
        self
    }

    /// The same failure with names that may have been meant, and a hint that asks so.
    #[must_use]
    pub fn did_you_mean(mut self, suggestions: Vec<String>) -> Error {
        self.hint = format!("did you mean {}?", suggestions.join(" or "));
        self.suggestions = suggestions;
        self
    }

    /// The same failure with a reason in words beside the error number.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Error {
        self.reason = reason.into();
        self
    }

    /// The same failure of another kind.
    #[must_use]
    pub fn code(mut self, code: Code) -> Error {
        self.code = code;
        self
    }

    /// The same failure, with the option that is to blame.
    #[must_use]
    pub fn about(mut self, option: OptionName) -> Error {
        self.option = Some(option);
        self
    }

    /// The same failure during this act, unless a narrower one is known.
    #[must_use]
    pub fn during(mut self, act: Act) -> Error {
        self.id = self.id.or(Some(act));
        self
    }

    /// The same failure, with the names that its options have there. Its option stays what it is in JavaScript.
    #[must_use]
    pub fn in_words_of(mut self, front: Front) -> Error {
        for text in [&mut self.step, &mut self.subject, &mut self.reason, &mut self.hint] {
            *text = in_words_of(front, text).into_owned();
        }
        self
    }

    /// The whole failure in one line, with its placeholders.
    #[must_use]
    pub fn line(&self) -> String {
        let Error { step, subject, reason, errno, .. } = self;
        let mut line = step.clone();
        if !subject.is_empty() {
            line = format!("{line} {subject}");
        }
        if !reason.is_empty() {
            line = format!("{line}: {reason}");
        }
        if let Some(errno) = errno {
            line = format!("{line}: {}", Errno(*errno));
        }
        line
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&in_words_of(Front::Shell, &self.line()))
    }
}

impl std::error::Error for Error {}

/// Errors as they are written to a terminal: one `nsrs: …` line each, with a `hint: …` line where there is advice.
#[must_use]
pub fn report(errors: &[Error]) -> String {
    let mut text = String::new();
    for error in errors {
        text += &notice(&error.to_string());
        if !error.hint.is_empty() {
            text += &format!("hint: {}\n", printable(&in_words_of(Front::Shell, &error.hint)));
        }
    }
    text
}

/// Anything else that the user should know, as a line.
#[must_use]
pub fn notice(text: &str) -> String {
    format!("nsrs: {}\n", printable(&in_words_of(Front::Shell, text)))
}

/// The exit code of the CLI for these errors: that of the first.
#[must_use]
pub fn exit_code(errors: &[Error]) -> u8 {
    errors.first().map_or(125, |error| error.code.exit_code())
}

/// An error number of the kernel; displays as `permission denied (EACCES)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = nix::errno::Errno::from_raw(self.0);
        if errno == nix::errno::Errno::UnknownErrno {
            return write!(f, "errno {}", self.0);
        }
        let text = errno.desc();
        let mut first = text.chars();
        // Error texts are lower case, except where the text opens with an abbreviation ("RFS specific error").
        match (first.next(), text.chars().nth(1)) {
            (Some(a), Some(b)) if a.is_uppercase() && b.is_lowercase() => {
                write!(f, "{}{} ({errno:?})", a.to_lowercase(), first.as_str())
            }
            _ => write!(f, "{text} ({errno:?})"),
        }
    }
}

impl From<i32> for Errno {
    fn from(errno: i32) -> Errno {
        Errno(errno)
    }
}

impl From<nix::errno::Errno> for Errno {
    fn from(errno: nix::errno::Errno) -> Errno {
        Errno(errno as i32)
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(errno: rustix::io::Errno) -> Errno {
        Errno(errno.raw_os_error())
    }
}

impl From<std::ffi::NulError> for Errno {
    fn from(_: std::ffi::NulError) -> Errno {
        Errno(nix::errno::Errno::EINVAL as i32)
    }
}

impl From<&std::io::Error> for Errno {
    fn from(error: &std::io::Error) -> Errno {
        Errno(error.raw_os_error().unwrap_or(nix::errno::Errno::EIO as i32))
    }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Errno {
        Errno::from(&error)
    }
}

/// A path in an error, not longer than a person reads, and safe to print.
#[must_use]
pub fn show(path: &[u8]) -> String {
    let text = escaped(&path[..path.len().min(300)]);
    if path.len() > 300 { format!("{text}… ({} bytes)", path.len()) } else { text }
}

/// Gives a system call's result its step and subject: `open(..).at("open the root filesystem", path)?`.
pub trait At<T> {
    /// Turns a kernel error into an [`Error`] that names the step and what it was done to.
    ///
    /// # Errors
    /// The same error, as a record.
    fn at(self, step: &str, subject: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Errno>> At<T> for std::result::Result<T, E> {
    fn at(self, step: &str, subject: impl fmt::Display) -> Result<T> {
        self.map_err(|errno| Error::os(step, subject.to_string(), errno))
    }
}

/// Names the act during which a call failed.
pub trait During {
    /// The errors that know no narrower act are of this one.
    #[must_use]
    fn during(self, act: Act) -> Self;
}

impl<T> During for Result<T> {
    fn during(self, act: Act) -> Self {
        self.map_err(|error| error.during(act))
    }
}

impl<T> During for Result<T, Vec<Error>> {
    fn during(self, act: Act) -> Self {
        self.map_err(|errors| errors.during(act))
    }
}

impl During for Vec<Error> {
    fn during(self, act: Act) -> Self {
        self.into_iter().map(|error| error.during(act)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::HOSTNAME;

    #[test]
    fn displays_the_step_the_subject_and_the_error_number() {
        let error = Error::os("open the root filesystem", "/srv/alpine", nix::errno::Errno::ENOENT);
        assert_eq!(error.to_string(), "open the root filesystem /srv/alpine: no such file or directory (ENOENT)");
    }

    #[test]
    fn without_descriptors_the_limit_is_named_whatever_failed() {
        let error = Error::os("make the mount point", "/x", nix::errno::Errno::EMFILE).hint("");
        assert!(error.hint.contains("ulimit -n"), "{error:?}");
        assert_eq!(error.hint("better").hint, "better");
    }

    #[test]
    fn quotes_the_option_and_its_value() {
        let error = Error::invalid(HOSTNAME, "a b", "a space is not allowed").hint(format!("leave {HOSTNAME} out"));
        assert_eq!(error.to_string(), "invalid --hostname \"a b\": a space is not allowed");
        assert!(report(std::slice::from_ref(&error)).ends_with("hint: leave --hostname out\n"));
        assert_eq!(error.option, Some(HOSTNAME));
        let for_programs = error.in_words_of(Front::JavaScript);
        assert_eq!(for_programs.line(), "invalid hostname \"a b\": a space is not allowed");
        assert_eq!(for_programs.hint, "leave hostname out");
    }

    #[test]
    fn survives_the_border_between_processes() {
        let error = Error::os("mount", "/proc", 1).hint("unmask it").code(Code::Unsupported);
        let wire = serde_json::to_string(&error).unwrap();
        assert_eq!(serde_json::from_str::<Error>(&wire).unwrap(), error);
    }

    #[test]
    fn the_innermost_act_wins() {
        let failed: Result<()> = Err(Error::os("mount", "/proc", 1));
        let error = failed.during(Act::Pseudo).during(Act::Root).unwrap_err();
        assert_eq!(error.id, Some(Act::Pseudo));
    }

    #[test]
    fn an_act_has_one_name_everywhere() {
        for act in [Act::Request, Act::IdMaps, Act::Workdir, Act::Doctor] {
            assert_eq!(serde_json::to_value(act).unwrap(), act.name());
        }
    }

    #[test]
    fn what_others_wrote_does_nothing_to_the_terminal() {
        let error = Error::new(Code::SetupFailed, "read", "\u{1b}[2Jgone\nhint: do this").hint("\u{202e}");
        assert_eq!(report(&[error]), "nsrs: read: \\x1b[2Jgone\\nhint: do this\nhint: \\u202e\n");
        assert_eq!(show(b"/a\xff\x1b"), r"/a\xff\x1b");
    }

    #[test]
    fn unknown_error_numbers_stay_numbers() {
        assert_eq!(Errno(4095).to_string(), "errno 4095");
    }
}
