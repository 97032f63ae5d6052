//! Keys of a sink of type `http`.

use std::io::Read as _;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::sinks::tls::{Receiver, check_url, client, warn_if_clear};
use crate::config::sinks::{free, tls};
use crate::config::tokens::Resolver;
use crate::config::word::{Word, Wrong, choose, excerpt, quote};
use crate::sink::http::preset::{self, PRESETS, Preset};
use crate::sink::http::{Auth, OAuth2, Settings, SigningKey, Text, Verb, complete};
use crate::token::settings::Secret;

/// Longest template, in bytes: the longest preset has 3 KiB.
const MAX_TEMPLATE: usize = 64 << 10;

/// Reads what is particular to it.
pub(super) fn read(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> Option<Settings> {
    let doc = "What is known of the receiver: generic, slack, teams, pagerduty, splunk, loki, elasticsearch, opensearch, \
               clickhouse, gelf, sentinel, misp, jira, servicenow, sendgrid, mailgun, sns or falco.";
    let preset = s.word("preset", Named(&PRESETS[0]), doc).0;
    let variables = variables(s, preset, resolver);
    let url = url(s, preset, &variables, resolver);
    let method = s.word("method", Verb::Post, "POST, PUT or PATCH.");
    let headers = headers(s, resolver);
    let auth = auth(s, preset.scheme, preset.token_in, true, resolver);
    let content_type = s.word(
        "content_type",
        preset.content_type.to_owned(),
        "What the body is. Template and form go with it.",
    );
    let template = template(s, preset, resolver);
    let doc = "Events a request at most. A template of one's own sees them as `events`.";
    let events = s.number("batch", preset.events as u64, 1..=1000, doc);
    let gzip = s.word("gzip", preset.gzip, "Whether bodies are compressed.");
    let signing = signing(s, gzip, resolver);
    let client = client(s, resolver);
    let settings = Settings {
        client,
        preset,
        url: Secret(Zeroizing::new(url?.as_bytes().to_vec())),
        method,
        headers,
        auth: auth?,
        content_type,
        template: template?,
        events: usize::try_from(events).unwrap_or(1),
        gzip,
        variables,
        signing,
    };
    try_template(s, &settings);
    Some(settings)
}

/// Finds mistakes before the first alert does.
fn try_template(s: &mut Section<'_, '_>, settings: &Settings) {
    let Err(mistake) = settings.check() else { return };
    let key = ["template", "template_file"].into_iter().find(|key| s.is_set(key)).unwrap_or("preset");
    let line = mistake.line.map(|line| format!(", line {line}")).unwrap_or_default();
    let problem = Problem::error(s.span_of(key), format!("`{key}`{line}: {}", mistake.message));
    s.report(problem.hint("docs/sinks.md has the names that templates can use"));
}

fn variables(
    s: &mut Section<'_, '_>,
    preset: &'static Preset,
    resolver: Resolver<'_>,
) -> Vec<(String, Text)> {
    let doc = "What the template sees as `vars`; docs/sinks.md says which each preset has.";
    let is_secret = |name: &str| preset.variables.iter().any(|known| known.name == name && known.secret);
    let mut all = free::map(s, "variables", resolver, doc, is_secret);
    let own = s.is_set("template") || s.is_set("template_file");
    for (name, _) in &all {
        if !own && !preset.variables.iter().any(|known| known.name == name) {
            let known: Vec<_> = preset.variables.iter().map(|known| known.name).collect();
            let message = format!("preset {} has no variable {}", preset.name, excerpt(name));
            let hint =
                if known.is_empty() { "it has none".into() } else { format!("it has {}", known.join(", ")) };
            s.report(Problem::error(s.span_of("variables"), message).hint(hint));
        }
    }
    for known in preset.variables {
        if all.iter().any(|(name, _)| name == known.name) {
            continue;
        }
        let value = known.default.unwrap_or("missing");
        if known.default.is_none() {
            let message = format!("preset {} needs `variables.{}`", preset.name, known.name);
            let value = if known.secret { "env:NAME" } else { "..." };
            let hint = format!("add `variables: {{{}: {value}}}`", known.name);
            s.report(Problem::error(s.span_of("variables"), message).hint(hint));
        }
        all.push((known.name.to_owned(), Text::Plain(value.to_owned())));
    }
    all
}

/// The whole URL.
fn url(
    s: &mut Section<'_, '_>,
    preset: &Preset,
    variables: &[(String, Text)],
    resolver: Resolver<'_>,
) -> Option<Zeroizing<String>> {
    let doc = "Where it is, http or https; env:NAME or file:PATH if it is a secret, as those of chats are. Without a \
               path, the preset's is added.";
    let text = receiver(s, preset.url, doc, resolver)?;
    match complete(&text, preset, variables) {
        Ok(url) => Some(url),
        Err(mistake) => {
            let problem = Problem::error(s.span_of("url"), format!("`sinks.url` {}", mistake.message));
            s.report(problem.secret());
            None
        }
    }
}

/// The key `url`: of a receiver, and perhaps a secret.
pub(super) fn receiver(
    s: &mut Section<'_, '_>,
    shipped: Option<&str>,
    doc: &str,
    resolver: Resolver<'_>,
) -> Option<Zeroizing<String>> {
    if !s.is_set("url") && shipped.is_none() {
        let problem = Problem::error(s.span_of("url"), "`sinks.url` is missing");
        s.report(problem.hint("add `url: https://...`, or `url: env:NAME` if it is a secret"));
    }
    let text = match free::text(s, "url", resolver, doc) {
        Some(Text::Plain(text)) if text == free::UNRESOLVED => "https://unresolved.invalid/".to_owned(),
        Some(Text::Plain(text)) => text,
        Some(Text::Secret(secret)) => String::from_utf8_lossy(&secret.0).into_owned(),
        None => shipped?.to_owned(),
    };
    let text = Zeroizing::new(text);
    if let Err(wrong) = check_url(&text) {
        let problem = Problem::error(s.span_of("url"), format!("`sinks.url` {}", wrong.message)).secret();
        s.report(Problem { hint: wrong.hint, ..problem });
        return None;
    }
    warn_if_clear(s, "url", &text);
    Some(text)
}

pub(super) fn headers(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> Vec<(String, Text)> {
    let doc = "Headers of each request; env:NAME or file:PATH for secrets.";
    let is_secret = |name: &str| {
        let name = name.to_ascii_lowercase();
        ["authorization", "cookie", "token", "secret", "password", "api-key", "apikey"]
            .iter()
            .any(|word| name.contains(word))
    };
    let headers = free::map(s, "headers", resolver, doc, is_secret);
    for (name, value) in &headers {
        let ours = ["host", "content-length", "transfer-encoding", "connection", "content-encoding"];
        let fits = reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_ok();
        let wrong = if !fits {
            Some("is no header's name")
        } else if ours.contains(&name.to_ascii_lowercase().as_str()) {
            Some("is up to the sensor")
        } else if matches!(value, Text::Plain(text) if text.bytes().any(|byte| byte < b' ' || byte == 0x7f)) {
            Some("has control characters")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            let message = format!("`headers`: {} {wrong}", excerpt(name));
            s.report(Problem::error(s.span_of("headers"), message));
        }
    }
    headers
}

/// None if it is wrong, which is reported.
pub(super) fn auth(
    s: &mut Section<'_, '_>,
    shipped: &str,
    header: Option<&'static str>,
    issuers: bool,
    resolver: Resolver<'_>,
) -> Option<Auth> {
    s.section(
        "auth",
        "Who asks: a user and a password, or a token; of sinks of type http, oauth2 too.",
        |s| {
            let user = s.optional::<String>("user", "The user (Basic).");
            let password = resolver.secret(s, "password", "The user's password, env:NAME or file:PATH.");
            let token = resolver.secret(s, "token", "A token, env:NAME or file:PATH.");
            let doc = "What stands before the token; the preset knows.";
            let scheme = s.optional::<String>("scheme", doc);
            let header = header.filter(|_| scheme.is_none());
            let bare = || if header.is_some() { String::new() } else { shipped.to_owned() };
            let scheme = scheme.unwrap_or_else(bare);
            let oauth2 = if issuers && s.is_set("oauth2") { Some(oauth2(s, resolver)) } else { None };
            let ways = ["user", "token", "oauth2"].iter().filter(|key| s.is_set(key)).count();
            if ways > 1 {
                s.report(Problem::error(
                    s.span_of("auth"),
                    "`auth` has more than one of user, token and oauth2",
                ));
            }
            if s.is_set("password") && !s.is_set("user") {
                s.report(Problem::error(s.span_of("password"), "`auth.password` needs `auth.user`"));
            }
            match (user, token, oauth2) {
                (Some(user), ..) => Some(Auth::Basic { user, password }),
                (None, Some(token), _) => Some(Auth::Token { header, scheme, token }),
                (None, None, Some(issuer)) => issuer.map(Auth::OAuth2),
                (None, None, None) => Some(Auth::None),
            }
        },
    )
}

fn oauth2(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> Option<OAuth2> {
    s.section("oauth2", "Access tokens by client credentials.", |s| {
        let token_url = s.required::<Receiver>("token_url", "Where they are issued.");
        let client_id = s.required::<String>("client_id", "Who asks.");
        if !s.is_set("client_secret") {
            let problem = Problem::error(s.span_of("client_secret"), "`oauth2.client_secret` is missing");
            s.report(problem.hint("add `client_secret: env:NAME`"));
        }
        let client_secret =
            resolver.secret(s, "client_secret", "And with which secret, env:NAME or file:PATH.");
        let scope = s.optional::<String>("scope", "For what.");
        let token_url = token_url?.0;
        warn_if_clear(s, "token_url", &token_url);
        // A secret that is not on this host, where the configuration is only looked at.
        let client_secret = client_secret.unwrap_or_else(|| Secret(Zeroizing::new(Vec::new())));
        Some(OAuth2 { token_url, client_id: client_id?, client_secret, scope })
    })
}

fn template(s: &mut Section<'_, '_>, preset: &Preset, resolver: Resolver<'_>) -> Option<String> {
    let doc = "The body, in Jinja; instead of the preset's.";
    let inline = s.optional::<Body>("template", doc);
    let file = s.optional::<PathBuf>("template_file", "A file with it.");
    match (inline, file) {
        (Some(_), Some(_)) => {
            let message = "`template` and `template_file` exclude each other";
            s.report(Problem::error(s.span_of("template_file"), message));
            None
        }
        (Some(Body(text)), None) => Some(text),
        (None, Some(path)) => {
            let path = tls::absolute(path, resolver);
            let read = std::fs::File::open(&path).and_then(|file| {
                let mut text = String::new();
                file.take(MAX_TEMPLATE as u64 + 1).read_to_string(&mut text).map(|_length| text)
            });
            let read = read
                .map_err(|error| error.to_string())
                .and_then(|text| Body::parse(&text).map(|body| body.0).map_err(|wrong| wrong.message));
            read.map_err(|why| {
                let message = format!("`template_file`: {}: {why}", path.display());
                s.report(Problem::error(s.span_of("template_file"), message));
            })
            .ok()
        }
        (None, None) if s.is_set("template") || s.is_set("template_file") => None,
        (None, None) => Some(preset.template.to_owned()),
    }
}

fn signing(s: &mut Section<'_, '_>, gzip: bool, resolver: Resolver<'_>) -> Option<SigningKey> {
    let doc =
        "Signs each request as Standard Webhooks do: base64, with or without whsec_; env:NAME or file:PATH.";
    let secret = resolver.secret(s, "signing_secret", doc)?;
    let span = s.span_of("signing_secret");
    if gzip {
        let message = "`signing_secret` signs bodies as they are, which `gzip` would change";
        s.report(Problem::error(span, message).hint("add `gzip: false`"));
    }
    let key = SigningKey::read(&secret);
    if key.is_none() {
        s.report(
            Problem::error(span, "`signing_secret` is not base64").hint("with or without whsec_ before it"),
        );
    }
    key
}

/// A preset by its name.
struct Named(&'static Preset);

impl Word for Named {
    const WHAT: &'static str = "a preset's name";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let names: Vec<_> = PRESETS.iter().map(|preset| (preset.name, ())).collect();
        choose(text, &names)?;
        preset::find(text).map(Self).ok_or_else(|| Wrong::new("is no preset"))
    }

    fn show(&self) -> String {
        self.0.name.to_owned()
    }
}

const VERBS: [(&str, Verb); 3] = [("POST", Verb::Post), ("PUT", Verb::Put), ("PATCH", Verb::Patch)];

impl Word for Verb {
    const WHAT: &'static str = "POST, PUT or PATCH";

    fn parse(text: &str) -> Result<Self, Wrong> {
        choose(text, &VERBS)
    }

    fn show(&self) -> String {
        VERBS.iter().find(|(_, verb)| verb == self).map_or("POST", |(name, _)| name).to_owned()
    }
}

/// A template's text.
struct Body(String);

impl Word for Body {
    const WHAT: &'static str = "a template";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text.len() {
            0 => Err(Wrong::new("is empty")),
            1..=MAX_TEMPLATE => Ok(Self(text.to_owned())),
            _ => Err(Wrong::new(format!("is longer than {MAX_TEMPLATE} bytes"))),
        }
    }

    fn show(&self) -> String {
        quote(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::config::env::Environment;
    use crate::config::section::Reader;
    use crate::config::{Secrets, yaml};

    /// The settings of a text, and what is wrong with it.
    fn settings(text: &str) -> (Option<Settings>, Vec<String>) {
        let environment = Environment::from([
            ("URL", "https://hooks.example/secret-path"),
            ("KEY", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ]);
        let (nothing, mut problems) = (BTreeMap::new(), Vec::new());
        let node = yaml::parse(text, 0, &mut problems);
        let mut reader = Reader::new(&nothing);
        let resolver =
            Resolver { environment: &environment, secrets: Secrets::Needed, base: Path::new("/nowhere") };
        let (settings, _) = reader.document(node.as_ref(), |s| read(s, resolver));
        problems.append(&mut reader.problems);
        let told = problems.iter().map(|problem| format!("{} {:?}", problem.message, problem.hint)).collect();
        (settings, told)
    }

    fn wrong(text: &str, with: &str) {
        let (_, problems) = settings(text);
        assert!(problems.iter().any(|problem| problem.contains(with)), "{text}: {problems:?}");
    }

    #[test]
    fn every_preset_needs_little() {
        for preset in &PRESETS {
            let needs: Vec<_> = preset.variables.iter().filter(|known| known.default.is_none()).collect();
            let mut text = format!("preset: {}\n", preset.name);
            if preset.url.is_none() {
                text += "url: https://receiver.example\n";
            }
            let needs: Vec<String> = needs
                .iter()
                .map(|known| format!("{}: {}", known.name, if known.secret { "env:KEY" } else { "x" }))
                .collect();
            text += &["variables: {", &needs.join(", "), "}\n"].concat();
            let (settings, problems) = settings(&text);
            assert_eq!(problems, Vec::<String>::new(), "{text}");
            let settings = settings.unwrap();
            assert!(settings.check().is_ok());
            assert!(!format!("{settings:?}").contains("receiver.example"), "a URL may be a secret");
        }
    }

    #[test]
    fn what_is_wrong_is_found_when_it_is_read() {
        wrong("preset: slack", "`sinks.url` is missing");
        wrong("preset: slak\nurl: https://x/", "did you mean `slack`?");
        wrong("preset: pagerduty", "needs `variables.routing_key`");
        wrong("preset: pagerduty\nvariables: {routing_key: R0123}", "is a secret");
        wrong("url: https://x/\nvariables: {a: b}", "has no variable");
        wrong("url: https://me:pw@x/", "user name or password");
        wrong("url: ftp://x/", "neither http nor https");
        wrong("url: http://receiver.example/", "not encrypted");
        wrong("url: https://x/\nheaders: {Authorization: Bearer x}", "is a secret");
        wrong("url: https://x/\nheaders: {Host: x}", "up to the sensor");
        wrong("url: https://x/\nheaders: {\"a b\": x}", "no header's name");
        wrong("url: https://x/\ntemplate: \"{{ nothing }}\"", "`template`, line 1: there is no such name");
        wrong("url: https://x/\ntemplate: |\n  {\n  \"a\": \"{{ message }}\"}", "tojson");
        wrong("url: https://x/\ntemplate: x\ntemplate_file: y", "exclude each other");
        wrong("url: https://x/\ntemplate_file: y", "/nowhere/y");
        wrong("url: https://x/\nsigning_secret: env:URL", "is not base64");
        wrong("url: https://x/\nsigning_secret: env:KEY\ngzip: true", "gzip");
        wrong("url: env:NONE", "NONE is not set");
        wrong("url: https://x/\nauth: {user: a, token: env:KEY}", "more than one");
        wrong("url: https://x/\nauth: {oauth2: {client_id: x}}", "token_url");
        wrong("url: https://x/\ntls: {cert: a.pem}", "need each other");
        wrong("url: https://x/\nproxy: http://me:pw@p:1", "proxy_user");
    }

    #[test]
    fn what_is_right_is_as_it_was_written() {
        let text = "url: env:URL\nmethod: PUT\nheaders: {X-A: b}\nauth: {token: env:KEY, scheme: Key}\n\
                    content_type: text/plain\ntemplate: \"{{ vars.who }} {{ title }}\"\nvariables: {who: me}\nbatch: 7\n\
                    signing_secret: env:KEY\nproxy: none\ntls: {ca: ca.pem}";
        let (settings, problems) = settings(text);
        assert_eq!(problems, Vec::<String>::new());
        let settings = settings.unwrap();
        assert_eq!((settings.method, settings.events), (Verb::Put, 7));
        assert_eq!(settings.client.tls.ca.as_deref(), Some(Path::new("/nowhere/ca.pem")));
        assert!(settings.signing.is_some());
        let shown = format!("{settings:?}");
        assert!(!shown.contains("secret-path") && !shown.contains("MfKQ9r8G"), "{shown}");
    }

    #[test]
    fn a_url_without_a_path_gets_that_of_the_preset() {
        let url = |text: &str| String::from_utf8(settings(text).0.unwrap().url.0.to_vec()).unwrap();
        assert_eq!(url("preset: elasticsearch\nurl: https://es:9200"), "https://es:9200/_bulk");
        assert_eq!(url("preset: elasticsearch\nurl: https://es:9200/a/_bulk"), "https://es:9200/a/_bulk");
        assert_eq!(
            url("preset: clickhouse\nurl: https://ch:8443\nvariables: {table: a.b}"),
            "https://ch:8443/?query=INSERT%20INTO%20a.b%20FORMAT%20JSONEachRow"
        );
        assert_eq!(
            url("preset: sentinel\nurl: https://x.ingest.example\nvariables: {rule_id: dcr-1}"),
            "https://x.ingest.example/dataCollectionRules/dcr-1/streams/Custom-Tokenscope_CL?api-version=2023-01-01"
        );
    }
}
