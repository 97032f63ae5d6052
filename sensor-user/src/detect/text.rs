//! Text that is safe to keep: printable, bounded, without credentials.
//!
//! Everything of an exchange that reaches an alert passes here. It does not see secrets that look like plain words.
//! Personal data stays as it is: how much of it is shown is configured, and `render::privacy` sees to it for every
//! event. [`path`] and [`mask_segment`] mask at once what is shown without passing there.

/// Characters that reorder or hide text in a terminal or browser: bidirectional controls, zero-width, line separators.
const fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a character would act on a terminal, or deceive a reader, instead of being read.
#[must_use]
pub fn is_unprintable(c: char) -> bool {
    c.is_control() || is_deceptive(c)
}

/// `bytes` as printable text of at most `max` bytes and an ellipsis. Invalid UTF-8 becomes U+FFFD, controls and
/// deceptive characters their `\u{..}` escapes, and whatever looks like a JWT the word `{token}`.
#[must_use]
pub fn printable(bytes: &[u8], max: usize) -> String {
    // A token that the cut would leave in part must be seen whole first; four times is enough for any header
    // that servers take and keeps the work bounded.
    let window = bytes.get(..max.saturating_mul(4).max(1024)).unwrap_or(bytes);
    let text = String::from_utf8_lossy(window);
    let mut out = String::with_capacity(text.len().min(max) + 4);
    for c in without_tokens(&text).chars() {
        if out.len() >= max {
            out.push('…');
            break;
        }
        push_char(&mut out, c);
    }
    out
}

/// Appends a character, escaped if it is not printable.
pub fn push_char(out: &mut String, c: char) {
    if is_unprintable(c) {
        out.extend(c.escape_unicode());
    } else {
        out.push(c);
    }
}

/// The path of a request as it may be shown to anybody: printable, bounded, each segment masked by [`mask_segment`].
#[must_use]
pub fn path(bytes: &[u8], max: usize) -> String {
    path_by(bytes, max, mask_segment)
}

/// The path of a request as findings keep it: printable, bounded, each segment cleaned by [`clean_segment`].
#[must_use]
pub fn clean_path(bytes: &[u8], max: usize) -> String {
    path_by(bytes, max, clean_segment)
}

fn path_by(bytes: &[u8], max: usize, show: fn(&str) -> String) -> String {
    let window = bytes.get(..max.saturating_mul(4)).unwrap_or(bytes);
    let text = String::from_utf8_lossy(window);
    let mut out = String::with_capacity(text.len().min(max) + 4);
    for (number, segment) in text.split('/').enumerate() {
        if out.len() > max {
            break;
        }
        if number > 0 {
            out.push('/');
        }
        for c in show(segment).chars() {
            push_char(&mut out, c);
        }
    }
    if out.len() > max {
        out.truncate(out.floor_char_boundary(max));
        out.push('…');
    }
    out
}

/// Takes secrets out of a path segment: path parameters (`;jsessionid=`), tokens, and long random strings, which may be
/// capabilities. `%40` is shown as the `@` that it is.
#[must_use]
pub fn clean_segment(segment: &str) -> String {
    if let Some((name, _)) = segment.split_once(';') {
        return format!("{};…", clean_segment(name));
    }
    if segment.contains("eyJ") {
        return "{token}".to_owned();
    }
    if segment.contains('@') || segment.contains("%40") {
        return segment.replace("%40", "@");
    }
    if is_random(segment) {
        return format!("{}…", segment.get(..4).unwrap_or_default());
    }
    segment.to_owned()
}

/// [`clean_segment`], and e-mail addresses, telephone and account numbers masked in part.
#[must_use]
pub fn mask_segment(segment: &str) -> String {
    let clean = clean_segment(segment);
    if clean.contains('@') { mask_email(&clean) } else { mask_number(&clean).unwrap_or(clean) }
}

/// A word that is nothing but a long number, `…` and its last four digits: telephone and account numbers have nine
/// digits or more, dates and ids of most databases have fewer.
#[must_use]
pub fn mask_number(word: &str) -> Option<String> {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let numeric = word.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.'));
    let last = word.get(word.len().saturating_sub(4)..).unwrap_or_default();
    (numeric && digits >= 9).then(|| format!("…{last}"))
}

/// Long, of the characters that tokens are made of, with digits among capital and small letters. UUIDs and hex
/// digests have one case only; words have no digits.
fn is_random(segment: &str) -> bool {
    let charset = |b: u8| b.is_ascii_alphanumeric() || b"-_.~+=%".contains(&b);
    segment.len() >= 24
        && segment.bytes().all(charset)
        && segment.bytes().any(|b| b.is_ascii_digit())
        && segment.bytes().any(|b| b.is_ascii_uppercase())
        && segment.bytes().any(|b| b.is_ascii_lowercase())
}

/// `alice@example.com` as `a…@example.com`. Text without `@` is returned as it is.
#[must_use]
pub fn mask_email(text: &str) -> String {
    match text.split_once('@') {
        Some((local, domain)) => {
            format!("{}…@{domain}", local.chars().next().map_or(String::new(), String::from))
        }
        None => text.to_owned(),
    }
}

/// Whether a byte can be part of a compact JWS or JWE.
const fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'=')
}

/// Replaces every run of token characters that holds a base64url `{"` by `{token}`.
fn without_tokens(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains("eyJ") {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let run = rest.bytes().position(|b| !is_token_byte(b)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(run);
        out.push_str(if word.len() >= 16 && word.contains("eyJ") { "{token}" } else { word });
        let gap = after.bytes().position(is_token_byte).unwrap_or(after.len());
        let (gap, next) = after.split_at(gap);
        out.push_str(gap);
        rest = next;
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_what_would_act_on_a_terminal() {
        assert_eq!(printable(b"a\x1b[31mb\r\n\xff", 64), "a\\u{1b}[31mb\\u{d}\\u{a}\u{fffd}");
        assert_eq!(printable("x\u{202e}y\u{200b}".as_bytes(), 64), "x\\u{202e}y\\u{200b}");
    }

    #[test]
    fn hides_tokens_in_any_header() {
        let said = "curl/8 (Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2lnbmF0dXJl)";
        assert_eq!(printable(said.as_bytes(), 200), "curl/8 (Bearer {token})");
    }

    #[test]
    fn masks_what_a_path_gives_away() {
        for (path_, shown) in [
            ("/users/alice@example.com/x", "/users/a…@example.com/x"),
            ("/users/alice%40example.com", "/users/a…@example.com"),
            ("/pay/4111111111111111", "/pay/…1111"),
            ("/call/+49-30-1234567", "/call/…4567"),
            ("/a;jsessionid=1234/b", "/a;…/b"),
            ("/reset/Zk9qTx7Lw2Vb8Nc4Hd6Jf1Gs", "/reset/Zk9q…"),
            ("/reset/eyJhbGciOiJub25lIn0.e30.", "/reset/{token}"),
            ("/orders/550e8400-e29b-41d4-a716-446655440000", "/orders/550e8400-e29b-41d4-a716-446655440000"),
            ("/orders/12345678", "/orders/12345678"),
        ] {
            assert_eq!(path(path_.as_bytes(), 256), shown);
        }
    }

    #[test]
    fn keeps_people_and_drops_secrets_in_a_clean_path() {
        for (path_, kept) in [
            ("/users/alice%40example.com/x", "/users/alice@example.com/x"),
            ("/pay/4111111111111111", "/pay/4111111111111111"),
            ("/a;jsessionid=1234/b", "/a;…/b"),
            ("/reset/Zk9qTx7Lw2Vb8Nc4Hd6Jf1Gs", "/reset/Zk9q…"),
            ("/reset/eyJhbGciOiJub25lIn0.e30.", "/reset/{token}"),
        ] {
            assert_eq!(clean_path(path_.as_bytes(), 256), kept);
        }
    }

    proptest! {
        #[test]
        fn shows_no_control_and_stays_bounded(bytes in prop::collection::vec(any::<u8>(), 0..2000), max in 0_usize..300) {
            for shown in [printable(&bytes, max), path(&bytes, max), clean_path(&bytes, max)] {
                prop_assert!(!shown.chars().any(is_unprintable));
                prop_assert!(shown.len() <= max + 16);
            }
        }
    }
}
