//! Resource limits, file mode mask and out-of-memory score (setrlimit(2), umask(2), proc_pid_oom_score_adj(5)).

use serde::{Deserialize, Serialize};

use nsrs_base::error::{Error, Result};
use nsrs_base::options::{OOM_SCORE_ADJ, ULIMITS, UMASK};

/// The resources by name.
const RESOURCES: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// A limit of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Name of the resource without `RLIMIT_`, in lower case.
    pub name: String,
    /// Where the resource is refused; `None` is no limit.
    pub soft: Option<u64>,
    /// How far the process itself may raise the soft limit; `None` is no limit.
    pub hard: Option<u64>,
}

/// Reads `NAME=SOFT[:HARD]`; `unlimited` and -1 are no limit.
///
/// # Errors
/// An unknown resource, a value that is no number, or a soft limit above the hard one.
pub fn parse_ulimit(text: &str) -> Result<Rlimit> {
    let bad = |why: &str| Error::invalid(ULIMITS, text, why);
    let (name, values) = text.split_once('=').ok_or_else(|| bad("give NAME=SOFT[:HARD]"))?;
    let name = name.to_ascii_lowercase();
    if !RESOURCES.contains(&name.as_str()) {
        return Err(bad("there is no such resource").hint(format!("resources: {}", RESOURCES.join(", "))));
    }
    let value = |text: &str| match text {
        "unlimited" | "-1" => Ok(None),
        _ => text.parse::<u64>().map(Some).map_err(|_| bad("a limit is a number, unlimited or -1")),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        return Err(bad("the soft limit is above the hard limit"));
    }
    Ok(Rlimit { name, soft, hard })
}

/// Reads an octal file mode mask.
///
/// # Errors
/// The text is no octal number up to 0777.
pub fn parse_umask(text: &str) -> Result<u32> {
    match u32::from_str_radix(text, 8) {
        Ok(mask) if mask <= 0o777 && !text.starts_with('+') => Ok(mask),
        _ => Err(Error::invalid(UMASK, text, "give an octal number from 0000 to 0777")),
    }
}

/// Checks an out-of-memory score.
///
/// # Errors
/// The score is outside -1000 to 1000.
pub fn check_oom_score(score: i64) -> Result<i32> {
    let allowed = i32::try_from(score).ok().filter(|score| (-1000..=1000).contains(score));
    allowed.ok_or_else(|| Error::invalid(OOM_SCORE_ADJ, score, "give a number from -1000 to 1000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_sets_both_limits() {
        let limit = parse_ulimit("nofile=1024").unwrap();
        assert_eq!((limit.soft, limit.hard), (Some(1024), Some(1024)));
    }

    #[test]
    fn no_limit_has_two_spellings() {
        let limit = parse_ulimit("CORE=0:unlimited").unwrap();
        assert_eq!((limit.soft, limit.hard), (Some(0), None));
        assert_eq!(parse_ulimit("stack=-1").unwrap().soft, None);
    }

    #[test]
    fn bad_limits_are_errors() {
        for text in ["nofile", "files=1", "nofile=x", "nofile=2:1", "nofile=unlimited:1", "nofile=", "nofile=-2"] {
            assert!(parse_ulimit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn masks_are_octal() {
        assert_eq!(parse_umask("0027").unwrap(), 0o27);
        for text in ["8", "1000", "", "-1", "+22"] {
            assert!(parse_umask(text).is_err(), "{text}");
        }
    }
}
