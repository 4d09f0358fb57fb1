//! What docker's own parser says of these names (distribution/reference), and properties of the form.

use proptest::prelude::*;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn full(text: &str) -> String {
    Reference::parse(text).unwrap().to_string()
}

#[test]
fn names_are_completed_as_docker_completes_them() {
    let digest = format!("sha256:{HEX}");
    for (given, complete, familiar) in [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("me/tool", "docker.io/me/tool:latest", "me/tool:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/me/tool:2", "docker.io/me/tool:2", "me/tool:2"),
        ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("quay.io/a/b/c:d", "quay.io/a/b/c:d", "quay.io/a/b/c:d"),
        ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
        ("localhost:5000/a", "localhost:5000/a:latest", "localhost:5000/a:latest"),
        ("myhost/a", "docker.io/myhost/a:latest", "myhost/a:latest"),
        ("MyHost/a", "MyHost/a:latest", "MyHost/a:latest"),
        ("10.0.0.1:5000/a:b", "10.0.0.1:5000/a:b", "10.0.0.1:5000/a:b"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ("a__b/c-.d", "", ""),
        ("a__b/c---d.e_f", "docker.io/a__b/c---d.e_f:latest", "a__b/c---d.e_f:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
    ] {
        match complete {
            "" => assert!(Reference::parse(given).is_err(), "{given}"),
            _ => {
                let reference = Reference::parse(given).unwrap();
                assert_eq!((reference.to_string().as_str(), reference.familiar().as_str()), (complete, familiar));
            }
        }
    }
    assert_eq!(full(&format!("a@{digest}")), format!("docker.io/library/a@{digest}"));
    assert_eq!(full(&format!("q.io:1/a:b@{digest}")), format!("q.io:1/a@{digest}"));
}

#[test]
fn the_registry_is_asked_for_the_digest_where_both_are_given() {
    let both = Reference::parse(&format!("quay.io/a:b@sha256:{HEX}")).unwrap();
    assert_eq!((both.tag(), both.selector()), (None, format!("sha256:{HEX}")));
    assert!(Reference::parse(&format!("quay.io/a:-b@sha256:{HEX}")).is_err());
    assert_eq!(Reference::parse("a").unwrap().selector(), "latest");
    assert_eq!(Reference::parse("a").unwrap().host(), "registry-1.docker.io");
    assert_eq!(both.host(), "quay.io");
}

#[test]
fn what_is_no_reference_is_quoted_with_the_reason() {
    let long = "a".repeat(256);
    let long_tag = format!("a:{}", "t".repeat(129));
    for (text, why) in [
        ("", "it is empty"),
        ("Busybox", "must be in lower case"),
        ("a b", "the character ' ' is not allowed"),
        ("a\nb", "the character '\\n' is not allowed"),
        ("ä", "the character 'ä' is not allowed"),
        ("https://quay.io/a", "leave https:// out"),
        ("docker://busybox", "leave docker:// out"),
        ("a:", "no tag after the colon"),
        ("a:-b", "must not start with"),
        ("a:b c", "the character ' '"),
        ("a:b/c", "has no port number"),
        ("a.b:99999/c", "has no port number"),
        ("a//b", "nothing between two slashes"),
        ("/a", "nothing between two slashes"),
        ("a/", "nothing between two slashes"),
        ("quay.io/", "the repository's name is missing"),
        ("../../etc/passwd", "empty part between dots"),
        ("a/../b", "must start and end with"),
        ("a/.b", "must start and end with"),
        ("a_-b", "is not allowed: use one of"),
        ("a..b", "is not allowed: use one of"),
        ("a___b", "is not allowed: use one of"),
        ("-a.b/c", "starts or ends with a hyphen"),
        ("[::1/a", "no IPv6 address"),
        ("[zz]:1/a", "no IPv6 address"),
        ("a@sha256:12", "expected a digest"),
        ("a@", "expected a digest"),
        ("a@md5:12", "only sha256"),
        (HEX, "an image's id, not its name"),
        (&long, "255 are allowed"),
        (&long_tag, "128 are allowed"),
    ] {
        let error = Reference::parse(text).unwrap_err().to_string();
        assert!(error.contains(why) && error.starts_with("invalid image reference \""), "{text}: {error}");
    }
    let error = Reference::parse(&"x!".repeat(1 << 20)).unwrap_err().to_string();
    assert!(error.len() < 1000, "{}", error.len());
}

#[test]
fn registries_are_read_as_people_paste_them() {
    for (given, registry) in [
        ("quay.io", "quay.io"),
        ("https://quay.io/", "quay.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("localhost:5000", "localhost:5000"),
        ("[::1]:5000", "[::1]:5000"),
        ("myhost", "myhost"),
    ] {
        assert_eq!(parse_registry(given).unwrap(), registry);
    }
    for given in ["", "quay.io/a", "a b", "a:b", "https://"] {
        assert!(parse_registry(given).is_err(), "{given}");
    }
}

#[test]
fn crosses_json_as_its_full_form() {
    let reference = Reference::parse("busybox").unwrap();
    assert_eq!(serde_json::to_string(&reference).unwrap(), "\"docker.io/library/busybox:latest\"");
    assert_eq!(serde_json::from_str::<Reference>("\"busybox\"").unwrap(), reference);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = Reference::parse(&text);
        let _ = parse_registry(&text);
    }

    #[test]
    fn what_looks_like_a_reference_neither(text in "[a-zA-Z0-9.:/@_\\[\\]-]{0,80}") {
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
            prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            prop_assert!(!reference.repository().contains(".."));
            prop_assert!(reference.repository().split('/').all(|part| !part.is_empty()));
        }
    }

    #[test]
    fn every_well_formed_reference_is_read_and_written_back(
        registry in "([a-z0-9]{1,8}\\.[a-z]{2,5}(:[1-9][0-9]{0,3})?|localhost(:[1-9][0-9]{0,3})?)",
        path in "[a-z0-9]{1,9}([._-][a-z0-9]{1,5})?(/[a-z0-9]{1,9}(__[a-z0-9]{1,5})?){1,4}",
        tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9._-]{0,60}"),
        digest in proptest::option::of("[0-9a-f]{64}"),
    ) {
        let mut text = format!("{registry}/{path}");
        if let Some(tag) = &tag { text += &format!(":{tag}"); }
        if let Some(digest) = &digest { text += &format!("@sha256:{digest}"); }
        let reference = Reference::parse(&text).unwrap();
        prop_assert_eq!(reference.registry(), &registry);
        prop_assert_eq!(reference.repository(), &path);
        let complete = match (tag, digest) {
            (_, Some(digest)) => format!("{registry}/{path}@sha256:{digest}"),
            (Some(tag), None) => format!("{registry}/{path}:{tag}"),
            (None, None) => format!("{registry}/{path}:latest"),
        };
        prop_assert_eq!(reference.to_string(), complete);
    }
}
