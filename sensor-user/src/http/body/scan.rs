//! A bounded scan of JSON that may be cut off anywhere: hands out the scalars of the outermost two levels.
//!
//! It reads on where lenient readers do, stops at the first thing that no reader takes, keeps no value, and decodes
//! nothing that nobody asks for: a password is passed over where it stands.

use arrayvec::ArrayString;
use zeroize::Zeroizing;

/// Deepest nesting that is followed: one bit each of a word, and as deep as the strictest usual readers go.
const MAX_DEPTH: u32 = 32;

/// Longest member name that is told apart; longer ones have no name.
pub(super) const MAX_NAME: usize = 64;

/// The name of a member.
pub(super) type Name = ArrayString<MAX_NAME>;

/// Where a scalar stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The member that holds the object in which it stands, if that is not the outermost.
    pub(super) outer: Option<&'a str>,
    /// Its own name.
    pub(super) name: &'a str,
    /// Which element of an outermost array it belongs to, from 0.
    pub(super) element: u32,
}

/// A scalar as it was written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scalar<'a> {
    /// What stands between the quotes, escapes and all; not whole if the text ends before the closing quote.
    Text { raw: &'a [u8], whole: bool },
    /// A number.
    Number(&'a [u8]),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Value,
    ValueOrEnd,
    Name,
    NameOrEnd,
    Colon,
    CommaOrEnd,
}

struct Walk<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
    /// Bit `d` is set if the container at depth `d + 1` is an object.
    objects: u64,
    names: [Name; 2],
    elements: u32,
}

/// Calls `visit` for every string and number that is a member of the outermost object, of an object in it, or of the
/// objects of an outermost array. Returns how many elements an outermost array was seen to have.
pub(super) fn walk(text: &[u8], visit: &mut dyn FnMut(&Place<'_>, Scalar<'_>)) -> u32 {
    let names = [Name::new(), Name::new()];
    let mut walk = Walk { text, at: 0, depth: 0, objects: 0, names, elements: 0 };
    let mut want = Want::Value;
    while let Some(next) = walk.step(want, visit) {
        want = next;
        if walk.depth == 0 {
            break;
        }
    }
    walk.elements
}

impl<'a> Walk<'a> {
    /// Reads one thing. None at the end, and at what nobody could read.
    fn step(&mut self, want: Want, visit: &mut dyn FnMut(&Place<'_>, Scalar<'_>)) -> Option<Want> {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        let byte = *self.text.get(self.at)?;
        match (want, byte) {
            (Want::ValueOrEnd, b']') | (Want::NameOrEnd, b'}') => Some(self.close()),
            (Want::CommaOrEnd, b'}') if self.in_object() => Some(self.close()),
            (Want::CommaOrEnd, b']') if !self.in_object() => Some(self.close()),
            (Want::CommaOrEnd, b',') => {
                self.at += 1;
                Some(if self.in_object() { Want::Name } else { Want::Value })
            }
            (Want::Colon, b':') => {
                self.at += 1;
                Some(Want::Value)
            }
            (Want::Name | Want::NameOrEnd, b'"') => self.name(),
            (Want::Value | Want::ValueOrEnd, _) => {
                self.elements += u32::from(self.depth == 1 && !self.in_object());
                self.value(byte, visit)
            }
            _ => None,
        }
    }

    fn in_object(&self) -> bool {
        self.is_object(self.depth)
    }

    /// Whether the container at this depth, from 1, is an object.
    fn is_object(&self, depth: u32) -> bool {
        depth > 0 && self.objects & (1 << (depth - 1)) != 0
    }

    fn open(&mut self, object: bool) -> Option<Want> {
        if self.depth == MAX_DEPTH {
            return None;
        }
        self.at += 1;
        let bit = 1 << self.depth;
        self.objects = if object { self.objects | bit } else { self.objects & !bit };
        self.depth += 1;
        Some(if object { Want::NameOrEnd } else { Want::ValueOrEnd })
    }

    fn close(&mut self) -> Want {
        self.at += 1;
        self.depth = self.depth.saturating_sub(1);
        Want::CommaOrEnd
    }

    /// Levels of objects around what is read; none if there is an array among them but for the outermost.
    fn level(&self) -> Option<usize> {
        let base = u32::from(!self.is_object(1));
        let level = self.depth.checked_sub(base)?;
        (matches!(level, 1 | 2) && (1..=level).all(|l| self.is_object(base + l))).then_some(level as usize)
    }

    fn name(&mut self) -> Option<Want> {
        let (raw, whole) = self.string();
        if let Some(level) = self.level()
            && let Some(name) = self.names.get_mut(level - 1)
        {
            *name = plain_name(raw);
        }
        whole.then_some(Want::Colon)
    }

    fn value(&mut self, byte: u8, visit: &mut dyn FnMut(&Place<'_>, Scalar<'_>)) -> Option<Want> {
        match byte {
            b'{' => self.open(true),
            b'[' => self.open(false),
            b'"' => {
                let (raw, whole) = self.string();
                self.tell(Scalar::Text { raw, whole }, visit);
                whole.then_some(Want::CommaOrEnd)
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                let rest = self.text.get(self.at..)?;
                let len = rest.iter().position(|b| b",]} \t\r\n".contains(b))?;
                self.at += len;
                if !byte.is_ascii_alphabetic() {
                    self.tell(Scalar::Number(rest.get(..len)?), visit);
                }
                Some(Want::CommaOrEnd)
            }
            _ => None,
        }
    }

    fn tell(&self, scalar: Scalar<'_>, visit: &mut dyn FnMut(&Place<'_>, Scalar<'_>)) {
        let element = self.elements.saturating_sub(1);
        let [first, second] = &self.names;
        match self.level() {
            Some(1) => visit(&Place { outer: None, name: first, element }, scalar),
            Some(2) => visit(&Place { outer: Some(first), name: second, element }, scalar),
            _ => {}
        }
    }

    /// `self.at` is at the opening quote. What is between the quotes, and whether there is a closing one.
    fn string(&mut self) -> (&'a [u8], bool) {
        let start = self.at + 1;
        let mut at = start;
        loop {
            let rest = self.text.get(at..).unwrap_or_default();
            match memchr::memchr2(b'"', b'\\', rest) {
                Some(found) if rest.get(found) == Some(&b'"') => {
                    self.at = at + found + 1;
                    return (self.text.get(start..at + found).unwrap_or_default(), true);
                }
                Some(found) => at += found + 2,
                None => {
                    self.at = self.text.len();
                    return (self.text.get(start..).unwrap_or_default(), false);
                }
            }
        }
    }
}

fn plain_name(raw: &[u8]) -> Name {
    let text = unescaped(raw);
    std::str::from_utf8(&text).ok().and_then(|name| Name::from(name).ok()).unwrap_or_default()
}

/// A string with its escapes resolved; what is no escape stays as it is. At most as long as it was.
pub(super) fn unescaped(raw: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(raw.len()));
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(rest.get(..at).unwrap_or_default());
        let escape = rest.get(at + 1..).unwrap_or_default();
        let used = match escape.first() {
            Some(b'u') => push_unicode(escape, &mut out),
            Some(other) => {
                out.push(match other {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'b' => 8,
                    b'f' => 12,
                    other => *other,
                });
                1
            }
            None => 0,
        };
        rest = escape.get(used..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

/// `escape` begins with the `u`. Appends the character, and returns how many bytes it was written in.
fn push_unicode(escape: &[u8], out: &mut Vec<u8>) -> usize {
    let unit = |at: usize| -> Option<u32> {
        let digits = std::str::from_utf8(escape.get(at..at + 4)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let Some(high) = unit(1) else {
        out.push(b'u');
        return 1;
    };
    let low = (escape.get(5..7) == Some(b"\\u")).then(|| unit(7)).flatten();
    let (code, used) = match (high, low) {
        (0xd800..=0xdbff, Some(low @ 0xdc00..=0xdfff)) => {
            (0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00), 11)
        }
        _ => (high, 5),
    };
    let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    used
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn walked(text: &[u8]) -> (Vec<String>, u32) {
        let mut seen = Vec::new();
        let elements = walk(text, &mut |place, scalar| {
            let value = match scalar {
                Scalar::Text { raw, whole } => {
                    format!("{}{}", String::from_utf8_lossy(&unescaped(raw)), if whole { "" } else { "~" })
                }
                Scalar::Number(digits) => format!("#{}", String::from_utf8_lossy(digits)),
            };
            let outer = place.outer.map_or(String::new(), |outer| format!("{outer}."));
            seen.push(format!("{}:{outer}{}={value}", place.element, place.name));
        });
        (seen, elements)
    }

    #[test]
    fn hands_out_two_levels_and_nothing_of_arrays() {
        let text = br#" {"a":"x\"y","b":{"c":-1.5e3,"d":{"e":"no"},"f":["no",{"g":"no"}],"h":"z"},"i":[["no"]],"j":true,"k":"w"}junk"#;
        assert_eq!(
            walked(text),
            (
                vec!["0:a=x\"y", "0:b.c=#-1.5e3", "0:b.h=z", "0:k=w"].into_iter().map(String::from).collect(),
                0
            )
        );
    }

    #[test]
    fn an_outermost_array_is_a_batch() {
        let (seen, elements) = walked(br#"[{"a":"1"},{"a":"2","v":{"b":"3"}},["no",{"c":"no"}],null]"#);
        assert_eq!(seen, ["0:a=1", "1:a=2", "1:v.b=3"]);
        assert_eq!(elements, 4);
    }

    #[test]
    fn what_is_cut_is_said_so_and_numbers_need_an_end() {
        assert_eq!(walked(br#"{"a":"x","b":"y"#).0, ["0:a=x", "0:b=y~"]);
        assert_eq!(walked(br#"{"a":12"#).0, [""; 0]);
        assert_eq!(walked(br#"{"a":"x\"#).0, ["0:a=x~"]);
    }

    #[test]
    fn escapes_are_resolved_as_readers_do() {
        assert_eq!(&*unescaped(br"\u0061\ud83d\ude00\n\/"), "a\u{1f600}\n/".as_bytes());
        assert_eq!(&*unescaped(br"\ud83dx\u00zz"), "\u{fffd}xu00zz".as_bytes());
    }

    #[test]
    fn deep_nesting_ends_the_scan() {
        assert_eq!(walked("{\"a\":".repeat(100_000).as_bytes()).0, [""; 0]);
        assert_eq!(walked("[".repeat(100_000).as_bytes()).1, 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text in prop::collection::vec(prop::sample::select(br#"{}[]",:\ua0-t x"#.to_vec()), 0..200)) {
            walked(&text);
        }

        #[test]
        fn sees_the_strings_that_serde_json_sees(text in "[a-z\"\\\\\n\u{e9}]{0,20}", number in any::<i32>()) {
            let value = serde_json::json!({"a": text, "b": {"c": text, "n": number}, "z": [text]});
            let (seen, _) = walked(value.to_string().as_bytes());
            prop_assert_eq!(seen, [format!("0:a={text}"), format!("0:b.c={text}"), format!("0:b.n=#{number}")]);
        }
    }
}
