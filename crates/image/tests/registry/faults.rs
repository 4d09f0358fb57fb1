//! What goes wrong on the way, and what becomes of it.

use std::time::{Duration, SystemTime};

use crate::faulty::{Act, Asked, Faulty};
use crate::support::{Nsrs, Registry, Source, ready};

/// A registry with one image, whose second layer has some two million bytes, behind the proxy.
struct Bench {
    _registry: Registry,
    proxy: Faulty,
    nsrs: Nsrs,
    name: String,
}

fn bench() -> Option<Bench> {
    if !ready() {
        return None;
    }
    let registry = Registry::start();
    Source::new(&[2_000_000]).copy_to(&registry, "a:1", &[]);
    let proxy = Faulty::before(&registry.address);
    let name = proxy.image("a:1");
    Some(Bench { _registry: registry, proxy, nsrs: Nsrs::new(), name })
}

impl Bench {
    fn pull(&self) -> crate::support::Ran {
        let ran = self.nsrs.works(&["pull", &self.name]);
        assert_eq!(self.nsrs.check_blobs(), 4);
        self.nsrs.read_by_skopeo(&self.name);
        ran
    }
}

fn ranges(asked: &[Asked]) -> Vec<String> {
    asked.iter().filter(|asked| asked.is_blob()).filter_map(|asked| asked.header("range").map(str::to_owned)).collect()
}

#[test]
fn a_cut_connection_is_resumed_where_it_was_cut() {
    let Some(bench) = bench() else { return };
    bench.proxy.fault(9, Act::Cut(700_000), Asked::is_blob);
    let ran = bench.pull();
    let ranges = ranges(&bench.proxy.asked());
    assert!(ranges.len() >= 2 && ranges.iter().all(|range| range.starts_with("bytes=")), "{ranges:?}");
    assert!(ran.stderr.contains("download interrupted at byte"), "{}", ran.stderr);
}

#[test]
fn an_answer_that_ends_early_is_resumed_too() {
    let Some(bench) = bench() else { return };
    bench.proxy.fault(9, Act::Cut(500_000), |asked| asked.is_blob() && asked.header("range").is_none());
    bench.proxy.fault(2, Act::Truncate(500_000), Asked::is_blob);
    let ran = bench.pull();
    assert!(ran.stderr.contains("the connection closed early"), "{}", ran.stderr);
    assert!(!ranges(&bench.proxy.asked()).is_empty());
}

#[test]
fn a_blob_of_another_size_than_the_manifest_says_is_an_error_at_once() {
    let Some(bench) = bench() else { return };
    bench.proxy.fault(99, Act::Truncate(500_000), Asked::is_blob);
    let ran = bench.nsrs.fails(&["pull", &bench.name], &["has 500000 bytes", "the manifest says"]);
    assert!(ran.time < Duration::from_secs(2), "{:?}", ran.time);
    assert!(!ran.stderr.contains("hint: ") && !ran.stderr.contains("interrupted at byte"), "{}", ran.stderr);
    // The rest of one that is shorter tells it as well.
    bench.proxy.mend();
    bench.proxy.fault(9, Act::Cut(400_000), |asked| asked.is_blob() && asked.header("range").is_none());
    let range = "Content-Range: bytes */400000\r\n".to_owned();
    bench.proxy.fault(9, Act::Reply("416 Range Not Satisfiable", range, String::new()), Asked::is_blob);
    bench.nsrs.fails(&["pull", &bench.name], &["has 400000 bytes"]);
}

#[test]
fn a_server_that_ignores_ranges_is_read_over() {
    let Some(bench) = bench() else { return };
    bench.proxy.fault(2, Act::Cut(900_000), |asked| asked.is_blob() && asked.header("range").is_none());
    bench.proxy.fault(99, Act::IgnoreRange, |asked| asked.header("range").is_some());
    bench.pull();
    assert!(!ranges(&bench.proxy.asked()).is_empty());
}

#[test]
fn a_blob_that_always_ends_early_is_an_error_in_the_end() {
    let Some(bench) = bench() else { return };
    bench.proxy.fault(99, Act::Cut(0), |asked| asked.is_blob() && asked.header("range").is_some());
    bench.proxy.fault(99, Act::Cut(900_000), Asked::is_blob);
    bench.nsrs.fails(&["pull", &bench.name], &["download interrupted at byte 900000 of", "6 attempts", "hint: "]);
    bench.nsrs.check_blobs();
    // What came is not lost.
    bench.proxy.mend();
    bench.proxy.asked();
    bench.pull();
    let ranges = ranges(&bench.proxy.asked());
    assert!(!ranges.is_empty() && ranges.iter().all(|range| range == "bytes=900000-"), "{ranges:?}");
}

#[test]
fn a_server_that_brings_a_few_bytes_each_time_is_not_asked_without_end() {
    let Some(bench) = bench() else { return };
    bench.proxy.fault(999, Act::Cut(10), Asked::is_blob);
    bench.nsrs.fails(&["pull", &bench.name], &["download interrupted at byte 60 of", "6 attempts", "hint: "]);
    let asked = bench.proxy.asked().iter().filter(|asked| asked.is_blob()).count();
    assert!(asked <= 4 * 6, "{asked}");
}

#[test]
fn a_server_that_gets_us_further_each_time_is_asked_to_the_end() {
    let Some(bench) = bench() else { return };
    bench.proxy.fault(99, Act::Cut(100_000), Asked::is_blob);
    bench.pull();
    let ranges = ranges(&bench.proxy.asked());
    assert!(ranges.len() >= 19, "{ranges:?}");
}

#[test]
fn retry_after_is_honoured_in_seconds_and_as_a_date() {
    let Some(bench) = bench() else { return };
    let limit = |value: String| Act::Reply("429 Too Many Requests", format!("Retry-After: {value}\r\n"), String::new());
    bench.proxy.fault(1, limit("1".into()), Asked::is_manifest);
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3));
    bench.proxy.fault(1, Act::Reply("503 Busy", format!("Retry-After: {date}\r\n"), String::new()), Asked::is_blob);
    let ran = bench.pull();
    assert!(ran.time >= Duration::from_secs(2), "{:?}: {}", ran.time, ran.stderr);
    assert!(ran.stderr.contains("429") && ran.stderr.contains("503"), "{}", ran.stderr);
}

#[test]
fn a_registry_that_wants_to_be_left_alone_for_long_is_an_error_at_once() {
    let Some(bench) = bench() else { return };
    let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your limit"}]}"#;
    bench.proxy.fault(99, Act::Reply("429 Too Many Requests", "Retry-After: 3600\r\n".into(), body.into()), |_| true);
    let texts = ["429", "You have reached your limit", "3600 s", "hint: wait that long, or log in"];
    let ran = bench.nsrs.fails(&["pull", &bench.name], &texts);
    assert!(ran.time < Duration::from_secs(2));
}

#[test]
fn errors_of_the_server_pass() {
    let Some(bench) = bench() else { return };
    bench.proxy.fault(4, Act::Reply("500 Oops", String::new(), "<html>oops</html>".into()), Asked::is_manifest);
    bench.proxy.fault(2, Act::Reply("502 Bad Gateway", String::new(), String::new()), Asked::is_blob);
    let ran = bench.pull();
    assert!(ran.stderr.contains("500") && ran.stderr.contains("502") && !ran.stderr.contains("html"), "{}", ran.stderr);
}

#[test]
fn an_altered_byte_is_noticed_and_the_blob_fetched_once_more() {
    let Some(bench) = bench() else { return };
    bench.proxy.fault(1, Act::Alter(1_000_000), |asked| asked.is_blob());
    let ran = bench.pull();
    assert!(ran.stderr.contains("its content has the digest"), "{}", ran.stderr);
}

#[test]
fn a_blob_that_comes_altered_every_time_is_an_error_and_is_not_kept() {
    let Some(bench) = bench() else { return };
    bench.proxy.fault(99, Act::Alter(1_000_000), Asked::is_blob);
    let ran = bench.nsrs.run(&["pull", "--progress", "json", &bench.name]);
    assert!(!ran.ok);
    let error: serde_json::Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(error["code"], "ERR_NSRS_IMAGE_INVALID", "{}", ran.stderr);
    bench.nsrs.check_blobs();
    assert!(!std::fs::read_to_string(bench.nsrs.store().join("index.json")).unwrap_or_default().contains("a:1"));
    bench.proxy.mend();
    bench.pull();
}

#[test]
fn an_altered_manifest_is_refused() {
    let Some(bench) = bench() else { return };
    bench.proxy.fault(1, Act::Alter(30), |asked| asked.method == "GET" && asked.is_manifest());
    bench.nsrs.fails(&["pull", &bench.name], &["read the manifest", "it was altered in transit"]);
}

#[test]
fn refusals_name_registry_repository_and_remedy() {
    let Some(bench) = bench() else { return };
    let refuse = |status: &'static str| {
        bench.proxy.mend();
        let body = r#"{"errors":[{"code":"X","message":"the registry's \u001b[31mown words"}]}"#;
        bench.proxy.fault(99, Act::Reply(status, String::new(), body.into()), Asked::is_manifest);
    };
    let address = bench.proxy.address.as_str();
    let login = format!("nsrs login {address}");
    for (status, why) in [("401 No", "requires a login"), ("403 No", "denies access"), ("404 No", "has no such image")]
    {
        refuse(status);
        let ran = bench
            .nsrs
            .fails(&["pull", &bench.name], &[why, address, "a:1", &login, r"the registry's \x1b[31mown words"]);
        assert!(!ran.stderr.contains('\u{1b}'));
        assert_eq!(bench.proxy.asked().len(), 1, "it is not asked again");
    }
}

#[test]
fn a_server_that_is_not_there_is_said_soon() {
    if !ready() {
        return;
    }
    let port = crate::support::free_port();
    let name = format!("127.0.0.1:{port}/a");
    let ran =
        Nsrs::new().fails(&["pull", &name], &["reach the registry", "connection refused (ECONNREFUSED)", "hint: "]);
    assert!(ran.time < Duration::from_secs(3), "{:?}", ran.time);
}

#[test]
fn an_answer_that_never_ends_is_bounded() {
    let Some(bench) = bench() else { return };
    let endless = "x".repeat(5 << 20);
    bench.proxy.fault(99, Act::Reply("200 OK", String::new(), endless), Asked::is_manifest);
    bench.nsrs.fails(&["pull", &bench.name], &["larger than the allowed 4194304 bytes"]);
    assert_eq!(bench.proxy.asked().len(), 1, "it would be as large again");
}

#[test]
fn a_redirect_to_what_is_no_server_is_final() {
    let Some(bench) = bench() else { return };
    let location = "Location: file:///etc/passwd\r\n".to_owned();
    bench.proxy.fault(99, Act::Reply("307 There", location, String::new()), Asked::is_manifest);
    bench.nsrs.fails(&["pull", &bench.name], &["it redirects to file:///etc/passwd"]);
    assert_eq!(bench.proxy.asked().len(), 1);
}
