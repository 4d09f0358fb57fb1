//! The registry, images made by other tools, and our program with a home and a store of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nsrs_store::digest::Digest;
use nsrs_testing::skip;

/// What Debian's packages must have put on the path.
const TOOLS: [&str; 5] = ["docker-registry", "skopeo", "umoci", "htpasswd", "openssl"];

/// Whether the other tools are there; skips the test where one isn't.
pub fn ready() -> bool {
    let missing: Vec<_> = TOOLS.iter().filter(|tool| !on_path(tool)).copied().collect();
    if missing.is_empty() && Path::new("/bin/busybox").exists() {
        return true;
    }
    println!("not found: {missing:?}");
    skip!("needs docker-registry, skopeo, umoci, apache2-utils, openssl and busybox-static");
}

fn on_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(tool).exists())
}

/// A directory that goes with its test.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("nsrs-registry-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = Command::new("chmod").arg("-R").arg("u+rwX").arg(&self.0).output();
        // What was brought is still on its way to the disk, and noted there, when its test is over.
        for _ in 0..100 {
            let _ = fs::remove_dir_all(&self.0);
            if !self.0.exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Runs a tool and fails the test if it fails.
pub fn tool(name: &str, args: &[&str]) -> String {
    let output = Command::new(name).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{name} {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Docker's registry on a port of its own.
pub struct Registry {
    child: Child,
    pub address: String,
    pub dir: Dir,
}

pub const USER: &str = "gustav";
pub const PASSWORD: &str = "pass:w0rd ä";

impl Registry {
    pub fn start() -> Registry {
        Registry::with(false, false)
    }

    /// Without encryption, but only for [`USER`].
    pub fn private() -> Registry {
        Registry::with(true, false)
    }

    /// With a certificate of a test authority (`ca.crt` in its directory), and only for [`USER`].
    pub fn secure() -> Registry {
        Registry::with(true, true)
    }

    fn with(auth: bool, tls: bool) -> Registry {
        let dir = Dir::new();
        let address = format!("127.0.0.1:{}", free_port());
        let at = |name: &str| dir.path(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp:\n  addr: {address}\n",
            at("data")
        );
        if tls {
            authority(&dir);
            config += &format!("  tls: {{certificate: {}, key: {}}}\n", at("server.crt"), at("server.key"));
        }
        if auth {
            fs::write(dir.path("htpasswd"), tool("htpasswd", &["-Bbn", USER, PASSWORD])).unwrap();
            config += &format!("auth:\n  htpasswd: {{realm: test, path: {}}}\n", at("htpasswd"));
        }
        fs::write(dir.path("config.yml"), config).unwrap();
        let log = fs::File::create(dir.path("log")).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve", &at("config.yml")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let start = Instant::now();
        while TcpStream::connect(&address).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "{}", fs::read_to_string(dir.path("log")).unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
        Registry { child, address, dir }
    }

    /// `127.0.0.1:PORT/NAME`.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Puts a document under a name, as it is.
    pub fn put_manifest(&self, name: &str, tag: &str, media_type: &str, document: &str) {
        let request = format!(
            "PUT /v2/{name}/manifests/{tag} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {media_type}\r\n\
             Content-Length: {}\r\n\r\n{document}",
            document.len()
        );
        let answer = speak(&self.address, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    /// Puts a blob into a repository.
    pub fn put_blob(&self, name: &str, bytes: &[u8]) {
        let begin = format!(
            "POST /v2/{name}/blobs/uploads/ HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            self.address
        );
        let answer = speak(&self.address, begin.as_bytes());
        let location =
            answer.lines().find_map(|line| line.strip_prefix("Location: ")).expect(&answer).trim().to_owned();
        let path = location.split_once(&self.address).map_or(location.as_str(), |(_, path)| path);
        let mut request = format!(
            "PUT {path}&digest={} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            Digest::of(bytes),
            self.address,
            bytes.len()
        )
        .into_bytes();
        request.extend(bytes);
        let answer = speak(&self.address, &request);
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends bytes and reads the answer to its end.
pub fn speak(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A test authority, and a server certificate of it for 127.0.0.1 and localhost.
fn authority(dir: &Dir) {
    let at = |name: &str| dir.path(name).display().to_string();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let new = |args: &[&str]| {
        let mut all = vec!["req"];
        all.extend(key);
        all.extend(args);
        tool("openssl", &all);
    };
    new(&["-x509", "-days", "2", "-subj", "/CN=nsrs test authority", "-keyout", &at("ca.key"), "-out", &at("ca.crt")]);
    new(&["-subj", "/CN=localhost", "-keyout", &at("server.key"), "-out", &at("server.csr")]);
    fs::write(dir.path("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.test\n").unwrap();
    let (csr, ca, ca_key, out, names) = (at("server.csr"), at("ca.crt"), at("ca.key"), at("server.crt"), at("names"));
    let sign = ["x509", "-req", "-days", "2", "-in", &csr, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial"];
    let mut args = sign.to_vec();
    args.extend(["-extfile", &names, "-out", &out]);
    tool("openssl", &args);
}

/// An image in an OCI layout, made by umoci: busybox in a layer, and one layer of noise for each size.
pub struct Source {
    pub dir: Dir,
}

impl Source {
    pub fn new(sizes: &[usize]) -> Source {
        let dir = Dir::new();
        let at = |name: &str| dir.path(name).display().to_string();
        let (layout, image) = (at("oci"), format!("{}:image", at("oci")));
        tool("umoci", &["init", "--layout", &layout]);
        tool("umoci", &["new", "--image", &image]);
        // `umoci insert` would write archives without an end.
        let add = |file: &str, tar: &[&str]| {
            let mut args = vec!["--owner=0", "--group=0", "--sort=name", "-cf", file];
            args.extend(tar);
            tool("tar", &args);
            tool("umoci", &["raw", "add-layer", "--image", &image, file]);
        };
        fs::create_dir_all(dir.path("root/bin")).unwrap();
        fs::copy("/bin/busybox", dir.path("root/bin/busybox")).unwrap();
        std::os::unix::fs::symlink("busybox", dir.path("root/bin/sh")).unwrap();
        add(&at("root.tar"), &["-C", &at("root"), "."]);
        for (index, size) in sizes.iter().enumerate() {
            fs::write(dir.path(&format!("noise{index}")), noise(*size)).unwrap();
            add(&at("noise.tar"), &["-C", &at(""), &format!("noise{index}")]);
        }
        let source = Source { dir };
        source.configure();
        source
    }

    /// A further layer, of an archive.
    pub fn add(&self, archive: &Path) {
        let layout = format!("{}:image", self.dir.path("oci").display());
        tool("umoci", &["raw", "add-layer", "--image", &layout, archive.to_str().unwrap()]);
    }

    fn configure(&self) {
        let image = format!("{}:image", self.dir.path("oci").display());
        tool("umoci", &["config", "--image", &image, "--config.cmd", "/bin/sh", "--config.env", "A=b"]);
    }

    pub fn name(&self) -> String {
        format!("oci:{}:image", self.dir.path("oci").display())
    }

    /// Changes its manifest and its configuration, and all that names them.
    pub fn change(&self, change: impl FnOnce(&mut serde_json::Value, &mut serde_json::Value)) {
        let blobs = self.dir.path("oci/blobs/sha256");
        let read = |path: &Path| -> serde_json::Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
        let hex = |descriptor: &serde_json::Value| descriptor["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
        let put = |descriptor: &mut serde_json::Value, value: &serde_json::Value| {
            let bytes = value.to_string().into_bytes();
            let digest = Digest::of(&bytes);
            fs::write(blobs.join(digest.hex()), &bytes).unwrap();
            descriptor["digest"] = digest.to_string().into();
            descriptor["size"] = bytes.len().into();
        };
        let index_path = self.dir.path("oci/index.json");
        let mut index = read(&index_path);
        let mut manifest = read(&blobs.join(hex(&index["manifests"][0])));
        let mut config = read(&blobs.join(hex(&manifest["config"])));
        change(&mut manifest, &mut config);
        put(&mut manifest["config"], &config);
        put(&mut index["manifests"][0], &manifest);
        fs::write(&index_path, index.to_string()).unwrap();
    }

    /// Puts its blobs into a registry and its manifest beside them, which need not fit: `NAME:1`.
    pub fn put_to(&self, registry: &Registry, name: &str) {
        let index = fs::read_to_string(self.dir.path("oci/index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_str(&index).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
        for entry in fs::read_dir(self.dir.path("oci/blobs/sha256")).unwrap() {
            registry.put_blob(name, &fs::read(entry.unwrap().path()).unwrap());
        }
        let manifest = fs::read_to_string(self.dir.path("oci/blobs/sha256").join(digest)).unwrap();
        registry.put_manifest(name, "1", "application/vnd.oci.image.manifest.v1+json", &manifest);
    }

    /// Copies it into a registry, by skopeo.
    pub fn copy_to(&self, registry: &Registry, name: &str, extra: &[&str]) {
        let target = format!("docker://{}", registry.image(name));
        let mut args = vec!["copy", "-q", "--dest-tls-verify=false"];
        args.extend(extra);
        let source = self.name();
        args.extend([source.as_str(), target.as_str()]);
        tool("skopeo", &args);
    }
}

/// Bytes that don't compress.
pub fn noise(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    bytes
}

/// Our program, with a home and a store of its own.
pub struct Nsrs {
    pub dir: Dir,
    pub env: Vec<(String, String)>,
}

/// How it ended.
pub struct Ran {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
    pub time: Duration,
}

impl Nsrs {
    pub fn new() -> Nsrs {
        let dir = Dir::new();
        fs::create_dir(dir.path("home")).unwrap();
        Nsrs { dir, env: Vec::new() }
    }

    pub fn env(mut self, name: &str, value: &str) -> Nsrs {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path("store")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nsrs-image"));
        command
            .arg(nsrs_base::version::VERSION)
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path("home"))
            .env("NSRS_IMAGE_DIR", self.store())
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, "")
    }

    pub fn run_with(&self, args: &[&str], input: &str) -> Ran {
        let start = Instant::now();
        let mut command = self.command(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        Ran {
            ok: status.success(),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            time: start.elapsed(),
        }
    }

    /// Runs and must succeed; what was told comes back.
    pub fn works(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert!(ran.ok, "{args:?}: {}", ran.stderr);
        ran
    }

    /// Runs and must fail with each of these texts.
    pub fn fails(&self, args: &[&str], texts: &[&str]) -> Ran {
        let ran = self.run(args);
        assert!(!ran.ok, "{args:?} succeeded");
        for text in texts {
            assert!(ran.stderr.contains(text), "{text:?} is not in: {}", ran.stderr);
        }
        ran
    }

    /// Every blob of the store is what its name says; returns how many there are.
    pub fn check_blobs(&self) -> usize {
        let mut count = 0;
        for entry in fs::read_dir(self.store().join("blobs/sha256")).into_iter().flatten() {
            let path = entry.unwrap().path();
            let found = Digest::of(&fs::read(&path).unwrap());
            assert_eq!(path.file_name().unwrap().to_str().unwrap(), found.hex());
            count += 1;
        }
        count
    }

    /// Another tool reads the image out of the store: its manifest, as `skopeo inspect --raw` gives it.
    pub fn read_by_skopeo(&self, name: &str) -> serde_json::Value {
        let source = format!("oci:{}:{name}", self.store().display());
        let copy = self.dir.path("copy");
        let _ = fs::remove_dir_all(&copy);
        tool("skopeo", &["copy", "-q", &source, &format!("dir:{}", copy.display())]);
        serde_json::from_str(&tool("skopeo", &["inspect", "--raw", &source])).unwrap()
    }
}
