//! Text from strangers, made fit to be shown: bounded, one line, no surprises for the reader's terminal.

use crate::token::facts::MAX_TEXT;

/// `text` with control, direction-changing and invisible characters escaped, cut to [`MAX_TEXT`] bytes at a
/// character border; a cut text ends in `…`.
#[must_use]
pub fn printable(text: &str) -> Box<str> {
    if text.len() <= MAX_TEXT && text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len().min(MAX_TEXT));
    // Where to cut should the whole not fit: the last border that leaves room for the ellipsis.
    let mut border = 0;
    for character in text.chars() {
        if out.len() + ELLIPSIS.len_utf8() <= MAX_TEXT {
            border = out.len();
        }
        if is_treacherous(character) {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
        if out.len() > MAX_TEXT {
            out.truncate(border);
            out.push(ELLIPSIS);
            break;
        }
    }
    out.into_boxed_str()
}

const ELLIPSIS: char = '…';

/// Characters that show nothing, move the cursor or turn the writing direction (Unicode `Cc`, `Cf` in practice,
/// line separators, tags; UTR 36 section 3).
#[must_use]
pub fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_what_could_mislead() {
        assert_eq!(&*printable("alice"), "alice");
        assert_eq!(&*printable("é"), "é");
        assert_eq!(&*printable("a\nb\u{1b}[31m"), "a\\u{a}b\\u{1b}[31m");
        assert_eq!(&*printable("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn cuts_long_texts_at_a_border() {
        let cut = printable(&"é".repeat(1_000_000));
        assert!(cut.len() <= MAX_TEXT && cut.ends_with('…'));
        assert_eq!(printable(&"x".repeat(MAX_TEXT)).len(), MAX_TEXT);
        assert_eq!(printable(&"x".repeat(MAX_TEXT + 1)).len(), MAX_TEXT);
    }

    proptest! {
        #[test]
        fn output_is_bounded_and_tame(text in "\\PC{0,200}|(.|\n){0,300}") {
            let out = printable(&text);
            prop_assert!(out.len() <= MAX_TEXT);
            prop_assert!(!out.chars().any(is_treacherous));
        }
    }
}
