//! The sections about tokens: `tokens`, `issuers`, `privacy`; and secrets, which are named and never written.

use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::config::Secrets;
use crate::config::env::Environment;
use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::word::{Word, Wrong, choose, excerpt, quote};
use crate::token::settings::{
    Algorithm, Introspection, Issuer, KeySource, RevocationSettings, Secret, StatusSource, TokenSettings,
};

/// Shortest key, in bytes: half of what RFC 2104 section 3 advises for SHA-256, as 128 bits are shown.
const MIN_SECRET: usize = 16;
/// Longest key, in bytes.
const MAX_SECRET: u64 = 4096;

/// Where a secret is; never the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// An environment variable.
    Env(String),
    /// A file; a final line break is not part of the secret.
    File(PathBuf),
}

impl Word for SecretRef {
    const WHAT: &'static str = "env:NAME or file:PATH";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() && !name.contains('=') => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err(Wrong {
                message: "is not env:NAME or file:PATH: a secret is never written in the configuration"
                    .into(),
                hint: Some("write `env:NAME` or `file:PATH`".into()),
                secret: true,
            }),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Env(name) => quote(&format!("env:{name}")),
            Self::File(path) => quote(&format!("file:{}", path.display())),
        }
    }
}

impl SecretRef {
    /// Reads the secret.
    ///
    /// # Errors
    /// In words, if it is not there or too short.
    pub fn resolve(&self, environment: &Environment) -> Result<Zeroizing<Vec<u8>>, String> {
        self.resolve_from(MIN_SECRET, environment)
    }

    /// The same for a secret of others, who decide how long it is.
    ///
    /// # Errors
    /// In words, if it is not there or empty.
    pub fn resolve_foreign(&self, environment: &Environment) -> Result<Zeroizing<Vec<u8>>, String> {
        self.resolve_from(1, environment)
    }

    fn resolve_from(&self, min: usize, environment: &Environment) -> Result<Zeroizing<Vec<u8>>, String> {
        let secret = match self {
            Self::Env(name) => {
                let value = environment
                    .value(name)
                    .ok_or_else(|| format!("the environment variable {name} is not set"))?;
                Zeroizing::new(value.as_bytes().to_vec())
            }
            Self::File(path) => read_secret(path)?,
        };
        if secret.len() < min {
            return Err(format!("the secret has {} bytes; it needs at least {min}", secret.len()));
        }
        Ok(secret)
    }
}

fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let tell = |error: std::io::Error| {
        format!("cannot read {}: {}", path.display(), crate::config::unreadable::why(path, &error))
    };
    let mut secret = Zeroizing::new(Vec::with_capacity(256));
    let file = std::fs::File::open(path).map_err(tell)?;
    file.take(MAX_SECRET + 1).read_to_end(&mut secret).map_err(tell)?;
    if secret.len() as u64 > MAX_SECRET {
        return Err(format!("{} is longer than {MAX_SECRET} bytes", path.display()));
    }
    if secret.ends_with(b"\n") {
        secret.pop();
    }
    if secret.ends_with(b"\r") {
        secret.pop();
    }
    Ok(secret)
}

/// Reads `tokens`; issuers and the fingerprint's key come from elsewhere.
pub(super) fn read(s: &mut Section<'_, '_>) -> TokenSettings {
    let shipped = TokenSettings::default();
    let doc = "Headers that carry a token besides Authorization.";
    let mut headers = s.words::<String>("headers", shipped.headers, doc);
    for name in &mut headers {
        name.make_ascii_lowercase();
    }
    let cookies = s.words("cookies", shipped.cookies, "Cookies that carry a token.");
    let query = s.words("query", shipped.query, "Query parameters that carry a token.");
    let doc = "Read the first 8 KiB of what login and token routes answer to POST, and note which tokens were issued, \
               when, where, and in exchange for which refresh token; never their text. The kernel half then forwards as \
               much of every answer to POST. Changed by a restart only.";
    let learn_issued = s.word("learn_issued", shipped.learn_issued, doc);
    let doc = "Members of such an answer that hold tokens: of the outermost object, or of one in it. Case, _ and - are \
               ignored. One with `refresh` in its name holds a refresh token.";
    let issued_fields = s.words("issued_fields", shipped.issued_fields, doc);
    let doc = "Longest token that is read; a longer one is itself a finding.";
    let max_token_bytes = size(s, "max_token_bytes", shipped.max_token_bytes, 256..=65_536, doc);
    let doc = "Distinct tokens remembered. A flood of forgeries cannot push out verified ones.";
    let max_tokens = size(s, "max_tokens", shipped.max_tokens, 1_000..=10_000_000, doc);
    let doc = "Raw bytes of tokens kept in memory while the keys of their issuer are missing.";
    let max_pending_bytes = size(s, "max_pending_bytes", shipped.max_pending_bytes, 65_536..=1 << 30, doc);
    let doc = "New distinct tokens verified in a second at most, so that a flood cannot starve the rest.";
    let verifications =
        s.number("verifications_per_s", shipped.verifications_per_s.into(), 1..=1_000_000, doc);
    let doc = "Seconds that the keys of an issuer are used before they are fetched again.";
    let refresh = s.number("keys_refresh_s", shipped.keys_refresh.as_secs(), 60..=86_400, doc);
    TokenSettings {
        issuers: Vec::new(),
        headers,
        cookies,
        query,
        learn_issued,
        issued_fields,
        max_token_bytes,
        max_tokens,
        max_pending_bytes,
        verifications_per_s: u32::try_from(verifications).unwrap_or(u32::MAX),
        keys_refresh: Duration::from_secs(refresh),
        revocation: RevocationSettings::default(),
        fingerprint_key: None,
    }
}

fn size(
    s: &mut Section<'_, '_>,
    key: &str,
    default: usize,
    bounds: std::ops::RangeInclusive<u64>,
    doc: &str,
) -> usize {
    usize::try_from(s.number(key, default as u64, bounds, doc)).unwrap_or(default)
}

/// What an issuer without `algorithms` may use: everything that needs no shared secret.
fn asymmetric() -> Vec<Algorithm> {
    Algorithm::ALL.into_iter().filter(|alg| !alg.is_symmetric()).collect()
}

pub(super) const ISSUER_EXAMPLE: &str = "\
issuer: https://idp.example/
jwks: https://idp.example/jwks.json
algorithms: [RS256, ES256]
audiences: [orders-api]
token_types: [JWT, at+jwt]";

/// Finds the secrets that sections name.
#[derive(Clone, Copy)]
pub(super) struct Resolver<'e> {
    /// Where they may be.
    pub(super) environment: &'e Environment,
    /// What is done about those that are not there.
    pub(super) secrets: Secrets,
    /// Where relative paths start.
    pub(super) base: &'e Path,
}

impl Resolver<'_> {
    /// The secret of others that a key names.
    pub(super) fn secret(self, s: &mut Section<'_, '_>, key: &str, doc: &str) -> Option<Secret> {
        let named = s.optional::<SecretRef>(key, doc)?;
        self.resolve(s, key, &named)
    }

    /// The secret of others that the value of a key named.
    pub(super) fn resolve(self, s: &mut Section<'_, '_>, key: &str, named: &SecretRef) -> Option<Secret> {
        match named.resolve_foreign(self.environment) {
            Ok(secret) => Some(Secret(secret)),
            Err(why) => {
                let (span, message) = (s.span_of(key), format!("`{key}`: {why}"));
                s.report(match self.secrets {
                    Secrets::Needed => Problem::error(span, message),
                    Secrets::Optional => Problem::warning(span, message),
                });
                None
            }
        }
    }
}

/// Reads one issuer. `base` is where relative paths start.
pub(super) fn read_issuer(s: &mut Section<'_, '_>, base: &Path, resolver: Resolver<'_>) -> Option<Issuer> {
    let issuer = s.required::<String>("issuer", "The iss claim of its tokens, exact.");
    let doc = "Its keys: a URL by https (http on loopback), or file:PATH of a JWKS, a JWK or a PEM public key. Left \
               out: OIDC discovery below the issuer.";
    let jwks = s.optional::<Jwks>("jwks", doc);
    let doc = "Values of alg that it may use. Left out: every asymmetric one.";
    let algorithms = s.words("algorithms", asymmetric(), doc);
    let audiences =
        s.words("audiences", Vec::new(), "Audiences, one of which a token must name; empty means any.");
    let token_types =
        s.words("token_types", Vec::new(), "Values of typ that its access tokens have; empty means any. Add `ID` where ID tokens are accepted on purpose.");
    let introspection = read_introspection(s, resolver);
    let doc = "Where it publishes the status of its tokens: URLs by https (http on loopback), one of which the \
               status.status_list.uri of a token must begin with, or file:PATH of a list. A list is signed like a token and \
               fetched when a verified token names it. Empty: it is not looked at.";
    let status_lists = s.words::<Jwks>("status_lists", Vec::new(), doc);
    if status_lists.len() > MAX_STATUS_LISTS {
        let message = format!("`issuers.status_lists` names more than {MAX_STATUS_LISTS} places");
        s.report(Problem::error(s.span_of("status_lists"), message));
    }
    let status_lists = status_lists.into_iter().map(|place| place.into_status(base)).collect();
    if algorithms.is_empty() {
        s.report(Problem::error(
            s.span_of("algorithms"),
            "`issuers.algorithms` is empty: no token could be valid",
        ));
    }
    if algorithms.iter().any(|alg| alg.is_symmetric()) && algorithms.iter().any(|alg| !alg.is_symmetric()) {
        let message =
            "`issuers.algorithms` mixes shared secrets and key pairs, which algorithm confusion lives on";
        s.report(
            Problem::warning(s.span_of("algorithms"), message).hint("give each kind an issuer of its own"),
        );
    }
    let keys = match jwks {
        Some(Jwks::File(path)) => KeySource::File(base.join(path)),
        Some(Jwks::Url(url)) => KeySource::Url(url),
        None if s.is_set("jwks") => return None,
        None => {
            if let Some(Err(wrong)) = issuer.as_deref().map(check_url) {
                let message = format!("discovery needs an issuer that is a URL; this one {}", wrong.message);
                s.report(Problem::error(s.span_of("issuer"), message).hint("add `jwks:`"));
            }
            KeySource::Discovery
        }
    };
    Some(Issuer { issuer: issuer?, keys, algorithms, audiences, token_types, introspection, status_lists })
}

fn read_introspection(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> Option<Introspection> {
    let doc = "Where it says whether a token is active (RFC 7662), by https (http on loopback). Left out: it is not \
               asked. A question shows the token to its issuer, and to nobody else.";
    let url = s.optional::<Endpoint>("introspection", doc);
    let client = s.optional::<String>("introspection_client", "The client id that asks.");
    let doc = "Its secret, env:NAME or file:PATH.";
    let secret = resolver.secret(s, "introspection_secret", doc);
    for key in ["introspection_client", "introspection_secret"] {
        if url.is_none() && s.is_set(key) && !s.is_set("introspection") {
            let problem = Problem::error(s.span_of(key), format!("`issuers.{key}` needs `introspection`"));
            s.report(problem.hint("add `introspection: https://...`"));
        }
    }
    Some(Introspection { url: url?.0, client: client.unwrap_or_default(), secret })
}

/// A URL that secrets may be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint(String);

impl Word for Endpoint {
    const WHAT: &'static str = "an https URL";

    fn parse(text: &str) -> Result<Self, Wrong> {
        check_url(text).map(|()| Self(text.to_owned()))
    }

    fn show(&self) -> String {
        quote(&self.0)
    }
}

/// Two issuers of one name would make it depend on their order which keys hold.
pub(super) fn refuse_twins(s: &mut Section<'_, '_>, issuers: &[Issuer]) {
    for (index, issuer) in issuers.iter().enumerate() {
        if issuers.iter().take(index).any(|other| other.issuer == issuer.issuer) {
            let message = format!("two issuers are called {}", excerpt(&issuer.issuer));
            s.report(
                Problem::error(s.span_of("issuers"), message)
                    .hint("merge them: one issuer, all its algorithms and audiences"),
            );
        }
    }
}

/// Where keys come from, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Jwks {
    File(PathBuf),
    Url(String),
}

/// Most places of status lists of one issuer: each file is read when a list is wanted.
const MAX_STATUS_LISTS: usize = 32;

impl Jwks {
    fn into_status(self, base: &Path) -> StatusSource {
        match self {
            Self::File(path) => StatusSource::File(base.join(path)),
            Self::Url(url) => StatusSource::Below(url),
        }
    }
}

impl Word for Jwks {
    const WHAT: &'static str = "an https URL or file:PATH";
    const WHAT_MANY: &'static str = "https URLs or file:PATH";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text.strip_prefix("file:").map(|path| path.strip_prefix("//").unwrap_or(path)) {
            Some("") => Err(Wrong::new("names no file")),
            Some(path) => Ok(Self::File(path.into())),
            None => check_url(text).map(|()| Self::Url(text.to_owned())),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::File(path) => quote(&format!("file:{}", path.display())),
            Self::Url(url) => quote(url),
        }
    }
}

/// Keys fetched in the clear are keys that anybody on the way can replace.
fn check_url(text: &str) -> Result<(), Wrong> {
    let wrong = |why: &str| Wrong::new(format!("is {}, {why}", excerpt(text)));
    let Ok(url) = reqwest::Url::parse(text) else {
        let wrong = Wrong { secret: text.contains('@'), ..wrong("which is no URL") };
        return Err(wrong.hint("write https://... or file:PATH"));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Wrong { secret: true, ..Wrong::new("holds a user name or password") });
    }
    match (url.scheme(), url.host_str()) {
        ("https", Some(_)) => Ok(()),
        ("http", Some(host)) if is_loopback(host) => Ok(()),
        ("http", _) => Err(wrong("which is not encrypted: http is for loopback only").hint("use https")),
        // `me:secret@host` is a URL of the scheme `me`: nothing of it is repeated.
        _ if text.contains('@') => Err(Wrong { secret: true, ..Wrong::new("is not https") }),
        _ => Err(wrong("which is not https").hint("write https://... or file:PATH")),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// How much of people an alert shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privacy {
    /// Where the key of fingerprints is.
    pub fingerprint_key: Option<SecretRef>,
    /// Where the key of pseudonyms is; none: they are made under that of fingerprints.
    pub pseudonym_key: Option<SecretRef>,
    /// Whether addresses are shown in part only.
    pub mask_addresses: bool,
    /// Whether principals are shown by a keyed pseudonym.
    pub pseudonymise: bool,
    /// What is masked in part.
    pub mask: Vec<Mask>,
    /// Names of secrets besides those that are known.
    pub sensitive_names: Vec<String>,
}

/// What gives people away by its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// E-mail addresses.
    Email,
    /// Telephone numbers.
    Phone,
    /// Card and account numbers.
    Account,
}

const MASKS: [(&str, Mask); 3] = [("email", Mask::Email), ("phone", Mask::Phone), ("account", Mask::Account)];

impl Word for Mask {
    const WHAT: &'static str = "email, phone or account";
    const WHAT_MANY: &'static str = "email, phone and account";

    fn parse(text: &str) -> Result<Self, Wrong> {
        choose(text, &MASKS)
    }

    fn show(&self) -> String {
        MASKS.iter().find(|(_, mask)| mask == self).map_or("email", |(name, _)| name).to_owned()
    }
}

/// Names of secrets that may be added: more would make every event slow.
const MAX_SENSITIVE: usize = 256;

impl Privacy {
    pub(super) fn read(s: &mut Section<'_, '_>) -> Self {
        let doc = "The key under which a token's fingerprint is made, env:NAME or file:PATH, at least 16 bytes. Left \
                   out: a new one at every start, so that fingerprints of two runs cannot be compared; replay then \
                   uses a fixed one.";
        let fingerprint_key = s.optional("fingerprint_key", doc);
        let doc = "Show client addresses in part: two octets of IPv4, two groups of IPv6.";
        let mask_addresses = s.word("mask_addresses", false, doc);
        let doc = "Show principals by pseudonyms that only the holder of the key can resolve, by `tokenscope pseudonym`; \
                   needs pseudonym_key or fingerprint_key.";
        let pseudonymise = s.word("pseudonymise", false, doc);
        let doc = "The key of pseudonyms, env:NAME or file:PATH, at least 16 bytes, for when not everybody who may compare \
                   fingerprints may know who people are. Left out: they are made under fingerprint_key.";
        let pseudonym_key: Option<SecretRef> = s.optional("pseudonym_key", doc);
        let doc = "What is masked in part wherever it stands: email (a…@example.com), phone (…4567), account (card and \
                   account numbers: …1111).";
        let mask = s.words("mask", MASKS.map(|(_, mask)| mask).to_vec(), doc);
        let doc = "Names of secrets besides password, token, secret, apiKey, authorization, creditCard, ssn, passport, \
                   cookie and the like: what stands behind such a name is taken out. Case and signs are ignored, and a \
                   longer name that holds one of these counts.";
        let sensitive_names: Vec<String> = s.words("sensitive_names", Vec::new(), doc);
        if sensitive_names.len() > MAX_SENSITIVE {
            let message = format!("`privacy.sensitive_names` has more than {MAX_SENSITIVE} names");
            s.report(Problem::error(s.span_of("sensitive_names"), message));
        }
        if pseudonymise && fingerprint_key.is_none() && pseudonym_key.is_none() {
            let message = "`privacy.pseudonymise` needs `privacy.fingerprint_key`: without a key of yours nobody \
                           could ever link a pseudonym";
            let problem = Problem::error(s.span_of("pseudonymise"), message);
            s.report(problem.hint("add fingerprint_key: env:TOKENSCOPE_KEY"));
        }
        Self { fingerprint_key, pseudonym_key, mask_addresses, pseudonymise, mask, sensitive_names }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_named_and_never_written() {
        assert_eq!(SecretRef::parse("env:KEY"), Ok(SecretRef::Env("KEY".into())));
        assert_eq!(SecretRef::parse("file:/run/key"), Ok(SecretRef::File("/run/key".into())));
        for text in ["hunter2", "env:", "file:", "ENV:X"] {
            let wrong = SecretRef::parse(text).unwrap_err();
            assert!(wrong.secret && !wrong.message.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn secrets_come_from_the_environment_or_a_file() {
        let environment = Environment::from([("KEY", "0123456789abcdef"), ("SHORT", "abc")]);
        let resolve = |text: &str| SecretRef::parse(text).unwrap().resolve(&environment);
        assert_eq!(resolve("env:KEY").unwrap().as_slice(), b"0123456789abcdef");
        assert_eq!(resolve("env:SHORT").unwrap_err(), "the secret has 3 bytes; it needs at least 16");
        assert!(resolve("env:NONE").unwrap_err().contains("not set"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "0123456789abcdef\r\n").unwrap();
        assert_eq!(resolve(&format!("file:{}", path.display())).unwrap().as_slice(), b"0123456789abcdef");
        assert!(resolve("file:/dev/zero").unwrap_err().contains("longer than 4096"));
    }

    #[test]
    fn keys_come_encrypted_or_from_this_host() {
        for good in ["https://idp.example/k", "http://127.0.0.1:80/k", "http://[::1]/k", "http://localhost/k"]
        {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://idp.example/k",
            "http://127.0.0.1.evil.example/k",
            "ftp://x/k",
            "idp.example/k",
            "https://",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
        assert!(check_url("https://me:hunter2@idp.example/").unwrap_err().secret);
    }
}
