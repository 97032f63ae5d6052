//! The way of `object_store` to the network: the client that all sinks have, answers within a bound, and what the
//! last one said, for the reason of a failure.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use reqwest::header::RETRY_AFTER;
use reqwest::{Body, Request, Response, Url};

use crate::sink::Unusable;
use crate::sink::client::ClientSettings;

/// Longest answer that is read, in bytes: an error's XML, or temporary keys as JSON, have a few hundred to thousand.
const MAX_ANSWER: usize = 64 << 10;

/// Longest code of an error, in bytes: `AuthorizationHeaderMalformed` is among the longest.
const MAX_CODE: usize = 64;

/// What the last answer was.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Who answered.
    pub(super) host: String,
    /// The status; 0 if there was no answer.
    pub(super) status: u16,
    /// The `Code` of an error.
    pub(super) code: String,
    /// When to come again, if it says so.
    pub(super) after: Option<Duration>,
    /// Why there was no answer.
    pub(super) trouble: String,
}

/// The last answer, shared.
#[derive(Clone, Debug, Default)]
pub(super) struct Last(Arc<Mutex<Option<Seen>>>);

impl Last {
    /// What it was, if anything was asked.
    pub(super) fn seen(&self) -> Option<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing was asked yet.
    pub(super) fn forget(&self) {
        self.set(None);
    }

    fn set(&self, seen: Option<Seen>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

/// Makes clients: all are one.
#[derive(Clone)]
pub(super) struct Connector {
    client: reqwest::Client,
    last: Last,
}

impl Connector {
    /// One that reaches servers by these settings and tells `last` what they answer.
    pub(super) fn new(settings: &ClientSettings, last: &Last) -> Result<Self, Unusable> {
        Ok(Self { client: settings.client()?, last: last.clone() })
    }

    async fn ask(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url: Url = parts.uri.to_string().parse().map_err(|_error| {
            HttpError::new(HttpErrorKind::Unknown, Trouble("what is asked is no URL".into()))
        })?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let mut request = Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        *request.body_mut() = Some(Body::wrap(body));
        match self.exchange(request, &host).await {
            Ok(response) => Ok(response),
            Err((kind, trouble)) => {
                self.last.set(Some(Seen { host, trouble: trouble.clone(), ..Seen::default() }));
                Err(HttpError::new(kind, Trouble(trouble)))
            }
        }
    }

    async fn exchange(&self, request: Request, host: &str) -> Result<HttpResponse, (HttpErrorKind, String)> {
        let failed = |error: reqwest::Error| (HttpErrorKind::Request, innermost(&error.without_url()));
        let mut response = self.client.execute(request).await.map_err(failed)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err((HttpErrorKind::Decode, format!("answers more than {MAX_ANSWER} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        self.last.set(Some(Seen {
            host: host.to_owned(),
            status: response.status().as_u16(),
            code: code(&body),
            after: retry_after(&response),
            trouble: String::new(),
        }));
        let mut answer = HttpResponse::new(HttpResponseBody::from(body));
        *answer.status_mut() = response.status();
        std::mem::swap(answer.headers_mut(), response.headers_mut());
        Ok(answer)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for Connector {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.ask(request))
    }
}

/// A sentence as an error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Trouble(String);

/// What is at the bottom of an error: `Connection refused` says more than `error sending request`.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut at = error;
    // Deeper than this it is a chain that somebody knotted.
    for _ in 0..16 {
        match at.source() {
            Some(source) => at = source,
            None => break,
        }
    }
    at.to_string()
}

/// The seconds of `Retry-After`; a date there is not used by S3.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The code of an error (docs.aws.amazon.com, "REST error responses"): a word between two marks.
fn code(body: &[u8]) -> String {
    let word = || {
        let start = memchr::memmem::find(body, b"<Code>")? + b"<Code>".len();
        let rest = body.get(start..)?;
        let end = memchr::memchr(b'<', rest.get(..=MAX_CODE).unwrap_or(rest))?;
        str::from_utf8(rest.get(..end)?).ok()
    };
    let is_plain = |word: &&str| word.bytes().all(|b| b.is_ascii_alphanumeric());
    word().filter(is_plain).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_code_of_an_error_is_found() {
        let xml = b"<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>x</Message></Error>";
        assert_eq!(code(xml), "NoSuchBucket");
        for bad in [&b""[..], b"<Code>", b"<Code>a b</Code>", b"<Code>\x1b[2J</Code>", &[b'x'; 9000]] {
            assert_eq!(code(bad), "");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_code_that_is_no_word(body in "(<Code>)?.{0,100}(</Code>)?") {
            let code = code(body.as_bytes());
            prop_assert!(code.len() <= MAX_CODE && code.bytes().all(|b| b.is_ascii_alphanumeric()));
        }
    }
}
