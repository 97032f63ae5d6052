//! Any receiver that speaks HTTP: a body by template, one request a batch, and [`preset`]s for those that are known.
//!
//! What is sent twice has the same id, so that a receiver can tell. What a receiver refuses (400, 409, 413, 422) is
//! looked for in the batch until the event is found; everything else that is no success comes again, as an operator
//! may put it right. Docs/sinks.md tells what each preset sends.

mod answers;
mod facts;
mod oauth;
pub mod preset;
mod sign;
mod template;

use std::io::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Client, Method, Request, Url};
use zeroize::Zeroizing;

use crate::render::Told;
use crate::sink::client::ClientSettings;
use crate::sink::clock::{self, Clock};
use crate::sink::exchange::{Verdict, ask};
use crate::sink::halves::{Halves, Poison};
use crate::sink::{Batch, Delivery, Node, Outcome, Sink, Unusable, Words};
use crate::token::settings::Secret;

pub(in crate::sink) use facts::{activity, brief, date, observed, operation, workload};
use oauth::Access;
pub use oauth::OAuth2;
use preset::Preset;
pub use sign::SigningKey;
use template::Forms;
pub use template::Mistake;

/// Bytes of events a request, as OCSF: below what usual receivers take (1 MB), whatever a template makes of them.
const BATCH_BYTES: usize = 512 << 10;

/// What the configuration says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How it is reached.
    pub client: ClientSettings,
    /// What is known of the receiver.
    pub preset: &'static Preset,
    /// Where it is: some URLs are secrets.
    pub url: Secret,
    /// POST, PUT or PATCH.
    pub method: Verb,
    /// Headers besides those of the preset.
    pub headers: Vec<(String, Text)>,
    /// Who asks.
    pub auth: Auth,
    /// What the body is.
    pub content_type: String,
    /// The body.
    pub template: String,
    /// Most events of a request.
    pub events: usize,
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// What the template is told.
    pub variables: Vec<(String, Text)>,
    /// Signs bodies.
    pub signing: Option<SigningKey>,
}

/// How a request is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verb {
    /// POST.
    #[default]
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
}

/// Text that may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// As the configuration has it.
    Plain(String),
    /// Never shown.
    Secret(Secret),
}

impl Text {
    fn text(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Self::Plain(text) => text.as_str().into(),
            Self::Secret(secret) => String::from_utf8_lossy(&secret.0),
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Nobody in particular.
    None,
    /// A user with a password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Option<Secret>,
    },
    /// Who holds a token.
    Token {
        /// The header that carries it; none for `Authorization`.
        header: Option<&'static str>,
        /// What stands before it.
        scheme: String,
        /// The token.
        token: Secret,
    },
    /// Who gets a token from an issuer.
    OAuth2(OAuth2),
}

impl Settings {
    /// Tries the template, and those of the preset's headers, on samples of events.
    ///
    /// # Errors
    /// With the first mistake.
    pub fn check(&self) -> Result<(), Mistake> {
        let forms = self.forms("sample".into(), true);
        let shape = preset::Shape::of(&self.content_type);
        let own = self.template == self.preset.template;
        forms.check(&self.template, if own { self.preset.shape } else { shape })?;
        let templates = self.preset.headers.iter().filter(|(_, value)| value.contains("{{"));
        templates.into_iter().try_for_each(|(_, value)| forms.check(value, preset::Shape::Free))
    }

    fn forms(&self, node: Arc<str>, strict: bool) -> Forms {
        let vars: Vec<_> = self.variables.iter().map(|(name, value)| (name.as_str(), value.text())).collect();
        let vars = vars.iter().map(|(name, value)| (*name, value.as_ref()));
        Forms::new(vars, node, self.events, strict)
    }
}

/// The whole URL: with the preset's path where it has none.
///
/// # Errors
/// When it is none, or the path cannot be made of these variables.
pub fn complete(
    url: &str,
    preset: &Preset,
    variables: &[(String, Text)],
) -> Result<Zeroizing<String>, Mistake> {
    let wrong = |message: String| Mistake { line: None, message };
    let parsed = Url::parse(url).map_err(|error| wrong(format!("is no URL: {error}")))?;
    if preset.path.is_empty() || parsed.path() != "/" || parsed.query().is_some() {
        return Ok(Zeroizing::new(parsed.to_string()));
    }
    let vars: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.text())).collect();
    let forms = Forms::new(vars.iter().map(|(name, value)| (*name, value.as_ref())), "".into(), 1, true);
    let path = forms.render(preset.path, &[])?;
    let whole = parsed.join(&path).map_err(|error| wrong(format!("is no URL: {error}")))?;
    if whole.origin() != parsed.origin() {
        return Err(wrong("has variables that lead elsewhere".to_owned()));
    }
    Ok(Zeroizing::new(whole.to_string()))
}

/// Opens it.
///
/// # Errors
/// When it can never work as configured.
pub fn open(settings: &Settings, node: &Node) -> Result<Box<dyn Sink>, Unusable> {
    Ok(Box::new(Http::new(settings.clone(), node, clock::wall())?))
}

/// The sink.
pub struct Http {
    settings: Settings,
    url: Url,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers of which the value is made for each request.
    templates: Vec<(HeaderName, &'static str)>,
    forms: Forms,
    client: Client,
    clock: Clock,
    poison: Poison,
    access: Option<Access>,
    /// What the template may put into a body.
    secrets: Vec<Secret>,
}

impl Http {
    /// A sink that takes its time from this clock.
    ///
    /// # Errors
    /// When it can never work as configured.
    pub fn new(settings: Settings, node: &Node, clock: Clock) -> Result<Self, Unusable> {
        let url = std::str::from_utf8(&settings.url.0).ok().and_then(|url| Url::parse(url).ok());
        let url = url.ok_or_else(|| Unusable("`url` is no URL".into()))?;
        let name = |name: &str| {
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_error| Unusable(format!("`{name}` is no header")))
        };
        let (mut headers, mut templates) = (Vec::new(), Vec::new());
        for (header, value) in settings.preset.headers {
            if value.contains("{{") {
                templates.push((name(header)?, *value));
            } else {
                headers.push((name(header)?, HeaderValue::from_static(value)));
            }
        }
        headers.push((CONTENT_TYPE, value("content_type", &settings.content_type)?));
        for (name, text) in &settings.headers {
            let (name, value) = header(name, text)?;
            headers.retain(|(other, _)| *other != name);
            headers.push((name, value));
        }
        let forms = settings.forms(Arc::clone(&node.name), false);
        let client = settings.client.client()?;
        let secret = |(_, text): &(String, Text)| match text {
            Text::Secret(secret) => Some(secret.clone()),
            Text::Plain(_) => None,
        };
        let secrets = settings.variables.iter().filter_map(secret).collect();
        let (poison, access) = (Poison::default(), None);
        Ok(Self { settings, url, headers, templates, forms, client, clock, poison, access, secrets })
    }

    async fn all(&mut self, events: &[Arc<Told>]) -> Outcome {
        let once = self.settings.preset.once;
        let wanted = |told: &Told| !once || activity(told) == "create";
        let mut halves = Halves::new(events, &self.poison, wanted);
        if !events.iter().any(|told| wanted(told)) {
            return Outcome::done("nothing was sent: this receiver gets no news of what it has");
        }
        while let Some(part) = halves.next() {
            let verdict = self.once(&part.events).await;
            if let Err(outcome) = halves.tell(&part, verdict) {
                return outcome;
            }
        }
        halves.finish()
    }

    /// One request about these events.
    async fn once(&mut self, events: &[Arc<Told>]) -> Verdict {
        let body = match self.forms.render(&self.settings.template, events) {
            Ok(body) => body,
            Err(mistake) => {
                return Verdict::Refused(Words::new(&format!("the template: {}", mistake.message)));
            }
        };
        let request = match self.request(events, body).await {
            Ok(request) => request,
            Err(why) => return Verdict::Later { reason: why, after: None },
        };
        let answer = match ask(&self.client, request, (self.clock)(), &self.secrets).await {
            Ok(answer) => answer,
            Err(why) => return Verdict::Later { reason: why, after: None },
        };
        if answer.status == 401 {
            // It may have been revoked before its time.
            self.access = None;
        }
        self.settings.preset.says.judge(&answer, events.len())
    }

    async fn request(&mut self, events: &[Arc<Told>], body: String) -> Result<Request, Words> {
        let method = match self.settings.method {
            Verb::Post => Method::POST,
            Verb::Put => Method::PUT,
            Verb::Patch => Method::PATCH,
        };
        let authorization = self.authorization().await?;
        let mut request = Request::new(method, self.url.clone());
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        for (name, template) in &self.templates {
            let text = self.forms.render(template, events).map_err(|mistake| Words::new(&mistake.message))?;
            headers.insert(name, value(name.as_str(), &text).map_err(|error| Words::new(&error.0))?);
        }
        if let Some((name, value)) = authorization {
            headers.insert(name, value);
        }
        let mut body = body.into_bytes();
        if let Some(key) = &self.settings.signing {
            let id = id_of(events);
            let seconds = (self.clock)() / 1000;
            let signature = key.sign(&id, seconds, &body);
            for (name, text) in [
                ("webhook-id", &id),
                ("webhook-timestamp", &seconds.to_string()),
                ("webhook-signature", &signature),
            ] {
                headers.insert(name, value(name, text).map_err(|error| Words::new(&error.0))?);
            }
        }
        if self.settings.gzip {
            body = gzip(&body);
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        *request.body_mut() = Some(body.into());
        Ok(request)
    }

    /// The header that says who asks.
    async fn authorization(&mut self) -> Result<Option<(HeaderName, HeaderValue)>, Words> {
        let Auth::OAuth2(issuer) = &self.settings.auth else { return authorization(&self.settings.auth) };
        let now = (self.clock)();
        if self.access.as_ref().is_none_or(|access| access.token(now).is_none()) {
            self.access = Some(issuer.fetch(&self.client, now).await?);
        }
        let token = self.access.as_ref().and_then(|access| access.token(now));
        let token = token.ok_or_else(|| Words::new("the access token is over as it comes"))?;
        credentials(AUTHORIZATION, &Zeroizing::new(format!("Bearer {}", **token))).map(Some)
    }
}

/// The header that says who asks, if nobody needs to be asked for it.
pub(in crate::sink) fn authorization(auth: &Auth) -> Result<Option<(HeaderName, HeaderValue)>, Words> {
    match auth {
        Auth::None | Auth::OAuth2(_) => Ok(None),
        Auth::Basic { user, password } => {
            let mut pair = Zeroizing::new(format!("{user}:").into_bytes());
            pair.extend(password.iter().flat_map(|secret| secret.0.iter()));
            credentials(AUTHORIZATION, &Zeroizing::new(format!("Basic {}", STANDARD.encode(&*pair))))
                .map(Some)
        }
        Auth::Token { header, scheme, token } => {
            let token = Zeroizing::new(String::from_utf8_lossy(&token.0).into_owned());
            let space = if scheme.is_empty() { "" } else { " " };
            let name = header.and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok());
            credentials(name.unwrap_or(AUTHORIZATION), &Zeroizing::new(format!("{scheme}{space}{}", *token)))
                .map(Some)
        }
    }
}

fn credentials(name: HeaderName, text: &str) -> Result<(HeaderName, HeaderValue), Words> {
    let value = HeaderValue::from_str(text);
    let mut value = value.map_err(|_error| Words::new("the credentials hold what no header can"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// A header of the configuration.
pub(in crate::sink) fn header(name: &str, text: &Text) -> Result<(HeaderName, HeaderValue), Unusable> {
    let mut value = value(name, &text.text())?;
    value.set_sensitive(matches!(text, Text::Secret(_)));
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_error| Unusable(format!("`{name}` is no header")))?;
    Ok((name, value))
}

/// The id of a request: that of its event, or of the first and how many.
fn id_of(events: &[Arc<Told>]) -> String {
    let first = events.first().map_or("", |told| told.event_id());
    match events.len() {
        0 | 1 => first.to_owned(),
        many => format!("{first}-{many}"),
    }
}

fn value(name: &str, text: &str) -> Result<HeaderValue, Unusable> {
    HeaderValue::from_str(text)
        .map_err(|_error| Unusable(format!("the header `{name}` has characters that none may have")))
}

/// Compressed; writing to memory does not fail.
pub(in crate::sink) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).unwrap_or_default()
}

impl Sink for Http {
    fn batch(&self) -> Batch {
        Batch { events: self.settings.events.max(1), bytes: BATCH_BYTES }
    }

    fn deliver<'a>(&'a mut self, events: &'a [Arc<Told>]) -> Delivery<'a> {
        Box::pin(self.all(events))
    }

    fn reopen(&mut self) {
        self.settings.client.renew(&mut self.client);
    }
}

#[cfg(test)]
mod tests;
