//! Who may pull and push: passwords, tokens, certificates, and where none of them may go.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::faulty::{Act, Asked, Faulty};
use crate::support::{Nsrs, PASSWORD, Registry, Source, USER, ready, tool};

fn config(nsrs: &Nsrs) -> Value {
    serde_json::from_str(&fs::read_to_string(nsrs.dir.path("home/.docker/config.json")).unwrap()).unwrap()
}

#[test]
fn a_registry_with_tls_and_password_from_login_to_logout() {
    if !ready() {
        return;
    }
    let registry = Registry::secure();
    let ca = registry.dir.path("ca.crt").display().to_string();
    let creds = format!("{USER}:{PASSWORD}");
    Source::new(&[1_000_000]).copy_to(&registry, "a:1", &["--dest-creds", &creds]);
    let (nsrs, name, host) = (Nsrs::new(), registry.image("a:1"), registry.address.as_str());
    let trusted = |verb: &'static str| vec![verb, "--ca-file", ca.as_str()];
    let with = |verb: &'static str, rest: &[&'static str], last: &str| {
        let mut args: Vec<String> = trusted(verb).into_iter().map(str::to_owned).collect();
        args.extend(rest.iter().map(|arg| (*arg).to_owned()));
        args.push(last.to_owned());
        args
    };
    let run = |args: &[String], input: &str| nsrs.run_with(&args.iter().map(String::as_str).collect::<Vec<_>>(), input);

    nsrs.fails(&["pull", &name], &["invalid certificate: unknown issuer", "--ca-file"]);
    let unknown = run(&with("pull", &[], &name), "");
    assert!(!unknown.ok && unknown.stderr.contains(&format!("nsrs login {host}")), "{}", unknown.stderr);

    let wrong = run(&with("login", &["--username", USER], host), "wrong\n");
    assert!(!wrong.ok && wrong.stderr.contains("wrong user name or password"), "{}", wrong.stderr);
    assert!(!wrong.stderr.contains("wrong\n"));
    assert!(!nsrs.dir.path("home/.docker").exists(), "nothing is written before it is verified");

    let right = run(&with("login", &["--username", USER], host), &format!("{PASSWORD}\n"));
    assert!(right.ok && right.stderr.contains("config.json"), "{}", right.stderr);
    let file = nsrs.dir.path("home/.docker/config.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let pulled = run(&with("pull", &[], &name), "");
    assert!(pulled.ok, "{}", pulled.stderr);
    let pushed = run(&with("push", &[], &name), "");
    assert!(pushed.ok, "{}", pushed.stderr);
    // Others read the file that we wrote.
    let certs = registry.dir.path("certs");
    fs::create_dir(&certs).unwrap();
    fs::copy(&ca, certs.join("ca.crt")).unwrap();
    let (certs, auth) = (certs.display().to_string(), file.display().to_string());
    tool("skopeo", &["inspect", "--authfile", &auth, "--cert-dir", &certs, &format!("docker://{name}")]);

    let out = nsrs.works(&["logout", host]);
    assert!(out.stderr.contains("logged out"), "{}", out.stderr);
    assert_eq!(config(&nsrs)["auths"].as_object().unwrap().len(), 0);
    assert!(nsrs.works(&["logout", host]).stderr.contains("not logged in"));

    // Written by another tool, in podman's place; the authority by the variable that all know.
    let runtime = nsrs.dir.path("run").display().to_string();
    let other = format!("{runtime}/containers/auth.json");
    fs::create_dir_all(Path::new(&other).parent().unwrap()).unwrap();
    tool("skopeo", &["login", "--authfile", &other, "--cert-dir", &certs, "-u", USER, "-p", PASSWORD, host]);
    let nsrs = Nsrs::new().env("XDG_RUNTIME_DIR", &runtime).env("SSL_CERT_FILE", &ca);
    nsrs.works(&["pull", &name]);
    let nsrs = Nsrs::new().env("REGISTRY_AUTH_FILE", &other).env("SSL_CERT_FILE", &ca);
    nsrs.works(&["pull", &name]);
}

#[test]
fn wrong_credentials_are_said_to_be_wrong() {
    if !ready() {
        return;
    }
    let registry = Registry::private();
    let nsrs = Nsrs::new();
    fs::create_dir(nsrs.dir.path("home/.docker")).unwrap();
    let file = nsrs.dir.path("home/.docker/config.json");
    fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"YTpi"}}}}}}"#, registry.address)).unwrap();
    let login = format!("nsrs login {}", registry.address);
    nsrs.fails(&["pull", &registry.image("a:1")], &["authentication required", &login]);
    fs::write(&file, "{").unwrap();
    nsrs.fails(&["pull", &registry.image("a:1")], &["read the credentials in", "config.json", "invalid JSON"]);
}

#[test]
fn a_helper_keeps_and_gives_the_password() {
    if !ready() {
        return;
    }
    let registry = Registry::private();
    let creds = format!("{USER}:{PASSWORD}");
    Source::new(&[10]).copy_to(&registry, "a:1", &["--dest-creds", &creds]);
    let mut nsrs = Nsrs::new();
    let bin = nsrs.dir.path("bin");
    fs::create_dir(&bin).unwrap();
    let helper = bin.join("docker-credential-test");
    let kept = nsrs.dir.path("kept").display().to_string();
    let script = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat > {kept};;\nget) read s; test -e {kept} && cat {kept} || {{ echo credentials not found in native keychain; exit 1; }};;\nerase) rm {kept};;\nesac\n"
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    nsrs.env.push(("PATH".into(), path));
    fs::create_dir(nsrs.dir.path("home/.docker")).unwrap();
    let file = nsrs.dir.path("home/.docker/config.json");
    let text = format!(r#"{{"credHelpers":{{"{}":"test"}}}}"#, registry.address);
    fs::write(&file, &text).unwrap();
    nsrs.fails(&["pull", &registry.image("a:1")], &["nsrs login"]);
    let ran = nsrs.run_with(&["login", "--username", USER, &registry.address], &format!("{PASSWORD}\n"));
    assert!(ran.ok && ran.stderr.contains("docker-credential-test"), "{}", ran.stderr);
    assert_eq!(fs::read_to_string(&file).unwrap(), text, "the file itself holds no password");
    nsrs.works(&["pull", &registry.image("a:1")]);
    nsrs.works(&["logout", &registry.address]);
    nsrs.fails(&["push", &registry.image("a:1")], &["nsrs login"]);
    let mute = nsrs.dir.path("bin/docker-credential-mute");
    fs::write(&mute, "#!/bin/sh\ncat > /dev/null\nexit 3\n").unwrap();
    fs::set_permissions(&mute, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(&file, r#"{"credsStore":"mute"}"#).unwrap();
    nsrs.fails(&["push", &registry.image("a:1")], &["ask docker-credential-mute", "exit status: 3"]);
    fs::write(&file, r#"{"credsStore":"missing"}"#).unwrap();
    nsrs.fails(&["push", &registry.image("a:1")], &["run the credential helper docker-credential-missing", "ENOENT"]);
}

/// Answers 401 to who has no token, and gives tokens at `/token`.
fn token_service(registry: &Registry, realm: &str) -> Faulty {
    let proxy = Faulty::before(&registry.address);
    let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"test\"\r\n");
    proxy.fault(usize::MAX, Act::Reply("401 Who", challenge, String::new()), |asked| {
        asked.path.starts_with("/v2/") && asked.header("authorization") != Some("Bearer T0KEN")
    });
    proxy
}

#[test]
fn a_token_is_fetched_once_and_shown_to_the_registry_only() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    Source::new(&[10, 10, 10]).copy_to(&registry, "a:1", &[]);
    let service = Faulty::before("127.0.0.1:1");
    service.fault(99, Act::Reply("200 OK", String::new(), r#"{"token":"T0KEN"}"#.into()), |_| true);
    let proxy = token_service(&registry, &format!("http://{}/token", service.address));
    let nsrs = Nsrs::new();
    fs::create_dir(nsrs.dir.path("home/.docker")).unwrap();
    let file = nsrs.dir.path("home/.docker/config.json");
    fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"bWU6cHc="}}}}}}"#, proxy.address)).unwrap();
    nsrs.works(&["pull", &proxy.image("a:1")]);
    let asked = service.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].path, "/token?service=test&scope=repository%3Aa%3Apull&account=me");
    assert_eq!(asked[0].header("authorization"), Some("Basic bWU6cHc="));
    let shown = proxy.asked();
    assert!(shown.iter().all(|asked| asked.header("authorization").is_none_or(|header| header == "Bearer T0KEN")));

    // A token for pushing is another one.
    nsrs.works(&["push", &proxy.image("a:1")]);
    assert!(service.asked()[0].path.contains("scope=repository%3Aa%3Apull%2Cpush"));

    // An identity token is exchanged by a form.
    fs::write(&file, format!(r#"{{"auths":{{"{}":{{"identitytoken":"I D"}}}}}}"#, proxy.address)).unwrap();
    nsrs.works(&["pull", &proxy.image("a:1")]);
    assert_eq!(service.asked()[0].method, "POST");

    // One that refuses says why.
    service.mend();
    let words = r#"{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}"#;
    service.fault(99, Act::Reply("401 No", String::new(), words.into()), |_| true);
    fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"bWU6cHc="}}}}}}"#, proxy.address)).unwrap();
    let login = format!("nsrs login {}", proxy.address);
    let ran =
        nsrs.fails(&["pull", &proxy.image("a:1")], &["refuses the credentials of me (from ", "wrong password", &login]);
    assert!(!ran.stderr.contains("pw"));
}

#[test]
fn redirects_take_no_credentials_along() {
    if !ready() {
        return;
    }
    let (registry, open) = (Registry::private(), Registry::start());
    let creds = format!("{USER}:{PASSWORD}");
    let source = Source::new(&[10]);
    source.copy_to(&registry, "a:1", &["--dest-creds", &creds]);
    source.copy_to(&open, "a:1", &[]);
    let (proxy, elsewhere) = (Faulty::before(&registry.address), Faulty::before(&open.address));
    // Wherever a blob is asked for, the same blob is at the other server.
    let digests: Vec<String> = fs::read_dir(source.dir.path("oci/blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for digest in digests {
        let path = format!("/v2/a/blobs/sha256:{digest}");
        let location = format!("Location: http://{}{path}\r\n", elsewhere.address);
        proxy.fault(99, Act::Reply("307 There", location, String::new()), move |asked| {
            asked.is_blob() && asked.path == path && asked.header("authorization").is_some()
        });
    }
    let nsrs = Nsrs::new();
    let ran = nsrs.run_with(&["login", "--username", USER, &proxy.address], &format!("{PASSWORD}\n"));
    assert!(ran.ok, "{}", ran.stderr);
    nsrs.works(&["pull", &proxy.image("a:1")]);
    nsrs.check_blobs();
    let asked = elsewhere.asked();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked.iter().all(|asked| asked.header("authorization").is_none()));
    assert!(proxy.asked().iter().any(|asked| asked.is_blob() && asked.header("authorization").is_some()));

    // A server that we were sent to gets no answer to its questions either.
    elsewhere
        .fault(99, Act::Reply("401 Who", "WWW-Authenticate: Basic realm=\"x\"\r\n".into(), String::new()), |_| true);
    let other = Nsrs::new().env("DOCKER_CONFIG", &nsrs.dir.path("home/.docker").display().to_string());
    other.fails(&["pull", &proxy.image("a:1")], &["requires a login"]);
    assert!(elsewhere.asked().iter().all(|asked: &Asked| asked.header("authorization").is_none()));
}

#[test]
fn who_can_not_be_reached_is_named() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    let port = crate::support::free_port();
    let proxy = token_service(&registry, &format!("http://127.0.0.1:{port}/token"));
    let sends = format!("redirect to 127.0.0.1:{port}: connection failed");
    Nsrs::new().fails(&["pull", &proxy.image("a:1")], &["reach the registry", &proxy.address, &sends]);
    let nsrs = Nsrs::new().env("https_proxy", &format!("http://127.0.0.1:{port}"));
    nsrs.fails(&["pull", "registry.test/a:1"], &["connection refused", "the proxy in https_proxy"]);
    let nsrs = Nsrs::new().env("HTTPS_PROXY", "http://me:secret@proxy.test:port");
    let ran = nsrs.fails(&["pull", "registry.test/a:1"], &["invalid HTTPS_PROXY \"proxy.test:port\"", "hint: "]);
    assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
}

#[test]
fn a_proxy_of_the_environment_is_used_but_not_for_loopback() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    Source::new(&[10]).copy_to(&registry, "a:1", &[]);
    // As a proxy it is asked for whole addresses; ours passes on paths only, so it answers itself.
    let proxy = Faulty::before("127.0.0.1:1");
    proxy.fault(99, Act::Reply("404 No", String::new(), String::new()), |_| true);
    let nsrs = Nsrs::new().env("http_proxy", &format!("http://{}", proxy.address));
    nsrs.fails(&["pull", "--plain-http", "registry.invalid/a:1"], &["has no such image"]);
    assert!(proxy.asked()[0].path.starts_with("http://registry.invalid/v2/a/"));
    nsrs.works(&["pull", &registry.image("a:1")]);
    assert!(proxy.asked().is_empty());
}

#[test]
fn a_registry_elsewhere_is_reached_by_tls_through_the_proxy() {
    if !ready() {
        return;
    }
    let registry = Registry::secure();
    let creds = format!("{USER}:{PASSWORD}");
    Source::new(&[500_000]).copy_to(&registry, "a:1", &["--dest-creds", &creds]);
    let proxy = Faulty::before(&registry.address);
    let ca = registry.dir.path("ca.crt").display().to_string();
    let nsrs = Nsrs::new().env("https_proxy", &format!("http://{}", proxy.address));
    let login = ["login", "--ca-file", &ca, "--username", USER, "registry.test"];
    let ran = nsrs.run_with(&login, &format!("{PASSWORD}\n"));
    assert!(ran.ok, "{}", ran.stderr);
    nsrs.works(&["pull", "--ca-file", &ca, "registry.test/a:1"]);
    nsrs.works(&["push", "--ca-file", &ca, "registry.test/a:1", "registry.test/b:2"]);
    let asked = proxy.asked();
    assert!(asked.iter().all(|asked| asked.method == "CONNECT" && asked.path == "registry.test:443"), "{asked:?}");
    let plain = Registry::start();
    let proxy = Faulty::before(&plain.address);
    let other = Nsrs::new().env("https_proxy", &format!("http://{}", proxy.address));
    other.fails(
        &["pull", "registry.test/a:1"],
        &["reach the registry registry.test: the server does not use TLS", "--plain-http"],
    );
    // A name that the certificate doesn't have.
    nsrs.fails(&["pull", "--ca-file", &ca, "other.test/a:1"], &["invalid certificate"]);
    nsrs.fails(
        &["pull", "--ca-file", "/nonexistent", "registry.test/b:1"],
        &["read the certificates in /nonexistent", "ENOENT"],
    );
    let empty = nsrs.dir.path("empty.crt").display().to_string();
    fs::write(&empty, "").unwrap();
    nsrs.fails(&["pull", "--ca-file", &empty, "registry.test/b:1"], &["no certificate found"]);
}
