//! Lists in files: names, addresses, and events of MISP. Reading is pure; the runtime brings the bytes.
//!
//! A plain list has one entry a line; what follows `#` is a comment (in lists of addresses also `;`). A line that makes
//! no sense is passed over, counted and named; a file of nothing else is refused.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Largest file: a million addresses, or a feed of MISP events.
pub const MAX_BYTES: u64 = 64 << 20;

/// Most entries of one file; each takes 8 to 100 bytes.
pub const MAX_ENTRIES: usize = 1_000_000;

/// Longest name, in bytes: as much as is kept of a subject.
const MAX_NAME: usize = 256;

/// Lines that are named when they are wrong; the others are counted.
const MAX_NAMED: usize = 5;

/// Shortest prefixes that an attacker's network may have: shorter ones are most of the internet, and a mistake.
const MIN_PREFIX: (u8, u8) = (8, 16);

/// Why a file is not used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Too many entries.
    #[error("holds more than {MAX_ENTRIES} entries")]
    TooMany,
    /// Not one line makes sense.
    #[error("holds no entry, and {} that make no sense ({})", lines(.0.count), .0)]
    Nothing(Passed),
    /// Not JSON, or not MISP's.
    #[error("is no MISP event or feed: {0}")]
    Json(String),
}

fn lines(count: usize) -> String {
    format!("{count} line{}", if count == 1 { "" } else { "s" })
}

/// What was passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// How many lines or attributes.
    pub count: usize,
    /// The first of them: line and reason.
    pub named: Vec<(usize, &'static str)>,
}

impl Passed {
    fn note(&mut self, line: usize, why: &'static str) {
        self.count += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push((line, why));
        }
    }
}

/// `line 3: no address; line 9: too long; and 7 more`.
impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (line, why)) in self.named.iter().enumerate() {
            let gap = if index == 0 { "" } else { "; " };
            if *line == 0 { write!(f, "{gap}{why}")? } else { write!(f, "{gap}line {line}: {why}")? }
        }
        match self.count - self.named.len() {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Names, one a line: accounts or token ids. As they are written, but for white space around them.
///
/// # Errors
/// When there are too many, or nothing but nonsense.
pub fn names(bytes: &[u8]) -> Result<(Vec<Box<str>>, Passed), ListError> {
    let name = |line: &[u8]| {
        let text = std::str::from_utf8(line).map_err(|_not_text| "not UTF-8")?;
        match text {
            _ if text.len() > MAX_NAME => Err("longer than 256 bytes"),
            _ if text.chars().any(char::is_control) => Err("holds control characters"),
            _ => Ok(text.into()),
        }
    };
    plain(bytes, |line| line, name)
}

/// Addresses and networks: one a line, or events of MISP if the file begins with `{` or `[`.
///
/// # Errors
/// When there are too many, nothing but nonsense, or broken JSON.
pub fn networks(bytes: &[u8]) -> Result<(Vec<IpNet>, Passed), ListError> {
    match bytes.trim_ascii_start().first() {
        Some(b'{' | b'[') => misp(bytes),
        _ => plain(bytes, first_word, |word| network(std::str::from_utf8(word).unwrap_or_default())),
    }
}

fn plain<T>(
    bytes: &[u8],
    entry: impl Fn(&[u8]) -> &[u8],
    read: impl Fn(&[u8]) -> Result<T, &'static str>,
) -> Result<(Vec<T>, Passed), ListError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let (mut found, mut passed) = (Vec::new(), Passed::default());
    for (number, line) in (1..).zip(bytes.split(|b| *b == b'\n')) {
        let text = entry(without_comment(line).trim_ascii());
        if text.is_empty() {
            continue;
        }
        match read(text) {
            Ok(_) if found.len() == MAX_ENTRIES => return Err(ListError::TooMany),
            Ok(value) => found.push(value),
            Err(why) => passed.note(number, why),
        }
    }
    if found.is_empty() && passed.count > 0 {
        return Err(ListError::Nothing(passed));
    }
    Ok((found, passed))
}

/// What stands before a `#` at the start of the line or after white space: names may hold one.
fn without_comment(line: &[u8]) -> &[u8] {
    let begins = |at: &usize| {
        at.checked_sub(1).and_then(|before| line.get(before)).is_none_or(u8::is_ascii_whitespace)
    };
    let at = memchr::memchr_iter(b'#', line).find(begins).unwrap_or(line.len());
    line.get(..at).unwrap_or_default()
}

/// Address lists put more behind the address: `192.0.2.0/24 ; SBL1`, `192.0.2.1,botnet`.
fn first_word(line: &[u8]) -> &[u8] {
    line.split(|b| b.is_ascii_whitespace() || matches!(b, b';' | b',')).next().unwrap_or_default()
}

fn network(text: &str) -> Result<IpNet, &'static str> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let net: IpNet = text.parse().map_err(|_no_network| "no address and no network")?;
    let shortest = if net.network().is_ipv4() { MIN_PREFIX.0 } else { MIN_PREFIX.1 };
    match net {
        _ if net.addr() != net.network() => Err("bits are set behind the prefix"),
        _ if net.prefix_len() < shortest => Err("a network so large is a mistake"),
        _ => Ok(net),
    }
}

/// Addresses in events of MISP: `{"Event": ...}`, a list of them, what a search returns, or attributes alone.
fn misp(bytes: &[u8]) -> Result<(Vec<IpNet>, Passed), ListError> {
    let mut gathered = Gathered::default();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let result = Walk(&mut gathered).deserialize(&mut reader).and_then(|()| reader.end());
    if gathered.full {
        return Err(ListError::TooMany);
    }
    result.map_err(|error| ListError::Json(error.to_string()))?;
    if gathered.found.is_empty() && gathered.attributes == 0 {
        return Err(ListError::Json("it has no attributes".to_owned()));
    }
    Ok((gathered.found, gathered.passed))
}

/// What the events hold.
#[derive(Default)]
struct Gathered {
    found: Vec<IpNet>,
    passed: Passed,
    /// Attributes of any type.
    attributes: usize,
    full: bool,
}

/// One attribute, as far as it has been read.
#[derive(Default)]
struct Attribute {
    kind: Option<String>,
    value: Option<String>,
    unfit: bool,
}

impl Gathered {
    fn take(&mut self, attribute: Attribute) {
        let (Some(kind), Some(value)) = (attribute.kind, attribute.value) else { return };
        self.attributes += 1;
        let text = match kind.as_str() {
            "ip-src" | "ip-dst" => value.as_str(),
            // MISP joins the two with a bar.
            "ip-src|port" | "ip-dst|port" => value.split('|').next().unwrap_or_default(),
            _ => return,
        };
        if attribute.unfit {
            return;
        }
        match network(text.trim()) {
            Ok(net) if is_private(net.network()) => self.passed.note(0, "a private address"),
            Ok(_) if self.found.len() == MAX_ENTRIES => self.full = true,
            Ok(net) => self.found.push(net),
            Err(why) => self.passed.note(0, why),
        }
    }
}

/// Addresses that mean somebody else here than where the event was written.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local()
        }
    }
}

/// Walks through JSON of any shape without keeping it, and gathers what looks like an attribute: a mapping with `type`
/// and `value`. The depth is bounded by the parser (128).
struct Walk<'g>(&'g mut Gathered);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event of MISP")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut attribute = Attribute::default();
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match &*key {
                "type" => attribute.kind = map.next_value_seed(Text)?,
                "value" => attribute.value = map.next_value_seed(Text)?,
                // Not for detection, or withdrawn.
                "to_ids" => attribute.unfit |= map.next_value_seed(Text)?.as_deref() == Some("false"),
                "deleted" => attribute.unfit |= map.next_value_seed(Text)?.as_deref() == Some("true"),
                // Events of others that this one only points to.
                "RelatedEvent" | "Galaxy" | "Tag" => drop(map.next_value::<IgnoredAny>()?),
                _ => map.next_value_seed(Walk(self.0))?,
            }
        }
        self.0.take(attribute);
        if self.0.full { Err(A::Error::custom("too many")) } else { Ok(()) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Walk(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A short text, or a truth as text; anything else is passed over.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Option<String>, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok((text.len() <= MAX_NAME).then(|| text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(text: &str) -> (Vec<String>, Passed) {
        let (nets, passed) = networks(text.as_bytes()).unwrap();
        (nets.iter().map(ToString::to_string).collect(), passed)
    }

    #[test]
    fn names_stand_alone_on_their_lines() {
        let text = "\u{feff}# leavers\nalice\r\n  Bob@shop.example \t# since May\n\n#\nc#1\n\u{7}\n";
        let (found, passed) = names(text.as_bytes()).unwrap();
        assert_eq!(found.iter().map(AsRef::as_ref).collect::<Vec<_>>(), ["alice", "Bob@shop.example", "c#1"]);
        assert_eq!(passed.to_string(), "line 7: holds control characters");
    }

    #[test]
    fn nonsense_is_counted_and_named() {
        let (found, passed) =
            nets("192.0.2.1\nexample.com\n10.1.2.3/8\n0.0.0.0/0\n2001:db8::/32 ; SBL9\n::/0\nx\ny\nz\n");
        assert_eq!(found, ["192.0.2.1/32", "2001:db8::/32"]);
        assert_eq!(
            passed.to_string(),
            "line 2: no address and no network; line 3: bits are set behind the prefix; line 4: a network so large is a \
             mistake; line 6: a network so large is a mistake; line 7: no address and no network; and 2 more"
        );
    }

    #[test]
    fn a_file_of_nothing_but_nonsense_is_refused_and_an_empty_one_is_empty() {
        assert_eq!(
            networks(b"<html>\nnot found\n").unwrap_err().to_string(),
            "holds no entry, and 2 lines that make no sense (line 1: no address and no network; line 2: no address and \
             no network)"
        );
        assert_eq!(nets("# nothing yet\n"), (vec![], Passed::default()));
        assert!(names(&[0xff, 0xfe]).is_err());
    }

    #[test]
    fn events_of_misp_are_read_in_every_shape() {
        let attributes = r#"[
            {"value": "192.0.2.1", "type": "ip-src", "to_ids": true},
            {"type": "ip-dst|port", "value": "192.0.2.2|443", "category": "Network activity"},
            {"type": "ip-src", "value": "192.0.2.3", "to_ids": false},
            {"type": "ip-src", "value": "192.0.2.4", "deleted": true},
            {"type": "ip-src", "value": "10.0.0.1"},
            {"type": "ip-dst", "value": "broken"},
            {"type": "domain", "value": "192.0.2.5"},
            {"type": ["ip-src"], "value": {"a": [1, 2.5, null, -3]}}]"#;
        let object = r#"[{"name": "x", "Attribute": [{"type": "ip-dst", "value": "2001:db8::/48"}]}]"#;
        let related = r#"[{"Event": {"Attribute": [{"type": "ip-src", "value": "192.0.2.9"}]}}]"#;
        let event = format!(
            r#"{{"Event": {{"RelatedEvent": {related}, "Attribute": {attributes}, "Object": {object}}}}}"#
        );
        for text in [event.clone(), format!("[{event}]"), format!(r#"{{"response": [{event}]}}"#)] {
            let (found, passed) = nets(&text);
            assert_eq!(found, ["192.0.2.1/32", "192.0.2.2/32", "2001:db8::/48"]);
            assert_eq!(passed.to_string(), "a private address; no address and no network");
        }
        assert_eq!(nets(&format!(r#"{{"response": {{"Attribute": {attributes}}}}}"#)).0.len(), 2);
    }

    #[test]
    fn broken_json_is_refused_with_its_place() {
        let wrong =
            networks(b"{\"Event\": {\"Attribute\": [\n{\"type\": \"ip-src\"").unwrap_err().to_string();
        assert!(wrong.starts_with("is no MISP event or feed: EOF") && wrong.contains("line 2"), "{wrong}");
        assert!(networks(b"{\"manifest\": 1}").is_err());
        assert!(networks(&b"[".repeat(100_000)).is_err());
    }

    #[test]
    fn too_many_are_refused() {
        let text = "192.0.2.1\n".repeat(MAX_ENTRIES + 1);
        assert_eq!(networks(text.as_bytes()), Err(ListError::TooMany));
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), open in "[\\[{]?") {
            let bytes = [open.as_bytes(), &bytes].concat();
            let _ = names(&bytes);
            let _ = networks(&bytes);
        }
    }
}
