//! The proxies that the environment names. The HTTP client goes by them itself, and by no word of those that it can't read:
//! that is said here.

use nsrs_base::error::{Error, Result};
use reqwest::Url;

/// The variables for http, for https and for both; of each pair the first that is set counts.
const VARIABLES: [[&str; 2]; 3] =
    [["HTTP_PROXY", "http_proxy"], ["HTTPS_PROXY", "https_proxy"], ["ALL_PROXY", "all_proxy"]];

/// Makes sure that every proxy can be read.
///
/// # Errors
/// One is not a valid address.
pub fn check() -> Result<()> {
    for (name, value) in VARIABLES.iter().filter_map(set) {
        readable(&value).map_err(|why| {
            // What stands before it may be a password.
            let shown = value.rsplit_once('@').map_or(value.as_str(), |(_, host)| host);
            Error::invalid_value(name, shown, why)
                .hint("give an address such as http://proxy.example:3128, or unset it")
        })?;
    }
    Ok(())
}

/// The variable that names the proxy for this address, unless `NO_PROXY` excludes it.
#[must_use]
pub fn variable_for(url: &Url) -> Option<&'static str> {
    let [http, https, all] = &VARIABLES;
    let own = if url.scheme() == "https" { https } else { http };
    set(own).or_else(|| set(all)).map(|(name, _)| name)
}

fn set(pair: &[&'static str; 2]) -> Option<(&'static str, String)> {
    let found = pair.iter().find_map(|name| Some((*name, std::env::var(name).ok()?)));
    found.filter(|(_, value)| !value.is_empty())
}

fn readable(value: &str) -> std::result::Result<(), String> {
    let whole = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let url = Url::parse(&whole).map_err(|error| format!("invalid proxy URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https" | "socks4" | "socks4a" | "socks5" | "socks5h") {
        return Err(format!("unsupported proxy scheme {}", url.scheme()));
    }
    match url.host_str() {
        Some(host) if !host.is_empty() => Ok(()),
        _ => Err("the host is missing".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_proxy_is_refused() {
        for proxy in
            ["http://a:3128", "a:3128", "a", "https://me:secret@a", "socks5://127.0.0.1:1080", "http://[::1]:1/"]
        {
            assert_eq!(readable(proxy), Ok(()), "{proxy}");
        }
        for proxy in ["http://", "http://a:port", "ftp://a", "a b", "://a", "http:///a b"] {
            assert!(readable(proxy).is_err(), "{proxy}");
        }
    }
}
