use super::*;
use crate::net::testing::{StateDir, bridge, in_new_netns, veth};

fn exists(name: &str) -> bool {
    link::find(&mut Netlink::route().unwrap(), name).unwrap().is_some()
}

#[test]
fn the_first_user_makes_it_and_the_last_one_removes_it() {
    in_new_netns(|| {
        let state = StateDir::new("first-user");
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let first = Bridge::ensure(state.path(), "nsrs0").unwrap();
        assert!(first.changed.contains(&"set net.ipv4.ip_forward from 0 to 1".to_owned()), "{:?}", first.changed);
        let addresses = link::addresses(&mut Netlink::route().unwrap(), first.index).unwrap();
        assert!(addresses.contains(&(first.v4.addr().into(), first.v4.prefix_len())), "{addresses:?}");
        let v6 = first.v6.expect("this host has IPv6");
        assert!(addresses.contains(&(v6.addr().into(), 64)), "{addresses:?}");

        let second = Bridge::ensure(state.path(), "nsrs0").unwrap();
        assert_eq!((second.index, second.v4, second.v6), (first.index, first.v4, first.v6));
        assert!(second.changed.is_empty(), "{:?}", second.changed);
        first.release().unwrap();
        assert!(exists("nsrs0"));
        second.release().unwrap();
        assert!(!exists("nsrs0"));
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "0\n");
        let left: Vec<_> = fs::read_dir(state.path().join("net")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"]);
    });
}

#[test]
fn what_a_killed_process_left_is_reused_or_collected() {
    in_new_netns(|| {
        let state = StateDir::new("killed");
        let killed = Bridge::ensure(state.path(), "nsrs0").unwrap();
        let v4 = killed.v4;
        drop(killed);
        let next = Bridge::ensure(state.path(), "nsrs0").unwrap();
        assert_eq!(next.v4, v4);
        assert!(collect(state.path()).unwrap().is_empty());
        drop(next);
        assert_eq!(collect(state.path()).unwrap(), ["nsrs0"]);
        assert!(!exists("nsrs0"));
    });
}

#[test]
fn two_bridges_have_two_subnets_and_one_set_of_settings() {
    in_new_netns(|| {
        let state = StateDir::new("two");
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let one = Bridge::ensure(state.path(), "nsrs0").unwrap();
        let two = Bridge::ensure(state.path(), "nsrs1").unwrap();
        assert!(!overlap(&one.v4.into(), &two.v4.into()));
        one.release().unwrap();
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "1\n");
        two.release().unwrap();
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "0\n");
    });
}

#[test]
fn a_link_that_is_no_bridge_is_refused() {
    in_new_netns(|| {
        let state = StateDir::new("no-bridge");
        veth("eth9", &[]);
        let error = Bridge::ensure(state.path(), "eth9").unwrap_err();
        assert!(error.to_string().contains("not a bridge") && !error.hint.is_empty(), "{error}");
    });
}

#[test]
fn a_bridge_of_somebody_else_is_used_and_kept() {
    in_new_netns(|| {
        let state = StateDir::new("foreign");
        let mut netlink = Netlink::route().unwrap();
        let index = bridge(&mut netlink, "br0");
        let error = Bridge::ensure(state.path(), "br0").unwrap_err();
        assert!(error.to_string().contains("no IPv4 address"), "{error}");
        let mut batch = Batch::new();
        add_address(&mut batch, index, "10.9.0.1".parse().unwrap(), 24, "br0");
        netlink.send(batch).unwrap();
        let used = Bridge::ensure(state.path(), "br0").unwrap();
        assert_eq!((used.v4.to_string(), used.v6), ("10.9.0.1/24".to_owned(), None));
        used.release().unwrap();
        assert!(exists("br0"));
    });
}

#[test]
fn many_users_come_and_go_at_once() {
    in_new_netns(|| {
        let state = StateDir::new("many");
        let netns = File::open("/proc/thread-self/ns/net").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    crate::net::testing::enter(&netns, || {
                        for _ in 0..10 {
                            let bridge = Bridge::ensure(state.path(), "nsrs0").unwrap();
                            assert!(exists("nsrs0") && bridge.leases().is_dir());
                            bridge.release().unwrap();
                        }
                    });
                });
            }
        });
        assert!(!exists("nsrs0"));
    });
}
