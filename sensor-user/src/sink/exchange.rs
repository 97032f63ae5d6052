//! One request and its answer, and what the answer's status means.
//!
//! The other end may be hostile, broken or slow: no more than [`MAX_ANSWER`] of a body is kept, for no longer than
//! [`BODY`], and a body that ends early is known to have ended early. What a status means is the same for every sink
//! that speaks HTTP; what a body means is the sink's own.

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Request, Response};
use zeroize::Zeroizing;

use crate::sink::Words;
use crate::token::settings::Secret;

/// Most of an answer that is kept, in bytes: a bulk answer about 500 events has some 60 KiB.
pub(super) const MAX_ANSWER: usize = 64 << 10;

/// How long a body may take once its head is there: the receiver has decided by then.
const BODY: Duration = Duration::from_secs(3);

/// Longest wait that a receiver may ask for.
const MAX_AFTER: Duration = Duration::from_hours(1);

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its status.
    pub(super) status: u16,
    /// Its head.
    pub(super) headers: HeaderMap,
    /// Its body, or the start of it.
    pub(super) body: Vec<u8>,
    /// Whether that is all of it.
    pub(super) whole: bool,
    /// When to come again, if it says so.
    pub(super) after: Option<Duration>,
}

/// What an answer means for the events of its request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They were taken, but for these, by their place in the request.
    Taken { refused: Vec<(usize, Words)>, answer: Words },
    /// Not taken as they are: one of them may be to blame.
    Refused(Words),
    /// Not now.
    Later { reason: Words, after: Option<Duration> },
}

impl Verdict {
    pub(super) fn taken(answer: impl Into<Words>) -> Self {
        Self::Taken { refused: Vec::new(), answer: answer.into() }
    }

    pub(super) fn later(reason: impl Into<Words>) -> Self {
        Self::Later { reason: reason.into(), after: None }
    }
}

/// Asks. `now_ms` is for dates in `Retry-After`. Secrets that the answer repeats, those of the request and `secrets`,
/// are blotted out, as answers are told in logs.
pub(super) async fn ask(
    client: &Client,
    request: Request,
    now_ms: u64,
    secrets: &[Secret],
) -> Result<Answer, Words> {
    let mut hidden: Vec<Zeroizing<Vec<u8>>> = secrets.iter().map(|secret| secret.0.clone()).collect();
    for value in request.headers().values().filter(|value| value.is_sensitive()) {
        let last = value.as_bytes().rsplit(|byte| *byte == b' ').next();
        hidden.extend(last.map(|text| Zeroizing::new(text.to_vec())));
    }
    let url = request.url();
    hidden.extend(url.query().map(|query| Zeroizing::new(query.as_bytes().to_vec())));
    hidden.push(Zeroizing::new(url.path().as_bytes().to_vec()));
    let mut response = client.execute(request).await.map_err(reason)?;
    let headers = std::mem::take(response.headers_mut());
    let status = response.status().as_u16();
    let after = headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, now_ms));
    let mut body = Vec::new();
    let whole = tokio::time::timeout(BODY, read(&mut response, &mut body)).await.unwrap_or(false);
    for secret in hidden.iter().filter(|secret| secret.len() >= MIN_HIDDEN) {
        blot(&mut body, secret);
    }
    Ok(Answer { status, headers, body, whole, after })
}

/// Shortest secret that is looked for in answers: shorter ones, such as the path `/_bulk`, are everywhere.
const MIN_HIDDEN: usize = 5;

/// Blots out a secret wherever it is.
fn blot(body: &mut [u8], secret: &[u8]) {
    let found: Vec<usize> = memchr::memmem::find_iter(body, secret).collect();
    for at in found {
        if let Some(place) = body.get_mut(at..at + secret.len()) {
            place.fill(b'*');
        }
    }
}

/// Reads a body, not past the limit. Whether that is all of it.
async fn read(response: &mut Response, body: &mut Vec<u8>) -> bool {
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = MAX_ANSWER.saturating_sub(body.len());
                body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
                if chunk.len() > room {
                    return false;
                }
            }
            Ok(None) => return true,
            Err(_cut) => return false,
        }
    }
}

/// Why a request came to nothing: the innermost cause, which is the one that helps, without the URL.
pub(super) fn reason(error: reqwest::Error) -> Words {
    let timeout = error.is_timeout();
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if timeout { Words::new("the connection timed out") } else { Words::new(&cause.to_string()) }
}

/// Seconds, or a date (RFC 9110 section 10.2.3); an hour at most.
fn retry_after(value: &str, now_ms: u64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(MAX_AFTER));
    }
    let at = DateTimeParser::new().relaxed_weekday(true).parse_timestamp(value).ok()?;
    let at = u64::try_from(at.as_millisecond()).ok()?;
    Some(Duration::from_millis(at.saturating_sub(now_ms)).min(MAX_AFTER))
}

impl Answer {
    /// What its status means, unless it is a good one.
    pub(super) fn judge(&self) -> Option<Verdict> {
        let later = |why: &str| {
            let reason = Words::new(&format!("{}{why}", self.tell()));
            Some(Verdict::Later { reason, after: self.after })
        };
        match self.status {
            200..=299 => None,
            300..=399 => later("; redirects are not followed: is the URL the right one?"),
            // What is wrong is the request, so one of its events or its form.
            400 | 409 | 413 | 422 => Some(Verdict::Refused(self.tell())),
            401 | 403 | 407 => later("; are the credentials the right ones?"),
            404 | 405 | 410 => later("; is the URL the right one?"),
            _ => later(""),
        }
    }

    /// `answered 503: out of order`.
    pub(super) fn tell(&self) -> Words {
        let body = String::from_utf8_lossy(&self.body);
        match body.trim() {
            "" => Words::new(&format!("answered {}", self.status)),
            body => Words::new(&format!("answered {}: {body}", self.status)),
        }
    }

    /// The body as JSON, if it is whole and is JSON.
    pub(super) fn json(&self) -> Option<serde_json::Value> {
        if !self.whole {
            return None;
        }
        serde_json::from_slice(&self.body).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16) -> Answer {
        Answer { status, headers: HeaderMap::new(), body: b"no\x1b[2J".to_vec(), whole: true, after: None }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_an_hour_at_most() {
        let now = 784_111_777_000; // Sun, 06 Nov 1994 08:49:37 GMT
        let after = |value| retry_after(value, now).map(|after| after.as_secs());
        assert_eq!(after("7"), Some(7));
        assert_eq!(after(" 120 "), Some(120));
        assert_eq!(after("99999999"), Some(3600));
        assert_eq!(after("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(after("Sun, 06 Nov 1994 08:40:37 GMT"), Some(0), "it is over");
        assert_eq!(after("Fri, 06 Nov 2094 08:49:37 GMT"), Some(3600));
        for bad in ["", "-1", "soon", "1.5", "99999999999999999999999999"] {
            assert_eq!(after(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_status_says_whose_fault_it_is() {
        assert_eq!(answer(204).judge(), None);
        for refused in [400, 409, 413, 422] {
            assert!(matches!(answer(refused).judge(), Some(Verdict::Refused(_))), "{refused}");
        }
        for later in [301, 307, 401, 403, 404, 407, 408, 425, 429, 500, 502, 503, 504, 599, 999] {
            assert!(matches!(answer(later).judge(), Some(Verdict::Later { .. })), "{later}");
        }
        let tell = answer(500).tell();
        assert!(!tell.as_str().contains('\x1b'), "{tell}");
    }

    #[test]
    fn what_is_blotted_out_is_gone() {
        let mut body = b"a secret, secretsecret".to_vec();
        blot(&mut body, b"secret");
        assert_eq!(body, b"a ******, ************");
    }

    proptest! {
        #[test]
        fn any_retry_after_is_bounded(value in "\\PC{0,40}|[0-9]{1,30}", now: u64) {
            prop_assert!(retry_after(&value, now).is_none_or(|after| after <= MAX_AFTER));
        }
    }
}
