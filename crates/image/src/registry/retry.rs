//! When to ask again: exponential back-off with jitter, and what `Retry-After` says.

use std::time::{Duration, SystemTime};

use nsrs_base::error::Error;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The first wait. Each following one is twice as long.
const FIRST: Duration = Duration::from_millis(200);
/// The longest wait without a `Retry-After`.
const LONGEST: Duration = Duration::from_secs(20);
/// The longest `Retry-After` to wait for. More is an error.
pub const MAX_ASKED: Duration = Duration::from_secs(60);

/// Why a request failed, and whether another attempt makes sense.
#[derive(Debug)]
pub enum Trouble {
    /// Another attempt would fail the same way.
    Final(Error),
    /// Another attempt may succeed.
    Passing {
        /// What happened, in words for the user.
        why: String,
        /// How long the registry asked us to wait.
        asked: Option<Duration>,
        /// The registry limits how many requests it takes (429).
        is_rate_limit: bool,
    },
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Final(error)
    }
}

impl Trouble {
    /// A failure after which another attempt may succeed.
    pub fn passing(why: impl Into<String>) -> Trouble {
        Trouble::Passing { why: why.into(), asked: None, is_rate_limit: false }
    }
}

/// Whether the status says "not now", and nothing about the request.
#[must_use]
pub fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// How long the answer asks us to wait: seconds, or a date (RFC 9110, 10.2.3).
#[must_use]
pub fn asked_wait(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    // Dates have whole seconds: rounded up, so that we are not early.
    Some(date.duration_since(now).map_or(Duration::ZERO, |wait| wait + Duration::from_secs(1)))
}

/// Counts attempts, and determines how long to wait before the next.
#[derive(Debug)]
pub struct Backoff {
    done: u32,
    most: u32,
}

impl Backoff {
    /// Allows this many attempts in all.
    #[must_use]
    pub fn new(most: u32) -> Backoff {
        Backoff { done: 0, most }
    }

    /// How many attempts have failed since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.done
    }

    /// Allows this many attempts in all, if that is more.
    pub fn extend(&mut self, most: u32) {
        self.most = self.most.max(most);
    }

    /// Counts from zero after a success.
    pub fn reset(&mut self) {
        self.done = 0;
    }

    /// After a failed attempt: how long to wait before the next one; `None` after the last.
    pub fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.done += 1;
        if self.done >= self.most {
            return None;
        }
        let own = LONGEST.min(FIRST * 2u32.saturating_pow(self.done - 1));
        match asked {
            Some(asked) if asked > MAX_ASKED => None,
            // Never earlier than asked, and not all at the same moment.
            Some(asked) => Some(asked + FIRST.mul_f64(random())),
            None => Some(own.mul_f64(0.5 + random() / 2.0)),
        }
    }
}

/// A random number from 0 to 1, not for secrets.
fn random() -> f64 {
    let mut bytes = [0; 4];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(value: &str, now: SystemTime) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        asked_wait(&headers, now)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        assert_eq!(asked("7", now), Some(Duration::from_secs(7)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:40 GMT", now), Some(Duration::from_secs(4)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(asked("soon", now), None);
        assert_eq!(asked("-1", now), None);
    }

    #[test]
    fn waits_grow_and_end() {
        let mut backoff = Backoff::new(5);
        let waits: Vec<_> = std::iter::from_fn(|| backoff.next(None)).collect();
        assert_eq!(waits.len(), 4);
        for (index, wait) in waits.iter().enumerate() {
            let own = FIRST * 2u32.pow(index as u32);
            assert!(*wait >= own / 2 && *wait <= own, "{wait:?}");
        }
    }

    #[test]
    fn what_is_asked_is_kept_to_and_bounded() {
        let mut backoff = Backoff::new(5);
        let wait = backoff.next(Some(Duration::from_secs(3))).unwrap();
        assert!(wait >= Duration::from_secs(3) && wait < Duration::from_secs(4));
        assert_eq!(backoff.next(Some(Duration::from_secs(3600))), None);
    }
}
