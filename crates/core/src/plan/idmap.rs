//! User namespaces and their id maps (user_namespaces(7)).

use super::Problems;
use super::namespace::Use;
use crate::spec::Spec;
use nsrs_base::error::{Code, Error, Result};
use nsrs_base::host::Host;
use nsrs_base::ids::maps::{IdMap, MapWriter, UserNamespace, automatic};
use nsrs_base::options::{GID_MAPS, OptionName, UID_MAPS, USERNS};

/// Reads `INSIDE:OUTSIDE:COUNT`.
fn parse(option: OptionName, text: &str) -> Result<IdMap> {
    let bad = |why: &str| Error::invalid(option, text, why);
    let numbers: Vec<u32> = text
        .split(':')
        .map(|part| part.parse::<u32>().map_err(|_| bad("give INSIDE:OUTSIDE:COUNT, three numbers")))
        .collect::<Result<_>>()?;
    let [inside, outside, count] = numbers[..] else {
        return Err(bad("give INSIDE:OUTSIDE:COUNT, three numbers"));
    };
    // 4294967295 is (uid_t) -1, which means "no id" to the kernel.
    if count == 0 {
        return Err(bad("a map of no ids"));
    }
    if inside.checked_add(count).is_none() || outside.checked_add(count).is_none() {
        return Err(bad("the range goes past the last id, 4294967294"));
    }
    Ok(IdMap { inside, outside, count })
}

/// Reads all maps of one kind and refuses those that overlap, on either side.
fn parse_all(option: OptionName, texts: &[String], problems: &mut Problems) -> Vec<IdMap> {
    let maps = problems.all(texts.iter().map(|text| parse(option, text)));
    let overlap = |a: u32, b: u32, first: &IdMap, second: &IdMap| a < b + second.count && b < a + first.count;
    for (index, second) in maps.iter().enumerate() {
        for first in &maps[..index] {
            if overlap(first.inside, second.inside, first, second) {
                problems.push(Error::invalid(option, second, format!("overlaps {first} inside the container")));
            } else if overlap(first.outside, second.outside, first, second) {
                problems.push(Error::invalid(option, second, format!("overlaps {first} on the host")));
            }
        }
    }
    if maps.len() > 340 {
        problems.push(Error::invalid(option, maps.len(), "the kernel takes at most 340 ranges"));
    }
    maps
}

fn is_own_id_only(maps: &[IdMap], id: u32) -> bool {
    matches!(maps, [one] if one.outside == id && one.count == 1)
}

/// Resolves the user namespace.
pub fn resolve(spec: &Spec, how: &Use, host_tree: bool, host: &Host, problems: &mut Problems) -> UserNamespace {
    let mapped = !spec.namespaces.uid_maps.is_empty() || !spec.namespaces.gid_maps.is_empty();
    if !matches!(how, Use::Private) {
        if mapped {
            problems.push(
                Error::conflict(
                    if spec.namespaces.uid_maps.is_empty() { GID_MAPS } else { UID_MAPS },
                    "only a new user namespace takes id maps",
                )
                .on(format!("with {USERNS}"))
                .hint(format!("use {USERNS} private, or leave the maps out")),
            );
        }
        return if matches!(how, Use::Host) { UserNamespace::Host } else { UserNamespace::Joined };
    }
    if let Err(error) = host.user_namespaces_available() {
        problems.push(error);
    }
    let ranges = !host.privileged && host.id_helpers && !host.subuids.is_empty() && !host.subgids.is_empty();
    let (uids, gids) = if mapped {
        let uids = parse_all(UID_MAPS, &spec.namespaces.uid_maps, problems);
        let gids = parse_all(GID_MAPS, &spec.namespaces.gid_maps, problems);
        match (uids.is_empty(), gids.is_empty()) {
            (false, true) => (uids.clone(), uids),
            (true, false) => (gids.clone(), gids),
            _ => (uids, gids),
        }
    } else if host.privileged {
        // The rights of root end at the namespace's border; the ids stay, or no file of the root would have its owner.
        let all = vec![IdMap { inside: 0, outside: 0, count: u32::MAX }];
        (all.clone(), all)
    } else if host_tree {
        // On the host's own tree a program should find itself the user it was: the same home, the same files.
        (automatic(host.uid, host.uid, &[], false), automatic(host.gid, host.gid, &[], false))
    } else {
        (automatic(host.uid, 0, &host.subuids, ranges), automatic(host.gid, 0, &host.subgids, ranges))
    };
    let own_only = is_own_id_only(&uids, host.uid) && is_own_id_only(&gids, host.gid);
    let writer = match (host.privileged, own_only) {
        (true, _) => MapWriter::Supervisor,
        (false, true) => MapWriter::Process,
        (false, false) => MapWriter::Helpers,
    };
    if writer == MapWriter::Helpers && mapped && !host.id_helpers {
        problems.push(
            Error::new(
                Code::Unsupported,
                "map ids",
                "more than your own id needs newuidmap and newgidmap, which are not in PATH",
            )
            .hint("install them (Debian: apt-get install uidmap), or map only your own id"),
        );
    }
    UserNamespace::Private { uids, gids, writer, deny_setgroups: writer == MapWriter::Process }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(uids: &[&str], gids: &[&str]) -> Spec {
        Spec::of(json!({ "uidMaps": uids, "gidMaps": gids }))
    }

    fn resolved(spec: &Spec, how: &Use, tree: bool, host: &Host) -> std::result::Result<UserNamespace, Vec<Error>> {
        let mut problems = Problems::default();
        let resolved = resolve(spec, how, tree, host, &mut problems);
        problems.finish(resolved)
    }

    #[test]
    fn an_ordinary_user_is_root_in_a_root_of_their_own_and_gets_their_range() {
        let host = Host {
            id_helpers: true,
            subuids: vec![(100_000, 65_536)],
            subgids: vec![(200_000, 65_536)],
            ..Host::ordinary(1000)
        };
        let UserNamespace::Private { uids, gids, writer, deny_setgroups } =
            resolved(&spec(&[], &[]), &Use::Private, false, &host).unwrap()
        else {
            panic!("not private");
        };
        assert_eq!(uids.iter().map(ToString::to_string).collect::<Vec<_>>(), ["0:1000:1", "1:100000:65536"]);
        assert_eq!(gids[1].outside, 200_000);
        assert_eq!((writer, deny_setgroups), (MapWriter::Helpers, false));
    }

    #[test]
    fn without_a_range_there_is_one_id() {
        let host = Host::ordinary(1000);
        let UserNamespace::Private { uids, writer, deny_setgroups, .. } =
            resolved(&spec(&[], &[]), &Use::Private, false, &host).unwrap()
        else {
            panic!("not private");
        };
        assert_eq!(uids, [IdMap { inside: 0, outside: 1000, count: 1 }]);
        assert_eq!((writer, deny_setgroups), (MapWriter::Process, true));
    }

    #[test]
    fn on_the_hosts_tree_a_user_stays_who_they_are() {
        let UserNamespace::Private { uids, .. } =
            resolved(&spec(&[], &[]), &Use::Private, true, &Host::ordinary(1000)).unwrap()
        else {
            panic!("not private");
        };
        assert_eq!(uids, [IdMap { inside: 1000, outside: 1000, count: 1 }]);
    }

    #[test]
    fn bad_maps_are_reported_together() {
        let errors =
            resolved(&spec(&["0:0", "0:1:0", "a:b:c", "0:4294967295:2"], &[]), &Use::Private, false, &Host::root())
                .unwrap_err();
        assert_eq!(errors.len(), 4);
    }

    #[test]
    fn overlapping_maps_are_errors_on_either_side() {
        let inside = resolved(&spec(&["0:1000:10", "9:5000:1"], &[]), &Use::Private, false, &Host::root()).unwrap_err();
        assert!(inside[0].to_string().contains("overlaps 0:1000:10 inside the container"), "{}", inside[0]);
        let outside =
            resolved(&spec(&["0:1000:10", "10:1009:1"], &[]), &Use::Private, false, &Host::root()).unwrap_err();
        assert!(outside[0].to_string().contains("on the host"), "{}", outside[0]);
    }

    #[test]
    fn maps_without_a_new_namespace_are_an_error() {
        assert!(resolved(&spec(&["0:0:1"], &[]), &Use::Host, false, &Host::root()).is_err());
    }

    #[test]
    fn user_namespaces_that_are_switched_off_are_named_with_the_remedy() {
        let host = Host { max_user_namespaces: 0, ..Host::ordinary(1000) };
        let errors = resolved(&spec(&[], &[]), &Use::Private, false, &host).unwrap_err();
        assert!(errors[0].hint.contains("user.max_user_namespaces"), "{:?}", errors[0]);
    }
}
