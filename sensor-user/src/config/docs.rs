//! docs/config.md, made from the configuration itself. A test holds the file to this text.

use crate::config::{self, show};
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

**Keys to come.** Some keys are accepted and have no effect in this version (rules of later versions): each gives a warning. Any sink but stdout is an error, because its silence would do harm.

## Every key

This is what an empty file means:

```yaml
";

/// The text of docs/config.md for a catalogue of rules.
#[must_use]
pub fn markdown(cards: &[&'static About]) -> String {
    let entries = config::shipped(cards).map(|loaded| loaded.entries).unwrap_or_default();
    format!("{INTRO}{}```\n", show::yaml(&entries))
}
