//! Whom we believe: the authorities of the system, those that were named, and those of one registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nsrs_base::error::{At, Code, Error, Result};
use nsrs_base::options::CA_FILE;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Where docker and podman look for the certificates of one registry: `HOST[:PORT]/*.crt`.
const OF_REGISTRIES: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];
/// What to do where an authority isn't known.
#[must_use]
pub fn trust_hint() -> String {
    format!("name its authority's certificate with {CA_FILE}, or put it into /etc/docker/certs.d/HOST/ca.crt")
}

/// The certificates for this registry alone, by the names of their files.
#[must_use]
pub fn files_of(host: &str) -> Vec<PathBuf> {
    files_in(&OF_REGISTRIES, host)
}

fn files_in(directories: &[&str], host: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for directory in directories {
        let Ok(entries) = fs::read_dir(Path::new(directory).join(host)) else { continue };
        let entries = entries.filter_map(|entry| Some(entry.ok()?.path()));
        files.extend(entries.filter(|path| path.extension().is_some_and(|end| end == "crt")));
    }
    files.sort();
    files
}

/// A TLS configuration that believes the system's authorities and those in these files.
///
/// The system's are those of `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set. A system without any is not an
/// error here: the connection fails then and says so.
///
/// # Errors
/// One of the files can't be read or holds no certificate.
pub fn config(files: &[PathBuf]) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for file in files {
        for certificate in certificates(file)? {
            roots.add(certificate).map_err(|error| unusable(file, error.to_string()))?;
        }
    }
    with_roots(roots)
}

/// A TLS configuration that believes nobody, for clients that never use it.
///
/// # Errors
/// The library offers no safe protocol.
pub fn none() -> Result<ClientConfig> {
    with_roots(RootCertStore::empty())
}

fn with_roots(roots: RootCertStore) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Code::SetupFailed, "set up TLS", error.to_string()))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = fs::read(file).at("read the certificates in", file.display())?;
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(unusable(file, "no certificate found; give a PEM file".to_owned())),
        Err(error) => Err(unusable(file, error.to_string())),
    }
}

fn unusable(file: &Path, why: String) -> Error {
    Error::new(Code::InvalidArgument, "read the certificates in", why).on(file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_of_one_registry_are_the_crt_files_below_its_name() {
        let base = std::env::temp_dir().join(format!("nsrs-tls-{}", std::process::id()));
        let own = base.join("r.example:5000");
        fs::create_dir_all(&own).unwrap();
        for name in ["ca.crt", "more.crt", "client.cert", "client.key"] {
            fs::write(own.join(name), "").unwrap();
        }
        let files = files_in(&[base.to_str().unwrap(), "/nonexistent"], "r.example:5000");
        assert_eq!(files, [own.join("ca.crt"), own.join("more.crt")]);
        assert!(files_in(&[base.to_str().unwrap()], "r.example").is_empty());
        let error = config(&files).unwrap_err().to_string();
        assert!(error.contains("ca.crt: no certificate found"), "{error}");
        fs::remove_dir_all(&base).unwrap();
    }
}
