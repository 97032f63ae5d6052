//! One careful GET: a key server may be hostile, broken or slow, and none of that may hurt.
//!
//! https only, plain http to loopback; no credentials in URLs; redirects on the same host only; no compressed
//! bodies, so nothing can be inflated; body counted while it streams; one deadline over everything.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, HeaderMap, LOCATION};
use reqwest::{Client, Response, Url};

use super::FetchError;

/// What one fetch may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first connection to the last byte, redirects included.
    pub total: Duration,
    /// Body bytes. Key sets are commonly 2 to 20 KiB; a hundred RSA keys with certificate chains fit a MiB.
    pub bytes: usize,
    /// Redirects followed.
    pub redirects: usize,
    /// How often a key file is looked at.
    pub file_poll: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total: Duration::from_secs(10),
            bytes: 1024 * 1024,
            redirects: 3,
            file_poll: Duration::from_secs(5),
        }
    }
}

/// A body, and how long its server says it keeps.
#[derive(Debug)]
pub(in crate::token) struct Body {
    pub(in crate::token) bytes: Vec<u8>,
    pub(in crate::token) max_age: Option<Duration>,
}

/// A client for [`get`].
pub(in crate::token) fn client() -> Result<Client, FetchError> {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .pool_max_idle_per_host(0)
        .user_agent("tokenscope")
        .build()
        .map_err(|error| FetchError::Client(format!("{} (apt-get install ca-certificates)", reason(error))))
}

/// Fetches a URL.
pub(super) async fn get(client: &Client, url: &str, limits: Limits) -> Result<Body, FetchError> {
    get_as(client, url, "*/*", limits).await
}

/// Fetches a URL as a media type.
pub(in crate::token) async fn get_as(
    client: &Client,
    url: &str,
    accept: &'static str,
    limits: Limits,
) -> Result<Body, FetchError> {
    let fetched = tokio::time::timeout(limits.total, follow(client, url, accept, limits)).await;
    fetched.unwrap_or(Err(FetchError::Timeout(limits.total)))
}

async fn follow(
    client: &Client,
    url: &str,
    accept: &'static str,
    limits: Limits,
) -> Result<Body, FetchError> {
    let mut url = checked(url)?;
    for _ in 0..=limits.redirects {
        let request = client.get(url.clone()).header(ACCEPT, accept).header(ACCEPT_ENCODING, "identity");
        let response = request.send().await.map_err(|error| FetchError::Connection(reason(error)))?;
        if !response.status().is_redirection() {
            return body(response, limits.bytes).await;
        }
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let target = location.and_then(|location| url.join(location).ok());
        let target = target.ok_or(FetchError::Status(response.status().as_u16()))?;
        url = redirected(&url, &target)?;
    }
    Err(FetchError::Redirects(limits.redirects))
}

/// A URL that may be fetched.
pub(in crate::token) fn checked(text: &str) -> Result<Url, FetchError> {
    let refuse = |problem| Err(FetchError::Url { url: without_query(text), problem });
    let Ok(url) = Url::parse(text) else { return refuse("not a URL") };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("credentials do not belong in it");
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => refuse("plain http is for loopback only"),
        _ => refuse("neither https nor http"),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The same host, and no step down from https.
fn redirected(from: &Url, to: &Url) -> Result<Url, FetchError> {
    let refuse = |why| Err(FetchError::Redirect { to: without_query(to.as_str()), why });
    if from.host_str() != to.host_str() {
        return refuse("another host");
    }
    if from.scheme() == "https" && to.scheme() != "https" {
        return refuse("a step down from https");
    }
    checked(to.as_str())
}

/// Takes a response in, if it is one.
pub(in crate::token) async fn body(mut response: Response, max_bytes: usize) -> Result<Body, FetchError> {
    if response.status().as_u16() != 200 {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    if let Some(encoding) = response.headers().get(CONTENT_ENCODING)
        && encoding != "identity"
    {
        return Err(FetchError::Encoded);
    }
    if response.content_length().is_some_and(|length| length > max_bytes as u64) {
        return Err(FetchError::TooLarge(max_bytes));
    }
    let max_age = max_age(response.headers());
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| FetchError::Connection(reason(error)))? {
        if bytes.len() + chunk.len() > max_bytes {
            return Err(FetchError::TooLarge(max_bytes));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Body { bytes, max_age })
}

/// `max-age` of `Cache-Control`; `no-store` and `no-cache` mean at once, which the schedule makes a minute.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let directives = headers.get(CACHE_CONTROL)?.to_str().ok()?.to_ascii_lowercase();
    let mut directives = directives.split(',').map(str::trim);
    directives.find_map(|directive| match directive.split_once('=') {
        Some(("max-age", seconds)) => seconds.trim_matches('"').parse().ok().map(Duration::from_secs),
        None if directive == "no-store" || directive == "no-cache" => Some(Duration::ZERO),
        _ => None,
    })
}

/// The innermost cause, which is the one that helps, without the URL.
pub(in crate::token) fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn without_query(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_urls_are_fetched() {
        for url in
            ["https://idp.example/jwks", "http://127.0.0.1:80/", "http://[::1]:8080/x", "http://localhost/"]
        {
            assert!(checked(url).is_ok(), "{url}");
        }
        for url in [
            "http://idp.example/jwks",
            "http://10.0.0.1/",
            "ftp://a/",
            "file:///etc/passwd",
            "https://u:p@a/",
            "x",
            "",
        ] {
            assert!(checked(url).is_err(), "{url}");
        }
    }

    #[test]
    fn only_safe_redirects_are_followed() {
        let to =
            |from: &str, to: &str| redirected(&Url::parse(from).unwrap(), &Url::parse(to).unwrap()).is_ok();
        assert!(to("https://idp.example/a", "https://idp.example/b"));
        assert!(!to("https://idp.example/a", "https://evil.example/b"));
        assert!(!to("https://idp.example/a", "http://idp.example/b"));
        assert!(!to("https://localhost/a", "http://localhost/b"));
        assert!(!to("http://127.0.0.1/a", "http://169.254.169.254/b"));
    }

    #[test]
    fn reads_cache_control() {
        let age = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, value.parse().unwrap());
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(age("public, Max-Age=300, must-revalidate"), Some(300));
        assert_eq!(age("no-store"), Some(0));
        assert_eq!(age("max-age=-1"), None);
        assert_eq!(age("max-age=99999999999999999999999"), None);
        assert_eq!(age("public"), None);
        assert_eq!(max_age(&HeaderMap::new()), None);
    }
}
