use serde_json::{Value, json};

use super::*;
use crate::plan::process::{Id, User};
use crate::plan::root::Root;
use crate::plan::{Plan, resolve};
use nsrs_base::host::tree::HostTree;

fn facts() -> ImageFacts {
    ImageFacts {
        name: "docker.io/library/app:latest".into(),
        store: "/store".into(),
        layers: vec!["layers/a/fs".into(), "layers/b/fs".into()],
        config: ImageDefaults {
            env: vec!["PATH=/app/bin".into(), "A=image".into(), "B=image=x".into(), "nonsense".into(), "=x".into()],
            entrypoint: vec!["/app/start".into(), "-v".into()],
            cmd: vec!["serve".into()],
            user: "app:staff".into(),
            workdir: "/srv".into(),
            volumes: vec!["/data".into()],
            ports: vec!["80/tcp".into(), "53/udp".into()],
            stop_signal: "SIGQUIT".into(),
            labels: vec![],
        },
        ..ImageFacts::default()
    }
}

fn spec() -> Spec {
    asked(json!({}))
}

/// These options, on the image without a network unless they say otherwise.
fn asked(options: Value) -> Spec {
    let mut all = json!({ "rootfs": { "image": "app" }, "network": "none" });
    all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    Spec::of(all)
}

fn plan_of(spec: &Spec, facts: &ImageFacts, host: &Host) -> Result<Plan, Vec<Error>> {
    let (plan, problems) = resolve(spec, host, &HostTree::default(), Some(facts));
    problems.finish(plan)
}

fn planned(spec: &Spec) -> Plan {
    plan_of(spec, &facts(), &Host::root()).unwrap()
}

fn args_of(spec: Spec) -> Vec<String> {
    planned(&spec).process.args
}

#[test]
fn the_configuration_is_taken_over() {
    let plan = planned(&spec());
    assert_eq!(plan.process.args, ["/app/start", "-v", "serve"]);
    assert_eq!(plan.process.workdir, "/srv");
    let user = User::Given { user: Id::Name("app".into()), group: Some(Id::Name("staff".into())) };
    assert_eq!(plan.process.user, user);
    assert_eq!(plan.process.env, ["A=image", "B=image=x", "HOSTNAME=nsrs", "PATH=/app/bin"]);
    let Root::Image(root) = plan.sandbox.root else { panic!("{:?}", plan.sandbox.root) };
    assert_eq!((root.volumes, root.stop_signal), (vec!["/data".to_owned()], Some(libc::SIGQUIT)));
    assert_eq!((root.layers, root.user_xattrs, root.upper), (facts().layers, false, Upper::Disk));
}

#[test]
fn the_caller_s_words_come_before_the_image_s() {
    let plan = planned(&asked(json!({ "env": { "A": "own" }, "user": "7", "workdir": "/tmp", "rootfsTmpfs": true })));
    assert!(plan.process.env.contains(&"A=own".to_owned()));
    assert_eq!(plan.process.user, User::Given { user: Id::Number(7), group: None });
    assert_eq!(plan.process.workdir, "/tmp");
    assert!(matches!(plan.sandbox.root, Root::Image(ImageRoot { upper: Upper::Memory, .. })));
}

#[test]
fn a_command_replaces_cmd_and_an_entrypoint_drops_it() {
    assert_eq!(args_of(asked(json!({ "args": ["a", "b"] }))), ["/app/start", "-v", "a", "b"]);
    assert_eq!(args_of(asked(json!({ "entrypoint": ["sh"] }))), ["sh"]);
    assert_eq!(args_of(asked(json!({ "entrypoint": ["sh"], "args": ["-c", "id"] }))), ["sh", "-c", "id"]);
    assert_eq!(args_of(asked(json!({ "entrypoint": [], "args": ["id"] }))), ["id"]);
    // Docker says here that there is no command, too.
    assert!(plan_of(&asked(json!({ "entrypoint": [] })), &facts(), &Host::root()).is_err());
}

#[test]
fn stop_signals_have_names_and_numbers() {
    for (text, number) in [
        ("SIGINT", Some(2)),
        ("INT", Some(2)),
        ("sigint", Some(2)),
        ("9", Some(9)),
        ("SIGRTMIN+3", Some(libc::SIGRTMIN() + 3)),
        ("RTMAX-1", Some(libc::SIGRTMAX() - 1)),
        ("", None),
        ("0", None),
        ("SIGNOPE", None),
        ("-1", None),
        ("SIGRTMIN+999", None),
        ("SIGRTMIN+2147483647", None),
    ] {
        assert_eq!(signal(text), number, "{text}");
    }
}

#[test]
fn what_nobody_can_follow_is_told() {
    let mut facts = facts();
    (facts.config.stop_signal, facts.config.ports) = ("FOO".into(), vec!["x".into(), "80/tcp".into()]);
    let Root::Image(root) = plan_of(&spec(), &facts, &Host::root()).unwrap().sandbox.root else { panic!() };
    assert_eq!(root.stop_signal, None);
    assert_eq!(root.ignored.len(), 2, "{:?}", root.ignored);
    assert!(root.ignored[0].contains("FOO") && root.ignored[1].contains("\"x\""), "{:?}", root.ignored);
    assert_eq!(ports("80-82/UDP").unwrap(), ["80/udp", "81/udp", "82/udp"]);
    for none in ["", "x", "0", "90-80", "80/ip", "65536", "+80", "127.0.0.1:80"] {
        assert_eq!(ports(none), None, "{none}");
    }
}

#[test]
fn a_prewarmed_container_serves_what_differs_in_nothing_that_was_prepared() {
    let of = |change: fn(&mut Spec)| {
        let mut spec = spec();
        change(&mut spec);
        planned(&spec)
    };
    let prewarmed = of(|_| {});
    let same: [fn(&mut Spec); 3] = [
        |spec| spec.args = vec!["other".into()],
        |spec| spec.process.user = Some("7".into()),
        |spec| spec.process.timeout_ms = Some(5),
    ];
    assert!(same.into_iter().all(|change| prewarmed.serves(&of(change))));
    let other: [fn(&mut Spec); 4] = [
        |spec| spec.namespaces.hostname = Some("other".into()),
        |spec| spec.process.workdir = Some("/other".into()),
        |spec| spec.resources.oom_score_adj = Some(5),
        |spec| spec.rights.cap_drop = vec!["ALL".into()],
    ];
    assert!(!other.into_iter().any(|change| prewarmed.serves(&of(change))));
}

#[test]
fn labels_change_nothing_but_what_is_shown() {
    for host in [Host::root(), Host::ordinary(1000)] {
        let plain = plan_of(&spec(), &facts(), &host).unwrap();
        let mut hostile = facts();
        for name in ["privileged", "run.oci.keep_original_groups", "io.podman.annotations.privileged", "nsrs.network"] {
            for value in ["true", "host", "TRUE", "unconfined"] {
                hostile.config.labels.push((name.into(), value.into()));
            }
        }
        let mut other = plan_of(&spec(), &hostile, &host).unwrap();
        assert_ne!(plain, other);
        let Root::Image(root) = &mut other.sandbox.root else { panic!() };
        root.labels.clear();
        assert_eq!(plain, other);
    }
}

#[test]
fn ports_are_published_only_on_request_and_on_ports_of_the_host_s_choice() {
    let all = asked(json!({ "publishAll": true, "publish": ["8080:80"], "network": "bridge" }));
    let published = |spec: &Spec, facts: &ImageFacts| match plan_of(spec, facts, &Host::root())
        .map(|plan| plan.sandbox.network)
    {
        Ok(crate::net::kinds::Network::Bridge(bridge)) => {
            Ok(bridge.publish.iter().map(|port| (port.host_port, port.container_port, port.proto)).collect::<Vec<_>>())
        }
        Ok(other) => panic!("{other:?}"),
        Err(errors) => Err(errors),
    };
    assert_eq!(published(&all, &facts()).unwrap(), [(Some(8080), 80, Proto::Tcp), (None, 53, Proto::Udp)]);
    let none = asked(json!({ "network": "bridge" }));
    assert_eq!(published(&none, &facts()).unwrap(), []);
    // What can't be published is in nobody's way.
    let mut with_sctp = facts();
    with_sctp.config.ports = vec!["9/sctp".into(), "80/tcp".into(), "7-8/SCTP".into(), "53/udp".into()];
    assert_eq!(published(&all, &with_sctp).unwrap(), published(&all, &facts()).unwrap());
    let notes = |spec: &Spec| match plan_of(spec, &with_sctp, &Host::root()).unwrap().sandbox.root {
        Root::Image(root) => root.ignored,
        other => panic!("{other:?}"),
    };
    let told = ["9/sctp", "7-8/SCTP"];
    let told = told.map(|port| format!("the image's port {port} is not published: only those of tcp and udp can be"));
    assert_eq!(notes(&all), told);
    assert_eq!(notes(&none), Vec::<String>::new());
    // An image names no port of the host's.
    let mut hostile = facts();
    hostile.config.ports = vec!["22:80".into()];
    assert!(published(&all, &hostile).is_err());
}

#[test]
fn what_an_image_can_t_be_is_an_error() {
    let refused = |change: &dyn Fn(&mut Spec, &mut ImageFacts), host: &Host| {
        let (mut spec, mut facts) = (spec(), facts());
        change(&mut spec, &mut facts);
        plan_of(&spec, &facts, host).unwrap_err()[0].to_string()
    };
    let root = Host::root();
    assert!(refused(&|_, facts| facts.layers = vec!["l".into(); 501], &root).contains("501 layers"));
    assert!(refused(&|_, facts| facts.config.volumes = vec!["../x".into()], &root).contains("volume"));
    assert!(refused(&|_, facts| facts.config.user = "a:b:c".into(), &root).contains("User of the image"));
    assert!(refused(&|spec, _| spec.namespaces.uid_maps = vec!["0:1000:1".into()], &root).contains("--uidmap"));
    assert!(refused(&|spec, _| spec.namespaces.user = Some("private".into()), &root).contains("--userns"));
    assert!(refused(&|spec, _| spec.root.hide = vec!["/x".into()], &root).contains("--hide"));
    assert!(refused(&|spec, _| spec.namespaces.mount = Some("host".into()), &root).contains("an image"));
    assert!(
        refused(&|spec, _| *spec = Spec::of(json!({ "args": ["x"], "platform": "arm" })), &root).contains("--platform")
    );
}

#[test]
fn an_ordinary_user_s_overlay_uses_their_attributes() {
    let plan = plan_of(&spec(), &facts(), &Host::ordinary(1000)).unwrap();
    assert!(matches!(plan.sandbox.root, Root::Image(ImageRoot { user_xattrs: true, .. })));
}

#[test]
fn paths_that_lead_upwards_are_cleaned_as_docker_does() {
    let planned = |workdir: &str, volume: &str, own: Option<&str>| {
        let mut facts = facts();
        facts.config.workdir = workdir.into();
        facts.config.volumes = vec![volume.into()];
        let spec = own.map_or_else(spec, |own| asked(json!({ "workdir": own })));
        let plan = plan_of(&spec, &facts, &Host::root())?;
        let Root::Image(root) = plan.sandbox.root else { panic!("{:?}", plan.sandbox.root) };
        Ok::<_, Vec<Error>>((plan.process.workdir, root.volumes[0].clone()))
    };
    let paths = |workdir: &str, volume: &str| (workdir.to_owned(), volume.to_owned());
    assert_eq!(planned("/../../x", "/../../v/./w/", None), Ok(paths("/x", "/v/w")));
    assert_eq!(planned("../a//b/../c", "/a/../v", None), Ok(paths("/a/c", "/v")));
    assert_eq!(planned("/srv", "/v", Some("/../own/..")), Ok(paths("/", "/v")));
    assert!(planned("/", "/v/..", None).unwrap_err()[0].to_string().contains("no path below /"));
}
