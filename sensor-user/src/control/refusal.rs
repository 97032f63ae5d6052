//! Why a request is not answered: a status and `{"error": …, "remedy": …}`.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Longest error and remedy, in bytes: they may quote what was asked.
const MAX_WORDS: usize = 500;

/// A request that is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, in words.
    pub error: String,
    /// What to do about it.
    pub remedy: String,
}

impl Refusal {
    /// The request is wrong.
    #[must_use]
    pub fn wrong(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: 400, error: error.into(), remedy: remedy.into() }
    }

    /// It may work later, or with another configuration.
    #[must_use]
    pub fn unavailable(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: 503, error: error.into(), remedy: remedy.into() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let clean = |words: &str| crate::detect::text::printable(words.as_bytes(), MAX_WORDS);
        let body = format!("{}\n", json!({"error": clean(&self.error), "remedy": clean(&self.remedy)}));
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if self.status == 401 {
            let scheme = header::HeaderValue::from_static("Bearer realm=\"tokenscope\"");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        answer
    }
}
