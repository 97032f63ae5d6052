//! Access tokens by client credentials (RFC 6749 section 4.4), fetched when needed and kept while they hold.

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Url};
use zeroize::Zeroizing;

use crate::sink::Words;
use crate::sink::exchange::{ask, reason};
use crate::token::settings::Secret;

/// Who asks whom for access tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuth2 {
    /// Where they are issued.
    pub token_url: String,
    /// Who asks.
    pub client_id: String,
    /// And with which secret.
    pub client_secret: Secret,
    /// For what.
    pub scope: Option<String>,
}

/// What an issuer is trusted to say of a token's life, in seconds: a day.
const MAX_LIFE_S: u64 = 86_400;

/// How long a token holds whose issuer does not say: below the hour that is usual.
const DEFAULT_LIFE_S: u64 = 1800;

/// How long before its end a token is no longer used.
const MARGIN_S: u64 = 60;

/// A token and when it ends.
pub(super) struct Access {
    token: Zeroizing<String>,
    until_ms: u64,
}

impl Access {
    pub(super) fn token(&self, now_ms: u64) -> Option<&Zeroizing<String>> {
        (now_ms < self.until_ms).then_some(&self.token)
    }
}

impl OAuth2 {
    /// Fetches a token. What goes wrong is told without what the issuer answered beside its `error`.
    pub(super) async fn fetch(&self, client: &Client, now_ms: u64) -> Result<Access, Words> {
        let secret = Zeroizing::new(String::from_utf8_lossy(&self.client_secret.0).into_owned());
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_id", self.client_id.as_str()),
            ("client_secret", secret.as_str()),
        ];
        form.extend(self.scope.as_deref().map(|scope| ("scope", scope)));
        // A URL's query has the form that a body needs.
        let form =
            Url::parse_with_params("http://form/", form).map_err(|error| Words::new(&error.to_string()))?;
        let body = form.query().unwrap_or_default().to_owned();
        let request = client
            .post(&self.token_url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(body);
        let answer =
            ask(client, request.build().map_err(reason)?, now_ms, std::slice::from_ref(&self.client_secret))
                .await;
        let answer = answer.map_err(|why| Words::new(&format!("no access token: {why}")))?;
        let said = answer.json().unwrap_or_default();
        if answer.status != 200 {
            let error = said.get("error").and_then(serde_json::Value::as_str).unwrap_or_default();
            return Err(Words::new(&format!("no access token: answered {} {error}", answer.status)));
        }
        let token = said.get("access_token").and_then(serde_json::Value::as_str);
        let token =
            token.filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
        let token = token.ok_or_else(|| Words::new("no access token: there is none in the answer"))?;
        let life = said.get("expires_in").and_then(seconds).unwrap_or(DEFAULT_LIFE_S).min(MAX_LIFE_S);
        let until_ms = now_ms + life.saturating_sub(MARGIN_S) * 1000;
        Ok(Access { token: Zeroizing::new(token.to_owned()), until_ms })
    }
}

/// Some issuers say a number, some say it as text.
fn seconds(value: &serde_json::Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}
