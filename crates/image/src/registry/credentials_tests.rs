//! Files as docker and podman write them.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("nsrs-credentials-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn password(user: &str, password: &str) -> Secret {
    Secret::Password { user: user.into(), password: password.into() }
}

#[test]
fn keys_are_read_as_docker_and_podman_write_them() {
    let dir = Dir::new("keys");
    let auth = |text: &str| BASE64.encode(text);
    let file = dir.file(
        "config.json",
        &format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{}"}},"quay.io":{{"auth":"{}"}},
            "quay.io/team":{{"auth":"{}"}},"https://old.example/v2/":{{"username":"o","password":"p"}},
            "token.example":{{"identitytoken":"T"}},"empty.example":{{}},"bad.example":{{"auth":"%"}}}}}}"#,
            auth("me:a:b"),
            auth("q:q"),
            auth("team:t"),
        ),
    );
    let files = [dir.0.join("missing.json"), file];
    let of = |registry: &str, repository: &str| find(&files, registry, repository).map(|c| c.map(|c| c.secret));
    assert_eq!(of("docker.io", "library/a").unwrap(), Some(password("me", "a:b")));
    assert_eq!(of("quay.io", "other/a").unwrap(), Some(password("q", "q")));
    assert_eq!(of("quay.io", "team/a").unwrap(), Some(password("team", "t")));
    assert_eq!(of("quay.io", "teamster/a").unwrap(), Some(password("q", "q")));
    assert_eq!(of("old.example", "a").unwrap(), Some(password("o", "p")));
    assert_eq!(of("token.example", "a").unwrap(), Some(Secret::Identity("T".into())));
    assert_eq!(of("empty.example", "a").unwrap(), None);
    assert_eq!(of("io", "a").unwrap(), None);
    assert!(of("bad.example", "a").unwrap_err().to_string().contains("not base64"));
}

#[test]
fn a_login_keeps_what_others_wrote_and_is_private() {
    let dir = Dir::new("store");
    let real =
        dir.file("real.json", r#"{"HttpHeaders":{"X":"y"},"auths":{"a.example":{"auth":"eDp5"}},"psFormat":"t"}"#);
    fs::set_permissions(&real, fs::Permissions::from_mode(0o644)).unwrap();
    let link = dir.0.join("config.json");
    symlink(&real, &link).unwrap();
    assert_eq!(store(&link, "docker.io", &password("me", "secret")).unwrap(), link.display().to_string());
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
    let config = read(&real).unwrap().unwrap();
    assert_eq!(config["HttpHeaders"]["X"], "y");
    assert_eq!(config["psFormat"], "t");
    assert_eq!(config["auths"]["a.example"]["auth"], "eDp5");
    assert_eq!(config["auths"][DOCKER_KEY]["auth"], BASE64.encode("me:secret"));
    assert!(forget(&link, "docker.io").unwrap());
    assert!(!forget(&link, "docker.io").unwrap());
    assert!(read(&real).unwrap().unwrap()["auths"].get("a.example").is_some());
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 2, "nothing is left beside");
}

#[test]
fn a_new_file_gets_a_private_directory() {
    let dir = Dir::new("new");
    let file = dir.0.join("deep/.docker/config.json");
    store(&file, "quay.io", &password("a", "b")).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn what_cannot_be_read_is_not_written_over() {
    let dir = Dir::new("malformed");
    let file = dir.file("config.json", "{ not json");
    assert!(store(&file, "quay.io", &password("a", "b")).unwrap_err().to_string().contains("invalid JSON"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "{ not json");
    assert!(find(std::slice::from_ref(&file), "quay.io", "a").is_err());
}

#[test]
fn logins_at_the_same_time_lose_nothing() {
    let dir = Dir::new("parallel");
    let file = dir.0.join("config.json");
    std::thread::scope(|scope| {
        for index in 0..8 {
            let file = &file;
            scope.spawn(move || store(file, &format!("r{index}.example"), &password("a", "b")).unwrap());
        }
    });
    assert_eq!(read(&file).unwrap().unwrap()["auths"].as_object().unwrap().len(), 8);
}
