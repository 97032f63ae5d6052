//! The words of a condition (CEL's lexis, cel-spec langdef), each with its place.
//!
//! What a rule does not need is refused by name: floating point, unsigned numbers, bytes, triple quotes.

use std::ops::Range;

/// Where something is: bytes of the condition's text.
pub type Place = Range<usize>;

/// What is wrong with a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Where.
    pub place: Place,
    /// What, in one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Complaint {
    /// A complaint.
    pub fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// A name.
    Name(String),
    /// A number.
    Int(i64),
    /// A text, its escapes resolved.
    Text(String),
    /// An operator or bracket.
    Sign(&'static str),
    /// The end.
    End,
}

/// Longest first, so that `<=` is not `<` and `=`.
const SIGNS: [&str; 24] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "+", "-", "*", "/", "%", "(", ")", "[", "]", ".", ",",
    "?", ":", "{", "}",
];

/// Takes a text apart.
///
/// # Errors
/// At the first character that begins no word.
pub fn words(text: &str) -> Result<Vec<(Word, Place)>, Complaint> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..) {
        let blank = rest.len() - rest.trim_start().len();
        if blank > 0 {
            at += blank;
            continue;
        }
        let Some(first) = rest.chars().next() else { break };
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        let (word, length) = match first {
            '"' | '\'' => quoted(rest, at)?,
            'r' | 'R' if rest.get(1..).is_some_and(|r| r.starts_with(['"', '\''])) => raw(rest, at)?,
            'b' | 'B' if rest.get(1..).is_some_and(|r| r.starts_with(['"', '\''])) => {
                return Err(Complaint::new(at..at + 1, "bytes are not used here").hint("write a string"));
            }
            '0'..='9' => number(rest, at)?,
            c if c.is_ascii_alphabetic() || c == '_' => {
                let length =
                    rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                (Word::Name(rest.get(..length).unwrap_or_default().to_owned()), length)
            }
            _ => sign(rest, at)?,
        };
        out.push((word, at..at + length));
        at += length;
    }
    out.push((Word::End, text.len()..text.len()));
    Ok(out)
}

fn sign(rest: &str, at: usize) -> Result<(Word, usize), Complaint> {
    if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
        return Ok((Word::Sign(sign), sign.len()));
    }
    let c = rest.chars().next().unwrap_or_default();
    let complaint =
        Complaint::new(at..at + c.len_utf8(), format!("`{c}` begins nothing that a condition may hold"));
    Err(match c {
        '=' => complaint.hint("write == to compare"),
        '&' => complaint.hint("write &&"),
        '|' => complaint.hint("write ||"),
        _ => complaint,
    })
}

fn number(rest: &str, at: usize) -> Result<(Word, usize), Complaint> {
    let hex = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X"));
    let (digits, radix, prefix) = hex.map_or((rest, 10, 0), |digits| (digits, 16, 2));
    let length = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let whole = prefix + length;
    let after = rest.get(whole..).unwrap_or_default();
    let fraction = after.strip_prefix('.').is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()));
    if fraction || (radix == 10 && after.starts_with(['e', 'E'])) {
        return Err(Complaint::new(at..at + whole, "numbers are whole here")
            .hint("every field that counts is an int"));
    }
    if after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        return Err(
            Complaint::new(at..at + whole + 1, "a number ends in a letter").hint("put a blank between them")
        );
    }
    let value = i64::from_str_radix(digits.get(..length).unwrap_or_default(), radix);
    let value = value.map_err(|_error| Complaint::new(at..at + whole, "the number does not fit 64 bits"))?;
    Ok((Word::Int(value), whole))
}

fn raw(rest: &str, at: usize) -> Result<(Word, usize), Complaint> {
    let quote = rest.chars().nth(1).unwrap_or('"');
    let inside = rest.get(2..).unwrap_or_default();
    let end =
        inside.find([quote, '\n']).filter(|end| inside.get(*end..).is_some_and(|r| r.starts_with(quote)));
    let end = end.ok_or_else(|| unclosed(at))?;
    Ok((Word::Text(inside.get(..end).unwrap_or_default().to_owned()), end + 3))
}

fn unclosed(at: usize) -> Complaint {
    Complaint::new(at..at + 1, "this string has no end").hint("close it with the same quote on the same line")
}

fn quoted(rest: &str, at: usize) -> Result<(Word, usize), Complaint> {
    let mut chars = rest.char_indices();
    let quote = chars.next().map(|(_, c)| c).unwrap_or_default();
    let mut text = String::new();
    while let Some((offset, c)) = chars.next() {
        match c {
            c if c == quote => return Ok((Word::Text(text), offset + c.len_utf8())),
            '\n' => break,
            '\\' => {
                let escaped = chars.next().ok_or_else(|| unclosed(at))?.1;
                let digits = match escaped {
                    'n' => Err('\n'),
                    't' => Err('\t'),
                    'r' => Err('\r'),
                    'a' => Err('\u{7}'),
                    'b' => Err('\u{8}'),
                    'f' => Err('\u{c}'),
                    'v' => Err('\u{b}'),
                    '\\' | '\'' | '"' | '`' | '?' => Err(escaped),
                    'x' | 'X' => Ok(2),
                    'u' => Ok(4),
                    'U' => Ok(8),
                    other => {
                        let place = at + offset..at + offset + 1 + other.len_utf8();
                        let complaint = Complaint::new(place, format!("`\\{other}` is no escape"));
                        return Err(complaint.hint("write \\\\ for a backslash, or a raw string r\"...\""));
                    }
                };
                text.push(match digits {
                    Err(c) => c,
                    Ok(count) => {
                        let digits: String = chars.by_ref().take(count).map(|(_, c)| c).collect();
                        let whole = digits.len() == count && digits.chars().all(|c| c.is_ascii_hexdigit());
                        let code = u32::from_str_radix(&digits, 16).ok().filter(|_| whole);
                        code.and_then(char::from_u32).ok_or_else(|| {
                            let place = at + offset..at + offset + 1;
                            Complaint::new(
                                place,
                                format!("{count} hexadecimal digits of a character must follow"),
                            )
                        })?
                    }
                });
            }
            c => text.push(c),
        }
    }
    Err(unclosed(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<Word> {
        words(text).unwrap().into_iter().map(|(word, _)| word).collect()
    }

    #[test]
    fn takes_conditions_apart() {
        let name = |n: &str| Word::Name(n.into());
        assert_eq!(
            of("a.b_1<=0x1F // why\n&& !x"),
            [
                name("a"),
                Word::Sign("."),
                name("b_1"),
                Word::Sign("<="),
                Word::Int(31),
                Word::Sign("&&"),
                Word::Sign("!"),
                name("x"),
                Word::End
            ]
        );
        assert_eq!(
            of(r#"'a\'\n\x41' r"\d" "\u00e9""#),
            [Word::Text("a'\nA".into()), Word::Text("\\d".into()), Word::Text("é".into()), Word::End]
        );
    }

    #[test]
    fn refuses_with_a_remedy() {
        for (text, place, hint) in [
            ("a = 1", 2..3, "write == to compare"),
            ("a & b", 2..3, "write &&"),
            ("1.5", 0..1, "every field that counts is an int"),
            ("'abc", 0..1, "close it with the same quote on the same line"),
            (r"'\d'", 1..3, r#"write \\ for a backslash, or a raw string r"...""#),
        ] {
            let complaint = words(text).unwrap_err();
            assert_eq!((complaint.place, complaint.hint.as_deref()), (place, Some(hint)), "{text}");
        }
    }
}
