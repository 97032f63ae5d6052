//! Keys of a sink of type `redis`.

use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::sinks::{place, tls};
use crate::config::tokens::Resolver;
use crate::config::word::{Word, Wrong, excerpt, quote};
use crate::sink::client::TlsSettings;
use crate::sink::redis::Settings;
use crate::sink::wire::Place;

/// Reads what is particular to it.
pub(super) fn read(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> Option<Settings> {
    let doc = "Where it is: redis://HOST[:PORT][/DATABASE], or rediss:// by TLS.";
    let url = s.required::<Url>("url", doc);
    let user = s.optional::<String>("user", "The user of its access list. Left out: the default one.");
    let password = resolver.secret(s, "password", "Its password, env:NAME or file:PATH.");
    let doc = "The key of the stream.";
    let stream = s.word("stream", "tokenscope:alerts".to_owned(), doc);
    let doc = "About how many entries the stream keeps; older ones go.";
    let max_len = s.number("max_len", 100_000, 1..=1_000_000_000, doc);
    let doc = "Seconds for which an event that is sent again adds nothing; each costs a key of some 100 bytes. 0: \
               events are added without a script, and repeats are entries of their own.";
    let dedupe_s = s.number("dedupe_s", 86_400, 0..=2_592_000, doc);
    let keys = tls::read(s, resolver);
    if user.is_some() && !s.is_set("password") {
        s.report(Problem::error(s.span_of("user"), "`user` needs `password`"));
    }
    let Url { encrypted, place, database } = url?;
    if !encrypted && keys != TlsSettings::default() {
        let problem = Problem::error(s.span_of("tls"), "`tls` means nothing without TLS");
        s.report(problem.hint("write `url: rediss://...`"));
    }
    if s.is_set("password") && !encrypted {
        place::warn_of_listeners(s, "password", &place);
    }
    let tls = encrypted.then_some(keys);
    Some(Settings { place, tls, user, password, database, stream, max_len, dedupe_s })
}

/// Where a Redis server is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Url {
    encrypted: bool,
    place: Place,
    database: u32,
}

impl Word for Url {
    const WHAT: &'static str = "redis://HOST:PORT/DATABASE";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let (url, place) = place::url(text, &[("redis", 6379), ("rediss", 6379)], "redis://HOST:6379")?;
        let database = match url.path().trim_start_matches('/') {
            "" => 0,
            number => number.parse().map_err(|_error| {
                Wrong::new(format!("is {}, whose path is no database's number", excerpt(text)))
            })?,
        };
        Ok(Self { encrypted: url.scheme() == "rediss", place, database })
    }

    fn show(&self) -> String {
        let scheme = if self.encrypted { "rediss" } else { "redis" };
        quote(&format!("{scheme}://{}/{}", self.place, self.database))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_where_redis_is() {
        let read =
            |text| Url::parse(text).map(|url| (url.encrypted, url.place.to_string(), url.database)).ok();
        assert_eq!(read("redis://127.0.0.1"), Some((false, "127.0.0.1:6379".into(), 0)));
        assert_eq!(read("rediss://h:1/3"), Some((true, "h:1".into(), 3)));
        assert_eq!(read("redis://[::1]:7/"), Some((false, "[::1]:7".into(), 0)));
        for bad in ["h:6379", "http://h", "redis://", "redis://h/x", "redis://h/1/2", "redis://h?x=1"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let shown = Url::parse("rediss://[::1]:1/3").unwrap().show();
        assert_eq!(shown, quote("rediss://[::1]:1/3"));
    }
}
