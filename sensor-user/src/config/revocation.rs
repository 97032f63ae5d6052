//! The section `revocation`: who is asked whether a token was revoked.

use std::time::Duration;

use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::tokens::Resolver;
use crate::config::word::{Word, Wrong, excerpt, quote};
use crate::token::settings::{DenyList, Issuer, RevocationSettings};

/// Reads the section. `issuers` are those that were configured.
pub(super) fn read(
    s: &mut Section<'_, '_>,
    issuers: &[Issuer],
    resolver: Resolver<'_>,
) -> RevocationSettings {
    let shipped = RevocationSettings::default();
    let list = read_list(s, resolver);
    let doc = "The issuer that is asked about opaque tokens, by its `issuer`; it needs `introspection`. Left out: \
               nobody, as a question shows the token to whoever is asked.";
    let opaque_issuer = s.optional::<String>("opaque_issuer", doc);
    let known =
        |name: &String| issuers.iter().any(|issuer| issuer.issuer == *name && issuer.introspection.is_some());
    if opaque_issuer.as_ref().is_some_and(|name| !known(name)) {
        let message = "`revocation.opaque_issuer` is no issuer with `introspection`";
        s.report(Problem::error(s.span_of("opaque_issuer"), message));
    }
    let doc = "Seconds that an answer holds; then the token's next use asks again.";
    let cache_s = s.number("cache_s", shipped.cache.as_secs(), 1..=86_400, doc);
    let doc = "Questions asked in a second at most. A token beyond it is asked about at a later use.";
    let per_s = s.number("per_second", shipped.per_s.into(), 1..=10_000, doc);
    let doc = "Seconds that one answer may take. Alerts on a token's first use wait two seconds for it.";
    let timeout = s.decimal("timeout_s", shipped.timeout.as_secs_f64(), 0.01..=30.0, doc);
    RevocationSettings {
        list,
        opaque_issuer,
        cache: Duration::from_secs(cache_s),
        per_s: u32::try_from(per_s).unwrap_or(shipped.per_s),
        timeout: Duration::from_secs_f64(timeout),
    }
}

fn read_list(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> Option<DenyList> {
    let doc = "A deny list in Redis: redis://[USER@]HOST[:PORT][/DATABASE]. It is not encrypted: put it on this host, \
               or in a network that you trust.";
    let redis = s.optional::<Redis>("redis", doc);
    let doc = "The password of Redis, env:NAME or file:PATH.";
    let password = resolver.secret(s, "redis_password", doc);
    let doc = "The key that a revoked token has there; {jti} stands for its id.";
    let pattern = s.word("pattern", Pattern("blacklist:{jti}".to_owned()), doc);
    if redis.is_none() && s.is_set("redis_password") && !s.is_set("redis") {
        let problem =
            Problem::error(s.span_of("redis_password"), "`revocation.redis_password` needs `redis`");
        s.report(problem);
    }
    let Redis { address, user, database } = redis?;
    Some(DenyList { address, user, password, database, pattern: pattern.0 })
}

/// Where a Redis server is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Redis {
    address: String,
    user: Option<String>,
    database: u32,
}

impl Word for Redis {
    const WHAT: &'static str = "redis://HOST:PORT/DATABASE";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = |why: &str| Wrong::new(format!("is {}, {why}", excerpt(text)));
        let Ok(url) = reqwest::Url::parse(text) else {
            return Err(Wrong { secret: true, ..Wrong::new("is no URL") }.hint("write redis://HOST:6379"));
        };
        if url.password().is_some() {
            let wrong = Wrong { secret: true, ..Wrong::new("holds a password") };
            return Err(wrong.hint("write it into `redis_password: env:NAME`"));
        }
        if url.scheme() != "redis" {
            // `me:secret@host` is a URL of the scheme `me`: nothing of it is repeated.
            let wrong = Wrong { secret: true, ..Wrong::new("is not redis://") };
            return Err(wrong.hint("write redis://HOST:6379"));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("without a host"))?;
        let database = match url.path().trim_start_matches('/') {
            "" => 0,
            number => number.parse().map_err(|_error| wrong("whose path is no database\'s number"))?,
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("with a query, which means nothing here"));
        }
        let user = Some(url.username()).filter(|user| !user.is_empty()).map(str::to_owned);
        Ok(Self { address: format!("{host}:{}", url.port().unwrap_or(6379)), user, database })
    }

    fn show(&self) -> String {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        quote(&format!("redis://{user}{}/{}", self.address, self.database))
    }
}

/// A key with a place for the token's id.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern(String);

impl Word for Pattern {
    const WHAT: &'static str = "a key that contains {jti}";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.matches("{jti}").count() == 1 && text.len() <= 256 {
            Ok(Self(text.to_owned()))
        } else {
            Err(Wrong::new(format!("is {}; it must contain {{jti}} once", excerpt(text))))
        }
    }

    fn show(&self) -> String {
        quote(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_where_redis_is() {
        let read = |text| Redis::parse(text).map(|r| (r.address, r.user, r.database)).ok();
        assert_eq!(read("redis://127.0.0.1"), Some(("127.0.0.1:6379".into(), None, 0)));
        assert_eq!(read("redis://me@h:1/3"), Some(("h:1".into(), Some("me".into()), 3)));
        assert_eq!(read("redis://[::1]:7/"), Some(("[::1]:7".into(), None, 0)));
        for bad in ["h:6379", "rediss://h", "redis://", "redis://h/x", "redis://h/1/2", "redis://h?x=1"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert!(Redis::parse("redis://:hunter2@h").unwrap_err().secret);
        let shown = Redis::parse("redis://me@h:1/3").unwrap().show();
        assert_eq!(shown, quote("redis://me@h:1/3"));
    }

    #[test]
    fn a_pattern_has_one_place_for_the_id() {
        assert!(Pattern::parse("blacklist:{jti}").is_ok());
        for bad in ["", "blacklist:", "{jti}{jti}", "{id}"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
