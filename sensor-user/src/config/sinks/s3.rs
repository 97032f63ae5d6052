//! Keys of a sink of type `s3`.

use std::time::Duration;

use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::sinks::{place, tls};
use crate::config::tokens::Resolver;
use crate::config::word::{Word, Wrong, choose, excerpt, quote};
use crate::sink::s3::{Encryption, Keys, Settings};

/// Reads what is particular to it.
pub(super) fn read(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> Option<Settings> {
    let bucket = s.required::<Bucket>("bucket", "The bucket.");
    let doc = "What the objects' names begin with.";
    let prefix = s.word("prefix", Prefix("tokenscope".to_owned()), doc).0;
    let doc = "The region.";
    let region = s.word("region", Region("us-east-1".to_owned()), doc).0;
    let doc = "Where it is if not at Amazon, https://HOST[:PORT].";
    let endpoint = s.optional::<Endpoint>("endpoint", doc);
    let doc =
        "Whether the bucket is in the path and not in the host's name. Left out: with an `endpoint` only.";
    let path_style = s.optional::<bool>("path_style", doc);
    let keys = read_keys(s, resolver);
    let encryption = read_encryption(s);
    let doc = "Seconds for which events are gathered into one object; 8 MiB of them are written at once.";
    let gather = Duration::from_secs(s.number("gather_s", 300, 0..=3600, doc));
    let client = tls::client(s, resolver);
    if let Some(Endpoint { host, url }) = &endpoint
        && url.starts_with("http:")
        && !place::is_here(host)
    {
        let problem = Problem::warning(s.span_of("endpoint"), "`endpoint` is not encrypted");
        s.report(problem.hint("use https, or a network that you trust"));
    }
    let path_style = path_style.unwrap_or(endpoint.is_some());
    let keys = keys?;
    let (bucket, endpoint) = (bucket?.0, endpoint.map(|endpoint| endpoint.url));
    Some(Settings { bucket, prefix, region, endpoint, path_style, keys, encryption, gather, client })
}

/// The keys, if any are named; none if one is missing.
#[allow(clippy::option_option, reason = "without keys is a way of its own")]
fn read_keys(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> Option<Option<Keys>> {
    let doc = "The id of the access key, env:NAME or file:PATH. Left out: the keys of the pod, instance or environment.";
    let id = resolver.secret(s, "access_key", doc);
    let secret = resolver.secret(s, "secret_key", "Its secret, env:NAME or file:PATH.");
    let doc = "The session token of temporary keys, env:NAME or file:PATH.";
    let token = resolver.secret(s, "session_token", doc);
    if s.is_set("access_key") != s.is_set("secret_key") {
        let message = "`access_key` and `secret_key` need each other";
        s.report(Problem::error(s.span_of("access_key"), message));
        return None;
    }
    if !s.is_set("access_key") {
        if s.is_set("session_token") {
            s.report(Problem::error(s.span_of("session_token"), "`session_token` needs `access_key`"));
        }
        return Some(None);
    }
    Some(Some(Keys { id: id?, secret: secret?, token }))
}

fn read_encryption(s: &mut Section<'_, '_>) -> Encryption {
    let doc = "How objects are encrypted where they lie: AES256, aws:kms, or as the bucket does by itself.";
    let kind = s.optional::<Kind>("encryption", doc);
    let key = s.optional::<String>("kms_key", "The id or ARN of the key of aws:kms.");
    if key.is_some() && kind != Some(Kind::Kms) {
        let problem = Problem::error(s.span_of("kms_key"), "`kms_key` needs `encryption: aws:kms`");
        s.report(problem);
    }
    match kind {
        None => Encryption::Bucket,
        Some(Kind::S3) => Encryption::S3,
        Some(Kind::Kms) => Encryption::Kms(key),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    S3,
    Kms,
}

impl Word for Kind {
    const WHAT: &'static str = "AES256 or aws:kms";

    fn parse(text: &str) -> Result<Self, Wrong> {
        choose(text, &[("AES256", Self::S3), ("aws:kms", Self::Kms)])
    }

    fn show(&self) -> String {
        if *self == Self::S3 { "AES256".into() } else { "aws:kms".into() }
    }
}

/// Whether a text is made of these characters and letters and digits.
fn is_made_of(text: &str, others: &str, most: usize) -> bool {
    !text.is_empty()
        && text.len() <= most
        && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

/// A bucket's name. Old ones may have capitals and underscores.
struct Bucket(String);

impl Word for Bucket {
    const WHAT: &'static str = "a bucket's name";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if is_made_of(text, "._-", 255) && !text.starts_with('.') {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("is {}; a bucket has letters, digits, ., - and _", excerpt(text))))
    }

    fn show(&self) -> String {
        quote(&self.0)
    }
}

/// What names begin with.
struct Prefix(String);

impl Word for Prefix {
    const WHAT: &'static str = "words with / between";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let is_word = |word: &str| is_made_of(word, "._-=!", 255) && word != "." && word != "..";
        if text.trim_matches('/').split('/').all(is_word) && text.len() <= 512 {
            return Ok(Self(text.trim_matches('/').to_owned()));
        }
        let wrong = format!(
            "is {}; it must be words of letters, digits, ., -, = and _, with / between",
            excerpt(text)
        );
        Err(Wrong::new(wrong))
    }

    fn show(&self) -> String {
        quote(&self.0)
    }
}

/// A region.
struct Region(String);

impl Word for Region {
    const WHAT: &'static str = "a region";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if is_made_of(text, "-_", 64) {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("is {}; it must be such as eu-central-1", excerpt(text))))
    }

    fn show(&self) -> String {
        quote(&self.0)
    }
}

/// Where a server is that is not Amazon's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint {
    url: String,
    host: String,
}

impl Word for Endpoint {
    const WHAT: &'static str = "https://HOST:PORT";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let (url, place) = place::url(text, &[("https", 443), ("http", 80)], "https://HOST:PORT")?;
        if url.path() != "/" {
            return Err(Wrong::new(format!("is {}, with a path, which means nothing here", excerpt(text))));
        }
        Ok(Self { url: text.trim_end_matches('/').to_owned(), host: place.host })
    }

    fn show(&self) -> String {
        quote(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_s3_takes() {
        assert_eq!(Prefix::parse("/a/b=c/").unwrap().0, "a/b=c");
        for bad in ["", "/", "a//b", "a/../b", "a b"] {
            assert!(Prefix::parse(bad).is_err(), "{bad}");
        }
        assert!(Bucket::parse("my-bucket.x").is_ok() && Bucket::parse("a/b").is_err());
        assert!(Region::parse("eu-central-1").is_ok() && Region::parse("eu/..").is_err());
        assert_eq!(Endpoint::parse("http://127.0.0.1:9000/").unwrap().url, "http://127.0.0.1:9000");
        for bad in ["s3.example", "https://me:hunter2@s3", "https://s3/bucket", "ftp://s3"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
