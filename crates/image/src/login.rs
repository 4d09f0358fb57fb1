//! `login` and `logout`: verifies credentials for a registry, and stores them where docker and podman do.

use nsrs_base::error::{Code, Error, Result};
use nsrs_base::options::USERNAME;
use nsrs_store::reference::host_of;

use crate::registry::Client;
use crate::registry::credentials::{self, Credential, Secret};

/// Verifies credentials with a registry, and stores them; returns where.
///
/// # Errors
/// The registry refuses them, or can't be reached; they can't be stored.
pub fn login(client: &Client, registry: &str, user: &str, password: &str) -> Result<String> {
    if user.is_empty() || user.contains(':') {
        return Err(Error::invalid(USERNAME, user, "give a name without a colon"));
    }
    if password.is_empty() {
        return Err(Error::new(Code::InvalidArgument, "log in to", "the password is empty").on(registry));
    }
    let secret = Secret::Password { user: user.to_owned(), password: password.to_owned() };
    verify(client, registry, &secret)?;
    let files = credentials::files(client.options().auth_file.as_deref())?;
    let Some(file) = files.first() else {
        return Err(Error::new(Code::SetupFailed, "log in to", "there is no credentials file to write to").on(registry));
    };
    credentials::store(file, registry, &secret)
}

fn verify(client: &Client, registry: &str, secret: &Secret) -> Result<()> {
    let endpoint = client.registry_at(host_of(registry));
    client.verify(&endpoint, Credential { secret: secret.clone(), origin: "the command line".to_owned() })
}

/// Removes the credentials for a registry from all files; returns whether there were any.
///
/// # Errors
/// A file can't be read or written; a helper fails.
pub fn logout(client: &Client, registry: &str) -> Result<bool> {
    let mut known = false;
    for file in credentials::files(client.options().auth_file.as_deref())? {
        known |= credentials::forget(&file, registry)?;
    }
    Ok(known)
}
