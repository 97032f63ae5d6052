//! The token stage's slice of the configuration, checked.

use std::time::Duration;

/// One trusted issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The `iss` claim, exact.
    pub issuer: String,
    /// Where its keys come from.
    pub keys: KeySource,
    /// `alg` values it may use; never empty.
    pub algorithms: Vec<Algorithm>,
    /// Audiences, one of which a token must name; empty means any.
    pub audiences: Vec<String>,
    /// `typ` values that access tokens of this issuer carry (`JWT`, `at+jwt`); empty means any.
    pub token_types: Vec<String>,
    /// Where it tells whether a token is active (RFC 7662).
    pub introspection: Option<Introspection>,
    /// Where it publishes lists of the status of its tokens.
    pub status_lists: Vec<StatusSource>,
}

/// Where status lists may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusSource {
    /// Below this URL, by https, or http on loopback.
    Below(String),
    /// In this file.
    File(std::path::PathBuf),
}

/// An introspection endpoint (RFC 7662 section 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introspection {
    /// By https, or http on loopback.
    pub url: String,
    /// Who asks: the client id; empty means without credentials.
    pub client: String,
    /// The client's secret.
    pub secret: Option<Secret>,
}

/// A secret that others share. Wiped when dropped; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub zeroize::Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// A deny list in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenyList {
    /// `host:port`.
    pub address: String,
    /// The user of Redis 6; none means the default one.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// The database's number.
    pub database: u32,
    /// The key of a revoked token; `{jti}` stands for its id.
    pub pattern: String,
}

/// Who is asked whether tokens are revoked, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationSettings {
    /// The deny list.
    pub list: Option<DenyList>,
    /// The issuer that is asked about opaque tokens.
    pub opaque_issuer: Option<String>,
    /// How long an answer holds.
    pub cache: Duration,
    /// Questions a second at most.
    pub per_s: u32,
    /// How long one answer may take.
    pub timeout: Duration,
}

impl Default for RevocationSettings {
    fn default() -> Self {
        Self {
            list: None,
            opaque_issuer: None,
            cache: Duration::from_mins(1),
            per_s: 100,
            timeout: Duration::from_secs(1),
        }
    }
}

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A JWKS file (also one JWK, or a PEM public key).
    File(std::path::PathBuf),
    /// A JWKS by https, or http on loopback.
    Url(String),
    /// OIDC discovery: `{issuer}/.well-known/openid-configuration`.
    Discovery,
}

/// The signature algorithms of RFC 7518 and RFC 8037 that we verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the variants are the names of RFC 7518 section 3.1 and RFC 8037 section 3.1")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

impl Algorithm {
    /// Every algorithm, in the order of the RFC.
    pub const ALL: [Self; 13] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDSA,
    ];

    /// The exact `alg` value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
        }
    }

    /// The algorithm with exactly this `alg` value (RFC 7515 section 4.1.1: case-sensitive).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| alg.as_str() == text)
    }

    /// The first of the algorithms that the same keys are used with.
    #[must_use]
    pub const fn kind(self) -> Self {
        match self {
            Self::HS256 | Self::HS384 | Self::HS512 => Self::HS256,
            Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512 => Self::RS256,
            Self::ES256 | Self::ES384 | Self::ES512 | Self::EdDSA => self,
        }
    }

    /// Whether it is an HMAC.
    #[must_use]
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

/// What the token stage needs to know. [`TokenSettings::default`] works without any issuer: everything that needs no key.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSettings {
    /// Trusted issuers.
    pub issuers: Vec<Issuer>,
    /// Headers that carry a token besides `Authorization`, lower case.
    pub headers: Vec<String>,
    /// Cookies that carry a token.
    pub cookies: Vec<String>,
    /// Query parameters that carry a token.
    pub query: Vec<String>,
    /// Whether token responses are read for the tokens that they issue.
    pub learn_issued: bool,
    /// Members of a token response that hold tokens.
    pub issued_fields: Vec<String>,
    /// Longest token that is read, in bytes.
    pub max_token_bytes: usize,
    /// Distinct tokens remembered.
    pub max_tokens: usize,
    /// Raw bytes of tokens kept while their keys are missing.
    pub max_pending_bytes: usize,
    /// New distinct tokens verified a second at most, live; a flood beyond it is "over budget".
    pub verifications_per_s: u32,
    /// How long keys are used before they are fetched again.
    pub keys_refresh: Duration,
    /// Who is asked whether tokens are revoked.
    pub revocation: RevocationSettings,
    /// Key of the fingerprint; drawn at random if none is configured.
    pub fingerprint_key: Option<zeroize::Zeroizing<Vec<u8>>>,
}

impl TokenSettings {
    /// The same, asking nobody whether tokens are revoked: for replay, which must not depend on others.
    #[must_use]
    pub fn without_inquiries(mut self) -> Self {
        self.revocation.list = None;
        for issuer in &mut self.issuers {
            issuer.introspection = None;
            issuer.status_lists.clear();
        }
        self
    }
}

impl std::fmt::Debug for TokenSettings {
    /// Everything but the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSettings")
            .field("issuers", &self.issuers)
            .field("headers", &self.headers)
            .field("cookies", &self.cookies)
            .field("query", &self.query)
            .field("learn_issued", &self.learn_issued)
            .field("issued_fields", &self.issued_fields)
            .field("max_token_bytes", &self.max_token_bytes)
            .field("max_tokens", &self.max_tokens)
            .field("max_pending_bytes", &self.max_pending_bytes)
            .field("verifications_per_s", &self.verifications_per_s)
            .field("keys_refresh", &self.keys_refresh)
            .field("revocation", &self.revocation)
            .field("has_fingerprint_key", &self.fingerprint_key.is_some())
            .finish()
    }
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self {
            issuers: Vec::new(),
            headers: vec!["x-access-token".into(), "x-auth-token".into(), "x-forwarded-access-token".into()],
            cookies: vec!["access_token".into(), "token".into(), "jwt".into()],
            query: vec!["access_token".into(), "token".into()],
            learn_issued: false,
            issued_fields: ["access_token", "refresh_token", "id_token", "token", "jwt"]
                .map(String::from)
                .into(),
            max_token_bytes: 16 * 1024,
            max_tokens: 200_000,
            max_pending_bytes: 8 * 1024 * 1024,
            verifications_per_s: 5_000,
            keys_refresh: Duration::from_mins(10),
            revocation: RevocationSettings::default(),
            fingerprint_key: None,
        }
    }
}
