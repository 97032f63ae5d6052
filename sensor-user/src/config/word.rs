//! The kinds of words that a configuration is made of: each says what it must be, reads itself and shows itself.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::config::near::nearest;
use crate::detect::Severity;
use crate::token::settings::Algorithm;

/// Longest text, in bytes: URLs and paths end well below.
const MAX_TEXT: usize = 4096;

/// Why a word is not what it must be.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Follows the name of the key: `is not ...`.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The word may be a secret.
    pub secret: bool,
}

impl Wrong {
    /// A reason.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, secret: false }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A kind of word.
pub trait Word: Sized {
    /// What it must be: `true or false`.
    const WHAT: &'static str;
    /// What a list of them holds.
    const WHAT_MANY: &'static str = Self::WHAT;

    /// Reads it.
    ///
    /// # Errors
    /// When the text is something else.
    fn parse(text: &str) -> Result<Self, Wrong>;

    /// Writes it as YAML that reads back to the same.
    fn show(&self) -> String;
}

/// A word out of a few.
///
/// # Errors
/// When it is none of them: says which there are.
pub fn choose<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Wrong> {
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*value);
    }
    let names = choices.iter().map(|(name, _)| *name);
    let wrong = Wrong::new(format!(
        "is {}; it must be one of {}",
        excerpt(text),
        names.clone().collect::<Vec<_>>().join(", ")
    ));
    Err(match nearest(text, names) {
        Some(near) => wrong.hint(format!("did you mean `{near}`?")),
        None => wrong,
    })
}

/// The start of a text between backquotes.
#[must_use]
pub fn excerpt(text: &str) -> String {
    let start: String = text.chars().take(60).collect();
    let rest = if start.len() < text.len() { "..." } else { "" };
    format!("`{start}{rest}`")
}

/// Text as a YAML scalar: bare where every reader takes it for text, quoted otherwise.
#[must_use]
pub fn quote(text: &str) -> String {
    let inside = |c: char| c.is_ascii_alphanumeric() || "_-./+@:".contains(c);
    let bare = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(inside)
        && !text.ends_with(':')
        && !["true", "false", "yes", "no", "on", "off", "null", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if bare {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() || crate::telemetry::printable(c.encode_utf8(&mut [0; 4])) == "\u{fffd}" => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl Word for bool {
    const WHAT: &'static str = "true or false";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(Wrong::new(format!("is {}; it must be true or false", excerpt(text)))),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Word for String {
    const WHAT: &'static str = "text";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text.len() {
            0 => Err(Wrong::new("is empty")),
            1..=MAX_TEXT => Ok(text.to_owned()),
            _ => Err(Wrong::new(format!("is longer than {MAX_TEXT} bytes"))),
        }
    }

    fn show(&self) -> String {
        quote(self)
    }
}

impl Word for PathBuf {
    const WHAT: &'static str = "a path";
    const WHAT_MANY: &'static str = "paths";

    fn parse(text: &str) -> Result<Self, Wrong> {
        String::parse(text).map(Self::from)
    }

    fn show(&self) -> String {
        quote(&self.to_string_lossy())
    }
}

/// A TCP port; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port(pub u16);

impl Word for Port {
    const WHAT: &'static str = "a port";
    const WHAT_MANY: &'static str = "ports";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let port = text.parse().ok().filter(|port| *port > 0).map(Self);
        port.ok_or_else(|| Wrong::new(format!("holds {}; a port is from 1 to 65535", excerpt(text))))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Word for IpNet {
    const WHAT: &'static str = "an address or network";
    const WHAT_MANY: &'static str = "addresses and networks";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || Wrong::new(format!("holds {}, which is no address and no network", excerpt(text)));
        if let Ok(address) = text.parse::<std::net::IpAddr>() {
            return Ok(Self::from(address));
        }
        let net: Self =
            text.parse().ok().ok_or_else(|| wrong().hint("write 10.0.0.1, 10.0.0.0/8 or 2001:db8::/32"))?;
        if net.addr() != net.network() {
            let whole = net.trunc();
            return Err(wrong().hint(format!("bits are set behind the prefix: did you mean `{whole}`?")));
        }
        Ok(net)
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Word for Severity {
    const WHAT: &'static str = "low, medium, high or critical";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let choices = [
            ("low", Self::Low),
            ("medium", Self::Medium),
            ("high", Self::High),
            ("critical", Self::Critical),
        ];
        choose(&text.to_ascii_lowercase(), &choices)
    }

    fn show(&self) -> String {
        self.as_str().to_ascii_lowercase()
    }
}

impl Word for Algorithm {
    const WHAT: &'static str = "a signature algorithm";
    const WHAT_MANY: &'static str = "signature algorithms";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.eq_ignore_ascii_case("none") {
            return Err(
                Wrong::new("holds `none`, which is no signature (RFC 8725 section 2.1)").hint("remove it")
            );
        }
        let choices: Vec<_> = Self::ALL.into_iter().map(|alg| (alg.as_str(), alg)).collect();
        choose(text, &choices)
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}

/// Where to listen, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

impl Word for Listen {
    const WHAT: &'static str = "ADDRESS:PORT or off";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text == "off" {
            return Ok(Self(None));
        }
        let address = text.parse().ok().map(|address| Self(Some(address)));
        address.ok_or_else(|| {
            Wrong::new(format!("is {}; it must be ADDRESS:PORT or off", excerpt(text)))
                .hint("for example 127.0.0.1:9464")
        })
    }

    fn show(&self) -> String {
        self.0.map_or_else(|| "\"off\"".into(), |address| format!("\"{address}\""))
    }
}

/// Where captured sockets live: `auto` or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroup {
    /// The cgroup v2 root, found in /proc/self/mounts.
    Auto,
    /// This directory of a cgroup v2 tree and all below.
    At(PathBuf),
}

impl Cgroup {
    /// The directory, if one was named.
    #[must_use]
    pub fn path(&self) -> Option<&std::path::Path> {
        match self {
            Self::Auto => None,
            Self::At(path) => Some(path),
        }
    }
}

impl Word for Cgroup {
    const WHAT: &'static str = "auto, or a directory of a cgroup v2 tree";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "auto" => Ok(Self::Auto),
            path if path.starts_with('/') => PathBuf::parse(path).map(Self::At),
            _ => Err(Wrong::new(format!("is {}; it must be auto or an absolute path", excerpt(text)))),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto".into(),
            Self::At(path) => path.show(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::{self, Value};
    use proptest::prelude::*;

    #[test]
    fn looks_like_text_only_if_it_is_text() {
        let bare = ["a", "https://idp.example/", "/etc/x", "at+jwt", "env:NAME"];
        assert!(bare.iter().all(|text| quote(text) == *text));
        let quoted = [
            "",
            "80",
            "true",
            "No",
            "~",
            "- a",
            "a: b",
            "a:",
            "a #b",
            "10.0.0.0/8",
            "\u{202e}",
            "it's",
            "[x]",
        ];
        assert!(quoted.iter().all(|text| quote(text).starts_with('"')));
    }

    #[test]
    fn networks_are_strict() {
        assert_eq!(IpNet::parse("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        let wrong = IpNet::parse("10.1.2.3/8").unwrap_err();
        assert_eq!(wrong.hint.as_deref(), Some("bits are set behind the prefix: did you mean `10.0.0.0/8`?"));
        assert!(IpNet::parse("10.1.2/8").is_err());
    }

    proptest! {
        #[test]
        fn quoting_reads_back(text in "\\PC{1,20}|[\\x00-\\x7f]{1,20}") {
            let mut problems = Vec::new();
            let node = yaml::parse(&format!("k: [{}]\n", quote(&text)), 0, &mut problems);
            prop_assert!(problems.is_empty(), "{problems:?} {}", quote(&text));
            let Some(Value::Map(top)) = node.map(|n| n.value) else { panic!() };
            let Value::List(items) = &top[0].1.value else { panic!() };
            let Value::Scalar(read) = &items[0].value else { panic!("{items:?}") };
            prop_assert_eq!(read, &text);
        }
    }
}
