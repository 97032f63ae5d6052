//! Keys of a sink of type `nats`.

use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::sinks::{place, tls};
use crate::config::tokens::Resolver;
use crate::config::word::{Word, Wrong, excerpt, quote};
use crate::sink::nats::{Auth, Settings, Subject};
use crate::sink::wire::Place;

/// Most servers of one cluster.
const MAX_SERVERS: usize = 32;

/// Reads what is particular to it.
pub(super) fn read(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> Option<Settings> {
    let doc = "Servers of one cluster, nats://HOST[:PORT], or tls:// by TLS; the first that answers is used.";
    let servers = s.words::<Url>("servers", Vec::new(), doc);
    if servers.is_empty() && !s.is_set("servers") {
        let problem = Problem::error(s.span_of("servers"), "`servers` is missing");
        s.report(problem.hint("add `servers: [nats://HOST:4222]`"));
    }
    if servers.len() > MAX_SERVERS {
        s.report(Problem::error(s.span_of("servers"), format!("`servers` has more than {MAX_SERVERS}")));
    }
    let doc =
        "The subject; {severity}, {rule}, {kind}, {namespace} and {node} stand for what the event holds.";
    let shipped = Template("tokenscope.alerts.{severity}.{rule}".to_owned());
    let subject = s.word("subject", shipped, doc);
    let doc = "Whether a stream must acknowledge every event. Without, an event is gone if nobody listens.";
    let jetstream = s.word("jetstream", true, doc);
    let doc = "What subjects of acknowledgements begin with.";
    let inbox = s.word("inbox", Template("_INBOX".to_owned()), doc);
    let auth = auth(s, resolver);
    let keys = tls::read(s, resolver);
    let encrypted = servers.iter().any(|server| server.encrypted);
    if servers.iter().any(|server| server.encrypted != encrypted) {
        let message = "`servers` are reached by TLS, or none of them is";
        s.report(Problem::error(s.span_of("servers"), message));
    }
    if let Some(key) = ["password", "token"].into_iter().find(|key| s.is_set(key) && !encrypted) {
        for server in &servers {
            place::warn_of_listeners(s, key, &server.place);
        }
    }
    let subject = Subject::parse(&subject.0).ok()?;
    if servers.is_empty() || inbox.0.contains('{') {
        return None;
    }
    let servers = servers.into_iter().map(|server| server.place).collect();
    Some(Settings { servers, encrypted, tls: keys, auth, subject, jetstream, inbox: inbox.0 })
}

fn auth(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> Auth {
    let user = s.optional::<String>("user", "The user.");
    let password = resolver.secret(s, "password", "Its password, env:NAME or file:PATH.");
    let token = resolver.secret(s, "token", "A token instead, env:NAME or file:PATH.");
    let nkey = resolver.secret(s, "nkey", "The seed of an nkey instead, env:NAME or file:PATH.");
    let doc = "A file of credentials instead, file:PATH, of at most 4096 bytes.";
    let creds = resolver.secret(s, "creds", doc);
    let ways = ["user", "token", "nkey", "creds"].map(|key| s.is_set(key));
    if ways.into_iter().filter(|is_set| *is_set).count() > 1 {
        let message = "only one of `user`, `token`, `nkey` and `creds` can hold";
        s.report(Problem::error(s.span_of("user"), message));
    }
    if s.is_set("user") != s.is_set("password") {
        s.report(Problem::error(s.span_of("user"), "`user` and `password` need each other"));
    }
    match (user.zip(password), token, nkey, creds) {
        (Some((user, password)), ..) => Auth::User(user, password),
        (_, Some(token), ..) => Auth::Token(token),
        (_, _, Some(seed), _) => Auth::Nkey(seed),
        (_, _, _, Some(file)) => Auth::Creds(file),
        _ => Auth::None,
    }
}

/// Where a NATS server is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Url {
    encrypted: bool,
    place: Place,
}

impl Word for Url {
    const WHAT: &'static str = "nats://HOST:PORT";
    const WHAT_MANY: &'static str = "nats://HOST:PORT";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let (url, place) = place::url(text, &[("nats", 4222), ("tls", 4222)], "nats://HOST:4222")?;
        if !matches!(url.path(), "" | "/") {
            return Err(Wrong::new(format!("is {}, with a path, which means nothing here", excerpt(text))));
        }
        Ok(Self { encrypted: url.scheme() == "tls", place })
    }

    fn show(&self) -> String {
        let scheme = if self.encrypted { "tls" } else { "nats" };
        quote(&format!("{scheme}://{}", self.place))
    }
}

/// A subject.
struct Template(String);

impl Word for Template {
    const WHAT: &'static str = "a subject";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let subject = Subject::parse(text);
        subject
            .map(|subject| Self(subject.as_str().to_owned()))
            .map_err(|why| Wrong::new(format!("is {}: it {why}", excerpt(text))))
    }

    fn show(&self) -> String {
        quote(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_where_nats_is() {
        let read = |text| Url::parse(text).map(|url| (url.encrypted, url.place.to_string())).ok();
        assert_eq!(read("nats://127.0.0.1"), Some((false, "127.0.0.1:4222".into())));
        assert_eq!(read("tls://n:1/"), Some((true, "n:1".into())));
        for bad in ["n:4222", "http://n", "nats://", "nats://n/x", "ws://n"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
