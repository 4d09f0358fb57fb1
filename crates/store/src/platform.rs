//! Which of an index's images: `os/arch[/variant]`, with the fall-backs of processor variants.

use std::fmt;

use serde::Deserialize;

use nsrs_base::error::{Code, Error, Result};
use nsrs_base::options::PLATFORM;
use nsrs_base::text::printable;

/// A platform as images name it (image-index.md): `linux/amd64`, `linux/arm/v7`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// The operating system, by Go's names: `linux`.
    #[serde(default)]
    pub os: String,
    /// The processor, by Go's names.
    #[serde(default, rename = "architecture")]
    pub arch: String,
    /// Its variant, where there are several; empty if none is named.
    #[serde(default)]
    pub variant: String,
}

impl Platform {
    /// Reads `os/arch[/variant]` or `arch`, and takes the kernel's names of processors too (`x86_64`, `aarch64`).
    ///
    /// # Errors
    /// It's something else; the error quotes it.
    pub fn parse(text: &str) -> Result<Platform> {
        let bad = |why: &str| Error::invalid(PLATFORM, text, why);
        let parts: Vec<&str> = text.split('/').collect();
        let good = |part: &&str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        };
        if !parts.iter().all(good) {
            return Err(bad("give os/arch or os/arch/variant, for example linux/arm64/v8"));
        }
        let (os, arch, variant) = match parts[..] {
            ["linux" | "windows" | "darwin" | "freebsd"] => return Err(bad("the processor is missing: os/arch")),
            [arch] => ("linux", arch, ""),
            [os, arch] => (os, arch, ""),
            [os, arch, variant] => (os, arch, variant),
            _ => return Err(bad("there are more than three parts in it")),
        };
        Ok(Platform::new(os, arch, variant))
    }

    /// The platform that an image's configuration names.
    #[must_use]
    pub fn of(os: impl fmt::Display, arch: impl fmt::Display, variant: &Option<String>) -> Platform {
        Platform::new(&os.to_string(), &arch.to_string(), variant.as_deref().unwrap_or_default())
    }

    /// The platform of this machine.
    #[must_use]
    pub fn host() -> Platform {
        let machine = rustix::system::uname().machine().to_string_lossy().into_owned();
        match std::env::consts::ARCH {
            // Which ARM it is, only the kernel knows. An armv8l runs 32-bit programs of version 7.
            "arm" => Platform::new("linux", if machine.starts_with("armv6") { "armel" } else { "armhf" }, ""),
            "powerpc64" if cfg!(target_endian = "little") => Platform::new("linux", "ppc64le", ""),
            arch => Platform::new("linux", arch, ""),
        }
    }

    /// The same platform by the names that images use, with the variant that is meant where none is named.
    fn new(os: &str, arch: &str, variant: &str) -> Platform {
        let (os, arch, variant) = (os.to_lowercase(), arch.to_lowercase(), variant.to_lowercase());
        let (arch, variant) = match (arch.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64", ""),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", "") => ("arm", "v7"),
            ("armel", "") => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            ("i386" | "i486" | "i586" | "i686" | "x86", variant) => ("386", variant),
            ("loongarch64", variant) => ("loong64", variant),
            (arch, variant) => (arch, variant),
        };
        Platform { os, arch: arch.to_owned(), variant: variant.to_owned() }
    }

    /// The same platform, written as we compare it.
    #[must_use]
    pub fn normal(&self) -> Platform {
        Platform::new(&self.os, &self.arch, &self.variant)
    }

    /// How well an image for `other` suits: 0 is exact, larger is a lesser variant, `None` does not run.
    #[must_use]
    pub fn distance(&self, other: &Platform) -> Option<u32> {
        let (own, other) = (self.normal(), other.normal());
        if (&own.os, &own.arch) != (&other.os, &other.arch) {
            return None;
        }
        let lowest = match own.arch.as_str() {
            "arm64" => 8,
            "arm" => 5,
            _ => 1,
        };
        // v8.2 and the like: a processor runs what was made for its forerunners.
        let level = |platform: &Platform| match platform.variant.strip_prefix('v') {
            _ if platform.variant.is_empty() => Some(lowest * 100),
            Some(number) => {
                let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
                Some(major.parse::<u32>().ok()? * 100 + minor.parse::<u32>().ok()?.min(99))
            }
            None => None,
        };
        match (level(&own), level(&other)) {
            (Some(own), Some(other)) => own.checked_sub(other),
            _ => (own.variant == other.variant).then_some(0),
        }
    }

    /// Chooses the best of these, or says which there are.
    ///
    /// # Errors
    /// None of them runs on this platform.
    pub fn choose<'a, T>(&self, image: &str, list: &'a [(Option<Platform>, T)]) -> Result<&'a T> {
        let suited = list.iter().filter_map(|(platform, item)| Some((self.distance(platform.as_ref()?)?, item)));
        // Of equals the first, as docker takes it.
        if let Some((_, item)) = suited.min_by_key(|(distance, _)| *distance) {
            return Ok(item);
        }
        // Images that say nothing are made by simple tools, for one platform.
        if let [(None, item)] = list {
            return Ok(item);
        }
        let mut there: Vec<String> = Vec::new();
        for (platform, _) in list {
            let name = platform.as_ref().map_or_else(|| "one without a name".to_owned(), ToString::to_string);
            if !there.contains(&name) && name != "unknown/unknown" {
                there.push(name);
            }
        }
        let missing = |why: String| Error::new(Code::ImageNotFound, "find the image", why).on(image);
        if there.is_empty() {
            return Err(missing(format!("no image for {self} or any other platform")));
        }
        Err(missing(format!("no image for {self}; available: {}", there.join(", ")))
            .hint(format!("choose one of them with {PLATFORM}")))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It comes from an index, and is shown on terminals.
        let tame = |text: &str| printable(&text.chars().take(64).collect::<String>()).into_owned();
        write!(f, "{}/{}", tame(&self.os), tame(&self.arch))?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", tame(&self.variant)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        Platform::parse(text).unwrap()
    }

    fn choose(wanted: &str, list: &[&str]) -> Result<String> {
        let list: Vec<_> = list.iter().map(|text| (Some(platform(text)), (*text).to_owned())).collect();
        platform(wanted).choose("a", &list).cloned()
    }

    #[test]
    fn names_are_those_of_images() {
        for (given, name) in [
            ("linux/amd64", "linux/amd64"),
            ("x86_64", "linux/amd64"),
            ("linux/aarch64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("armel", "linux/arm/v6"),
            ("windows/amd64", "windows/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("Linux/S390X", "linux/s390x"),
        ] {
            assert_eq!(platform(given).to_string(), name);
        }
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/amd 64"] {
            assert!(Platform::parse(text).unwrap_err().to_string().contains("--platform"), "{text}");
        }
        assert_eq!(Platform::host().os, "linux");
    }

    #[test]
    fn the_nearest_lesser_variant_is_taken() {
        assert_eq!(choose("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6", "linux/arm64"]).unwrap(), "linux/arm/v6");
        assert_eq!(choose("linux/arm/v8", &["linux/arm/v7", "linux/arm64"]).unwrap(), "linux/arm/v7");
        assert_eq!(choose("linux/arm64/v8.2", &["linux/arm64", "linux/arm64/v8.1"]).unwrap(), "linux/arm64/v8.1");
        assert_eq!(choose("linux/arm64", &["linux/amd64", "linux/arm64/v8"]).unwrap(), "linux/arm64/v8");
        assert_eq!(choose("linux/amd64", &["linux/amd64/v3", "linux/amd64"]).unwrap(), "linux/amd64");
        assert_eq!(choose("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2"]).unwrap(), "linux/amd64/v2");
    }

    #[test]
    fn the_error_lists_those_there_are() {
        let error = choose("linux/s390x", &["linux/amd64", "unknown/unknown", "linux/arm/v7"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "find the image a: no image for linux/s390x; available: linux/amd64, linux/arm/v7"
        );
        assert!(choose("linux/arm/v5", &["linux/arm/v6"]).is_err());
        assert!(choose("linux/amd64", &["linux/amd64/v2"]).is_err());
        let none = choose("linux/amd64", &["unknown/unknown"]).unwrap_err();
        assert_eq!(
            (none.to_string().as_str(), none.hint.as_str()),
            ("find the image a: no image for linux/amd64 or any other platform", "")
        );
        assert_eq!(choose("linux/amd64", &[]).unwrap_err().to_string(), none.to_string());
        let nameless = [(None, 1)];
        assert_eq!(platform("linux/amd64").choose("a", &nameless).unwrap(), &1);
    }
}
