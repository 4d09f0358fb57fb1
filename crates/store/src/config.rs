//! What an image says about itself: its configuration (OCI image specification, config.md; docker's is the same with more
//! fields). Fields that aren't known are kept.

use oci_spec::image::{Config, ImageConfiguration};
use serde_json::Value;

use super::digest::{Digest, Hasher};
use super::platform::Platform;
use nsrs_base::error::{Code, Error, Result};

/// The configuration of an image.
#[derive(Clone, Debug)]
pub struct ImageConfig {
    /// As it is written, with all fields.
    pub raw: Value,
    /// The fields of the specification.
    pub spec: ImageConfiguration,
    /// The layers' digests when uncompressed, lowest first.
    pub diff_ids: Vec<Digest>,
}

impl ImageConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// It is not an image configuration (`ImageInvalid`).
    pub fn parse(bytes: &[u8]) -> Result<ImageConfig> {
        let step = "read the configuration of the image";
        let bad = |why: String| Error::new(Code::ImageInvalid, step, why);
        let raw: Value = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        let mut plain = raw.clone();
        if let Some(plain) = plain.as_object_mut() {
            // Docker writes null for what is empty, and leaves out what a base of nothing doesn't have.
            plain.retain(|_, value| !value.is_null());
            plain.entry("architecture").or_insert_with(|| "".into());
            plain.entry("os").or_insert_with(|| "linux".into());
        }
        let spec: ImageConfiguration = serde_json::from_value(plain).map_err(|error| bad(error.to_string()))?;
        let diff_id = |id: &String| -> Result<Digest> {
            let shown: String = id.chars().take(80).collect();
            id.parse().map_err(|error: Error| bad(format!("the diff id {shown:?} is not a digest: {}", error.reason)))
        };
        let diff_ids = spec.rootfs().diff_ids().iter().map(diff_id).collect::<Result<_>>()?;
        Ok(ImageConfig { raw, spec, diff_ids })
    }

    fn config(&self) -> Option<&Config> {
        self.spec.config().as_ref()
    }

    /// The environment variables that the image sets, `NAME=value` each, in the image's order.
    #[must_use]
    pub fn env(&self) -> &[String] {
        self.config().and_then(|config| config.env().as_deref()).unwrap_or_default()
    }

    /// The program, with its first arguments; empty if the command is the program.
    #[must_use]
    pub fn entrypoint(&self) -> &[String] {
        self.config().and_then(|config| config.entrypoint().as_deref()).unwrap_or_default()
    }

    /// The arguments of the entrypoint, or the command if there is none.
    #[must_use]
    pub fn cmd(&self) -> &[String] {
        self.config().and_then(|config| config.cmd().as_deref()).unwrap_or_default()
    }

    /// Who runs the command: `user`, `uid`, `user:group`, `uid:gid`; empty: root.
    #[must_use]
    pub fn user(&self) -> &str {
        self.config().and_then(|config| config.user().as_deref()).unwrap_or_default()
    }

    /// Where the command starts; empty: `/`.
    #[must_use]
    pub fn working_dir(&self) -> &str {
        self.config().and_then(|config| config.working_dir().as_deref()).unwrap_or_default()
    }

    /// The signal that ends the command; empty: `SIGTERM`.
    #[must_use]
    pub fn stop_signal(&self) -> &str {
        self.config().and_then(|config| config.stop_signal().as_deref()).unwrap_or_default()
    }

    /// Directories that hold data of a container, sorted.
    #[must_use]
    pub fn volumes(&self) -> Vec<&str> {
        sorted(self.config().and_then(|config| config.volumes().as_deref()))
    }

    /// Ports that the command listens on, `80/tcp`, sorted.
    #[must_use]
    pub fn exposed_ports(&self) -> Vec<&str> {
        sorted(self.config().and_then(|config| config.exposed_ports().as_deref()))
    }

    /// Labels as name and value, sorted by name.
    #[must_use]
    pub fn labels(&self) -> Vec<(&str, &str)> {
        let labels = self.config().and_then(|config| config.labels().as_ref());
        let mut all: Vec<(&str, &str)> =
            labels.into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        all.sort_unstable();
        all
    }

    /// What it was made for.
    #[must_use]
    pub fn platform(&self) -> Platform {
        Platform::of(self.spec.os(), self.spec.architecture(), self.spec.variant())
    }
}

fn sorted(list: Option<&[String]>) -> Vec<&str> {
    let mut list: Vec<&str> = list.into_iter().flatten().map(String::as_str).collect();
    list.sort_unstable();
    list
}

/// The chain ids of layers: each names a layer together with all below it (config.md, Layer ChainID).
#[must_use]
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for id in diff_ids {
        let next = chain.last().map_or(*id, |below| {
            let mut hasher = Hasher::default();
            hasher.update(format!("{below} {id}").as_bytes());
            hasher.finish()
        });
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_s_configuration_is_read_and_its_own_fields_are_kept() {
        let text = br#"{"architecture":"arm","variant":"v7","os":"linux","author":null,
            "config":{"Hostname":"x","Env":["A=b"],"Cmd":["sh","-c"],"Entrypoint":null,"User":"nobody","WorkingDir":"/w",
              "Volumes":{"/b":{},"/a":{}},"ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGINT","Labels":{"k":"v"},
              "OnBuild":["RUN x"],"Healthcheck":{"Test":["NONE"]},"Shell":null},
            "container_config":{"Tty":true},"docker_version":"1",
            "rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
            "history":[{"created":"2020-01-01T00:00:00Z","created_by":"x","empty_layer":true}]}"#;
        let config = ImageConfig::parse(text).unwrap();
        assert_eq!(config.env(), ["A=b"]);
        assert_eq!((config.cmd().len(), config.entrypoint().len()), (2, 0));
        assert_eq!((config.user(), config.working_dir(), config.stop_signal()), ("nobody", "/w", "SIGINT"));
        assert_eq!(config.volumes(), ["/a", "/b"]);
        assert_eq!(config.exposed_ports(), ["80/tcp"]);
        assert_eq!(config.labels(), [("k", "v")]);
        assert_eq!(config.platform().to_string(), "linux/arm/v7");
        assert_eq!(config.raw["config"]["OnBuild"][0], "RUN x");
        assert_eq!(config.diff_ids, [Digest::of(b"")]);
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"rootfs":{"type":"layers","diff_ids":["sha256:zz"]}}"#,
            r#"{"rootfs":{"type":"layers","diff_ids":[3]}}"#,
        ] {
            assert!(ImageConfig::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_diff_id_that_is_no_digest_is_quoted_wherever_the_configuration_is_named() {
        for id in ["sha256:zz", "layer one", "md5:12", &"x".repeat(1000)] {
            let text = serde_json::json!({ "rootfs": { "type": "layers", "diff_ids": [id] } }).to_string();
            let error = ImageConfig::parse(text.as_bytes()).unwrap_err().on("sha256:of-the-configuration");
            assert_eq!(error.code, Code::ImageInvalid);
            let (error, shown) = (error.to_string(), &id[..id.len().min(80)]);
            assert!(error.contains(&format!("the diff id {shown:?}")) && error.len() < 400, "{error}");
            assert!(error.starts_with("read the configuration of the image sha256:of"), "{error}");
        }
    }

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let chain = chain_ids(&[a, b]);
        assert_eq!(chain[0], a);
        assert_eq!(chain[1], Digest::of(format!("{a} {b}").as_bytes()));
    }
}
