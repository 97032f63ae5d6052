//! docs/config.md, made from the configuration itself. A test holds the file to this text.

use std::fmt::Write as _;
use std::path::Path;

use crate::config::show::{Body, Entry};
use crate::config::{self, Environment, Secrets, show, sinks};
use crate::detect::About;

const INTRO: &str = "\
# Configuration

<!-- Generated from sensor-user/src/config: do not edit. `BLESS=1 cargo test -p sensor-user docs` writes it anew. -->

One YAML file, `/etc/tokenscope/config.yaml` unless `-c` names another. Everything has a default, so an empty file, or
none, is a working configuration. `tokenscope config check` tells every mistake at once, with its place;
`tokenscope config show` prints what is in effect, and `--default` what ships. Both exit with 2 if there is an error.

A flag beats the environment, the environment beats the file, the file beats the default.

**Environment.** Every key outside a list can be set by a variable: `TOKENSCOPE_` and the key's path in capitals, with
two underscores for a dot and one for a hyphen. A list is written `a,b` or `[a, b]`; a list as a whole can be set, its
parts cannot.

| key | variable |
|---|---|
| `capture.ports` | `TOKENSCOPE_CAPTURE__PORTS=80,8080` |
| `metrics.listen` | `TOKENSCOPE_METRICS__LISTEN=off` |
| `rules.brute-force.per_minute` | `TOKENSCOPE_RULES__BRUTE_FORCE__PER_MINUTE=20` |
| `issuers` | `TOKENSCOPE_ISSUERS='[{issuer: https://idp.example/}]'` |

A variable that starts with `TOKENSCOPE_`, holds two underscores in a row and names no key is an error. Others are left
alone: Kubernetes sets `TOKENSCOPE_PORT` and its like by itself.

**Secrets** are named and never written: `env:NAME` or `file:PATH`.

**Lists and databases** may be files (`lists.files`, `geo`). They are looked at every five seconds and read again when
they have changed. Replace a file by renaming a new one over it, so that it is never read half-written. One that is
missing or broken is refused with a message, and what it held before stays. A list has one entry a line, at most a
million and 64 MiB; `#` begins a comment, and in lists of addresses so does `;`. Lines that make no sense are passed
over, counted and named. A list of addresses may also be JSON of MISP: an event, a list of events, or what a search
returns; of it count the attributes `ip-src` and `ip-dst`, with or without port, that are not withdrawn and not marked
`to_ids: false`. Databases are of the MaxMind format, at most 1 GiB; they are held in memory.

**Limits.** A file of 1 MiB, 16 levels, 250,000 values with aliases expanded, one document, no tags.

**Keys to come.** Some keys are accepted and have no effect in this version (rules of later versions): each gives a
warning.

## Every key

This is what an empty file means:

```yaml
";

const SINKS: &str = "
## Every key of a sink

`sinks` is a list of such mappings. Shown is what one means that says no more than it must: names and addresses ending in
`example` stand for yours. What each kind does with events is in [sinks.md](sinks.md), [sinks-files.md](sinks-files.md) and
[sinks-brokers.md](sinks-brokers.md).

";

/// The text of docs/config.md for a catalogue of rules.
#[must_use]
pub fn markdown(cards: &[&'static About]) -> String {
    let entries = config::shipped(cards).map(|loaded| loaded.entries).unwrap_or_default();
    let mut out = format!("{INTRO}{}```\n{SINKS}", show::yaml(&entries));
    let kinds: Vec<_> = sinks::examples().map(|(kind, example)| (kind, keys(example))).collect();
    let is_common = |entry: &Entry| {
        entry.key != "type" && kinds.iter().all(|(_, keys)| keys.iter().any(|other| other.key == entry.key))
    };
    let (common, _) = split(kinds.first().map(|(_, keys)| keys.clone()).unwrap_or_default(), is_common);
    let _ = write!(out, "### All kinds but stdout\n\n```yaml\n{}```\n", show::yaml(&common));
    for (kind, keys) in &kinds {
        let (_, own) = split(keys.clone(), is_common);
        let item = Entry {
            key: "sinks".into(),
            doc: String::new(),
            body: Body::Items { items: vec![own], example: Vec::new() },
        };
        let _ = write!(out, "\n### {kind}\n\n```yaml\n{}```\n", show::yaml(&[item]));
    }
    out
}

fn split(keys: Vec<Entry>, which: impl Fn(&Entry) -> bool) -> (Vec<Entry>, Vec<Entry>) {
    keys.into_iter().partition(|entry| which(entry))
}

/// What a sink's keys mean, read as from a file: what is read is what is told.
fn keys(example: &str) -> Vec<Entry> {
    let text = format!("sinks: [{example}]\n");
    let read =
        config::parse("example", &text, Path::new("/"), &Environment::default(), &[], Secrets::Optional);
    let entries = read.map(|loaded| loaded.entries).unwrap_or_default();
    let sinks = entries.into_iter().find(|entry| entry.key == "sinks");
    match sinks.map(|entry| entry.body) {
        Some(Body::Items { items, .. }) => items.into_iter().next().unwrap_or_default(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_sink_has_an_example_that_is_right_and_its_keys_are_told() {
        let text = markdown(&[]);
        for (kind, example) in sinks::examples() {
            let keys = keys(example);
            assert!(keys.len() > 10, "{example} is not read");
            let (_, own) = text.split_once(&format!("### {kind}\n")).unwrap();
            let own = own.split("\n### ").next().unwrap();
            assert!(own.contains(&format!("- type: {kind}\n")), "{kind}: {own}");
            for entry in keys {
                let line = format!("{}:", entry.key);
                assert!(own.contains(&line) || text.contains(&format!("\n{line}")), "{kind}: {line}");
            }
        }
        assert!(text.contains("\nmin_severity: low\n") && !text.contains("\n  min_severity"));
        for key in [
            "signing_secret",
            "client_id",
            "kms_key",
            "structured_data",
            "dedupe_s",
            "creds",
            "resolve_after_s",
        ] {
            assert!(text.contains(&format!("{key}: ")), "{key}");
        }
    }
}
