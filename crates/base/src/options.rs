//! The names of options, for texts that name one: JavaScript says `capAdd`, the command line `--cap-add`.
//!
//! A text holds an [`OptionName`] as a placeholder, in control characters, with the words of each front; whoever shows the text
//! to somebody puts that one's words in its place ([`in_words_of`]).

use std::borrow::Cow;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const BEGIN: char = '\u{2}';
const BETWEEN: char = '\u{1f}';
const END: char = '\u{3}';

/// An option by the name it has in JavaScript. Displays as a placeholder for its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionName(u8);

impl OptionName {
    /// The name of the property in JavaScript.
    #[must_use]
    pub fn property(self) -> &'static str {
        FLAGS[usize::from(self.0)].0
    }

    /// The option of this name in JavaScript.
    fn of(property: &str) -> Option<OptionName> {
        (0..).zip(FLAGS).find(|(_, (known, _))| *known == property).map(|(index, _)| OptionName(index))
    }
}

impl fmt::Display for OptionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (property, flag) = FLAGS[usize::from(self.0)];
        f.write_str(&each(property, flag))
    }
}

impl Serialize for OptionName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.property())
    }
}

impl<'de> Deserialize<'de> for OptionName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OptionName, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        OptionName::of(&text).ok_or_else(|| D::Error::custom("no option of this name"))
    }
}

/// The interface whose names a text uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// The JavaScript interface: `capAdd`.
    JavaScript,
    /// The command line: `--cap-add`.
    Shell,
}

macro_rules! options {
    ($($constant:ident = $property:literal, $flag:literal;)*) => {
        /// The rows of the table, as numbers.
        #[allow(clippy::upper_case_acronyms, non_camel_case_types)]
        enum Row {
            $($constant),*
        }

        $(
            #[doc = concat!("`", $flag, "`")]
            pub const $constant: OptionName = OptionName(Row::$constant as u8);
        )*

        /// Every option with its flag, as ts/ and cli/ have them.
        const FLAGS: &[(&str, &str)] = &[$(($property, $flag)),*];
    };
}

options! {
    ROOTFS = "rootfs", "--rootfs";
    PLATFORM = "platform", "--platform";
    ENTRYPOINT = "entrypoint", "--entrypoint";
    PUBLISH_ALL = "publishAll", "--publish-all";
    ROOTFS_TMPFS = "rootfsTmpfs", "--rootfs-tmpfs";
    READ_ONLY = "readOnly", "--read-only";
    DIFF = "diff", "--diff";
    UPPER = "upper", "--upper";
    HIDE = "hide", "--hide";
    VOLUMES = "volumes", "--volume";
    MOUNTS = "mounts", "--mount";
    TMPFS = "tmpfs", "--tmpfs";
    SHM_SIZE = "shmSize", "--shm-size";
    NETWORK = "network", "--network";
    IP = "ip", "--ip";
    IP6 = "ip6", "--ip6";
    MAC = "mac", "--mac-address";
    PUBLISH = "publish", "--publish";
    DNS = "dns", "--dns";
    DNS_SEARCH = "dnsSearch", "--dns-search";
    DNS_OPTIONS = "dnsOptions", "--dns-option";
    ADD_HOSTS = "addHosts", "--add-host";
    USERNS = "userns", "--userns";
    UID_MAPS = "uidMaps", "--uidmap";
    GID_MAPS = "gidMaps", "--gidmap";
    PID = "pid", "--pid";
    IPC = "ipc", "--ipc";
    UTS = "uts", "--uts";
    CGROUPNS = "cgroupns", "--cgroupns";
    MOUNTNS = "mountns", "--mountns";
    TIMENS = "timens", "--timens";
    MONOTONIC = "monotonic", "--monotonic";
    BOOTTIME = "boottime", "--boottime";
    ENV = "env", "--env";
    ENV_HOST = "envHost", "--env-host";
    WORKDIR = "workdir", "--workdir";
    USER = "user", "--user";
    GROUPS = "groups", "--group-add";
    HOSTNAME = "hostname", "--hostname";
    DOMAINNAME = "domainname", "--domainname";
    ULIMITS = "ulimits", "--ulimit";
    SYSCTLS = "sysctls", "--sysctl";
    UMASK = "umask", "--umask";
    OOM_SCORE_ADJ = "oomScoreAdj", "--oom-score-adj";
    CAP_ADD = "capAdd", "--cap-add";
    CAP_DROP = "capDrop", "--cap-drop";
    ALLOW_NEW_PRIVILEGES = "allowNewPrivileges", "--allow-new-privileges";
    INIT = "init", "--init";
    TTY = "tty", "--tty";
    TIMEOUT = "timeout", "--timeout";
    // Of every command, beside the container's.
    FDS = "fds", "--preserve-fd";
    // Of calls about images.
    PLAIN_HTTP = "plainHttp", "--plain-http";
    CA_FILE = "caFile", "--ca-file";
    AUTH_FILE = "authFile", "--authfile";
    JOBS = "jobs", "--jobs";
    UNPACK = "unpack", "--no-unpack";
    MAX_RATIO = "maxRatio", "--max-ratio";
    NAME = "name", "--name";
    FORMAT = "format", "--format";
    MESSAGE = "message", "--message";
    CHANGES = "changes", "--change";
    ARCH = "arch", "--arch";
    FORCE = "force", "--force";
    PRUNE = "prune", "--no-prune";
    ALL = "all", "--all";
    USERNAME = "username", "--username";
    // Of applying kept changes, which has force too.
    YES = "yes", "--yes";
    DRY_RUN = "dryRun", "--dry-run";
    PRIVILEGED_FILES = "privilegedFiles", "--privileged-files";
    KEEP = "keep", "--keep";
    DISCARD = "discard", "--discard";
}

/// A placeholder for words that each front has of its own. They must not hold placeholders themselves.
#[must_use]
pub fn each(javascript: &str, shell: &str) -> String {
    format!("{BEGIN}{javascript}{BETWEEN}{shell}{END}")
}

/// A text in the words of this front.
#[must_use]
pub fn in_words_of(front: Front, text: &str) -> Cow<'_, str> {
    if !text.contains(BEGIN) {
        return Cow::Borrowed(text);
    }
    let mut words = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        words += before;
        let placeholder = after.split_once(END).and_then(|(both, after)| Some((both.split_once(BETWEEN)?, after)));
        rest = match placeholder {
            Some(((javascript, shell), after)) => {
                words += match front {
                    Front::JavaScript => javascript,
                    Front::Shell => shell,
                };
                after
            }
            // Somebody else's: a path may hold any character.
            None => {
                words.push(BEGIN);
                after
            }
        };
    }
    Cow::Owned(words + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_front_has_its_own_names() {
        let text = format!("use {NETWORK} none, or leave {CAP_ADD} out");
        assert_eq!(in_words_of(Front::Shell, &text), "use --network none, or leave --cap-add out");
        assert_eq!(in_words_of(Front::JavaScript, &text), "use network none, or leave capAdd out");
    }

    #[test]
    fn what_is_no_placeholder_stays() {
        for text in ["", "plain", "/a\u{2}b", "\u{2}nothing\u{3}", "\u{2}\u{2}user"] {
            assert_eq!(in_words_of(Front::Shell, text), text);
        }
    }
}
