//! Payloads: text in a request that is written for an interpreter behind the application.
//!
//! Patterns ask for the grammar of an attack and not for its words: a quote that closes a string *and* what goes on
//! after it, a separator *and* a command *and* its argument. Prose about SQL, names with quotes, filters and
//! templates that were left unfilled are not meant. It does not see what is in bodies, nor encodings of the
//! application's own.

mod command;
mod decode;
mod markup;
mod sql;
#[cfg(test)]
mod tests;
mod traversal;

use command::is_command;
pub use decode::{MAX_TEXT, decode, hex};
use markup::{is_lookup, is_script, is_template};
use sql::is_sql;
use traversal::{is_traversal, leaves_root};

/// What a payload is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Payload {
    /// A database.
    Sql,
    /// A file system.
    Traversal,
    /// A shell.
    Command,
    /// A browser.
    Script,
    /// A template engine.
    Template,
    /// A logger that looks names up (CVE-2021-44228).
    Lookup,
    /// A directory.
    Ldap,
}

impl Payload {
    /// Its name in sentences.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sql => "SQL",
            Self::Traversal => "path traversal",
            Self::Command => "shell command",
            Self::Script => "script",
            Self::Template => "template expression",
            Self::Lookup => "JNDI lookup",
            Self::Ldap => "LDAP filter",
        }
    }
}

/// What a decoded value of a query or header is written for.
#[must_use]
pub fn of_value(value: &str) -> Option<Payload> {
    if is_lookup(value) {
        Some(Payload::Lookup)
    } else if is_script(value) {
        Some(Payload::Script)
    } else if is_template(value) {
        Some(Payload::Template)
    } else if is_sql(value) {
        Some(Payload::Sql)
    } else if is_command(value) {
        Some(Payload::Command)
    } else if is_traversal(value) {
        Some(Payload::Traversal)
    } else {
        value.contains("*)(").then_some(Payload::Ldap)
    }
}

/// What a decoded path is written for. `times` is how often it was encoded.
#[must_use]
pub fn of_path(path: &str, times: u8) -> Option<Payload> {
    if is_lookup(path) {
        Some(Payload::Lookup)
    } else if is_script(path) {
        Some(Payload::Script)
    } else if leaves_root(path, times) {
        Some(Payload::Traversal)
    } else if is_template(path) {
        Some(Payload::Template)
    } else if is_sql(path) {
        Some(Payload::Sql)
    } else {
        is_command(path).then_some(Payload::Command)
    }
}
