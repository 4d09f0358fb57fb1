//! Verifying credentials with a registry, for `nsrs login`.

use nsrs_base::error::{Code, Error, Result};
use reqwest::Method;

use super::auth::Scope;
use super::client::Client;
use super::credentials::Credential;
use super::endpoint::Endpoint;
use super::failure;
use super::http::Ask;

impl Client {
    /// Verifies credentials with a registry.
    ///
    /// # Errors
    /// The registry refuses them, or can't be reached.
    pub fn verify(&self, endpoint: &Endpoint, credential: Credential) -> Result<()> {
        self.wait(async {
            endpoint.state.auth.lock().await.credential = Some(Some(credential));
            let scope = Scope::none();
            let answer = self.send(endpoint, &Ask::new(Method::GET, "", &scope)).await?;
            let host = endpoint.host();
            let refused = |why: String| Error::new(Code::SetupFailed, "log in to", why).on(host);
            match answer.status().as_u16() {
                200 if endpoint.state.auth.lock().await.challenge.is_none() => {
                    self.progress().warn(format!("{host} needs no login: the password was not verified"));
                    Ok(())
                }
                200 => Ok(()),
                401 | 403 => {
                    let body = failure::body(answer, failure::MOST_TEXT).await.unwrap_or_default();
                    let words = failure::words(&body);
                    let said = if words.is_empty() { String::new() } else { format!(": {words}") };
                    Err(refused(format!("wrong user name or password{said}"))
                        .hint("some registries take an access token in place of the password"))
                }
                404 => Err(refused("not a registry of images (no /v2/)".into())),
                _ => Err(refused(format!("unexpected response {}", answer.status()))),
            }
        })
    }
}
