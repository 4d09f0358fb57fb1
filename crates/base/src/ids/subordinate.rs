//! What /etc/subuid, /etc/subgid and /etc/passwd say of the caller, read without NSS: the executable is static.

/// The ranges of a user in /etc/subuid or /etc/subgid (subuid(5)): `NAME-OR-UID:FIRST:COUNT`.
#[must_use]
pub fn subordinate_ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let uid = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut parts = line.trim().splitn(3, ':');
            let (owner, first, count) = (parts.next()?, parts.next()?, parts.next()?);
            let mine = Some(owner) == name || owner == uid;
            mine.then_some((first.parse().ok()?, count.parse().ok()?))
        })
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// Name and home of a user by /etc/passwd, read without NSS: the executable is static.
#[must_use]
pub fn passwd_entry(text: &str, uid: u32) -> Option<(String, String)> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.len() >= 6 && fields[2].parse() == Ok(uid)).then(|| (fields[0].to_owned(), fields[5].to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_belong_to_the_name_or_the_number() {
        let text = "ann:100000:65536\nbob:165536:65536\n1000:300000:10\nann:x:1\nann:5:0\n";
        assert_eq!(subordinate_ranges(text, Some("ann"), 1000), [(100_000, 65_536), (300_000, 10)]);
        assert_eq!(subordinate_ranges(text, None, 7), []);
    }

    #[test]
    fn the_home_is_read_without_nss() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(passwd_entry(passwd, 1000), Some(("ann".into(), "/home/ann".into())));
        assert_eq!(passwd_entry(passwd, 5), None);
    }
}
