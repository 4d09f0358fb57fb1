//! Killed at any moment, a pull leaves a store that is consistent, and the next one goes on.

use std::process::Stdio;
use std::time::Duration;

use crate::faulty::{Act, Asked, Faulty};
use crate::support::{Nsrs, Registry, Source, noise, ready};

#[test]
fn killed_at_fifty_moments_it_goes_on_and_ends_well() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    Source::new(&[6_000_000, 3_000_000, 1_000_000]).copy_to(&registry, "a:1", &[]);
    let proxy = Faulty::before(&registry.address);
    // Some three quarters of a second for the largest layer, so that there is something to be killed in.
    proxy.fault(usize::MAX, Act::Slow(80_000), Asked::is_blob);
    let mut nsrs = Nsrs::new();
    let name = proxy.image("a:1");
    let (mut killed, mut completed) = (0, 0);
    while killed < 50 {
        let mut command = nsrs.command(&["pull", &name]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let moment = u16::from_ne_bytes(noise(2).try_into().unwrap());
        std::thread::sleep(Duration::from_millis(u64::from(moment % 400)));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            // It was faster: once more from the beginning.
            (nsrs, completed) = (Nsrs::new(), completed + 1);
            assert!(completed < 100);
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
        nsrs.check_blobs();
    }
    let ranges = proxy.asked().iter().filter(|asked| asked.header("range").is_some()).count();
    assert!(ranges > 5, "only {ranges} downloads went on where they were killed");
    nsrs.works(&["pull", &name]);
    assert_eq!(nsrs.check_blobs(), 6);
    assert_eq!(nsrs.read_by_skopeo(&name)["layers"].as_array().unwrap().len(), 4);
    let left: Vec<_> =
        std::fs::read_dir(nsrs.store().join("ingest")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().len() != 64), "no part of a blob is left: {left:?}");
}
