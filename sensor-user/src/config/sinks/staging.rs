//! Reading a sink's own keys from a text, for the tests of each kind.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::env::Environment;
use crate::config::section::{Reader, Section};
use crate::config::tokens::Resolver;
use crate::config::{Secrets, yaml};

/// What a kind makes of a text, and what is wrong with it. `PASSWORD` is in the environment, `/base` is where the file is.
pub(super) fn settings<T>(
    text: &str,
    read: fn(&mut Section<'_, '_>, Resolver<'_>) -> Option<T>,
) -> (Option<T>, Vec<String>) {
    let environment = Environment::from([("PASSWORD", "hunter2")]);
    let (nothing, mut problems) = (BTreeMap::new(), Vec::new());
    let node = yaml::parse(text, 0, &mut problems);
    let mut reader = Reader::new(&nothing);
    let resolver = Resolver { environment: &environment, secrets: Secrets::Needed, base: Path::new("/base") };
    let (settings, _) = reader.document(node.as_ref(), |s| read(s, resolver));
    problems.append(&mut reader.problems);
    (settings, problems.into_iter().map(|problem| problem.message).collect())
}

/// One of the problems says this.
pub(super) fn wrong<T>(text: &str, with: &str, read: fn(&mut Section<'_, '_>, Resolver<'_>) -> Option<T>) {
    let (_, problems) = settings(text, read);
    assert!(problems.iter().any(|problem| problem.contains(with)), "{text}: {problems:?}");
}
