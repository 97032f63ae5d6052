//! Forms (WHATWG URL, section 5): `name=value` pairs, percent-encoded. Rails' `user[email]` is a member of `user`.

use zeroize::Zeroizing;

use super::names::Finds;
use super::scan::{Name, Place};

/// The pairs of a form or query, still encoded.
pub(super) fn pairs(text: &[u8]) -> impl Iterator<Item = (Zeroizing<Vec<u8>>, &[u8])> {
    text.split(|b| *b == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        (decoded(pair.get(..at).unwrap_or_default()), pair.get(at + 1..).unwrap_or_default())
    })
}

/// Offers every pair whose value is whole.
pub(super) fn read(text: &[u8], cut: bool, member: Option<&str>, finds: &mut Finds) {
    let whole = if cut { memchr::memrchr(b'&', text).unwrap_or(0) } else { text.len() };
    for (name, value) in pairs(text.get(..whole).unwrap_or_default()) {
        let Some(name) = std::str::from_utf8(&name).ok().and_then(|name| Name::from(name.trim()).ok()) else {
            continue;
        };
        let (outer, name) = match name.strip_suffix(']').and_then(|inner| inner.split_once('[')) {
            Some((outer, inner)) => (Some(outer), inner),
            None => (None, name.as_str()),
        };
        finds.offer(member, &Place { outer, name, element: 0 }, &mut || decoded(value));
    }
}

/// A name or value decoded: `+` is a blank; what is no escape stays as it is.
pub(super) fn decoded(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let digit = |at: usize| text.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut out = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match (byte, digit(at), digit(at + 1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_is_encoded_and_keeps_the_rest() {
        assert_eq!(&**decoded(b"a%40b+c%2"), b"a@b c%2");
        assert_eq!(&**decoded(b"%zz%"), b"%zz%");
    }

    #[test]
    fn splits_pairs() {
        let all: Vec<_> =
            pairs(b"a=1&&b&c=d=e").map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        assert_eq!(
            all,
            [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), vec![]), (b"c".to_vec(), b"d=e".to_vec())]
        );
    }
}
