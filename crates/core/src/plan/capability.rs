//! Linux capabilities (capabilities(7)).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Problems;
use nsrs_base::error::{Error, Result};
use nsrs_base::options::{CAP_ADD, CAP_DROP, OptionName};

/// All capabilities in the order of their numbers (linux/capability.h).
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities, one bit each.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Every capability this program knows.
    pub const ALL: Capabilities = Capabilities((1 << NAMES.len()) - 1);

    /// What a container gets by default: podman's set.
    #[must_use]
    pub fn default_set() -> Capabilities {
        [
            "CHOWN",
            "DAC_OVERRIDE",
            "FOWNER",
            "FSETID",
            "KILL",
            "NET_BIND_SERVICE",
            "SETFCAP",
            "SETGID",
            "SETPCAP",
            "SETUID",
            "SYS_CHROOT",
        ]
        .into_iter()
        .filter_map(number)
        .fold(Capabilities(0), |set, bit| Capabilities(set.0 | 1 << bit))
    }

    /// The names in the set, with their `CAP_`.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        NAMES
            .iter()
            .enumerate()
            .filter(|(bit, _)| self.has(*bit as u32))
            .map(|(_, name)| format!("CAP_{name}"))
            .collect()
    }

    /// Is the capability with this number in the set?
    #[must_use]
    pub fn has(self, number: u32) -> bool {
        self.0 & 1 << number != 0
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Capabilities({})", self.names().join(" "))
    }
}

impl Serialize for Capabilities {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.names().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Capabilities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names.iter().try_fold(Capabilities(0), |set, name| {
            let bit = number(name.strip_prefix("CAP_").unwrap_or(name))
                .ok_or_else(|| serde::de::Error::custom("no capability of this name"))?;
            Ok(Capabilities(set.0 | 1 << bit))
        })
    }
}

fn number(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| *known == name)
}

/// Reads one name, with or without `CAP_`, in any case, or `ALL`.
fn parse(option: OptionName, text: &str) -> Result<Capabilities> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if name == "ALL" {
        return Ok(Capabilities::ALL);
    }
    match number(name) {
        Some(bit) => Ok(Capabilities(1 << bit)),
        None => {
            let error = Error::invalid(option, text, "there is no such capability");
            Err(match nearest(name) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error.hint("capabilities(7) lists them"),
            })
        }
    }
}

/// The known name that shares the longest beginning with a misspelt one, if it is long enough to be meant.
fn nearest(name: &str) -> Option<&'static str> {
    let common = |known: &str| known.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
    NAMES.into_iter().max_by_key(|known| common(known)).filter(|known| common(known) >= 4)
}

/// The default set with additions and removals; a removal beats an addition, and `ALL` stands for every one, as in docker.
pub fn resolve(add: &[String], drop: &[String], problems: &mut Problems) -> Capabilities {
    let union = |option: OptionName, texts: &[String], problems: &mut Problems| {
        problems.all(texts.iter().map(|text| parse(option, text))).iter().fold(0, |set, one| set | one.0)
    };
    let added = union(CAP_ADD, add, problems);
    let dropped = union(CAP_DROP, drop, problems);
    // `--cap-drop ALL --cap-add X` leaves exactly X; `--cap-add ALL --cap-drop X` leaves all but X.
    let base = if dropped == Capabilities::ALL.0 { 0 } else { Capabilities::default_set().0 };
    let taken = if dropped == Capabilities::ALL.0 { 0 } else { dropped };
    Capabilities((base | added) & !taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> std::result::Result<Capabilities, Vec<Error>> {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let mut problems = Problems::default();
        let set = resolve(&own(add), &own(drop), &mut problems);
        problems.finish(set)
    }

    #[test]
    fn the_default_is_podmans_set_of_eleven() {
        assert_eq!(set(&[], &[]).unwrap().names().len(), 11);
        assert!(!set(&[], &[]).unwrap().names().contains(&"CAP_NET_RAW".to_owned()));
    }

    #[test]
    fn dropping_all_leaves_exactly_what_is_added() {
        assert_eq!(set(&["net_raw"], &["ALL"]).unwrap().names(), ["CAP_NET_RAW"]);
    }

    #[test]
    fn adding_all_keeps_what_is_dropped_out() {
        let names = set(&["all"], &["CAP_SYS_ADMIN"]).unwrap().names();
        assert_eq!(names.len(), 40);
        assert!(!names.contains(&"CAP_SYS_ADMIN".to_owned()));
    }

    #[test]
    fn every_misspelt_name_is_reported_with_the_nearest() {
        let errors = set(&["NET_RAWW", "WAT"], &["CAP_CHOWNN"]).unwrap_err();
        assert_eq!(errors.len(), 3);
        assert_eq!(errors[0].hint, "did you mean NET_RAW?");
    }

    #[test]
    fn names_survive_serialisation() {
        let caps = Capabilities::default_set();
        let text = serde_json::to_string(&caps).unwrap();
        assert_eq!(serde_json::from_str::<Capabilities>(&text).unwrap(), caps);
    }
}
