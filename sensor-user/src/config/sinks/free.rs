//! Mappings with names of the user's own: headers, variables. Values may be secrets.

use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::tokens::{Resolver, SecretRef};
use crate::config::word::{Word, Wrong, quote};
use crate::sink::http::Text;

/// Most names of one mapping: more than any preset has.
const MAX_NAMES: usize = 64;

/// What stands for a secret that is not on this host, when a configuration is only looked at.
pub(super) const UNRESOLVED: &str = "unresolved";

/// Text as it is, or the place of a secret.
enum Free {
    Plain(String),
    Secret(SecretRef),
}

impl Word for Free {
    const WHAT: &'static str = "text, env:NAME or file:PATH";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.starts_with("env:") || text.starts_with("file:") {
            return SecretRef::parse(text).map(Self::Secret);
        }
        String::parse(text).map(Self::Plain)
    }

    fn show(&self) -> String {
        match self {
            Self::Plain(text) => quote(text),
            Self::Secret(named) => named.show(),
        }
    }
}

/// Text that may be a secret.
pub(super) fn text(s: &mut Section<'_, '_>, key: &str, resolver: Resolver<'_>, doc: &str) -> Option<Text> {
    Some(match s.optional::<Free>(key, doc)? {
        Free::Plain(text) => Text::Plain(text),
        Free::Secret(named) => match resolver.resolve(s, key, &named) {
            Some(secret) => Text::Secret(secret),
            None => Text::Plain(UNRESOLVED.to_owned()),
        },
    })
}

/// A mapping. `secret` says which names must not have their values in the file.
pub(super) fn map(
    s: &mut Section<'_, '_>,
    key: &str,
    resolver: Resolver<'_>,
    doc: &str,
    secret: impl Fn(&str) -> bool,
) -> Vec<(String, Text)> {
    s.section(key, doc, |s| {
        let mut all = Vec::new();
        for name in s.keys().take(MAX_NAMES) {
            if name.text.is_empty() {
                continue;
            }
            let value = text(s, &name.text, resolver, "");
            let plain = matches!(&value, Some(Text::Plain(text)) if text != UNRESOLVED);
            if plain && secret(&name.text) {
                let message = format!("`{}` is a secret, and a secret is never written here", name.text);
                let problem = Problem::error(s.span_of(&name.text), message).secret();
                s.report(problem.hint("write env:NAME or file:PATH"));
            }
            all.extend(value.map(|value| (name.text.clone(), value)));
        }
        all
    })
}
