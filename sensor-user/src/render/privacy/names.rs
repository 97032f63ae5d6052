//! Names of people wherever they stand in a text, and what stands there instead.
//!
//! A name is found as a whole word, whatever its case, also where a `%XX` in a path spells it. It does not see a name
//! that the exchange does not give: an id in a path that is somebody else's is data of the path.

use std::borrow::Cow;

use super::pseudonym::Pseudonyms;
use crate::detect::text::push_char;

/// From so many bytes on, the beginning of a name is enough: what is shown may have been cut.
const ENOUGH: usize = 48;

/// Most names replaced in one text: what is behind is cut off, so that a name of one letter makes no text long.
const MAX_FOUND: usize = 32;

/// Names, each with what is shown for it.
#[derive(Debug, Default)]
pub struct Names(Vec<(Box<str>, String)>);

impl Names {
    /// These names, under their pseudonyms. What has no letter and no digit names nobody.
    #[must_use]
    pub fn new<'n>(names: impl Iterator<Item = &'n str>, pseudonyms: &Pseudonyms) -> Self {
        let mut known: Vec<(Box<str>, String)> = Vec::new();
        for name in names.filter(|name| name.chars().any(char::is_alphanumeric)) {
            let small = name.to_lowercase().into_boxed_str();
            if known.iter().all(|(other, _)| *other != small) {
                known.push((small, pseudonyms.of(name)));
            }
        }
        // A name may hold another: `alice@example.com` and `alice`.
        known.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Self(known)
    }

    /// The text without the names.
    #[must_use]
    pub fn hide<'t>(&self, text: Cow<'t, str>) -> Cow<'t, str> {
        if self.0.is_empty() {
            return text;
        }
        let text = self.decoded(text);
        let mut out = String::new();
        let (mut done, mut at, mut found) = (0, 0, 0);
        let mut before: Option<char> = None;
        while let Some(letter) = text.get(at..).and_then(|rest| rest.chars().next()) {
            let starts = !(before.is_some_and(char::is_alphanumeric) && letter.is_alphanumeric());
            let Some((end, instead)) = starts.then(|| self.at(&text, at)).flatten() else {
                (at, before) = (at + letter.len_utf8(), Some(letter));
                continue;
            };
            out.push_str(text.get(done..at).unwrap_or_default());
            out.push_str(instead);
            before = text.get(..end).and_then(|part| part.chars().next_back());
            (done, at, found) = (end, end, found + 1);
            if found == MAX_FOUND {
                out.push('…');
                return Cow::Owned(out);
            }
        }
        if found == 0 {
            return text;
        }
        out.push_str(text.get(done..).unwrap_or_default());
        Cow::Owned(out)
    }

    /// The name that begins here: where it ends, and what is shown for it.
    fn at(&self, text: &str, at: usize) -> Option<(usize, &str)> {
        let rest = text.get(at..)?;
        self.0.iter().find_map(|(name, instead)| {
            let length = match matching(rest, name)? {
                Match::Whole(length) => {
                    let ends = rest.get(..length)?.chars().next_back()?;
                    let after = rest.get(length..)?.chars().next();
                    let joins = ends.is_alphanumeric() && after.is_some_and(char::is_alphanumeric);
                    if joins {
                        return None;
                    }
                    length
                }
                Match::Start(length) => {
                    // Another name may begin alike: only what was cut, or ends here, is this one.
                    let more = rest.get(length..)?;
                    if !more.is_empty() && !more.starts_with('…') {
                        return None;
                    }
                    length + first_len(more)
                }
            };
            Some((at + length, instead.as_str()))
        })
    }

    /// The text as it is, unless taking `%XX` for what they stand for shows a name.
    fn decoded<'t>(&self, text: Cow<'t, str>) -> Cow<'t, str> {
        if !text.contains('%') {
            return text;
        }
        let plain = percent_decoded(&text);
        let shows = |text: &str| text.char_indices().any(|(at, _)| self.at(text, at).is_some());
        if shows(&plain) { Cow::Owned(plain) } else { text }
    }
}

/// So many bytes of the text are the whole name, or its beginning.
enum Match {
    Whole(usize),
    Start(usize),
}

fn first_len(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

/// How many bytes of the text are the name, whatever its case. `name` is in small letters.
fn matching(text: &str, name: &str) -> Option<Match> {
    let mut wanted = name.chars();
    let mut matched = 0;
    for (at, letter) in text.char_indices() {
        if wanted.as_str().is_empty() {
            return Some(Match::Whole(at));
        }
        for small in letter.to_lowercase() {
            if wanted.next() != Some(small) {
                return (matched >= ENOUGH).then_some(Match::Start(at));
            }
        }
        matched = at + letter.len_utf8();
    }
    if wanted.as_str().is_empty() {
        return Some(Match::Whole(text.len()));
    }
    (matched >= ENOUGH).then_some(Match::Start(text.len()))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digit = |at: usize| tail.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (first, digit(0), digit(1)) {
            bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
            rest = tail.get(2..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    let mut out = String::with_capacity(bytes.len());
    String::from_utf8_lossy(&bytes).chars().for_each(|c| push_char(&mut out, c));
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hidden(names: &[&str], text: &str) -> String {
        let keys = Pseudonyms::new(b"key");
        let mut shown = Names::new(names.iter().copied(), &keys).hide(text.into()).into_owned();
        for (index, name) in names.iter().enumerate() {
            shown = shown.replace(&keys.of(name), &format!("<{index}>"));
        }
        shown
    }

    #[test]
    fn names_are_hidden_as_whole_words() {
        for (names, text, shown) in [
            (
                &["alice"][..],
                "Alice and malice: /users/alice/x, alice-smith.",
                "<0> and malice: /users/<0>/x, <0>-smith.",
            ),
            (&["alice", "alice@example.com"], "alice@example.com (alice)", "<1> (<0>)"),
            (&["a b"], "/u/a%20b/c", "/u/<0>/c"),
            (&["a b"], "/u/a%20c/%31", "/u/a%20c/%31"),
            (&["42"], "/u/42/142/42", "/u/<0>/142/<0>"),
            (&["auth0|7"], "by auth0|7.", "by <0>."),
            (&["Äpfel"], "äpfel ÄPFEL äpfelig", "<0> <0> äpfelig"),
            (&["-", ""], "a - b", "a - b"),
            (&[], "alice", "alice"),
        ] {
            assert_eq!(hidden(names, text), shown, "{text}");
        }
    }

    #[test]
    fn a_cut_name_is_still_the_name() {
        let long = "n".repeat(200);
        let cut = format!("by {}… on /x", "n".repeat(64));
        assert_eq!(hidden(&[&long], &cut), "by <0> on /x");
        let other = format!("by {}m on /x", "n".repeat(64));
        assert_eq!(hidden(&[&long], &other), other, "somebody else, whose name begins alike");
        assert_eq!(hidden(&[&long], &"n".repeat(64)), "<0>");
    }

    #[test]
    fn a_name_of_one_letter_makes_no_long_text() {
        let shown = hidden(&["a"], &"a ".repeat(500));
        assert_eq!(shown.matches("<0>").count(), MAX_FOUND);
        assert!(shown.ends_with('…') && shown.len() < 200);
    }

    proptest! {
        #[test]
        fn no_whole_name_is_left(name in "[a-z][a-z0-9@.|_-]{0,40}[a-z0-9]", before in "[ /(:]", after in "[ /),]", upper in any::<bool>()) {
            let said = if upper { name.to_uppercase() } else { name.clone() };
            let shown = hidden(&[&name], &format!("x{before}{said}{after}y"));
            prop_assert_eq!(shown, format!("x{before}<0>{after}y"));
        }

        #[test]
        fn no_text_is_too_odd(name in "\\PC{0,60}", text in "\\PC{0,80}|(%[0-9a-f]{2}|x){0,20}") {
            let _ = hidden(&[&name, "x"], &text);
        }
    }
}
