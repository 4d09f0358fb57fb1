//! Values of an image's configuration, as images and Dockerfiles write them.

use std::str::FromStr;

/// A path as docker cleans it before it looks at any file: without `.`, and `..` takes the part before it away.
#[must_use]
pub fn cleaned(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// A path that is absolute in the container and not its root, cleaned.
#[must_use]
pub fn below_root(path: &str) -> Option<String> {
    Some(cleaned(path)).filter(|whole| path.starts_with('/') && !path.contains('\0') && whole != "/")
}

/// `80`, `80-90/tcp`, as images and Dockerfiles have them: each port of it, `80/tcp`.
#[must_use]
pub fn ports(text: &str) -> Option<Vec<String>> {
    let (range, proto) = text.split_once('/').unwrap_or((text, "tcp"));
    let proto = proto.to_ascii_lowercase();
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let (first, last) = (number(first)?, number(last)?);
    let known = first > 0 && first <= last && matches!(&*proto, "tcp" | "udp" | "sctp");
    known.then(|| (first..=last).map(|port| format!("{port}/{proto}")).collect())
}

/// `SIGQUIT`, `quit`, `3`, `SIGRTMIN+3`, as images write them.
#[must_use]
pub fn signal(text: &str) -> Option<i32> {
    let text = text.to_ascii_uppercase();
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(more), _) => {
            libc::SIGRTMIN() + more.strip_prefix('+').map_or(Some(0), |more| more.parse::<u8>().ok().map(i32::from))?
        }
        (_, Some(less)) => {
            libc::SIGRTMAX() - less.strip_prefix('-').map_or(Some(0), |less| less.parse::<u8>().ok().map(i32::from))?
        }
        _ => match name.parse() {
            Ok(number) => number,
            Err(_) => nix::sys::signal::Signal::from_str(&format!("SIG{name}")).ok()? as i32,
        },
    };
    (1..=libc::SIGRTMAX()).contains(&number).then_some(number)
}
