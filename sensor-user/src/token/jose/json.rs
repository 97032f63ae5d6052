//! A JSON reader that says where readers part (RFC 8259, I-JSON of RFC 7493).
//!
//! Libraries disagree on duplicate members, lone surrogates, huge numbers, bytes after the end. An attacker who
//! finds such a gap between two of them shows one claim to the gateway and another to the service. So this reader
//! records every departure from strict I-JSON as a flaw and, where a lax reader would go on, goes on as well: what
//! it hands out is what the lax reader sees. It stops for good only where no common reader could continue.
//!
//! Memory: one stack frame a level, at most [`MAX_DEPTH`]; eight bytes a member, at most [`MAX_MEMBERS`] an object.

use std::borrow::Cow;
use std::hash::BuildHasher;

use smallvec::SmallVec;

use crate::token::facts::Flaws;

/// Deepest nesting that is followed. Real headers and claims nest three or four deep; Java's and .NET's readers stop
/// at 64 to 1000, and recursion without a limit is itself an attack.
pub const MAX_DEPTH: u8 = 32;

/// Most members of one object. Azure AD's group overage limit of 200 entries is the largest real figure we know of.
pub const MAX_MEMBERS: usize = 256;

/// A number as it was written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// An integer that fits 64 bits.
    Integer(i64),
    /// Anything else, finite.
    Real(f64),
    /// Too large for a double (`1e999`), or one of the words `NaN` and `Infinity`.
    Unbounded,
}

/// One value. Nested values are handed out as the text that holds them, already checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string, escapes resolved.
    Text(Cow<'a, str>),
    /// An array, brackets included: see [`elements`].
    Array(&'a [u8]),
    /// An object, braces included: see [`members`].
    Object(&'a [u8]),
}

/// How a text departs from strict JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What was wrong.
    pub flaws: Flaws,
    /// The first departure, in words.
    pub detail: Option<&'static str>,
    /// Whether the text begins as the asked-for kind: an object, or an array.
    pub begun: bool,
    /// Whether it was read to its end, so that only recoverable departures were met.
    pub complete: bool,
}

impl Report {
    /// Whether a strict reader accepts the text.
    #[must_use]
    pub const fn is_strict(&self) -> bool {
        self.complete && self.flaws.is_empty()
    }
}

/// Reads an object and calls `each` for every member in order; of duplicates the last call counts, as in most readers.
pub fn members<'a>(text: &'a [u8], each: &mut dyn FnMut(Cow<'a, str>, Value<'a>)) -> Report {
    Reader::over(text).whole(b'{', |reader| reader.object(1, Some(each)))
}

/// Reads an array and calls `each` for every element.
pub fn elements<'a>(text: &'a [u8], each: &mut dyn FnMut(Value<'a>)) -> Report {
    Reader::over(text).whole(b'[', |reader| reader.array(1, Some(each)))
}

/// No common reader could continue.
struct Stop;

type Read<T> = Result<T, Stop>;

struct Reader<'a> {
    text: &'a [u8],
    /// Invariant: `at <= text.len()`.
    at: usize,
    report: Report,
    hasher: foldhash::fast::FixedState,
}

impl<'a> Reader<'a> {
    fn over(text: &'a [u8]) -> Self {
        let hasher = foldhash::fast::FixedState::with_seed(0x6a73_6f6e);
        Self { text, at: 0, report: Report::default(), hasher }
    }

    fn whole(mut self, open: u8, read: impl FnOnce(&mut Self) -> Read<()>) -> Report {
        if self.text.starts_with(b"\xef\xbb\xbf") {
            self.note(Flaws::BAD_JSON, "byte order mark before JSON");
            self.at = 3;
        }
        self.space();
        if self.peek() != Some(open) {
            self.note(Flaws::BAD_JSON, "not the JSON kind that belongs there");
            return self.report;
        }
        self.report.begun = true;
        if read(&mut self).is_ok() {
            self.report.complete = true;
            self.space();
            if self.at < self.text.len() {
                self.note(Flaws::BAD_JSON, "bytes after the JSON text");
            }
        }
        self.report
    }

    fn note(&mut self, flaw: Flaws, detail: &'static str) {
        self.report.flaws.insert(flaw);
        self.report.detail.get_or_insert(detail);
    }

    fn stop<T>(&mut self, flaw: Flaws, detail: &'static str) -> Read<T> {
        self.note(flaw, detail);
        Err(Stop)
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> bool {
        let hit = self.peek() == Some(wanted);
        self.at += usize::from(hit);
        hit
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// `self.at` is at the opening brace.
    fn object(&mut self, depth: u8, mut each: Option<&mut dyn FnMut(Cow<'a, str>, Value<'a>)>) -> Read<()> {
        if depth > MAX_DEPTH {
            return self.stop(Flaws::TOO_DEEP, "JSON nests deeper than 32");
        }
        self.at += 1;
        let mut seen: SmallVec<[u64; 24]> = SmallVec::new();
        self.space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return self.stop(Flaws::BAD_JSON, "a member without a name");
            }
            let name = self.string()?;
            self.member_name(&mut seen, &name)?;
            self.space();
            if !self.take(b':') {
                return self.stop(Flaws::BAD_JSON, "a member without a value");
            }
            let value = self.value(depth)?;
            if let Some(each) = each.as_mut() {
                each(name, value);
            }
            self.space();
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return self.stop(Flaws::BAD_JSON, "an object that does not end");
            }
        }
    }

    fn member_name(&mut self, seen: &mut SmallVec<[u64; 24]>, name: &str) -> Read<()> {
        let hash = self.hasher.hash_one(name);
        if seen.contains(&hash) {
            self.note(Flaws::DUPLICATE_MEMBERS, "a member appears twice");
        } else if seen.len() == MAX_MEMBERS {
            return self.stop(Flaws::BAD_JSON, "an object of more than 256 members");
        } else {
            seen.push(hash);
        }
        Ok(())
    }

    /// `self.at` is at the opening bracket.
    fn array(&mut self, depth: u8, mut each: Option<&mut dyn FnMut(Value<'a>)>) -> Read<()> {
        if depth > MAX_DEPTH {
            return self.stop(Flaws::TOO_DEEP, "JSON nests deeper than 32");
        }
        self.at += 1;
        self.space();
        if self.take(b']') {
            return Ok(());
        }
        loop {
            let value = self.value(depth)?;
            if let Some(each) = each.as_mut() {
                each(value);
            }
            self.space();
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return self.stop(Flaws::BAD_JSON, "an array that does not end");
            }
        }
    }

    fn value(&mut self, depth: u8) -> Read<Value<'a>> {
        self.space();
        let from = self.at;
        match self.peek() {
            Some(b'"') => Ok(Value::Text(self.string()?)),
            Some(b'{') => {
                self.object(depth + 1, None)?;
                Ok(Value::Object(self.since(from)))
            }
            Some(b'[') => {
                self.array(depth + 1, None)?;
                Ok(Value::Array(self.since(from)))
            }
            Some(_) => self.word(),
            None => self.stop(Flaws::BAD_JSON, "JSON ends too early"),
        }
    }

    fn since(&self, from: usize) -> &'a [u8] {
        self.text.get(from..self.at).unwrap_or_default()
    }

    /// A literal or a number: everything up to the next structural byte.
    fn word(&mut self) -> Read<Value<'a>> {
        let from = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')) {
            self.at += 1;
        }
        match self.since(from) {
            b"null" => Ok(Value::Null),
            b"true" => Ok(Value::Bool(true)),
            b"false" => Ok(Value::Bool(false)),
            b"NaN" | b"Infinity" | b"-Infinity" => {
                self.note(Flaws::BAD_JSON, "a number that is not finite");
                Ok(Value::Number(Number::Unbounded))
            }
            word => match number(word) {
                Some((number, strict)) => {
                    if !strict {
                        self.note(Flaws::BAD_JSON, "a number that is not JSON's");
                    }
                    Ok(Value::Number(number))
                }
                None => self.stop(Flaws::BAD_JSON, "a word that is not JSON's"),
            },
        }
    }

    /// `self.at` is at the opening quote.
    fn string(&mut self) -> Read<Cow<'a, str>> {
        self.at += 1;
        let from = self.at;
        let rest = self.text.get(from..).unwrap_or_default();
        let Some(length) = memchr::memchr2(b'"', b'\\', rest) else {
            return self.stop(Flaws::BAD_JSON, "a string that does not end");
        };
        self.at += length;
        if self.take(b'"') {
            let raw = rest.get(..length).unwrap_or_default();
            self.check_controls(raw);
            return Ok(self.utf8(raw));
        }
        self.escaped(from).map(Cow::Owned)
    }

    /// A string whose first escape is at `self.at`.
    fn escaped(&mut self, from: usize) -> Read<String> {
        let mut out = self.utf8(self.since(from)).into_owned();
        loop {
            let from = self.at;
            let rest = self.text.get(from..).unwrap_or_default();
            let Some(length) = memchr::memchr2(b'"', b'\\', rest) else {
                return self.stop(Flaws::BAD_JSON, "a string that does not end");
            };
            let raw = rest.get(..length).unwrap_or_default();
            self.check_controls(raw);
            out.push_str(&self.utf8(raw));
            self.at += length;
            if self.take(b'"') {
                return Ok(out);
            }
            self.at += 1;
            let character = self.escape()?;
            out.push(character);
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Read<char> {
        let Some(kind) = self.peek() else {
            return self.stop(Flaws::BAD_JSON, "a string that does not end");
        };
        self.at += 1;
        Ok(match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => {
                self.note(Flaws::BAD_JSON, "an escape that is not JSON's");
                char::from(kind)
            }
        })
    }

    fn unicode_escape(&mut self) -> Read<char> {
        let first = self.hex4()?;
        if let Some(character) = char::from_u32(first) {
            return Ok(character);
        }
        let low = if (0xd800..0xdc00).contains(&first) && self.text.get(self.at..self.at + 2) == Some(b"\\u")
        {
            let back = self.at;
            self.at += 2;
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                Some(second)
            } else {
                self.at = back;
                None
            }
        } else {
            None
        };
        let pair = low.and_then(|low| char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00)));
        Ok(pair.unwrap_or_else(|| {
            self.note(Flaws::BAD_JSON, "half a surrogate pair");
            char::REPLACEMENT_CHARACTER
        }))
    }

    fn hex4(&mut self) -> Read<u32> {
        let digits = self.text.get(self.at..self.at + 4).unwrap_or_default();
        let mut value = 0;
        for digit in digits {
            let Some(digit) = char::from(*digit).to_digit(16) else {
                return self.stop(Flaws::BAD_JSON, "an escape that is not JSON's");
            };
            value = value << 4 | digit;
        }
        if digits.len() < 4 {
            return self.stop(Flaws::BAD_JSON, "a string that does not end");
        }
        self.at += 4;
        Ok(value)
    }

    fn check_controls(&mut self, raw: &[u8]) {
        if raw.iter().any(|b| *b < 0x20) {
            self.note(Flaws::BAD_JSON, "a control character inside a string");
        }
    }

    fn utf8(&mut self, raw: &'a [u8]) -> Cow<'a, str> {
        let text = String::from_utf8_lossy(raw);
        if matches!(text, Cow::Owned(_)) {
            self.note(Flaws::BAD_JSON, "not UTF-8");
        }
        text
    }
}

/// Reads a number; the flag says whether it follows RFC 8259 section 6.
fn number(word: &[u8]) -> Option<(Number, bool)> {
    let text = std::str::from_utf8(word).ok()?;
    if !word.iter().any(u8::is_ascii_digit) {
        return None;
    }
    let strict = is_json_number(word);
    if let Ok(integer) = text.parse::<i64>() {
        return Some((Number::Integer(integer), strict));
    }
    let real: f64 = text.parse().ok()?;
    Some((if real.is_finite() { Number::Real(real) } else { Number::Unbounded }, strict))
}

/// `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`
fn is_json_number(word: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
    let mut rest = word.strip_prefix(b"-").unwrap_or(word);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest.starts_with(b"0")) {
        return false;
    }
    rest = rest.get(whole..).unwrap_or_default();
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = fraction.get(length..).unwrap_or_default();
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let exponent =
            exponent.strip_prefix(b"-").or_else(|| exponent.strip_prefix(b"+")).unwrap_or(exponent);
        let length = digits(exponent);
        return length > 0 && length == exponent.len();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> (Vec<(String, String)>, Report) {
        let mut out = Vec::new();
        let report = members(text, &mut |name, value| out.push((name.into_owned(), format!("{value:?}"))));
        (out, report)
    }

    #[test]
    fn hands_out_members_of_a_strict_object() {
        let (members, report) =
            read(br#" {"a":1,"b":"x\u00e9\ud83d\ude00\n","c":[1,{"d":null}],"e":-0.5e3} "#);
        assert!(report.is_strict(), "{report:?}");
        let names: Vec<_> = members.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "e"]);
        assert_eq!(members[1].1, "Text(\"xé😀\\n\")");
        assert_eq!(members[3].1, "Number(Real(-500.0))");
    }

    #[test]
    fn says_where_readers_part() {
        let cases: &[(&[u8], Flaws)] = &[
            (br#"{"a":1,"a":2}"#, Flaws::DUPLICATE_MEMBERS),
            (br#"{"a":1,"\u0061":2}"#, Flaws::DUPLICATE_MEMBERS),
            (br#"{"a":{"b":1,"b":2}}"#, Flaws::DUPLICATE_MEMBERS),
            (br#"{"a":1}x"#, Flaws::BAD_JSON),
            (br#"{"a":1}{"a":2}"#, Flaws::BAD_JSON),
            (b"\xef\xbb\xbf{}", Flaws::BAD_JSON),
            (br#"{"a":01}"#, Flaws::BAD_JSON),
            (br#"{"a":+1}"#, Flaws::BAD_JSON),
            (br#"{"a":.5}"#, Flaws::BAD_JSON),
            (br#"{"a":5.}"#, Flaws::BAD_JSON),
            (br#"{"a":NaN}"#, Flaws::BAD_JSON),
            (br#"{"a":1,}"#, Flaws::BAD_JSON),
            (br#"{"a":"\ud800"}"#, Flaws::BAD_JSON),
            (br#"{"a":"\ud800\u0041"}"#, Flaws::BAD_JSON),
            (br#"{"a":"\x41"}"#, Flaws::BAD_JSON),
            (b"{\"a\":\"\n\"}", Flaws::BAD_JSON),
            (b"{\"a\":\"\xff\"}", Flaws::BAD_JSON),
            (b"{\"a\":\"\xc0\x80\"}", Flaws::BAD_JSON),
            (br"{'a':1}", Flaws::BAD_JSON),
            (br#"{"a":tRue}"#, Flaws::BAD_JSON),
            (br#"{"a":0x10}"#, Flaws::BAD_JSON),
            (br#"{"a":1"#, Flaws::BAD_JSON),
            (br#"{"a":1/**/}"#, Flaws::BAD_JSON),
            (br"[]", Flaws::BAD_JSON),
            (b"", Flaws::BAD_JSON),
        ];
        for (text, flaw) in cases {
            let (_, report) = read(text);
            assert!(report.flaws.intersects(*flaw), "{:?}: {report:?}", String::from_utf8_lossy(text));
            assert!(report.detail.is_some());
        }
    }

    #[test]
    fn keeps_numbers_in_range() {
        let cases = [
            ("9223372036854775807", Number::Integer(i64::MAX)),
            ("1e999", Number::Unbounded),
            ("-1e999", Number::Unbounded),
            ("1.5", Number::Real(1.5)),
            ("-7", Number::Integer(-7)),
        ];
        for (word, expected) in cases {
            assert_eq!(number(word.as_bytes()), Some((expected, true)), "{word}");
        }
    }

    #[test]
    fn stops_at_the_depth_and_member_limits() {
        let deep = [b"{\"a\":".repeat(40), b"1".to_vec(), b"}".repeat(40)].concat();
        assert!(read(&deep).1.flaws.intersects(Flaws::TOO_DEEP));
        let fits = [b"{\"a\":".repeat(32), b"1".to_vec(), b"}".repeat(32)].concat();
        assert!(read(&fits).1.is_strict());
        let many = (0..300).map(|i| format!("\"m{i}\":0")).collect::<Vec<_>>().join(",");
        assert!(!read(format!("{{{many}}}").as_bytes()).1.is_strict());
    }

    proptest! {
        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&text);
            let _ = elements(&text, &mut |_| {});
        }

        /// Whatever we call strict, `serde_json` reads as well, with the same members.
        #[test]
        fn strict_texts_are_valid_elsewhere(text in r#"\{("[ab]":(1|-0|01|1e5|"x\\n"|null|\[1,2\]|\{"c":3\}),?){0,3}\}"#) {
            let (members, report) = read(text.as_bytes());
            if report.is_strict() {
                let other: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(other.len(), members.len());
            }
        }
    }
}
