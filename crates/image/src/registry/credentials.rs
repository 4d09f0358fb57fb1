//! Who we are to a registry: the files that docker and podman keep, read and written the same way.
//!
//! Where they are, in this order: the file that was named (`--authfile`, else `$REGISTRY_AUTH_FILE`) and then no other;
//! else `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`, then podman's
//! `$XDG_RUNTIME_DIR/containers/auth.json` and `$XDG_CONFIG_HOME/containers/auth.json` (`~/.config`). The first that
//! knows the registry counts; `login` writes the first of the list.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use nsrs_base::error::{At, Code, Error, Result};
use serde_json::{Map, Value};

use super::helper::{self, HelperCredential};

/// How docker calls the default registry in its files.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

/// What is shown to a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// A user name and a password, shown as HTTP basic authentication.
    Password {
        /// The name of the user.
        user: String,
        /// The password, or what the registry takes in its place.
        password: String,
    },
    /// A token that buys further tokens (docker's `identitytoken`).
    Identity(String),
    /// A token that is shown as it is (docker's `registrytoken`).
    Bearer(String),
}

/// A secret, and where it was found.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// What the registry, or its token service, is shown.
    pub secret: Secret,
    /// The file or helper that it came from, for error texts.
    pub origin: String,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Secret::Password { user, .. } => write!(f, "Password of {user:?}"),
            Secret::Identity(_) => f.write_str("Identity"),
            Secret::Bearer(_) => f.write_str("Bearer"),
        }
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({})", self.who())
    }
}

impl Credential {
    /// Who it is and where that was found: `me (from /root/.docker/config.json)`. Without the secret.
    #[must_use]
    pub fn who(&self) -> String {
        match &self.secret {
            Secret::Password { user, .. } => format!("{user} (from {})", self.origin),
            Secret::Identity(_) | Secret::Bearer(_) => format!("a token (from {})", self.origin),
        }
    }
}

/// The files, in the order in which they are asked.
///
/// # Errors
/// There is no home directory, and no variable names a file.
pub fn files(named: Option<&Path>) -> Result<Vec<PathBuf>> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = named.map(Path::to_path_buf).or_else(|| from("REGISTRY_AUTH_FILE")) {
        return Ok(vec![file]);
    }
    let home = from("HOME");
    let docker = from("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
    let config = from("XDG_CONFIG_HOME").or_else(|| home.map(|home| home.join(".config")));
    let files: Vec<PathBuf> = [
        docker.map(|directory| directory.join("config.json")),
        from("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json")),
        config.map(|directory| directory.join("containers/auth.json")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if files.is_empty() {
        return Err(Error::new(Code::SetupFailed, "find the file of credentials", "HOME is not set")
            .hint("set HOME, DOCKER_CONFIG or REGISTRY_AUTH_FILE"));
    }
    Ok(files)
}

/// What these files know of a repository's registry; the first that knows something counts.
///
/// # Errors
/// A file can't be read or is malformed; a helper fails.
pub fn find(files: &[PathBuf], registry: &str, repository: &str) -> Result<Option<Credential>> {
    for file in files {
        if let Some(config) = read(file)?
            && let Some(found) = find_in(&config, file, registry, repository)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn find_in(config: &Map<String, Value>, file: &Path, registry: &str, repository: &str) -> Result<Option<Credential>> {
    let key = key_of(registry);
    if let Some(name) = helper_of(config, registry)
        && let Some(kept) = helper::get(&name, key)?
    {
        let secret = match kept.username.as_str() {
            "<token>" => Secret::Identity(kept.secret),
            _ => Secret::Password { user: kept.username, password: kept.secret },
        };
        return Ok(Some(Credential { secret, origin: format!("docker-credential-{name}") }));
    }
    let Some(auths) = config.get("auths").and_then(Value::as_object) else { return Ok(None) };
    // Podman's files may name a repository or a part of its path; the longest that fits counts.
    let mut wanted = format!("{registry}/{repository}");
    loop {
        let entries = auths.iter().filter(|(key, _)| is_key_of(key, &wanted));
        for (key, entry) in entries {
            if let Some(secret) = secret_of(entry).map_err(|why| malformed(file, &format!("auths of {key}: {why}")))? {
                return Ok(Some(Credential { secret, origin: file.display().to_string() }));
            }
        }
        match wanted.rfind('/') {
            Some(at) => wanted.truncate(at),
            None => return Ok(None),
        }
    }
}

/// Does this key of `auths` stand for this registry (or repository)?
fn is_key_of(key: &str, wanted: &str) -> bool {
    if key == wanted || (wanted == "docker.io" && key == DOCKER_KEY) {
        return true;
    }
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let host = bare.map_or(key, |bare| bare.split('/').next().unwrap_or(bare));
    match host {
        "index.docker.io" | "registry-1.docker.io" | "docker.io" => wanted == "docker.io",
        host => bare.is_some() && host == wanted,
    }
}

fn secret_of(entry: &Value) -> Result<Option<Secret>, String> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Secret::Identity(token.to_owned())));
    }
    if let Some(token) = text("registrytoken") {
        return Ok(Some(Secret::Bearer(token.to_owned())));
    }
    if let Some(auth) = text("auth") {
        let decoded = BASE64.decode(auth.trim()).map_err(|_| "auth is not base64")?;
        let decoded = String::from_utf8(decoded).map_err(|_| "auth is not text")?;
        let (user, password) = decoded.split_once(':').ok_or("auth is not user:password")?;
        // Docker once filled up with zero bytes.
        let password = password.trim_end_matches('\0');
        return Ok(Some(Secret::Password { user: user.to_owned(), password: password.to_owned() }));
    }
    Ok(text("username")
        .zip(text("password"))
        .map(|(user, password)| Secret::Password { user: user.to_owned(), password: password.to_owned() }))
}

fn key_of(registry: &str) -> &str {
    if registry == "docker.io" { DOCKER_KEY } else { registry }
}

/// The helper for this registry: its own, or the one for all.
fn helper_of(config: &Map<String, Value>, registry: &str) -> Option<String> {
    let own = config.get("credHelpers").and_then(Value::as_object);
    let own = own.and_then(|helpers| helpers.get(registry).or_else(|| helpers.get(key_of(registry))));
    let name = own.or_else(|| config.get("credsStore")).and_then(Value::as_str)?;
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

fn malformed(file: &Path, why: &str) -> Error {
    Error::new(Code::InvalidArgument, "read the credentials in", why)
        .on(file.display().to_string())
        .hint("repair the file, or move it away and log in again")
}

/// The content of a file; nothing if there is none.
fn read(file: &Path) -> Result<Option<Map<String, Value>>> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::os("read the credentials in", file.display().to_string(), &error)),
    };
    if text.trim().is_empty() {
        return Ok(Some(Map::new()));
    }
    match serde_json::from_str(&text) {
        Ok(Value::Object(config)) => Ok(Some(config)),
        Ok(_) => Err(malformed(file, "not a JSON object")),
        Err(error) => Err(malformed(file, &format!("invalid JSON: {error}"))),
    }
}

/// Keeps a credential for a registry, in the helper that the file names or in the file itself. Says where.
///
/// # Errors
/// The file can't be read or written, or the helper fails. Then nothing has changed.
pub fn store(file: &Path, registry: &str, secret: &Secret) -> Result<String> {
    let key = key_of(registry);
    change(file, |config| {
        let (user, password) = match secret {
            Secret::Password { user, password } => (user.as_str(), password.as_str()),
            Secret::Identity(token) | Secret::Bearer(token) => ("<token>", token.as_str()),
        };
        if let Some(name) = helper_of(config, registry) {
            helper::store(
                &name,
                &HelperCredential { server: key.into(), username: user.into(), secret: password.into() },
            )?;
            return Ok((false, format!("docker-credential-{name}")));
        }
        let entry = match secret {
            Secret::Password { .. } => ("auth", BASE64.encode(format!("{user}:{password}"))),
            Secret::Identity(token) => ("identitytoken", token.clone()),
            Secret::Bearer(token) => ("registrytoken", token.clone()),
        };
        let auths = config.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        let Some(auths) = auths.as_object_mut() else { return Err(malformed(file, "auths is not an object")) };
        auths.retain(|other, _| other == key || !is_key_of(other, registry));
        auths.insert(key.to_owned(), Value::Object(Map::from_iter([(entry.0.to_owned(), entry.1.into())])));
        Ok((true, file.display().to_string()))
    })
}

/// Forgets a registry; says whether it was known.
///
/// # Errors
/// The file can't be read or written, or the helper fails.
pub fn forget(file: &Path, registry: &str) -> Result<bool> {
    if !file.exists() {
        return Ok(false);
    }
    change(file, |config| {
        let mut known = match helper_of(config, registry) {
            Some(name) => helper::erase(&name, key_of(registry))?,
            None => false,
        };
        let Some(auths) = config.get_mut("auths").and_then(Value::as_object_mut) else { return Ok((false, known)) };
        let before = auths.len();
        auths.retain(|key, _| !is_key_of(key, registry));
        let changed = auths.len() != before;
        known |= changed;
        Ok((changed, known))
    })
}

/// Changes a file as a whole or not at all: read, changed, written beside and renamed, under a lock on its directory.
fn change<T>(file: &Path, act: impl FnOnce(&mut Map<String, Value>) -> Result<(bool, T)>) -> Result<T> {
    let step = "write the credentials in";
    // A link stays a link: people keep this file among their dotfiles.
    let target = fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).at(step, directory.display())?;
    let lock = File::open(&directory).at(step, directory.display())?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).at(step, directory.display())?;
    let mut config = read(&target)?.unwrap_or_default();
    let (changed, result) = act(&mut config)?;
    if changed {
        let mut text = serde_json::to_string_pretty(&config).unwrap_or_default();
        text.push('\n');
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let beside = directory.join(format!(".{name}.{}", std::process::id()));
        let written = replace(&beside, &target, text.as_bytes());
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written.at(step, target.display())?;
    }
    Ok(result)
}

fn replace(beside: &Path, target: &Path, text: &[u8]) -> std::io::Result<()> {
    let _ = fs::remove_file(beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(beside, target)
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
